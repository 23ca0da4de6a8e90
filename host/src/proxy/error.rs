//! Why a destination was not reached, and what its peer is told.

use std::io;

use rustix::io::Errno;

use crate::Refusal;

/// Why a destination was not reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The destination said no: nobody listens.
    #[error("connection refused")]
    Refused,
    /// The network says that the host is not there.
    #[error("host unreachable")]
    HostUnreachable,
    /// There is no way to its network.
    #[error("network unreachable")]
    NetworkUnreachable,
    /// Somebody on the way forbids it.
    #[error("prohibited")]
    Prohibited,
    /// Nobody answered.
    #[error("no answer")]
    NoAnswer,
    /// The name has no address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// The upstream itself cannot be reached, or does not do its work.
    #[error("upstream: {0}")]
    Upstream(String),
    /// The upstream carries TCP only.
    #[error("the upstream carries no UDP")]
    NoUdp,
    /// This host lacks something: descriptors, ports, memory.
    #[error("this host: {0}")]
    Local(String),
}

impl DialError {
    /// What the peer is told; `None` is silence, after which it tries again, as it
    /// would where the destination itself is silent.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused => Some(Refusal::Reset),
            Self::HostUnreachable | Self::NoAddress(_) => Some(Refusal::HostUnreachable),
            Self::NetworkUnreachable | Self::Upstream(_) => Some(Refusal::NetworkUnreachable),
            Self::Prohibited => Some(Refusal::Prohibited),
            // What a client of UDP takes notice of (udp(7)), so that it turns to TCP.
            Self::NoUdp => Some(Refusal::PortUnreachable),
            Self::NoAnswer | Self::Local(_) => None,
        }
    }

    /// The same failure where not the destination but the upstream was dialled: its
    /// refusal is not the destination's.
    pub(super) fn of_upstream(self) -> Self {
        match self {
            Self::Upstream(_) | Self::Local(_) | Self::NoUdp => self,
            Self::Refused
            | Self::HostUnreachable
            | Self::NetworkUnreachable
            | Self::Prohibited
            | Self::NoAnswer
            | Self::NoAddress(_) => Self::Upstream(self.to_string()),
        }
    }
}

/// What the kernel says of a `connect`, or of a connected datagram socket: connect(2),
/// ip(7) and icmp's own table (RFC 1122 4.2.3.9).
impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::CONNREFUSED | Errno::CONNRESET) => Self::Refused,
            Some(Errno::HOSTUNREACH | Errno::HOSTDOWN) => Self::HostUnreachable,
            // Not available and invalid: this host has no address to reach it from,
            // as with a link-local destination without its interface.
            Some(
                Errno::NETUNREACH
                | Errno::NETDOWN
                | Errno::ADDRNOTAVAIL
                | Errno::INVAL
                | Errno::AFNOSUPPORT
                | Errno::NODEV,
            ) => Self::NetworkUnreachable,
            Some(Errno::ACCESS | Errno::PERM) => Self::Prohibited,
            Some(Errno::TIMEDOUT) => Self::NoAnswer,
            Some(_) | None => Self::Local(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustix::io::Errno;

    use super::DialError;
    use crate::Refusal;

    /// What the peer is told for a failed `connect`.
    fn told(errno: Errno) -> Option<Refusal> {
        DialError::from(io::Error::from(errno)).refusal()
    }

    #[test]
    fn the_peer_is_told_what_the_kernel_was() {
        assert_eq!(told(Errno::CONNREFUSED), Some(Refusal::Reset));
        assert_eq!(told(Errno::HOSTUNREACH), Some(Refusal::HostUnreachable));
        assert_eq!(told(Errno::NETUNREACH), Some(Refusal::NetworkUnreachable));
        assert_eq!(told(Errno::ACCESS), Some(Refusal::Prohibited));
    }

    #[test]
    fn silence_and_our_own_shortage_are_passed_on_as_silence() {
        for errno in [Errno::TIMEDOUT, Errno::MFILE, Errno::NOBUFS] {
            assert_eq!(told(errno), None, "{errno:?}");
        }
    }

    #[test]
    fn an_upstream_that_refuses_is_not_a_destination_that_refuses() {
        let error = DialError::Refused.of_upstream();
        assert_eq!(error.refusal(), Some(Refusal::NetworkUnreachable));
        assert_eq!(error.to_string(), "upstream: connection refused");
    }
}
