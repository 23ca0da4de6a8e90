//! Conversions between the generated types and the library's, both directions
//! side by side.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use crate::bindings::l3l4::engine::types as wit;
use crate::types::{
    BatchSent, CounterSnapshot, FiveTuple, FlowOptions, FlowSnapshot, Instant, Sent, Verdict,
    nanoseconds,
};

impl From<SocketAddr> for wit::IpSocketAddress {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::Ipv4(wit::Ipv4SocketAddress {
                port: v4.port(),
                address: v4.ip().octets().into(),
            }),
            SocketAddr::V6(v6) => Self::Ipv6(wit::Ipv6SocketAddress {
                port: v6.port(),
                flow_info: 0,
                address: v6.ip().segments().into(),
                scope_id: 0,
            }),
        }
    }
}

impl From<wit::IpSocketAddress> for SocketAddr {
    fn from(address: wit::IpSocketAddress) -> Self {
        match address {
            wit::IpSocketAddress::Ipv4(v4) => {
                let octets = <[u8; 4]>::from(v4.address);
                SocketAddrV4::new(Ipv4Addr::from(octets), v4.port).into()
            }
            wit::IpSocketAddress::Ipv6(v6) => {
                let groups = <[u16; 8]>::from(v6.address);
                SocketAddrV6::new(Ipv6Addr::from(groups), v6.port, 0, 0).into()
            }
        }
    }
}

impl From<&FiveTuple> for wit::FiveTuple {
    fn from(tuple: &FiveTuple) -> Self {
        Self {
            protocol: tuple.protocol,
            local: tuple.local.into(),
            peer: tuple.peer.into(),
        }
    }
}

impl From<wit::FiveTuple> for FiveTuple {
    fn from(tuple: wit::FiveTuple) -> Self {
        Self {
            protocol: tuple.protocol,
            local: tuple.local.into(),
            peer: tuple.peer.into(),
        }
    }
}

impl From<FlowOptions> for wit::FlowOptions {
    fn from(options: FlowOptions) -> Self {
        Self {
            nagle: Some(options.nagle),
            keep_alive: options.keep_alive.map(nanoseconds),
            idle_timeout: options.idle_timeout.map(nanoseconds),
            user_timeout: options.user_timeout.map(nanoseconds),
        }
    }
}

impl From<Verdict> for wit::Verdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Accept(options) => Self::Accept(options.into()),
            Verdict::Refuse(refusal) => Self::Refuse(refusal),
            Verdict::Drop => Self::Drop,
            Verdict::Wait => Self::Wait,
        }
    }
}

impl From<wit::Sent> for Sent {
    fn from(sent: wit::Sent) -> Self {
        Self {
            taken: sent.taken as usize,
            deadline: deadline(sent.deadline),
        }
    }
}

impl From<wit::BatchSent> for BatchSent {
    fn from(sent: wit::BatchSent) -> Self {
        Self {
            taken: sent
                .taken
                .into_iter()
                .map(|taken| taken.map(|bytes| bytes as usize))
                .collect(),
            deadline: deadline(sent.deadline),
        }
    }
}

pub(crate) fn deadline(deadline: wit::Deadline) -> Option<Instant> {
    deadline.map(Instant)
}

/// The four little-endian words of a seed.
pub(crate) fn seed_words(seed: [u8; 32]) -> (u64, u64, u64, u64) {
    let word = |words: &[[u8; 8]], index: usize| u64::from_le_bytes(words[index]);
    let words = seed.as_chunks().0;
    (
        word(words, 0),
        word(words, 1),
        word(words, 2),
        word(words, 3),
    )
}

impl From<wit::FlowSnapshot> for FlowSnapshot {
    fn from(flow: wit::FlowSnapshot) -> Self {
        Self {
            tuple: flow.tuple.into(),
            state: flow.state,
            opened: Instant(flow.opened),
            bytes_received: flow.bytes_received,
            bytes_sent: flow.bytes_sent,
            receive_queue: flow.receive_queue,
            send_queue: flow.send_queue,
            receive_window: flow.receive_window,
            send_window: flow.send_window,
            congestion_window: flow.congestion_window,
            max_segment_size: flow.max_segment_size,
            round_trip_time: flow.round_trip_time.map(Duration::from_nanos),
            retransmission_timeout: flow.retransmission_timeout.map(Duration::from_nanos),
            retransmits: flow.retransmits,
        }
    }
}

impl From<wit::CounterSnapshot> for CounterSnapshot {
    fn from(counters: wit::CounterSnapshot) -> Self {
        let mut snapshot = Self {
            l3_rx_packets: counters.l3_rx_packets,
            l3_rx_bytes: counters.l3_rx_bytes,
            l3_tx_packets: counters.l3_tx_packets,
            l3_tx_bytes: counters.l3_tx_bytes,
            l4_rx_bytes: counters.l4_rx_bytes,
            l4_tx_bytes: counters.l4_tx_bytes,
            l4_polls: counters.l4_polls,
            drops: Default::default(),
            datagrams_reassembled: counters.datagrams_reassembled,
            replies_lost: counters.replies_lost,
            replies_limited: counters.replies_limited,
            flows_announced: counters.flows_announced,
            flows_opened: counters.flows_opened,
            flows_closed: counters.flows_closed,
            flows_evicted: counters.flows_evicted,
            flows_out_of_memory: counters.flows_out_of_memory,
            repeated_syns: counters.repeated_syns,
            syn_cookies_sent: counters.syn_cookies_sent,
            syn_cookies_accepted: counters.syn_cookies_accepted,
            challenge_acks: counters.challenge_acks,
            retransmits: counters.retransmits,
            time_went_back: counters.time_went_back,
            flows: counters.flows,
            half_open: counters.half_open,
            time_wait: counters.time_wait,
            memory_bytes: counters.memory_bytes,
        };
        for drop in counters.drops {
            snapshot.drops[drop.reason as usize] = drop.packets;
        }
        snapshot
    }
}
