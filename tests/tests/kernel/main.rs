//! The kernel's own clients, over a TUN device in a private namespace, against the
//! component. Without a namespace or a TUN device the cases are skipped, loudly;
//! where the variable `CI` is set that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

#[cfg(target_os = "linux")]
mod bulk;
#[cfg(target_os = "linux")]
mod cases;
#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod impaired;
#[cfg(target_os = "linux")]
mod killed;
#[cfg(target_os = "linux")]
mod order;
#[cfg(target_os = "linux")]
mod pattern;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod service;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    cases::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("SKIPPED: the kernel cases need Linux");
}
