//! `l3l4 component`: the embedded engine as a file.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use l3l4_host::EMBEDDED;

use super::args::ComponentArgs;

pub(crate) fn run(args: &ComponentArgs) -> anyhow::Result<bool> {
    if args.output == Path::new("-") {
        io::stdout()
            .write_all(EMBEDDED)
            .context("cannot write to standard output")?;
        return Ok(true);
    }
    let file = args.output.display();
    fs::write(&args.output, EMBEDDED).with_context(|| format!("cannot write {file}"))?;
    eprintln!(
        "wrote {file}: {} bytes, world l3l4:engine/l3l4@0.1.0",
        EMBEDDED.len()
    );
    Ok(true)
}
