//! Which flows may pass: rules by protocol, network and port.
//!
//! A flow passes when no `deny` rule matches it and, if there is any `allow` rule,
//! at least one of them does. The order of the rules means nothing.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

use crate::Protocol;

/// One rule: `[tcp:|udp:|icmp:]NETWORK[:PORT[-PORT]]`.
///
/// The network is `*` for every address, an address, or `ADDRESS/PREFIX`; in
/// brackets where it is of IPv6 and a port follows: `10.0.0.0/8:443`,
/// `tcp:*:8000-8999`, `[fd00::/8]:443`, `udp:192.0.2.1`, `icmp:*`. A rule without
/// protocol is for all of them, one with ports not for ICMP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is spoken; all protocols when `None`.
    protocol: Option<Protocol>,
    /// Where to; everywhere when `None`.
    network: Option<IpNet>,
    /// To which ports; all when `None`.
    ports: Option<RangeInclusive<u16>>,
}

impl Rule {
    /// The network that it names, if it is not for every address.
    #[must_use]
    pub fn network(&self) -> Option<IpNet> {
        self.network
    }

    /// Whether it is about flows like this. A destination without an address is
    /// known by its name only, and no network holds it.
    fn matches(&self, protocol: Protocol, address: Option<IpAddr>, port: u16) -> bool {
        self.protocol.is_none_or(|only| only == protocol)
            && self.network.is_none_or(|network| {
                address.is_some_and(|address| network.contains(&address.to_canonical()))
            })
            && self
                .ports
                .as_ref()
                .is_none_or(|ports| protocol != Protocol::IcmpEcho && ports.contains(&port))
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "{text:?} is no rule: {why}; write [tcp:|udp:|icmp:]NETWORK[:PORT[-PORT]], such as 10.0.0.0/8:443, [fd00::/8]:443, tcp:*:80-443"
            )
        };
        let (protocol, rest) = split_protocol(text);
        let (network, ports) = split_ports(rest);
        let network = match network {
            "*" => None,
            network => Some(read_network(network).ok_or_else(|| wrong("no such network"))?),
        };
        let ports = ports
            .map(|ports| read_ports(ports).ok_or_else(|| wrong("no such ports")))
            .transpose()?;
        if protocol == Some(Protocol::IcmpEcho) && ports.is_some() {
            return Err(wrong("ICMP has no ports"));
        }
        Ok(Self {
            protocol,
            network,
            ports,
        })
    }
}

fn split_protocol(text: &str) -> (Option<Protocol>, &str) {
    for (word, protocol) in [
        ("tcp:", Protocol::Tcp),
        ("udp:", Protocol::Udp),
        ("icmp:", Protocol::IcmpEcho),
    ] {
        if let Some(rest) = text.strip_prefix(word) {
            return (Some(protocol), rest);
        }
    }
    (None, text)
}

/// The network without brackets, and the ports. What is an IPv6 network as a whole
/// has none: `fd00::1:443` is an address.
fn split_ports(text: &str) -> (&str, Option<&str>) {
    if read_network(text).is_some() {
        return (text, None);
    }
    if let Some((network, after)) = text
        .strip_prefix('[')
        .and_then(|inside| inside.split_once(']'))
    {
        return match after.strip_prefix(':') {
            Some(ports) => (network, Some(ports)),
            None if after.is_empty() => (network, None),
            None => (text, None),
        };
    }
    match text.rsplit_once(':') {
        Some((network, ports)) if !network.contains(':') => (network, Some(ports)),
        Some(_) | None => (text, None),
    }
}

fn read_network(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(network) => Some(canonical(network.trunc())),
        Err(_) => text
            .parse::<IpAddr>()
            .ok()
            .map(|ip| ip.to_canonical().into()),
    }
}

/// A network of IPv4 addresses in IPv6 clothes, `::ffff:0:0/96`, as what flows are
/// compared with.
fn canonical(network: IpNet) -> IpNet {
    let v4 = match network {
        IpNet::V6(v6) => v6
            .addr()
            .to_ipv4_mapped()
            .zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    v4.and_then(|(address, prefix)| IpNet::new(address.into(), prefix).ok())
        .unwrap_or(network)
}

fn read_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..=last)
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            None => {}
            Some(Protocol::Tcp) => f.write_str("tcp:")?,
            Some(Protocol::Udp) => f.write_str("udp:")?,
            Some(Protocol::IcmpEcho) => f.write_str("icmp:")?,
        }
        match (self.network, &self.ports) {
            (None, _) => f.write_str("*")?,
            (Some(IpNet::V6(network)), Some(_)) => write!(f, "[{network}]")?,
            (Some(network), _) => write!(f, "{network}")?,
        }
        match &self.ports {
            None => Ok(()),
            Some(ports) if ports.start() == ports.end() => write!(f, ":{}", ports.start()),
            Some(ports) => write!(f, ":{}-{}", ports.start(), ports.end()),
        }
    }
}

/// All rules of a proxy.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

impl Rules {
    pub(super) fn new(allow: Vec<Rule>, deny: Vec<Rule>) -> Self {
        Self { allow, deny }
    }

    /// Whether the flow may pass. Without an address, only its name is known.
    pub(super) fn pass(&self, protocol: Protocol, address: Option<IpAddr>, port: u16) -> bool {
        let matches = |rule: &Rule| rule.matches(protocol, address, port);
        !self.deny(protocol, address, port)
            && (self.allow.is_empty() || self.allow.iter().any(matches))
    }

    /// Whether the flow may not pass, whatever is allowed.
    pub(super) fn deny(&self, protocol: Protocol, address: Option<IpAddr>, port: u16) -> bool {
        let mut deny = self.deny.iter();
        deny.any(|rule| rule.matches(protocol, address, port))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{Rule, Rules};
    use crate::Protocol::{self, IcmpEcho, Tcp, Udp};

    fn rules(allow: &[&str], deny: &[&str]) -> Rules {
        let read = |texts: &[&str]| -> Vec<Rule> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        Rules::new(read(allow), read(deny))
    }

    fn pass(rules: &Rules, protocol: Protocol, to: &str) -> bool {
        let to: SocketAddr = to.parse().unwrap();
        rules.pass(protocol, Some(to.ip()), to.port())
    }

    #[test]
    fn a_rule_reads_as_it_prints() {
        for text in [
            "*",
            "*:53",
            "icmp:*",
            "tcp:10.0.0.0/8:80-443",
            "10.0.0.0/8:443",
            "192.0.2.0/24",
            "fd00::/8",
            "udp:[fd00::/8]:443",
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        for (text, short) in [
            ("192.0.2.1", "192.0.2.1/32"),
            ("192.0.2.1:80", "192.0.2.1/32:80"),
            ("fd00::1:443", "fd00::1:443/128"),
            ("[fd00::1]:443", "[fd00::1/128]:443"),
            ("[fd00::1]", "fd00::1/128"),
            ("10.9.8.7/8", "10.0.0.0/8"),
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), short, "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_text_and_an_example() {
        for wrong in [
            "",
            ":80",
            "tcp:",
            "10.0.0.0/33",
            "*:",
            "*:80-",
            "*:90-80",
            "*:65536",
            "icmp:*:8",
            "sctp:*",
            "[fd00::/8]443",
            "[fd00::/8",
            "example.org:80",
        ] {
            let error = wrong.parse::<Rule>().unwrap_err();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
            assert!(error.contains("10.0.0.0/8:443"), "{error}");
        }
    }

    #[test]
    fn without_rules_everything_passes() {
        assert!(pass(&rules(&[], &[]), Tcp, "192.0.2.1:1"));
    }

    #[test]
    fn with_an_allow_rule_the_rest_is_denied() {
        let rules = rules(&["10.0.0.0/8:443", "udp:*:53"], &[]);
        assert!(pass(&rules, Tcp, "10.1.2.3:443"));
        assert!(pass(&rules, Udp, "10.1.2.3:443"));
        assert!(pass(&rules, Udp, "[2001:db8::1]:53"));
        assert!(!pass(&rules, Tcp, "192.0.2.1:53"));
        assert!(!pass(&rules, Tcp, "10.1.2.3:80"));
        assert!(!pass(&rules, Tcp, "11.0.0.0:443"));
    }

    #[test]
    fn deny_beats_allow() {
        let rules = rules(&["10.0.0.0/8"], &["tcp:10.1.0.0/16:22"]);
        assert!(!pass(&rules, Tcp, "10.1.0.9:22"));
        assert!(pass(&rules, Udp, "10.1.0.9:22"));
        assert!(pass(&rules, Tcp, "10.2.0.9:22"));
    }

    #[test]
    fn ports_are_not_for_icmp() {
        assert!(!pass(&rules(&["*:0-65535"], &[]), IcmpEcho, "192.0.2.1:0"));
        assert!(pass(&rules(&["icmp:*"], &[]), IcmpEcho, "192.0.2.1:0"));
        assert!(!pass(&rules(&["icmp:*"], &[]), Tcp, "192.0.2.1:1"));
    }

    /// `::ffff:10.0.0.1` is dialled as 10.0.0.1.
    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_denied_as_itself() {
        for rule in ["10.0.0.0/8", "::ffff:10.0.0.0/104", "::ffff:10.0.0.1"] {
            let rules = rules(&[], &[rule]);
            assert!(!pass(&rules, Tcp, "[::ffff:10.0.0.1]:80"), "{rule}");
            assert!(!pass(&rules, Tcp, "10.0.0.1:80"), "{rule}");
            assert!(pass(&rules, Tcp, "11.0.0.1:80"), "{rule}");
        }
    }

    #[test]
    fn a_name_matches_no_network() {
        assert!(rules(&["*:443"], &[]).pass(Tcp, None, 443));
        assert!(!rules(&["10.0.0.0/8"], &[]).pass(Tcp, None, 443));
        assert!(!rules(&[], &["*:25"]).pass(Tcp, None, 25));
    }
}
