//! Packet in, data out; data in, packet out: a TCP/IP engine with no I/O, no
//! clock and no source of randomness.
//!
//! Raw IP packets go in through [`Engine::l3_rx`]; the bytes of each TCP or UDP
//! flow come out through [`Callbacks::l4_rx`]. Bytes go in through
//! [`Engine::l4_tx`]; IP packets come out through [`Callbacks::l3_tx`]. Any
//! address and any port: no listeners, no routes. Housekeeping happens in
//! [`Engine::l4_poll`], at the instant that the engine asked for. The contract
//! in words is `wit/`; this crate knows nothing of wasm and builds anywhere.
//!
//! # The path of a packet
//!
//! ```text
//! l3_rx ─ engine/l3_rx ─ ip ─┬─ tcp/segment ─ table ─ tcp/arrival ────────┐
//!                            ├─ datagram ──── table ─ datagram ───────────┼─ Callbacks::l4_rx
//!                            └─ icmp                                      │
//! l4_tx ─ engine/l4_tx ──────────────────── table ─ tcp │ datagram ───────┼─ egress ─ Callbacks::l3_tx
//! l4_poll ─ deadlines ───────────────────── table ─ settle ───────────────┘
//! ```
//!
//! # What always holds
//!
//! - The same calls with the same answers give the same bytes, natively and as a
//!   component.
//! - On return nothing is pending but deadlines. A flow that a call concerned is
//!   delivered to once and sent for once, however many packets came for it.
//! - Nothing scans: flows are found by a keyed hash, deadlines in a tree.
//! - Everything that grows is bounded by [`Config`]; no input panics.
//! - A packet belongs to one flow at most; one that has no effect is counted by
//!   its [`DropReason`].
//!
//! Fragments are put together in `ip/reassembly` and made in `ip/outgoing`. TCP has
//! its own path through the files of `tcp`, drawn there. smoltcp reads and writes
//! headers, nothing more.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod checksum;
mod config;
mod counters;
mod datagram;
mod deadlines;
mod egress;
mod engine;
mod icmp;
mod ip;
mod limit;
mod siphash;
mod table;
mod tcp;
mod tuple;
mod turn;
mod types;

pub use config::{Config, ConfigItem, CongestionControl, IcmpEchoPolicy, OutOfBounds};
pub use counters::{CounterSnapshot, DropReason};
pub use engine::Engine;
pub use types::{
    BatchError, BatchSent, Callbacks, Checksum, CloseReason, Event, FiveTuple, FlowError, FlowId,
    FlowOptions, FlowSnapshot, FlowState, Instant, OpenError, Packet, Portion, Protocol, Refusal,
    Sent, Timer, Unreachable, Verdict,
};
