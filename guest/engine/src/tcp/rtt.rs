//! The round-trip time and the retransmission timeout (RFC 6298).

use core::time::Duration;

use crate::types::{Span, nanoseconds};

/// RFC 6298 2.1: before the first sample.
const INITIAL: u64 = 1_000_000_000;
/// RFC 6298 2.4: an upper bound of at least 60 s.
const MOST: u64 = 60_000_000_000;

/// Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rtt {
    /// 0 before the first sample.
    srtt: u64,
    rttvar: u64,
    /// The least sample: what the path takes when nobody waits.
    least: u64,
    /// How often the timeout doubled (RFC 6298 5.5).
    backoff: u8,
}

impl Rtt {
    /// A round trip of a segment that was sent once (Karn's algorithm, RFC 6298 3).
    pub(crate) fn sample(&mut self, rtt: u64) {
        let rtt = rtt.max(1);
        if self.srtt == 0 {
            // RFC 6298 2.2.
            (self.srtt, self.rttvar, self.least) = (rtt, rtt / 2, rtt);
            return;
        }
        // RFC 6298 2.3, beta 1/4 and alpha 1/8.
        self.rttvar = self.rttvar - self.rttvar / 4 + self.srtt.abs_diff(rtt) / 4;
        self.srtt = (self.srtt - self.srtt / 8 + rtt / 8).max(1);
        self.least = self.least.min(rtt);
    }

    /// The smoothed round-trip time, once there is one.
    pub(crate) fn smoothed(&self) -> Option<u64> {
        (self.srtt > 0).then_some(self.srtt)
    }

    pub(crate) fn least(&self) -> u64 {
        self.least
    }

    /// The retransmission timeout. The floor stands in the place of 4 * RTTVAR, as
    /// in Linux, so that an ACK delayed by as much does not come too late.
    pub(crate) fn timeout(&self, floor: Duration) -> Span {
        let base = match self.srtt {
            0 => INITIAL + 4 * self.rttvar,
            srtt => srtt.saturating_add(nanoseconds(floor).max(self.rttvar.saturating_mul(4))),
        };
        let timeout = base.saturating_mul(1 << self.backoff.min(30));
        Span(timeout.min(MOST))
    }

    /// The timeout ran out (RFC 6298 5.5).
    pub(crate) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// The peer acknowledged something new.
    pub(crate) fn forget_backoff(&mut self) {
        self.backoff = 0;
    }

    pub(crate) fn is_backed_off(&self) -> bool {
        self.backoff > 0
    }

    /// RFC 6298 5.7: when a SYN had to be sent again, data begins with 3 s.
    pub(crate) fn syn_was_lost(&mut self) {
        if self.srtt == 0 {
            self.rttvar = INITIAL / 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const FLOOR: Duration = Duration::from_millis(200);

    #[test]
    fn the_timeout_follows_the_samples() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(FLOOR), Span::milliseconds(1000));
        rtt.sample(100 * MS);
        assert_eq!(rtt.timeout(FLOOR), Span::milliseconds(300));
        for _ in 0..100 {
            rtt.sample(10 * MS);
        }
        let settled = rtt.timeout(FLOOR).0 / 1_000_000;
        assert!((205..=215).contains(&settled), "{settled}");
        assert_eq!(rtt.least(), 10 * MS);
    }

    #[test]
    fn it_doubles_up_to_a_minute() {
        let mut rtt = Rtt::default();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(rtt.timeout(FLOOR), Span::milliseconds(1000 * seconds));
            rtt.back_off();
        }
        rtt.forget_backoff();
        assert_eq!(rtt.timeout(FLOOR), Span::milliseconds(1000));
    }
}
