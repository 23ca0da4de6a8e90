//! The fixed part of the simulations: some seeds of every mode, all kinds of ends,
//! the native engine against the component. What hangs is listed by its seed in
//! `tests/snapshots/simulation.txt`, and the list can only shrink: `L3L4_UPDATE=1`
//! takes seeds from it and adds none of our engine's, for which `L3L4_UPDATE=grow`
//! has to be said. Nothing is corrupt and no other invariant is broken.
//! `simulate gate` is the whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod faulty;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Once;

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
    let text = listed(&rows);
    let kept = std::fs::read_to_string(snapshot("simulation.txt")).unwrap_or_default();
    let more = grown(&kept, &text);
    let may_grow = std::env::var_os("L3L4_UPDATE").is_some_and(|update| update == "grow");
    assert!(
        more.is_empty() || may_grow,
        "runs that hang and are not listed in tests/snapshots/simulation.txt:\n{}",
        more.join("\n")
    );
    check_snapshot("simulation.txt", &text);
}

/// A list may lose seeds, and get new ones only of the baseline.
#[test]
fn the_list_of_hung_seeds_only_shrinks() {
    let list = |text: &str| format!("a table\n\n{HUNG}\n{text}");
    let kept = list("engine-engine loss 1 14\nengine-script mtu 3\n");
    assert!(grown(&kept, &kept).is_empty());
    assert!(grown(&kept, &list("engine-engine loss 14\n")).is_empty());
    assert!(grown(&kept, &list("smoltcp-smoltcp loss 2\n")).is_empty());
    for more in ["engine-engine loss 1 2", "engine-engine mtu 3"] {
        assert_eq!(grown(&kept, &list(more)).len(), 1, "{more}");
    }
    assert_eq!(grown("", &kept).len(), 3);
}

/// What precedes the seeds in the list.
const HUNG: &str = "hung seeds:";

/// The commands of our engine's hung seeds that `found` lists and `kept` does not.
fn grown(kept: &str, found: &str) -> Vec<String> {
    let seeds = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().skip_while(|line| *line != HUNG).skip(1);
        let ours = lines.filter(|line| !line.starts_with("smoltcp-"));
        let each = |line: &str| {
            let mut words = line.split_whitespace().map(str::to_string);
            let (ends, mode) = (words.next()?, words.next()?);
            let command =
                move |seed| format!("simulate run --ends {ends} --mode {mode} --seed {seed}");
            Some(words.map(command).collect::<Vec<_>>())
        };
        ours.filter_map(each).flatten().collect()
    };
    seeds(found).difference(&seeds(kept)).cloned().collect()
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
         not: L3L4_UPDATE=1 takes it from this file.\n\n{}\n{HUNG}\n",
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

fn snapshot(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("snapshots")
        .join(file)
}

fn check_snapshot(file: &str, text: &str) {
    let path = snapshot(file);
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

/// Where a flow may break, most still carry data before: the rules about it have
/// something to hold for.
#[test]
fn runs_that_may_break_carry_data() {
    for (ends, mode) in [
        (Ends::EngineEngine, Mode::Clock),
        (Ends::EngineEngine, Mode::Restart),
        (Ends::EngineScript, Mode::Loss),
    ] {
        let plans = (0..50).map(|seed| Plan::new(ends, mode, seed));
        let breaking: Vec<_> = plans.filter(|plan| !plan.completes()).collect();
        let carries = |plan: &&Plan| {
            let report = run(plan, Device::Native, false);
            report.ends.iter().all(|end| end.delivered > 0)
        };
        let (all, some) = (breaking.len(), breaking.iter().filter(carries).count());
        assert!(
            all >= 10 && 2 * some > all,
            "{ends}, {mode}: {some} of {all}"
        );
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

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The panics of a faulty engine are expected; those of other tests have to be seen.
fn silence_panics_here() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
}

/// Which rule a faulty engine breaks first; none when all was well.
fn broken(make: fn(Config) -> Box<dyn Dut>, mode: Mode) -> (Outcome, Vec<Rule>) {
    silence_panics_here();
    let plan = Plan::new(Ends::EngineSmoltcp, mode, 0);
    let report = run(&plan, Device::Other(make), false);
    QUIET.set(false);
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
