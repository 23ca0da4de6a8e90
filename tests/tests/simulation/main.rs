//! The fixed part of the simulations: some seeds of every mode, all kinds of ends,
//! the native engine against the component. What hangs is listed in
//! `tests/snapshots/simulation.txt`, and the list can only shrink; nothing is
//! corrupt and no other invariant is broken. `simulate gate` is the whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod faulty;

use std::fmt::Write as _;
use std::path::Path;

use clap::ValueEnum;
use l3l4_engine::Config;
use l3l4_tests::dut::Dut;
use l3l4_tests::sim::gate::{Compare, Row, gate, table};
use l3l4_tests::sim::invariants::Rule;
use l3l4_tests::sim::loss;
use l3l4_tests::sim::run::run;
use l3l4_tests::sim::{Device, Ends, Mode, Outcome, Plan};

use faulty::{Fault, Faulty};

/// Seeds of each mode and kind of ends.
const SEEDS: u64 = 16;

/// All runs are made on the component as well, unless `L3L4_DUT=native` says no.
fn compare() -> Compare {
    match std::env::var_os("L3L4_DUT") {
        Some(dut) if dut == "native" => Compare::Never,
        Some(_) | None => Compare::Every(1),
    }
}

#[test]
fn the_fixed_runs_are_as_listed() {
    let mut rows = Vec::new();
    for ends in Ends::value_variants() {
        let modes: Vec<_> = Mode::value_variants()
            .iter()
            .filter(|mode| ends.has_engine() || !mode.needs_engine())
            .copied()
            .collect();
        rows.extend(gate(*ends, &modes, 0..SEEDS, compare(), &|| ()));
    }
    let found = rows.iter().flat_map(|row| &row.failures);
    let broken: Vec<_> = found
        .clone()
        .filter(|failure| failure.outcome != Outcome::Hung)
        .map(|failure| format!("{}\n  {}", failure.found, failure.command()))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    check_snapshot("simulation.txt", &listed(&rows));
}

#[test]
fn the_loss_table_is_as_kept() {
    check_snapshot("loss.txt", &loss::table());
}

/// The table, and the seeds that hang.
fn listed(rows: &[Row]) -> String {
    let mut text = format!(
        "The simulations that every `cargo test` runs: {SEEDS} seeds of each mode. A run that\n\
         hangs and is not listed fails the test, and so does one that is listed and does\n\
         not: L3L4_UPDATE=1 writes this file again.\n\n{}\nhung seeds:\n",
        table(rows)
    );
    for row in rows.iter().filter(|row| !row.failures.is_empty()) {
        let seeds: Vec<_> = row.failures.iter().map(|f| f.seed.to_string()).collect();
        let _ = writeln!(
            text,
            "{:<16} {:<23} {}",
            row.ends,
            row.mode,
            seeds.join(" ")
        );
    }
    text
}

fn check_snapshot(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("snapshots")
        .join(file);
    if std::env::var_os("L3L4_UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differ = kept.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(
        kept == text,
        "tests/snapshots/{file} says otherwise: {differ:?}; the whole is\n{text}"
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for ends in [Ends::EngineEngine, Ends::EngineScript] {
        let plan = Plan::new(ends, Mode::Chaos, 3);
        let [a, b] = [0, 1].map(|_| run(&plan, Device::Native, true).trace);
        assert!(!a.is_empty() && a == b, "{ends}");
        let other = Plan::new(ends, Mode::Chaos, 4);
        assert_ne!(a, run(&other, Device::Native, true).trace);
    }
}

#[test]
fn a_digest_stands_for_its_trace() {
    let plan = Plan::new(Ends::EngineEngine, Mode::Clean, 1);
    let other = Plan::new(Ends::EngineEngine, Mode::Clean, 2);
    let digest = |plan| run(plan, Device::Native, false).digest;
    assert_eq!(digest(&plan), digest(&plan));
    assert_ne!(digest(&plan), digest(&other));
    assert_ne!(digest(&plan), 0);
}

/// Which rule a faulty engine breaks first; none when all was well.
fn broken(make: fn(Config) -> Box<dyn Dut>, mode: Mode) -> (Outcome, Vec<Rule>) {
    std::panic::set_hook(Box::new(|_| {}));
    let plan = Plan::new(Ends::EngineSmoltcp, mode, 0);
    let report = run(&plan, Device::Other(make), false);
    let mut rules: Vec<_> = report.violations.iter().map(|each| each.rule).collect();
    rules.dedup();
    (report.outcome, rules)
}

macro_rules! faults {
    ($($name:ident: $fault:ident, $mode:ident => $outcome:ident, $($rule:ident)?;)*) => {$(
        #[test]
        fn $name() {
            let (outcome, rules) =
                broken(|config| Box::new(Faulty::new(config, Fault::$fault)), Mode::$mode);
            assert_eq!(outcome, Outcome::$outcome, "{rules:?}");
            let expected: &[Rule] = &[$(Rule::$rule)?];
            assert!(expected.iter().all(|rule| rules.contains(rule)), "{rules:?}");
            assert_eq!(rules.is_empty(), expected.is_empty(), "{rules:?}");
        }
    )*};
}

faults! {
    an_engine_without_fault_passes: None, Clean => Good,;
    a_byte_lost_breaks_i1: LosesAByte, Clean => Corrupt, I1;
    other_bytes_sent_break_i1: SendsOtherBytes, Clean => Corrupt, I1;
    an_early_end_breaks_i2: FinishesEarly, Clean => Violated, I2;
    a_byte_after_the_end_breaks_i2: DeliversAfterTheEnd, Clean => Corrupt, I2;
    a_second_end_breaks_i2: EndsTwice, Clean => Violated, I2;
    an_acknowledgement_too_far_breaks_i3: AcknowledgesTooMuch, Clean => Violated, I3;
    silence_is_a_flow_that_hangs: FallsSilent, Clean => Hung,;
    a_wrong_checksum_breaks_i5: BreaksAChecksum, Clean => Violated, I5;
    data_beyond_the_window_breaks_i5: OverrunsTheWindow, Clean => Corrupt, I5;
    an_option_not_offered_breaks_i5: OffersAnOptionLate, Clean => Corrupt, I5;
    polls_without_end_break_i6: Polls, Clean => Violated, Assertion;
    memory_kept_breaks_i7: Leaks, Clean => Violated, I7;
    a_datagram_lost_breaks_i9: LosesADatagram, Clean => Violated, I9;
    two_datagrams_in_one_break_i9: MergesDatagrams, Clean => Violated, I9;
}
