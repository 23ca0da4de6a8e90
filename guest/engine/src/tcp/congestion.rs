//! Congestion control: how much may be in flight. CUBIC (RFC 9438), Reno (RFC
//! 5681), or the peer's window alone. All amounts are bytes.

use crate::config::CongestionControl;
use crate::types::Instant;

/// RFC 6928 2: the initial window.
const INITIAL_SEGMENTS: u32 = 10;
const INITIAL_BYTES: u32 = 14_600;
/// RFC 5681 eq. 4: the least threshold.
const LEAST_SEGMENTS: u32 = 2;
/// RFC 9438 4.6: beta is 0.7.
const BETA: (u64, u64) = (7, 10);
/// RFC 9438 4.3: alpha is 3 (1 - beta) / (1 + beta), 9/17.
const ALPHA: (u64, u64) = (9, 17);
/// The estimate of Reno's window is kept in 1/1024 of a byte.
const FRACTION: u64 = 1024;
const MILLISECOND: u64 = 1_000_000;

/// The window of one flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Congestion {
    algorithm: CongestionControl,
    pub(crate) cwnd: u32,
    pub(crate) ssthresh: u32,
    /// Bytes acknowledged towards Reno's next segment (RFC 3465).
    acked: u32,
    cubic: Cubic,
}

/// RFC 9438 4.1.2.
#[derive(Clone, Copy, Debug, Default)]
struct Cubic {
    /// When congestion avoidance began.
    epoch: Option<Instant>,
    /// The window just before the last reduction.
    w_max: u32,
    /// The window when the epoch began.
    w_epoch: u32,
    /// When the curve comes back to `w_max`, in ms after the epoch.
    k: u64,
    /// What Reno would have, in `FRACTION` of a byte.
    w_est: u64,
}

impl Congestion {
    pub(crate) fn new(algorithm: CongestionControl, mss: u32) -> Self {
        let mut congestion = Self {
            algorithm,
            cwnd: 0,
            ssthresh: u32::MAX,
            acked: 0,
            cubic: Cubic::default(),
        };
        congestion.cwnd = congestion.initial(mss);
        congestion
    }

    /// RFC 6928 2.
    fn initial(&self, mss: u32) -> u32 {
        match self.algorithm {
            CongestionControl::None => u32::MAX / 2,
            CongestionControl::Cubic | CongestionControl::Reno => {
                (INITIAL_SEGMENTS * mss).min(INITIAL_BYTES.max(2 * mss))
            }
        }
    }

    /// Whether there is a window to speak of.
    pub(crate) fn is_none(&self) -> bool {
        self.algorithm == CongestionControl::None
    }

    pub(crate) fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Nothing was lost, and the window was in use when `acked` bytes left the
    /// flight. `rtt` in nanoseconds.
    pub(crate) fn acked(&mut self, now: Instant, acked: u32, mss: u32, rtt: u64) {
        if self.is_none() {
            return;
        }
        if self.in_slow_start() {
            // RFC 5681 3.1 with RFC 3465 (L = 2): a stretch ACK brings no burst.
            let growth = acked.min(2 * mss).min(self.ssthresh - self.cwnd);
            self.cwnd = self.cwnd.saturating_add(growth);
            return;
        }
        match self.algorithm {
            CongestionControl::Cubic => self.cubic_acked(now, acked, mss, rtt),
            CongestionControl::Reno | CongestionControl::None => self.reno_acked(acked, mss),
        }
    }

    /// RFC 5681 3.1: a segment a round trip, counted in bytes.
    fn reno_acked(&mut self, acked: u32, mss: u32) {
        self.acked = self.acked.saturating_add(acked);
        if self.acked >= self.cwnd {
            self.acked -= self.cwnd;
            self.cwnd = self.cwnd.saturating_add(mss);
        }
    }

    /// RFC 9438 4.2 to 4.5.
    fn cubic_acked(&mut self, now: Instant, acked: u32, mss: u32, rtt: u64) {
        let cwnd = self.cwnd;
        let cubic = &mut self.cubic;
        let epoch = *cubic.epoch.get_or_insert_with(|| {
            cubic.w_epoch = cwnd;
            cubic.w_est = u64::from(cwnd) * FRACTION;
            cubic.w_max = cubic.w_max.max(cwnd);
            // RFC 9438 eq. 2: K = cbrt((W_max - cwnd_epoch) / C), C = 0.4.
            let gap = u64::from(cubic.w_max - cwnd);
            cubic.k = cube_root(gap * 2_500_000_000 / u64::from(mss.max(1)));
            now
        });
        // RFC 9438 4.3. Once Reno's window is beyond the old one, its full pace.
        let (up, down) = match cubic.w_est >= u64::from(cubic.w_max) * FRACTION {
            true => (1, 1),
            false => ALPHA,
        };
        cubic.w_est +=
            FRACTION * up * u64::from(mss) * u64::from(acked) / (down * u64::from(cwnd.max(1)));
        let elapsed = (now.0.saturating_sub(epoch.0) + rtt) / MILLISECOND;
        let target = cubic
            .at(elapsed, mss)
            .clamp(cwnd, cwnd.saturating_add(cwnd / 2));
        let growth = u64::from(target - cwnd) * u64::from(acked) / u64::from(cwnd.max(1));
        let by_curve = cwnd.saturating_add(u32::try_from(growth).unwrap_or(u32::MAX));
        let by_reno = u32::try_from(cubic.w_est / FRACTION).unwrap_or(u32::MAX);
        self.cwnd = by_curve.max(by_reno);
    }

    /// The threshold after a loss with so much in flight.
    fn reduce(&mut self, flight: u32, mss: u32) {
        let least = LEAST_SEGMENTS * mss;
        self.ssthresh = match self.algorithm {
            CongestionControl::None => return,
            // RFC 5681 eq. 4.
            CongestionControl::Reno => (flight / 2).max(least),
            CongestionControl::Cubic => {
                let (up, down) = BETA;
                let scaled = |bytes: u32, up: u64, down: u64| {
                    u32::try_from(u64::from(bytes) * up / down).unwrap_or(u32::MAX)
                };
                // RFC 9438 4.7, fast convergence.
                self.cubic.w_max = match self.cwnd < self.cubic.w_max {
                    true => scaled(self.cwnd, down + up, 2 * down),
                    false => self.cwnd,
                };
                scaled(flight, up, down).max(least)
            }
        };
        self.cubic.epoch = None;
        self.acked = 0;
    }

    /// A loss was found without the timer. The window comes down to the threshold
    /// during the recovery (RFC 6937), which is the caller's.
    pub(crate) fn lost(&mut self, flight: u32, mss: u32) {
        self.reduce(flight, mss);
    }

    /// The retransmission timer ran out (RFC 5681 3.1). `again`: for a segment
    /// that it had run out for before.
    pub(crate) fn timed_out(&mut self, flight: u32, mss: u32, again: bool) {
        if self.is_none() {
            return;
        }
        if !again {
            self.reduce(flight, mss);
        }
        self.cwnd = mss;
        self.cubic.epoch = None;
    }

    /// Lets the recovery set the window.
    pub(crate) fn set(&mut self, cwnd: u32) {
        if !self.is_none() {
            self.cwnd = cwnd;
        }
    }

    /// RFC 5681 4.1: nothing was sent for longer than the timeout.
    pub(crate) fn idle(&mut self, mss: u32) {
        self.cwnd = self.cwnd.min(self.initial(mss));
        self.cubic.epoch = None;
    }
}

impl Cubic {
    /// RFC 9438 eq. 1: W_cubic(t) = C (t - K)^3 + W_max, C = 0.4, in segments and
    /// seconds; here bytes and milliseconds.
    fn at(&self, elapsed: u64, mss: u32) -> u32 {
        let distance = elapsed.abs_diff(self.k).min(1 << 20);
        let cube = distance * distance * distance;
        let bytes = u128::from(cube) * u128::from(mss) * 4 / 10_000_000_000;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        match elapsed < self.k {
            true => self.w_max.saturating_sub(bytes),
            false => self.w_max.saturating_add(bytes),
        }
    }
}

/// The cube root, rounded down, digit by digit.
fn cube_root(value: u64) -> u64 {
    let mut root = 0u64;
    for bit in (0..21).rev() {
        let tried = root | 1 << bit;
        if tried * tried * tried <= value {
            root = tried;
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;
    const RTT: u64 = 100 * MILLISECOND;

    #[test]
    fn the_cube_root_is_exact() {
        for root in [0u64, 1, 2, 10, 1290, 99_999, 2_097_151] {
            assert_eq!(cube_root(root.pow(3)), root);
            assert_eq!(cube_root((root + 1).pow(3) - 1), root);
        }
    }

    #[test]
    fn slow_start_doubles_in_a_round_trip() {
        let mut congestion = Congestion::new(CongestionControl::Cubic, MSS);
        assert_eq!(congestion.cwnd, 10 * MSS);
        for _ in 0..10 {
            congestion.acked(Instant(0), MSS, MSS, RTT);
        }
        assert_eq!(congestion.cwnd, 20 * MSS);
    }

    #[test]
    fn reno_adds_a_segment_a_round_trip() {
        let mut congestion = Congestion::new(CongestionControl::Reno, MSS);
        congestion.lost(20 * MSS, MSS);
        congestion.set(congestion.ssthresh);
        assert_eq!(congestion.cwnd, 10 * MSS);
        for _ in 0..10 {
            congestion.acked(Instant(0), MSS, MSS, RTT);
        }
        assert_eq!(congestion.cwnd, 11 * MSS);
    }

    #[test]
    fn cubic_comes_back_to_the_old_window_at_k_and_then_grows_away() {
        let mut congestion = Congestion::new(CongestionControl::Cubic, MSS);
        congestion.cwnd = 1000 * MSS;
        congestion.lost(1000 * MSS, MSS);
        congestion.set(congestion.ssthresh);
        assert_eq!(congestion.cwnd, 700 * MSS);
        // K = cbrt(300 / 0.4) = 9.09 s.
        let mut window_at = |from: u64, to: u64| {
            for tick in from..to {
                let now = Instant(tick * RTT);
                let flight = congestion.cwnd;
                for _ in 0..flight / MSS {
                    congestion.acked(now, MSS, MSS, RTT);
                }
            }
            congestion.cwnd / MSS
        };
        let at_k = window_at(0, 91);
        assert!((985..=1005).contains(&at_k), "{at_k}");
        let later = window_at(91, 160);
        assert!(later > 1100, "{later}");
    }

    #[test]
    fn a_timeout_leaves_one_segment() {
        let mut congestion = Congestion::new(CongestionControl::Reno, MSS);
        congestion.timed_out(10 * MSS, MSS, false);
        assert_eq!((congestion.cwnd, congestion.ssthresh), (MSS, 5 * MSS));
        congestion.timed_out(MSS, MSS, true);
        assert_eq!((congestion.cwnd, congestion.ssthresh), (MSS, 5 * MSS));
    }
}
