//! The conformance table: 78 cases on the wire, each told as an exchange, for IPv4
//! and IPv6, on the native engine and on the component.
//!
//! ```sh
//! cargo test -p l3l4-tests --test conformance               # all, and the report
//! cargo test -p l3l4-tests --test conformance -- 27         # one, and its exchange
//! cargo test -p l3l4-tests --test conformance -- --list
//! cargo test -p l3l4-tests --test conformance -- --json     # the report for programs
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod attacks;
mod close;
mod fragments;
mod handshake;
mod icmp;
mod ip;
mod options;
mod receive;
mod recovery;
mod report;
mod send;
mod stray;
mod udp;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use l3l4_tests::conformance::case::{Case, Outcome};
use l3l4_tests::craft::Family;

const CHAPTERS: &[&[Case]] = &[
    handshake::CASES,
    stray::CASES,
    options::CASES,
    attacks::CASES,
    receive::CASES,
    send::CASES,
    recovery::CASES,
    close::CASES,
    icmp::CASES,
    ip::CASES,
    fragments::CASES,
    udp::CASES,
];
/// Rows of the table.
const NUMBERS: std::ops::RangeInclusive<u16> = 1..=78;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let cases = all_cases();
    let chosen = match chosen(&cases, &arguments) {
        Ok(chosen) => chosen,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.iter().any(|word| word == "--list") {
        report::list(&chosen);
        return ExitCode::SUCCESS;
    }

    let results = run(&chosen);
    if arguments.iter().any(|word| word == "--json") {
        println!("{}", report::json(&chosen, &results));
    } else {
        if chosen.len() == 1 {
            report::exchanges(&results);
        }
        report::table(&chosen, &results);
    }
    report::failures(&results);
    match results.iter().all(|(_, outcome)| outcome.passed()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Every number once, in order.
fn all_cases() -> Vec<&'static Case> {
    let mut cases: Vec<_> = CHAPTERS.iter().copied().flatten().collect();
    cases.sort_by_key(|case| case.number);
    let numbers = cases.iter().map(|case| case.number);
    assert!(numbers.eq(NUMBERS), "each row of the table is one case");
    cases
}

/// The cases whose number or title is asked for; all, when none is. A word in no
/// title asks for none, so that `cargo test word` can pass here.
fn chosen(cases: &[&'static Case], arguments: &[String]) -> Result<Vec<&'static Case>, String> {
    let (mut numbers, mut words) = (Vec::new(), Vec::new());
    for argument in arguments.iter().filter(|word| !word.starts_with('-')) {
        match argument.parse::<u16>() {
            Ok(number) if NUMBERS.contains(&number) => numbers.push(number),
            Ok(number) => return Err(format!("no case {number}: the table has 1 to 78")),
            Err(_) => words.push(argument.as_str()),
        }
    }
    let all = numbers.is_empty() && words.is_empty();
    let asked = |case: &&'static Case| {
        let mut words = words.iter();
        all || numbers.contains(&case.number) || words.any(|word| case.title.contains(word))
    };
    Ok(cases.iter().copied().filter(asked).collect())
}

/// A case in one family.
type Variant = (u16, Family);

/// What became of each variant, in order.
type Results = Vec<(Variant, Outcome)>;

/// Runs the cases on all cores.
fn run(cases: &[&'static Case]) -> Results {
    let jobs: Vec<(&Case, Family)> = cases
        .iter()
        .flat_map(|case| case.families.iter().map(move |family| (*case, *family)))
        .collect();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((case, family)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = case.run(*family);
                    let mut results = results.lock().expect("no worker panics");
                    results.push(((case.number, *family), outcome));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no worker panics");
    results.sort_by_key(|(variant, _)| *variant);
    results
}
