//! `l3l4 run` and `l3l4 proxy` with programs as people have them: curl, openssl,
//! iperf3, ssh, dig, and clients of our own where a program cannot be told what the
//! story needs. Servers and clients live in namespaces that this test makes; no packet
//! leaves them. Without a namespace, a TUN device or a program stories are skipped,
//! loudly; where the variable `CI` is set that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

#[cfg(target_os = "linux")]
mod basics;
#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod component;
#[cfg(target_os = "linux")]
mod dial;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod programs;
#[cfg(target_os = "linux")]
mod rate;
#[cfg(target_os = "linux")]
mod runner;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod servers;
#[cfg(target_os = "linux")]
mod stream;
#[cfg(target_os = "linux")]
mod streams;
#[cfg(target_os = "linux")]
mod through;
#[cfg(target_os = "linux")]
mod trap;
#[cfg(target_os = "linux")]
mod upstream;
#[cfg(target_os = "linux")]
mod way;
#[cfg(target_os = "linux")]
mod world;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    // The program inside, when a story needs one of ours.
    match client::asked_for() {
        Some(status) => status,
        None => runner::main(),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("SKIPPED: the stories of embedding need Linux");
}
