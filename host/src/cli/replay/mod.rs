//! `l3l4 replay`: what a file holds, once more through the engine.

mod exact;

use super::args::ReplayArgs;

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<bool> {
    exact::run(args)
}
