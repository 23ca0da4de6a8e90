//! Logs to standard error.

use std::env;
use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;

/// Shows what is at least as important as `level`, else as `L3L4_LOG`, else as a
/// warning.
pub(crate) fn start(level: Option<LevelFilter>) {
    let from_environment = || env::var("L3L4_LOG").ok()?.parse().ok();
    let level = level.or_else(from_environment).unwrap_or(LevelFilter::WARN);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
