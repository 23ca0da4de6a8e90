//! A runner in the manner of libtest: filters, `--list`, a line a case.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use crate::world::World;
use crate::{command, direct, http, passing, socks};

pub(crate) type Case = (&'static str, fn(&World));

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<_> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let all = [
        direct::CASES,
        passing::CASES,
        socks::CASES,
        http::CASES,
        command::CASES,
    ];
    let chosen: Vec<Case> = all
        .into_iter()
        .flatten()
        .copied()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|it| name.contains(*it)))
        .collect();
    if arguments.iter().any(|word| word == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    // Built while there is a network to build with.
    let _ = l3l4_tests::program::program();
    let world = match World::make() {
        Ok(world) => world,
        Err(reason) => return skipped(chosen.len(), &reason),
    };
    let mut failed = 0;
    for (name, case) in &chosen {
        let start = Instant::now();
        let good = catch_unwind(AssertUnwindSafe(|| case(&world))).is_ok();
        let verdict = if good { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1?})", start.elapsed());
        failed += usize::from(!good);
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    let passed = chosen.len() - failed;
    println!("\ntest result: {result}. {passed} passed; {failed} failed\n");
    ExitCode::from(u8::from(failed > 0))
}

fn skipped(cases: usize, reason: &str) -> ExitCode {
    eprintln!("SKIPPED: {cases} cases of the proxy: {reason}");
    println!("\ntest result: ok. 0 passed; 0 failed; {cases} ignored ({reason})\n");
    if std::env::var_os("CI").is_some() {
        eprintln!("CI is set: a skip is a failure");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
