//! Real sockets: how they leave this host, and how a flow that one of them made is
//! recognised.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpStream, UdpSocket};

/// Opens real sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    bind_interface: Option<String>,
    mark: Option<u32>,
    own: Option<Own>,
}

impl Sockets {
    pub(super) fn new(
        bind_interface: Option<String>,
        mark: Option<u32>,
        detect_loops: bool,
    ) -> Self {
        Self {
            bind_interface,
            mark,
            own: detect_loops.then(Own::default),
        }
    }

    /// Connects; the error is what the network said. The stream is armed: dropped
    /// before [`disarm`], it is reset, so that no failure here looks like an end of
    /// the data there.
    pub(super) async fn connect_tcp(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.open(Domain::for_address(to), Type::STREAM, Protocol::TCP)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
        // The peer's own keep-alives are answered by the engine: nobody else would
        // notice that a destination is gone (RFC 1122 4.2.3.6).
        socket.set_keepalive(true)?;
        // Known as our own for as long as its SYN may come back.
        let _known = self.connect(&socket, to)?;
        let stream = TcpStream::from_std(socket.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            None => Ok(stream),
            Some(error) => Err(error),
        }
    }

    /// A socket that sends to this address and hears of nobody else.
    pub(super) fn connect_udp(&self, to: SocketAddr) -> io::Result<Datagrams> {
        let socket = self.open(Domain::for_address(to), Type::DGRAM, Protocol::UDP)?;
        let known = self.connect(&socket, to)?;
        Ok(Datagrams {
            socket: UdpSocket::from_std(socket.into())?,
            _known: known,
        })
    }

    /// A socket that pings this address (`net.ipv4.ping_group_range`, icmp(7)). The
    /// kernel writes identifier and checksum, and shows only the answers to it.
    pub(super) fn connect_ping(&self, to: SocketAddr) -> io::Result<Datagrams> {
        let (domain, protocol) = match to {
            SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = self.open(domain, Type::DGRAM, protocol)?;
        socket.connect(&to.into())?;
        Ok(Datagrams {
            // A socket for datagrams is one to tokio, whatever they carry.
            socket: UdpSocket::from_std(socket.into())?,
            _known: None,
        })
    }

    fn open(&self, domain: Domain, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        // Told as it is made, where that can be: two calls less for each flow.
        #[cfg(target_os = "linux")]
        let kind = kind.nonblocking();
        let socket = Socket::new(domain, kind, Some(protocol))?;
        #[cfg(not(target_os = "linux"))]
        socket.set_nonblocking(true)?;
        #[cfg(target_os = "linux")]
        {
            if let Some(interface) = &self.bind_interface {
                socket.bind_device(Some(interface.as_bytes()))?;
            }
            if let Some(mark) = self.mark {
                socket.set_mark(mark)?;
            }
        }
        Ok(socket)
    }

    /// Begins to connect, and knows the socket's own address before anybody can ask
    /// [`is_own`](Self::is_own) about the packet that this sends.
    fn connect(&self, socket: &Socket, to: SocketAddr) -> io::Result<Option<Known>> {
        let Some(own) = &self.own else {
            begin(socket, to)?;
            return Ok(None);
        };
        let mut addresses = own.lock();
        begin(socket, to)?;
        let local = socket.local_addr()?.as_socket();
        Ok(local.map(|address| own.know(&mut addresses, address)))
    }

    /// Whether a flow from this address comes from a socket of ours: it has gone
    /// round.
    pub(super) fn is_own(&self, peer: SocketAddr) -> bool {
        let own = self.own.as_ref();
        own.is_some_and(|own| own.lock().contains_key(&peer))
    }
}

fn begin(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    match socket.connect(&to.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Takes back what [`Sockets::connect_tcp`] armed: both sides have finished, and what
/// is under way still arrives.
pub(super) fn disarm(stream: &TcpStream) {
    // It fails only for a socket that is none.
    let _ = SockRef::from(stream).set_linger(None);
}

/// Whether this system lets this user ping.
pub(super) fn may_ping() -> bool {
    let open = |domain, protocol| Socket::new(domain, Type::DGRAM, Some(protocol)).is_ok();
    open(Domain::IPV4, Protocol::ICMPV4) && open(Domain::IPV6, Protocol::ICMPV6)
}

/// A connected socket for datagrams.
#[derive(Debug)]
pub(super) struct Datagrams {
    pub(super) socket: UdpSocket,
    _known: Option<Known>,
}

/// The addresses of our own sockets, and how many each has: the kernel gives a port to
/// several that connect to different destinations.
#[derive(Clone, Debug, Default)]
struct Own(Arc<Mutex<Addresses>>);

type Addresses = HashMap<SocketAddr, usize>;

impl Own {
    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more socket has this address.
    fn know(&self, addresses: &mut Addresses, address: SocketAddr) -> Known {
        *addresses.entry(address).or_default() += 1;
        Known {
            own: self.clone(),
            address,
        }
    }
}

/// An address of ours, for as long as this lives.
#[derive(Debug)]
struct Known {
    own: Own,
    address: SocketAddr,
}

impl Drop for Known {
    fn drop(&mut self) {
        let mut addresses = self.own.lock();
        if let Some(sockets) = addresses.get_mut(&self.address) {
            *sockets -= 1;
            if *sockets == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Own, Sockets};

    #[test]
    fn an_address_is_known_until_the_last_socket_with_it_is_gone() {
        let mut sockets = Sockets::new(None, None, true);
        let own = Own::default();
        sockets.own = Some(own.clone());
        let address = "192.0.2.1:40000".parse().unwrap();
        let first = own.know(&mut own.lock(), address);
        let second = own.know(&mut own.lock(), address);
        drop(first);
        assert!(sockets.is_own(address));
        drop(second);
        assert!(!sockets.is_own(address));
        assert!(own.lock().is_empty());
    }
}
