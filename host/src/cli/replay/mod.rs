//! `l3l4 replay`: what happened once, again.

mod capture;
mod exact;
mod expect;
mod outputs;
mod streams;
mod summary;

use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::path::Path;

use anyhow::bail;
use l3l4_host::record;

use super::args::ReplayArgs;

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<bool> {
    let is_record = is_record(&args.file);
    let name = args.file.display();
    if let Some(option) = args.set_in_vain(is_record).first() {
        match is_record {
            true => bail!("{name} is a record, and {option} is an option of captures"),
            false => bail!("{name} is no record, and {option} is an option of records"),
        }
    }
    keep_inputs(args)?;
    match is_record {
        true => exact::run(args),
        false => capture::run(args),
    }
}

/// A file is empty as soon as it is opened to be written: too late to read it.
fn keep_inputs(args: &ReplayArgs) -> anyhow::Result<()> {
    let outputs = [("--write", &args.write), ("--transcript", &args.transcript)];
    let inputs = [
        Some(&args.file),
        args.expect.as_ref(),
        args.component.as_ref(),
    ];
    for (option, output) in outputs {
        let Some(output) = output else { continue };
        let mut inputs = inputs.into_iter().flatten();
        if inputs.any(|input| is_same_file(input, output)) {
            let name = output.display();
            bail!("{option} {name} would overwrite {name}, which is to be read");
        }
    }
    Ok(())
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other && one.is_file(),
        (Ok(_) | Err(_), Err(_)) | (Err(_), Ok(_)) => false,
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
