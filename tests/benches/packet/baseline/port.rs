//! The device that smoltcp sees: one packet in, and the batch out.

use l3l4_engine::{Callbacks, Instant};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{IpVersion, Ipv4Packet, Ipv6Packet, TcpPacket};

use super::egress::Egress;
use super::segment::fill_checksum;
use super::wire::Wire;
use super::{Counters, Turn, ip};

/// One flow's way to the device for the time of one call.
pub(super) struct Port<'a> {
    now: Instant,
    /// The packet that smoltcp is to receive.
    packet: Option<&'a [u8]>,
    mtu: usize,
    egress: &'a mut Egress,
    counters: &'a mut Counters,
    callbacks: &'a mut dyn Callbacks,
    wire: &'a mut Wire,
}

impl<'a> Port<'a> {
    pub(super) fn new(
        turn: &'a mut Turn<'_>,
        wire: &'a mut Wire,
        packet: Option<&'a [u8]>,
    ) -> Self {
        Self {
            now: turn.now,
            packet,
            mtu: turn.config.mtu,
            egress: turn.egress,
            counters: turn.counters,
            callbacks: turn.callbacks,
            wire,
        }
    }

    /// The clock that smoltcp reads.
    pub(super) fn smol_now(&self) -> SmolInstant {
        smol_instant(self.now)
    }
}

/// smoltcp counts microseconds; an instant between two belongs to the earlier.
pub(super) fn smol_instant(now: Instant) -> SmolInstant {
    SmolInstant::from_micros(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
}

impl Device for Port<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Slot<'t>
    where
        Self: 't;

    fn receive(&mut self, _: SmolInstant) -> Option<(Received<'_>, Slot<'_>)> {
        let packet = self.packet.take()?;
        self.egress.make_room(self.callbacks, self.counters);
        let Self {
            now, egress, wire, ..
        } = self;
        Some((
            Received(packet),
            Slot {
                now: *now,
                egress,
                wire,
            },
        ))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Slot<'_>> {
        self.egress.make_room(self.callbacks, self.counters);
        let Self {
            now, egress, wire, ..
        } = self;
        Some(Slot {
            now: *now,
            egress,
            wire,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

fn capabilities(mtu: usize) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = mtu;
    capabilities.checksum = ip::checksums();
    capabilities
}

/// The packet that came.
pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Space for one packet in the batch.
pub(super) struct Slot<'a> {
    now: Instant,
    egress: &'a mut Egress,
    wire: &'a mut Wire,
}

impl TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let space = self.egress.space(length);
        let result = f(space);
        seal(space, |segment| self.wire.sent(self.now, segment));
        self.egress.commit(length);
        result
    }
}

/// Fills the checksum of the segment in a packet that smoltcp wrote, and shows
/// the segment to `look`.
fn seal(packet: &mut [u8], look: impl FnOnce(&TcpPacket<&[u8]>)) {
    let (src, dst) = match ip::version(packet) {
        Some(IpVersion::Ipv4) => {
            let header = Ipv4Packet::new_unchecked(&packet);
            (header.src_addr().into(), header.dst_addr().into())
        }
        Some(IpVersion::Ipv6) => {
            let header = Ipv6Packet::new_unchecked(&packet);
            (header.src_addr().into(), header.dst_addr().into())
        }
        None => return,
    };
    let segment = &mut packet[ip::header_length(src)..];
    fill_checksum(segment, src, dst);
    look(&TcpPacket::new_unchecked(segment));
}

/// Stands in for a port where smoltcp only asks for its shape.
pub(super) struct Shape(pub(super) usize);

impl Device for Shape {
    type RxToken<'t> = Received<'t>;
    type TxToken<'t> = Slot<'t>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Received<'_>, Slot<'_>)> {
        None
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Slot<'_>> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.0)
    }
}
