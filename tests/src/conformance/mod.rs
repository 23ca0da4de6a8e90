//! What the conformance cases of `tests/tests/conformance` are told with.
//!
//! - [`exchange`]: the words of a [`case`], over a scene; [`segment`]: the segments
//!   that it injects and expects.
//! - [`isn`]: attacks on initial sequence numbers.

pub mod case;
pub mod exchange;
pub mod isn;
pub mod segment;
