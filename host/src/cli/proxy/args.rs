//! What the command line and the configuration file of `l3l4 proxy` can say.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::builder::RangedU64ValueParser;
use l3l4_host::tun::Cidr;
use serde::Deserialize;

use super::options::{ProxyOptions, Said};

/// Dial every TCP and UDP flow that enters a TUN device, from here or through an
/// upstream.
///
/// A destination that refuses is seen to refuse, and one that is silent is never
/// answered: the peer's SYN is answered when the destination's answer is there. Ends
/// of data, resets and unreachables are passed on as what they were.
///
/// The kernel keeps the addresses given, and routes the others of their networks here;
/// route further ones with `ip route add NETWORK dev NAME`. What this program itself
/// sends must take another way: with a default route to the device, give
/// --bind-interface or --mark (with `ip rule`), or --proxy of a network that is routed
/// elsewhere. Flows that come round again are refused. Making the device takes
/// CAP_NET_ADMIN.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  sudo l3l4 proxy --address 10.9.0.1/24 --map 10.9.0.7=127.0.0.1 -v
  curl http://10.9.0.7:8080/         … and in another terminal: a server of this host
  sudo l3l4 proxy --address 10.9.0.1/24 --proxy socks5://127.0.0.1:1080 --dns virtual
  sudo ip route add 198.18.0.0/15 dev l3l4
  sudo l3l4 proxy --config proxy.toml

A configuration file has the long options' names; the command line wins:
  tun = \"l3l4\"
  address = [\"10.9.0.1/24\", \"fd00:9::1/64\"]
  proxy = \"socks5://me:secret@192.0.2.7:1080\"
  dns = \"virtual\"
  deny = [\"tcp:*:25\"]
  verdict = \"prohibited\"
  udp-timeout = 120
  verbose = true

Exit status:
  0  interrupted by SIGINT or SIGTERM; every open flow was reset
  1  the device, the engine or the configuration failed"
)]
pub(crate) struct ProxyArgs {
    /// Read options from this TOML file.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(super) config: Option<PathBuf>,
    /// Name of the TUN interface [default: l3l4].
    #[arg(long, value_name = "NAME")]
    tun: Option<String>,
    /// The kernel's address and the network around it; again for the other family.
    #[arg(long = "address", value_name = "CIDR")]
    #[serde(rename = "address")]
    addresses: Vec<Said<Cidr>>,
    /// Bytes of the longest packet [default: 1500].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1280..))]
    mtu: Option<u16>,
    /// Queues of the device, each with an engine and a thread of its own, to use as
    /// many cores [default: 1].
    #[arg(long, value_name = "NUMBER", value_parser = RangedU64ValueParser::<usize>::new().range(1..=Self::MOST_QUEUES))]
    queues: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) options: ProxyOptions,
    /// Print flows as they come and go.
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// Print flows (with -v) and totals as JSON, one object a line.
    #[arg(long)]
    pub(super) json: bool,
    /// Write all packets of the device to a pcapng file, as they pass.
    #[arg(long, value_name = "FILE")]
    pub(super) pcap: Option<PathBuf>,
    /// Write all that happens at the engine's border to this file, for l3l4 replay.
    /// It holds every packet in clear.
    #[arg(long, value_name = "FILE")]
    pub(super) record: Option<PathBuf>,
    /// Serve counters to Prometheus at http://ADDRESS:PORT/metrics.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) metrics: Option<SocketAddr>,
}

impl ProxyArgs {
    /// The kernel's bound for a TUN device.
    const MOST_QUEUES: u64 = 256;

    /// What is said here, and in the configuration file where nothing is.
    pub(super) fn with_file(&self) -> anyhow::Result<Self> {
        let mine = self.clone();
        let Some(path) = &self.config else {
            return Ok(mine);
        };
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let file = Self::read(&text).with_context(|| format!("{name}"))?;
        Ok(mine.or(file))
    }

    fn read(text: &str) -> anyhow::Result<Self> {
        let args: Self = toml::from_str(text)?;
        // What the command line checks of this number.
        if let Some(mtu) = args.mtu.filter(|mtu| *mtu < 1280) {
            anyhow::bail!("mtu is {mtu}: the least is 1280");
        }
        let queues = args.queues();
        if queues == 0 || queues as u64 > Self::MOST_QUEUES {
            anyhow::bail!(
                "queues is {queues}: 1 to {} are possible",
                Self::MOST_QUEUES
            );
        }
        Ok(args)
    }

    fn or(self, other: Self) -> Self {
        Self {
            config: self.config,
            tun: self.tun.or(other.tun),
            addresses: match self.addresses.is_empty() {
                true => other.addresses,
                false => self.addresses,
            },
            mtu: self.mtu.or(other.mtu),
            queues: self.queues.or(other.queues),
            options: self.options.or(other.options),
            verbose: self.verbose || other.verbose,
            json: self.json || other.json,
            pcap: self.pcap.or(other.pcap),
            record: self.record.or(other.record),
            metrics: self.metrics.or(other.metrics),
        }
    }

    pub(super) fn tun(&self) -> &str {
        self.tun.as_deref().unwrap_or("l3l4")
    }

    pub(super) fn addresses(&self) -> Vec<Cidr> {
        self.addresses.iter().map(|cidr| cidr.0).collect()
    }

    pub(super) fn queues(&self) -> usize {
        self.queues.unwrap_or(1)
    }

    pub(super) fn mtu(&self) -> u16 {
        self.mtu.unwrap_or(1500)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;
    use l3l4_host::proxy::{Denial, Dns, Ping};

    use super::super::super::args::{Args, Command};
    use super::ProxyArgs;

    fn line(options: &[&str]) -> ProxyArgs {
        let args = Args::try_parse_from([&["l3l4", "proxy"], options].concat()).unwrap();
        match args.command {
            Command::Proxy(proxy) => *proxy,
            other => panic!("{other:?}"),
        }
    }

    const EVERYTHING: &str = r#"
        tun = "t0"
        address = ["10.9.0.1/24", "fd00:9::1/64"]
        mtu = 9000
        queues = 2
        proxy = "socks5://me:secret@127.0.0.1:1080"
        dns = "127.0.0.1:5353"
        map = ["10.9.0.7=127.0.0.1"]
        bind-interface = "eth0"
        mark = 7
        ping = "drop"
        allow = ["10.0.0.0/8:443", "udp:*:53"]
        deny = ["tcp:*:25"]
        verdict = "silence"
        max-flows = 100
        max-flows-per-peer = 10
        connect-timeout = 5
        tcp-timeout = 6
        udp-timeout = 7
        verbose = true
        json = true
        pcap = "p.pcapng"
        record = "r.l3l4"
        metrics = "127.0.0.1:9000"
    "#;

    #[test]
    fn the_file_and_the_command_line_say_the_same() {
        let same = line(&[
            "--tun",
            "t0",
            "--address",
            "10.9.0.1/24",
            "--address",
            "fd00:9::1/64",
            "--mtu",
            "9000",
            "--queues",
            "2",
            "--proxy",
            "socks5://me:secret@127.0.0.1:1080",
            "--dns",
            "127.0.0.1:5353",
            "--map",
            "10.9.0.7=127.0.0.1",
            "--bind-interface",
            "eth0",
            "--mark",
            "7",
            "--ping",
            "drop",
            "--allow",
            "10.0.0.0/8:443",
            "--allow",
            "udp:*:53",
            "--deny",
            "tcp:*:25",
            "--verdict",
            "silence",
            "--max-flows",
            "100",
            "--max-flows-per-peer",
            "10",
            "--connect-timeout",
            "5",
            "--tcp-timeout",
            "6",
            "--udp-timeout",
            "7",
            "-v",
            "--json",
            "--pcap",
            "p.pcapng",
            "--record",
            "r.l3l4",
            "--metrics",
            "127.0.0.1:9000",
        ]);
        assert_eq!(ProxyArgs::read(EVERYTHING).unwrap(), same);
        let config = same.options.config();
        assert_eq!(config.dns, Dns::Redirect("127.0.0.1:5353".parse().unwrap()));
        assert_eq!(config.denial, Denial::Silence);
        assert_eq!(config.ping, Ping::Drop);
        assert_eq!(
            (config.allow.len(), config.deny.len(), config.map.len()),
            (2, 1, 1)
        );
        assert_eq!(
            (config.max_flows, config.max_flows_per_peer),
            (100, Some(10))
        );
        assert_eq!(config.connect_timeout, Duration::from_secs(5));
        assert_eq!(config.tcp_timeout, Duration::from_secs(6));
        assert_eq!(config.udp_timeout, Duration::from_secs(7));
        assert_eq!(
            (config.bind_interface.as_deref(), config.mark),
            (Some("eth0"), Some(7))
        );
    }

    #[test]
    fn the_command_line_wins_and_the_rest_is_the_files() {
        let file = ProxyArgs::read(EVERYTHING).unwrap();
        let both = line(&["--tun", "t1", "--allow", "*:80", "--udp-timeout", "120"]).or(file);
        assert_eq!((both.tun(), both.mtu()), ("t1", 9000));
        let config = both.options.config();
        assert_eq!(config.allow, ["*:80".parse().unwrap()]);
        assert_eq!(config.deny, ["tcp:*:25".parse().unwrap()]);
        assert_eq!(config.udp_timeout, Duration::from_secs(120));
    }

    #[test]
    fn what_a_file_says_wrongly_is_named() {
        for (text, named) in [
            ("alow = []", "alow"),
            ("config = \"other.toml\"", "config"),
            ("allow = [\"10.0.0.0/33\"]", "10.0.0.0/33"),
            ("mtu = 1279", "1279"),
            ("queues = 0", "1 to 256"),
            ("verdict = \"maybe\"", "maybe"),
            ("tun = ", "line 1"),
        ] {
            let error = format!("{:#}", ProxyArgs::read(text).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    /// No message shows what may be a password.
    #[test]
    fn an_upstream_said_wrongly_is_not_repeated() {
        let error = ProxyArgs::read("proxy = 7\nmark = \"x\"").unwrap_err();
        assert!(!format!("{error:#}").is_empty());
        let options = ["l3l4", "proxy", "--proxy", "socks5://me:sesame@127.0.0.1:1"];
        let args = Args::try_parse_from(options).unwrap();
        assert!(!format!("{args:?}").contains("sesame"));
    }
}
