//! What recording costs: nanoseconds per packet with and without, bytes of record
//! per packet, and the replay's speed:
//! `cargo bench -p l3l4-tests --bench record`.
//!
//! All engines echo the same TCP connection in turn, many rounds, and the least
//! time of each counts. Every packet carries 1,400 bytes in; the echo and the
//! peer's acknowledgements are part of the cost. One record goes nowhere, the other to
//! a file in the directory for temporary files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench fails by panicking"
)]

use std::fs::File;
use std::io::BufReader;
use std::time::{Duration, Instant as Stopwatch};

use l3l4_host::record::{Reader, Replay};
use l3l4_host::{
    Batch, Callbacks, Component, Engine, Event, FiveTuple, FlowId, Instant, Packets, Verdict,
};
use l3l4_tests::craft::{Family, Peer};
use l3l4_tests::wire;

const PACKETS: u32 = 640;
const ROUNDS: u32 = 60;

fn main() {
    println!(
        "{:>6} {:>9} {:>11} {:>7} {:>11} {:>7} {:>15} {:>10} {:>7}",
        "batch",
        "plain ns",
        "nowhere ns",
        "ratio",
        "to file ns",
        "ratio",
        "bytes a packet",
        "replay ns",
        "ratio"
    );
    for batch in [1, 8, 32] {
        compare(batch);
    }
}

fn compare(batch: u32) {
    let path = std::env::temp_dir().join(format!("l3l4-bench-{}.l3l4", std::process::id()));
    let builder = || Engine::builder().seed([1; 32]);
    let plain = builder().build(Host::default()).unwrap();
    let recorded = builder()
        .build_recorded(Host::default(), File::create(&path).unwrap())
        .unwrap();
    let nowhere = builder().build_recorded(Host::default(), std::io::sink());
    let (mut plain, mut recorded) = (Case::new(plain), Case::new(recorded));
    let mut nowhere = Case::new(nowhere.unwrap());
    let before = std::fs::metadata(&path).unwrap().len();
    for _ in 0..ROUNDS {
        plain.round(batch);
        nowhere.round(batch);
        recorded.round(batch);
    }
    assert!(recorded.engine.record_failure().is_none());
    drop(recorded.engine);
    let bytes = std::fs::metadata(&path).unwrap().len() - before;

    let replay = replay(&path);
    std::fs::remove_file(&path).unwrap();
    let all = f64::from(PACKETS) * f64::from(ROUNDS);
    let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(PACKETS);
    let (plain, recorded) = (each(plain.least), each(recorded.least));
    let nowhere = each(nowhere.least);
    let replay = replay.as_secs_f64() * 1e9 / all;
    println!(
        "{batch:>6} {plain:>9.0} {nowhere:>11.0} {:>7.2} {recorded:>11.0} {:>7.2} {:>15.0} \
         {replay:>10.0} {:>7.2}",
        nowhere / plain,
        recorded / plain,
        bytes as f64 / all,
        replay / plain,
    );
}

/// The time of a whole replay, without the compilation.
fn replay(path: &std::path::Path) -> Duration {
    let component = Component::embedded();
    let reader = || Reader::new(BufReader::new(File::open(path).unwrap())).unwrap();
    let mut warm = Replay::new(reader(), &component);
    warm.step().unwrap();
    let start = Stopwatch::now();
    let mut replay = Replay::new(reader(), &component);
    while replay.step().unwrap() {}
    let time = start.elapsed();
    let report = replay.into_report();
    assert!(report.is_identical(), "{report:#?}");
    time
}

/// What the callbacks keep, as little as can be.
#[derive(Default)]
struct Host {
    flow: Option<FlowId>,
    received: Vec<u8>,
    last: Vec<u8>,
}

impl Callbacks for Host {
    fn l3_tx(&mut self, packets: Packets<'_>) -> usize {
        if let Some((_, last)) = packets.iter().last() {
            self.last.clear();
            self.last.extend_from_slice(last);
        }
        packets.len()
    }

    fn l4_rx(&mut self, _flow: FlowId, data: &[u8]) -> usize {
        self.received.extend_from_slice(data);
        data.len()
    }

    fn flow_new(&mut self, flow: FlowId, _tuple: &FiveTuple) -> Verdict {
        self.flow = Some(flow);
        Verdict::ACCEPT
    }

    fn flow_event(&mut self, _flow: FlowId, _event: Event) {}
}

struct Case {
    engine: Engine<Host>,
    flow: FlowId,
    peer: Peer,
    batch: Batch,
    now: Instant,
    least: Duration,
}

impl Case {
    fn new(mut engine: Engine<Host>) -> Self {
        let mut peer = Peer::new(Family::V4);
        let now = Instant(1);
        let mut batch = Batch::new();
        batch.push(&Vec::from(peer.syn().mss(1460)));
        engine.l3_rx(now, &batch).unwrap();
        peer.hear(&wire::read(&engine.callbacks().last).unwrap().tcp());
        batch.clear();
        batch.push(&Vec::from(peer.ack()));
        engine.l3_rx(now, &batch).unwrap();
        Self {
            flow: engine.callbacks().flow.unwrap(),
            engine,
            peer,
            batch,
            now,
            least: Duration::MAX,
        }
    }

    fn round(&mut self, packets: u32) {
        let mut time = Duration::ZERO;
        for _ in 0..PACKETS / packets {
            time += self.echo(packets);
        }
        self.least = self.least.min(time);
    }

    /// One batch in, its data out again, and the peer's acknowledgement.
    fn echo(&mut self, packets: u32) -> Duration {
        self.batch.clear();
        for _ in 0..packets {
            self.batch.push(&Vec::from(self.peer.data(&[0x5a; 1400])));
        }
        let start = Stopwatch::now();
        self.receive();
        let data = std::mem::take(&mut self.engine.callbacks_mut().received);
        let sent = self.engine.l4_tx(self.now, self.flow, &data).unwrap();
        let mut time = start.elapsed();

        assert_eq!(sent.taken, data.len());
        assert_eq!(data.len(), 1400 * packets as usize);
        self.peer.expected = self.peer.expected.wrapping_add(1400 * packets);
        self.batch.clear();
        self.batch.push(&Vec::from(self.peer.ack()));
        let host = self.engine.callbacks_mut();
        host.received = data;
        host.received.clear();
        let start = Stopwatch::now();
        self.receive();
        time += start.elapsed();
        time
    }

    fn receive(&mut self) {
        self.now.0 += 1000;
        self.engine.l3_rx(self.now, &self.batch).unwrap();
    }
}
