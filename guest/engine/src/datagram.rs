//! Flows of datagrams: UDP, and ICMP echo when the host wants it. No socket, no
//! ring: what comes is lent to the host where it lies.

use core::net::IpAddr;
use core::time::Duration;

use smoltcp::wire::{IpProtocol, UdpPacket};

use crate::checksum::Sum;
use crate::config::Config;
use crate::counters::DropReason;
use crate::icmp;
use crate::ip::{self, IpPacket};
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::{Event, FlowError, FlowId, FlowOptions, Instant, Protocol, nanoseconds};

const UDP_HEADER: usize = 8;
/// How long a path is believed to be narrow (RFC 1191 6.3, RFC 8201 4).
const PATH_MTU_LIFETIME: Duration = Duration::from_secs(600);

/// A received UDP datagram, checksum verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Udp<'a> {
    pub(crate) tuple: Tuple,
    pub(crate) data: &'a [u8],
}

impl<'a> Udp<'a> {
    pub(crate) fn parse(packet: &IpPacket<'a>, verify: bool) -> Result<Self, DropReason> {
        let header = UdpPacket::new_checked(packet.payload).map_err(|_| DropReason::Malformed)?;
        if header.src_port() == 0 || header.dst_port() == 0 {
            return Err(DropReason::Malformed);
        }
        if verify && !checksum_is_correct(packet, usize::from(header.len()), header.checksum()) {
            return Err(DropReason::TransportChecksum);
        }
        let tuple = Tuple {
            protocol: Protocol::Udp,
            local: packet.dst,
            peer: packet.src,
            local_port: header.dst_port(),
            peer_port: header.src_port(),
        };
        if tuple.local == tuple.peer && tuple.local_port == tuple.peer_port {
            return Err(DropReason::Martian);
        }
        Ok(Self {
            tuple,
            data: header.payload(),
        })
    }
}

fn checksum_is_correct(packet: &IpPacket<'_>, length: usize, checksum: u16) -> bool {
    // Zero says that there is none: allowed in IPv4 (RFC 768), not in IPv6 (RFC
    // 8200 8.1).
    if checksum == 0 {
        return packet.src.is_ipv4();
    }
    Sum::pseudo_header(packet.src, packet.dst, IpProtocol::Udp.into(), length)
        .add(&packet.payload[..length])
        .is_correct()
}

/// One accepted or opened flow of datagrams.
#[derive(Debug)]
pub(crate) struct DatagramFlow {
    /// Half of what a `Duration` takes.
    idle_timeout_ns: u64,
    /// The last datagram either way (RFC 4787 REQ-6: outbound refreshes).
    moved: Instant,
    /// A datagram was not taken because the device took no packets.
    wants_room: bool,
    /// What a link on the way takes, believed until `narrow_until`.
    path_mtu: u16,
    narrow_until: Instant,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
}

impl DatagramFlow {
    pub(crate) fn new(
        now: Instant,
        config: &Config,
        protocol: Protocol,
        options: &FlowOptions,
    ) -> Self {
        let mut flow = Self {
            idle_timeout_ns: 0,
            moved: now,
            wants_room: false,
            path_mtu: u16::MAX,
            narrow_until: Instant(0),
            bytes_received: 0,
            bytes_sent: 0,
        };
        flow.set_options(config, protocol, options);
        flow
    }

    pub(crate) fn set_options(
        &mut self,
        config: &Config,
        protocol: Protocol,
        options: &FlowOptions,
    ) {
        let idle_timeout = options.idle_timeout.unwrap_or(match protocol {
            Protocol::IcmpEcho => config.icmp_idle_timeout,
            Protocol::Udp | Protocol::Tcp => config.udp_idle_timeout,
        });
        self.idle_timeout_ns = nanoseconds(idle_timeout);
    }

    /// Delivers one datagram.
    pub(crate) fn l3_rx(
        &mut self,
        id: FlowId,
        turn: &mut Turn<'_>,
        data: &[u8],
    ) -> Result<(), DropReason> {
        self.moved = turn.now;
        if turn.callbacks.l4_rx(id, data) < data.len() {
            return Err(DropReason::NotTaken);
        }
        self.bytes_received += data.len() as u64;
        turn.counters.l4_rx_bytes += data.len() as u64;
        Ok(())
    }

    /// Whether a datagram can be one of `tuple`'s flow, and any IP datagram can hold
    /// it.
    pub(crate) fn may_take(tuple: &Tuple, data: &[u8]) -> Result<(), FlowError> {
        let header = match tuple.protocol {
            Protocol::Udp | Protocol::Tcp => UDP_HEADER,
            // The sequence number in front of the data is part of the header.
            Protocol::IcmpEcho if data.len() < 2 => return Err(FlowError::WrongProtocol),
            Protocol::IcmpEcho => icmp::HEADER - 2,
        };
        if header + data.len() > ip::most_payload(tuple.peer) {
            return Err(FlowError::TooLong);
        }
        Ok(())
    }

    /// Sends one datagram that may be taken from `local`; takes nothing while the
    /// device does not.
    pub(crate) fn l4_tx(
        &mut self,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        local: (IpAddr, u16),
        data: &[u8],
    ) -> usize {
        if data.is_empty() && !turn.make_room_for_reply() {
            return 0;
        }
        if !turn.make_room() {
            self.wants_room = true;
            return 0;
        }
        match tuple.protocol {
            Protocol::Udp | Protocol::Tcp => {
                let mtu = self.mtu(turn);
                send_udp(turn, local, (tuple.peer, tuple.peer_port), data, mtu);
            }
            Protocol::IcmpEcho => icmp::send_echo_reply(turn, tuple, data),
        }
        self.moved = turn.now;
        self.bytes_sent += data.len() as u64;
        data.len()
    }

    /// A link on the way takes packets of `mtu` bytes at most. Says whether that is
    /// news.
    pub(crate) fn packet_too_big(&mut self, turn: &Turn<'_>, mtu: u32) -> bool {
        let is_news = (mtu as usize) < self.mtu(turn);
        if is_news {
            self.path_mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            self.narrow_until = turn.now + PATH_MTU_LIFETIME;
        }
        is_news
    }

    /// The largest packet that the way to the peer is known to take.
    fn mtu(&self, turn: &Turn<'_>) -> usize {
        let mtu = turn.config.mtu as usize;
        match turn.now < self.narrow_until {
            true => mtu.min(self.path_mtu.into()),
            false => mtu,
        }
    }

    /// Whether it waits for the device.
    pub(crate) fn is_stalled(&self) -> bool {
        self.wants_room
    }

    /// Reports that there is room again.
    pub(crate) fn settle(&mut self, id: FlowId, turn: &mut Turn<'_>) {
        if self.wants_room && !turn.egress.is_refused() {
            self.wants_room = false;
            turn.callbacks.flow_event(id, Event::Writable);
        }
    }

    /// When it will have been idle for too long.
    pub(crate) fn deadline(&self) -> Instant {
        self.moved + Duration::from_nanos(self.idle_timeout_ns)
    }
}

fn send_udp(
    turn: &mut Turn<'_>,
    local: (IpAddr, u16),
    peer: (IpAddr, u16),
    data: &[u8],
    mtu: usize,
) {
    let length = UDP_HEADER + data.len();
    let mut header = [0; UDP_HEADER];
    header[..2].copy_from_slice(&local.1.to_be_bytes());
    header[2..4].copy_from_slice(&peer.1.to_be_bytes());
    // `may_take` has seen to it that it fits.
    let field = u16::try_from(length).unwrap_or(u16::MAX);
    header[4..6].copy_from_slice(&field.to_be_bytes());
    let sum = Sum::pseudo_header(local.0, peer.0, IpProtocol::Udp.into(), length);
    // A sum of zero is sent as all ones: zero says that there is none.
    let checksum = match sum.add(&header).add(data).finish() {
        [0, 0] => [0xff, 0xff],
        checksum => checksum,
    };
    header[6..].copy_from_slice(&checksum);
    let datagram = ip::Datagram {
        src: local.0,
        dst: peer.0,
        protocol: IpProtocol::Udp,
        header,
        data,
    };
    datagram.send(turn, mtu);
}
