//! What a replay did, in numbers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::captured::Gaps;
use super::mapper::{Mapping, MappingCounts};
use crate::types::{CloseReason, CounterSnapshot, Protocol};

/// How many of the flows without a captured start are listed.
pub const MOST_LISTED: usize = 10;

/// What a replay did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Packets and bytes of the capture.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets of the capture that were fed.
    pub fed: u64,
    /// Bytes of them.
    pub fed_bytes: u64,
    /// Among those that were fed: the checksum was left to a device, and is not
    /// verified.
    pub offloaded: u64,
    /// Packets that were not fed.
    pub not_fed: NotFed,
    /// Flows that ended, by how they did.
    pub ended: BTreeMap<(&'static str, String), u64>,
    /// Flows that have not ended, by protocol.
    pub open: BTreeMap<&'static str, u64>,
    /// TCP flows of which a part of the peer's data is not in the capture: what
    /// came after it was not delivered.
    pub incomplete: u64,
    /// TCP flows whose start was not captured.
    pub start_missing: StartMissing,
    /// What the fed acknowledgements were made to say.
    pub mapping: Mapping,
    /// How often.
    pub mapped: MappingCounts,
    /// What the application sent that was not in the capture.
    pub gaps: Gaps,
    /// Bytes and datagrams that the application could not send: its flow had ended,
    /// it held too many, or the datagram is longer than the MTU.
    pub unsent: u64,
    /// How often the guest trapped; the counters are those since.
    pub traps: u64,
    /// The engine's counters.
    pub counters: CounterSnapshot,
}

/// Why packets of the capture were not fed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotFed {
    /// Sent by the side that the engine speaks for.
    pub other_side: u64,
    /// Neither side was asked for.
    pub not_selected: u64,
    /// Of a TCP flow whose start was not captured.
    pub start_missing: u64,
    /// The capture has only their first bytes.
    pub cut: u64,
    /// No IP packets.
    pub not_ip: u64,
    /// The flow was over, or refused, earlier than in the capture.
    pub after_end: u64,
    /// ICMP errors about flows that are not known, and packets that belong to no
    /// flow, from too many addresses to keep apart.
    pub unrelated: u64,
}

impl NotFed {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.other_side
            + self.not_selected
            + self.start_missing
            + self.cut
            + self.not_ip
            + self.after_end
            + self.unrelated
    }
}

/// The TCP flows whose start was not captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartMissing {
    /// How many; at least so many when `more` is set.
    pub flows: u64,
    /// There are others, which were not told apart.
    pub more: bool,
    /// The first few: both ends, and how many packets.
    pub listed: Vec<(SocketAddr, SocketAddr, u64)>,
}

impl Report {
    pub(crate) fn new(mapping: Mapping) -> Self {
        Self {
            packets: 0,
            bytes: 0,
            fed: 0,
            fed_bytes: 0,
            offloaded: 0,
            not_fed: NotFed::default(),
            ended: BTreeMap::new(),
            open: BTreeMap::new(),
            incomplete: 0,
            start_missing: StartMissing::default(),
            mapping,
            mapped: MappingCounts::default(),
            gaps: Gaps::default(),
            unsent: 0,
            traps: 0,
            counters: CounterSnapshot::default(),
        }
    }

    pub(crate) fn ending(&mut self, protocol: Protocol, reason: CloseReason) {
        let key = (protocol.name(), reason.to_string());
        *self.ended.entry(key).or_default() += 1;
    }
}
