//! Records: what they hold, that their replay is exact, and that nothing that is
//! wrong with one goes unnoticed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod command;
mod damage;
mod difference;
mod exchange;
mod file;
mod killed;
mod same;
