//! TCP segments: what is read of one.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, TcpControl, TcpOption, TcpPacket, TcpRepr, TcpSeqNumber};

use super::checksum::Sum;
use super::ip::IpPacket;
use super::table::Tuple;

/// The header of a received segment, checksum verified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) tuple: Tuple,
    pub(super) seq: TcpSeqNumber,
    /// None without the ACK bit.
    pub(super) ack: Option<TcpSeqNumber>,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) window: u16,
    pub(super) options: &'a [u8],
}

impl<'a> Segment<'a> {
    pub(super) fn parse(packet: &IpPacket<'a>, verify: bool) -> Option<Self> {
        let header = TcpPacket::new_checked(packet.payload).ok()?;
        if header.src_port() == 0 || header.dst_port() == 0 {
            return None;
        }
        if verify && !packet.transport_sum().is_correct() {
            return None;
        }
        let tuple = Tuple {
            local: packet.dst,
            peer: packet.src,
            local_port: header.dst_port(),
            peer_port: header.src_port(),
        };
        // The land attack (CERT CA-1997-28).
        if tuple.local == tuple.peer && tuple.local_port == tuple.peer_port {
            return None;
        }
        Some(Self {
            tuple,
            seq: header.seq_number(),
            ack: header.ack().then(|| header.ack_number()),
            syn: header.syn(),
            fin: header.fin(),
            rst: header.rst(),
            window: header.window_len(),
            options: header.options(),
        })
    }

    /// Whether this opens a connection: SYN and nothing that contradicts it.
    pub(super) fn is_open(&self) -> bool {
        self.syn && self.ack.is_none() && !self.fin && !self.rst
    }
}

/// What is read of a SYN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syn {
    pub(super) seq: TcpSeqNumber,
    pub(super) window: u16,
    pub(super) mss: Option<u16>,
    pub(super) window_scale: Option<u8>,
    pub(super) sack_permitted: bool,
}

impl Syn {
    /// Reads the options; one that is broken ends them (RFC 9293 MUST-7).
    pub(super) fn of(segment: &Segment<'_>) -> Self {
        let mut syn = Self {
            seq: segment.seq,
            window: segment.window,
            mss: None,
            window_scale: None,
            sack_permitted: false,
        };
        let mut options = segment.options;
        while !options.is_empty() {
            let Ok((rest, option)) = TcpOption::parse(options) else {
                break;
            };
            match option {
                TcpOption::EndOfList => break,
                TcpOption::MaxSegmentSize(mss) => syn.mss = Some(mss),
                // RFC 7323 2.3: a shift above 14 is taken as 14.
                TcpOption::WindowScale(shift) => syn.window_scale = Some(shift.min(14)),
                TcpOption::SackPermitted => syn.sack_permitted = true,
                TcpOption::NoOperation
                | TcpOption::SackRange(_)
                | TcpOption::TimeStamp { .. }
                | TcpOption::Unknown { .. } => {}
            }
            options = rest;
        }
        syn
    }

    /// The SYN as it stood on the wire, as far as it is remembered.
    pub(super) fn repr(&self, tuple: &Tuple) -> TcpRepr<'static> {
        TcpRepr {
            src_port: tuple.peer_port,
            dst_port: tuple.local_port,
            control: TcpControl::Syn,
            seq_number: self.seq,
            ack_number: None,
            window_len: self.window,
            window_scale: self.window_scale,
            max_seg_size: self.mss,
            sack_permitted: self.sack_permitted,
            ..NO_OPTIONS
        }
    }
}

/// A segment of nothing.
const NO_OPTIONS: TcpRepr<'static> = TcpRepr {
    src_port: 0,
    dst_port: 0,
    control: TcpControl::None,
    seq_number: TcpSeqNumber(0),
    ack_number: None,
    window_len: 0,
    window_scale: None,
    max_seg_size: None,
    sack_permitted: false,
    sack_ranges: [None; 3],
    timestamp: None,
    payload: &[],
};

/// Writes a segment, its checksum 0.
pub(super) fn emit(repr: &TcpRepr<'_>, space: &mut [u8], src: IpAddr, dst: IpAddr) {
    let mut packet = TcpPacket::new_unchecked(space);
    repr.emit(
        &mut packet,
        &src.into(),
        &dst.into(),
        &ChecksumCapabilities::ignored(),
    );
}

/// Fills the checksum of a segment in which it is 0.
pub(super) fn fill_checksum(segment: &mut [u8], src: IpAddr, dst: IpAddr) {
    let sum = Sum::pseudo_header(src, dst, IpProtocol::Tcp.into(), segment.len()).add(segment);
    segment[16..18].copy_from_slice(&sum.finish());
}
