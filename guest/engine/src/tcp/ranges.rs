//! The ranges of a flight, in order: the first lies in the flow's own record, so that
//! a flight of one burst costs no memory elsewhere, nor a way there.

use alloc::collections::VecDeque;

use super::flight::Range;

/// Room for ranges that an empty flight keeps.
const KEPT: usize = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    /// None: there is no range at all.
    first: Option<Range>,
    rest: VecDeque<Range>,
}

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn first(&self) -> Option<&Range> {
        self.first.as_ref()
    }

    pub(super) fn first_mut(&mut self) -> Option<&mut Range> {
        self.first.as_mut()
    }

    pub(super) fn last(&self) -> Option<&Range> {
        self.rest.back().or(self.first.as_ref())
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Range> {
        self.rest.back_mut().or(self.first.as_mut())
    }

    pub(super) fn get(&self, at: usize) -> Option<&Range> {
        match at.checked_sub(1) {
            None => self.first.as_ref(),
            Some(at) => self.rest.get(at),
        }
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Range> {
        match at.checked_sub(1) {
            None => self.first.as_mut(),
            Some(at) => self.rest.get_mut(at),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Range> {
        self.first.iter().chain(&self.rest)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Range> {
        self.first.iter_mut().chain(&mut self.rest)
    }

    pub(super) fn push(&mut self, range: Range) {
        match self.first {
            None => self.first = Some(range),
            Some(_) => self.rest.push_back(range),
        }
    }

    /// Takes the first one out.
    pub(super) fn pop(&mut self) {
        self.first = self.rest.pop_front();
        if self.is_empty() && self.rest.capacity() > KEPT {
            self.rest = VecDeque::new();
        }
    }

    /// Puts one behind the one at `before`.
    pub(super) fn insert_behind(&mut self, before: usize, range: Range) {
        self.rest.insert(before, range);
    }

    /// Takes the one behind the one at `before` out.
    pub(super) fn remove_behind(&mut self, before: usize) {
        self.rest.remove(before);
    }

    /// How many come before the first for which `is_before` is false.
    pub(super) fn partition_point(&self, is_before: impl Fn(&Range) -> bool) -> usize {
        match &self.first {
            Some(first) if is_before(first) => 1 + self.rest.partition_point(is_before),
            _ => 0,
        }
    }
}
