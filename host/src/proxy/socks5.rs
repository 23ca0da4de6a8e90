//! SOCKS5 (RFC 1928, RFC 1929), the client's side.
//!
//! No kept library fits: fast-socks5 1.0 panics at a reply code that it does not
//! know, which the server chooses; tokio-socks 0.5 has no UDP; socks5-impl is under
//! the GPL.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::DialError;
use super::target::Target;
use super::upstream::Credentials;

const VERSION: u8 = 5;
/// RFC 1928 3.
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
/// RFC 1928 5.
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// What the server is asked for (RFC 1928 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Connect = 1,
    UdpAssociate = 3,
}

/// Asks the server, and gives the address that it answers with: for CONNECT its own
/// towards the destination, for UDP ASSOCIATE the one to send datagrams to.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: Option<&Credentials>,
    command: Command,
    target: &Target,
) -> Result<SocketAddr, DialError> {
    introduce(stream, credentials).await?;
    let mut request = vec![VERSION, command as u8, 0];
    put_address(&mut request, target)?;
    stream.write_all(&request).await.map_err(lost)?;

    let [version, reply, _] = read(stream).await?;
    check_version(version)?;
    understand(reply)?;
    read_address(stream).await
}

/// Agrees on how we prove who we are, and does it.
async fn introduce<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: Option<&Credentials>,
) -> Result<(), DialError> {
    let offer: &[u8] = match credentials {
        None => &[VERSION, 1, NO_AUTHENTICATION],
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD],
    };
    stream.write_all(offer).await.map_err(lost)?;
    let [version, method] = read(stream).await?;
    check_version(version)?;
    match (method, credentials) {
        (NO_AUTHENTICATION, _) => Ok(()),
        (USER_AND_PASSWORD, Some(credentials)) => log_in(stream, credentials).await,
        _ => Err(upstream(
            "the SOCKS server wants another way to log in (user and password go into --proxy)",
        )),
    }
}

/// RFC 1929 2.
async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: &Credentials,
) -> Result<(), DialError> {
    let mut request = vec![1];
    for text in [&credentials.user, &credentials.password] {
        put_short(&mut request, text)?;
    }
    stream.write_all(&request).await.map_err(lost)?;
    match read(stream).await? {
        [_, 0] => Ok(()),
        [_, _] => Err(upstream("the SOCKS server refuses user and password")),
    }
}

/// RFC 1928 6. What a server says of itself is not the destination's word.
fn understand(reply: u8) -> Result<(), DialError> {
    Err(match reply {
        0 => return Ok(()),
        1 => upstream("the SOCKS server failed"),
        2 => DialError::Prohibited,
        3 => DialError::NetworkUnreachable,
        4 => DialError::HostUnreachable,
        5 => DialError::Refused,
        // The TTL expired: the way there is a loop.
        6 => DialError::HostUnreachable,
        7 => upstream("the SOCKS server does not know this command"),
        8 => upstream("the SOCKS server does not know this kind of address"),
        other => DialError::Upstream(format!("the SOCKS server answered {other}")),
    })
}

/// The header of a datagram to the relay, which its data follows (RFC 1928 7).
pub(super) fn datagram_header(target: &Target) -> Result<Vec<u8>, DialError> {
    let mut header = vec![0; 3];
    put_address(&mut header, target)?;
    Ok(header)
}

/// Where a datagram of the relay came from, and its data; `None` for a fragment (we
/// need not take them, RFC 1928 7) and for what is no datagram. Of a sender that has
/// a name, the address is unknown.
pub(super) fn read_datagram(datagram: &[u8]) -> Option<(Option<SocketAddr>, &[u8])> {
    let ([0, 0, 0, kind], rest) = datagram.split_first_chunk()? else {
        return None;
    };
    let (address, rest) = match *kind {
        IPV4 => {
            let (octets, rest) = rest.split_first_chunk::<4>()?;
            (Some(IpAddr::from(*octets)), rest)
        }
        IPV6 => {
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            (Some(IpAddr::from(*octets)), rest)
        }
        NAME => {
            let (length, rest) = rest.split_first()?;
            (None, rest.get(usize::from(*length)..)?)
        }
        _ => return None,
    };
    let (port, data) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    Some((address.map(|address| SocketAddr::new(address, port)), data))
}

fn put_address(to: &mut Vec<u8>, target: &Target) -> Result<(), DialError> {
    let port = match target {
        Target::Address(address) => {
            match address.ip() {
                IpAddr::V4(ip) => {
                    to.push(IPV4);
                    to.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    to.push(IPV6);
                    to.extend(ip.octets());
                }
            }
            address.port()
        }
        Target::Name(name, port) => {
            to.push(NAME);
            put_short(to, name)?;
            *port
        }
        Target::Here => return Err(DialError::NetworkUnreachable),
    };
    to.extend(port.to_be_bytes());
    Ok(())
}

/// A length in one byte, and the text.
fn put_short(to: &mut Vec<u8>, text: &str) -> Result<(), DialError> {
    let length = u8::try_from(text.len()).map_err(|_| upstream("longer than SOCKS can say"))?;
    to.push(length);
    to.extend(text.bytes());
    Ok(())
}

/// A server that answers with a name instead of an address gives no address to send
/// to: as good as the unspecified one.
async fn read_address<S: AsyncRead + Unpin>(stream: &mut S) -> Result<SocketAddr, DialError> {
    let [kind] = read(stream).await?;
    let address = match kind {
        IPV4 => IpAddr::from(read::<4, _>(stream).await?),
        IPV6 => IpAddr::from(read::<16, _>(stream).await?),
        NAME => {
            let [length] = read(stream).await?;
            let mut name = vec![0; length.into()];
            stream.read_exact(&mut name).await.map_err(lost)?;
            let name = std::str::from_utf8(&name).ok();
            name.and_then(|name| name.parse().ok())
                .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        }
        _ => {
            return Err(upstream(
                "the SOCKS server answered an unknown kind of address",
            ));
        }
    };
    let port = u16::from_be_bytes(read(stream).await?);
    Ok(SocketAddr::new(address, port))
}

async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> Result<[u8; N], DialError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(lost)?;
    Ok(bytes)
}

fn check_version(version: u8) -> Result<(), DialError> {
    match version {
        VERSION => Ok(()),
        _ => Err(upstream("this is no SOCKS5 server")),
    }
}

fn lost(error: io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => upstream("the SOCKS server hung up"),
        _ => DialError::Upstream(error.to_string()),
    }
}

fn upstream(why: &str) -> DialError {
    DialError::Upstream(why.to_owned())
}

/// The address of a relay: a server that is reached through another network names
/// the unspecified one and means itself.
pub(super) fn relay_address(answered: SocketAddr, server: IpAddr) -> SocketAddr {
    match answered.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            SocketAddr::new(server, answered.port())
        }
        _ => answered,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{
        Command, Credentials, DialError, Target, ask, datagram_header, read_datagram,
        relay_address, understand,
    };
    use crate::Refusal;

    /// A conversation: what the client must write, and what the server then says.
    async fn converse(
        credentials: Option<&Credentials>,
        target: &Target,
        script: &[(&[u8], &[u8])],
    ) -> Result<SocketAddr, DialError> {
        let (mut client, mut server) = duplex(1024);
        let serve = async {
            for (expected, answer) in script {
                let mut got = vec![0; expected.len()];
                server.read_exact(&mut got).await.unwrap();
                assert_eq!(&got, expected);
                server.write_all(answer).await.unwrap();
            }
            drop(server);
        };
        let asked = ask(&mut client, credentials, Command::Connect, target);
        tokio::join!(asked, serve).0
    }

    fn run<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    fn address(text: &str) -> Target {
        Target::Address(text.parse().unwrap())
    }

    const SUCCEEDED: &[u8] = &[5, 0, 0, 1, 192, 0, 2, 1, 0x10, 0x20];

    #[test]
    fn connect_without_authentication() {
        let script: &[(&[u8], &[u8])] = &[
            (&[5, 1, 0], &[5, 0]),
            (&[5, 1, 0, 1, 198, 51, 100, 7, 1, 187], SUCCEEDED),
        ];
        let bound = run(converse(None, &address("198.51.100.7:443"), script));
        assert_eq!(bound, Ok("192.0.2.1:4128".parse().unwrap()));
    }

    #[test]
    fn connect_by_name_with_user_and_password() {
        let credentials = "me:secret".parse().unwrap();
        let script: &[(&[u8], &[u8])] = &[
            (&[5, 2, 0, 2], &[5, 2]),
            (b"\x01\x02me\x06secret", &[1, 0]),
            (b"\x05\x01\x00\x03\x0bexample.org\x01\xbb", SUCCEEDED),
        ];
        let target = Target::Name("example.org".into(), 443);
        assert!(run(converse(Some(&credentials), &target, script)).is_ok());
    }

    #[test]
    fn what_the_server_refuses_itself_is_said_of_the_server() {
        let target = address("[2001:db8::1]:80");
        for (script, why) in [
            (
                &[(&b"\x05\x01\x00"[..], &b"\x05\xff"[..])][..],
                "another way",
            ),
            (&[(b"\x05\x01\x00", b"HTTP")], "no SOCKS5"),
            (&[(b"\x05\x01\x00", b"")], "hung up"),
        ] {
            let error = run(converse(None, &target, script)).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(error.refusal(), Some(Refusal::NetworkUnreachable));
        }
    }

    #[test]
    fn the_peer_is_told_what_the_server_was() {
        for (reply, refusal) in [
            (2, Refusal::Prohibited),
            (3, Refusal::NetworkUnreachable),
            (4, Refusal::HostUnreachable),
            (5, Refusal::Reset),
            (6, Refusal::HostUnreachable),
        ] {
            assert_eq!(understand(reply).unwrap_err().refusal(), Some(refusal));
        }
        assert_eq!(understand(0), Ok(()));
        for of_the_server in [1, 7, 8, 9, 255] {
            let error = understand(of_the_server).unwrap_err();
            assert!(matches!(error, DialError::Upstream(_)), "{error:?}");
        }
    }

    #[test]
    fn a_datagram_comes_back_as_it_was_wrapped() {
        for to in ["192.0.2.1:53", "[2001:db8::1]:4242"] {
            let mut datagram = datagram_header(&address(to)).unwrap();
            datagram.extend(b"data");
            let (from, data) = read_datagram(&datagram).unwrap();
            assert_eq!((from, data), (Some(to.parse().unwrap()), &b"data"[..]));
        }
        let name = Target::Name("example.org".into(), 53);
        let named = datagram_header(&name).unwrap();
        assert_eq!(read_datagram(&named), Some((None, &[][..])));
    }

    #[test]
    fn what_is_no_datagram_or_a_fragment_is_dropped() {
        let whole = datagram_header(&address("192.0.2.1:53")).unwrap();
        for end in 0..whole.len() {
            assert_eq!(read_datagram(&whole[..end]), None, "{end} bytes");
        }
        let mut fragment = whole;
        fragment[2] = 1;
        assert_eq!(read_datagram(&fragment), None);
        assert_eq!(read_datagram(&[0, 0, 0, 3, 9, b'a', 0, 1]), None);
    }

    #[test]
    fn a_relay_without_address_is_at_the_server() {
        let server = "203.0.113.1".parse().unwrap();
        let relay = |text: &str| relay_address(text.parse().unwrap(), server).to_string();
        assert_eq!(relay("0.0.0.0:99"), "203.0.113.1:99");
        assert_eq!(relay("192.0.2.1:99"), "192.0.2.1:99");
    }
}
