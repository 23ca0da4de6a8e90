//! What goes on, on a terminal; nothing elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

/// One bar for a job of a known number of bytes, on standard error. Nothing is
/// drawn when that is not a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        let template = "{spinner} {msg:38!} [{wide_bar}] {bytes:>10} of {total_bytes:10}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }

    /// What is being done.
    pub(crate) fn step(&self, what: String) {
        self.bar.set_message(what);
        self.bar.tick();
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.bar.inc(bytes as u64);
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
