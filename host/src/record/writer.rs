//! Writes what crosses the border.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};

use super::format::{self, Frame, Header, MAGIC, VERSION};
use crate::witness::Witness;

/// Callbacks are written when so many bytes have come together, and in any case
/// when their call ends.
const ENOUGH: usize = 64 << 10;

/// What ended a record before its engine, if anything did. It outlives the engine, whose
/// end is the last that is written.
pub(crate) type Failure = Arc<OnceLock<io::Error>>;

/// Writes the frames of one engine.
///
/// A call is handed to the system before the engine is entered, and its outcome
/// when it is back, so that a killed process loses neither.
pub(crate) struct Recorder {
    write: Box<dyn Write + Send>,
    buffer: Vec<u8>,
    failure: Failure,
}

impl Recorder {
    pub(crate) fn new(
        write: impl Write + Send + 'static,
        header: Header,
        failure: Failure,
    ) -> Self {
        let mut recorder = Self {
            write: Box::new(write),
            buffer: [&MAGIC[..], &[VERSION]].concat(),
            failure,
        };
        recorder.add(&Frame::Header(header));
        recorder
    }

    fn add(&mut self, frame: &Frame<'_>) {
        if self.failure.get().is_some() {
            return;
        }
        let mut outcome = format::append(&mut self.buffer, frame);
        let wait = matches!(frame, Frame::Callback(_)) && self.buffer.len() < ENOUGH;
        if !wait {
            outcome = self.flush().and(outcome);
        }
        if let Err(error) = outcome {
            tracing::error!(%error, "the record ends here: it cannot be written");
            let _ = self.failure.set(error);
            self.buffer = Vec::new();
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write.write_all(&self.buffer)?;
        self.buffer.clear();
        // One batch of the longest kind is not to stay for ever.
        self.buffer.shrink_to(16 * ENOUGH);
        self.write.flush()
    }
}

impl Witness for Recorder {
    fn crossed(&mut self, frame: &Frame<'_>, _bytes: &[u8]) -> wasmtime::Result<()> {
        self.add(frame);
        Ok(())
    }

    fn failure(&self) -> Option<&io::Error> {
        self.failure.get()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.add(&Frame::End);
    }
}
