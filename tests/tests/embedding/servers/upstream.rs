//! Upstream proxies, as processes that can be killed: SOCKS5 (RFC 1928) without
//! authentication, TCP and UDP ASSOCIATE, and HTTP CONNECT (RFC 9110 9.3.6).

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write, copy};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};

use crate::client;
use crate::process::Process;
use crate::world::{FAMILIES, Family, NAME, World};

/// A proxy in a process of its own, at an address that it keeps when it is started
/// again.
pub(crate) struct Upstream {
    kind: &'static str,
    pub(crate) address: SocketAddr,
    process: Process,
}

impl Upstream {
    /// `socks5` or `http`.
    pub(crate) fn start(world: &World, family: Family, kind: &'static str) -> Self {
        let address = world.listen(family).1;
        Self::start_at(kind, address)
    }

    fn start_at(kind: &'static str, address: SocketAddr) -> Self {
        let words = client::command(kind, &[&address]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        let process = Process::start(&mut command);
        process.wait_until_it_says("ready");
        Self {
            kind,
            address,
            process,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.kind, self.address)
    }

    pub(crate) fn kill(self) -> (&'static str, SocketAddr) {
        self.process.signal(9);
        let _ = self.process.wait();
        (self.kind, self.address)
    }

    pub(crate) fn start_again((kind, address): (&'static str, SocketAddr)) -> Self {
        Self::start_at(kind, address)
    }
}

/// The process: serves until it is killed.
pub(crate) fn serve(kind: &str, address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    println!("ready");
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        let is_socks = kind == "socks5";
        super::spawn(move || {
            let ended = if is_socks {
                socks5(stream)
            } else {
                http(stream)
            };
            if let Err(error) = ended {
                eprintln!("{error}");
            }
        });
    }
}

fn socks5(mut client: TcpStream) -> Result<()> {
    let [version, methods] = read(&mut client)?;
    let mut offered = vec![0; methods.into()];
    client.read_exact(&mut offered)?;
    if version != 5 || !offered.contains(&0) {
        return client.write_all(&[5, 0xff]);
    }
    client.write_all(&[5, 0])?;
    let [_, command, _] = read(&mut client)?;
    let to = read_address(&mut client)?;
    match command {
        1 => match TcpStream::connect(to) {
            Ok(server) => {
                client.write_all(&reply(0, server.local_addr()?))?;
                relay(client, server)
            }
            Err(error) => client.write_all(&reply(code(&error), to)),
        },
        3 => associate(client),
        _ => client.write_all(&reply(7, to)),
    }
}

/// RFC 1928 6.
fn code(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::NetworkUnreachable => 3,
        ErrorKind::HostUnreachable => 4,
        ErrorKind::ConnectionRefused => 5,
        _ => 1,
    }
}

/// RFC 1928 7: lives as long as its connection.
fn associate(mut client: TcpStream) -> Result<()> {
    let inside = UdpSocket::bind(SocketAddr::new(client.local_addr()?.ip(), 0))?;
    client.write_all(&reply(0, inside.local_addr()?))?;
    let back = inside.try_clone()?;
    let relaying = std::thread::spawn(move || relay_datagrams(&inside));
    client.read_to_end(&mut Vec::new())?;
    // An empty datagram from itself ends the relay.
    let here = back.local_addr()?;
    UdpSocket::bind(SocketAddr::new(here.ip(), 0))?.send_to(&[], here)?;
    let _ = relaying.join();
    Ok(())
}

fn relay_datagrams(inside: &UdpSocket) -> Result<()> {
    let mut buffer = [0; 65_536];
    loop {
        let (length, client) = inside.recv_from(&mut buffer)?;
        let Some(mut datagram) = buffer[..length].get(3..) else {
            return Ok(());
        };
        let to = read_address(&mut datagram)?;
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let outside = UdpSocket::bind(any)?;
        outside.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        outside.send_to(datagram, to)?;
        let mut answer = [0; 65_536];
        if let Ok((length, from)) = outside.recv_from(&mut answer) {
            let header = [&[0, 0, 0], &address(from)[..]].concat();
            inside.send_to(&[&header, &answer[..length]].concat(), client)?;
        }
    }
}

fn http(mut client: TcpStream) -> Result<()> {
    let mut lines = BufReader::with_capacity(1, client.try_clone()?);
    let (mut request, mut line) = (String::new(), String::new());
    lines.read_line(&mut request)?;
    while lines.read_line(&mut line)? > 2 {
        line.clear();
    }
    let authority = request.strip_prefix("CONNECT ");
    let authority = authority.and_then(|rest| rest.split(' ').next());
    let authority = authority.ok_or(ErrorKind::InvalidData)?;
    let to = match authority
        .strip_prefix(NAME)
        .and_then(|rest| rest.strip_prefix(':'))
    {
        Some(port) => SocketAddr::new(Family::V4.at(2, 0).ip(), parse(port)?),
        None => parse(authority)?,
    };
    match TcpStream::connect(to) {
        Ok(server) => {
            client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
            relay(client, server)
        }
        Err(_) => client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| ErrorKind::InvalidData.into())
}

/// Both directions, each to its end.
fn relay(client: TcpStream, server: TcpStream) -> Result<()> {
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    super::spawn(move || {
        let _ = copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    copy(&mut from_server, &mut to_client)?;
    to_client.shutdown(Shutdown::Write)
}

fn read<const LENGTH: usize>(from: &mut impl Read) -> Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The one name there is has an address of each family; which one is a matter of luck
/// elsewhere, and here the first.
fn read_address(from: &mut impl Read) -> Result<SocketAddr> {
    let ip = match read(from)? {
        [1] => IpAddr::from(read::<4>(from)?),
        [4] => IpAddr::from(read::<16>(from)?),
        [3] => {
            let [length] = read(from)?;
            let mut name = vec![0; length.into()];
            from.read_exact(&mut name)?;
            if name != NAME.as_bytes() {
                return Err(ErrorKind::NotFound.into());
            }
            FAMILIES[0].at(2, 0).ip()
        }
        [other] => return Err(Error::other(format!("address type {other}"))),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(read(from)?)))
}

fn reply(code: u8, bound: SocketAddr) -> Vec<u8> {
    [&[5, code, 0], &address(bound)[..]].concat()
}

fn address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = match address.ip() {
        IpAddr::V4(ip) => [&[1], &ip.octets()[..]].concat(),
        IpAddr::V6(ip) => [&[4], &ip.octets()[..]].concat(),
    };
    bytes.extend(address.port().to_be_bytes());
    bytes
}
