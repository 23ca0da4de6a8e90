//! A device that is watched.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Direction, Writer};
use crate::device::Device;

/// A device whose packets, both ways, are written to a capture as they pass: what
/// is received from it as inbound, what is sent to it as outbound, each with the
/// time of the system's clock.
///
/// When the capture cannot be written on (the disk is full), the device fails with
/// that error at the next [`Device::receive`] or [`Device::wait`]: a capture with
/// holes that nobody knows of would be worse.
#[derive(Debug)]
pub struct Tap<D, W> {
    device: D,
    writer: Writer<W>,
    failed: Option<io::Error>,
}

impl<D: Device, W: Write> Tap<D, W> {
    /// Watches `device`.
    pub fn new(device: D, writer: Writer<W>) -> Self {
        Self {
            device,
            writer,
            failed: None,
        }
    }

    /// Ends the watch, and gives the capture.
    pub fn into_writer(self) -> Writer<W> {
        self.writer
    }

    fn record(&mut self, direction: Direction, packet: &[u8]) {
        if let Err(error) = self.writer.packet(now(), direction, packet) {
            self.failed.get_or_insert(error);
        }
    }

    fn check(&mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(io::Error::new(
                error.kind(),
                format!("its capture cannot be written: {error}"),
            )),
            None => Ok(()),
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

#[cfg(unix)]
impl<D: std::os::fd::AsFd, W> std::os::fd::AsFd for Tap<D, W> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl<D: Device, W: Write> Device for Tap<D, W> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        let length = self.device.receive(buffer)?;
        self.record(Direction::Inbound, &buffer[..length]);
        Ok(length)
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.device.send(packet)?;
        self.record(Direction::Outbound, packet);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, want_room: bool) -> io::Result<()> {
        self.check()?;
        self.device.wait(timeout, want_room)
    }

    fn mtu(&self) -> usize {
        self.device.mtu()
    }
}
