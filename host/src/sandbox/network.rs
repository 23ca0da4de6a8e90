//! The namespace's interfaces, addresses and routes, told to the kernel over
//! netlink (rtnetlink(7)).
//!
//! Three messages without options are all that is needed. The crate that knows
//! them all, netlink-packet-route, takes longer to compile than the command line
//! parser.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::netdevice::name_to_index;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto,
    socket_with,
};

use super::Error;
use crate::tun::Cidr;

/// Brings the loopback and `interface` up, gives the interface its addresses, and
/// leads everything to it.
pub(super) fn set_up(interface: &str, addresses: &[Cidr]) -> Result<(), Error> {
    let kernel = Kernel::open().map_err(|source| failed("ask the kernel for routes", &source))?;
    for name in ["lo", interface] {
        let up = kernel.index(name).and_then(|index| kernel.up(index));
        up.map_err(|source| failed(&format!("bring {name} up"), &source))?;
    }
    for &address in addresses {
        let index = kernel.index(interface);
        let added = index.and_then(|index| kernel.add_address(index, address));
        added.map_err(|source| {
            failed(&format!("give {interface} the address {address}"), &source)
        })?;
        let index = kernel.index(interface);
        let added = index.and_then(|index| kernel.add_default_route(index, address.address));
        added.map_err(|source| failed(&format!("route everything to {interface}"), &source))?;
    }
    Ok(())
}

fn failed(doing: &str, source: &io::Error) -> Error {
    Error::Launcher(format!("cannot {doing}: {source}"))
}

/// The protocol with the number 0.
const NETLINK_ROUTE: Option<Protocol> = None;

// linux/rtnetlink.h, linux/if.h, linux/if_addr.h, linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 0x1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x2;
const RTA_OIF: u16 = 4;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// The kernel's ear for such messages.
struct Kernel(OwnedFd);

impl Kernel {
    fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            NETLINK_ROUTE,
        )?;
        Ok(Self(socket))
    }

    fn index(&self, interface: &str) -> io::Result<u32> {
        Ok(name_to_index(&self.0, interface)?)
    }

    /// `struct ifinfomsg`.
    fn up(&self, index: u32) -> io::Result<()> {
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        self.ask(RTM_NEWLINK, 0, &body)
    }

    /// `struct ifaddrmsg`. Nobody else is on the link, so that no duplicate is looked
    /// for and the address is usable at once.
    fn add_address(&self, index: u32, cidr: Cidr) -> io::Result<()> {
        let (family, octets) = family(cidr.address);
        let mut body = vec![family, cidr.prefix, IFA_F_NODAD, RT_SCOPE_UNIVERSE];
        body.extend(index.to_ne_bytes());
        attribute(&mut body, IFA_LOCAL, &octets);
        attribute(&mut body, IFA_ADDRESS, &octets);
        self.ask(RTM_NEWADDR, NLM_F_CREATE, &body)
    }

    /// `struct rtmsg`.
    fn add_default_route(&self, index: u32, of: IpAddr) -> io::Result<()> {
        let (family, _) = family(of);
        let scope = match of {
            IpAddr::V4(_) => RT_SCOPE_LINK,
            IpAddr::V6(_) => RT_SCOPE_UNIVERSE,
        };
        let mut body = vec![family, 0, 0, 0];
        body.extend([RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST]);
        body.extend([0; 4]);
        attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
        self.ask(RTM_NEWROUTE, NLM_F_CREATE, &body)
    }

    /// Sends a message and hears what the kernel says to it.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        // Sequence number and port: one question at a time, of one socket.
        message.extend([0; 8]);
        message.extend(body);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.0, &message, SendFlags::empty(), &kernel)?;
        let mut answer = [0; 4096];
        let (_, length) = recv(&self.0, &mut answer, RecvFlags::empty())?;
        outcome(&answer[..length])
    }
}

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// `struct nlmsgerr` begins with an error number below zero, or 0.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).map(|it| [it[0], it[1]]);
    let code = answer.get(HEADER..HEADER + 4);
    let code = code.and_then(|it| <[u8; 4]>::try_from(it).ok());
    match (kind.map(u16::from_ne_bytes), code.map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// `struct rtattr`, padded to four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Values are addresses and indices.
    let length = u16::try_from(value.len()).unwrap_or(0) + 4;
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// AF_INET or AF_INET6, and the address's bytes.
fn family(address: IpAddr) -> (u8, Vec<u8>) {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    (family.as_raw().to_le_bytes()[0], octets)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::{attribute, outcome};

    #[test]
    fn an_answer_is_an_error_or_none() {
        let answer = |code: i32| {
            let mut bytes = vec![0; 20];
            bytes[4..6].copy_from_slice(&2u16.to_ne_bytes());
            bytes[16..].copy_from_slice(&code.to_ne_bytes());
            bytes
        };
        assert!(outcome(&answer(0)).is_ok());
        let refused = outcome(&answer(-1)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        assert_eq!(outcome(&[]).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn attributes_are_padded_and_their_length_is_not() {
        let mut body = Vec::new();
        attribute(&mut body, 3, b"lo\0");
        assert_eq!(body.len(), 8);
        assert_eq!(body[..2], 7u16.to_ne_bytes());
    }
}
