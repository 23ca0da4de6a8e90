//! The extension headers of IPv6 (RFC 8200 4), one step of the chain at a time.

use smoltcp::wire::IpProtocol;

use super::report::Fault;
use crate::counters::DropReason;

/// Most extension headers of a packet: RFC 8200 4.1 knows six kinds, each once but
/// destination options twice.
pub(super) const MOST_HEADERS: usize = 7;
/// Bytes of a fragment header.
pub(super) const FRAGMENT: usize = 8;

/// The next header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) protocol: IpProtocol,
    /// Where in the packet it is named.
    pub(super) named_at: usize,
    /// Where in the packet it begins; never beyond the end.
    pub(super) at: usize,
}

impl Next {
    /// Over a header of `length` bytes.
    pub(super) fn skip(self, whole: &[u8], length: usize) -> Result<Self, Fault> {
        match whole.get(self.at) {
            Some(protocol) if whole.len() - self.at >= length => Ok(Self {
                protocol: (*protocol).into(),
                named_at: self.at,
                at: self.at + length,
            }),
            Some(_) | None => Err(Fault::silent(DropReason::Malformed)),
        }
    }

    /// Over a header with its length in its second byte.
    fn skip_counted(self, whole: &[u8]) -> Result<Self, Fault> {
        let units = whole.get(self.at + 1).copied().unwrap_or(0);
        self.skip(whole, 8 + usize::from(units) * 8)
    }

    /// Over hop-by-hop or destination options. We know but padding, and do with
    /// the others as their upper two bits say (RFC 8200 4.2). Of those that only
    /// unicast packets are answered for, all are unicast here.
    pub(super) fn options(self, whole: &[u8]) -> Result<Self, Fault> {
        const PAD_1: u8 = 0;
        const PAD_N: u8 = 1;
        let next = self.skip_counted(whole)?;
        let mut at = self.at + 2;
        while at < next.at {
            let kind = whole[at];
            if kind == PAD_1 {
                at += 1;
                continue;
            }
            let Some(length) = whole[..next.at].get(at + 1) else {
                return Err(Fault::silent(DropReason::Malformed));
            };
            let after = at + 2 + usize::from(*length);
            if after > next.at {
                return Err(Fault::silent(DropReason::Malformed));
            }
            match kind >> 6 {
                _ if kind == PAD_N => {}
                0 => {}
                1 => return Err(Fault::silent(DropReason::ExtensionHeader)),
                _ => return Err(Fault::parameter(DropReason::ExtensionHeader, 2, at)),
            }
            at = after;
        }
        Ok(next)
    }

    /// Over a routing header, of which we know no type: one with no segments left
    /// has done its work (RFC 8200 4.4); so has type 0 (RFC 5095 3).
    pub(super) fn routing(self, whole: &[u8]) -> Result<Self, Fault> {
        let next = self.skip_counted(whole)?;
        let (kind_at, left_at) = (self.at + 2, self.at + 3);
        match whole[left_at] {
            0 => Ok(next),
            _ => Err(Fault::parameter(DropReason::ExtensionHeader, 0, kind_at)),
        }
    }
}

/// The protocol at the end of a chain of extension headers, and its bytes, without
/// a judgement on the headers. None if the bytes end before it, or it is in another
/// fragment.
pub(crate) fn upper(mut protocol: IpProtocol, mut bytes: &[u8]) -> Option<(IpProtocol, &[u8])> {
    for _ in 0..=MOST_HEADERS {
        let length = match protocol {
            IpProtocol::HopByHop | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route => {
                8 + usize::from(*bytes.get(1)?) * 8
            }
            IpProtocol::Ipv6Frag => {
                let word = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
                if word & !7 != 0 {
                    return None;
                }
                FRAGMENT
            }
            protocol => return Some((protocol, bytes)),
        };
        protocol = (*bytes.first()?).into();
        bytes = bytes.get(length..)?;
    }
    None
}
