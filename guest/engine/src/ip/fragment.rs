//! A received fragment (RFC 791 3.2, RFC 8200 4.5), and what no sender of good
//! will makes of one.

use core::net::IpAddr;

use smoltcp::wire::IpProtocol;

use super::extension::{FRAGMENT, upper};
use super::report::Fault;
use super::{MOST_BYTES, Rejected};
use crate::counters::DropReason;

/// A piece of a datagram; not all of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    /// What the datagram carries, as this fragment has it.
    pub(super) protocol: IpProtocol,
    /// Where in `whole` that is named: in IPv6 the field that names the fragment
    /// header.
    pub(super) protocol_at: usize,
    pub(super) id: u32,
    pub(super) offset: usize,
    pub(super) more: bool,
    /// The packet without link padding; it ends with `payload`.
    pub(super) whole: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// All before the payload, the fragment header of IPv6 included.
    pub(super) fn header(&self) -> &'a [u8] {
        &self.whole[..self.whole.len() - self.payload.len()]
    }

    pub(super) fn end(&self) -> usize {
        self.offset + self.payload.len()
    }

    /// The same, if it can be a piece of a datagram.
    pub(super) fn proven(self) -> Result<Self, Rejected<'a>> {
        let checked = match self.src {
            IpAddr::V4(_) => self.check_v4(),
            IpAddr::V6(_) => self.check_v6(),
        };
        match checked {
            Ok(()) => Ok(self),
            Err(fault) => Err(fault.about(self.src, self.dst, self.whole)),
        }
    }

    fn check_v4(&self) -> Result<(), Fault> {
        let impossible = self.payload.is_empty()
            || self.ends_amid_a_unit()
            || self.header().len() + self.end() > MOST_BYTES;
        // RFC 1858 3.2.2 and RFC 3128: what lies at 8 in a TCP header comes with
        // its ports, and cannot be written over.
        let is_rest_of_tcp_header = self.protocol == IpProtocol::Tcp && self.offset == 8;
        if impossible || is_rest_of_tcp_header || !self.holds_headers_if_first() {
            return Err(Fault::silent(DropReason::Fragment));
        }
        Ok(())
    }

    /// The errors are those of RFC 8200 4.5.
    fn check_v6(&self) -> Result<(), Fault> {
        const PAYLOAD_LENGTH_AT: usize = 4;
        let offset_at = self.header().len() - FRAGMENT + 2;
        let reassembled = self.header().len() - FRAGMENT - 40 + self.end();
        if self.payload.is_empty() {
            return Err(Fault::silent(DropReason::Fragment));
        }
        if self.ends_amid_a_unit() {
            let pointer = PAYLOAD_LENGTH_AT;
            return Err(Fault::parameter(DropReason::Fragment, 0, pointer));
        }
        if reassembled > MOST_BYTES {
            return Err(Fault::parameter(DropReason::Fragment, 0, offset_at));
        }
        if !self.holds_headers_if_first() {
            return Err(Fault::parameter(DropReason::Fragment, 3, 0));
        }
        Ok(())
    }

    /// Offsets count in units of 8 bytes, so only the last fragment ends anywhere.
    fn ends_amid_a_unit(&self) -> bool {
        self.more && !self.payload.len().is_multiple_of(8)
    }

    /// RFC 7112 and RFC 1858 3.2.1: the first fragment holds all headers, so that
    /// no other can change what they say.
    fn holds_headers_if_first(&self) -> bool {
        if self.offset != 0 {
            return true;
        }
        let transport = match self.src {
            IpAddr::V4(_) => Some((self.protocol, self.payload)),
            IpAddr::V6(_) => upper(self.protocol, self.payload),
        };
        let Some((protocol, bytes)) = transport else {
            return false;
        };
        let header = match protocol {
            IpProtocol::Tcp => {
                let words = bytes.get(12).map_or(0, |byte| usize::from(byte >> 4));
                (words * 4).max(20)
            }
            IpProtocol::Udp | IpProtocol::Icmp | IpProtocol::Icmpv6 => 8,
            // Nobody here reads it.
            _ => 0,
        };
        bytes.len() >= header
    }
}
