//! The tokio face: two stacks back to back, so that both ends of every flow are seen.
#![cfg(feature = "stack")]
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that fails says so by a panic, in its helpers too"
)]

mod budget;
mod datagrams;
#[path = "../library/guest.rs"]
mod guest;
mod incoming;
mod link;
mod service;
mod streams;
mod together;
