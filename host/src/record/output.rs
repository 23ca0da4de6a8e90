//! What the exports return, as a record keeps it.

use super::format::{Outcome, Returned, wit};

/// The type that an export returns.
pub(crate) trait Output {
    /// As a record keeps it.
    fn returned(&self) -> Returned;
}

impl Outcome {
    /// How a call ended.
    pub(crate) fn of<R: Output>(outcome: &wasmtime::Result<R>) -> Self {
        match outcome {
            Ok(returned) => Self::Returned(returned.returned()),
            Err(trap) => Self::Trapped(format!("{trap:#}")),
        }
    }
}

impl Output for Result<wit::Deadline, wit::BatchError> {
    fn returned(&self) -> Returned {
        Returned::L3Rx(*self)
    }
}

impl Output for Result<wit::Sent, wit::FlowError> {
    fn returned(&self) -> Returned {
        Returned::Sent(*self)
    }
}

impl Output for Result<wit::BatchSent, wit::BatchError> {
    fn returned(&self) -> Returned {
        Returned::BatchSent(self.clone())
    }
}

impl Output for wit::Deadline {
    fn returned(&self) -> Returned {
        Returned::Deadline(*self)
    }
}

impl Output for Result<wit::Deadline, wit::FlowError> {
    fn returned(&self) -> Returned {
        Returned::Flow(*self)
    }
}

impl Output for Result<(wit::FlowId, wit::Deadline), wit::OpenError> {
    fn returned(&self) -> Returned {
        Returned::Opened(*self)
    }
}

impl Output for Result<wit::FlowSnapshot, wit::FlowError> {
    fn returned(&self) -> Returned {
        Returned::Info(*self)
    }
}

impl Output for Vec<wit::FlowId> {
    fn returned(&self) -> Returned {
        Returned::Flows(self.clone())
    }
}

impl Output for wit::CounterSnapshot {
    fn returned(&self) -> Returned {
        Returned::Counters(Box::new(self.clone()))
    }
}
