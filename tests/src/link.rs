//! One direction of a path: a delay, and everything that can go wrong on the way,
//! from a seed. The same packets at the same instants fare the same.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use l3l4_engine::Instant;

use crate::craft;
use crate::random::Random;

/// What goes wrong in one direction. Shares of packets are in 1,000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impairments {
    /// How long a packet takes.
    pub delay: Duration,
    /// Which packets are lost.
    pub loss: Loss,
    /// Packets that take up to [`REORDERING`] longer, and are overtaken.
    pub reorder: u32,
    /// Packets that arrive twice.
    pub duplicate: u32,
    /// Packets of which one byte is changed: what a checksum of 16 bits always
    /// shows.
    pub corrupt: u32,
    /// Packets that lose their end.
    pub truncate: u32,
    /// When nothing passes.
    pub outages: Vec<Range<Instant>>,
    /// The longest packet that passes, from each instant on; they stay when the
    /// other faults end.
    pub mtu: Vec<(Instant, usize)>,
    /// Whether a router tells the sender of a packet that was too long.
    pub announces_mtu: bool,
    /// A bottleneck.
    pub rate: Option<Rate>,
    /// When all faults end but the delay and the MTU.
    pub until: Instant,
}

/// The longest extra delay of a reordered packet.
pub const REORDERING: Duration = Duration::from_millis(40);

/// Which packets are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Each by itself, this share.
    Independent(u32),
    /// In bursts (Gilbert and Elliott): a bad state that a packet enters and leaves
    /// with these shares, and in which this share is lost.
    Bursts {
        /// From good to bad.
        enter: u32,
        /// From bad to good.
        leave: u32,
        /// Lost in the bad state.
        lost: u32,
    },
}

/// A bottleneck with a queue that drops what does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What it carries.
    pub bytes_per_second: u32,
    /// What it holds.
    pub queue_bytes: u32,
}

impl Impairments {
    /// None but a delay.
    #[must_use]
    pub fn none(delay: Duration) -> Self {
        Self {
            delay,
            loss: Loss::Independent(0),
            reorder: 0,
            duplicate: 0,
            corrupt: 0,
            truncate: 0,
            outages: Vec::new(),
            mtu: Vec::new(),
            announces_mtu: false,
            rate: None,
            until: Instant(u64::MAX),
        }
    }
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at this instant; `changed` when not as it was sent.
    Arrives {
        /// When.
        at: Instant,
        /// What the link did to it.
        changed: Option<&'static str>,
    },
    /// It does not, for this reason.
    Lost(&'static str),
    /// It is too long for this MTU.
    TooLong(usize),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrives { at, changed } => {
                let seconds = Duration::from_nanos(at.0).as_secs_f64();
                write!(f, "arrives {seconds:.6}")?;
                match changed {
                    Some(changed) => write!(f, " {changed}"),
                    None => Ok(()),
                }
            }
            Self::Lost(why) => write!(f, "LOST ({why})"),
            Self::TooLong(mtu) => write!(f, "LOST (over the MTU of {mtu})"),
        }
    }
}

/// Carries packets in one direction.
#[derive(Debug)]
pub struct Link {
    impairments: Impairments,
    random: Random,
    bad: bool,
    /// When the bottleneck will have sent all that it holds.
    busy_until: Instant,
    serial: u64,
    flying: BTreeMap<(Instant, u64), Vec<u8>>,
    /// What the router says to the sender of packets that were too long.
    replies: VecDeque<Vec<u8>>,
}

impl Link {
    /// A link with these impairments, by this seed.
    #[must_use]
    pub fn new(impairments: Impairments, seed: u64) -> Self {
        Self {
            impairments,
            random: Random::new(seed),
            bad: false,
            busy_until: Instant(0),
            serial: 0,
            flying: BTreeMap::new(),
            replies: VecDeque::new(),
        }
    }

    /// Takes a packet; what became of it, and of its duplicate if it has one.
    pub fn send(&mut self, now: Instant, packet: Vec<u8>) -> (Fate, Option<Fate>) {
        if let Some(mtu) = self.mtu(now).filter(|mtu| packet.len() > *mtu) {
            if self.impairments.announces_mtu {
                self.replies.extend(too_big(&packet, mtu));
            }
            return (Fate::TooLong(mtu), None);
        }
        if now >= self.impairments.until {
            return (self.carry(now + self.impairments.delay, packet, None), None);
        }
        if self.impairments.outages.iter().any(|at| at.contains(&now)) {
            return (Fate::Lost("outage"), None);
        }
        if self.loses() {
            return (Fate::Lost("loss"), None);
        }
        let twice = self.chance(self.impairments.duplicate);
        let copy = twice.then(|| packet.clone());
        let first = self.queue(now, packet);
        (first, copy.map(|copy| self.queue(now, copy)))
    }

    /// A packet that no impairment concerns.
    pub fn send_untouched(&mut self, now: Instant, packet: Vec<u8>) {
        self.carry(now + self.impairments.delay, packet, None);
    }

    /// The router's messages for the sender.
    pub fn replies(&mut self) -> VecDeque<Vec<u8>> {
        std::mem::take(&mut self.replies)
    }

    /// The packets that have arrived.
    pub fn arrived(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut arrived = Vec::new();
        while let Some(first) = self.flying.first_entry() {
            if first.key().0 > now {
                break;
            }
            arrived.push(first.remove());
        }
        arrived
    }

    /// When the next packet arrives.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.flying.keys().next().map(|(at, _)| *at)
    }

    fn mtu(&self, now: Instant) -> Option<usize> {
        let steps = self.impairments.mtu.iter().rev();
        steps
            .copied()
            .find(|(from, _)| *from <= now)
            .map(|(_, mtu)| mtu)
    }

    fn loses(&mut self) -> bool {
        match self.impairments.loss {
            Loss::Independent(share) => self.chance(share),
            Loss::Bursts { enter, leave, lost } => {
                let turn = if self.bad { leave } else { enter };
                self.bad ^= self.chance(turn);
                self.bad && self.chance(lost)
            }
        }
    }

    /// Through the bottleneck, and on with what happens to the packet itself.
    fn queue(&mut self, now: Instant, mut packet: Vec<u8>) -> Fate {
        let mut at = now;
        if let Some(rate) = self.impairments.rate {
            let start = self.busy_until.max(now);
            let waiting = (start - now).as_nanos() * u128::from(rate.bytes_per_second);
            if waiting / 1_000_000_000 + packet.len() as u128 > u128::from(rate.queue_bytes) {
                return Fate::Lost("queue full");
            }
            let nanos = packet.len() as u64 * 1_000_000_000 / u64::from(rate.bytes_per_second);
            self.busy_until = start + Duration::from_nanos(nanos);
            at = self.busy_until;
        }
        let mut changed = None;
        if self.chance(self.impairments.corrupt) {
            self.corrupt(&mut packet);
            changed = Some("CORRUPTED");
        }
        if self.chance(self.impairments.truncate) {
            packet.truncate(self.random.below(packet.len()).max(1));
            changed = Some("TRUNCATED");
        }
        at = at + self.impairments.delay;
        if self.chance(self.impairments.reorder) {
            let most = usize::try_from(REORDERING.as_micros()).expect("40,000");
            at = at + Duration::from_micros(self.random.below(most) as u64 + 1);
            changed = changed.or(Some("late"));
        }
        self.carry(at, packet, changed)
    }

    fn carry(&mut self, at: Instant, packet: Vec<u8>, changed: Option<&'static str>) -> Fate {
        self.serial += 1;
        self.flying.insert((at, self.serial), packet);
        Fate::Arrives { at, changed }
    }

    /// Changes one byte. IPv6 protects its hop limit (byte 7) by no checksum: a
    /// change there would go unseen, and a router's would as well.
    fn corrupt(&mut self, packet: &mut [u8]) {
        let mut at = self.random.below(packet.len());
        if packet[0] >> 4 == 6 && at == 7 {
            at = 6;
        }
        packet[at] ^= self.random.byte().max(1);
    }

    fn chance(&mut self, share: u32) -> bool {
        share > 0 && self.random.below(1000) < usize::try_from(share).expect("a share")
    }
}

/// What a router says about a packet that is too long: ICMPv4 3/4 (RFC 1191 4) or
/// ICMPv6 2/0 (RFC 4443 3.2), with as much of the packet as is customary. A packet
/// that allows no answer gets none.
fn too_big(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let octets = |range: Range<usize>| packet.get(range);
    let mtu = u16::try_from(mtu).expect("an MTU").to_be_bytes();
    let mut rest = [0; 4];
    rest[2..].copy_from_slice(&mtu);
    match packet.first()? >> 4 {
        4 => {
            let address = |range| <[u8; 4]>::try_from(octets(range)?).ok();
            let (from, to) = (address(12..16)?, address(16..20)?);
            let quoted = &packet[..packet.len().min(28)];
            let (router, sender) = (IpAddr::from(to), IpAddr::from(from));
            Some(craft::icmp(router, sender, 3, 4, rest, quoted))
        }
        6 => {
            let address = |range| <[u8; 16]>::try_from(octets(range)?).ok();
            let (from, to) = (address(8..24)?, address(24..40)?);
            let quoted = &packet[..packet.len().min(1232)];
            let (router, sender) = (IpAddr::from(to), IpAddr::from(from));
            Some(craft::icmp(router, sender, 2, 0, rest, quoted))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::craft::{FAMILIES, udp};
    use crate::wire;

    fn count(impairments: Impairments, packets: u64) -> (u64, u64, u64) {
        let mut link = Link::new(impairments, 1);
        let (mut arrived, mut copies, mut changes) = (0, 0, 0);
        for i in 0..packets {
            let (first, copy) = link.send(Instant(i * 1_000_000), vec![0x45; 1000]);
            arrived += u64::from(matches!(first, Fate::Arrives { .. }));
            changes += u64::from(matches!(
                first,
                Fate::Arrives {
                    changed: Some(_),
                    ..
                }
            ));
            copies += u64::from(copy.is_some());
        }
        (arrived, copies, changes)
    }

    #[test]
    fn shares_are_what_they_say() {
        let none = Impairments::none(Duration::from_millis(10));
        assert_eq!(count(none.clone(), 10_000), (10_000, 0, 0));
        let mut each = none.clone();
        each.loss = Loss::Independent(300);
        assert!((6800..7200).contains(&count(each, 10_000).0));
        let mut bursts = none.clone();
        bursts.loss = Loss::Bursts {
            enter: 50,
            leave: 200,
            lost: 1000,
        };
        assert!((7500..8500).contains(&count(bursts, 10_000).0));
        let mut twice = none.clone();
        (twice.duplicate, twice.corrupt) = (200, 100);
        let (arrived, copies, changes) = count(twice, 10_000);
        assert_eq!(arrived, 10_000);
        assert!((1800..2200).contains(&copies) && (850..1150).contains(&changes));
    }

    #[test]
    fn a_bottleneck_sends_in_turn_and_drops_the_tail() {
        let mut narrow = Impairments::none(Duration::ZERO);
        narrow.rate = Some(Rate {
            bytes_per_second: 1_000_000,
            queue_bytes: 3000,
        });
        let mut link = Link::new(narrow, 1);
        let fates: Vec<_> = (0..4)
            .map(|_| link.send(Instant(0), vec![0; 1000]).0)
            .collect();
        assert_eq!(fates[3], Fate::Lost("queue full"));
        assert_eq!(link.arrived(Instant(2_000_000)).len(), 2);
        assert_eq!(link.next(), Some(Instant(3_000_000)));
    }

    #[test]
    fn what_is_too_long_is_reported_to_its_sender() {
        for family in FAMILIES {
            let mut small = Impairments::none(Duration::ZERO);
            small.mtu = vec![(Instant(0), 1500), (Instant(10), 1280)];
            small.announces_mtu = true;
            let mut link = Link::new(small, 1);
            let packet = udp(family.local(1), family.peer(2), &[0; 1400]);
            assert!(matches!(
                link.send(Instant(9), packet.clone()).0,
                Fate::Arrives { .. }
            ));
            assert_eq!(link.send(Instant(10), packet).0, Fate::TooLong(1280));
            let said = wire::read(&link.replies()[0]).expect("a good packet");
            assert_eq!(said.to, family.local(1).ip());
            assert_eq!(said.icmp().rest, [0, 0, 5, 0]);
        }
    }
}
