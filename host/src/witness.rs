//! Who watches the border between host and guest: a recorder, or a replay.

use std::{fmt, io};

use crate::record::Frame;

/// Is told of all that crosses the border, in order.
pub(crate) trait Witness: Send {
    /// One more frame. The bytes are those that stand as digests in it.
    ///
    /// # Errors
    ///
    /// Why the guest must not go on: within a callback it traps with this.
    fn crossed(&mut self, frame: &Frame<'_>, bytes: &[u8]) -> wasmtime::Result<()>;

    /// What went wrong with keeping what was told.
    fn failure(&self) -> Option<&io::Error> {
        None
    }
}

/// A replay that has seen enough: the trap that it makes is nobody's fault, and
/// there is nothing to mend.
#[derive(Debug)]
pub(crate) struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the replay stops here")
    }
}

impl std::error::Error for Stopped {}
