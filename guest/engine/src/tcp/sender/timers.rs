//! What a sender does when time passes: the retransmission timer (RFC 6298), probes of a
//! shut window (RFC 9293 3.8.6.1) and of the end of a flight (RFC 8985 7), losses that only
//! time shows (RFC 8985 6.2), and what a flow that has rested begins with.

use core::time::Duration;

use super::{Forced, Phase, Probe, Sender};
use crate::types::{Instant, Span, sooner};

/// RFC 9293 3.8.6.2.1: how long a sender waits for a window worth filling.
const OVERRIDE: (Span, Span) = (Span::milliseconds(100), Span::milliseconds(1000));
/// RFC 8985 7.2: what a peer may take to acknowledge a single segment.
const DELAYED_ACK: u64 = 200_000_000;
/// RFC 8985 7.2: no probe sooner than the clocks of the two ends tick.
const LEAST_PROBE: u64 = 2_000_000;

impl Sender {
    /// When something happens unless the peer is heard.
    pub(crate) fn deadline(&self, min_rto: Duration, sack: bool) -> Option<Instant> {
        if self.flight.is_empty() {
            return self.persist_at;
        }
        let timeout = self.base + self.rtt.timeout(min_rto);
        sooner(
            sooner(self.reorder_at, self.tail_probe_at(sack)),
            Some(timeout),
        )
    }

    /// RFC 8985 7.2: when the end of the flight is probed.
    fn tail_probe_at(&self, sack: bool) -> Option<Instant> {
        let may = sack
            && self.phase == Phase::Open
            && self.probe.is_none()
            && self.flight.sacked() == 0
            && self.flight.lost() == 0
            && self.window.snd_wnd > 0
            && !self.rtt.is_backed_off();
        let srtt = self.rtt.smoothed().filter(|_| may)?;
        let single = self.snd_nxt.since(self.snd_una) <= self.mss;
        let patience = if single { DELAYED_ACK } else { LEAST_PROBE };
        let wait = srtt.saturating_mul(2).saturating_add(patience);
        // Later than the timeout it is none: the timeout does the same and more.
        Some(self.last_sent.max(self.base) + Span(wait))
    }

    /// Does what is due.
    pub(crate) fn poll(&mut self, now: Instant, min_rto: Duration, sack: bool) {
        if self.flight.is_empty() {
            if self.persist_at.is_some_and(|at| at <= now) {
                self.persist();
            }
            return;
        }
        if self.reorder_at.is_some_and(|at| at <= now) {
            let flight = self.snd_nxt.since(self.snd_una);
            if self.find_losses(now, sack, false) && self.phase == Phase::Open {
                self.enter_recovery(flight);
            }
        }
        if self.base + self.rtt.timeout(min_rto) <= now {
            self.time_out(now);
        } else if self.tail_probe_at(sack).is_some_and(|at| at <= now) {
            self.forced = Some(Forced::TailProbe);
            self.probe = Some(Probe {
                end: self.snd_nxt,
                at: now,
                again: !self.may_send_new(),
            });
            self.base = now;
        }
    }

    fn persist(&mut self) {
        self.persist_at = None;
        self.forced = Some(match self.window.snd_wnd {
            0 => Forced::WindowProbe,
            _ => Forced::Override,
        });
        if self.window.snd_wnd == 0 {
            self.rtt.back_off();
        }
    }

    /// RFC 6298 5.4 to 5.6.
    fn time_out(&mut self, now: Instant) {
        let flight = self.snd_nxt.since(self.snd_una);
        let again = self.phase == Phase::Loss && self.rtt.is_backed_off();
        self.rtt.back_off();
        self.base = now;
        (self.duplicates, self.probe, self.reorder_at) = (0, None, None);
        if again {
            self.flight.forget_sacks();
        }
        self.flight.lose_all();
        if self.window.snd_wnd == 0 {
            // Not a loss but a window that closed on what was in flight (RFC 9293
            // MUST-34).
            self.forced = Some(Forced::WindowProbe);
            return;
        }
        self.congestion.timed_out(flight, self.mss, again);
        self.phase = Phase::Loss;
        self.recover = self.snd_nxt;
    }

    /// RFC 5681 4.1: a flow that has not sent for longer than the timeout begins
    /// again with the initial window.
    pub(crate) fn wake(&mut self, now: Instant, min_rto: Duration) {
        let rests = self.flight.is_empty() && self.snd_nxt < self.end();
        if rests && now.since(self.last_sent) > self.rtt.timeout(min_rto) {
            self.congestion.idle(self.mss);
        }
    }

    /// After all that may go went: what waits for a window sets the timer.
    pub(crate) fn arm(&mut self, now: Instant, min_rto: Duration) {
        self.forced = None;
        let waits = self.flight.is_empty() && self.snd_nxt < self.end();
        if !waits {
            self.persist_at = None;
        } else if self.persist_at.is_none() {
            let timeout = self.rtt.timeout(min_rto);
            let wait = match self.window.snd_wnd {
                0 => timeout,
                _ => timeout.clamp(OVERRIDE.0, OVERRIDE.1),
            };
            self.persist_at = Some(now + wait);
        }
    }

    /// The peer's window was told anew.
    pub(crate) fn window_was(&mut self, before: u32, now: Instant) {
        if before == 0 && self.window.snd_wnd > 0 {
            // What was lost in front of the shut window is sent again at once, and
            // timed from here.
            self.base = now;
            self.rtt.forget_backoff();
        }
    }
}
