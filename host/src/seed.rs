//! Where the seeds of an engine's instances come from.

use std::io;

use crate::convert::seed_words;

/// One seed for each instance: none is used twice.
pub(crate) enum Seeds {
    /// From the operating system's random source.
    System,
    /// The given seed for the first instance, and others derived from it for
    /// those that replace it, so that a run can be repeated exactly.
    Given { seed: [u8; 32], instances: u64 },
    /// Those of the instances of a record.
    Recorded(Box<dyn FnMut() -> io::Result<Words> + Send>),
}

/// A seed as the contract has it.
pub(crate) type Words = (u64, u64, u64, u64);

impl Seeds {
    pub(crate) fn next(&mut self) -> io::Result<Words> {
        match self {
            Self::System => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
                Ok(seed_words(seed))
            }
            Self::Recorded(next) => next(),
            Self::Given { seed, instances } => {
                let (a, b, c, d) = seed_words(*seed);
                let derive = |word| derived(word, *instances);
                let words = (derive(a), derive(b), derive(c), derive(d));
                *instances += 1;
                Ok(words)
            }
        }
    }
}

/// The word itself for instance 0; then SplitMix64 (Steele, Lea and Flood, 2014),
/// whose every output bit depends on every bit of its input.
fn derived(word: u64, instance: u64) -> u64 {
    if instance == 0 {
        return word;
    }
    let mut z = word.wrapping_add(instance.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
