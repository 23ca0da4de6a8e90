//! Attacks in virtual time, open-loop: what each is to hold stands at its story, which
//! runs on the native engine and on the component, and the two are compared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod blind;
mod shreds;
mod spoofed;
mod stray_flood;
