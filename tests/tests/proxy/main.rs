//! `l3l4 proxy` between the kernel's clients, over TUN devices, and real servers, all
//! in a namespace that this test makes: what a peer sees is what it would see of the
//! destination itself, directly and through upstreams. Without a namespace or a TUN
//! device the cases are skipped, loudly; where the variable `CI` is set that is a
//! failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

#[cfg(target_os = "linux")]
mod command;
#[cfg(target_os = "linux")]
mod direct;
#[cfg(target_os = "linux")]
mod http;
#[cfg(target_os = "linux")]
mod passing;
#[cfg(target_os = "linux")]
mod runner;
#[cfg(target_os = "linux")]
mod socks;
#[cfg(target_os = "linux")]
mod world;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    runner::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("SKIPPED: the proxy's cases need Linux");
}
