//! The echo application: whatever a flow brings in goes out again on it.
//!
//! It is also the worked example of an embedding. [`Server::run`] is the loop: a
//! packet, data to send, time for housekeeping. [`Echo`] is the other half, the
//! callbacks, which only record; what they recorded is acted upon after the call.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::device::Device;
use crate::{
    Batch, Callbacks, Clock, CloseReason, CounterSnapshot, Engine, Error, Event, FiveTuple, FlowId,
    Instant, Packets, Protocol, Verdict,
};

/// Bytes that a flow may have waiting to go out. What comes beyond stays with
/// the engine, whose window closes.
const QUEUE_LIMIT: usize = 256 * 1024;

/// Packets read before the engine is called: 32 in a call cost a quarter of what
/// they cost one by one, and beyond that little is gained.
const BATCH_PACKETS: usize = 64;

/// Queues kept for the next flow that needs one.
const SPARE_QUEUES: usize = 64;

/// How long the loop sleeps at most, so that it sees that it shall stop.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Is told of flows as they come and go. `()` does not care.
pub trait Watch: 'static {
    /// A peer opened a flow.
    fn opened(&mut self, flow: FlowId, tuple: &FiveTuple) {
        let _ = (flow, tuple);
    }

    /// A flow ended after `echoed` bytes went out again.
    fn closed(&mut self, flow: FlowId, tuple: &FiveTuple, echoed: u64, reason: CloseReason) {
        let _ = (flow, tuple, echoed, reason);
    }
}

impl Watch for () {}

/// What stopped a server, other than being asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The engine, beyond what a new instance mends.
    #[error(transparent)]
    Engine(#[from] Error),
    /// The device is of no more use.
    #[error("the device failed")]
    Device(#[from] std::io::Error),
}

/// The callbacks of the echo application.
#[derive(Debug)]
pub struct Echo<D, W = ()> {
    device: D,
    watch: W,
    flows: HashMap<FlowId, Flow>,
    /// The flows to look at after this call, each once. The work of a turn is
    /// proportional to them and not to all flows.
    touched: VecDeque<FlowId>,
    spare: Vec<VecDeque<u8>>,
    /// The device took fewer packets than it was given.
    device_full: bool,
}

#[derive(Debug)]
struct Flow {
    tuple: FiveTuple,
    queue: Queue,
    echoed: u64,
    /// It is in `Echo::touched`.
    touched: bool,
    /// The engine took fewer bytes than it was given: wait for `Writable`.
    blocked: bool,
    /// We took fewer bytes than we were given: resume when there is room.
    held_back: bool,
    peer_finished: bool,
    /// Nothing can be sent any more: what is held back would be taken for nobody.
    peer_reset: bool,
    finished: bool,
}

/// Data on its way back.
#[derive(Debug)]
enum Queue {
    Stream(VecDeque<u8>),
    Datagrams {
        waiting: VecDeque<Vec<u8>>,
        bytes: usize,
    },
}

impl<D: Device, W: Watch> Echo<D, W> {
    /// An application that sends to `device`.
    pub fn new(device: D, watch: W) -> Self {
        Self {
            device,
            watch,
            flows: HashMap::new(),
            touched: VecDeque::new(),
            spare: Vec::new(),
            device_full: false,
        }
    }

    fn next_touched(&mut self) -> Option<FlowId> {
        let id = self.touched.pop_front()?;
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.touched = false;
        }
        Some(id)
    }

    fn recycle(&mut self, queue: VecDeque<u8>) {
        if queue.capacity() > 0 && self.spare.len() < SPARE_QUEUES {
            self.spare.push(queue);
        }
    }
}

/// The flow, which is to be looked at after this call.
fn touch<'a>(
    flows: &'a mut HashMap<FlowId, Flow>,
    touched: &mut VecDeque<FlowId>,
    id: FlowId,
) -> Option<&'a mut Flow> {
    let flow = flows.get_mut(&id)?;
    if !mem::replace(&mut flow.touched, true) {
        touched.push_back(id);
    }
    Some(flow)
}

impl<D: Device + 'static, W: Watch> Callbacks for Echo<D, W> {
    fn l3_tx(&mut self, packets: Packets<'_>) -> usize {
        for (index, (_, bytes)) in packets.iter().enumerate() {
            match self.device.send(bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.device_full = true;
                    return index;
                }
                // As on any network: this packet is lost, and TCP sends it again.
                Err(error) => tracing::debug!(length = bytes.len(), %error, "packet lost"),
            }
        }
        packets.len()
    }

    fn l4_rx(&mut self, id: FlowId, data: &[u8]) -> usize {
        let Some(flow) = touch(&mut self.flows, &mut self.touched, id) else {
            return data.len();
        };
        match &mut flow.queue {
            Queue::Stream(queue) => {
                let taken = data.len().min(QUEUE_LIMIT - queue.len());
                flow.held_back = taken < data.len();
                if queue.capacity() == 0 {
                    *queue = self.spare.pop().unwrap_or_default();
                }
                queue.extend(&data[..taken]);
                taken
            }
            Queue::Datagrams { bytes, .. } if *bytes + data.len() > QUEUE_LIMIT => 0,
            Queue::Datagrams { waiting, bytes } => {
                *bytes += data.len();
                waiting.push_back(data.to_vec());
                data.len()
            }
        }
    }

    fn flow_new(&mut self, id: FlowId, tuple: &FiveTuple) -> Verdict {
        self.watch.opened(id, tuple);
        let queue = match tuple.protocol {
            Protocol::Tcp => Queue::Stream(VecDeque::new()),
            Protocol::Udp | Protocol::IcmpEcho => Queue::Datagrams {
                waiting: VecDeque::new(),
                bytes: 0,
            },
        };
        let flow = Flow {
            tuple: *tuple,
            queue,
            echoed: 0,
            touched: false,
            blocked: false,
            held_back: false,
            peer_finished: false,
            peer_reset: false,
            finished: false,
        };
        self.flows.insert(id, flow);
        Verdict::ACCEPT
    }

    fn flow_event(&mut self, id: FlowId, event: Event) {
        match event {
            Event::Established => {}
            Event::Writable => {
                if let Some(flow) = touch(&mut self.flows, &mut self.touched, id) {
                    flow.blocked = false;
                }
            }
            Event::PeerFinished => {
                if let Some(flow) = touch(&mut self.flows, &mut self.touched, id) {
                    flow.peer_finished = true;
                }
            }
            Event::PeerReset => {
                if let Some(flow) = touch(&mut self.flows, &mut self.touched, id) {
                    flow.peer_reset = true;
                }
            }
            Event::Closed(reason) => {
                if let Some(flow) = self.flows.remove(&id) {
                    self.watch.closed(id, &flow.tuple, flow.echoed, reason);
                    if let Queue::Stream(mut queue) = flow.queue {
                        queue.clear();
                        self.recycle(queue);
                    }
                }
            }
        }
    }
}

/// An engine with the echo application, joined to a device.
#[derive(Debug)]
pub struct Server<D: 'static, W: 'static = ()> {
    engine: Engine<Echo<D, W>>,
    clock: Clock,
    /// When the engine wants `l4_poll`.
    deadline: Option<Instant>,
    batch: Batch,
}

impl<D: Device + 'static, W: Watch> Server<D, W> {
    /// Joins an engine to the device of its callbacks.
    pub fn new(engine: Engine<Echo<D, W>>) -> Self {
        Self {
            engine,
            clock: Clock::start(),
            deadline: None,
            batch: Batch::new(),
        }
    }

    /// Echoes until `stop` is set. A trap of the guest ends the flows that live,
    /// is logged, and does not end the service.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<(), ServeError> {
        while !stop.load(Ordering::Relaxed) {
            self.turn()?;
        }
        Ok(())
    }

    /// The engine.
    pub fn engine(&self) -> &Engine<Echo<D, W>> {
        &self.engine
    }

    /// The engine's totals.
    pub fn counters(&mut self) -> Result<CounterSnapshot, Error> {
        self.engine.counters()
    }

    /// Once around: packets in, data out, housekeeping, and sleep if there was
    /// nothing to do.
    fn turn(&mut self) -> Result<(), ServeError> {
        self.read_packets()?;
        let now = self.clock.now();
        if !self.batch.is_empty() {
            let deadline = self.engine.l3_rx(now, &self.batch);
            self.note(now, deadline)?;
            self.send_pending(now)?;
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.poll(now)?;
        }
        let device_full = mem::take(&mut self.engine.callbacks_mut().device_full);
        if self.batch.is_empty() || device_full {
            self.sleep(device_full)?;
        }
        if device_full {
            self.poll(self.clock.now())?;
        }
        Ok(())
    }

    fn read_packets(&mut self) -> Result<(), std::io::Error> {
        self.batch.clear();
        let device = &mut self.engine.callbacks_mut().device;
        let mtu = device.mtu();
        let most = Batch::PART_BYTES.max(mtu);
        while self.batch.len() < BATCH_PACKETS && self.batch.bytes().len() + mtu <= most {
            match self.batch.push_with(mtu, |buffer| device.receive(buffer)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sleep(&mut self, want_room: bool) -> Result<(), std::io::Error> {
        let until_deadline = self.deadline.map(|deadline| deadline - self.clock.now());
        let time = until_deadline.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
        self.engine
            .callbacks_mut()
            .device
            .wait(Some(time), want_room)
    }

    fn poll(&mut self, now: Instant) -> Result<(), Error> {
        let deadline = self.engine.l4_poll(now);
        self.note(now, deadline)?;
        self.send_pending(now)
    }

    /// Keeps the deadline of a call. After a trap the new instance is asked for
    /// its own at once. A refusal concerns one flow, not the service: it is ending,
    /// and the `Closed` event that says so has come or will.
    fn note(&mut self, now: Instant, result: Result<Option<Instant>, Error>) -> Result<(), Error> {
        match result {
            Ok(deadline) => self.deadline = deadline,
            Err(error @ Error::Trap { .. }) => {
                tracing::warn!(%error, "the engine was restarted");
                self.deadline = Some(now);
            }
            Err(Error::Flow(error)) => tracing::debug!(%error, "a flow's call was refused"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn send_pending(&mut self, now: Instant) -> Result<(), Error> {
        while let Some(id) = self.engine.callbacks_mut().next_touched() {
            self.attend(now, id)?;
        }
        Ok(())
    }

    /// Does for one flow what it waits for: send, receive more, finish, give up.
    fn attend(&mut self, now: Instant, id: FlowId) -> Result<(), Error> {
        let flow = self.engine.callbacks().flows.get(&id);
        if flow.is_some_and(|flow| flow.peer_reset) {
            let deadline = self.engine.flow_abort(now, id);
            return self.note(now, deadline);
        }
        self.send(now, id)?;
        let Some(flow) = self.engine.callbacks_mut().flows.get_mut(&id) else {
            return Ok(());
        };
        if flow.held_back && flow.queue.bytes() <= QUEUE_LIMIT / 2 {
            flow.held_back = false;
            // More data touches the flow, so it is attended to again.
            let deadline = self.engine.flow_resume(now, id);
            return self.note(now, deadline);
        }
        if flow.peer_finished && !flow.finished && flow.queue.is_empty() {
            flow.finished = true;
            let deadline = self.engine.flow_finish(now, id);
            return self.note(now, deadline);
        }
        Ok(())
    }

    /// Sends from the queue until it is empty or the engine takes no more. The
    /// queue leaves the callbacks meanwhile, since they cannot be borrowed while
    /// the engine runs.
    fn send(&mut self, now: Instant, id: FlowId) -> Result<(), Error> {
        let Some(flow) = self.engine.callbacks_mut().flows.get_mut(&id) else {
            return Ok(());
        };
        if flow.blocked || flow.queue.is_empty() {
            return Ok(());
        }
        let protocol = flow.tuple.protocol;
        let mut queue = mem::replace(&mut flow.queue, Queue::Stream(VecDeque::new()));
        // Said before, so that a `Writable` from within the call is not undone.
        flow.blocked = true;

        let mut echoed = 0;
        let outcome = loop {
            let Some(data) = queue.front() else {
                break Ok(true);
            };
            match self.engine.l4_tx(now, id, data) {
                Ok(sent) => {
                    self.deadline = sent.deadline;
                    echoed += sent.taken as u64;
                    let all = sent.taken == data.len();
                    queue.advance(sent.taken);
                    if !all {
                        break Ok(false);
                    }
                }
                Err(error) => {
                    queue.clear();
                    break Err(error);
                }
            }
        };

        let callbacks = self.engine.callbacks_mut();
        if let Some(flow) = callbacks.flows.get_mut(&id) {
            flow.echoed += echoed;
            flow.blocked &= matches!(outcome, Ok(false));
            // An idle flow keeps no buffer.
            if let (Protocol::Tcp, true) = (protocol, queue.is_empty()) {
                if let Queue::Stream(queue) = queue {
                    callbacks.recycle(queue);
                }
            } else {
                flow.queue = queue;
            }
        }
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => self.note(now, Err(error)),
        }
    }
}

impl Queue {
    /// The next piece to send: a run of the stream, or one datagram.
    fn front(&self) -> Option<&[u8]> {
        match self {
            Self::Stream(queue) => Some(queue.as_slices().0).filter(|data| !data.is_empty()),
            Self::Datagrams { waiting, .. } => waiting.front().map(Vec::as_slice),
        }
    }

    /// Removes what was taken of the front: a datagram goes whole or not at all.
    fn advance(&mut self, taken: usize) {
        match self {
            Self::Stream(queue) => drop(queue.drain(..taken)),
            Self::Datagrams { waiting, bytes } => {
                if waiting
                    .front()
                    .is_some_and(|datagram| datagram.len() == taken)
                {
                    waiting.pop_front();
                    *bytes -= taken;
                }
            }
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Stream(queue) => queue.clear(),
            Self::Datagrams { waiting, bytes } => {
                waiting.clear();
                *bytes = 0;
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Stream(queue) => queue.is_empty(),
            Self::Datagrams { waiting, .. } => waiting.is_empty(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Stream(queue) => queue.len(),
            Self::Datagrams { bytes, .. } => *bytes,
        }
    }
}
