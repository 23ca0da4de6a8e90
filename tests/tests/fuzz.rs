//! The fuzz targets over the committed corpus, which holds every finding, and over
//! a bounded number of seeded inputs: random bytes, and changed pieces of the corpus.
//! `L3L4_FUZZ_INPUTS=50000` is for a long run on a stable compiler.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::{fs, panic};

use l3l4_tests::fuzz::{TARGETS, Target};
use l3l4_tests::random::Random;
use l3l4_tests::trace;

/// Seeded inputs of a target, unless `L3L4_FUZZ_INPUTS` says otherwise.
const INPUTS: usize = 2000;

#[test]
fn packet() {
    run("packet", INPUTS);
}

#[test]
fn conversation() {
    run("conversation", INPUTS);
}

#[test]
fn component() {
    run("component", INPUTS / 20);
}

#[test]
fn capture() {
    run("capture", INPUTS);
}

#[test]
fn record() {
    run("record", INPUTS / 10);
}

/// Every target has its program for libFuzzer and its test here.
#[test]
fn every_target_is_run() {
    let source = include_str!("fuzz.rs");
    for target in TARGETS {
        let program = fuzz_directory().join(format!("fuzz_targets/{}.rs", target.name));
        assert!(program.is_file(), "{} is missing", program.display());
        let test = format!("run(\"{}\"", target.name);
        assert!(source.contains(&test), "no test of {}", target.name);
    }
}

fn run(name: &str, inputs: usize) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("no target {name}"));
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "the corpus of {name} is empty");
    for (_, input) in &corpus {
        try_out(target, input);
    }
    let inputs = match std::env::var("L3L4_FUZZ_INPUTS") {
        Ok(number) => number
            .parse()
            .unwrap_or_else(|error| panic!("L3L4_FUZZ_INPUTS={number}: {error}")),
        Err(_) => inputs,
    };
    let mut random = Random::new(0xf022);
    for _ in 0..inputs {
        try_out(target, &input(target, &corpus, &mut random));
    }
}

/// An input on which the body panics is written to a file, for the corpus.
fn try_out(target: &Target, input: &[u8]) {
    let outcome = panic::catch_unwind(|| (target.body)(input));
    if let Err(panic) = outcome {
        let name = format!("{}-{:016x}", target.name, trace::digest(input));
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&file, input).unwrap();
        eprintln!(
            "{} was tried: keep it in tests/fuzz/corpus/{}",
            file.display(),
            target.name
        );
        panic::resume_unwind(panic);
    }
}

/// Random bytes, or a file of the corpus with some of its bytes changed and some of
/// another's in the place of its own.
fn input(target: &Target, corpus: &[(PathBuf, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    if random.below(3) == 0 {
        let length = random.below(target.longest);
        return random.bytes(length);
    }
    let mut input = corpus[random.below(corpus.len())].1.clone();
    let other = &corpus[random.below(corpus.len())].1;
    let (keep, from) = (random.below(input.len() + 1), random.below(other.len() + 1));
    if random.below(2) == 0 {
        input.truncate(keep);
        input.extend_from_slice(&other[from..]);
    }
    for _ in 0..random.below(8) {
        if !input.is_empty() {
            let at = random.below(input.len());
            input[at] ^= 1 << random.below(8);
        }
    }
    input.truncate(target.longest);
    input
}

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = fuzz_directory().join("corpus").join(target.name);
    let entries =
        fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |file: PathBuf| {
        let bytes = fs::read(&file).unwrap();
        (file, bytes)
    };
    files.into_iter().map(read).collect()
}

fn fuzz_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}
