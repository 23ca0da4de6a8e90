//! The harness: one scenario, two devices under test, virtual time.
//!
//! - [`dut`]: the exports as a trait, with the native engine and the component
//!   behind it; [`host`] answers the callbacks by a policy and records them in a
//!   [`trace`].
//! - [`scene`]: a device under test, its clock, and the rules that hold in every
//!   scenario. [`scene::on_both`] runs a story on both and compares the traces.
//! - [`craft`]: packets made by hand, good and broken; [`wire`]: an independent
//!   reader that every emitted packet has to pass.
//! - [`world`]: a smoltcp client ([`stack`]) at the far end of a [`link`], and an
//!   application on the near end ([`app`]).
//! - [`sim`]: two ends, two links, all impairments, and the invariants that hold all
//!   the same.
//! - [`conformance`]: the words in which the conformance cases are told.
//! - [`fuzz`]: the bodies of the fuzz targets.
//! - [`program`]: the built program, for tests that run it.
//! - [`random`]: the only source of chance, and it is seeded.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness fails by panicking"
)]

pub mod app;
pub mod component;
pub mod conformance;
pub mod craft;
pub mod dut;
pub mod fuzz;
pub mod host;
pub mod link;
pub mod program;
pub mod random;
pub mod scene;
pub mod sim;
pub mod stack;
pub mod trace;
pub mod wire;
pub mod world;
