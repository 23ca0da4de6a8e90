//! Which engine a packet belongs to, when there are several.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::device::{BATCH_PACKETS, PacketDevice};
use crate::{Batch, FiveTuple, Protocol};

/// Packets on their way from one engine's device to another engine. As a network
/// card's ring it loses what it has no room for.
const HANDED_OVER: usize = 1024;

/// Protocol numbers (IANA) of what is told apart.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
/// Extension headers of IPv6 (RFC 8200 4): hop-by-hop options, routing, fragment,
/// destination options.
const EXTENSIONS: [u8; 4] = [0, 43, FRAGMENT, 60];
const FRAGMENT: u8 = 44;

/// Says which engine a flow belongs to.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    hash: RandomState,
    instances: usize,
}

/// What of a packet says whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    peer: IpAddr,
    local: IpAddr,
    /// The peer's and the local one, of TCP only: a fragment has none.
    ports: Option<(u16, u16)>,
}

/// One device of several that share a link, with what the others brought for this
/// one's engine.
#[derive(Debug)]
pub(super) struct Spread<D> {
    device: D,
    owner: Owner,
    index: usize,
    brought: mpsc::Receiver<Vec<u8>>,
    /// To each engine.
    others: Vec<mpsc::Sender<Vec<u8>>>,
    /// What the device brought, before it is told apart.
    mixed: Batch,
    /// Packets that could not be handed over.
    pub(super) lost: u64,
}

/// The devices with their places, and who says which engine a flow belongs to.
pub(super) fn spread<D: PacketDevice>(devices: Vec<D>) -> (Vec<Spread<D>>, Owner) {
    let owner = Owner {
        hash: RandomState::new(),
        instances: devices.len(),
    };
    let (others, brought): (Vec<_>, Vec<_>) =
        devices.iter().map(|_| mpsc::channel(HANDED_OVER)).unzip();
    let parts = devices.into_iter().zip(brought).enumerate();
    let parts = parts.map(|(index, (device, brought))| Spread {
        device,
        owner: owner.clone(),
        index,
        brought,
        others: others.clone(),
        mixed: Batch::new(),
        lost: 0,
    });
    (parts.collect(), owner)
}

impl Owner {
    /// The engine of a flow.
    pub(super) fn of_flow(&self, tuple: &FiveTuple) -> usize {
        let ports = (tuple.peer.port(), tuple.local.port());
        self.of(&Key {
            peer: tuple.peer.ip(),
            local: tuple.local.ip(),
            ports: (tuple.protocol == Protocol::Tcp).then_some(ports),
        })
    }

    /// Whether there is but one engine.
    pub(super) fn is_alone(&self) -> bool {
        self.instances == 1
    }

    fn of(&self, key: &Key) -> usize {
        let instances = self.instances as u64;
        usize::try_from(self.hash.hash_one(key) % instances).unwrap_or(0)
    }

    /// The engine of a packet; `None` for a fragment of TCP. What cannot be read is as
    /// well dropped by one engine as by another.
    fn of_packet(&self, packet: &[u8]) -> Option<usize> {
        match Read::of(packet) {
            Read::Key(key) => Some(self.of(&key)),
            Read::TcpFragment => None,
            Read::Nothing => Some(0),
        }
    }
}

impl<D> Spread<D> {
    pub(super) fn is_alone(&self) -> bool {
        self.owner.is_alone()
    }

    /// Keeps what is for this engine and hands over the rest.
    fn sort(&mut self, batch: &mut Batch) {
        let mut rest = self.mixed.bytes();
        for &packet in self.mixed.packets() {
            let (bytes, after) = rest.split_at(packet.length as usize);
            rest = after;
            let lost = match self.owner.of_packet(bytes) {
                Some(index) if index == self.index => {
                    batch.push_described(bytes, packet.segment_size, packet.checksum);
                    false
                }
                Some(index) => self.others[index].try_send(bytes.to_vec()).is_err(),
                None => true,
            };
            self.lost += u64::from(lost);
        }
        self.mixed.clear();
    }
}

impl<D: PacketDevice> PacketDevice for Spread<D> {
    fn poll_receive(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        if self.is_alone() {
            return self.device.poll_receive(cx, batch);
        }
        let before = batch.len();
        while batch.len() - before < BATCH_PACKETS
            && let Poll::Ready(Some(packet)) = self.brought.poll_recv(cx)
        {
            batch.push(&packet);
        }
        if let Poll::Ready(result) = self.device.poll_receive(cx, &mut self.mixed) {
            result?;
            self.sort(batch);
            // It may bring more, and nothing else will wake this task for it.
            cx.waker().wake_by_ref();
        }
        match batch.len() > before {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.device.send(packet)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.device.poll_room(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.device.poll_flush(cx)
    }

    fn mtu(&self) -> usize {
        self.device.mtu()
    }
}

/// What can be read of a packet.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Key(Key),
    TcpFragment,
    Nothing,
}

/// The transport part of a packet.
struct Transport<'a> {
    peer: IpAddr,
    local: IpAddr,
    protocol: u8,
    is_fragment: bool,
    bytes: &'a [u8],
}

impl Read {
    fn of(packet: &[u8]) -> Self {
        let Some(transport) = Transport::of(packet) else {
            return Self::Nothing;
        };
        match transport.quoted() {
            // An error is about a packet of ours: what was its source is local.
            Some(ours) => ours.key(true),
            None => transport.key(false),
        }
    }
}

impl<'a> Transport<'a> {
    fn of(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::of_v4(packet),
            6 => Self::of_v6(packet),
            _ => None,
        }
    }

    /// RFC 791 3.1.
    fn of_v4(packet: &'a [u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0xf) * 4;
        let flags_and_offset = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?);
        Some(Self {
            peer: IpAddr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?),
            local: IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?),
            protocol: *packet.get(9)?,
            is_fragment: flags_and_offset & 0x3fff != 0,
            bytes: packet.get(header..)?,
        })
    }

    /// RFC 8200 3 and 4.
    fn of_v6(packet: &'a [u8]) -> Option<Self> {
        let mut transport = Self {
            peer: IpAddr::from(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?),
            local: IpAddr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?),
            protocol: *packet.get(6)?,
            is_fragment: false,
            bytes: packet.get(40..)?,
        };
        while EXTENSIONS.contains(&transport.protocol) && !transport.is_fragment {
            let bytes = transport.bytes;
            transport.is_fragment = transport.protocol == FRAGMENT;
            let length = match transport.is_fragment {
                true => 8,
                false => 8 + usize::from(*bytes.get(1)?) * 8,
            };
            transport.protocol = *bytes.first()?;
            transport.bytes = bytes.get(length..)?;
        }
        Some(transport)
    }

    /// The packet that an ICMP error is about (RFC 792, RFC 4443 2.1).
    fn quoted(&self) -> Option<Self> {
        let is_error = match (self.protocol, *self.bytes.first()?) {
            (ICMP, kind) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            (ICMPV6, kind) => kind < 128,
            _ => false,
        };
        if !is_error || self.is_fragment {
            return None;
        }
        Self::of(self.bytes.get(8..)?)
    }

    fn key(&self, is_ours: bool) -> Read {
        if self.protocol == TCP && self.is_fragment {
            return Read::TcpFragment;
        }
        let ports = match (self.protocol, self.bytes) {
            (TCP, [a, b, c, d, ..]) => {
                Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
            }
            _ => None,
        };
        Read::Key(match is_ours {
            false => Key {
                peer: self.peer,
                local: self.local,
                ports,
            },
            true => Key {
                peer: self.local,
                local: self.peer,
                ports: ports.map(|(from, to)| (to, from)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const PEER: &str = "10.0.0.1:4000";
    const LOCAL: &str = "10.0.0.2:80";

    fn v4(protocol: u8, offset: u16, from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let mut packet = vec![0x45, 0, 0, 0, 0, 0];
        packet.extend(offset.to_be_bytes());
        packet.extend([64, protocol, 0, 0]);
        for end in [from, to] {
            let IpAddr::V4(address) = end.ip() else {
                unreachable!()
            };
            packet.extend(address.octets());
        }
        if protocol == TCP {
            packet.extend(from.port().to_be_bytes());
            packet.extend(to.port().to_be_bytes());
        }
        packet.extend(payload);
        packet
    }

    fn key(protocol: Protocol) -> FiveTuple {
        FiveTuple {
            protocol,
            local: LOCAL.parse().unwrap(),
            peer: PEER.parse().unwrap(),
        }
    }

    fn owner() -> Owner {
        Owner {
            hash: RandomState::new(),
            instances: 1_000_003,
        }
    }

    #[test]
    fn a_flow_its_packets_and_the_errors_about_it_have_one_owner() {
        let owner = owner();
        let segment = v4(TCP, 0x4000, PEER, LOCAL, &[0; 16]);
        let ours = v4(TCP, 0x4000, LOCAL, PEER, &[0; 4]);
        let error = [&[3, 4, 0, 0, 0, 0, 0, 0], &ours[..]].concat();
        let error = v4(ICMP, 0, "10.7.7.7:0", LOCAL, &error);
        let flow = owner.of_flow(&key(Protocol::Tcp));
        assert_eq!(owner.of_packet(&segment), Some(flow));
        assert_eq!(owner.of_packet(&error), Some(flow));
        let other = v4(TCP, 0x4000, "10.0.0.1:4001", LOCAL, &[0; 16]);
        assert_ne!(owner.of_packet(&other), Some(flow));
    }

    #[test]
    fn a_datagram_and_its_fragments_have_one_owner_and_a_segment_has_none() {
        let owner = owner();
        let flow = owner.of_flow(&key(Protocol::Udp));
        for offset in [0, 0x2000, 185] {
            let fragment = v4(17, offset, PEER, LOCAL, &[0; 16]);
            assert_eq!(owner.of_packet(&fragment), Some(flow));
        }
        assert_eq!(owner.of_packet(&v4(TCP, 0x2000, PEER, LOCAL, &[])), None);
    }

    #[test]
    fn ipv6_is_read_through_its_extension_headers() {
        let owner = owner();
        let (peer, local) = ([1; 16], [2; 16]);
        let header = |next: u8| [&[0x60, 0, 0, 0, 0, 0, next, 64], &peer[..], &local[..]].concat();
        let plain = [header(TCP), vec![0, 9, 0, 80, 0, 0, 0, 0]].concat();
        let options = [
            header(0),
            vec![60, 0],
            vec![0; 6],
            vec![TCP, 1],
            vec![0; 14],
        ]
        .concat();
        let options = [options, vec![0, 9, 0, 80, 0, 0, 0, 0]].concat();
        assert_eq!(owner.of_packet(&plain), owner.of_packet(&options));
        assert_ne!(Read::of(&plain), Read::Nothing);
        for length in 0..options.len() {
            owner.of_packet(&options[..length]);
        }
    }

    /// Brings what it was given, some packets at a time.
    struct Link(std::collections::VecDeque<Vec<u8>>);

    impl PacketDevice for Link {
        fn poll_receive(&mut self, _: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
            let some = self.0.len().min(7);
            if some == 0 {
                return Poll::Pending;
            }
            self.0.drain(..some).for_each(|packet| batch.push(&packet));
            Poll::Ready(Ok(()))
        }

        fn send(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn mtu(&self) -> usize {
            1500
        }
    }

    /// A call takes 32 MiB ([`Batch::MAX_BYTES`]), which the rest of a ring passes.
    #[test]
    fn what_others_bring_at_once_is_no_more_than_a_call_takes() {
        let packets: Vec<_> = (0..1000u16)
            .map(|port| {
                let from = format!("10.0.0.1:{}", 4000 + port);
                v4(TCP, 0x4000, &from, LOCAL, &[0; 65_000])
            })
            .collect();
        let (mut parts, owner) = spread(vec![Link(packets.into()), Link([].into())]);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut own = Batch::new();
        while !parts[0].device.0.is_empty() {
            let _ = parts[0].poll_receive(&mut cx, &mut own);
        }
        let mut seen = own.len();
        let mut batch = Batch::new();
        while parts[1].poll_receive(&mut cx, &mut batch).is_ready() {
            assert!(batch.footprint() <= Batch::MAX_BYTES / 2);
            seen += batch.len();
            batch.clear();
        }
        assert_eq!((seen, parts[0].lost, owner.instances), (1000, 0, 2));
    }

    #[test]
    fn packets_of_a_flow_stay_in_order_wherever_they_are_handed() {
        let packets = (0..600u16).map(|number| {
            let from = format!("10.0.0.1:{}", 4000 + number % 10);
            v4(TCP, 0x4000, &from, LOCAL, &number.to_be_bytes())
        });
        let links = vec![Link(packets.collect()), Link([].into()), Link([].into())];
        let (mut parts, owner) = spread(links);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut seen = 0;
        for index in 0..3 {
            let mut last = [None; 10];
            let mut batch = Batch::new();
            while parts[index].poll_receive(&mut cx, &mut batch).is_ready()
                || !parts[0].device.0.is_empty()
            {}
            for packet in batch.bytes().chunks(26) {
                assert_eq!(owner.of_packet(packet), Some(index));
                let number = u16::from_be_bytes([packet[24], packet[25]]);
                let before = last[usize::from(number % 10)].replace(number);
                assert!(before < Some(number), "{before:?} before {number}");
                seen += 1;
            }
        }
        assert_eq!((seen, parts[0].lost), (600, 0));
    }
}
