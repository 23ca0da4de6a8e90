//! TCP segments: one in, proven; one out.

use core::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::options::{Options, Writer};
use super::secrets::default_mss;
use super::seq::Seq;
use crate::checksum::Sum;
use crate::counters::DropReason;
use crate::egress::Egress;
use crate::ip::{self, IpPacket};
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::Protocol;

/// Bytes of a header without options.
pub(crate) const HEADER: usize = 20;
/// RFC 9293 3.7.1 names no least MSS; what Linux holds against CVE-2019-11479.
const LEAST_MSS: u16 = 48;

/// A received segment, checksum verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) tuple: Tuple,
    pub(crate) seq: Seq,
    /// None without the ACK bit.
    pub(crate) ack: Option<Seq>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) window: u16,
    pub(crate) data: &'a [u8],
    pub(crate) options: Options<'a>,
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
            seq: from_wire(header.seq_number()),
            ack: header.ack().then(|| from_wire(header.ack_number())),
            syn: header.syn(),
            fin: header.fin(),
            rst: header.rst(),
            window: header.window_len(),
            data: header.payload(),
            options: Options::parse(header.options()),
        })
    }

    /// Whether this opens a connection: SYN and nothing that contradicts it.
    pub(crate) fn is_open(&self) -> bool {
        self.syn && self.ack.is_none() && !self.fin && !self.rst
    }

    /// The sequence number after the segment: SYN and FIN count (RFC 9293 3.4).
    pub(crate) fn end(&self) -> Seq {
        let data = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        self.seq + data + u32::from(self.syn) + u32::from(self.fin)
    }
}

fn from_wire(number: TcpSeqNumber) -> Seq {
    Seq(number.0.cast_unsigned())
}

fn to_wire(number: Seq) -> TcpSeqNumber {
    TcpSeqNumber(number.0.cast_signed())
}

/// All that is remembered of a SYN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Syn {
    /// The peer's initial sequence number.
    pub(crate) irs: Seq,
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    /// The value of its timestamp, if it had one.
    pub(crate) timestamp: Option<u32>,
}

impl Syn {
    pub(crate) fn of(segment: &Segment<'_>) -> Self {
        let options = &segment.options;
        Self {
            irs: segment.seq,
            window: segment.window,
            mss: options.mss,
            window_scale: options.window_scale,
            sack_permitted: options.sack_permitted,
            timestamp: options.timestamps.map(|times| times.value),
        }
    }

    /// The largest payload that the peer takes.
    pub(crate) fn mss_or_default(&self, tuple: &Tuple) -> u16 {
        self.mss
            .unwrap_or_else(|| default_mss(tuple.peer))
            .max(LEAST_MSS)
    }

    /// The SYN as it stood on the wire, as far as it is remembered.
    pub(crate) fn repr(&self, tuple: &Tuple) -> TcpRepr<'static> {
        TcpRepr {
            src_port: tuple.peer_port,
            dst_port: tuple.local_port,
            control: TcpControl::Syn,
            seq_number: to_wire(self.irs),
            ack_number: None,
            window_len: self.window,
            window_scale: self.window_scale,
            max_seg_size: self.mss,
            sack_permitted: self.sack_permitted,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        }
    }
}

/// The largest payload of a segment without options in a packet of the MTU (RFC
/// 9293 3.7.1).
pub(crate) fn mss_of(mtu: u32, address: IpAddr) -> u32 {
    let headers = u32::try_from(ip::header_length(address) + HEADER).unwrap_or(u32::MAX);
    mtu.saturating_sub(headers)
}

/// The control bits that the engine sends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) psh: bool,
}

/// The header of a segment being made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) seq: Seq,
    pub(crate) ack: Option<Seq>,
    pub(crate) flags: Flags,
    pub(crate) window: u16,
    pub(crate) options: Writer,
}

impl Header {
    pub(crate) fn new(seq: Seq, ack: Option<Seq>) -> Self {
        Self {
            seq,
            ack,
            flags: Flags::default(),
            window: 0,
            options: Writer::new(),
        }
    }

    /// Bytes, with the options.
    pub(crate) fn length(&self) -> usize {
        HEADER + self.options.bytes().len()
    }
}

/// Makes one packet of a segment from the tuple's local end to its peer, its
/// `length` bytes of data by `fill`, which returns their sum. The caller has made
/// room.
pub(crate) fn send(
    egress: &mut Egress,
    tuple: &Tuple,
    header: &Header,
    length: usize,
    fill: impl FnOnce(&mut [u8]) -> Sum,
) {
    let start = header.length();
    let (local, peer) = (tuple.local, tuple.peer);
    ip::send(
        egress,
        local,
        peer,
        IpProtocol::Tcp,
        start + length,
        |space| {
            let data = fill(&mut space[start..]);
            write_header(tuple, header, space, data);
        },
    );
}

/// Writes the headers of the packet that fills `space`, in which its data lies, whose
/// sum is known.
pub(crate) fn write_headers(tuple: &Tuple, header: &Header, space: &mut [u8], data: Sum) {
    ip::write_header(space, tuple.local, tuple.peer, IpProtocol::Tcp);
    let segment = &mut space[ip::header_length(tuple.peer)..];
    write_header(tuple, header, segment, data);
}

/// Writes the header of a segment, in which its data lies, whose sum is known.
fn write_header(tuple: &Tuple, header: &Header, segment: &mut [u8], data: Sum) {
    let options = header.options.bytes();
    let start = header.length();
    // In an array of its own it is a few words in registers.
    let mut bytes = [0; HEADER];
    let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
    packet.set_src_port(tuple.local_port);
    packet.set_dst_port(tuple.peer_port);
    packet.set_seq_number(to_wire(header.seq));
    packet.set_ack_number(to_wire(header.ack.unwrap_or_default()));
    packet.set_header_len(u8::try_from(start).unwrap_or(u8::MAX));
    packet.set_syn(header.flags.syn);
    packet.set_fin(header.flags.fin);
    packet.set_rst(header.flags.rst);
    packet.set_psh(header.flags.psh);
    packet.set_ack(header.ack.is_some());
    packet.set_window_len(header.window);
    let protocol = IpProtocol::Tcp.into();
    let sum = Sum::pseudo_header(tuple.local, tuple.peer, protocol, segment.len());
    let sum = sum.add(&bytes).add(options).then(data);
    bytes[16..18].copy_from_slice(&sum.finish());
    segment[..HEADER].copy_from_slice(&bytes);
    segment[HEADER..start].copy_from_slice(options);
}

/// As `send`, without data.
pub(crate) fn send_bare(turn: &mut Turn<'_>, tuple: &Tuple, header: &Header) {
    send(turn.egress, tuple, header, 0, |_| Sum::default());
}

/// Answers a segment of no connection as RFC 9293 3.10.7.1 says. The caller has
/// made room, and knows that the segment is no RST.
pub(crate) fn send_reset(turn: &mut Turn<'_>, segment: &Segment<'_>) {
    let mut header = match segment.ack {
        Some(ack) => Header::new(ack, None),
        None => Header::new(Seq(0), Some(segment.end())),
    };
    header.flags.rst = true;
    send_bare(turn, &segment.tuple, &header);
}

/// Refuses the connection that a SYN asked for (RFC 9293 3.10.7.1), or whose peer,
/// having had a SYN-ACK, expects the number `seq` (RFC 5961 3.2).
pub(crate) fn send_refusal(turn: &mut Turn<'_>, tuple: &Tuple, syn: &Syn, seq: Seq) {
    let mut header = Header::new(seq, Some(syn.irs + 1));
    header.flags.rst = true;
    send_bare(turn, tuple, &header);
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
