//! Lookup and deadlines do not scan: a packet at 10,000 flows costs at most 1.5
//! times what it costs at 10, and so does a fragment among datagrams whose fragments
//! are missing. Measured on the native engine, which is optimised in
//! every profile; alone in its program, so that no other test runs beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::time::{Duration, Instant as Stopwatch};

use l3l4_engine::{
    Callbacks, Config, Engine, Event, FiveTuple, FlowId, FlowOptions, Instant, Packet, Verdict,
};
use l3l4_tests::craft::{Family, Peer, fragment, fragments, udp};
use l3l4_tests::scene::described;
use l3l4_tests::wire;

const FEW: u16 = 10;
const MANY: u16 = 10_000;
/// Flows that speak while the others are idle: the same number in both fields, so
/// that the processor's caches, which hold the records and buffers of hundreds of
/// flows and not of thousands, are not what is measured. (The benchmark `packet`
/// shows that too.)
const SPEAKING: usize = 10;
const PACKETS: usize = 1000;
const LONGER_THAN_AN_ACK_IS_DELAYED: Duration = Duration::from_millis(41);
const ROUNDS: usize = 20;
const TRIES: usize = 4;
const BOUND: f64 = 1.5;

#[test]
fn a_udp_packet_at_10000_flows_costs_what_it_costs_at_10() {
    compare("UDP", Field::of_datagrams);
}

#[test]
fn a_tcp_packet_at_10000_flows_costs_what_it_costs_at_10() {
    compare("TCP", Field::of_connections);
}

#[test]
fn a_fragment_at_10000_datagrams_costs_what_it_costs_at_10() {
    compare("fragments", Field::of_fragments);
}

fn compare(what: &str, field: impl Fn(u16) -> Field) {
    let (mut few, mut many) = (field(FEW), field(MANY));
    let mut ratios = Vec::new();
    for _ in 0..TRIES {
        let (mut least_few, mut least_many) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            least_few = least_few.min(few.round());
            least_many = least_many.min(many.round());
        }
        let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9 / PACKETS as f64;
        let ratio = nanoseconds(least_many) / nanoseconds(least_few);
        println!(
            "{what}: {:.0} ns a packet at {FEW} flows, {:.0} ns at {MANY}: {ratio:.2}",
            nanoseconds(least_few),
            nanoseconds(least_many),
        );
        if ratio <= BOUND {
            return;
        }
        ratios.push(ratio);
    }
    panic!("{what}: a packet at {MANY} flows costs {ratios:.2?} times one at {FEW}");
}

/// So many flows, and packets for them.
struct Field {
    engine: Engine,
    host: Counting,
    now: Instant,
    speakers: Vec<Speaker>,
    turn: usize,
}

enum Speaker {
    Datagrams(Vec<u8>),
    Connection(Peer),
    /// The pieces of the next datagram that are still to come, and its number.
    Fragments(Vec<Vec<u8>>, u32),
}

impl Field {
    fn new() -> Self {
        let mut config = Config::new([1; 32]);
        config.tcp_receive_buffer = 2048;
        config.tcp_send_buffer = 2048;
        config.max_half_open = 20_000;
        // The silent majority stays.
        config.udp_idle_timeout = Duration::from_secs(7 * 24 * 3600);
        config.tcp_idle_timeout = config.udp_idle_timeout;
        Self {
            engine: Engine::new(config).unwrap(),
            host: Counting::default(),
            now: Instant(1),
            speakers: Vec::new(),
            turn: 0,
        }
    }

    fn of_datagrams(flows: u16) -> Self {
        let mut field = Self::new();
        for i in 0..flows {
            let family = Family::V4;
            let packet = udp(family.peer(1024 + i), family.local(53), &[1; 100]);
            field.receive(&packet);
            field.speakers.push(Speaker::Datagrams(packet));
        }
        field
    }

    fn of_connections(flows: u16) -> Self {
        let mut field = Self::new();
        for i in 0..flows {
            let mut peer = Peer::new(Family::V4).from_port(1024 + i);
            field.receive(&Vec::from(peer.syn().mss(1460)));
            let syn_ack = wire::read(&field.host.last).unwrap().tcp();
            peer.hear(&syn_ack);
            field.receive(&Vec::from(peer.ack()));
            field.speakers.push(Speaker::Connection(peer));
        }
        field
    }

    fn of_fragments(incomplete: u16) -> Self {
        let mut config = Config::new([1; 32]);
        config.reassembly_memory = 64 << 20;
        config.reassembly_timeout = Duration::from_secs(7 * 24 * 3600);
        let mut field = Self::new();
        field.engine = Engine::new(config).unwrap();
        let ends = (Family::V6.peer(0).ip(), Family::V6.local(0).ip());
        for id in 0..incomplete {
            let first = fragment(ends, wire::UDP, id.into(), 0, true, &[1; 64]);
            field.receive(&first);
        }
        let next = u32::from(incomplete);
        field.speakers.push(Speaker::Fragments(Vec::new(), next));
        field
    }

    fn receive(&mut self, packet: &[u8]) {
        self.now.0 += 1000;
        let deadline = self
            .engine
            .l3_rx(self.now, packet, &[described(packet)], &mut self.host);
        if deadline
            .unwrap()
            .is_some_and(|deadline| deadline <= self.now)
        {
            self.engine.l4_poll(self.now, &mut self.host);
        }
    }

    /// The time that one round of packets takes, each with a poll.
    fn round(&mut self) -> Duration {
        let flows = self.speakers.len();
        let packets: Vec<Vec<u8>> = (0..PACKETS)
            .map(|_| {
                self.turn = (self.turn + 1) % SPEAKING;
                match &mut self.speakers[self.turn * flows / SPEAKING] {
                    Speaker::Datagrams(packet) => packet.clone(),
                    Speaker::Connection(peer) => peer.data(&[1; 100]).into(),
                    Speaker::Fragments(pieces, id) => pieces.pop().unwrap_or_else(|| {
                        let family = Family::V6;
                        // Two packets for each 200 bytes.
                        let whole = udp(family.peer(5000), family.local(53), &[1; 200]);
                        *pieces = fragments(&whole, *id, 104);
                        *id += 1;
                        pieces.pop().unwrap()
                    }),
                }
            })
            .collect();
        let before = (self.host.bytes, self.host.packets);
        let acks = match self.speakers[0] {
            Speaker::Datagrams(_) | Speaker::Fragments(..) => 0,
            Speaker::Connection(_) => PACKETS,
        };
        let start = Stopwatch::now();
        for packet in &packets {
            self.receive(packet);
            if acks > 0 {
                // Each packet is acknowledged on its own, however many flows there are.
                self.now = self.now + LONGER_THAN_AN_ACK_IS_DELAYED;
            }
            self.engine.l4_poll(self.now, &mut self.host);
        }
        let time = start.elapsed();
        assert_eq!(
            self.host.bytes - before.0,
            PACKETS * 100,
            "all was delivered"
        );
        assert_eq!(self.host.packets - before.1, acks, "an ACK a packet");
        time
    }
}

#[derive(Default)]
struct Counting {
    bytes: usize,
    packets: usize,
    last: Vec<u8>,
}

impl Callbacks for Counting {
    fn l3_tx(&mut self, bytes: &[u8], packets: &[Packet]) -> usize {
        let length = usize::try_from(packets[packets.len() - 1].length).unwrap();
        self.packets += packets.len();
        self.last.clear();
        self.last.extend_from_slice(&bytes[bytes.len() - length..]);
        packets.len()
    }

    fn l4_rx(&mut self, _flow: FlowId, data: &[u8]) -> usize {
        self.bytes += data.len();
        data.len()
    }

    fn flow_new(&mut self, _flow: FlowId, _tuple: &FiveTuple) -> Verdict {
        Verdict::Accept(FlowOptions::default())
    }

    fn flow_event(&mut self, flow: FlowId, event: Event) {
        assert!(!matches!(event, Event::Closed(_)), "{flow:?} {event:?}");
    }
}
