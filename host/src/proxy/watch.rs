//! Who is told of the flows, and what there is to tell.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::error::DialError;
use super::target::Target;
use crate::FiveTuple;

/// Is told of each flow as it comes and goes. The calls come from the tasks that
/// carry the flows, several at once: they must be short and not block.
pub trait Watch: Send + Sync + 'static {
    /// A flow entered. It may yet be denied.
    fn opened(&self, flow: &Flow) {
        let _ = flow;
    }

    /// TCP: the destination answered, and the peer's SYN is answered. UDP and ping:
    /// there is a socket.
    fn dialled(&self, flow: &Flow) {
        let _ = flow;
    }

    /// The flow is over. Told once of each flow that was opened, unless the future of
    /// [`serve`](super::Proxy::serve) is dropped.
    fn ended(&self, flow: &Flow, end: &End) {
        let _ = (flow, end);
    }
}

/// Is told and forgets.
impl Watch for () {}

/// A flow as it is told of.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Counts up from 1.
    pub number: u64,
    /// Its identity; `local` is where its peer wanted to go.
    pub tuple: FiveTuple,
    /// Where it is dialled to.
    pub target: Target,
}

/// How a flow ended.
#[derive(Clone, Debug)]
pub struct End {
    /// Bytes from the peer to the destination.
    pub sent: u64,
    /// Bytes from the destination to the peer.
    pub received: u64,
    /// How long it lasted.
    pub lasted: Duration,
    /// Why.
    pub reason: Reason,
}

/// Why a flow ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Both sides said all they had to say.
    Finished,
    /// Nothing moved for as long as the timeout says: how flows without a
    /// connection end.
    Idle,
    /// A rule denies it.
    Denied,
    /// There were as many flows as there may be.
    Limited,
    /// It would come back as a new flow: its destination is behind the device.
    Looped,
    /// The destination was not reached.
    Failed(DialError),
    /// The peer took its request back before the destination answered.
    GaveUp,
    /// The peer reset it.
    ResetByPeer,
    /// The destination reset it.
    ResetByDestination,
    /// Another failure on the peer's side.
    Peer(String),
    /// Another failure on the destination's side.
    Destination(String),
    /// The proxy was stopped.
    Stopped,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Idle => f.write_str("idle"),
            Self::Denied => f.write_str("denied"),
            Self::Limited => f.write_str("too many flows"),
            Self::Looped => f.write_str("would come back through the device"),
            Self::Failed(error) => error.fmt(f),
            Self::GaveUp => f.write_str("given up by peer"),
            Self::ResetByPeer => f.write_str("reset by peer"),
            Self::ResetByDestination => f.write_str("reset by destination"),
            Self::Peer(error) => write!(f, "peer: {error}"),
            Self::Destination(error) => write!(f, "destination: {error}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// What became of all flows so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Flows that entered.
    pub flows: u64,
    /// Those whose destination was reached.
    pub dialled: u64,
    /// Those whose destination was not reached.
    pub failed: u64,
    /// Those that a rule denied.
    pub denied: u64,
    /// Those beyond the limits.
    pub limited: u64,
    /// Bytes from peers to destinations, of flows that have ended.
    pub sent: u64,
    /// Bytes from destinations to peers, of flows that have ended.
    pub received: u64,
}

impl Totals {
    /// As text for Prometheus (OpenMetrics), beside
    /// [`Stack::prometheus`](crate::stack::Stack::prometheus).
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut registry = Registry::with_prefix("l3l4_proxy");
        for (name, help, value) in [
            ("flows", "Flows that entered", self.flows),
            (
                "dialled",
                "Flows whose destination was reached",
                self.dialled,
            ),
            (
                "failed",
                "Flows whose destination was not reached",
                self.failed,
            ),
            ("denied", "Flows that a rule denied", self.denied),
            ("limited", "Flows beyond the limits", self.limited),
            ("sent_bytes", "Bytes from peers, of ended flows", self.sent),
            (
                "received_bytes",
                "Bytes to peers, of ended flows",
                self.received,
            ),
        ] {
            let counter = Counter::<u64>::default();
            counter.inc_by(value);
            registry.register(name, help, counter);
        }
        let mut text = String::new();
        // A string takes everything.
        let _ = encode(&mut text, &registry);
        text
    }
}

/// [`Totals`] as they grow.
#[derive(Debug, Default)]
pub(super) struct Tally {
    flows: AtomicU64,
    dialled: AtomicU64,
    failed: AtomicU64,
    denied: AtomicU64,
    limited: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Tally {
    /// Counts a flow, and numbers it.
    pub(super) fn opened(&self) -> u64 {
        self.flows.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn dialled(&self) {
        self.dialled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, end: &End) {
        self.sent.fetch_add(end.sent, Ordering::Relaxed);
        self.received.fetch_add(end.received, Ordering::Relaxed);
        let counter = match end.reason {
            Reason::Denied => &self.denied,
            Reason::Limited => &self.limited,
            Reason::Failed(_) | Reason::Looped => &self.failed,
            Reason::Finished
            | Reason::Idle
            | Reason::GaveUp
            | Reason::ResetByPeer
            | Reason::ResetByDestination
            | Reason::Peer(_)
            | Reason::Destination(_)
            | Reason::Stopped => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            flows: read(&self.flows),
            dialled: read(&self.dialled),
            failed: read(&self.failed),
            denied: read(&self.denied),
            limited: read(&self.limited),
            sent: read(&self.sent),
            received: read(&self.received),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Totals;

    #[test]
    fn totals_are_text_for_prometheus() {
        let text = Totals {
            flows: 3,
            ..Totals::default()
        }
        .prometheus();
        assert!(text.contains("\nl3l4_proxy_flows_total 3\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
