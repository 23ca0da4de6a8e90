//! Scenarios in virtual time. Each runs on the native engine and on the component,
//! and the two traces are the same, byte for byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod adversary;
mod batch;
mod close;
mod configuration;
mod datagrams;
mod echo;
mod endings;
mod fragments;
mod growth;
mod handshake;
mod icmp;
mod identity;
mod imports;
mod limits;
mod malformed;
mod mutations;
mod open;
mod path_mtu;
mod pressure;
mod raw;
mod recovery;
mod regressions;
mod stray;
mod time_wait;
mod timers;
mod transfer;
mod verdict;
