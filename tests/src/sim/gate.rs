//! Many runs, on all cores, as a table.

use std::fmt::Write as _;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::plan::{Ends, Mode, Plan};
use super::run::{Device, Outcome, Report, run};

/// One run that did not go as it should.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// Who talked.
    pub ends: Ends,
    /// What went wrong around them.
    pub mode: Mode,
    /// The seed.
    pub seed: u64,
    /// How it went.
    pub outcome: Outcome,
    /// The first thing that was found, if any.
    pub found: String,
}

impl Failure {
    /// The command that replays it.
    #[must_use]
    pub fn command(&self) -> String {
        format!(
            "cargo run -p l3l4-tests --bin simulate -- run --ends {} --mode {} --seed {}",
            self.ends, self.mode, self.seed
        )
    }
}

/// The runs of one mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who talked.
    pub ends: Ends,
    /// The mode.
    pub mode: Mode,
    /// How many runs.
    pub runs: usize,
    /// Those that did not go as they should, by seed.
    pub failures: Vec<Failure>,
}

impl Row {
    /// How many runs went like this.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        let failures = self.failures.iter();
        failures.filter(|each| each.outcome == outcome).count()
    }
}

/// Which runs of a gate are made on the component too, and compared (I8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// None.
    Never,
    /// Every so many seeds.
    Every(u64),
}

impl Compare {
    fn applies(self, seed: u64) -> bool {
        match self {
            Self::Never => false,
            Self::Every(step) => seed.is_multiple_of(step),
        }
    }
}

/// Runs all seeds of all modes, and calls `done` after each run.
#[must_use]
pub fn gate(
    ends: Ends,
    modes: &[Mode],
    seeds: std::ops::Range<u64>,
    compare: Compare,
    done: &(impl Fn() + Sync),
) -> Vec<Row> {
    let runs: Vec<_> = modes
        .iter()
        .flat_map(|mode| seeds.clone().map(move |seed| (*mode, seed)))
        .collect();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some((mode, seed)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(failure) = check(ends, *mode, *seed, compare.applies(*seed)) {
                failures.lock().expect("no panic").push(failure);
            }
            done();
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let mut failures = failures.into_inner().expect("no panic");
    failures.sort_unstable();
    let row = |mode: &Mode| Row {
        ends,
        mode: *mode,
        runs: seeds.clone().count(),
        failures: failures
            .iter()
            .filter(|each| each.mode == *mode)
            .cloned()
            .collect(),
    };
    modes.iter().map(row).collect()
}

/// Runs one seed; on the component as well if it is to be compared.
#[must_use]
pub fn check(ends: Ends, mode: Mode, seed: u64, compare: bool) -> Option<Failure> {
    let plan = Plan::new(ends, mode, seed);
    let report = run(&plan, Device::Native, false);
    let failure = |outcome, found| Failure {
        ends,
        mode,
        seed,
        outcome,
        found,
    };
    if compare && ends.has_engine() {
        let component = run(&plan, Device::Component, false);
        if component.digest != report.digest {
            return Some(failure(Outcome::Violated, difference(&plan)));
        }
        // What no trace tells, as the memory that remains (I7).
        if component.outcome > report.outcome {
            let found = format!("component only: {}", summary(&component));
            return Some(failure(component.outcome, found));
        }
    }
    (report.outcome != Outcome::Good).then(|| failure(report.outcome, summary(&report)))
}

/// What a failing run shows at first sight.
#[must_use]
pub fn summary(report: &Report) -> String {
    if let Some(violation) = report.violations.first() {
        let text = violation.to_string();
        return text.lines().next().unwrap_or_default().to_string();
    }
    let [a, b] = report.ends.map(|end| {
        let last = end.last_after.as_secs_f64();
        let (status, delivered) = (end.status, end.delivered);
        format!("{status:?} with {delivered} bytes, the last after {last:.1} s")
    });
    format!(
        "after {:.1} s A is {a}; B is {b}",
        report.took.as_secs_f64()
    )
}

/// Where the traces of the native engine and of the component part (I8).
fn difference(plan: &Plan) -> String {
    let trace = |device| run(plan, device, true).trace;
    let (native, component) = (trace(Device::Native), trace(Device::Component));
    let longest = native.len().max(component.len());
    let at = (0..longest).find(|&line| native.get(line) != component.get(line));
    match at {
        None => "I8 broken: the digests of native and component differ, their traces do not".into(),
        Some(at) => format!(
            "I8 broken at line {at}: native {:?}, component {:?}",
            native.get(at),
            component.get(at)
        ),
    }
}

/// The table of the modes.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<16} {:<23} {:>6} {:>6} {:>8} {:>11}\n",
        "ends", "mode", "runs", "hung", "corrupt", "violations"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<16} {:<23} {:>6} {:>6} {:>8} {:>11}",
            row.ends,
            row.mode,
            row.runs,
            row.count(Outcome::Hung),
            row.count(Outcome::Corrupt),
            row.count(Outcome::Violated)
        );
    }
    text
}
