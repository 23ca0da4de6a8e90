//! The device that smoltcp sees: one packet in, and the batch out.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{IpVersion, Ipv4Packet, Ipv6Packet, TcpPacket};

use super::segment::fill_checksum;
use super::wire::Wire;
use crate::counters::CounterSnapshot;
use crate::egress::Egress;
use crate::ip;
use crate::turn::Turn;
use crate::types::{Callbacks, Instant};

/// One flow's way to the device for the time of one call.
pub(crate) struct Port<'a> {
    now: Instant,
    /// The packet that smoltcp is to receive.
    packet: Option<&'a [u8]>,
    mtu: usize,
    egress: &'a mut Egress,
    counters: &'a mut CounterSnapshot,
    callbacks: &'a mut dyn Callbacks,
    wire: &'a mut Wire,
}

impl<'a> Port<'a> {
    pub(crate) fn new(
        turn: &'a mut Turn<'_>,
        wire: &'a mut Wire,
        packet: Option<&'a [u8]>,
    ) -> Self {
        Self {
            now: turn.now,
            packet,
            mtu: turn.config.mtu as usize,
            egress: turn.egress,
            counters: turn.counters,
            callbacks: turn.callbacks,
            wire,
        }
    }

    /// The clock that smoltcp reads.
    pub(crate) fn smol_now(&self) -> SmolInstant {
        smol_instant(self.now)
    }
}

/// smoltcp counts microseconds; an instant between two belongs to the earlier.
pub(crate) fn smol_instant(now: Instant) -> SmolInstant {
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
        let keep = self.egress.make_room(self.callbacks, self.counters);
        let Self {
            now,
            egress,
            counters,
            wire,
            ..
        } = self;
        Some((
            Received(packet),
            Slot {
                now: *now,
                keep,
                egress,
                counters,
                wire,
            },
        ))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Slot<'_>> {
        let keep = self.egress.make_room(self.callbacks, self.counters);
        let Self {
            now,
            egress,
            counters,
            wire,
            ..
        } = self;
        keep.then_some(Slot {
            now: *now,
            keep,
            egress,
            counters,
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
pub(crate) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Space for one packet in the batch.
pub(crate) struct Slot<'a> {
    now: Instant,
    /// Whether the packet may go. smoltcp must be able to write the answer to a
    /// packet even when the device takes none; that answer is then lost, as it
    /// might be in the network.
    keep: bool,
    egress: &'a mut Egress,
    counters: &'a mut CounterSnapshot,
    wire: &'a mut Wire,
}

impl TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let space = self.egress.space(length);
        let result = f(space);
        if self.keep {
            seal(space, |segment| self.wire.sent(self.now, segment));
            self.egress.commit(length);
        } else {
            self.counters.replies_lost += 1;
        }
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
pub(crate) struct Shape(pub(crate) usize);

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
