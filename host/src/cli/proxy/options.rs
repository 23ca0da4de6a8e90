//! The options about where flows go, of every command that dials.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use l3l4_host::proxy::{Config, Denial, Dns, Mapping, Ping, Rule, Upstream};
use serde::Deserialize;

/// The options about where flows go. Each may also stand in a file, under its long
/// name.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct ProxyOptions {
    /// Through whom flows are dialled: direct, socks5://HOST:PORT or http://HOST:PORT
    /// (TCP, and DNS over TCP); USER:PASSWORD@ goes before the host [default: direct].
    #[arg(long, value_name = "URL", help_heading = WHERE)]
    proxy: Option<Said<Upstream>>,
    /// Send every flow to port 53 to this resolver, ADDRESS or ADDRESS:PORT. Or virtual: answer
    /// names with addresses of 198.18.0.0/15 and fd6c:336c:3400::/64, and dial a flow
    /// to one of those by its name, which the upstream then resolves.
    #[arg(long, value_name = "RESOLVER", help_heading = WHERE)]
    dns: Option<Said<Dns>>,
    /// Dial flows to one address at another: 10.0.2.2=127.0.0.1; again for more. This
    /// host itself (127.0.0.0/8, ::1) is reached in no other way.
    #[arg(long, value_name = "ADDRESS=ADDRESS", help_heading = WHERE)]
    map: Vec<Said<Mapping>>,
    /// Bind real sockets to this interface (SO_BINDTODEVICE).
    #[arg(long, value_name = "NAME", help_heading = WHERE)]
    bind_interface: Option<String>,
    /// Mark the packets of real sockets for ip rule (SO_MARK).
    #[arg(long, value_name = "NUMBER", help_heading = WHERE)]
    mark: Option<u32>,
    /// What is done with pings [default: pass].
    #[arg(long, value_name = "WHAT", value_enum, help_heading = WHERE)]
    ping: Option<PingArg>,

    /// Let these flows pass, and no others: [tcp:|udp:|icmp:]NETWORK[:PORT[-PORT]] such
    /// as 10.0.0.0/8:443, [fd00::/8]:443, tcp:*:80-443; again for more. --dns passes
    /// what it redirects.
    #[arg(long, value_name = "RULE", help_heading = WHICH)]
    allow: Vec<Said<Rule>>,
    /// Let these flows not pass, whatever --allow says; again for more.
    #[arg(long, value_name = "RULE", help_heading = WHICH)]
    deny: Vec<Said<Rule>>,
    /// What the peer of a denied flow is told [default: reset].
    #[arg(long, value_name = "WHAT", value_enum, help_heading = WHICH)]
    verdict: Option<VerdictArg>,
    /// Most flows at once [default: 16384].
    #[arg(long, value_name = "FLOWS", help_heading = WHICH)]
    max_flows: Option<usize>,
    /// Most flows at once of one address.
    #[arg(long, value_name = "FLOWS", help_heading = WHICH)]
    max_flows_per_peer: Option<usize>,

    /// How long a destination has to answer [default: 75].
    #[arg(long, value_name = "SECONDS", help_heading = HOW_LONG)]
    connect_timeout: Option<u32>,
    /// How long nothing may move on a TCP flow [default: 7440].
    #[arg(long, value_name = "SECONDS", help_heading = HOW_LONG)]
    tcp_timeout: Option<u32>,
    /// How long nothing may move on a UDP flow [default: 300]; to port 53 it is at most
    /// 30 s.
    #[arg(long, value_name = "SECONDS", help_heading = HOW_LONG)]
    udp_timeout: Option<u32>,
}

const WHERE: &str = "Where flows go";
const WHICH: &str = "Which flows pass";
const HOW_LONG: &str = "How long they last";

impl ProxyOptions {
    /// What is said here, and `other` where nothing is. A list said here stands in the
    /// place of the other's.
    pub(crate) fn or(self, other: Self) -> Self {
        let list = |mine: Vec<Said<Rule>>, others| if mine.is_empty() { others } else { mine };
        Self {
            proxy: self.proxy.or(other.proxy),
            dns: self.dns.or(other.dns),
            map: if self.map.is_empty() {
                other.map
            } else {
                self.map
            },
            bind_interface: self.bind_interface.or(other.bind_interface),
            mark: self.mark.or(other.mark),
            ping: self.ping.or(other.ping),
            allow: list(self.allow, other.allow),
            deny: list(self.deny, other.deny),
            verdict: self.verdict.or(other.verdict),
            max_flows: self.max_flows.or(other.max_flows),
            max_flows_per_peer: self.max_flows_per_peer.or(other.max_flows_per_peer),
            connect_timeout: self.connect_timeout.or(other.connect_timeout),
            tcp_timeout: self.tcp_timeout.or(other.tcp_timeout),
            udp_timeout: self.udp_timeout.or(other.udp_timeout),
        }
    }

    /// The configuration that is said.
    pub(crate) fn config(&self) -> Config {
        let default = Config::default();
        let time = |seconds: Option<u32>, default| {
            seconds.map_or(default, |seconds| Duration::from_secs(seconds.into()))
        };
        Config {
            upstream: said(&self.proxy),
            dns: said(&self.dns),
            map: all_said(&self.map),
            allow: all_said(&self.allow),
            deny: all_said(&self.deny),
            denial: self.verdict.map(Denial::from).unwrap_or_default(),
            max_flows: self.max_flows.unwrap_or(default.max_flows),
            max_flows_per_peer: self.max_flows_per_peer,
            connect_timeout: time(self.connect_timeout, default.connect_timeout),
            tcp_timeout: time(self.tcp_timeout, default.tcp_timeout),
            udp_timeout: time(self.udp_timeout, default.udp_timeout),
            bind_interface: self.bind_interface.clone(),
            mark: self.mark,
            ping: self.ping.map(Ping::from).unwrap_or_default(),
            resolvers: default.resolvers,
            behind: default.behind,
            detect_loops: default.detect_loops,
        }
    }
}

fn said<T: Clone + Default>(value: &Option<Said<T>>) -> T {
    value
        .as_ref()
        .map(|said| said.0.clone())
        .unwrap_or_default()
}

fn all_said<T: Clone>(values: &[Said<T>]) -> Vec<T> {
    values.iter().map(|said| said.0.clone()).collect()
}

/// What is said in the same words on the command line and in a file.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(try_from = "String", bound = "T: FromStr, T::Err: fmt::Display")]
pub(crate) struct Said<T>(pub(crate) T);

impl<T: FromStr> FromStr for Said<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse().map(Self)
    }
}

impl<T: FromStr> TryFrom<String> for Said<T> {
    type Error = T::Err;

    fn try_from(text: String) -> Result<Self, T::Err> {
        text.parse()
    }
}

impl<T: fmt::Debug> fmt::Debug for Said<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the peer of a denied flow is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VerdictArg {
    /// RST; for UDP, port unreachable.
    Reset,
    /// ICMP: administratively prohibited.
    Prohibited,
    /// Nothing.
    Silence,
}

impl From<VerdictArg> for Denial {
    fn from(verdict: VerdictArg) -> Self {
        match verdict {
            VerdictArg::Reset => Self::Reset,
            VerdictArg::Prohibited => Self::Prohibited,
            VerdictArg::Silence => Self::Silence,
        }
    }
}

/// What is done with pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PingArg {
    /// Sent on where net.ipv4.ping_group_range allows it, else answered here.
    Pass,
    /// Answered here, for every address.
    Answer,
    /// Dropped.
    Drop,
}

impl From<PingArg> for Ping {
    fn from(ping: PingArg) -> Self {
        match ping {
            PingArg::Pass => Self::Pass,
            PingArg::Answer => Self::Answer,
            PingArg::Drop => Self::Drop,
        }
    }
}
