//! The embedder's clock.

use crate::types::{Instant, nanoseconds};

/// The system's monotonic clock, read as [`Instant`]s since it was started.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that stands at [`Instant`] 0.
    #[must_use]
    pub fn start() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }

    /// The time since the start.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant(nanoseconds(self.start.elapsed()))
    }
}
