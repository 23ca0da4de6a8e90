//! The kernel's own clients.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use super::client::{Datagrams, Network, PATIENCE, Ping, Stream};
use super::icmp;

/// The network of the namespace that this process is in.
pub(super) struct Kernel;

impl Network for Kernel {
    fn tcp(&self, to: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Box::new(stream))
    }

    fn udp(&self, to: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        let any: IpAddr = match to.is_ipv4() {
            true => Ipv4Addr::UNSPECIFIED.into(),
            false => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Box::new(socket))
    }

    fn ping(&self, to: IpAddr) -> io::Result<Box<dyn Ping>> {
        let (domain, protocol) = match to.is_ipv4() {
            true => (Domain::IPV4, Protocol::ICMPV4),
            false => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.connect(&SocketAddr::new(to, 0).into())?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Box::new(RawIcmp { socket, to }))
    }
}

/// A socket whose time ran out says `WouldBlock`.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    }
}

impl Stream for TcpStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self;
        Read::read(&mut stream, buffer).map_err(timed_out)
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        let mut stream = self;
        Write::write(&mut stream, data).map_err(timed_out)
    }

    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Datagrams for UdpSocket {
    fn send(&self, data: &[u8]) -> io::Result<()> {
        UdpSocket::send(self, data).map(drop).map_err(timed_out)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv(buffer).map_err(timed_out)
    }
}

struct RawIcmp {
    socket: Socket,
    to: IpAddr,
}

impl Ping for RawIcmp {
    fn ping(&self, sequence: u16, data: &[u8]) -> io::Result<Vec<u8>> {
        let mut socket = &self.socket;
        socket.write_all(&icmp::request(self.to, sequence, data))?;
        let until = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 65_536];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            socket.set_read_timeout(Some(left))?;
            let length = socket.read(&mut buffer).map_err(timed_out)?;
            let message = match self.to.is_ipv4() {
                true => icmp::behind_ipv4_header(&buffer[..length]),
                false => Some(&buffer[..length]),
            };
            if let Some(data) = message.and_then(|message| icmp::reply(self.to, sequence, message))
            {
                return Ok(data);
            }
        }
    }
}
