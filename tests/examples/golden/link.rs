//! What is between the kernel and the engine: a link that loses and reorders, and
//! on which others send too.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::Duration;

use l3l4_host::device::Device;
use l3l4_tests::random::Random;

/// How bad a link is, in per cent of the packets each way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    lost: usize,
    /// Overtaken by the next one.
    late: usize,
    seed: u64,
}

/// All arrives, in order.
pub(crate) const CLEAN: Faults = Faults {
    lost: 0,
    late: 0,
    seed: 0,
};

/// Some is lost and some is late, as the seed says.
pub(crate) fn lossy(seed: u64) -> Faults {
    Faults {
        lost: 8,
        late: 8,
        seed,
    }
}

/// A device behind such a link.
pub(crate) struct Link<D> {
    device: D,
    faults: Faults,
    random_in: Random,
    random_out: Random,
    /// Received and not given yet.
    ready: VecDeque<Vec<u8>>,
    late_in: Option<Vec<u8>>,
    late_out: Option<Vec<u8>>,
    /// Packets of others, one after each of the device's.
    others: VecDeque<Vec<u8>>,
}

impl<D: Device> Link<D> {
    pub(crate) fn new(device: D, faults: Faults, others: Vec<Vec<u8>>) -> Self {
        Self {
            device,
            faults,
            random_in: Random::new(faults.seed),
            random_out: Random::new(!faults.seed),
            ready: VecDeque::new(),
            late_in: None,
            late_out: None,
            others: others.into(),
        }
    }

    /// Reads on until a packet is there that arrives.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        while self.ready.is_empty() {
            let packet = match self.device.receive(buffer) {
                Ok(length) => buffer[..length].to_vec(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let last = self.late_in.take().ok_or(error)?;
                    self.ready.push_back(last);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            if happens(&mut self.random_in, self.faults.lost) {
                continue;
            }
            if self.late_in.is_none() && happens(&mut self.random_in, self.faults.late) {
                self.late_in = Some(packet);
                continue;
            }
            self.ready.push_back(packet);
            self.ready.extend(self.late_in.take());
            self.ready.extend(self.others.pop_front());
        }
        Ok(())
    }
}

fn happens(random: &mut Random, per_cent: usize) -> bool {
    random.below(100) < per_cent
}

impl<D: Device> Device for Link<D> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill(buffer)?;
        let packet = self.ready.pop_front().ok_or(ErrorKind::WouldBlock)?;
        buffer[..packet.len()].copy_from_slice(&packet);
        Ok(packet.len())
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        if happens(&mut self.random_out, self.faults.lost) {
            return Ok(());
        }
        if self.late_out.is_none() && happens(&mut self.random_out, self.faults.late) {
            self.late_out = Some(packet.to_vec());
            return Ok(());
        }
        self.device.send(packet)?;
        match self.late_out.take() {
            Some(late) => self.device.send(&late),
            None => Ok(()),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, want_room: bool) -> io::Result<()> {
        if let Some(late) = self.late_out.take() {
            self.device.send(&late)?;
        }
        self.device.wait(timeout, want_room)
    }

    fn mtu(&self) -> usize {
        self.device.mtu()
    }
}
