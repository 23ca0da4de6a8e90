//! Streams that their seed determines, made and checked piece by piece, so that no
//! transfer is too long to be exact.

use l3l4_tests::random::Random;

/// A place in the stream of a seed.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    random: Random,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    /// The start of the stream.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            word: [0; 8],
            used: 8,
        }
    }

    /// The next bytes.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        buffer.iter_mut().for_each(|byte| *byte = self.next());
    }

    /// Whether these are the next bytes; if not, at which of them it begins to
    /// differ.
    pub(crate) fn check(&mut self, data: &[u8]) -> Result<(), usize> {
        match data.iter().position(|byte| *byte != self.next()) {
            None => Ok(()),
            Some(at) => Err(at),
        }
    }

    fn next(&mut self) -> u8 {
        if self.used == self.word.len() {
            self.word = self.random.word().to_le_bytes();
            self.used = 0;
        }
        self.used += 1;
        self.word[self.used - 1]
    }
}
