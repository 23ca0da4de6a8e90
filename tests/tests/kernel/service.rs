//! The engine's side: a service for each port, in a thread of its own.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use l3l4_host::device::Device;
use l3l4_host::tun::Tun;
use l3l4_host::{
    Batch, Callbacks, Clock, CounterSnapshot, Engine, Event, FiveTuple, FlowId, FlowOptions,
    Instant, Packets, Protocol, Refusal, Verdict,
};

/// Refuses with RST.
pub(crate) const REFUSE: u16 = 1;
/// Refuses with ICMP host unreachable.
pub(crate) const UNREACHABLE: u16 = 2;
/// Says nothing.
pub(crate) const DROP: u16 = 3;
/// Accepts after [`LATE`].
pub(crate) const WAIT: u16 = 4;
/// Resets when data comes.
pub(crate) const ABORT: u16 = 5;
/// Connects to the address that it is sent, and greets there.
pub(crate) const CALL_BACK: u16 = 6;
/// Echoes; so does every other port.
pub(crate) const ECHO: u16 = 7;
/// Answers each datagram from another port.
pub(crate) const OTHER_SOURCE: u16 = 8;

/// How late [`WAIT`] accepts.
pub(crate) const LATE: Duration = Duration::from_millis(300);
/// What [`CALL_BACK`] says.
pub(crate) const GREETING: &[u8] = b"a call from inside";

const MTU: usize = 1500;

/// The running service.
pub(crate) struct Service {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<CounterSnapshot>,
}

impl Service {
    pub(crate) fn start(tun: Tun) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || Loop::new(tun).run(&stopped));
        Self { stop, thread }
    }

    pub(crate) fn finish(self) -> CounterSnapshot {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the service ends well")
    }
}

/// What the callbacks record.
struct Board {
    tun: Tun,
    tun_full: bool,
    notes: Vec<Note>,
}

enum Note {
    New(FlowId, FiveTuple),
    Data(FlowId, Vec<u8>),
    Event(FlowId, Event),
}

impl Callbacks for Board {
    fn l3_tx(&mut self, packets: Packets<'_>) -> usize {
        for (taken, (_, bytes)) in packets.iter().enumerate() {
            match self.tun.send(bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.tun_full = true;
                    return taken;
                }
                Err(error) => panic!("the device refused a packet: {error}"),
            }
        }
        packets.len()
    }

    fn l4_rx(&mut self, flow: FlowId, data: &[u8]) -> usize {
        self.notes.push(Note::Data(flow, data.to_vec()));
        data.len()
    }

    fn flow_new(&mut self, flow: FlowId, tuple: &FiveTuple) -> Verdict {
        let verdict = match tuple.local.port() {
            REFUSE => return Verdict::Refuse(Refusal::Reset),
            UNREACHABLE => return Verdict::Refuse(Refusal::HostUnreachable),
            DROP => return Verdict::Drop,
            WAIT => Verdict::Wait,
            _ => Verdict::ACCEPT,
        };
        self.notes.push(Note::New(flow, *tuple));
        verdict
    }

    fn flow_event(&mut self, flow: FlowId, event: Event) {
        self.notes.push(Note::Event(flow, event));
    }
}

struct Flow {
    tuple: FiveTuple,
    outgoing: Vec<u8>,
    finish: bool,
}

struct Loop {
    engine: Engine<Board>,
    clock: Clock,
    deadline: Option<Instant>,
    flows: HashMap<FlowId, Flow>,
    /// Flows to accept, and when.
    late: Vec<(Instant, FlowId)>,
}

impl Loop {
    fn new(tun: Tun) -> Self {
        let board = Board {
            tun,
            tun_full: false,
            notes: Vec::new(),
        };
        Self {
            engine: Engine::builder().build(board).expect("the engine starts"),
            clock: Clock::start(),
            deadline: None,
            flows: HashMap::new(),
            late: Vec::new(),
        }
    }

    fn run(mut self, stop: &AtomicBool) -> CounterSnapshot {
        let mut batch = Batch::new();
        while !stop.load(Ordering::Relaxed) {
            self.read(&mut batch);
            let now = self.clock.now();
            if !batch.is_empty() {
                self.deadline = self.engine.l3_rx(now, &batch).expect("l3-rx");
            }
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                self.deadline = self.engine.l4_poll(now).expect("l4-poll");
            }
            self.accept_late(now);
            self.act(now);
            let board = self.engine.callbacks_mut();
            let full = std::mem::take(&mut board.tun_full);
            if batch.is_empty() || full {
                board
                    .tun
                    .wait(Some(Duration::from_millis(5)), full)
                    .expect("waits");
            }
            if full {
                self.deadline = self.engine.l4_poll(self.clock.now()).expect("l4-poll");
            }
        }
        self.engine.counters().expect("counters")
    }

    fn read(&mut self, batch: &mut Batch) {
        batch.clear();
        let tun = &mut self.engine.callbacks_mut().tun;
        while batch.len() < 32 {
            match batch.push_with(MTU, |buffer| tun.receive(buffer)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the device failed: {error}"),
            }
        }
    }

    fn accept_late(&mut self, now: Instant) {
        let (due, late) = self.late.drain(..).partition(|(at, _)| *at <= now);
        self.late = late;
        let due: Vec<(Instant, FlowId)> = due;
        for (_, flow) in due {
            let verdict = Verdict::Accept(FlowOptions::default());
            self.deadline = self
                .engine
                .flow_verdict(now, flow, verdict)
                .expect("still waiting");
        }
    }

    /// Acts on what was recorded, until nothing more is.
    fn act(&mut self, now: Instant) {
        loop {
            let notes = std::mem::take(&mut self.engine.callbacks_mut().notes);
            if notes.is_empty() {
                return;
            }
            for note in notes {
                match note {
                    Note::New(flow, tuple) => self.begin(now, flow, tuple),
                    Note::Data(flow, data) => self.data(now, flow, &data),
                    Note::Event(flow, event) => self.event(now, flow, event),
                }
            }
        }
    }

    fn begin(&mut self, now: Instant, flow: FlowId, tuple: FiveTuple) {
        if tuple.local.port() == WAIT {
            self.late.push((now + LATE, flow));
        }
        let outgoing = Vec::new();
        self.flows.insert(
            flow,
            Flow {
                tuple,
                outgoing,
                finish: false,
            },
        );
    }

    fn data(&mut self, now: Instant, flow: FlowId, data: &[u8]) {
        let Some(talk) = self.flows.get_mut(&flow) else {
            return;
        };
        let tuple = talk.tuple;
        match (tuple.protocol, tuple.local.port()) {
            (Protocol::Tcp, ABORT) => drop(self.engine.flow_abort(now, flow)),
            (Protocol::Tcp, CALL_BACK) => self.call(now, tuple.local, data),
            (Protocol::Udp, OTHER_SOURCE) => {
                let source = SocketAddr::new(tuple.local.ip(), 5353);
                self.engine
                    .l4_tx_from(now, flow, source, data)
                    .expect("l4-tx-from");
            }
            (Protocol::Udp, _) => drop(self.engine.l4_tx(now, flow, data)),
            (Protocol::Tcp | Protocol::IcmpEcho, _) => {
                talk.outgoing.extend_from_slice(data);
                self.send(now, flow);
            }
        }
    }

    fn call(&mut self, now: Instant, local: SocketAddr, whom: &[u8]) {
        let peer = std::str::from_utf8(whom)
            .unwrap()
            .parse()
            .expect("an address");
        let tuple = FiveTuple {
            protocol: Protocol::Tcp,
            local: SocketAddr::new(local.ip(), 777),
            peer,
        };
        let (flow, _) = self
            .engine
            .flow_open(now, &tuple, FlowOptions::default())
            .expect("opens");
        let outgoing = GREETING.to_vec();
        self.flows.insert(
            flow,
            Flow {
                tuple,
                outgoing,
                finish: true,
            },
        );
        self.send(now, flow);
    }

    fn event(&mut self, now: Instant, flow: FlowId, event: Event) {
        match event {
            Event::Established | Event::Writable => self.send(now, flow),
            Event::PeerFinished => {
                if let Some(talk) = self.flows.get_mut(&flow) {
                    talk.finish = true;
                }
                self.send(now, flow);
            }
            Event::PeerReset => {}
            Event::Closed(_) => drop(self.flows.remove(&flow)),
        }
    }

    fn send(&mut self, now: Instant, flow: FlowId) {
        let Some(talk) = self.flows.get_mut(&flow) else {
            return;
        };
        if !talk.outgoing.is_empty() {
            let Ok(sent) = self.engine.l4_tx(now, flow, &talk.outgoing) else {
                return;
            };
            drop(talk.outgoing.drain(..sent.taken));
            self.deadline = sent.deadline;
        }
        if talk.outgoing.is_empty() && talk.finish {
            talk.finish = false;
            if let Ok(deadline) = self.engine.flow_finish(now, flow) {
                self.deadline = deadline;
            }
        }
    }
}
