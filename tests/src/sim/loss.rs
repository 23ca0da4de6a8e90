//! How fast one flow is on a lossy path: 100 ms there and back, buffers of 32 KiB,
//! losses independent and in both directions.

use std::fmt::Write as _;
use std::time::Duration;

use l3l4_engine::CongestionControl;
use l3l4_engine::CongestionControl::{Cubic, None, Reno};

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

/// Who sends to whom, and with what congestion control. Those that smoltcp is in are
/// without CUBIC, which it has only with std; `None` is as its own table of 322,945,
/// 219,671, 166,587, 76,626, 37,775, 6,079 and 1,156: `tests/netsim.rs` of 0.14.0 is
/// run with the default features (`ci.sh`), among which is no congestion control. It
/// sends 10 MiB, once.
const COLUMNS: [(&str, Ends, [usize; 2], CongestionControl); 8] = [
    ("ours, CUBIC", Ends::EngineEngine, FORTH, Cubic),
    ("ours, Reno", Ends::EngineEngine, FORTH, Reno),
    ("to smoltcp", Ends::EngineSmoltcp, FORTH, Reno),
    ("from smoltcp", Ends::EngineSmoltcp, BACK, Reno),
    ("smoltcp, Reno", Ends::SmoltcpSmoltcp, FORTH, Reno),
    ("ours, none", Ends::EngineEngine, FORTH, None),
    ("to smoltcp", Ends::EngineSmoltcp, FORTH, None),
    ("smoltcp, none", Ends::SmoltcpSmoltcp, FORTH, None),
];
const FORTH: [usize; 2] = [BYTES, 0];
const BACK: [usize; 2] = [0, BYTES];

/// The table.
#[must_use]
pub fn table() -> String {
    let mut text = format!(
        "Bytes a second of one flow of {BYTES} bytes over a path of 100 ms, buffers of 32 KiB,\n\
         {SEEDS} seeds; in brackets those that did not get all across in {} s.\n\n  loss ",
        LIMIT.as_secs(),
    );
    for (name, ..) in COLUMNS {
        let _ = write!(text, "{name:>15}");
    }
    text.push('\n');
    for percent in PERCENT {
        let _ = write!(text, "{percent:>4} % ");
        for (_, ends, bytes, control) in COLUMNS {
            let _ = write!(text, "{:>15}", cell(ends, bytes, control, percent));
        }
        text.push('\n');
    }
    text
}

/// All bytes of all seeds by all their time.
fn cell(ends: Ends, bytes: [usize; 2], control: CongestionControl, percent: u32) -> String {
    let receiver = usize::from(bytes[0] > 0);
    let (mut all, mut time, mut unfinished) = (0, Duration::ZERO, 0);
    for seed in 1..=SEEDS {
        let plan = plan(ends, bytes, control, percent, seed);
        let report = run(&plan, Device::Native, false);
        let got = report.ends[receiver];
        all += got.delivered;
        if got.delivered == BYTES {
            time += got.last_after;
        } else {
            time += LIMIT;
            unfinished += 1;
        }
    }
    let rate = all as u128 * 1000 / time.as_millis();
    match unfinished {
        0 => rate.to_string(),
        some => format!("{rate} ({some})"),
    }
}

fn plan(
    ends: Ends,
    bytes: [usize; 2],
    congestion_control: CongestionControl,
    percent: u32,
    seed: u64,
) -> Plan {
    let mut link = Impairments::none(Duration::from_millis(50));
    link.loss = Loss::Independent(percent * 10);
    Plan {
        ends,
        mode: Mode::Loss,
        seed,
        family: Family::V4,
        second_opens: false,
        bytes,
        buffer: 32 << 10,
        mtu: 1500,
        give_up: LIMIT,
        congestion_control,
        links: [link.clone(), link],
        faults: [Faults::default(), Faults::default()],
        datagrams: 0,
        calm: START + (LIMIT - PATIENCE),
        after: After::Behaves,
    }
}
