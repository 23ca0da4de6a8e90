//! The engine's side of transfers: checks what it receives and sends what was ordered,
//! both at once, in a thread of its own.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use l3l4_host::device::Device;
use l3l4_host::{
    Batch, Callbacks, Clock, CloseReason, CounterSnapshot, Engine, Error, Event, FiveTuple, FlowId,
    Instant, Packets, Verdict,
};

use crate::order::{ORDER_BYTES, Order};
use crate::pattern::Pattern;

const BATCH_PACKETS: usize = 64;
const PIECE: usize = 64 << 10;
const LONGEST_WAIT: Duration = Duration::from_millis(10);

/// How one flow went, as the engine told it.
#[derive(Debug)]
pub(crate) struct Report {
    /// The order, if it came.
    pub(crate) order: Option<Order>,
    /// Bytes received after the order.
    pub(crate) received: u64,
    /// The first byte that was not the client's.
    pub(crate) differs_at: Option<u64>,
    /// The client's end of data came.
    pub(crate) peer_finished: bool,
    /// How it ended.
    pub(crate) reason: CloseReason,
    /// The most flows that lived at once until then.
    pub(crate) most_flows: usize,
}

/// The running server; its device is free again when this is gone.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<CounterSnapshot>>,
    reports: Receiver<Report>,
}

impl Server {
    /// Serves every flow that comes over `device`.
    pub(crate) fn start(device: impl Device + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (sender, reports) = channel();
        let thread = std::thread::spawn(move || Loop::new(device, sender).run(&stopped));
        Self {
            stop,
            thread: Some(thread),
            reports,
        }
    }

    /// It has not panicked.
    pub(crate) fn lives(&self) -> bool {
        self.thread.as_ref().is_some_and(|it| !it.is_finished())
    }

    /// The next flow that ended, if one ends within `time`.
    pub(crate) fn report(&self, time: Duration) -> Option<Report> {
        self.reports.recv_timeout(time).ok()
    }

    /// Stops it.
    pub(crate) fn finish(mut self) -> CounterSnapshot {
        let result = self.stop().expect("it is stopped once");
        result.expect("the server ends well")
    }

    fn stop(&mut self) -> Option<std::thread::Result<CounterSnapshot>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(Ok(counters)) = self.stop() {
            println!("  a case failed, at {counters:#?}");
        }
    }
}

/// What the callbacks record.
struct Board<D> {
    device: D,
    device_full: bool,
    hearing: HashMap<FlowId, Hearing>,
    most_flows: usize,
    notes: VecDeque<Note>,
    reports: Sender<Report>,
}

enum Note {
    Ordered(FlowId, Order),
    Event(FlowId, Event),
}

/// The receiving side of a flow.
#[derive(Default)]
struct Hearing {
    head: Vec<u8>,
    order: Option<(Order, Pattern)>,
    received: u64,
    differs_at: Option<u64>,
    peer_finished: bool,
}

impl Hearing {
    /// Takes data; the order, when this completes it.
    fn hear(&mut self, mut data: &[u8]) -> Option<Order> {
        let mut ordered = None;
        if self.order.is_none() {
            let (head, rest) = data.split_at(data.len().min(ORDER_BYTES - self.head.len()));
            self.head.extend_from_slice(head);
            data = rest;
            if self.head.len() == ORDER_BYTES {
                let order = Order::read(&self.head);
                self.order = Some((order, order.up_pattern()));
                ordered = Some(order);
            }
        }
        if let Some((_, pattern)) = &mut self.order {
            if let (Err(at), None) = (pattern.check(data), self.differs_at) {
                self.differs_at = Some(self.received + at as u64);
            }
            self.received += data.len() as u64;
        }
        ordered
    }
}

impl<D: Device + 'static> Callbacks for Board<D> {
    fn l3_tx(&mut self, packets: Packets<'_>) -> usize {
        for (taken, (_, bytes)) in packets.iter().enumerate() {
            match self.device.send(bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.device_full = true;
                    return taken;
                }
                Err(error) => panic!("the device refused a packet: {error}"),
            }
        }
        packets.len()
    }

    fn l4_rx(&mut self, flow: FlowId, data: &[u8]) -> usize {
        let hearing = self.hearing.get_mut(&flow).expect("data of a flow");
        if let Some(order) = hearing.hear(data) {
            self.notes.push_back(Note::Ordered(flow, order));
        }
        data.len()
    }

    fn flow_new(&mut self, flow: FlowId, _: &FiveTuple) -> Verdict {
        self.hearing.insert(flow, Hearing::default());
        self.most_flows = self.most_flows.max(self.hearing.len());
        Verdict::ACCEPT
    }

    fn flow_event(&mut self, flow: FlowId, event: Event) {
        match event {
            Event::Established | Event::Writable => {}
            Event::PeerReset => panic!("{flow:?} is reset with data held back: all is taken"),
            Event::PeerFinished => {
                let hearing = self.hearing.get_mut(&flow).expect("the end of a flow");
                hearing.peer_finished = true;
            }
            Event::Closed(reason) => {
                let hearing = self.hearing.remove(&flow).expect("ends once");
                let report = Report {
                    order: hearing.order.map(|(order, _)| order),
                    received: hearing.received,
                    differs_at: hearing.differs_at,
                    peer_finished: hearing.peer_finished,
                    reason,
                    most_flows: self.most_flows,
                };
                // Nobody listens any more when the case has failed.
                let _ = self.reports.send(report);
            }
        }
        self.notes.push_back(Note::Event(flow, event));
    }
}

/// The sending side of a flow.
struct Speaking {
    pattern: Pattern,
    /// Bytes to make.
    left: u64,
    /// Bytes made that the engine did not take.
    piece: Vec<u8>,
    waits_for_peer: bool,
    blocked: bool,
    finished: bool,
}

struct Loop<D: 'static> {
    engine: Engine<Board<D>>,
    clock: Clock,
    deadline: Option<Instant>,
    speaking: HashMap<FlowId, Speaking>,
}

impl<D: Device + 'static> Loop<D> {
    fn new(device: D, reports: Sender<Report>) -> Self {
        let mtu = u32::try_from(device.mtu()).expect("an MTU");
        let board = Board {
            device,
            device_full: false,
            hearing: HashMap::new(),
            most_flows: 0,
            notes: VecDeque::new(),
            reports,
        };
        Self {
            engine: Engine::builder()
                .mtu(mtu)
                .build(board)
                .expect("the engine starts"),
            clock: Clock::start(),
            deadline: None,
            speaking: HashMap::new(),
        }
    }

    fn run(mut self, stop: &AtomicBool) -> CounterSnapshot {
        let mut batch = Batch::new();
        while !stop.load(Ordering::Relaxed) {
            self.read(&mut batch);
            let now = self.clock.now();
            if !batch.is_empty() {
                self.deadline = self.engine.l3_rx(now, &batch).expect("l3-rx");
                self.act(now);
            }
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                self.poll(now);
            }
            let full = std::mem::take(&mut self.engine.callbacks_mut().device_full);
            if batch.is_empty() || full {
                self.sleep(full);
            }
            if full {
                self.poll(self.clock.now());
            }
        }
        self.engine.counters().expect("counters")
    }

    fn read(&mut self, batch: &mut Batch) {
        batch.clear();
        let device = &mut self.engine.callbacks_mut().device;
        let mtu = device.mtu();
        while batch.len() < BATCH_PACKETS {
            match batch.push_with(mtu, |buffer| device.receive(buffer)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the device failed: {error}"),
            }
        }
    }

    fn poll(&mut self, now: Instant) {
        self.deadline = self.engine.l4_poll(now).expect("l4-poll");
        self.act(now);
    }

    fn sleep(&mut self, want_room: bool) {
        let until_deadline = self.deadline.map(|deadline| deadline - self.clock.now());
        let time = until_deadline.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
        let device = &mut self.engine.callbacks_mut().device;
        device.wait(Some(time), want_room).expect("waits");
    }

    /// Acts on what was recorded, until nothing more is.
    fn act(&mut self, now: Instant) {
        while let Some(note) = self.engine.callbacks_mut().notes.pop_front() {
            match note {
                Note::Ordered(flow, order) => {
                    let speaking = Speaking {
                        pattern: order.down_pattern(),
                        left: order.down,
                        piece: Vec::new(),
                        waits_for_peer: order.server_waits,
                        blocked: false,
                        finished: false,
                    };
                    self.speaking.insert(flow, speaking);
                    self.speak(now, flow);
                }
                Note::Event(flow, event) => self.event(now, flow, event),
            }
        }
    }

    fn event(&mut self, now: Instant, flow: FlowId, event: Event) {
        if let Event::Closed(_) = event {
            self.speaking.remove(&flow);
            return;
        }
        if let Some(speaking) = self.speaking.get_mut(&flow) {
            speaking.blocked &= event != Event::Writable;
            speaking.waits_for_peer &= event != Event::PeerFinished;
            self.speak(now, flow);
        }
    }

    /// Sends until all is sent or the engine takes no more; then finishes.
    fn speak(&mut self, now: Instant, flow: FlowId) {
        let Some(speaking) = self.speaking.get_mut(&flow) else {
            return;
        };
        while !speaking.waits_for_peer && !speaking.blocked && !speaking.finished {
            speaking.refill();
            if speaking.piece.is_empty() {
                speaking.finished = true;
                let finished = self.engine.flow_finish(now, flow);
                note(&mut self.deadline, finished);
                return;
            }
            let sent = self.engine.l4_tx(now, flow, &speaking.piece);
            let taken = sent.as_ref().map_or(0, |sent| sent.taken);
            speaking.blocked = taken < speaking.piece.len();
            drop(speaking.piece.drain(..taken));
            note(&mut self.deadline, sent.map(|sent| sent.deadline));
        }
    }
}

impl Speaking {
    fn refill(&mut self) {
        if self.piece.is_empty() {
            let length = usize::try_from(self.left).map_or(PIECE, |left| left.min(PIECE));
            self.piece.resize(length, 0);
            self.pattern.fill(&mut self.piece);
            self.left -= length as u64;
        }
    }
}

/// Keeps a deadline. A flow's call is refused when the flow is ending, which its
/// report tells; any other error ends the server.
fn note(deadline: &mut Option<Instant>, result: Result<Option<Instant>, Error>) {
    match result {
        Ok(next) => *deadline = next,
        Err(Error::Flow(_)) => {}
        Err(error) => panic!("{error}"),
    }
}
