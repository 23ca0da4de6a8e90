//! The vocabulary of the engine: the shapes of `wit/types.wit` in Rust.

use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::ops::{Add, Sub};
use core::time::Duration;

/// A point on the embedder's monotonic clock, in nanoseconds from an origin of
/// the embedder's choice.
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

/// The sooner of two instants that may not be. Every call asks for several, and an
/// array's `flatten().min()` takes more instructions.
pub(crate) fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// A length of time in nanoseconds, saturating at `u64::MAX`.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    // Without a product of 128 bits, which wasm has no instruction for.
    match duration.as_secs() < u64::MAX / SECOND {
        true => duration.as_secs() * SECOND + u64::from(duration.subsec_nanos()),
        false => u64::MAX,
    }
}

/// A length of time in one word of nanoseconds: what every packet is timed with is not
/// divided into seconds first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) u64);

impl Span {
    pub(crate) const fn milliseconds(milliseconds: u32) -> Self {
        Self(milliseconds as u64 * 1_000_000)
    }
}

impl Add<Span> for Instant {
    type Output = Self;

    /// Saturates at the end of the clock.
    fn add(self, rhs: Span) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl Instant {
    /// Zero when `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

/// Names one flow for as long as it lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// What a flow speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// A TCP connection: two byte streams.
    Tcp,
    /// A UDP conversation: datagrams, boundaries kept.
    Udp,
    /// Echo requests of one peer with one identifier, which stands in the peer's
    /// port; the local port is 0. A datagram is the sequence number (2 bytes,
    /// network order) and the echo data.
    IcmpEcho,
}

/// The identity of a flow. Both addresses are of the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// What is spoken.
    pub protocol: Protocol,
    /// The side that the engine speaks for.
    pub local: SocketAddr,
    /// The host beyond the packets.
    pub peer: SocketAddr,
}

/// The state of the checksums of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The packet carries them.
    #[default]
    Full,
    /// In: not looked at. Out: left to the device (never said by this version).
    Offloaded,
}

/// One packet of a batch; the bytes of a batch lie end to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Bytes of this packet, from the IP header on.
    pub length: u32,
    /// Payload bytes a segment of a TCP super-segment, or 0.
    pub segment_size: u16,
    /// The state of the checksums.
    pub checksum: Checksum,
}

/// What the host lays down for one flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowOptions {
    /// Nagle's algorithm (RFC 9293 3.7.4). TCP only.
    pub nagle: bool,
    /// Interval of keep-alives (RFC 9293 3.8.4), at least 1 s. TCP only.
    pub keep_alive: Option<Duration>,
    /// In place of the configuration's idle timeout for the flow's protocol.
    pub idle_timeout: Option<Duration>,
    /// In place of the configuration's `user_timeout` (RFC 5482). TCP only.
    pub user_timeout: Option<Duration>,
}

/// How a refused peer is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// TCP: RST. UDP: as `PortUnreachable`. ICMP echo: as `Prohibited`.
    Reset,
    /// ICMPv4 3/0, ICMPv6 1/0.
    NetworkUnreachable,
    /// ICMPv4 3/1, ICMPv6 1/3.
    HostUnreachable,
    /// ICMPv4 3/3, ICMPv6 1/4.
    PortUnreachable,
    /// ICMPv4 3/13, ICMPv6 1/1.
    Prohibited,
}

/// The host's answer to a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// TCP: answer the SYN. Datagrams: deliver.
    Accept(FlowOptions),
    /// Tell the peer no.
    Refuse(Refusal),
    /// Say nothing and forget the flow.
    Drop,
    /// Decide later.
    Wait,
}

/// Why the network says a peer cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No route to the network.
    Network,
    /// No route to the host.
    Host,
    /// The host does not speak the protocol.
    Protocol,
    /// Nothing listens on the port.
    Port,
    /// An administrator forbids it.
    Prohibited,
    /// Another code.
    Other,
}

/// A time limit of the configuration that ended a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// `verdict_timeout`.
    Verdict,
    /// `handshake_timeout`.
    Handshake,
    /// An idle timeout.
    Idle,
    /// `user_timeout`.
    User,
    /// `fin_wait_timeout`.
    FinWait,
}

/// The truth about how a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Both sides finished, all data was delivered and acknowledged.
    Finished,
    /// The peer sent a valid RST.
    ResetByPeer,
    /// The peer answered our SYN with RST.
    Refused,
    /// The network answered our SYN or datagram with an ICMP error.
    Unreachable(Unreachable),
    /// A time limit ran out.
    TimedOut(Timer),
    /// The host ended it.
    Aborted,
    /// Newer half-open flows needed the room (`max_half_open` without
    /// `syn_cookies`).
    Evicted,
    /// There was no memory for an accepted flow.
    OutOfMemory,
}

/// What happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// TCP: the handshake is complete.
    Established,
    /// An `l4_tx`, or a portion of an `l4_tx_batch`, was not taken whole; there is room
    /// again.
    Writable,
    /// The peer sent FIN and all its data was taken.
    PeerFinished,
    /// The peer has reset the connection, and data that came before waits for the
    /// host. `Closed(ResetByPeer)` follows when it was taken, or with `flow_abort`.
    PeerReset,
    /// The flow has ended; its id is unknown from here.
    Closed(CloseReason),
}

/// Why `l3_rx` or `l4_tx_batch` refused a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// The lengths of the packets or portions do not add up to the length of the
    /// bytes.
    LengthMismatch,
}

/// Why a call about a flow was refused. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowError {
    /// No such flow.
    UnknownFlow,
    /// The flow waits for its verdict.
    Undecided,
    /// The flow has its verdict.
    AlreadyDecided,
    /// The local side has finished sending.
    Finished,
    /// The connection has ended; its last data or `Closed` is undelivered.
    Closing,
    /// The datagram does not fit into one packet of the MTU.
    TooLong,
    /// The call does not fit the flow's protocol.
    WrongProtocol,
    /// The address is of the other family, or no unicast address.
    BadAddress,
    /// An option is outside of its bounds.
    BadOption,
}

/// Why `flow_open` refused. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// No unicast address, port 0, two families, the same ends, or ICMP echo.
    BadAddress,
    /// A flow with this tuple exists.
    InUse,
    /// `max_flows` is reached.
    FlowLimit,
    /// `memory_limit` is reached.
    OutOfMemory,
    /// An option is outside of its bounds.
    BadOption,
}

/// What `l4_tx` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Bytes taken from the front of the data.
    pub taken: usize,
    /// When the engine next wants `l4_poll`.
    pub deadline: Option<Instant>,
}

/// What one flow gets of a batch of data to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// The flow.
    pub flow: FlowId,
    /// Bytes of this portion.
    pub length: u32,
}

/// What `l4_tx_batch` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSent {
    /// For each portion: the bytes taken from its front, or why it was refused.
    pub taken: Vec<Result<usize, FlowError>>,
    /// When the engine next wants `l4_poll`.
    pub deadline: Option<Instant>,
}

/// Where a flow stands (RFC 9293 3.3.2).
#[expect(missing_docs, reason = "the names are the RFC's")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// Announced, no verdict yet.
    Waiting,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    /// The connection is over; data or the `Closed` event is undelivered.
    Closed,
    /// A UDP or ICMP echo flow.
    Datagram,
}

/// A snapshot of one flow; bytes count payload.
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
    /// The window last offered to the peer, in bytes.
    pub receive_window: u32,
    /// The window last offered by the peer, in bytes.
    pub send_window: u32,
    /// Most bytes that congestion control allows in flight.
    pub congestion_window: u32,
    /// Largest payload of a segment sent, in bytes; 0 for datagram flows.
    pub max_segment_size: u32,
    /// The smoothed round-trip time (RFC 6298).
    pub round_trip_time: Option<Duration>,
    /// The retransmission timeout (RFC 6298), with its backoff.
    pub retransmission_timeout: Option<Duration>,
    /// Segments with data sent more than once.
    pub retransmits: u64,
}

/// What the engine calls. Implementations cannot call the engine back: it is
/// borrowed for as long as they run.
pub trait Callbacks {
    /// Packets to transmit, end to end in `bytes`. Returns how many, from the
    /// front, were taken; the engine keeps the rest and offers it again at the
    /// start of the next call.
    fn l3_tx(&mut self, bytes: &[u8], packets: &[Packet]) -> usize;

    /// Received data. Returns how many bytes, from the front, were taken. TCP:
    /// fewer than all holds the rest until `flow_resume`. A datagram that is not
    /// taken in full is dropped.
    fn l4_rx(&mut self, flow: FlowId, data: &[u8]) -> usize;

    /// A peer opens a flow; nothing was answered yet.
    fn flow_new(&mut self, flow: FlowId, tuple: &FiveTuple) -> Verdict;

    /// Something happened to a flow.
    fn flow_event(&mut self, flow: FlowId, event: Event);
}
