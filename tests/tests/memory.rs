//! What idle flows cost: at most 1 KiB each, and 100,000 of them fit into a guest
//! of 128 MiB, also after each has carried data. Natively every allocation of the
//! engine is counted; the component is given no more memory than the bound.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use l3l4_engine as engine;
use l3l4_host as guest;
use l3l4_tests::craft::{Family, Peer};
use l3l4_tests::scene::described;
use l3l4_tests::wire::{self, ACK, SYN};

const FLOWS: usize = 100_000;
const BYTES_A_FLOW: usize = 1024;
const GUEST_BYTES: usize = 128 << 20;
/// Handshakes at once; fewer than `max_half_open`.
const WAVE: usize = 1000;
const REQUEST: &[u8] = b"a few bytes of a request";
const IDLE: Duration = Duration::from_secs(30);

#[test]
fn an_idle_flow_costs_at_most_1_kib() {
    let mut crowd = Crowd::new(Native::new());
    let before = allocated();
    crowd.connect();
    crowd.idle();
    crowd.device.check_cost(allocated().now - before.now);
    crowd.check_that_flows_live();
}

#[test]
fn a_flow_that_has_carried_data_costs_at_most_1_kib() {
    let mut crowd = Crowd::new(Native::new());
    let before = allocated();
    crowd.connect();
    crowd.exchange();
    crowd.idle();
    let after = allocated();
    crowd.device.check_cost(after.now - before.now);
    let peak = after.peak - before.now;
    assert!(peak <= GUEST_BYTES, "{peak} bytes at the highest");
    crowd.check_that_flows_live();
}

#[test]
fn flows_that_come_after_others_take_their_memory() {
    let mut crowd = Crowd::new(Native::new());
    crowd.connect();
    crowd.exchange();
    let first = allocated().now;
    crowd.reset();
    let empty = crowd.device.engine.counters();
    assert_eq!(
        (empty.flows, empty.memory_bytes),
        (0, 0),
        "all is given back"
    );

    crowd.connect();
    crowd.exchange();
    let second = allocated().now;
    // The order of slots is another, so pools may be cut otherwise.
    assert!(second <= first + first / 20, "{first} bytes, then {second}");
    crowd.check_that_flows_live();
}

#[test]
fn a_guest_of_128_mib_has_room_for_100000_idle_flows() {
    let mut crowd = Crowd::new(Component::new());
    crowd.connect();
    crowd.exchange();
    crowd.idle();
    let counted = crowd.device.engine.counters().unwrap().memory_bytes;
    let bound = (FLOWS * BYTES_A_FLOW) as u64;
    assert!(counted <= bound, "{counted} bytes counted");
    crowd.check_that_flows_live();
}

/// Peers of one device, each with one connection.
struct Crowd<D> {
    device: D,
    now: u64,
    /// How much each peer has sent.
    sent: u32,
    /// The data of a wave that is to be answered.
    flows: Vec<u64>,
}

/// The engine of either kind.
trait Device {
    fn l3_rx(&mut self, now: u64, packets: &[Vec<u8>]);
    fn l4_tx(&mut self, now: u64, flow: u64, data: &[u8]);
    fn l4_poll(&mut self, now: u64) -> Option<u64>;
    fn host(&mut self) -> &mut Host;
}

impl<D: Device> Crowd<D> {
    fn new(device: D) -> Self {
        Self {
            device,
            now: 1,
            sent: 0,
            flows: Vec::with_capacity(WAVE),
        }
    }

    fn connect(&mut self) {
        self.sent = 0;
        self.device.host().expected.fill(0);
        self.waves(|crowd, wave| {
            crowd.say(wave.clone(), |mut peer| {
                let syn = peer.syn().mss(1460).scale(7).sack_permitted();
                syn.into()
            });
            crowd.say(wave, |peer| peer.ack().into());
        });
        assert_eq!(self.device.host().live(), FLOWS, "all are established");
    }

    /// Each peer sends a request, the application answers with the same, and the
    /// peer acknowledges.
    fn exchange(&mut self) {
        self.waves(|crowd, wave| {
            crowd.say(wave.clone(), |mut peer| peer.data(REQUEST).into());
            std::mem::swap(&mut crowd.flows, &mut crowd.device.host().heard);
            assert_eq!(crowd.flows.len(), wave.len(), "all requests came");
            for flow in crowd.flows.drain(..) {
                crowd.now += 1000;
                crowd.device.l4_tx(crowd.now, flow, REQUEST);
            }
            crowd.say(wave, |mut peer| {
                peer.data(REQUEST);
                peer.ack().into()
            });
        });
        self.sent += u32::try_from(REQUEST.len()).unwrap();
    }

    fn reset(&mut self) {
        self.waves(|crowd, wave| crowd.say(wave, |peer| peer.rst().into()));
        assert_eq!(self.device.host().live(), 0, "all are closed");
    }

    fn waves(&mut self, mut story: impl FnMut(&mut Self, std::ops::Range<usize>)) {
        for first in (0..FLOWS).step_by(WAVE) {
            story(self, first..first + WAVE);
        }
    }

    /// One packet of each peer of the wave, in one batch.
    fn say(&mut self, wave: std::ops::Range<usize>, packet: impl Fn(Peer) -> Vec<u8>) {
        let packets: Vec<_> = wave.map(|i| packet(self.peer(i))).collect();
        self.now += 1000;
        self.device.l3_rx(self.now, &packets);
    }

    /// Peer number `i`, as its connection stands.
    fn peer(&mut self, i: usize) -> Peer {
        let mut peer = Peer::new(Family::V4);
        peer.peer = address(i);
        let expected = self.device.host().expected[i];
        if expected != 0 {
            peer.next = peer.next.wrapping_add(1 + self.sent);
            peer.expected = expected;
        }
        peer
    }

    /// Nothing happens but what the engine asks for.
    fn idle(&mut self) {
        let end = self.now + u64::try_from(IDLE.as_nanos()).unwrap();
        let mut deadline = self.device.l4_poll(self.now);
        while let Some(at) = deadline.filter(|at| *at < end) {
            self.now = self.now.max(at);
            deadline = self.device.l4_poll(self.now);
        }
        self.now = end;
        self.device.l4_poll(self.now);
    }

    fn check_that_flows_live(&mut self) {
        let before = self.device.host().data_packets;
        self.exchange();
        assert_eq!(self.device.host().data_packets - before, FLOWS);
        assert_eq!(self.device.host().live(), FLOWS);
    }
}

/// 50,000 ports of an address.
fn address(i: usize) -> SocketAddr {
    let host = u8::try_from(1 + i / 50_000).unwrap();
    let port = u16::try_from(10_000 + i % 50_000).unwrap();
    SocketAddr::new(Ipv4Addr::new(198, 51, 100, host).into(), port)
}

fn number(address: SocketAddr) -> usize {
    let SocketAddr::V4(address) = address else {
        panic!("{address} is no peer of these");
    };
    let [.., host] = address.ip().octets();
    usize::from(host - 1) * 50_000 + usize::from(address.port()) - 10_000
}

/// Accepts and takes all. What it keeps is allocated once.
struct Host {
    /// What each peer expects next.
    expected: Vec<u32>,
    /// Flows that data came for, one wave of them.
    heard: Vec<u64>,
    data_packets: usize,
    established: usize,
    closed: usize,
}

impl Host {
    fn new() -> Self {
        Self {
            expected: vec![0; FLOWS],
            heard: Vec::with_capacity(WAVE),
            data_packets: 0,
            established: 0,
            closed: 0,
        }
    }

    fn live(&self) -> usize {
        self.established - self.closed
    }

    fn packet(&mut self, packet: &[u8]) {
        let segment = wire::read(packet).unwrap().tcp();
        assert_ne!(segment.flags & ACK, 0, "no RST: {segment}");
        let expected = &mut self.expected[number(segment.to)];
        if segment.flags & SYN != 0 || segment.seq == *expected {
            *expected = segment.end();
        }
        self.data_packets += usize::from(!segment.payload.is_empty());
    }

    fn data(&mut self, flow: u64, data: &[u8]) -> usize {
        assert_eq!(data, REQUEST);
        self.heard.push(flow);
        data.len()
    }
}

struct Native {
    engine: engine::Engine,
    host: Host,
}

impl Native {
    fn new() -> Self {
        let mut config = engine::Config::new([1; 32]);
        config.max_flows = 1 << 20;
        config.memory_limit = GUEST_BYTES as u64;
        Self {
            engine: engine::Engine::new(config).unwrap(),
            host: Host::new(),
        }
    }

    /// What flows cost by the allocator's count and by the engine's own.
    fn check_cost(&self, allocated: usize) {
        let counters = self.engine.counters();
        let counted = usize::try_from(counters.memory_bytes).unwrap();
        println!(
            "a flow: {} bytes allocated, {} counted",
            allocated / FLOWS,
            counted / FLOWS
        );
        assert!(allocated <= FLOWS * BYTES_A_FLOW, "{allocated} bytes");
        assert!(counted <= FLOWS * BYTES_A_FLOW, "{counted} bytes counted");
        // Else `memory_limit` would not hold.
        assert!(allocated <= counted, "{allocated} bytes, {counted} counted");
    }
}

impl Device for Native {
    fn l3_rx(&mut self, now: u64, packets: &[Vec<u8>]) {
        let described: Vec<_> = packets.iter().map(|packet| described(packet)).collect();
        let (now, bytes) = (engine::Instant(now), packets.concat());
        let result = self.engine.l3_rx(now, &bytes, &described, &mut self.host);
        result.unwrap();
    }

    fn l4_tx(&mut self, now: u64, flow: u64, data: &[u8]) {
        let (now, flow) = (engine::Instant(now), engine::FlowId(flow));
        let sent = self.engine.l4_tx(now, flow, data, &mut self.host).unwrap();
        assert_eq!(sent.taken, data.len());
    }

    fn l4_poll(&mut self, now: u64) -> Option<u64> {
        let deadline = self.engine.l4_poll(engine::Instant(now), &mut self.host);
        deadline.map(|at| at.0)
    }

    fn host(&mut self) -> &mut Host {
        &mut self.host
    }
}

impl engine::Callbacks for Host {
    fn l3_tx(&mut self, mut bytes: &[u8], packets: &[engine::Packet]) -> usize {
        for packet in packets {
            let (packet, rest) = bytes.split_at(packet.length as usize);
            self.packet(packet);
            bytes = rest;
        }
        packets.len()
    }

    fn l4_rx(&mut self, flow: engine::FlowId, data: &[u8]) -> usize {
        self.data(flow.0, data)
    }

    fn flow_new(&mut self, _flow: engine::FlowId, _tuple: &engine::FiveTuple) -> engine::Verdict {
        engine::Verdict::Accept(engine::FlowOptions::default())
    }

    fn flow_event(&mut self, _flow: engine::FlowId, event: engine::Event) {
        self.established += usize::from(event == engine::Event::Established);
        self.closed += usize::from(matches!(event, engine::Event::Closed(_)));
    }
}

struct Component {
    engine: guest::Engine<Host>,
    batch: guest::Batch,
}

impl Component {
    fn new() -> Self {
        let engine = guest::Engine::builder()
            .seed([1; 32])
            .max_flows(1 << 20)
            .memory_limit(GUEST_BYTES as u64)
            .guest_memory_limit(GUEST_BYTES)
            .build(Host::new())
            .unwrap();
        Self {
            engine,
            batch: guest::Batch::new(),
        }
    }
}

impl Device for Component {
    fn l3_rx(&mut self, now: u64, packets: &[Vec<u8>]) {
        self.batch.clear();
        for packet in packets {
            self.batch.push(packet);
        }
        self.engine.l3_rx(guest::Instant(now), &self.batch).unwrap();
    }

    fn l4_tx(&mut self, now: u64, flow: u64, data: &[u8]) {
        let (now, flow) = (guest::Instant(now), guest::FlowId(flow));
        let sent = self.engine.l4_tx(now, flow, data).unwrap();
        assert_eq!(sent.taken, data.len());
    }

    fn l4_poll(&mut self, now: u64) -> Option<u64> {
        let deadline = self.engine.l4_poll(guest::Instant(now)).unwrap();
        deadline.map(|at| at.0)
    }

    fn host(&mut self) -> &mut Host {
        self.engine.callbacks_mut()
    }
}

impl guest::Callbacks for Host {
    fn l3_tx(&mut self, packets: guest::Packets<'_>) -> usize {
        for (_, packet) in packets.iter() {
            self.packet(packet);
        }
        packets.len()
    }

    fn l4_rx(&mut self, flow: guest::FlowId, data: &[u8]) -> usize {
        self.data(flow.0, data)
    }

    fn flow_new(&mut self, _flow: guest::FlowId, _tuple: &guest::FiveTuple) -> guest::Verdict {
        guest::Verdict::ACCEPT
    }

    fn flow_event(&mut self, _flow: guest::FlowId, event: guest::Event) {
        self.established += usize::from(event == guest::Event::Established);
        self.closed += usize::from(matches!(event, guest::Event::Closed(_)));
    }
}

/// The system's allocator, which counts what each thread has: a test is a thread.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that a thread has, and had at most.
#[derive(Clone, Copy)]
struct Allocated {
    now: usize,
    peak: usize,
}

thread_local! {
    static ALLOCATED: Cell<Allocated> = const { Cell::new(Allocated { now: 0, peak: 0 }) };
}

fn allocated() -> Allocated {
    ALLOCATED.get()
}

/// What another thread allocated may be given back here: the count wraps then, and
/// comes right with the differences that the tests take.
fn count(change: impl FnOnce(usize) -> usize) {
    // A thread that ends gives back when its count is gone.
    let _ = ALLOCATED.try_with(|allocated| {
        let Allocated { now, peak } = allocated.get();
        let now = change(now);
        let peak = if now > usize::MAX / 2 {
            peak
        } else {
            peak.max(now)
        };
        allocated.set(Allocated { now, peak });
    });
}

// SAFETY: every call goes to the system's allocator as it came; counting neither
// allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|now| now.wrapping_add(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(|now| now.wrapping_add(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(|now| now.wrapping_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(|now| now.wrapping_sub(layout.size()).wrapping_add(size));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
