//! What an embedder can set, with defaults and bounds.

use core::ops::RangeInclusive;
use core::time::Duration;

use crate::types::{FlowOptions, nanoseconds};

/// What is done with ICMP echo requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IcmpEchoPolicy {
    /// The engine answers (RFC 1122 3.2.2.6, RFC 4443 4.2).
    #[default]
    Answer,
    /// Silence.
    Drop,
    /// Announced to the host as flows of protocol `IcmpEcho`.
    Deliver,
}

/// What limits the data in flight beside the peer's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionControl {
    /// CUBIC (RFC 9438).
    #[default]
    Cubic,
    /// NewReno (RFC 5681, RFC 6582).
    Reno,
    /// The peer's window alone limits: for links that cannot congest, as between
    /// a microVM and its host.
    None,
}

/// The configuration of one engine; the meaning, default and bounds of each item
/// stand in `wit/types.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Keys the initial sequence numbers, the flow table and the flow ids.
    pub seed: [u8; 32],
    /// Largest IP packet to emit, in bytes.
    pub mtu: u32,
    /// Most flows at once.
    pub max_flows: u32,
    /// Most half-open flows among them.
    pub max_half_open: u32,
    /// At `max_half_open`: answer SYNs without state, or evict the oldest.
    pub syn_cookies: bool,
    /// Most bytes for the buffers and records of flows.
    pub memory_limit: u64,
    /// Largest window that a TCP flow may grow to, in bytes.
    pub tcp_receive_buffer: u32,
    /// Most bytes that a TCP flow may hold unacknowledged.
    pub tcp_send_buffer: u32,
    /// What limits a TCP flow's data in flight beside the peer's window.
    pub congestion_control: CongestionControl,
    /// Floor of the retransmission timeout.
    pub min_rto: Duration,
    /// How long a flow may wait for its verdict after the peer's last packet.
    pub verdict_timeout: Duration,
    /// From our first SYN or SYN-ACK until established.
    pub handshake_timeout: Duration,
    /// A TCP flow on which nothing moves.
    pub tcp_idle_timeout: Duration,
    /// Data or FIN outstanding and no segment from the peer.
    pub user_timeout: Duration,
    /// Our FIN acknowledged and no segment from the peer.
    pub fin_wait_timeout: Duration,
    /// How long a closed connection's tuple is remembered.
    pub time_wait: Duration,
    /// A UDP flow without a datagram.
    pub udp_idle_timeout: Duration,
    /// An ICMP echo flow without a message.
    pub icmp_idle_timeout: Duration,
    /// ICMP echo requests.
    pub icmp_echo: IcmpEchoPolicy,
    /// Most replies a second to packets of no flow.
    pub max_stray_replies: u32,
    /// Most bytes of fragments whose datagrams are not complete.
    pub reassembly_memory: u32,
    /// How long a datagram's fragments are kept after the first.
    pub reassembly_timeout: Duration,
}

impl Config {
    /// The defaults, with a seed of 32 bytes from a cryptographic source.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            seed,
            mtu: 1500,
            max_flows: 65_536,
            max_half_open: 4096,
            syn_cookies: true,
            memory_limit: 256 << 20,
            tcp_receive_buffer: 4 << 20,
            tcp_send_buffer: 4 << 20,
            congestion_control: CongestionControl::Cubic,
            min_rto: Duration::from_millis(200),
            verdict_timeout: Duration::from_secs(75),
            handshake_timeout: Duration::from_secs(63),
            tcp_idle_timeout: Duration::from_secs(7440),
            user_timeout: Duration::from_secs(120),
            fin_wait_timeout: Duration::from_secs(60),
            time_wait: Duration::from_secs(60),
            udp_idle_timeout: Duration::from_secs(300),
            icmp_idle_timeout: Duration::from_secs(60),
            icmp_echo: IcmpEchoPolicy::Answer,
            max_stray_replies: 1000,
            reassembly_memory: 4 << 20,
            reassembly_timeout: Duration::from_secs(60),
        }
    }

    /// The first item outside of its bounds, if any.
    pub(crate) fn check(&self) -> Result<(), OutOfBounds> {
        use ConfigItem as I;
        let numbers = [
            (I::Mtu, self.mtu.into(), 1280..=65_535),
            (I::MaxFlows, self.max_flows.into(), 1..=1 << 20),
            (I::MaxHalfOpen, self.max_half_open.into(), 1..=1 << 20),
            (I::MemoryLimit, self.memory_limit, 1 << 20..=3 << 30),
            (
                I::TcpReceiveBuffer,
                self.tcp_receive_buffer.into(),
                2048..=16 << 20,
            ),
            (
                I::TcpSendBuffer,
                self.tcp_send_buffer.into(),
                2048..=16 << 20,
            ),
            (
                I::MaxStrayReplies,
                self.max_stray_replies.into(),
                0..=1_000_000,
            ),
            (
                I::ReassemblyMemory,
                self.reassembly_memory.into(),
                128 << 10..=256 << 20,
            ),
            (I::MinRto, nanoseconds(self.min_rto), MIN_RTO_BOUNDS),
        ];
        let timeouts = [
            (I::VerdictTimeout, self.verdict_timeout),
            (I::HandshakeTimeout, self.handshake_timeout),
            (I::TcpIdleTimeout, self.tcp_idle_timeout),
            (I::UserTimeout, self.user_timeout),
            (I::FinWaitTimeout, self.fin_wait_timeout),
            (I::TimeWait, self.time_wait),
            (I::UdpIdleTimeout, self.udp_idle_timeout),
            (I::IcmpIdleTimeout, self.icmp_idle_timeout),
            (I::ReassemblyTimeout, self.reassembly_timeout),
        ]
        .map(|(item, timeout)| (item, nanoseconds(timeout), TIMEOUT_BOUNDS));
        for (item, given, bounds) in numbers.into_iter().chain(timeouts) {
            if !bounds.contains(&given) {
                return Err(OutOfBounds {
                    item,
                    given,
                    least: *bounds.start(),
                    most: *bounds.end(),
                });
            }
        }
        Ok(())
    }
}

impl FlowOptions {
    /// The same, each option brought inside of its bounds.
    pub(crate) fn clamped(self) -> Self {
        let most = Duration::from_nanos(*TIMEOUT_BOUNDS.end());
        let least = Duration::from_nanos(*TIMEOUT_BOUNDS.start());
        let timeout = |time: Duration| time.clamp(least, most);
        Self {
            nagle: self.nagle,
            keep_alive: self
                .keep_alive
                .map(|time| time.clamp(Duration::from_nanos(SECOND), most)),
            idle_timeout: self.idle_timeout.map(timeout),
            user_timeout: self.user_timeout.map(timeout),
        }
    }

    /// Whether every option is inside of its bounds.
    pub(crate) fn in_bounds(&self) -> bool {
        let within = |value: Option<Duration>, bounds: RangeInclusive<u64>| {
            value.is_none_or(|value| bounds.contains(&nanoseconds(value)))
        };
        within(self.idle_timeout, TIMEOUT_BOUNDS)
            && within(self.user_timeout, TIMEOUT_BOUNDS)
            && within(self.keep_alive, SECOND..=*TIMEOUT_BOUNDS.end())
    }
}

const SECOND: u64 = 1_000_000_000;
/// 100 ms to 7 days: shorter ends flows that are merely slow, longer is for ever.
const TIMEOUT_BOUNDS: RangeInclusive<u64> = SECOND / 10..=7 * 24 * 3600 * SECOND;
/// 10 ms to 60 s: below, an acknowledgment that is merely delayed is taken for a
/// loss; above is more than the largest timeout needs to be (RFC 6298 2.5).
const MIN_RTO_BOUNDS: RangeInclusive<u64> = SECOND / 100..=60 * SECOND;

/// The items of [`Config`] that have bounds.
#[expect(missing_docs, reason = "the fields of Config are documented")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigItem {
    Mtu,
    MaxFlows,
    MaxHalfOpen,
    MemoryLimit,
    TcpReceiveBuffer,
    TcpSendBuffer,
    MinRto,
    VerdictTimeout,
    HandshakeTimeout,
    TcpIdleTimeout,
    UserTimeout,
    FinWaitTimeout,
    TimeWait,
    UdpIdleTimeout,
    IcmpIdleTimeout,
    MaxStrayReplies,
    ReassemblyMemory,
    ReassemblyTimeout,
}

/// A value outside of its bounds, in the item's unit (nanoseconds for times).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBounds {
    /// Which.
    pub item: ConfigItem,
    /// What it was.
    pub given: u64,
    /// The smallest value allowed.
    pub least: u64,
    /// The largest value allowed.
    pub most: u64,
}
