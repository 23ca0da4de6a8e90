//! The kernel's side: each case is a function, run in order.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use l3l4_host::{netns, tun};
use l3l4_tests::random::Random;
use l3l4_tests::wire::checksum;
use socket2::{Domain, Socket, Type};

use crate::service::{
    ABORT, CALL_BACK, DROP, ECHO, GREETING, LATE, OTHER_SOURCE, REFUSE, Service, UNREACHABLE, WAIT,
};
use crate::{bulk, killed};

/// How long anything of a healthy engine may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Case = (&'static str, fn(Family));

const CASES: &[Case] = &[
    (
        "tcp_is_echoed_from_any_address_and_port",
        tcp_is_echoed_from_any_address_and_port,
    ),
    (
        "a_killed_echo_leaves_a_record_that_replays_identically",
        a_killed_echo_leaves_a_record_that_replays_identically,
    ),
    ("eight_mebibytes_are_exact", eight_mebibytes_are_exact),
    (
        "half_close_still_receives_all",
        half_close_still_receives_all,
    ),
    ("many_connections_at_once", many_connections_at_once),
    (
        "a_refusal_is_connection_refused",
        a_refusal_is_connection_refused,
    ),
    (
        "an_unreachable_is_host_unreachable",
        an_unreachable_is_host_unreachable,
    ),
    ("a_drop_is_a_timeout", a_drop_is_a_timeout),
    (
        "a_late_verdict_is_a_slow_connect",
        a_late_verdict_is_a_slow_connect,
    ),
    ("an_abort_is_connection_reset", an_abort_is_connection_reset),
    ("the_engine_calls_back", the_engine_calls_back),
    ("udp_boundaries_and_sizes", udp_boundaries_and_sizes),
    (
        "udp_refused_and_from_another_source",
        udp_refused_and_from_another_source,
    ),
    ("ping_is_answered", ping_is_answered),
];

#[derive(Clone, Copy)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// An address behind the device of [`Service`].
    fn at(self, host: u8, port: u16) -> SocketAddr {
        let address: IpAddr = match self {
            Self::V4 => [10, 77, 0, host].into(),
            Self::V6 => [0xfd77, 0, 0, 0, 0, 0, 0, u16::from(host)].into(),
        };
        SocketAddr::new(address, port)
    }

    /// An address behind the devices of [`bulk`].
    pub(crate) fn beyond(self, host: u8, port: u16) -> SocketAddr {
        let address: IpAddr = match self {
            Self::V4 => [10, 79, 0, host].into(),
            Self::V6 => [0xfd79, 0, 0, 0, 0, 0, 0, u16::from(host)].into(),
        };
        SocketAddr::new(address, port)
    }
}

/// A runner in the manner of libtest: filters, `--list`, a line a case.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<_> = arguments
        .iter()
        .filter(|word| !word.starts_with('-'))
        .collect();
    let chosen: Vec<_> = [("ipv4", Family::V4), ("ipv6", Family::V6)]
        .into_iter()
        .flat_map(|(family, value)| {
            let cases = CASES.iter().chain(bulk::CASES);
            cases.map(move |(name, case)| (format!("{family}::{name}"), value, *case))
        })
        .filter(|(name, ..)| {
            filters.is_empty() || filters.iter().any(|filter| name.contains(*filter))
        })
        .collect();
    if arguments.iter().any(|word| word == "--list") {
        chosen
            .iter()
            .for_each(|(name, ..)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let service = match private_network() {
        Ok(device) => Service::start(device),
        Err(reason) => return skipped(chosen.len(), &reason),
    };
    let mut failed = 0;
    for (name, family, case) in &chosen {
        let start = Instant::now();
        let good = catch_unwind(AssertUnwindSafe(|| case(*family))).is_ok();
        let verdict = if good { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1?})", start.elapsed());
        failed += usize::from(!good);
    }
    let counters = service.finish();
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {} passed; {failed} failed\n",
        chosen.len() - failed
    );
    if failed > 0 {
        println!("{counters:#?}");
    }
    ExitCode::from(u8::from(failed > 0))
}

fn private_network() -> Result<tun::Tun, String> {
    netns::enter().map_err(|error| error.to_string())?;
    let configuration = tun::Configuration {
        name: "l3l4test".into(),
        addresses: vec!["10.77.0.1/24".parse()?, "fd77::1/64".parse()?],
        mtu: 1500,
    };
    let device = tun::Tun::new(&configuration).map_err(|error| error.to_string())?;
    // The IPv6 address is usable once the kernel has found nobody else to have it.
    let start = Instant::now();
    while UdpSocket::bind("[fd77::1]:0").is_err() {
        if start.elapsed() > PATIENCE {
            return Err("the IPv6 address never became usable".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(device)
}

fn skipped(cases: usize, reason: &str) -> ExitCode {
    eprintln!("SKIPPED: {cases} kernel cases: {reason}");
    println!("\ntest result: ok. 0 passed; 0 failed; {cases} ignored ({reason})\n");
    if std::env::var_os("CI").is_some() {
        eprintln!("CI is set: a skip is a failure");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn tcp_is_echoed_from_any_address_and_port(family: Family) {
    for (host, port) in [(2, ECHO), (77, 4242), (254, 65_535), (3, 80)] {
        let mut stream = connect(family.at(host, port));
        stream.write_all(b"hello").unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, *b"hello");
    }
}

fn a_killed_echo_leaves_a_record_that_replays_identically(family: Family) {
    let (name, network, to) = match family {
        Family::V4 => ("l3l4rec4", "10.78.0.1/24", "10.78.0.9:4242"),
        Family::V6 => ("l3l4rec6", "fd78::1/64", "[fd78::9]:4242"),
    };
    let to = to.parse().unwrap();
    killed::leaves_a_record_that_replays_identically(name, network, to);
}

fn eight_mebibytes_are_exact(family: Family) {
    let data = Random::new(8).bytes(8 << 20);
    let mut stream = connect(family.at(2, ECHO));
    let mut reader = stream.try_clone().unwrap();
    let length = data.len();
    let reading = std::thread::spawn(move || {
        let mut back = vec![0; length];
        reader.read_exact(&mut back).map(|()| back)
    });
    stream.write_all(&data).unwrap();
    assert!(reading.join().unwrap().unwrap() == data, "the bytes sent");
}

fn half_close_still_receives_all(family: Family) {
    let data = Random::new(9).bytes(300_000);
    let mut stream = connect(family.at(2, ECHO));
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut back = Vec::new();
        reader.read_to_end(&mut back).map(|_| back)
    });
    stream.write_all(&data).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(
        reading.join().unwrap().unwrap() == data,
        "all, then the end of data"
    );
}

fn many_connections_at_once(family: Family) {
    let mut streams: Vec<_> = (0..100u8)
        .map(|i| connect(family.at(i + 2, 1000 + u16::from(i))))
        .collect();
    for (i, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&[u8::try_from(i).unwrap(); 1000]).unwrap();
    }
    for (i, stream) in streams.iter_mut().enumerate() {
        let mut back = [0; 1000];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, [u8::try_from(i).unwrap(); 1000]);
    }
}

fn a_refusal_is_connection_refused(family: Family) {
    let error = TcpStream::connect_timeout(&family.at(2, REFUSE), PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

fn an_unreachable_is_host_unreachable(family: Family) {
    let error = TcpStream::connect_timeout(&family.at(2, UNREACHABLE), PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
}

fn a_drop_is_a_timeout(family: Family) {
    let time = Duration::from_millis(200);
    let error = TcpStream::connect_timeout(&family.at(2, DROP), time).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

fn a_late_verdict_is_a_slow_connect(family: Family) {
    let start = Instant::now();
    let mut stream = connect(family.at(2, WAIT));
    assert!(start.elapsed() >= LATE, "{:?}", start.elapsed());
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, *b"hello");
}

fn an_abort_is_connection_reset(family: Family) {
    let mut stream = connect(family.at(2, ABORT));
    stream.write_all(b"hello").unwrap();
    let error = stream.read(&mut [0; 5]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn the_engine_calls_back(family: Family) {
    let listener = TcpListener::bind(family.at(1, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut stream = connect(family.at(9, CALL_BACK));
    stream.write_all(address.to_string().as_bytes()).unwrap();
    let (mut call, from) = listener.accept().unwrap();
    assert_eq!(from, family.at(9, 777));
    let mut heard = Vec::new();
    call.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, GREETING);
}

fn udp_boundaries_and_sizes(family: Family) {
    let socket = udp(family);
    socket.connect(family.at(2, ECHO)).unwrap();
    let (in_one_packet, in_fragments) = match family {
        Family::V4 => (1472, 65_507),
        Family::V6 => (1452, 65_487),
    };
    for size in [
        0,
        1,
        512,
        in_one_packet,
        in_one_packet + 1,
        8000,
        in_fragments,
    ] {
        let data = Random::new(1).bytes(size);
        assert_eq!(socket.send(&data).unwrap(), size);
        let mut back = vec![0; 65_536];
        let length = socket.recv(&mut back).unwrap();
        assert!(back[..length] == data, "{size} bytes");
    }
}

fn udp_refused_and_from_another_source(family: Family) {
    let socket = udp(family);
    socket.connect(family.at(2, REFUSE)).unwrap();
    socket.send(b"anyone?").unwrap();
    let error = socket.recv(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

    let socket = udp(family);
    socket
        .send_to(b"hello", family.at(2, OTHER_SOURCE))
        .unwrap();
    let mut back = [0; 10];
    let (length, from) = socket.recv_from(&mut back).unwrap();
    assert_eq!(
        (&back[..length], from),
        (b"hello".as_slice(), family.at(2, 5353))
    );
}

fn ping_is_answered(family: Family) {
    let (domain, protocol, request, reply, header) = match family {
        Family::V4 => (Domain::IPV4, socket2::Protocol::ICMPV4, 8, 0, 20),
        Family::V6 => (Domain::IPV6, socket2::Protocol::ICMPV6, 128, 129, 0),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).expect("root of the namespace");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for sequence in 1..=5u8 {
        let mut message = vec![request, 0, 0, 0, 0x4c, 0x34, 0, sequence];
        message.extend([sequence; 56]);
        if header > 0 {
            // The kernel fills in the checksum of ICMPv6 only.
            let sum = checksum(&[&message]).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
        }
        socket.send_to(&message, &family.at(40, 0).into()).unwrap();
        loop {
            let mut packet = [0; 200];
            let length = (&socket).read(&mut packet).expect("a reply");
            let answer = &packet[header..length];
            if answer[0] == reply && answer[4..8] == message[4..8] {
                assert_eq!(answer[8..], message[8..]);
                break;
            }
        }
    }
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn udp(family: Family) -> UdpSocket {
    let socket = UdpSocket::bind(family.at(1, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}
