//! Flows that are dialled from here.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use l3l4_host::proxy::Config;
use l3l4_tests::random::Random;
use l3l4_tests::wire::checksum;
use socket2::{Domain, Protocol, Socket, Type};

use crate::runner::Case;
use crate::world::{FAMILIES, Family, PATIENCE, World, accept, connect, reset};

pub(crate) const CASES: &[Case] = &[
    (
        "direct::bytes_are_exact_both_ways_at_once",
        bytes_are_exact_both_ways_at_once,
    ),
    ("direct::each_side_ends_alone", each_side_ends_alone),
    ("direct::a_closed_port_is_refused", a_closed_port_is_refused),
    (
        "direct::a_silent_destination_is_not_answered",
        a_silent_destination_is_not_answered,
    ),
    ("direct::no_route_is_told", no_route_is_told),
    ("direct::a_reset_is_a_reset", a_reset_is_a_reset),
    (
        "direct::what_was_said_before_a_reset_arrives",
        what_was_said_before_a_reset_arrives,
    ),
    (
        "direct::a_reset_is_passed_on_to_a_side_that_takes_nothing",
        a_reset_is_passed_on_to_a_side_that_takes_nothing,
    ),
    ("direct::datagrams_of_all_sizes", datagrams_of_all_sizes),
    (
        "direct::a_refused_datagram_is_refused",
        a_refused_datagram_is_refused,
    ),
    ("direct::pings_are_passed_on", pings_are_passed_on),
    (
        "direct::the_end_resets_every_flow",
        the_end_resets_every_flow,
    ),
];

fn bytes_are_exact_both_ways_at_once(world: &World) {
    let proxy = world.serve(Config::default());
    for family in FAMILIES {
        let listener = family.listen();
        let port = listener.local_addr().unwrap().port();
        let (up, down) = (Random::new(1).bytes(8 << 20), Random::new(2).bytes(8 << 20));
        let server = thread::spawn({
            let (up, down) = (up.clone(), down.clone());
            move || exchange(accept(&listener), down) == up
        });
        assert!(exchange(proxy.connect(family, port), up) == down);
        assert!(server.join().unwrap());
        let length = 8 << 20;
        assert_eq!(
            proxy.log.end_of(port),
            format!("{length} {length} finished")
        );
    }
}

/// Sends all and ends; gives all that comes until the other's end.
fn exchange(stream: TcpStream, data: Vec<u8>) -> Vec<u8> {
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        writer.write_all(&data).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let received = rest(&stream);
    writing.join().unwrap();
    received
}

fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("an end of data");
    received
}

fn each_side_ends_alone(world: &World) {
    let proxy = world.serve(Config::default());
    for family in FAMILIES {
        let listener = family.listen();
        let port = listener.local_addr().unwrap().port();
        for peer_first in [true, false] {
            let mut peer = proxy.connect(family, port);
            let mut server = accept(&listener);
            let (first, second) = match peer_first {
                true => (&mut peer, &mut server),
                false => (&mut server, &mut peer),
            };
            first.write_all(b"question").unwrap();
            first.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(second), b"question");
            second.write_all(&[7; 100_000]).unwrap();
            second.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(first), [7; 100_000]);
            let ended = proxy.log.end_of(port);
            assert!(ended.ends_with(" finished"), "{ended}");
        }
    }
}

fn a_closed_port_is_refused(world: &World) {
    let proxy = world.serve(Config::default());
    for family in FAMILIES {
        let port = family.closed_port();
        let error = connect(proxy.at(family, 7, port)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(proxy.log.end_of(port), "0 0 connection refused");
    }
}

fn a_silent_destination_is_not_answered(world: &World) {
    let proxy = world.serve(Config {
        connect_timeout: Duration::from_secs(2),
        ..Config::default()
    });
    for family in FAMILIES {
        let to = proxy.at(family, 9, 4242);
        let error = TcpStream::connect_timeout(&to, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(proxy.log.end_of(4242), "0 0 no answer");
    }
}

fn no_route_is_told(world: &World) {
    let proxy = world.serve(Config::default());
    for family in FAMILIES {
        let error = connect(proxy.at(family, 8, 4243)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
        assert_eq!(proxy.log.end_of(4243), "0 0 network unreachable");
    }
}

fn a_reset_is_a_reset(world: &World) {
    let proxy = world.serve(Config::default());
    for family in FAMILIES {
        let listener = family.listen();
        let port = listener.local_addr().unwrap().port();
        for peer_resets in [true, false] {
            let peer = proxy.connect(family, port);
            let server = accept(&listener);
            let (resets, mut sees, who) = match peer_resets {
                true => (peer, server, "peer"),
                false => (server, peer, "destination"),
            };
            reset(resets);
            let error = sees.read(&mut [0; 1]).expect_err("a reset is no end");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            assert_eq!(proxy.log.end_of(port), format!("0 0 reset by {who}"));
        }
    }
}

fn what_was_said_before_a_reset_arrives(world: &World) {
    let proxy = world.serve(Config::default());
    for family in FAMILIES {
        let listener = family.listen();
        let mut peer = proxy.connect(family, listener.local_addr().unwrap().port());
        let mut server = accept(&listener);
        peer.write_all(b"never read").unwrap();
        server.write_all(&[9; 50_000]).unwrap();
        reset(server);
        let mut why = vec![0; 50_000];
        peer.read_exact(&mut why).expect("all that was said");
        assert!(why.iter().all(|byte| *byte == 9));
        let error = peer.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

/// One side says more than all the buffers on the way hold, the other reads nothing of
/// it, and the first resets.
fn a_reset_is_passed_on_to_a_side_that_takes_nothing(world: &World) {
    let proxy = world.serve(Config::default());
    for (family, peer_resets) in FAMILIES
        .into_iter()
        .flat_map(|family| [(family, true), (family, false)])
    {
        let listener = family.listen();
        let port = listener.local_addr().unwrap().port();
        let peer = proxy.connect(family, port);
        let server = accept(&listener);
        let (resets, stalls, who) = match peer_resets {
            true => (peer, server, "peer"),
            false => (server, peer, "destination"),
        };
        flood(&resets);
        reset(resets);
        let error = failure(&stalls, Duration::from_secs(10));
        assert_eq!(error, Some(ErrorKind::ConnectionReset), "{who}, {family:?}");
        let ended = proxy.log.end_of(port);
        assert!(ended.ends_with(&format!("reset by {who}")), "{ended}");
    }
}

/// Writes until nothing has been taken for a while.
fn flood(mut stream: &TcpStream) {
    let block = vec![7; 1 << 20];
    let still = Duration::from_millis(500);
    stream.set_write_timeout(Some(still)).unwrap();
    loop {
        match stream.write(&block) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// How a connection fails that nobody reads, within this time.
fn failure(stream: &TcpStream, within: Duration) -> Option<ErrorKind> {
    let start = Instant::now();
    while start.elapsed() < within {
        if let Some(error) = stream.take_error().unwrap() {
            return Some(error.kind());
        }
        thread::sleep(Duration::from_millis(20));
    }
    None
}

fn datagrams_of_all_sizes(world: &World) {
    let proxy = world.serve(Config::default());
    for family in FAMILIES {
        let server = family.udp();
        let peer = std::net::UdpSocket::bind((proxy.network.at(family, 1), 0)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = server.local_addr().unwrap().port();
        peer.connect(proxy.at(family, 7, port)).unwrap();
        let mut buffer = vec![0; 65_536];
        for length in [0, 1, 1000, 1472, 9000, 60_000] {
            let data = Random::new(3).bytes(length);
            peer.send(&data).unwrap();
            let (got, from) = server.recv_from(&mut buffer).unwrap();
            assert!(buffer[..got] == data, "{length} bytes there");
            server.send_to(&data, from).unwrap();
            let got = peer.recv(&mut buffer).unwrap();
            assert!(buffer[..got] == data, "{length} bytes back");
        }
    }
}

/// Many times: the refusal may be there before the verdict on the flow is. Not more
/// often than the engine answers at once (50 ICMP errors, then 1,000 a second).
fn a_refused_datagram_is_refused(world: &World) {
    let proxy = world.serve(Config::default());
    for (family, round) in FAMILIES
        .into_iter()
        .flat_map(|it| (0..20).map(move |at| (it, at)))
    {
        let port = family.udp().local_addr().unwrap().port();
        let peer = std::net::UdpSocket::bind((proxy.network.at(family, 1), 0)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.connect(proxy.at(family, 7, port)).unwrap();
        peer.send(b"anybody?").unwrap();
        let ended = proxy.log.end_of(port);
        assert!(ended.ends_with("connection refused"), "{ended}");
        let error = peer.recv(&mut [0; 8]).unwrap_err();
        let context = format!("{family:?}, round {round}: {ended}");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{context}");
    }
}

fn pings_are_passed_on(world: &World) {
    let proxy = world.serve(Config::default());
    for (family, domain, protocol, request, reply) in [
        (Family::V4, Domain::IPV4, Protocol::ICMPV4, 8, 0),
        (Family::V6, Domain::IPV6, Protocol::ICMPV6, 128, 129),
    ] {
        let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(&proxy.at(family, 7, 0).into()).unwrap();
        for sequence in [1, 2] {
            let mut message = [request, 0, 0, 0, 0, 0, 0, sequence].to_vec();
            message.extend(b"echo data");
            let sum = checksum(&[&message]);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            socket.send(&message).unwrap();
            let mut answer = [0; 64];
            let length = (&socket).read(&mut answer).unwrap();
            assert_eq!(answer[0], reply);
            assert_eq!(answer[7], sequence);
            assert_eq!(&answer[8..length], b"echo data");
        }
    }
}

fn the_end_resets_every_flow(world: &World) {
    let mut proxy = world.serve(Config::default());
    let mut pairs = Vec::new();
    for family in FAMILIES {
        let listener = family.listen();
        let port = listener.local_addr().unwrap().port();
        let mut peer = proxy.connect(family, port);
        let mut server = accept(&listener);
        peer.write_all(b"hello").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        pairs.push((peer, server, port));
    }
    proxy.stop();
    for (mut peer, mut server, port) in pairs {
        for side in [&mut peer, &mut server] {
            let error = side.read(&mut [0; 1]).expect_err("a reset is no end");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        assert_eq!(proxy.log.end_of(port), "5 0 stopped");
    }
}
