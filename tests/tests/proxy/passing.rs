//! Which flows may pass.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use l3l4_host::proxy::{Config, Denial};

use crate::runner::Case;
use crate::world::{FAMILIES, Family, PATIENCE, World, accept, connect, ip};

pub(crate) const CASES: &[Case] = &[
    (
        "passing::a_denied_flow_is_told_as_is_said",
        a_denied_flow_is_told_as_is_said,
    ),
    (
        "passing::what_is_allowed_passes_and_no_more",
        what_is_allowed_passes_and_no_more,
    ),
    (
        "passing::a_peer_has_its_share_of_flows",
        a_peer_has_its_share_of_flows,
    ),
    (
        "passing::beyond_the_limit_a_peer_waits",
        beyond_the_limit_a_peer_waits,
    ),
    (
        "passing::what_would_come_back_is_refused",
        what_would_come_back_is_refused,
    ),
];

fn a_denied_flow_is_told_as_is_said(world: &World) {
    for (denial, v4, v6) in [
        (
            Denial::Reset,
            ErrorKind::ConnectionRefused,
            ErrorKind::ConnectionRefused,
        ),
        // What connect(2) makes of the ICMP codes, which differ.
        (
            Denial::Prohibited,
            ErrorKind::HostUnreachable,
            ErrorKind::PermissionDenied,
        ),
        (Denial::Silence, ErrorKind::TimedOut, ErrorKind::TimedOut),
    ] {
        let proxy = world.serve(Config {
            deny: vec!["tcp:*:4244".parse().unwrap()],
            denial,
            ..Config::default()
        });
        for (family, kind) in [(Family::V4, v4), (Family::V6, v6)] {
            let time = match denial {
                Denial::Silence => Duration::from_millis(500),
                Denial::Reset | Denial::Prohibited => PATIENCE,
            };
            let to = proxy.at(family, 7, 4244);
            let error = TcpStream::connect_timeout(&to, time).unwrap_err();
            assert_eq!(error.kind(), kind, "{denial:?} {to}");
            assert_eq!(proxy.log.end_of(4244), "0 0 denied");
        }
    }
}

fn what_is_allowed_passes_and_no_more(world: &World) {
    for family in FAMILIES {
        let (allowed, other) = (family.listen(), family.listen());
        let port = allowed.local_addr().unwrap().port();
        let proxy = world.serve(Config {
            allow: vec![format!("tcp:*:{port}").parse().unwrap()],
            ..Config::default()
        });
        drop(proxy.connect(family, port));
        let to = proxy.at(family, 7, other.local_addr().unwrap().port());
        assert_eq!(
            connect(to).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    }
}

fn a_peer_has_its_share_of_flows(world: &World) {
    let proxy = world.serve(Config {
        max_flows_per_peer: Some(1),
        ..Config::default()
    });
    for family in FAMILIES {
        let listener = family.listen();
        let port = listener.local_addr().unwrap().port();
        let to = proxy.at(family, 7, port);
        let first = connect(to).unwrap();
        let held = accept(&listener);
        let error = TcpStream::connect_timeout(&to, Duration::from_millis(500)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(proxy.log.end_of(port), "0 0 too many flows");
        drop((first, held));
        let ended = proxy.log.end_of(port);
        assert!(ended.ends_with(" finished"), "{ended}");
        drop(connect(to).unwrap());
    }
}

/// The peer's second try, a second later, finds the place that the first flow left.
fn beyond_the_limit_a_peer_waits(world: &World) {
    let proxy = world.serve(Config {
        max_flows: 1,
        ..Config::default()
    });
    let family = Family::V4;
    let listener = family.listen();
    let port = listener.local_addr().unwrap().port();
    let first = proxy.connect(family, port);
    let held = accept(&listener);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| proxy.connect(family, port));
        assert_eq!(proxy.log.end_of(port), "0 0 too many flows");
        drop((first, held));
        let mut second = second.join().unwrap();
        second.write_all(b"hello").unwrap();
        let mut greeting = [0; 5];
        accept(&listener).read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"hello");
    });
}

/// A network that is routed to the device is behind it for the proxy's own sockets
/// too.
fn what_would_come_back_is_refused(world: &World) {
    let proxy = world.serve(Config::default());
    let beyond = world.network();
    let name = proxy.network.name();
    for family in FAMILIES {
        let to = std::net::SocketAddr::new(beyond.at(family, 5), 4245);
        ip(&format!("route add {} dev {name}", to.ip())).unwrap();
        let error = connect(to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostUnreachable);
        let mut ends = [proxy.log.end_of(4245), proxy.log.end_of(4245)];
        ends.sort();
        assert_eq!(
            ends,
            [
                "0 0 host unreachable",
                "0 0 would come back through the device"
            ]
        );
    }
}
