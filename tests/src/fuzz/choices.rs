//! Bytes as a sequence of decisions. When they run out every choice is the first.

use arbitrary::Unstructured;

/// What is left to decide by.
pub(super) struct Choices<'a>(Unstructured<'a>);

impl<'a> Choices<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(Unstructured::new(data))
    }

    /// Whether nothing is left.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// A number below `bound`, which must not be 0.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        self.0.int_in_range(0..=bound - 1).unwrap_or(0)
    }

    /// One of these.
    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let bound = u32::try_from(all.len()).expect("a short list");
        all[usize::try_from(self.below(bound)).expect("an index")]
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or(0)
    }

    pub(super) fn word(&mut self) -> u32 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// Whether to do what one input in `n` does.
    pub(super) fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == n - 1
    }

    /// At most so many bytes.
    pub(super) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = self.0.len().min(most);
        self.0.bytes(length).unwrap_or_default()
    }
}
