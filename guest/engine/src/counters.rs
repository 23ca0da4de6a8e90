//! Totals: one counter a verb and one a drop reason.

/// Why a packet that came in had no effect; explained in `wit/types.wit`.
#[expect(missing_docs, reason = "the contract explains each")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    IpVersion,
    Malformed,
    IpChecksum,
    TransportChecksum,
    Fragment,
    ExtensionHeader,
    UnsupportedProtocol,
    Martian,
    StraySegment,
    Unacceptable,
    OutOfMemory,
    Undecided,
    FlowLimit,
    Refused,
    Dropped,
    NotTaken,
    EchoPolicy,
    IcmpIgnored,
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

/// Totals since the engine was made; explained in `wit/types.wit`.
#[expect(missing_docs, reason = "the contract explains each")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    pub l3_rx_packets: u64,
    pub l3_rx_bytes: u64,
    pub l3_tx_packets: u64,
    pub l3_tx_bytes: u64,
    pub l4_rx_bytes: u64,
    pub l4_tx_bytes: u64,
    pub l4_polls: u64,
    pub drops: [u64; DropReason::ALL.len()],
    pub datagrams_reassembled: u64,
    pub replies_lost: u64,
    pub replies_limited: u64,
    pub flows_announced: u64,
    pub flows_opened: u64,
    pub flows_closed: u64,
    pub flows_evicted: u64,
    pub flows_out_of_memory: u64,
    pub repeated_syns: u64,
    pub syn_cookies_sent: u64,
    pub syn_cookies_accepted: u64,
    pub challenge_acks: u64,
    pub retransmits: u64,
    pub time_went_back: u64,
    pub flows: u32,
    pub half_open: u32,
    pub time_wait: u32,
    pub memory_bytes: u64,
}

impl CounterSnapshot {
    /// Packets dropped for one reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    pub(crate) fn drop_packet(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
}
