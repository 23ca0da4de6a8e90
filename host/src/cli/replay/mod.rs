//! `l3l4 replay`: what happened once, again.

mod capture;
mod expect;
mod outputs;
mod streams;
mod summary;

use super::args::ReplayArgs;

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<bool> {
    capture::run(args)
}
