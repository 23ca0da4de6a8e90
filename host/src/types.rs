//! The vocabulary of the contract: the shapes of `wit/types.wit` in Rust.
//!
//! Enums and records whose generated form is already what an embedder wants are
//! re-exported from the bindings; the rest is defined here with the standard
//! library's types for times and addresses.

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Add, Sub};
use std::time::Duration;

pub use crate::bindings::l3l4::engine::types::{
    BatchError, Checksum, CloseReason, ConfigurationItem, ConfigureError, CongestionControl,
    DropReason, Event, FlowError, FlowState, IcmpEchoPolicy, OpenError, OutOfBounds, Packet,
    Protocol, Refusal, Timer, Unreachable,
};

/// A point on the embedder's monotonic clock, in nanoseconds from an origin of
/// the embedder's choice. [`Clock`](crate::Clock) makes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of the clock, 584 years from its origin.
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(rhs)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// Zero when `rhs` is later.
    fn sub(self, rhs: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(rhs.0))
    }
}

/// Seconds of its clock, to the nanosecond: `1.000000042`.
impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:09}",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}

/// A length of time in nanoseconds, saturating at `u64::MAX` (584 years).
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// `tcp`, `udp` or `icmp-echo`.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Protocol {
    /// As the contract writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::IcmpEcho => "icmp-echo",
        }
    }
}

/// As the contract writes it: `reset-by-peer`, `timed-out (idle)`.
impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(what) => write!(f, "unreachable ({})", words(what)),
            Self::TimedOut(timer) => write!(f, "timed-out ({})", words(timer)),
            Self::Finished
            | Self::ResetByPeer
            | Self::Refused
            | Self::Aborted
            | Self::Evicted
            | Self::OutOfMemory
            | Self::EngineLost => f.write_str(&words(self)),
        }
    }
}

/// As the contract writes it: `ip-checksum`.
impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&words(self))
    }
}

/// The last word of a variant of the contract, which its `Debug` form ends with.
fn words(variant: &impl fmt::Debug) -> String {
    let name = format!("{variant:?}");
    let name = name.rsplit("::").next().unwrap_or_default();
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('-');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

/// Names one flow for as long as it lives: the low 32 bits are a slot, the high
/// 32 bits the slot's generation, so that the id of a flow that has ended is
/// noticed ([`FlowError::UnknownFlow`]) and not mistaken for a later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The identity of a flow. Both addresses are of the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// What is spoken.
    pub protocol: Protocol,
    /// The side that the engine speaks for: any address, any port.
    pub local: SocketAddr,
    /// The host beyond the packets.
    pub peer: SocketAddr,
}

/// What the host lays down for one flow when it accepts or opens it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowOptions {
    /// Nagle's algorithm (RFC 9293 3.7.4): hold small segments back while data
    /// is in flight. TCP only.
    pub nagle: bool,
    /// Send a keep-alive after this long without a segment (RFC 9293 3.8.4), at
    /// least 1 s. TCP only.
    pub keep_alive: Option<Duration>,
    /// End this flow when nothing moved for this long, in place of the
    /// configuration's timeout for its protocol. 100 ms to 7 days.
    pub idle_timeout: Option<Duration>,
    /// End this flow when data or FIN is outstanding and the peer is silent for
    /// this long, in place of the configuration's
    /// [`user_timeout`](crate::Builder::user_timeout) (RFC 9293 3.8.3, RFC 5482).
    /// 100 ms to 7 days. TCP only.
    pub user_timeout: Option<Duration>,
}

impl FlowOptions {
    /// With each number brought to the nearest bound.
    #[cfg(feature = "stack")]
    pub(crate) fn clamped(self) -> Self {
        const LEAST: Duration = Duration::from_millis(100);
        const MOST: Duration = Duration::from_secs(7 * 24 * 3600);
        let within = |timeout: Duration| timeout.clamp(LEAST, MOST);
        Self {
            nagle: self.nagle,
            keep_alive: self.keep_alive.map(|time| time.max(Duration::from_secs(1))),
            idle_timeout: self.idle_timeout.map(within),
            user_timeout: self.user_timeout.map(within),
        }
    }
}

/// The host's answer to a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// TCP: answer the SYN. UDP and ICMP echo: deliver.
    Accept(FlowOptions),
    /// Tell the peer no.
    Refuse(Refusal),
    /// Say nothing and forget the flow; the peer's next try is a new flow.
    Drop,
    /// Decide later with [`Engine::flow_verdict`](crate::Engine::flow_verdict).
    Wait,
}

impl Verdict {
    /// Accept with the default options.
    pub const ACCEPT: Self = Self::Accept(FlowOptions {
        nagle: false,
        keep_alive: None,
        idle_timeout: None,
        user_timeout: None,
    });
}

/// What [`Engine::l4_tx`](crate::Engine::l4_tx) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Bytes taken from the front of the data. The engine owns them from here.
    pub taken: usize,
    /// When the engine next wants [`Engine::l4_poll`](crate::Engine::l4_poll).
    pub deadline: Option<Instant>,
}

/// What [`Engine::l4_tx_batch`](crate::Engine::l4_tx_batch) did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSent {
    /// For each portion, in order: the bytes taken from its front, which the engine
    /// owns from here, or why it was refused.
    pub taken: Vec<Result<usize, FlowError>>,
    /// When the engine next wants [`Engine::l4_poll`](crate::Engine::l4_poll).
    pub deadline: Option<Instant>,
}

/// A snapshot of one flow. Bytes count payload, never headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSnapshot {
    /// The identity.
    pub tuple: FiveTuple,
    /// Where it stands.
    pub state: FlowState,
    /// When it was announced or opened.
    pub opened: Instant,
    /// Bytes that the host took from `l4_rx`.
    pub bytes_received: u64,
    /// Bytes that the engine took in `l4_tx`.
    pub bytes_sent: u64,
    /// Received bytes that the host has not taken.
    pub receive_queue: u32,
    /// Bytes taken in `l4_tx` that the peer has not acknowledged.
    pub send_queue: u32,
    /// TCP: the window last offered to the peer, in bytes.
    pub receive_window: u32,
    /// TCP: the window last offered by the peer, in bytes.
    pub send_window: u32,
    /// TCP: most bytes that congestion control allows in flight; 0 for other flows.
    pub congestion_window: u32,
    /// TCP: largest payload of a segment sent, in bytes; 0 for other flows.
    pub max_segment_size: u32,
    /// TCP: the smoothed round-trip time (RFC 6298), if there was a sample.
    pub round_trip_time: Option<Duration>,
    /// TCP: the retransmission timeout (RFC 6298).
    pub retransmission_timeout: Option<Duration>,
    /// TCP: segments with data sent more than once.
    pub retransmits: u64,
}

/// Totals since the engine instance was made, and the last four as they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// Packets given to `l3_rx`.
    pub l3_rx_packets: u64,
    /// Bytes given to `l3_rx`.
    pub l3_rx_bytes: u64,
    /// Packets that the host took from `l3_tx`.
    pub l3_tx_packets: u64,
    /// Bytes that the host took from `l3_tx`.
    pub l3_tx_bytes: u64,
    /// Bytes that the host took from `l4_rx`.
    pub l4_rx_bytes: u64,
    /// Bytes that the engine took in `l4_tx`.
    pub l4_tx_bytes: u64,
    /// Calls of `l4_poll`.
    pub l4_polls: u64,
    /// Packets dropped by `l3_rx`, in the order of [`DropReason::ALL`].
    pub drops: [u64; DropReason::ALL.len()],
    /// Datagrams put together from their fragments.
    pub datagrams_reassembled: u64,
    /// Replies that were not made because the device took no packets.
    pub replies_lost: u64,
    /// Replies that were not made because of `max_stray_replies`.
    pub replies_limited: u64,
    /// Flows announced by `flow_new`.
    pub flows_announced: u64,
    /// Flows opened by `flow_open`.
    pub flows_opened: u64,
    /// Flows that ended.
    pub flows_closed: u64,
    /// Half-open flows evicted.
    pub flows_evicted: u64,
    /// Accepted or opened flows refused for want of memory.
    pub flows_out_of_memory: u64,
    /// Repeated SYNs of flows that await their verdict.
    pub repeated_syns: u64,
    /// SYNs answered with a SYN cookie.
    pub syn_cookies_sent: u64,
    /// Handshakes completed by a SYN cookie.
    pub syn_cookies_accepted: u64,
    /// Challenge ACKs sent (RFC 5961).
    pub challenge_acks: u64,
    /// Segments with data sent more than once.
    pub retransmits: u64,
    /// Calls whose instant was earlier than one already seen.
    pub time_went_back: u64,
    /// Flows that live.
    pub flows: u32,
    /// Half-open flows among them.
    pub half_open: u32,
    /// TIME-WAIT records.
    pub time_wait: u32,
    /// Bytes of flows' buffers and records.
    pub memory_bytes: u64,
}

impl CounterSnapshot {
    /// Packets dropped for one reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}

impl DropReason {
    /// All reasons, in the order of the contract.
    pub const ALL: [Self; 18] = [
        Self::IpVersion,
        Self::Malformed,
        Self::IpChecksum,
        Self::TransportChecksum,
        Self::Fragment,
        Self::ExtensionHeader,
        Self::UnsupportedProtocol,
        Self::Martian,
        Self::StraySegment,
        Self::Unacceptable,
        Self::OutOfMemory,
        Self::Undecided,
        Self::FlowLimit,
        Self::Refused,
        Self::Dropped,
        Self::NotTaken,
        Self::EchoPolicy,
        Self::IcmpIgnored,
    ];
}

#[cfg(test)]
mod tests {
    use super::{CloseReason, DropReason, Instant, Protocol, Timer, Unreachable};

    #[test]
    fn variants_read_as_in_the_contract() {
        assert_eq!(DropReason::IpChecksum.to_string(), "ip-checksum");
        assert_eq!(CloseReason::ResetByPeer.to_string(), "reset-by-peer");
        let idle = CloseReason::TimedOut(Timer::Idle);
        assert_eq!(idle.to_string(), "timed-out (idle)");
        let port = CloseReason::Unreachable(Unreachable::Port);
        assert_eq!(port.to_string(), "unreachable (port)");
        assert_eq!(Protocol::IcmpEcho.to_string(), "icmp-echo");
    }

    #[test]
    fn an_instant_reads_as_seconds() {
        assert_eq!(Instant(1_000_000_042).to_string(), "1.000000042");
    }
}
