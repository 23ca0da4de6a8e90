//! `l3l4 replay`: what happened once, again.

mod capture;
mod exact;
mod expect;
mod outputs;
mod streams;
mod summary;

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;

use l3l4_host::record;

use super::args::ReplayArgs;

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<bool> {
    match is_record(&args.file) {
        true => exact::run(args),
        false => capture::run(args),
    }
}

/// Whether the file begins as a record does. Nothing is taken from standard input.
fn is_record(path: &Path) -> bool {
    if path == Path::new("-") {
        let mut input = io::stdin().lock();
        return matches!(input.fill_buf(), Ok(start) if start.starts_with(&record::MAGIC));
    }
    let mut start = [0; record::MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == record::MAGIC
}
