//! The kernel's clients.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use l3l4_tests::craft::Family;
use l3l4_tests::random::Random;
use l3l4_tests::wire::checksum;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(60);

/// An address behind the device.
fn at(family: Family, host: u8, port: u16) -> SocketAddr {
    let address: IpAddr = match family {
        Family::V4 => [10, 9, 0, host].into(),
        Family::V6 => [0xfd09, 0, 0, 0, 0, 0, 0, u16::from(host)].into(),
    };
    SocketAddr::new(address, port)
}

/// A connection, whose segments may be made small.
fn connect(family: Family, port: u16, mss: Option<u32>) -> TcpStream {
    let to = at(family, 2, port);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    if let Some(mss) = mss {
        socket.set_tcp_mss(mss).unwrap();
    }
    socket
        .connect_timeout(&to.into(), PATIENCE)
        .expect("connects");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.into()
}

/// Sends all, closes that half, and reads all back.
pub(crate) fn tcp_transfer(family: Family, bytes: usize, mss: Option<u32>) {
    let mut stream = connect(family, 7, mss);
    let data = Random::new(1).bytes(bytes);
    let sender = thread::spawn({
        let (mut stream, data) = (stream.try_clone().unwrap(), data.clone());
        move || {
            stream.write_all(&data).expect("sends");
            stream.shutdown(Shutdown::Write).unwrap();
        }
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("receives");
    sender.join().unwrap();
    assert!(back == data, "the bytes came back as they were sent");
}

/// Sends and receives a little at a time.
pub(crate) fn tcp_requests(family: Family, requests: usize) {
    let mut stream = connect(family, 80, None);
    for _ in 0..requests {
        let mut back = [0; 7];
        stream.write_all(b"request").unwrap();
        stream.read_exact(&mut back).expect("an answer");
        assert_eq!(&back, b"request");
    }
}

/// Ends a connection with a reset, in the midst of it.
pub(crate) fn tcp_reset(family: Family) {
    let mut stream = connect(family, 443, None);
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).expect("an answer");
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

fn udp(family: Family) -> UdpSocket {
    let socket = UdpSocket::bind(at(family, 1, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// One datagram of each size, each answered.
pub(crate) fn udp_sizes(family: Family, sizes: &[usize]) {
    let socket = udp(family);
    socket.connect(at(family, 3, 7)).unwrap();
    for &size in sizes {
        let data = Random::new(size as u64).bytes(size);
        socket.send(&data).unwrap();
        let mut back = vec![0; 65_536];
        let length = socket.recv(&mut back).expect("an answer");
        assert!(back[..length] == data);
    }
}

/// A datagram that the kernel sends in fragments.
pub(crate) fn udp_unanswered(family: Family, size: usize) {
    let socket = udp(family);
    let data = Random::new(1).bytes(size);
    socket.send_to(&data, at(family, 4, 7)).unwrap();
    thread::sleep(Duration::from_millis(50));
}

/// The answer comes to a port that is closed by then: the kernel says unreachable.
pub(crate) fn closed_port(family: Family) {
    let socket = udp(family);
    socket.send_to(b"gone", at(family, 5, 7)).unwrap();
    drop(socket);
    thread::sleep(Duration::from_millis(50));
}

/// Echo requests with this many bytes, each answered.
pub(crate) fn ping(family: Family, sizes: &[usize]) {
    let (domain, protocol, request, reply, header) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4, 8, 0, 20),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6, 128, 129, 0),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).expect("root of the namespace");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for (sequence, &size) in (1u8..).zip(sizes) {
        let mut message = vec![request, 0, 0, 0, 0x4c, 0x34, 0, sequence];
        message.extend(Random::new(1).bytes(size));
        if header > 0 {
            // The kernel fills in the checksum of ICMPv6 only.
            let sum = checksum(&[&message]).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
        }
        socket.send_to(&message, &at(family, 6, 0).into()).unwrap();
        loop {
            let mut packet = [0; 2000];
            let length = (&socket).read(&mut packet).expect("a reply");
            let answer = &packet[header..length];
            if answer[0] == reply && answer[4..] == message[4..] {
                break;
            }
        }
    }
}
