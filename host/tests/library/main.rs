//! The library as an embedder meets it: the component's imports, what happens
//! when a guest traps, and the mistakes it reports.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that fails says so by a panic, in its helpers too"
)]

mod application;
mod guest;
mod imports;
mod mistakes;
mod record;
mod traps;
