//! Record and exact replay: all that crosses the border into the engine, in one
//! file, and the proof that the same comes out of it again.
//!
//! The engine has no clock, no random source and no other input than its calls
//! and the answers of its callbacks. So [`Builder::build_recorded`] keeps just
//! those ([`Frame`]), and digests of what the engine said, and [`replay`] enters
//! the same component with them and compares. The first difference ends it, and
//! is the [`Difference`] to look at.
//!
//! - In: `engine.rs` and `link.rs` tell a `Witness` of each frame → `writer.rs`.
//! - Back: `reader.rs` → `replay.rs`, an engine whose callbacks answer from the
//!   record and whose witness compares.
//!
//! The file's layout stands in `format.rs`.
//!
//! [`Builder::build_recorded`]: crate::Builder::build_recorded

pub mod format;
mod output;
mod reader;
mod replay;
mod report;
mod script;
mod text;
mod writer;

pub use format::{
    Bytes, Call, Callback, Digest, Emitted, Frame, Header, MAGIC, Outcome, Returned, VERSION, wit,
};
pub use reader::{Ending, ReadError, Reader};
pub use replay::{Replay, ReplayError, replay};
pub use report::{Difference, Report, Unfinished};

pub(crate) use output::Output;
pub(crate) use writer::{Failure, Recorder};
