//! A token bucket: how fast something may happen at the request of strangers.

use crate::types::Instant;

/// Linux and gVisor allow bursts of 50 ICMP errors.
const BURST: u64 = 50;
const SECOND: u64 = 1_000_000_000;

/// At most `per_second` a second, in bursts of at most 50.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: u64,
    /// Credit in units of 1/10^9 event, so that slow rates do not round to zero.
    credit: u64,
    refilled: Instant,
}

impl RateLimit {
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second);
        Self {
            per_second,
            credit: BURST.min(per_second) * SECOND,
            refilled: Instant(0),
        }
    }

    /// Whether one more may happen.
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        let elapsed = now.0.saturating_sub(self.refilled.0);
        self.refilled = now;
        let most = BURST.min(self.per_second) * SECOND;
        self.credit = self
            .credit
            .saturating_add(elapsed.saturating_mul(self.per_second))
            .min(most);
        match self.credit.checked_sub(SECOND) {
            Some(rest) => {
                self.credit = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_fifty_then_the_rate() {
        let mut limit = RateLimit::new(1000);
        let at_once = (0..10_000).filter(|_| limit.allow(Instant(SECOND))).count();
        assert_eq!(at_once, 50);
        let in_a_second = (0..10_000u64)
            .filter(|i| limit.allow(Instant(SECOND + i * SECOND / 10_000)))
            .count();
        assert!((990..=1000).contains(&in_a_second), "{in_a_second}");
    }

    #[test]
    fn zero_allows_nothing() {
        let mut limit = RateLimit::new(0);
        assert!(!limit.allow(Instant(u64::MAX)));
    }
}
