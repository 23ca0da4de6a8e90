//! Attacks in virtual time, open-loop, beside good clients of whom every byte is
//! checked: what each is to hold stands at its story. Where it runs on the native engine
//! and on the component, the two are compared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod blind;
mod cookies;
mod crowd;
mod greedy;
mod hoard;
mod memory;
mod shreds;
mod spoofed;
mod stray_flood;
mod syn_flood;
