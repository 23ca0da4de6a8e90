//! Where a flow is to go, and whether it may.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

use super::config::{Config, Dns};
use super::dns;
use super::error::DialError;
use super::names::Names;
use super::rules::Rules;
use super::socket::Sockets;
use super::target::{Mapping, Target, is_of_this_host, is_within};
use super::watch::Reason;
use crate::{FiveTuple, Protocol};

/// RFC 1035 4.2.
pub(super) const DNS_PORT: u16 = 53;

/// Where flows are to go, and whether they may.
#[derive(Debug)]
pub(super) struct Router {
    dns: Dns,
    resolvers: Vec<(IpAddr, SocketAddr)>,
    map: Vec<Mapping>,
    behind: Vec<IpNet>,
    rules: Arc<Rules>,
    /// Whether only the upstream knows where a name is.
    names_upstream: bool,
    names: Mutex<Names>,
    peers: Option<Peers>,
}

impl Router {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            dns: config.dns,
            resolvers: config.resolvers.clone(),
            map: config.map.clone(),
            behind: config.behind.clone(),
            rules: Arc::new(Rules::new(config.allow.clone(), config.deny.clone())),
            names_upstream: config.upstream.resolves_names(),
            names: Mutex::new(Names::new()),
            peers: config.max_flows_per_peer.map(Peers::new),
        }
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules)
    }

    /// The answer to a DNS query, with addresses of the pool.
    pub(super) fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        dns::answer(query, &mut names)
    }

    /// Where the flow is to go; and its place among its peer's flows, or why it may
    /// not pass.
    pub(super) fn route(
        &self,
        tuple: &FiveTuple,
        sockets: &Sockets,
        is_full: bool,
    ) -> (Target, Result<Option<Place>, Reason>) {
        let (target, decided) = self.judge(tuple, sockets);
        let decided = decided.and_then(|()| match is_full {
            true => Err(Reason::Limited),
            false => self.place(tuple.peer.ip()),
        });
        (target, decided)
    }

    fn place(&self, peer: IpAddr) -> Result<Option<Place>, Reason> {
        let Some(peers) = &self.peers else {
            return Ok(None);
        };
        peers.enter(peer).map(Some).ok_or(Reason::Limited)
    }

    fn judge(&self, tuple: &FiveTuple, sockets: &Sockets) -> (Target, Result<(), Reason>) {
        let FiveTuple {
            protocol,
            local: asked,
            peer,
        } = *tuple;
        if sockets.is_own(peer) {
            return (Target::Address(asked), Err(Reason::Looped));
        }
        if asked.port() == DNS_PORT && protocol != Protocol::IcmpEcho {
            // The address means nothing: what denies every address denies this too.
            let may_pass = !self.rules.deny(protocol, None, DNS_PORT);
            if let Some((_, to)) = self.resolvers.iter().find(|(at, _)| *at == asked.ip()) {
                return (Target::Address(*to), judged(may_pass));
            }
            match self.dns {
                Dns::Redirect(to) => return (Target::Address(to), judged(may_pass)),
                Dns::Virtual => return (Target::Here, judged(may_pass)),
                Dns::Untouched => {}
            }
        }
        match self.name_of(asked.ip()) {
            None => self.judge_address(protocol, asked),
            Some(None) => {
                let error = DialError::NoAddress(asked.ip().to_string());
                (Target::Address(asked), Err(Reason::Failed(error)))
            }
            Some(Some(name)) => {
                // What this host resolves is judged by its addresses, when dialled.
                let may_pass =
                    !self.names_upstream || self.rules.pass(protocol, None, asked.port());
                (Target::Name(name, asked.port()), judged(may_pass))
            }
        }
    }

    fn judge_address(&self, protocol: Protocol, asked: SocketAddr) -> (Target, Result<(), Reason>) {
        let may_pass = self.rules.pass(protocol, Some(asked.ip()), asked.port());
        let mapping = self.map.iter().find(|mapping| mapping.from == asked.ip());
        if let Some(mapping) = mapping {
            let to = SocketAddr::new(mapping.to, asked.port());
            return (Target::Address(to), judged(may_pass));
        }
        let target = Target::Address(asked);
        if is_within(&self.behind, asked.ip()) {
            return (target, Err(Reason::Looped));
        }
        (target, judged(may_pass && !is_of_this_host(asked.ip())))
    }

    /// The name that an address stands for; `Some(None)` when it stands for none.
    fn name_of(&self, address: IpAddr) -> Option<Option<Arc<str>>> {
        if self.dns != Dns::Virtual {
            return None;
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.name(address)
    }
}

fn judged(may_pass: bool) -> Result<(), Reason> {
    match may_pass {
        true => Ok(()),
        false => Err(Reason::Denied),
    }
}

/// How many flows each peer has.
#[derive(Clone, Debug)]
struct Peers {
    most: usize,
    flows: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A flow's place among its peer's, for as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    fn new(most: usize) -> Self {
        Self {
            most,
            flows: Arc::default(),
        }
    }

    fn enter(&self, peer: IpAddr) -> Option<Place> {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let count = flows.entry(peer).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place {
            peers: self.clone(),
            peer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let flows = &self.peers.flows;
        let mut flows = flows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = flows.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                flows.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Router, Sockets, Target};
    use crate::proxy::{Config, Reason};
    use crate::{FiveTuple, Protocol};

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    fn route(router: &Router, protocol: Protocol, to: &str) -> (String, Result<(), Reason>) {
        let tuple = FiveTuple {
            protocol,
            local: to.parse().unwrap(),
            peer: "10.0.2.100:40000".parse().unwrap(),
        };
        let sockets = Sockets::new(None, None, true);
        let (target, decided) = router.route(&tuple, &sockets, false);
        (target.to_string(), decided.map(drop))
    }

    fn tcp(router: &Router, to: &str) -> (String, Result<(), Reason>) {
        route(router, Protocol::Tcp, to)
    }

    #[test]
    fn a_flow_goes_where_it_wants_or_where_it_is_mapped() {
        let router = Router::new(&config(|config| {
            config.map = vec!["10.0.2.2=127.0.0.1".parse().unwrap()];
            config.behind = vec!["10.0.2.0/24".parse().unwrap()];
        }));
        assert_eq!(
            tcp(&router, "192.0.2.1:80"),
            ("192.0.2.1:80".into(), Ok(()))
        );
        assert_eq!(tcp(&router, "10.0.2.2:80"), ("127.0.0.1:80".into(), Ok(())));
        assert_eq!(tcp(&router, "10.0.2.3:80").1, Err(Reason::Looped));
    }

    #[test]
    fn rules_are_about_what_the_peer_asks_for() {
        let router = Router::new(&config(|config| {
            config.map = vec!["10.0.2.2=127.0.0.1".parse().unwrap()];
            config.allow = vec!["10.0.2.2:80".parse().unwrap()];
        }));
        assert_eq!(tcp(&router, "10.0.2.2:80").1, Ok(()));
        assert_eq!(tcp(&router, "10.0.2.2:81").1, Err(Reason::Denied));
        assert_eq!(tcp(&router, "127.0.0.1:80").1, Err(Reason::Denied));
    }

    #[test]
    fn this_host_is_reached_by_a_mapping_only() {
        let router = Router::new(&Config::default());
        for to in ["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(tcp(&router, to).1, Err(Reason::Denied), "{to}");
        }
    }

    #[test]
    fn dns_goes_to_the_resolver_whatever_the_rules_say() {
        let router = Router::new(&config(|config| {
            config.dns = "192.0.2.53:5353".parse().unwrap();
            config.allow = vec!["*:443".parse().unwrap()];
        }));
        let to = "10.0.2.3:53";
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let routed = route(&router, protocol, to);
            assert_eq!(routed, ("192.0.2.53:5353".into(), Ok(())));
        }
        let routed = route(&router, Protocol::IcmpEcho, to);
        assert_eq!(routed.1, Err(Reason::Denied));
    }

    #[test]
    fn each_resolver_is_asked_at_its_own_address_and_one_at_all_others() {
        let router = Router::new(&config(|config| {
            config.dns = "192.0.2.53".parse().unwrap();
            config.resolvers = vec![(
                "10.0.2.4".parse().unwrap(),
                "[2001:db8::53]:53".parse().unwrap(),
            )];
            config.allow = vec!["*:443".parse().unwrap()];
        }));
        for (asked, answers) in [
            ("10.0.2.4:53", "[2001:db8::53]:53"),
            ("10.0.2.3:53", "192.0.2.53:53"),
        ] {
            let routed = route(&router, Protocol::Udp, asked);
            assert_eq!(routed, (answers.into(), Ok(())));
        }
        assert_eq!(tcp(&router, "10.0.2.4:80").1, Err(Reason::Denied));
    }

    #[test]
    fn what_denies_every_address_denies_dns_wherever_it_goes() {
        for (rule, is_denied) in [
            ("*", true),
            ("udp:*:53", true),
            ("*:80", false),
            ("10.0.0.0/8", false),
        ] {
            for dns in ["192.0.2.53", "virtual"] {
                let router = Router::new(&config(|config| {
                    config.dns = dns.parse().unwrap();
                    config.deny = vec![rule.parse().unwrap()];
                }));
                let decided = route(&router, Protocol::Udp, "10.0.2.3:53").1;
                assert_eq!(decided == Err(Reason::Denied), is_denied, "{rule} {dns}");
            }
        }
    }

    #[test]
    fn a_name_is_judged_upstream_by_what_is_known_of_it() {
        let mut config = config(|config| {
            config.dns = super::Dns::Virtual;
            config.upstream = "socks5://127.0.0.1:1".parse().unwrap();
            config.allow = vec!["10.0.0.0/8".parse().unwrap(), "*:443".parse().unwrap()];
        });
        let pool = |router: &Router| {
            router.names.lock().unwrap().addresses("example.org");
        };
        let router = Router::new(&config);
        pool(&router);
        let (target, decided) = tcp(&router, "198.18.0.1:443");
        assert_eq!((target.as_str(), decided), ("example.org:443", Ok(())));
        assert_eq!(tcp(&router, "198.18.0.1:80").1, Err(Reason::Denied));
        assert!(matches!(
            tcp(&router, "198.18.0.2:443").1,
            Err(Reason::Failed(_))
        ));
        assert_eq!(tcp(&router, "192.0.2.1:53").0, Target::Here.to_string());

        config.upstream = super::super::Upstream::Direct;
        let router = Router::new(&config);
        pool(&router);
        assert_eq!(
            tcp(&router, "198.18.0.1:80").1,
            Ok(()),
            "judged when dialled"
        );
    }

    #[test]
    fn a_peer_has_as_many_flows_as_it_may() {
        let router = Router::new(&config(|config| config.max_flows_per_peer = Some(2)));
        let place = || router.place("10.0.2.100".parse().unwrap());
        let (first, second) = (place().unwrap(), place().unwrap());
        assert_eq!(place().err(), Some(Reason::Limited));
        assert!(router.place("10.0.2.101".parse().unwrap()).is_ok());
        drop(first);
        let third = place().unwrap();
        drop((second, third));
        assert!(
            router
                .peers
                .as_ref()
                .unwrap()
                .flows
                .lock()
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn beyond_the_limit_a_flow_is_turned_away() {
        let router = Router::new(&Config::default());
        let tuple = FiveTuple {
            protocol: Protocol::Udp,
            local: "192.0.2.1:80".parse().unwrap(),
            peer: "10.0.2.100:40000".parse().unwrap(),
        };
        let sockets = Sockets::new(None, None, true);
        let decided = router.route(&tuple, &sockets, true).1;
        assert_eq!(decided.err(), Some(Reason::Limited));
    }
}
