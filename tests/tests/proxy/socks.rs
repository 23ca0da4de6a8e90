//! Flows through a SOCKS5 server, which is one of our own: it says what it was asked.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use l3l4_host::proxy::{Config, Dns};
use socket2::SockRef;

use crate::runner::Case;
use crate::world::{FAMILIES, Family, PATIENCE, Serving, World, connect, ip};

pub(crate) const CASES: &[Case] = &[
    (
        "socks::flows_go_through_by_address",
        flows_go_through_by_address,
    ),
    ("socks::names_are_resolved_there", names_are_resolved_there),
    (
        "socks::its_refusals_are_the_destinations",
        its_refusals_are_the_destinations,
    ),
    ("socks::datagrams_go_through", datagrams_go_through),
    (
        "socks::when_it_is_killed_flows_are_reset",
        when_it_is_killed_flows_are_reset,
    ),
];

/// What the server answers a request with.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// Carries the flow itself: gives back what it gets.
    Echo,
    /// RFC 1928 6.
    Reply(u8),
}

/// A server for user `me` with password `secret`.
struct Server {
    address: SocketAddr,
    asked: Receiver<String>,
    /// The connections, for the server to be killed.
    clients: Receiver<TcpStream>,
}

impl Server {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (ask, asked) = channel();
        let (keep, clients) = channel();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                // The test may have ended.
                let _ = keep.send(client.try_clone().unwrap());
                let ask = ask.clone();
                thread::spawn(move || serve(client, answer, &ask));
            }
        });
        Self {
            address,
            asked,
            clients,
        }
    }

    fn config(&self) -> Config {
        let url = format!("socks5://me:secret@{}", self.address);
        Config {
            upstream: url.parse().unwrap(),
            ..Config::default()
        }
    }

    fn asked(&self) -> String {
        self.asked.recv_timeout(PATIENCE).expect("a request")
    }
}

fn serve(mut client: TcpStream, answer: Answer, ask: &Sender<String>) -> io::Result<()> {
    let [5, methods] = read(&mut client)? else {
        panic!("no SOCKS5")
    };
    let mut offered = vec![0; methods.into()];
    client.read_exact(&mut offered)?;
    assert!(offered.contains(&2), "user and password are offered");
    client.write_all(&[5, 2])?;
    let mut login = [0; 11];
    client.read_exact(&mut login)?;
    assert_eq!(&login, b"\x01\x02me\x06secret");
    client.write_all(&[1, 0])?;

    let [5, command, 0, kind] = read(&mut client)? else {
        panic!("no request")
    };
    let host = match kind {
        1 => IpAddr::from(read::<4>(&mut client)?).to_string(),
        4 => IpAddr::from(read::<16>(&mut client)?).to_string(),
        3 => {
            let [length] = read(&mut client)?;
            let mut name = vec![0; length.into()];
            client.read_exact(&mut name)?;
            String::from_utf8(name).unwrap()
        }
        other => panic!("address of kind {other}"),
    };
    let port = u16::from_be_bytes(read(&mut client)?);
    let _ = ask.send(format!("{command} {host} {port}"));
    match (answer, command) {
        (Answer::Reply(reply), _) => client.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]),
        (Answer::Echo, 1) => {
            client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
            io::copy(&mut client.try_clone()?, &mut client).map(drop)
        }
        (Answer::Echo, _) => relay(client),
    }
}

/// A relay that gives every datagram back as from where it was sent to.
fn relay(mut client: TcpStream) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = socket.local_addr()?.port().to_be_bytes();
    // The unspecified address: where the server is.
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, port[0], port[1]])?;
    thread::spawn(move || {
        let mut buffer = vec![0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    client.read(&mut [0; 1]).map(drop)
}

fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn is_echoed(mut stream: &TcpStream) {
    stream.write_all(b"through").unwrap();
    let mut back = [0; 7];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"through");
}

fn flows_go_through_by_address(world: &World) {
    let server = Server::start(Answer::Echo);
    let proxy = world.serve(server.config());
    for (family, host) in [(Family::V4, "192.0.2.1"), (Family::V6, "2001:db8::1")] {
        is_echoed(&connect(proxy.at(family, 8, 443)).unwrap());
        assert_eq!(server.asked(), format!("1 {host} 443"));
    }
}

fn names_are_resolved_there(world: &World) {
    let server = Server::start(Answer::Echo);
    let proxy = world.serve(Config {
        dns: Dns::Virtual,
        ..server.config()
    });
    ip(&format!(
        "route add 198.18.0.0/15 dev {}",
        proxy.network.name()
    ))
    .unwrap();
    ip(&format!(
        "route add fd6c:336c:3400::/64 dev {}",
        proxy.network.name()
    ))
    .unwrap();
    for (family, kind) in [(Family::V4, 1), (Family::V6, 28)] {
        let address = resolve(&proxy, family, kind);
        is_echoed(&connect(SocketAddr::new(address, 443)).unwrap());
        assert_eq!(server.asked(), "1 www.example.org 443");
    }
    // An address that stands for no name.
    let error = connect("198.19.0.9:443".parse().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
}

/// Asks for `www.example.org` at an address where no resolver is.
fn resolve(proxy: &Serving<'_>, family: Family, kind: u8) -> IpAddr {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(b"\x03www\x07example\x03org\x00");
    query.extend([0, kind, 0, 1]);
    let socket = UdpSocket::bind((proxy.network.at(family, 1), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(proxy.at(family, 200, 53)).unwrap();
    socket.send(&query).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).unwrap();
    let answer = &answer[..length];
    assert_eq!((answer[..2].to_vec(), answer[7]), (vec![0x12, 0x34], 1));
    match family {
        Family::V4 => IpAddr::from(*answer.last_chunk::<4>().unwrap()),
        Family::V6 => IpAddr::from(*answer.last_chunk::<16>().unwrap()),
    }
}

fn its_refusals_are_the_destinations(world: &World) {
    for (reply, kind) in [
        (1, ErrorKind::NetworkUnreachable),
        (3, ErrorKind::NetworkUnreachable),
        (4, ErrorKind::HostUnreachable),
        (5, ErrorKind::ConnectionRefused),
        (9, ErrorKind::NetworkUnreachable),
    ] {
        let server = Server::start(Answer::Reply(reply));
        let proxy = world.serve(server.config());
        for family in FAMILIES {
            let error = connect(proxy.at(family, 8, 443)).unwrap_err();
            assert_eq!(error.kind(), kind, "reply {reply}");
        }
    }
}

fn datagrams_go_through(world: &World) {
    let server = Server::start(Answer::Echo);
    let proxy = world.serve(server.config());
    for family in FAMILIES {
        let peer = UdpSocket::bind((proxy.network.at(family, 1), 0)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.connect(proxy.at(family, 8, 4246)).unwrap();
        for length in [0, 1, 1200, 20_000] {
            let data = vec![5; length];
            peer.send(&data).unwrap();
            let mut back = vec![0; 65_535];
            let got = peer.recv(&mut back).unwrap();
            assert!(back[..got] == data, "{length} bytes");
        }
        let asked = server.asked();
        assert!(asked.starts_with("3 "), "{asked}");
    }
}

fn when_it_is_killed_flows_are_reset(world: &World) {
    let server = Server::start(Answer::Echo);
    let proxy = world.serve(server.config());
    let mut flow = connect(proxy.at(Family::V4, 8, 4247)).unwrap();
    is_echoed(&flow);
    server.clients.try_iter().for_each(|client| {
        SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        // The thread that carries the flow lets go of it too.
        client.shutdown(Shutdown::Read).unwrap();
    });
    let error = flow.read(&mut [0; 1]).expect_err("a reset is no end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let gone = SocketAddr::new(server.address.ip(), Family::V4.closed_port());
    let proxy = world.serve(Config {
        upstream: format!("socks5://{gone}").parse().unwrap(),
        ..Config::default()
    });
    let error = connect(proxy.at(Family::V4, 8, 4248)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
    assert_eq!(proxy.log.end_of(4248), "0 0 upstream: connection refused");
}
