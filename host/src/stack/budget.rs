//! What the queues of all flows of a stack hold together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What a queue may hold whatever the others do: some packets' worth. So a queue that
/// has no room is never empty, and whoever waits for room waits for its own queue to
/// move, never for another flow's.
pub(super) const FLOOR: usize = 4 * 1024;

/// The memory of all queues, and how much of it is in use. Two that ask at the same
/// time may both get the last of it.
#[derive(Debug)]
pub(super) struct Budget {
    most: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            used: AtomicUsize::new(0),
        }
    }

    /// What a queue that holds so much, and may hold `most` alone, has room for.
    pub(super) fn room(&self, weight: usize, most: usize) -> usize {
        let free = self.most.saturating_sub(self.used.load(Ordering::Relaxed));
        let floor = FLOOR.saturating_sub(weight);
        most.saturating_sub(weight).min(free.max(floor))
    }

    /// What a flow holds has changed.
    pub(super) fn change(&self, from: usize, to: usize) {
        match to.checked_sub(from) {
            Some(0) => {}
            Some(more) => drop(self.used.fetch_add(more, Ordering::Relaxed)),
            None => drop(self.used.fetch_sub(from - to, Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, FLOOR};

    #[test]
    fn when_it_is_used_up_each_queue_keeps_its_floor() {
        let budget = Budget::new(100_000);
        assert_eq!(budget.room(0, 60_000), 60_000);
        budget.change(0, 60_000);
        assert_eq!(budget.room(60_000, 60_000), 0);
        assert_eq!(budget.room(0, 60_000), 40_000);
        budget.change(0, 50_000);
        assert_eq!(budget.room(1000, 60_000), FLOOR - 1000);
        assert_eq!(budget.room(FLOOR, 60_000), 0);
        budget.change(60_000, 0);
        assert_eq!(budget.room(FLOOR, 60_000), 50_000);
    }
}
