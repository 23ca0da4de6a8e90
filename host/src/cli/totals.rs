//! The engine's totals, for people and for programs.

use l3l4_host::{CounterSnapshot, DropReason};
use serde::Serialize;

use super::units::{bytes, grouped};

/// What of the counters concerns a user.
#[derive(Debug, Serialize)]
pub(crate) struct Totals {
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    data_in: u64,
    data_out: u64,
    flows: u64,
    retransmits: u64,
    syn_cookies_accepted: u64,
    challenge_acks: u64,
    datagrams_reassembled: u64,
    dropped: Vec<Dropped>,
}

#[derive(Debug, Serialize)]
struct Dropped {
    reason: String,
    packets: u64,
}

impl From<CounterSnapshot> for Totals {
    fn from(counters: CounterSnapshot) -> Self {
        let dropped = DropReason::ALL.into_iter().filter_map(|reason| {
            let packets = counters.dropped(reason);
            (packets > 0).then(|| Dropped {
                reason: reason.to_string(),
                packets,
            })
        });
        Self {
            packets_in: counters.l3_rx_packets,
            packets_out: counters.l3_tx_packets,
            bytes_in: counters.l3_rx_bytes,
            bytes_out: counters.l3_tx_bytes,
            data_in: counters.l4_rx_bytes,
            data_out: counters.l4_tx_bytes,
            flows: counters.flows_announced,
            retransmits: counters.retransmits,
            syn_cookies_accepted: counters.syn_cookies_accepted,
            challenge_acks: counters.challenge_acks,
            datagrams_reassembled: counters.datagrams_reassembled,
            dropped: dropped.collect(),
        }
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "engine: {} packets in ({}), {} out ({}); {} flows, {} retransmits",
            grouped(self.packets_in),
            bytes(self.bytes_in),
            grouped(self.packets_out),
            bytes(self.bytes_out),
            grouped(self.flows),
            grouped(self.retransmits),
        )?;
        for (count, what) in [
            (self.syn_cookies_accepted, "flows by SYN cookie"),
            (self.challenge_acks, "challenge ACKs"),
            (self.datagrams_reassembled, "datagrams reassembled"),
        ] {
            if count > 0 {
                write!(f, ", {} {what}", grouped(count))?;
            }
        }
        if self.dropped.is_empty() {
            return write!(f, ", nothing dropped");
        }
        for (index, dropped) in self.dropped.iter().enumerate() {
            let separator = if index == 0 {
                "\n        dropped: "
            } else {
                ", "
            };
            write!(
                f,
                "{separator}{} {}",
                grouped(dropped.packets),
                dropped.reason
            )?;
        }
        Ok(())
    }
}
