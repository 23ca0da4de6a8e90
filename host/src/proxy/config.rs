//! What a proxy is told before it starts.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::rules::Rule;
use super::target::Mapping;
use super::upstream::Upstream;
use crate::Refusal;

/// What a proxy is told before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Through whom flows are dialled.
    pub upstream: Upstream,
    /// What is done with flows to port 53.
    pub dns: Dns,
    /// Resolvers by the address that a flow to port 53 wanted to go to. Those to any
    /// other go as `dns` says.
    pub resolvers: Vec<(IpAddr, SocketAddr)>,
    /// Destinations that are dialled elsewhere.
    pub map: Vec<Mapping>,
    /// Flows that may pass: with any of these the others may not. Where flows to
    /// port 53 are sent is for `resolvers` and `dns` to say: no rule is asked about those
    /// but a `deny` for every address.
    pub allow: Vec<Rule>,
    /// Flows that may not pass, whatever `allow` says.
    pub deny: Vec<Rule>,
    /// What the peer of a denied flow is told.
    pub denial: Denial,
    /// Networks behind the device, whose flows would come straight back. They are
    /// refused unless they are in `map`.
    pub behind: Vec<IpNet>,
    /// Whether a flow that comes from one of the proxy's own sockets is refused. Off
    /// where the device is in another network namespace than the sockets: addresses
    /// that are equal are not the same there.
    pub detect_loops: bool,
    /// Most flows at once; the request of another is ignored, and its peer tries
    /// again. Each takes one descriptor, or two through SOCKS5 with UDP.
    pub max_flows: usize,
    /// Most flows at once of one peer's address.
    pub max_flows_per_peer: Option<usize>,
    /// How long a destination has to answer. The kernel gives up after about 127 s
    /// (tcp(7), `tcp_syn_retries`); the engine, when its peer was silent for 75 s.
    pub connect_timeout: Duration,
    /// How long nothing may move on a TCP flow: at least 2 hours 4 minutes for
    /// strangers' sake (RFC 5382 REQ-5).
    pub tcp_timeout: Duration,
    /// How long nothing may move on a UDP flow: 5 minutes, and not less than 2
    /// (RFC 4787 REQ-5). Those to port 53 have at most 30 s (REQ-5a).
    pub udp_timeout: Duration,
    /// The interface that real sockets are bound to (`SO_BINDTODEVICE`).
    pub bind_interface: Option<String>,
    /// The mark that real sockets carry (`SO_MARK`), for `ip rule`.
    pub mark: Option<u32>,
    /// What is done with pings.
    pub ping: Ping,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            upstream: Upstream::Direct,
            dns: Dns::Untouched,
            resolvers: Vec::new(),
            map: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            denial: Denial::Reset,
            behind: Vec::new(),
            detect_loops: true,
            max_flows: 16_384,
            max_flows_per_peer: None,
            connect_timeout: Duration::from_secs(75),
            tcp_timeout: Duration::from_secs(7440),
            udp_timeout: Duration::from_secs(300),
            bind_interface: None,
            mark: None,
            ping: Ping::Pass,
        }
    }
}

/// What is wrong with a [`Config`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The rule speaks of addresses, and the upstream alone knows those.
    #[error(
        "deny {rule} cannot be kept while {upstream} resolves the names: deny there, or give --dns the address of a resolver"
    )]
    DenyUnderNames {
        /// The rule.
        rule: Rule,
        /// The upstream.
        upstream: Upstream,
    },
    /// A mapping from one family to the other keeps the port and nothing else.
    #[error("{0} maps an address of one IP version to the other")]
    MapFamilies(Mapping),
    /// A limit of nothing.
    #[error("{0} is 0: nothing could pass")]
    Zero(&'static str),
}

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if let Some(mapping) = self
            .map
            .iter()
            .find(|mapping| mapping.from.is_ipv4() != mapping.to.is_ipv4())
        {
            return Err(ConfigError::MapFamilies(*mapping));
        }
        for (name, is_zero) in [
            ("max-flows", self.max_flows == 0),
            ("max-flows-per-peer", self.max_flows_per_peer == Some(0)),
            ("connect-timeout", self.connect_timeout.is_zero()),
            ("tcp-timeout", self.tcp_timeout.is_zero()),
            ("udp-timeout", self.udp_timeout.is_zero()),
        ] {
            if is_zero {
                return Err(ConfigError::Zero(name));
            }
        }
        if self.dns != Dns::Virtual || !self.upstream.resolves_names() {
            return Ok(());
        }
        match self.deny.iter().find(|rule| rule.network().is_some()) {
            None => Ok(()),
            Some(rule) => Err(ConfigError::DenyUnderNames {
                rule: rule.clone(),
                upstream: self.upstream.clone(),
            }),
        }
    }
}

/// What is done with flows to port 53.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dns {
    /// They are flows as any other.
    #[default]
    Untouched,
    /// They all go to this resolver, wherever they wanted to go.
    Redirect(SocketAddr),
    /// The proxy answers each question for an address with one of 198.18.0.0/15
    /// (RFC 2544) or fd6c:336c:3400::/64, and dials a flow to it by its name.
    Virtual,
}

impl FromStr for Dns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "virtual" {
            return Ok(Self::Virtual);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Redirect(address));
        }
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self::Redirect(SocketAddr::new(address, 53))),
            Err(_) => Err(format!(
                "{text:?} is no resolver: write ADDRESS, ADDRESS:PORT ([ADDRESS]:PORT for IPv6) or virtual"
            )),
        }
    }
}

/// What the peer of a denied flow is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Denial {
    /// RST, and for UDP that the port is unreachable.
    #[default]
    Reset,
    /// That it is administratively prohibited (ICMP).
    Prohibited,
    /// Nothing.
    Silence,
}

impl Denial {
    /// What is said; `None` is silence.
    pub(super) fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Reset => Some(Refusal::Reset),
            Self::Prohibited => Some(Refusal::Prohibited),
            Self::Silence => None,
        }
    }
}

/// What is done with pings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ping {
    /// They are sent on to their destination where the system lets this user
    /// (`net.ipv4.ping_group_range`) and no upstream is between; elsewhere they are
    /// answered here.
    #[default]
    Pass,
    /// The engine answers for every address.
    Answer,
    /// They are dropped.
    Drop,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Config, ConfigError, Dns};

    #[test]
    fn a_resolver_has_a_port_or_gets_it() {
        for (text, dns) in [
            ("192.0.2.53", Some("192.0.2.53:53")),
            ("192.0.2.53:5353", Some("192.0.2.53:5353")),
            ("2001:db8::53", Some("[2001:db8::53]:53")),
            ("[2001:db8::53]:5353", Some("[2001:db8::53]:5353")),
            ("virtual", None),
        ] {
            let expected = match dns {
                Some(address) => Dns::Redirect(address.parse().unwrap()),
                None => Dns::Virtual,
            };
            assert_eq!(text.parse::<Dns>(), Ok(expected));
        }
        assert!("dns.example".parse::<Dns>().is_err());
    }

    #[test]
    fn a_denied_network_is_refused_where_only_the_upstream_knows_addresses() {
        let mut config = Config {
            upstream: "socks5://127.0.0.1:1080".parse().unwrap(),
            dns: Dns::Virtual,
            deny: vec!["*:25".parse().unwrap()],
            ..Config::default()
        };
        assert_eq!(config.check(), Ok(()));
        config.deny.push("10.0.0.0/8".parse().unwrap());
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with("deny 10.0.0.0/8 cannot be kept while socks5://127"));
        config.dns = Dns::Untouched;
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn what_lets_nothing_pass_is_refused_by_name() {
        let config = Config {
            udp_timeout: Duration::ZERO,
            ..Config::default()
        };
        assert_eq!(config.check(), Err(ConfigError::Zero("udp-timeout")));
        let config = Config {
            map: vec!["10.0.2.2=::1".parse().unwrap()],
            ..Config::default()
        };
        assert!(matches!(config.check(), Err(ConfigError::MapFamilies(_))));
    }
}
