//! A runner in the manner of libtest: filters, `--list`, a line a story.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use crate::world::World;
use crate::{basics, dial, programs, rate, sandbox, streams, through, trap, upstream};

/// What happens, by which programs.
pub(crate) struct Story {
    pub(crate) name: &'static str,
    /// Programs of the system without which it cannot be told.
    pub(crate) programs: &'static [&'static str],
    pub(crate) tell: fn(&World),
}

/// A story, named as its function is.
#[macro_export]
macro_rules! story {
    ($name:ident $(, $program:literal)*) => {
        $crate::runner::Story {
            name: concat!(module_path!(), "::", stringify!($name)),
            programs: &[$($program),*],
            tell: $name,
        }
    };
}

fn stories() -> impl Iterator<Item = &'static Story> {
    let all = [
        sandbox::STORIES,
        basics::STORIES,
        dial::STORIES,
        streams::STORIES,
        programs::STORIES,
        upstream::STORIES,
        through::STORIES,
        trap::STORIES,
        rate::STORIES,
    ];
    all.into_iter().flatten()
}

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<_> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let is_wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|it| name.contains(it.as_str()));
    let chosen: Vec<_> = stories().filter(|story| is_wanted(story.name)).collect();
    if arguments.iter().any(|word| word == "--list") {
        chosen.iter().for_each(|it| println!("{}: test", it.name));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    // Built while there is a network to build with.
    let _ = l3l4_tests::program::program();
    let world = match World::make() {
        Ok(world) => world,
        Err(reason) => return report(&[], &chosen, 0, &reason),
    };
    let (able, unable): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|it| missing(it).is_none());
    let mut failed = 0;
    for story in &able {
        let start = Instant::now();
        let good = catch_unwind(AssertUnwindSafe(|| (story.tell)(&world))).is_ok();
        let verdict = if good { "ok" } else { "FAILED" };
        println!(
            "test {} ... {verdict} ({:.1?})",
            story.name,
            start.elapsed()
        );
        failed += usize::from(!good);
    }
    report(&able, &unable, failed, "")
}

fn report(told: &[&Story], skipped: &[&Story], failed: usize, reason: &str) -> ExitCode {
    for story in skipped {
        let why =
            missing(story).map_or(reason.to_owned(), |program| format!("{program} is missing"));
        eprintln!("SKIPPED: {}: {why}", story.name);
    }
    let passed = told.len() - failed;
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let ignored = skipped.len();
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored\n");
    let is_ci = std::env::var_os("CI").is_some();
    if is_ci && ignored > 0 {
        eprintln!("CI is set: a skip is a failure");
    }
    ExitCode::from(u8::from(failed > 0 || (is_ci && ignored > 0)))
}

/// A program that the story needs and this system does not have.
fn missing(story: &Story) -> Option<&'static str> {
    let is_there = |program: &&&str| find(program).is_none();
    story.programs.iter().find(is_there).copied()
}

/// Where a program is. Servers are often beyond a user's PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beyond = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(beyond);
    places.find_map(|place| Some(place.join(program)).filter(|it| it.is_file()))
}
