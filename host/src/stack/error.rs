//! Why a flow ended, as the errors of [`std::io`].

use std::io::{self, ErrorKind};

use crate::{CloseReason, Unreachable};

/// What an [`io::Error`] of a flow that has ended, or that its peer has reset,
/// carries ([`io::Error::get_ref`]): the truth about its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flow has ended: {0}")]
pub struct FlowEnded(pub CloseReason);

impl FlowEnded {
    /// The reason in an error of this module, if it is about a flow's end.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<CloseReason> {
        let ended = error.get_ref()?.downcast_ref::<Self>()?;
        Some(ended.0)
    }
}

impl From<FlowEnded> for io::Error {
    fn from(ended: FlowEnded) -> Self {
        Self::new(kind(ended.0), ended)
    }
}

fn kind(reason: CloseReason) -> ErrorKind {
    match reason {
        CloseReason::Finished => ErrorKind::NotConnected,
        CloseReason::ResetByPeer | CloseReason::EngineLost => ErrorKind::ConnectionReset,
        CloseReason::Refused => ErrorKind::ConnectionRefused,
        CloseReason::Unreachable(what) => match what {
            Unreachable::Network => ErrorKind::NetworkUnreachable,
            Unreachable::Port => ErrorKind::ConnectionRefused,
            Unreachable::Prohibited => ErrorKind::PermissionDenied,
            Unreachable::Host | Unreachable::Protocol | Unreachable::Other => {
                ErrorKind::HostUnreachable
            }
        },
        CloseReason::TimedOut(_) => ErrorKind::TimedOut,
        CloseReason::Aborted | CloseReason::Evicted => ErrorKind::ConnectionAborted,
        CloseReason::OutOfMemory => ErrorKind::OutOfMemory,
    }
}

/// The driver, with the engine and the device, is gone.
pub(super) fn stack_ended() -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, "the stack has ended")
}

/// What the engine said no to.
pub(super) fn refused(error: crate::Error) -> io::Error {
    let kind = match &error {
        crate::Error::Open(crate::OpenError::InUse) => ErrorKind::AddrInUse,
        crate::Error::Open(crate::OpenError::BadAddress) => ErrorKind::AddrNotAvailable,
        crate::Error::Open(crate::OpenError::OutOfMemory) => ErrorKind::OutOfMemory,
        _ => ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timer;

    #[test]
    fn an_error_tells_its_reason() {
        let reason = CloseReason::TimedOut(Timer::User);
        let error = io::Error::from(FlowEnded(reason));
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(FlowEnded::of(&error), Some(reason));
        assert_eq!(FlowEnded::of(&stack_ended()), None);
    }
}
