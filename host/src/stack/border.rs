//! The driver's callbacks: what the engine says, passed on to the flows.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::device::PacketDevice;
use super::flow::{Flow, Limits};
use super::inbox::Inbox;
use super::incoming::Incoming;
use super::metrics::Tally;
use super::spread::Spread;
use crate::{
    Callbacks, CloseReason, Event, FiveTuple, FlowId, Packets, Protocol, Refusal, Verdict,
};

/// Between one engine, its device and its flows.
#[derive(Debug)]
pub(super) struct Border<D> {
    pub(super) device: Spread<D>,
    flows: HashMap<FlowId, Arc<Flow>>,
    accept: mpsc::Sender<io::Result<Incoming>>,
    pub(super) inbox: Arc<Inbox>,
    limits: Limits,
    /// The device took fewer packets than it was given.
    pub(super) device_full: bool,
    /// Connections that went with their engine: the peers do not know yet.
    pub(super) lost: Vec<FiveTuple>,
    pub(super) tally: Tally,
}

impl<D> Border<D> {
    pub(super) fn new(
        device: Spread<D>,
        accept: mpsc::Sender<io::Result<Incoming>>,
        limits: Limits,
    ) -> Self {
        Self {
            device,
            flows: HashMap::new(),
            accept,
            inbox: Arc::default(),
            limits,
            device_full: false,
            lost: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// A flow that lives.
    pub(super) fn flow(&self, id: FlowId) -> Option<Arc<Flow>> {
        self.flows.get(&id).map(Arc::clone)
    }

    pub(super) fn ids(&self) -> Vec<FlowId> {
        self.flows.keys().copied().collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.flows.is_empty()
    }

    /// Adds a flow that the engine has announced or opened.
    pub(super) fn add(&mut self, id: FlowId, tuple: FiveTuple) -> Arc<Flow> {
        let flow = Flow::new(id, tuple, Arc::clone(&self.inbox), self.limits.clone());
        let flow = Arc::new(flow);
        self.flows.insert(id, Arc::clone(&flow));
        flow
    }
}

impl<D: PacketDevice> Callbacks for Border<D> {
    fn l3_tx(&mut self, packets: Packets<'_>) -> usize {
        for (index, (_, bytes)) in packets.iter().enumerate() {
            match self.device.send(bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.device_full = true;
                    return index;
                }
                // As on any network: this packet is lost, and TCP sends it again.
                Err(error) => {
                    self.tally.packets_lost += 1;
                    tracing::debug!(length = bytes.len(), %error, "packet lost");
                }
            }
        }
        packets.len()
    }

    fn l4_rx(&mut self, id: FlowId, data: &[u8]) -> usize {
        match self.flows.get(&id) {
            Some(flow) => flow.deliver(data),
            None => data.len(),
        }
    }

    /// TCP waits for the application's verdict. A first datagram would be lost
    /// meanwhile, so these flows are accepted and wait in the queue.
    fn flow_new(&mut self, id: FlowId, tuple: &FiveTuple) -> Verdict {
        match self.accept.clone().try_reserve_owned() {
            Ok(place) => {
                let flow = self.add(id, *tuple);
                place.send(Ok(Incoming::new(flow)));
                match tuple.protocol {
                    Protocol::Tcp => Verdict::Wait,
                    Protocol::Udp | Protocol::IcmpEcho => Verdict::ACCEPT,
                }
            }
            // As a full backlog of a kernel's listener: the peer tries again.
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.tally.backlog_full += 1;
                Verdict::Drop
            }
            // Nobody will accept.
            Err(mpsc::error::TrySendError::Closed(_)) => Verdict::Refuse(Refusal::Reset),
        }
    }

    fn flow_event(&mut self, id: FlowId, event: Event) {
        match event {
            Event::Closed(reason) => {
                if let Some(flow) = self.flows.remove(&id) {
                    if reason == CloseReason::EngineLost && flow.is_connected() {
                        self.lost.push(flow.tuple);
                    }
                    flow.event(event);
                }
            }
            Event::Established | Event::Writable | Event::PeerFinished | Event::PeerReset => {
                if let Some(flow) = self.flows.get(&id) {
                    flow.event(event);
                }
            }
        }
    }
}

/// Nobody waits for a flow whose engine is gone.
impl<D> Drop for Border<D> {
    fn drop(&mut self) {
        for flow in self.flows.values() {
            flow.event(Event::Closed(CloseReason::EngineLost));
        }
    }
}
