//! Nanoseconds a packet: the engine, native and as a component, beside a yardstick
//! made of smoltcp's sockets ([`baseline`]), in memory.
//!
//! ```sh
//! cargo bench -p l3l4-tests --bench packet                       # all rows
//! cargo bench -p l3l4-tests --bench packet -- tcp 1500 in 1      # those with these words
//! ```
//!
//! The contestants of a row take turns, many rounds; the medians of their times and
//! of the rounds' ratios count: other work on the machine hits all alike. Packets are
//! made right before a round, so that caches hold them as after a device's read. A
//! packet carries 1,400 bytes at MTU 1500 and 65,495 at MTU 65535. TCP includes the
//! ACKs: ours when receiving, the peer's when sending (one for two segments in a
//! batch). With 10,000 flows each packet goes to another flow, and what the caches do
//! not hold of the flows is part of the cost. One flow's batch is one call either way,
//! and no more than the window that the peer was offered, or the send buffer, holds;
//! data for many flows is one `l4_tx_batch` where that pays (at MTU 1500; the yardstick
//! has no such call), and their ACKs come in one batch.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench fails by panicking"
)]

mod baseline;
mod case;
mod machine;
mod report;

use std::fmt;

use self::case::Case;
use self::machine::{Buffers, Machine, Settings};
use self::report::Row;

const ROUNDS: usize = 151;
const MANY: u16 = 10_000;

fn main() {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let chosen: Vec<Load> = loads()
        .into_iter()
        .filter(|load| words.iter().all(|word| load.has(word)))
        .collect();
    if chosen.is_empty() {
        eprintln!("no row has all of the words {words:?}; the rows:");
        for load in loads() {
            eprintln!("  {load}");
        }
        std::process::exit(2);
    }
    report::head();
    let mut rows = Vec::new();
    for load in chosen {
        for row in measure(load) {
            row.print();
            rows.push(row);
        }
    }
    report::bars(&rows);
}

/// What the contestants have to carry, in batches of several sizes.
#[derive(Clone, Copy, Debug)]
struct Load {
    transport: Transport,
    mtu: u16,
    direction: Direction,
    flows: u16,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Transport {
    Udp,
    Tcp,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    In,
    Out,
}

fn loads() -> Vec<Load> {
    let mut loads = Vec::new();
    for (transport, mtu) in [
        (Transport::Tcp, 1500),
        (Transport::Tcp, 65_535),
        (Transport::Udp, 1500),
    ] {
        for direction in [Direction::In, Direction::Out] {
            loads.extend([1, MANY].map(|flows| Load {
                transport,
                mtu,
                direction,
                flows,
            }));
        }
    }
    loads
}

impl Load {
    /// Bytes of data in a packet. At the large MTU the packet is full; at the small
    /// one it is what is left of 1,500 by the headers and options of any protocol.
    fn payload(&self) -> usize {
        if self.mtu == 1500 { 1400 } else { 65_495 }
    }

    /// A datagram out is a call of its own.
    fn batches(&self) -> &'static [usize] {
        match (self.transport, self.direction) {
            (Transport::Udp, Direction::Out) => &[1],
            (Transport::Udp, Direction::In) | (Transport::Tcp, _) => &[1, 32],
        }
    }

    /// So few that the processor's caches hold them.
    fn packets_a_round(&self, batch: usize) -> usize {
        if self.mtu == 1500 { 64 } else { batch.max(8) }
    }

    /// Buffers for a batch of one flow, within these bounds; for many flows just
    /// large enough for what each has to carry, so that they fit.
    fn settings(&self, most: Buffers) -> Settings {
        let batch = if self.flows == 1 { 32 } else { 1 };
        // A scaled window is rounded down: leave it room.
        let receive = (batch * self.payload() + 4096).min(most.receive);
        let send = (batch * self.payload()).min(most.send);
        let (receive, send) = match self.direction {
            Direction::In => (receive, 4096),
            Direction::Out => (4096, send.max(4096)),
        };
        Settings {
            mtu: self.mtu,
            buffers: Buffers { receive, send },
        }
    }

    fn has(&self, word: &str) -> bool {
        self.to_string().split(' ').any(|own| own == word)
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        let direction = match self.direction {
            Direction::In => "in",
            Direction::Out => "out",
        };
        write!(f, "{transport} {} {direction} {}", self.mtu, self.flows)
    }
}

/// A row for each size of batch.
fn measure(load: Load) -> Vec<Row> {
    let case = |machine: fn(Settings) -> Box<dyn Machine>, most| {
        Case::new(machine(load.settings(most)), load)
    };
    let mut baseline = match load.transport {
        Transport::Tcp => Some(case(machine::baseline, Buffers::OF_BASELINE)),
        Transport::Udp => None,
    };
    let mut native = case(machine::native, Buffers::OF_ENGINE);
    let mut component = case(machine::component, Buffers::OF_ENGINE);

    let batches = load.batches();
    let mut at_once = vec![Vec::new(); batches.len()];
    let mut times = vec![[const { Vec::new() }; 3]; batches.len()];
    for _ in 0..ROUNDS {
        for (i, batch) in batches.iter().enumerate() {
            let [of_baseline, of_native, of_component] = &mut times[i];
            of_baseline.extend(baseline.as_mut().map(|case| case.round(*batch)));
            of_native.push(native.round(*batch));
            of_component.push(component.round(*batch));
            let cases = baseline.iter().chain([&native, &component]);
            at_once[i] = cases.map(Case::at_once).collect();
        }
    }

    let one_by_one = times[0][0].clone();
    let rows = batches.iter().zip(at_once).zip(times);
    rows.map(|((batch, at_once), [baseline, native, component])| Row {
        load,
        batch: *batch,
        at_once,
        native_gain: ratio(&baseline, &native),
        component_gain: ratio(&one_by_one, &component),
        border: ratio(&component, &native),
        nanoseconds: [baseline, native, component].map(|times| median(times.into_iter())),
    })
    .collect()
}

/// The median of the rounds' ratios: what disturbs a round disturbs both sides.
fn ratio(over: &[f64], under: &[f64]) -> Option<f64> {
    let rounds = over.iter().zip(under);
    median(rounds.map(|(over, under)| over / under))
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
