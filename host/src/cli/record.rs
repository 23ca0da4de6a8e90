//! `--record`: the file, and whether all is in it.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::Context;

/// The file that was asked for.
pub(super) fn begin(path: Option<&Path>) -> anyhow::Result<Option<File>> {
    let Some(path) = path else { return Ok(None) };
    let file = File::create(path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Some(file))
}

/// Says so when the record is not whole, and whether it is.
pub(super) fn is_whole(failure: Option<&io::Error>) -> bool {
    if let Some(error) = failure {
        eprintln!("l3l4: the record is not whole: {error}");
    }
    failure.is_none()
}
