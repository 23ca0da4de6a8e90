//! Exchanges worth recording: an engine with an application that can be told what
//! to answer, and a tape that it is recorded on.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use l3l4_host::record::{Report, replay};
use l3l4_host::{
    Batch, Builder, Callbacks, Component, DataBatch, Engine, Error, Event, FiveTuple, FlowId,
    FlowOptions, Instant, Packets, Protocol, Refusal, Verdict,
};
use l3l4_tests::craft::{Family, Peer, fragments, udp};
use l3l4_tests::wire;

/// Waits for its verdict.
pub(crate) const WAIT: u16 = 4;
/// Is refused.
pub(crate) const REFUSE: u16 = 1;
/// Is dropped.
pub(crate) const DROP: u16 = 3;

/// Where a record goes.
#[derive(Clone, Default)]
pub(crate) struct Tape(Arc<Mutex<Vec<u8>>>);

impl Tape {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An application that takes what it is told to.
pub(crate) struct Application {
    /// Most bytes to take of one `l4_rx`.
    pub(crate) appetite: usize,
    /// Packets that the device has room for.
    pub(crate) room: usize,
    pub(crate) sent: Vec<Vec<u8>>,
    pub(crate) flows: Vec<FlowId>,
    pub(crate) received: Vec<(FlowId, Vec<u8>)>,
}

impl Default for Application {
    fn default() -> Self {
        Self {
            appetite: usize::MAX,
            room: usize::MAX,
            sent: Vec::new(),
            flows: Vec::new(),
            received: Vec::new(),
        }
    }
}

impl Callbacks for Application {
    fn l3_tx(&mut self, packets: Packets<'_>) -> usize {
        let taken = packets.len().min(self.room);
        let bytes = packets.iter().map(|(_, bytes)| bytes.to_vec());
        self.sent.extend(bytes.take(taken));
        taken
    }

    fn l4_rx(&mut self, flow: FlowId, data: &[u8]) -> usize {
        let taken = data.len().min(self.appetite);
        self.received.push((flow, data[..taken].to_vec()));
        taken
    }

    fn flow_new(&mut self, flow: FlowId, tuple: &FiveTuple) -> Verdict {
        match tuple.local.port() {
            REFUSE => return Verdict::Refuse(Refusal::Reset),
            DROP => return Verdict::Drop,
            _ => self.flows.push(flow),
        }
        match tuple.local.port() {
            WAIT => Verdict::Wait,
            _ => Verdict::Accept(FlowOptions {
                nagle: true,
                keep_alive: Some(Duration::from_secs(30)),
                idle_timeout: Some(Duration::from_secs(600)),
                user_timeout: Some(Duration::from_secs(300)),
            }),
        }
    }

    fn flow_event(&mut self, _flow: FlowId, _event: Event) {}
}

/// A recorded engine with a clock that the story turns.
pub(crate) struct Story {
    pub(crate) engine: Engine<Application>,
    pub(crate) tape: Tape,
    now: Instant,
}

impl Story {
    pub(crate) fn new(builder: Builder) -> Self {
        let tape = Tape::default();
        let engine = builder.build_recorded(Application::default(), tape.clone());
        Self {
            engine: engine.unwrap(),
            tape,
            now: Instant(0),
        }
    }

    /// A millisecond later.
    pub(crate) fn later(&mut self) -> Instant {
        self.now = self.now + Duration::from_millis(1);
        self.now
    }

    pub(crate) fn skip(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    pub(crate) fn receive(&mut self, packets: &[Vec<u8>]) -> Result<Option<Instant>, Error> {
        let mut batch = Batch::new();
        packets.iter().for_each(|packet| batch.push(packet));
        let now = self.later();
        self.engine.l3_rx(now, &batch)
    }

    pub(crate) fn one(&mut self, packet: impl Into<Vec<u8>>) {
        self.receive(&[packet.into()]).unwrap();
    }

    pub(crate) fn poll(&mut self) {
        let now = self.later();
        self.engine.l4_poll(now).unwrap();
    }

    pub(crate) fn app(&mut self) -> &mut Application {
        self.engine.callbacks_mut()
    }

    /// Opens a connection from the peer. The flow is the last announced.
    pub(crate) fn connect(&mut self, peer: &mut Peer) -> FlowId {
        self.one(peer.syn().mss(1460));
        let flow = *self.app().flows.last().unwrap();
        if peer.local.port() == WAIT {
            let now = self.later();
            let accept = Verdict::ACCEPT;
            self.engine.flow_verdict(now, flow, accept).unwrap();
        }
        let syn_ack = wire::read(self.app().sent.last().unwrap()).unwrap().tcp();
        peer.hear(&syn_ack);
        self.one(peer.ack());
        flow
    }

    pub(crate) fn send(&mut self, flow: FlowId, data: &[u8]) -> Result<usize, Error> {
        let now = self.later();
        self.engine.l4_tx(now, flow, data).map(|sent| sent.taken)
    }

    /// The record, closed.
    pub(crate) fn record(self) -> Vec<u8> {
        drop(self.engine);
        self.tape.bytes()
    }
}

/// TCP, UDP and ping, both families, with all that an application and a device can
/// answer, refusals, and every call of the contract.
pub(crate) fn everything(story: &mut Story) {
    for family in [Family::V4, Family::V6] {
        connections(story, family);
        datagrams(story, family);
        opens(story, family);
    }
    story.skip(Duration::from_secs(100));
    story.poll();
    let flows = story.engine.flows().unwrap();
    for flow in flows {
        story.engine.flow_info(flow).unwrap();
        let now = story.later();
        story.engine.flow_abort(now, flow).unwrap();
    }
    story.engine.counters().unwrap();
}

fn connections(story: &mut Story, family: Family) {
    // Data in, of which little is taken; the rest after the application asks.
    let mut peer = Peer::new(family);
    let flow = story.connect(&mut peer);
    story.app().appetite = 3;
    story.one(peer.data(b"more than it takes"));
    story.app().appetite = usize::MAX;
    let now = story.later();
    story.engine.flow_resume(now, flow).unwrap();
    // Data out, which the device does not take at first.
    story.app().room = 0;
    story.send(flow, &[7; 4000]).unwrap();
    story.app().room = 1;
    story.poll();
    story.app().room = usize::MAX;
    story.poll();
    // For two at once, of whom one does not exist.
    let mut batch = DataBatch::new();
    batch.push(flow, b"together");
    batch.push(FlowId(u64::MAX), b"nobody's");
    let now = story.later();
    story.engine.l4_tx_batch(now, &batch).unwrap();
    // The end, from the peer's side first.
    let last = wire::read(story.app().sent.last().unwrap()).unwrap().tcp();
    peer.hear(&last);
    story.one(peer.fin());
    let now = story.later();
    story.engine.flow_finish(now, flow).unwrap();
    assert!(story.send(flow, b"after the end").is_err());

    let mut waiting = Peer::new(family).from_port(40_001);
    waiting.local.set_port(WAIT);
    let flow = story.connect(&mut waiting);
    story.one(waiting.data(b"decided late"));
    story.one(waiting.rst());
    assert!(story.send(flow, b"gone").is_err(), "no such flow any more");

    for port in [REFUSE, DROP] {
        let mut peer = Peer::new(family).from_port(40_002);
        peer.local.set_port(port);
        story.one(peer.syn());
    }
    story.one(Peer::new(family).from_port(40_003).ack());
}

fn datagrams(story: &mut Story, family: Family) {
    let (peer, local) = (family.peer(5000), family.local(53));
    story.one(udp(peer, local, b"a question"));
    let flow = *story.app().flows.last().unwrap();
    story.send(flow, b"an answer").unwrap();
    story.send(flow, &[0; 3000]).unwrap();
    story.send(flow, &[0; 66_000]).expect_err("too long");
    for piece in fragments(&udp(peer, local, &[1; 3000]), 1, 1448) {
        story.one(piece);
    }
    let now = story.later();
    let other = family.local(54);
    story
        .engine
        .l4_tx_from(now, flow, other, b"from elsewhere")
        .unwrap();
    story.app().appetite = 2;
    let two = [udp(peer, local, b""), udp(peer, local, b"not taken")];
    story.receive(&two).unwrap();
    story.app().appetite = usize::MAX;
    story.one(vec![0x45; 7]);
}

fn opens(story: &mut Story, family: Family) {
    let tuple = FiveTuple {
        protocol: Protocol::Tcp,
        local: family.local(30_000),
        peer: family.peer(80),
    };
    let options = FlowOptions::default();
    let now = story.later();
    let (flow, _) = story.engine.flow_open(now, &tuple, options).unwrap();
    let twice = story.engine.flow_open(now, &tuple, options);
    assert!(matches!(twice, Err(Error::Open(_))), "{twice:?}");
    let now = story.later();
    story.engine.flow_abort(now, flow).unwrap();
}

/// A record of a few calls, for tests that look at each of its bytes.
pub(crate) fn small() -> Vec<u8> {
    let mut story = Story::new(Engine::builder().seed([5; 32]));
    let mut peer = Peer::new(Family::V4);
    let flow = story.connect(&mut peer);
    story.one(peer.data(b"hello"));
    story.send(flow, b"hello").unwrap();
    story.one(udp(Family::V4.peer(5000), Family::V4.local(53), b"hi"));
    let now = story.later();
    story.engine.flow_abort(now, flow).unwrap();
    story.engine.flows().unwrap();
    story.engine.counters().unwrap();
    story.record()
}

/// The replay of a record on the embedded component.
pub(crate) fn replayed(record: &[u8]) -> Report {
    replay(io::Cursor::new(record.to_vec()), &Component::embedded()).unwrap()
}
