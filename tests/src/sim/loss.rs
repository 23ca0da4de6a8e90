//! How fast one flow is on a lossy path: 100 ms there and back, buffers of 32 KiB,
//! losses independent and in both directions.

use std::fmt::Write as _;
use std::time::Duration;

use super::plan::{After, Ends, Faults, Mode, PATIENCE, Plan, START};
use super::run::{Device, run};
use crate::craft::Family;
use crate::link::{Impairments, Loss};

/// The rates of the table, in percent.
const PERCENT: [u32; 7] = [0, 1, 2, 5, 10, 20, 30];

/// How many seeds are put together in one figure.
const SEEDS: u64 = 8;

/// What one flow carries.
const BYTES: usize = 1 << 20;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(1200);

/// Who sends to whom.
#[derive(Clone, Copy, Debug)]
enum Pair {
    EngineToSmoltcp,
    SmoltcpToEngine,
    SmoltcpToSmoltcp,
    /// As smoltcp's own table of 322,945, 219,671, 166,587, 76,626, 37,775, 6,079 and
    /// 1,156: `tests/netsim.rs` of 0.14.0 is run with the default features (`ci.sh`),
    /// among which is no congestion control. It sends 10 MiB, once.
    Uncontrolled,
}

/// The table.
#[must_use]
pub fn table() -> String {
    let mut text = format!(
        "Bytes a second of one flow of {BYTES} bytes over a path of 100 ms, buffers of 32 KiB,\n\
         {SEEDS} seeds; in brackets those that did not get all across in {} s.\n\n\
         {:>6} {:>16} {:>16} {:>18} {:>18}\n\
         {:>6} {:>16} {:>16} {:>18} {:>18}\n",
        LIMIT.as_secs(),
        "loss",
        "engine sends",
        "engine receives",
        "smoltcp-smoltcp",
        "smoltcp-smoltcp",
        "",
        "Reno",
        "Reno",
        "Reno",
        "uncontrolled"
    );
    for percent in PERCENT {
        let cells = [
            Pair::EngineToSmoltcp,
            Pair::SmoltcpToEngine,
            Pair::SmoltcpToSmoltcp,
            Pair::Uncontrolled,
        ]
        .map(|pair| cell(pair, percent));
        let [sends, receives, baseline, uncontrolled] = cells;
        let _ = writeln!(
            text,
            "{percent:>4} % {sends:>16} {receives:>16} {baseline:>18} {uncontrolled:>18}"
        );
    }
    text
}

/// All bytes of all seeds by all their time.
fn cell(pair: Pair, percent: u32) -> String {
    let (mut bytes, mut time, mut unfinished) = (0, Duration::ZERO, 0);
    for seed in 1..=SEEDS {
        let plan = plan(pair, percent, seed);
        let receiver = usize::from(plan.bytes[0] > 0);
        let report = run(&plan, Device::Native, false);
        let got = report.ends[receiver];
        bytes += got.delivered;
        if got.delivered == BYTES {
            time += got.last_after;
        } else {
            time += LIMIT;
            unfinished += 1;
        }
    }
    let rate = bytes as u128 * 1000 / time.as_millis();
    match unfinished {
        0 => rate.to_string(),
        some => format!("{rate} ({some})"),
    }
}

fn plan(pair: Pair, percent: u32, seed: u64) -> Plan {
    let mut link = Impairments::none(Duration::from_millis(50));
    link.loss = Loss::Independent(percent * 10);
    let (ends, bytes) = match pair {
        Pair::EngineToSmoltcp => (Ends::EngineSmoltcp, [BYTES, 0]),
        Pair::SmoltcpToEngine => (Ends::EngineSmoltcp, [0, BYTES]),
        Pair::SmoltcpToSmoltcp | Pair::Uncontrolled => (Ends::SmoltcpSmoltcp, [BYTES, 0]),
    };
    Plan {
        ends,
        mode: Mode::Loss,
        seed,
        family: Family::V4,
        second_opens: false,
        bytes,
        buffer: 32 << 10,
        give_up: LIMIT,
        uncontrolled: matches!(pair, Pair::Uncontrolled),
        links: [link.clone(), link],
        faults: [Faults::default(), Faults::default()],
        datagrams: 0,
        calm: START + (LIMIT - PATIENCE),
        after: After::Behaves,
    }
}
