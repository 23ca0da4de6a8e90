//! Packet in, data out; data in, packet out.
//!
//! This library embeds the l3l4 engine, a TCP/IP engine in a WebAssembly
//! component. Raw IP packets go in through [`Engine::l3_rx`]; the bytes of each
//! TCP or UDP flow come out through [`Callbacks::l4_rx`]. Bytes go in through
//! [`Engine::l4_tx`]; IP packets come out through [`Callbacks::l3_tx`]. Any
//! source, any destination, any port: there are no listeners, routes or addresses
//! to configure. Housekeeping happens in [`Engine::l4_poll`], at the instant that
//! the engine asked for.
//!
//! The component imports nothing but the four callbacks. It has no file, socket,
//! clock or random source: time and seed are passed in.
//!
//! # A packet's way through the files
//!
//! - In: `batch.rs` (bytes end to end) → `engine.rs` (`l3_rx`) → the component →
//!   `link.rs` (`l4_rx`, lent out of the guest's memory) → [`Callbacks`].
//! - Out: `engine.rs` (`l4_tx`, or `l4_tx_batch` of what `data_batch.rs` holds) → the
//!   component → `link.rs` (`l3_tx`, lent) → [`Callbacks`].
//! - Around it: `builder.rs` (options) → `component.rs` (compiled once) →
//!   `instance.rs` (an instance, the first time and after a trap).
//! - Beside it: `witness.rs` (told of all that crosses the border) → [`record`].
//!
//! # Example
//!
//! A complete program stands in the README under *Embedding*; [`echo`] is one
//! with back-pressure, half-close and restart after a trap.

mod batch;
mod bindings;
mod builder;
mod callbacks;
mod clock;
mod component;
mod convert;
mod data_batch;
mod engine;
mod error;
mod instance;
mod link;
mod seed;
mod ticker;
mod types;
mod witness;

#[cfg(feature = "capture")]
pub mod capture;
pub mod device;
pub mod echo;
#[cfg(all(feature = "tun", target_os = "linux"))]
pub mod netns;
#[cfg(all(feature = "proxy", target_os = "linux"))]
pub mod proxy;
pub mod record;
#[cfg(feature = "replay")]
pub mod replay;
#[cfg(all(feature = "sandbox", target_os = "linux"))]
pub mod sandbox;
#[cfg(all(feature = "stack", unix))]
pub mod stack;
#[cfg(feature = "tun")]
pub mod tun;

pub use batch::Batch;
pub use builder::Builder;
pub use callbacks::{Callbacks, Packets};
pub use clock::Clock;
pub use component::{Component, EMBEDDED};
pub use data_batch::DataBatch;
pub use engine::Engine;
pub use error::Error;
pub use types::{
    BatchError, BatchSent, Checksum, CloseReason, ConfigurationItem, ConfigureError,
    CongestionControl, CounterSnapshot, DropReason, Event, FiveTuple, FlowError, FlowId,
    FlowOptions, FlowSnapshot, FlowState, IcmpEchoPolicy, Instant, OpenError, OutOfBounds, Packet,
    Protocol, Refusal, Sent, Timer, Unreachable, Verdict,
};

/// Runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
