//! Seeded simulations: two ends, two impaired links, and the invariants that hold at
//! every step. A run is a function of its [`Plan`], which is a function of who talks,
//! what goes wrong, and a seed.
//!
//! - [`plan`]: what happens in a run; [`invariants`]: what has to hold.
//! - [`end`]: what an end is: our engine ([`engine`]), a smoltcp stack
//!   ([`smoltcp`]), a peer that makes its segments by hand ([`script`]); and the
//!   datagrams they exchange beside ([`datagrams`]).
//! - [`run`]: one run; [`gate`]: many of them, as a table; [`loss`]: how fast a flow
//!   is on a lossy path.

pub mod datagrams;
pub mod end;
pub mod engine;
pub mod gate;
pub mod invariants;
pub mod loss;
pub mod plan;
pub mod run;
pub mod script;
pub mod smoltcp;

pub use plan::{Ends, Mode, Plan};
pub use run::{Device, Outcome, Report};
