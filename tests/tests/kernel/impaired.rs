//! A device that loses and reorders packets on their way, each direction by a seed of
//! its own.
//!
//! A packet that is late waits until some packets have overtaken it or a few
//! milliseconds have passed, whichever comes first, so that none is held for ever.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use l3l4_host::device::Device;
use l3l4_tests::random::Random;

/// A late packet is overtaken by at most so many.
const MOST_OVERTAKEN: usize = 16;
/// And waits at most so long.
const MOST_LATE: Duration = Duration::from_millis(4);
/// Before a device without room is asked again.
const NO_ROOM: Duration = Duration::from_millis(1);

/// What goes wrong in each direction. Shares of packets are in 1,000.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Packets that are lost.
    pub(crate) loss: usize,
    /// Packets that are late, and are overtaken.
    pub(crate) late: usize,
}

/// What became of the packets of both directions.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) packets: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) late: AtomicU64,
}

/// A device with faults on both of its directions.
pub(crate) struct Impaired<D> {
    device: D,
    inbound: Direction,
    outbound: Direction,
}

impl<D: Device> Impaired<D> {
    pub(crate) fn new(device: D, faults: Faults, seed: u64) -> (Self, Arc<Tally>) {
        let tally = Arc::new(Tally::default());
        let direction = |seed| Direction {
            faults,
            random: Random::new(seed),
            late: Vec::new(),
            tally: Arc::clone(&tally),
        };
        let impaired = Self {
            device,
            inbound: direction(seed),
            outbound: direction(!seed),
        };
        (impaired, tally)
    }

    /// Sends what has been late for long enough. A device without room, or one that
    /// fails, keeps it for the next time.
    fn release(&mut self) {
        while let Some(packet) = self.outbound.due() {
            if self.device.send(&packet).is_err() {
                self.outbound.put_back(packet);
                return;
            }
        }
    }
}

impl<D: Device> Device for Impaired<D> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.release();
        loop {
            if let Some(packet) = self.inbound.due() {
                buffer[..packet.len()].copy_from_slice(&packet);
                return Ok(packet.len());
            }
            let length = self.device.receive(buffer)?;
            if self.inbound.passes(&buffer[..length]) {
                return Ok(length);
            }
        }
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.release();
        if self.outbound.passes(packet) {
            self.device.send(packet)
        } else {
            Ok(())
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, want_room: bool) -> io::Result<()> {
        self.release();
        // What is due outbound found no room.
        let outbound = self.outbound.next().map(|time| time.max(NO_ROOM));
        let times = [timeout, self.inbound.next(), outbound];
        let time = times.into_iter().flatten().min();
        self.device.wait(time, want_room)
    }

    fn mtu(&self) -> usize {
        self.device.mtu()
    }
}

struct Direction {
    faults: Faults,
    random: Random,
    late: Vec<Late>,
    tally: Arc<Tally>,
}

struct Late {
    at: Instant,
    /// How many more may overtake it.
    overtaken: usize,
    packet: Vec<u8>,
}

impl Direction {
    /// Whether a packet passes at once; if not it is lost, or kept to be late.
    fn passes(&mut self, packet: &[u8]) -> bool {
        self.tally.packets.fetch_add(1, Ordering::Relaxed);
        if self.random.below(1000) < self.faults.loss {
            self.tally.lost.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        if self.random.below(1000) < self.faults.late {
            self.tally.late.fetch_add(1, Ordering::Relaxed);
            let millis = u32::try_from(self.random.below(4) + 1).expect("at most 4");
            self.late.push(Late {
                at: Instant::now() + (MOST_LATE / 4) * millis,
                overtaken: self.random.below(MOST_OVERTAKEN) + 1,
                packet: packet.to_vec(),
            });
            return false;
        }
        for late in &mut self.late {
            late.overtaken = late.overtaken.saturating_sub(1);
        }
        true
    }

    /// A packet that has been late for long enough.
    fn due(&mut self) -> Option<Vec<u8>> {
        if self.late.is_empty() {
            return None;
        }
        let now = Instant::now();
        let ripe = |late: &Late| late.overtaken == 0 || late.at <= now;
        let first = self.late.iter().position(ripe)?;
        Some(self.late.remove(first).packet)
    }

    fn put_back(&mut self, packet: Vec<u8>) {
        self.late.insert(
            0,
            Late {
                at: Instant::now(),
                overtaken: 0,
                packet,
            },
        );
    }

    /// How long until a packet is due.
    fn next(&self) -> Option<Duration> {
        let now = Instant::now();
        let wait = |late: &Late| match late.overtaken {
            0 => Duration::ZERO,
            _ => late.at.saturating_duration_since(now),
        };
        self.late.iter().map(wait).min()
    }
}
