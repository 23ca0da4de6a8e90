//! Reaches destinations: by our own sockets, or through an upstream.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::Config;
use super::error::DialError;
use super::lookup::Lookups;
use super::route::DNS_PORT;
use super::rules::Rules;
use super::socket::{Datagrams, Sockets};
use super::target::{Target, is_of_this_host};
use super::upstream::{Server, Upstream};
use super::{http, socks5};
use crate::Protocol;

/// Reaches destinations.
#[derive(Debug)]
pub(super) struct Dialer {
    upstream: Upstream,
    /// Which address of the upstream answered last.
    server: Mutex<Option<SocketAddr>>,
    lookups: Lookups,
    pub(super) sockets: Sockets,
    /// Asked again about the addresses of a name.
    rules: Arc<Rules>,
    timeout: Duration,
}

/// A destination that answered.
#[derive(Debug)]
pub(super) struct Dialled {
    /// Reset when it is dropped ([`Sockets::connect_tcp`]).
    pub(super) stream: TcpStream,
    /// What the destination said already.
    pub(super) early: Vec<u8>,
}

/// The way datagrams go.
#[derive(Debug)]
pub(super) enum Way {
    /// Straight to the destination.
    Direct(Datagrams),
    /// Through the relay of a SOCKS5 server.
    Relayed(Relay),
    /// DNS over TCP (RFC 7766), where the upstream carries nothing else.
    Framed(TcpStream),
}

/// An association with a SOCKS5 server (RFC 1928 7).
#[derive(Debug)]
pub(super) struct Relay {
    /// The association lasts as long as this connection.
    pub(super) control: TcpStream,
    pub(super) datagrams: Datagrams,
    /// What goes before each datagram.
    pub(super) header: Vec<u8>,
}

impl Dialer {
    pub(super) fn new(config: &Config, rules: Arc<Rules>) -> Self {
        Self {
            upstream: config.upstream.clone(),
            server: Mutex::default(),
            lookups: Lookups::new(),
            sockets: Sockets::new(
                config.bind_interface.clone(),
                config.mark,
                config.detect_loops,
            ),
            rules,
            timeout: config.connect_timeout,
        }
    }

    /// Connects to the target; returns once it has answered.
    pub(super) async fn tcp(&self, target: &Target) -> Result<Dialled, DialError> {
        let dialled = timeout(self.timeout, self.dial_tcp(target)).await;
        dialled.unwrap_or_else(|_| self.no_answer())
    }

    /// Opens a way for datagrams to the target.
    pub(super) async fn udp(&self, target: &Target) -> Result<Way, DialError> {
        let way = timeout(self.timeout, self.dial_udp(target)).await;
        way.unwrap_or_else(|_| self.no_answer())
    }

    /// The upstream may have moved.
    fn no_answer<R>(&self) -> Result<R, DialError> {
        *self.known_server() = None;
        Err(DialError::NoAnswer)
    }

    fn known_server(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dial_tcp(&self, target: &Target) -> Result<Dialled, DialError> {
        match &self.upstream {
            Upstream::Direct => {
                let stream = self.dial_direct(target).await?;
                Ok(Dialled {
                    stream,
                    early: Vec::new(),
                })
            }
            Upstream::Socks5(server) => {
                let mut stream = self.dial_server(server).await?;
                let credentials = server.credentials.as_ref();
                socks5::ask(&mut stream, credentials, socks5::Command::Connect, target).await?;
                Ok(Dialled {
                    stream,
                    early: Vec::new(),
                })
            }
            Upstream::Http(server) => {
                let mut stream = self.dial_server(server).await?;
                let early = http::connect(&mut stream, server.credentials.as_ref(), target).await?;
                Ok(Dialled { stream, early })
            }
        }
    }

    /// The addresses of a name are tried in their order.
    async fn dial_direct(&self, target: &Target) -> Result<TcpStream, DialError> {
        let mut error = DialError::NetworkUnreachable;
        for address in self.addresses(Protocol::Tcp, target).await? {
            match self.sockets.connect_tcp(address).await {
                Ok(stream) => return Ok(stream),
                Err(failed) => error = failed.into(),
            }
        }
        Err(error)
    }

    async fn dial_udp(&self, target: &Target) -> Result<Way, DialError> {
        match &self.upstream {
            Upstream::Direct => {
                let mut error = DialError::NetworkUnreachable;
                for address in self.addresses(Protocol::Udp, target).await? {
                    match self.sockets.connect_udp(address) {
                        Ok(datagrams) => return Ok(Way::Direct(datagrams)),
                        Err(failed) => error = failed.into(),
                    }
                }
                Err(error)
            }
            Upstream::Socks5(server) => Ok(Way::Relayed(self.associate(server, target).await?)),
            Upstream::Http(_) if target.port() == DNS_PORT => {
                let Dialled { stream, early } = self.dial_tcp(target).await?;
                match early.is_empty() {
                    true => Ok(Way::Framed(stream)),
                    false => Err(DialError::Upstream(
                        "an answer before the question".to_owned(),
                    )),
                }
            }
            Upstream::Http(_) => Err(DialError::NoUdp),
        }
    }

    /// A socket that pings the target.
    pub(super) async fn ping(&self, target: &Target) -> Result<Datagrams, DialError> {
        let mut error = DialError::NetworkUnreachable;
        for address in self.addresses(Protocol::IcmpEcho, target).await? {
            match self.sockets.connect_ping(address) {
                Ok(datagrams) => return Ok(datagrams),
                Err(failed) => error = failed.into(),
            }
        }
        Err(error)
    }

    /// We do not know from which address the relay will see our datagrams: the request
    /// names the unspecified one (RFC 1928 4).
    async fn associate(&self, server: &Server, target: &Target) -> Result<Relay, DialError> {
        let header = socks5::datagram_header(target)?;
        let mut control = self.dial_server(server).await?;
        let at = control.peer_addr().map_err(DialError::from)?.ip();
        let anywhere = Target::Address(SocketAddr::new(unspecified_like(at), 0));
        let answered = socks5::ask(
            &mut control,
            server.credentials.as_ref(),
            socks5::Command::UdpAssociate,
            &anywhere,
        )
        .await?;
        let relay = socks5::relay_address(answered, at);
        let datagrams = self.sockets.connect_udp(relay);
        Ok(Relay {
            control,
            datagrams: datagrams.map_err(|error| DialError::from(error).of_upstream())?,
            header,
        })
    }

    async fn dial_server(&self, server: &Server) -> Result<TcpStream, DialError> {
        let known = *self.known_server();
        if let Some(address) = known
            && let Ok(stream) = self.sockets.connect_tcp(address).await
        {
            return Ok(stream);
        }
        let found = self.lookups.addresses(&server.host, server.port).await;
        let found = found.map_err(|error| DialError::Upstream(format!("{server}: {error}")))?;
        let mut error = DialError::Upstream(format!("{server} has no address"));
        for address in found {
            match self.sockets.connect_tcp(address).await {
                Ok(stream) => {
                    *self.known_server() = Some(address);
                    return Ok(stream);
                }
                Err(failed) => error = DialError::from(failed).of_upstream(),
            }
        }
        Err(error)
    }

    /// Where the target is. A name may lead to no address that its peer could not
    /// have asked for itself.
    async fn addresses(
        &self,
        protocol: Protocol,
        target: &Target,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let (name, port) = match target {
            Target::Address(address) => return Ok(vec![*address]),
            Target::Here => return Err(DialError::NetworkUnreachable),
            Target::Name(name, port) => (name, *port),
        };
        let no_address = || DialError::NoAddress(name.to_string());
        let found = self.lookups.addresses(name, port).await;
        let found = found.map_err(|_| no_address())?;
        if found.is_empty() {
            return Err(no_address());
        }
        let may_pass = |to: &SocketAddr| {
            !is_of_this_host(to.ip()) && self.rules.pass(protocol, Some(to.ip()), port)
        };
        let passing: Vec<_> = found.into_iter().filter(may_pass).collect();
        match passing.is_empty() {
            true => Err(DialError::Prohibited),
            false => Ok(passing),
        }
    }
}

fn unspecified_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::{Config, Dialer, Rules, Server};

    /// `localhost` is `::1` first where there is IPv6, and the server need not be there.
    #[tokio::test]
    async fn every_address_of_an_upstream_is_tried_and_the_one_that_answers_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server {
            host: "localhost".to_owned(),
            port: address.port(),
            credentials: None,
        };
        let dialer = Dialer::new(&Config::default(), Rules::default().into());
        // Where it was once: nobody is there.
        *dialer.known_server() = Some("127.0.0.1:1".parse().unwrap());
        for _ in 0..2 {
            let stream = dialer.dial_server(&server).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), address);
            assert_eq!(*dialer.known_server(), Some(address));
            assert!(socket2::SockRef::from(&stream).keepalive().unwrap());
        }
    }
}
