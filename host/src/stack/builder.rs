//! What can be set before a stack exists.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::border::Border;
use super::budget::{Budget, FLOOR};
use super::device::PacketDevice;
use super::driver::Driver;
use super::flow::Limits;
use super::spread::{self, Spread};
use super::{Error, Stack};
use crate::Engine;
use crate::record::Failure;

/// What can be set before a [`Stack`] exists. What is not set keeps its default.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    engine: crate::Builder,
    record: Option<File>,
    record_failure: Failure,
    backlog: usize,
    limits: Limits,
}

/// Most bytes in all queues: as much as an engine has for its own buffers
/// (`memory-limit` in `wit/types.wit`), or 512 flows whose queues are full both ways.
const QUEUE_MEMORY: usize = 256 << 20;
/// Requests that wait for a driver; those who ask wait then too.
const REQUESTS: usize = 64;

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            engine: Engine::builder(),
            record: None,
            record_failure: Failure::default(),
            backlog: 1024,
            limits: Limits {
                receive_queue: 256 * 1024,
                send_queue: 256 * 1024,
                budget: Arc::new(Budget::new(QUEUE_MEMORY)),
            },
        }
    }

    /// How the engines are made. By default as [`Engine::builder`] gives it.
    pub fn engine(mut self, engine: crate::Builder) -> Self {
        self.engine = engine;
        self
    }

    /// Most flows that wait for [`Stack::accept`]. Beyond them a SYN or a first
    /// datagram is dropped in silence and counted, so that the peer tries again.
    /// Default 1,024, at least 1.
    pub fn backlog(mut self, flows: usize) -> Self {
        self.backlog = flows.max(1);
        self
    }

    /// Most bytes that a flow keeps for the application beside the engine's own
    /// buffer. TCP: beyond them the window closes; datagrams are dropped (each counts
    /// 64 bytes more than its data). Default 256 KiB, at least 4 KiB.
    pub fn receive_queue(mut self, bytes: usize) -> Self {
        self.limits.receive_queue = bytes.max(FLOOR);
        self
    }

    /// Most bytes that a flow keeps on their way to the engine; beyond them writes
    /// wait. Default 256 KiB, at least 4 KiB.
    pub fn send_queue(mut self, bytes: usize) -> Self {
        self.limits.send_queue = bytes.max(FLOOR);
        self
    }

    /// Most bytes in the queues of all flows together, both ways. When they are in use,
    /// each queue has room for 4 KiB, or one datagram, yet and no more: windows close, writes wait and
    /// datagrams are dropped, as when the flow's own queue is full. Default 256 MiB.
    pub fn queue_memory(mut self, bytes: usize) -> Self {
        self.limits.budget = Arc::new(Budget::new(bytes));
        self
    }

    /// Writes all that crosses the engine's border to `file`, for
    /// [`record::replay`](crate::record::replay). It holds every packet in clear. With
    /// several devices only the first one's engine is recorded.
    pub fn record(mut self, file: File) -> Self {
        self.record = Some(file);
        self
    }

    /// Joins an engine to a device. To be called in a tokio runtime with time and
    /// I/O enabled, on which the driver becomes a task.
    ///
    /// # Errors
    ///
    /// The engine cannot be made.
    pub fn start<D: PacketDevice>(self, device: D) -> Result<Stack, Error> {
        self.start_spread(vec![device])
    }

    /// As [`start`](Self::start) with an engine for each device, each driven by a task
    /// of its own, so that several cores are used. The devices are queues of one link:
    /// any of them may bring and send any packet. Every flow belongs to one engine, by
    /// a keyed hash of its addresses and ports, and packets of it that another
    /// device brings are handed over in order. So the order within a flow is the order
    /// in which the devices bring its packets: a queue that keeps a flow to itself, as
    /// those of a TUN device do, keeps its order.
    ///
    /// UDP is spread by the addresses alone, so that a datagram's fragments, which
    /// have no ports, find their flow; fragments of TCP segments are dropped and
    /// counted (`packets_not_handed_over`).
    ///
    /// # Errors
    ///
    /// The engine cannot be made, or there is no device.
    pub fn start_spread<D: PacketDevice>(mut self, devices: Vec<D>) -> Result<Stack, Error> {
        if devices.is_empty() {
            return Err(Error::NoDevice);
        }
        let (accept, accepted) = mpsc::channel(self.backlog);
        let (parts, owner) = spread::spread(devices);
        let mut drivers = Vec::new();
        for device in parts {
            drivers.push(self.start_one(device, accept.clone())?);
        }
        Ok(Stack::new(accepted, drivers, owner, self.record_failure))
    }

    fn start_one<D: PacketDevice>(
        &mut self,
        device: Spread<D>,
        accept: mpsc::Sender<io::Result<super::Incoming>>,
    ) -> Result<mpsc::Sender<super::driver::Request>, Error> {
        let border = Border::new(device, accept.clone(), self.limits.clone());
        let engine = self.engine.clone();
        let engine = match self.record.take() {
            None => engine.build(border),
            Some(file) => {
                let failure = Arc::clone(&self.record_failure);
                engine.build_recorded_until(border, file, failure)
            }
        }?;
        let (requests, requested) = mpsc::channel(REQUESTS);
        let driver = Driver::new(engine, requested);
        let run = async move {
            if let Err(error) = driver.run().await {
                tracing::error!(%error, "the stack has ended");
                let _ = accept.send(Err(error)).await;
            }
        };
        tokio::spawn(run);
        Ok(requests)
    }
}
