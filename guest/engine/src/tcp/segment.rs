//! TCP segments: what the engine reads of one, and the few it makes itself.

use core::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, TcpControl, TcpOption, TcpPacket, TcpRepr, TcpSeqNumber};

use super::time_wait::TimeWait;
use crate::checksum::Sum;
use crate::counters::DropReason;
use crate::ip::{self, IpPacket};
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::Protocol;

/// The header of a received segment, checksum verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) tuple: Tuple,
    pub(crate) seq: TcpSeqNumber,
    /// None without the ACK bit.
    pub(crate) ack: Option<TcpSeqNumber>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) window: u16,
    pub(crate) payload_length: usize,
    pub(crate) options: &'a [u8],
}

impl<'a> Segment<'a> {
    pub(crate) fn parse(packet: &IpPacket<'a>, verify: bool) -> Result<Self, DropReason> {
        let header = TcpPacket::new_checked(packet.payload).map_err(|_| DropReason::Malformed)?;
        if header.src_port() == 0 || header.dst_port() == 0 {
            return Err(DropReason::Malformed);
        }
        if verify && !packet.transport_sum().is_correct() {
            return Err(DropReason::TransportChecksum);
        }
        let tuple = Tuple {
            protocol: Protocol::Tcp,
            local: packet.dst,
            peer: packet.src,
            local_port: header.dst_port(),
            peer_port: header.src_port(),
        };
        // The land attack (CERT CA-1997-28).
        if tuple.local == tuple.peer && tuple.local_port == tuple.peer_port {
            return Err(DropReason::Martian);
        }
        Ok(Self {
            tuple,
            seq: header.seq_number(),
            ack: header.ack().then(|| header.ack_number()),
            syn: header.syn(),
            fin: header.fin(),
            rst: header.rst(),
            window: header.window_len(),
            payload_length: header.payload().len(),
            options: header.options(),
        })
    }

    /// Whether this opens a connection: SYN and nothing that contradicts it.
    pub(crate) fn is_open(&self) -> bool {
        self.syn && self.ack.is_none() && !self.fin && !self.rst
    }

    /// The sequence number after the segment: SYN and FIN count (RFC 9293 3.4).
    pub(crate) fn end(&self) -> TcpSeqNumber {
        self.seq + self.payload_length + usize::from(self.syn) + usize::from(self.fin)
    }
}

/// A segment of the peer's that only acknowledges.
pub(crate) fn bare_ack(
    tuple: &Tuple,
    seq: TcpSeqNumber,
    ack: TcpSeqNumber,
    window: u16,
) -> TcpRepr<'static> {
    TcpRepr {
        src_port: tuple.peer_port,
        dst_port: tuple.local_port,
        seq_number: seq,
        ack_number: Some(ack),
        window_len: window,
        ..NO_OPTIONS
    }
}

/// All that is remembered of a SYN until the verdict.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Syn {
    pub(crate) seq: TcpSeqNumber,
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack_permitted: bool,
}

impl Syn {
    /// Reads the options; one that is broken ends them (RFC 9293 MUST-7).
    pub(crate) fn of(segment: &Segment<'_>) -> Self {
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
    pub(crate) fn repr(&self, tuple: &Tuple) -> TcpRepr<'static> {
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

/// Answers a segment of no connection as RFC 9293 3.10.7.1 says. The caller has
/// made room, and knows that the segment is no RST.
pub(crate) fn send_reset(turn: &mut Turn<'_>, segment: &Segment<'_>) {
    let reset = match segment.ack {
        Some(ack) => Bare {
            control: TcpControl::Rst,
            seq: ack,
            ack: None,
            window: 0,
        },
        None => refusal(segment.end()),
    };
    send(turn, &segment.tuple, reset);
}

/// Refuses the connection that a SYN asked for (RFC 9293 3.10.7.1).
pub(crate) fn send_refusal(turn: &mut Turn<'_>, tuple: &Tuple, syn: &Syn) {
    send(turn, tuple, refusal(syn.seq + 1));
}

fn refusal(end: TcpSeqNumber) -> Bare {
    Bare {
        control: TcpControl::Rst,
        seq: TcpSeqNumber(0),
        ack: Some(end),
        window: 0,
    }
}

/// Acknowledges all that a connection received.
pub(crate) fn send_ack(turn: &mut Turn<'_>, tuple: &Tuple, record: TimeWait) {
    let ack = Bare {
        control: TcpControl::None,
        seq: record.snd_nxt,
        ack: Some(record.rcv_nxt),
        window: record.window,
    };
    send(turn, tuple, ack);
}

/// What the segments below have in common.
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

/// A segment without options or data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare {
    pub(crate) control: TcpControl,
    pub(crate) seq: TcpSeqNumber,
    pub(crate) ack: Option<TcpSeqNumber>,
    pub(crate) window: u16,
}

/// Makes one packet of a bare segment, from the tuple's local end to its peer.
pub(crate) fn send(turn: &mut Turn<'_>, tuple: &Tuple, bare: Bare) {
    let repr = TcpRepr {
        src_port: tuple.local_port,
        dst_port: tuple.peer_port,
        control: bare.control,
        seq_number: bare.seq,
        ack_number: bare.ack,
        window_len: bare.window,
        ..NO_OPTIONS
    };
    ip::send(
        turn,
        tuple.local,
        tuple.peer,
        IpProtocol::Tcp,
        repr.buffer_len(),
        |space| {
            emit(&repr, space, tuple.local, tuple.peer);
            fill_checksum(space, tuple.local, tuple.peer);
        },
    );
}

/// Writes a segment, its checksum 0.
pub(crate) fn emit(repr: &TcpRepr<'_>, space: &mut [u8], src: IpAddr, dst: IpAddr) {
    let mut packet = TcpPacket::new_unchecked(space);
    repr.emit(
        &mut packet,
        &src.into(),
        &dst.into(),
        &ChecksumCapabilities::ignored(),
    );
}

/// Fills the checksum of a segment in which it is 0.
pub(crate) fn fill_checksum(segment: &mut [u8], src: IpAddr, dst: IpAddr) {
    let sum = Sum::pseudo_header(src, dst, IpProtocol::Tcp.into(), segment.len()).add(segment);
    segment[16..18].copy_from_slice(&sum.finish());
}
