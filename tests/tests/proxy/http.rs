//! Flows through an HTTP proxy, which is one of our own.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use l3l4_host::proxy::Config;

use crate::runner::Case;
use crate::world::{FAMILIES, Family, PATIENCE, World, connect};

pub(crate) const CASES: &[Case] = &[
    ("http::flows_go_through", flows_go_through),
    (
        "http::its_refusals_are_the_destinations",
        its_refusals_are_the_destinations,
    ),
    (
        "http::datagrams_are_refused_and_dns_goes_over_tcp",
        datagrams_are_refused_and_dns_goes_over_tcp,
    ),
];

/// A proxy that answers every CONNECT with `head`, says `EARLY` in the same breath if
/// that grants the tunnel, and is the destination itself: an echo.
struct Server {
    address: SocketAddr,
    asked: Receiver<String>,
}

const EARLY: &[u8] = b"220 ready\r\n";

impl Server {
    fn start(head: &'static str, early: &'static [u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (ask, asked) = channel();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, ask) = (client.unwrap(), ask.clone());
                thread::spawn(move || serve(client, head, early, &ask));
            }
        });
        Self { address, asked }
    }

    fn config(&self) -> Config {
        let url = format!("http://me:secret@{}", self.address);
        Config {
            upstream: url.parse().unwrap(),
            ..Config::default()
        }
    }
}

fn serve(mut client: TcpStream, head: &str, early: &[u8], ask: &Sender<String>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut asked = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => asked.push(line.to_owned()),
        }
    }
    assert!(asked.contains(&"Proxy-Authorization: Basic bWU6c2VjcmV0".to_owned()));
    let _ = ask.send(asked[0].clone());
    client.write_all(&[format!("{head}\r\n\r\n").as_bytes(), early].concat())?;
    io::copy(&mut reader, &mut client).map(drop)
}

fn flows_go_through(world: &World) {
    let server = Server::start("HTTP/1.1 200 Connection established", EARLY);
    let proxy = world.serve(server.config());
    for (family, to) in [
        (Family::V4, "192.0.2.1:22"),
        (Family::V6, "[2001:db8::1]:22"),
    ] {
        let mut flow = connect(proxy.at(family, 8, 22)).unwrap();
        let mut greeting = [0; EARLY.len()];
        flow.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, EARLY);
        flow.write_all(b"through").unwrap();
        let mut back = [0; 7];
        flow.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"through");
        let asked = server.asked.recv_timeout(PATIENCE).unwrap();
        assert_eq!(asked, format!("CONNECT {to} HTTP/1.1"));
    }
}

fn its_refusals_are_the_destinations(world: &World) {
    for (head, kind) in [
        ("HTTP/1.1 502 Bad Gateway", ErrorKind::HostUnreachable),
        (
            "HTTP/1.1 502 Bad Gateway\r\nProxy-Status: p; error=connection_refused",
            ErrorKind::ConnectionRefused,
        ),
        ("HTTP/1.1 407 Who are you", ErrorKind::NetworkUnreachable),
    ] {
        let server = Server::start(head, b"");
        let proxy = world.serve(server.config());
        for family in FAMILIES {
            let error = connect(proxy.at(family, 8, 22)).unwrap_err();
            assert_eq!(error.kind(), kind, "{head}");
        }
    }
}

/// The echo gives a query back as its own answer, in its frame.
fn datagrams_are_refused_and_dns_goes_over_tcp(world: &World) {
    let server = Server::start("HTTP/1.1 200 OK", b"");
    let proxy = world.serve(Config {
        dns: "192.0.2.53".parse().unwrap(),
        ..server.config()
    });
    for family in FAMILIES {
        let peer = UdpSocket::bind((proxy.network.at(family, 1), 0)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.connect(proxy.at(family, 8, 4249)).unwrap();
        peer.send(b"anybody?").unwrap();
        let error = peer.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

        peer.connect(proxy.at(family, 8, 53)).unwrap();
        for query in [&b"a query"[..], b"another"] {
            peer.send(query).unwrap();
            let mut answer = [0; 64];
            let length = peer.recv(&mut answer).unwrap();
            assert_eq!(&answer[..length], query);
        }
        let asked = server.asked.recv_timeout(PATIENCE).unwrap();
        assert_eq!(asked, "CONNECT 192.0.2.53:53 HTTP/1.1");
    }
}
