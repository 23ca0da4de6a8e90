//! What the sender of a packet is told about it, and whether it is told.

use core::net::IpAddr;

use smoltcp::wire::{IpProtocol, IpVersion, Ipv4Packet, Ipv6Packet};

use super::{extension, version};
use crate::counters::DropReason;

/// A packet that goes no further.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rejected<'a> {
    pub(crate) reason: DropReason,
    /// What its sender is told.
    pub(crate) report: Option<Report<'a>>,
}

impl From<DropReason> for Rejected<'_> {
    fn from(reason: DropReason) -> Self {
        Self {
            reason,
            report: None,
        }
    }
}

/// An ICMP error about a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report<'a> {
    /// The ends of the packet: the error goes the other way.
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) problem: Problem,
    /// The packet.
    pub(crate) quote: &'a [u8],
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// A header of an IPv6 packet (RFC 4443 3.4); `pointer` is the offset of the
    /// field.
    Parameter { code: u8, pointer: usize },
    /// Nobody here speaks the protocol of an IPv4 packet (RFC 792).
    Protocol,
    /// The fragments did not come in time (RFC 792, RFC 4443 3.3).
    ReassemblyTime,
}

/// Why a header stops a packet, before it is known whom to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: DropReason,
    pub(super) problem: Option<Problem>,
}

impl Fault {
    pub(super) fn silent(reason: DropReason) -> Self {
        Self {
            reason,
            problem: None,
        }
    }

    /// RFC 4443 3.4.
    pub(super) fn parameter(reason: DropReason, code: u8, pointer: usize) -> Self {
        Self {
            reason,
            problem: Some(Problem::Parameter { code, pointer }),
        }
    }

    pub(super) fn about(self, src: IpAddr, dst: IpAddr, packet: &[u8]) -> Rejected<'_> {
        Rejected {
            reason: self.reason,
            report: self.problem.map(|problem| Report {
                src,
                dst,
                problem,
                quote: packet,
            }),
        }
    }
}

impl Report<'_> {
    /// RFC 1122 3.2.2 and RFC 4443 2.4(e): no error about an error, nor, with IPv4,
    /// about a fragment that is not the first. Addresses that must not be answered
    /// are martians and do not get here; an answer to ourselves is none.
    pub(crate) fn may_be_sent(&self) -> bool {
        self.src != self.dst && !is_beyond_answers(self.quote)
    }
}

fn is_beyond_answers(packet: &[u8]) -> bool {
    match version(packet) {
        Some(IpVersion::Ipv4) => {
            let Ok(header) = Ipv4Packet::new_checked(packet) else {
                return true;
            };
            header.frag_offset() != 0
                || header.next_header() == IpProtocol::Icmp
                    && header.payload().first().is_some_and(is_error_v4)
        }
        Some(IpVersion::Ipv6) => {
            let Some(chain) = packet.get(40..) else {
                return true;
            };
            let next = Ipv6Packet::new_unchecked(packet).next_header();
            // Behind a fragment that is not the first nobody can see.
            matches!(
                extension::upper(next, chain),
                Some((IpProtocol::Icmpv6, [kind, ..])) if is_error_v6(*kind)
            )
        }
        None => true,
    }
}

/// The errors of RFC 792: unreachable, quench, redirect, time, parameter.
fn is_error_v4(kind: &u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

/// RFC 4443 2.1 and 2.4(e): the lower half, and redirects.
fn is_error_v6(kind: u8) -> bool {
    kind < 128 || kind == 137
}
