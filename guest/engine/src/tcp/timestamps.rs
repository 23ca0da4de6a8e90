//! The timestamps of one connection (RFC 7323 3 to 5).

use super::options::Timestamps;
use super::secrets::timestamp;
use super::seq::Seq;
use crate::types::Instant;

/// RFC 7323 5.5: for longer than 24 days without a segment, the peer's clock says
/// nothing.
const STALE: u64 = 24 * 24 * 3600 * 1_000_000_000;

/// Both ends agreed to send them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What is added to our clock.
    offset: u32,
    /// TS.Recent: the peer's value to be echoed, and since when.
    recent: u32,
    recent_at: Instant,
}

impl Clock {
    /// `value` is that of the peer's SYN.
    pub(crate) fn new(offset: u32, value: u32, now: Instant) -> Self {
        Self {
            offset,
            recent: value,
            recent_at: now,
        }
    }

    /// What a segment sent now carries.
    pub(crate) fn stamp(&self, now: Instant) -> Timestamps {
        Timestamps {
            value: timestamp(now, self.offset),
            echo: self.recent,
        }
    }

    /// RFC 7323 5.3 R1, PAWS: whether a segment is older than one that was taken.
    pub(crate) fn is_old(&self, now: Instant, value: u32) -> bool {
        value.wrapping_sub(self.recent).cast_signed() < 0
            && now.0.saturating_sub(self.recent_at.0) < STALE
    }

    /// Whether a value is later than the last that was taken.
    pub(crate) fn is_newer(&self, value: u32) -> bool {
        value.wrapping_sub(self.recent).cast_signed() > 0
    }

    /// RFC 7323 4.3 (2): the value of an acceptable segment is echoed from here if
    /// the segment does not lie ahead of the last acknowledgement sent.
    pub(crate) fn note(&mut self, now: Instant, value: u32, seq: Seq, last_ack_sent: Seq) {
        if !self.is_old(now, value) && seq <= last_ack_sent {
            (self.recent, self.recent_at) = (value, now);
        }
    }

    /// Whether an echo is older than what was sent at that instant.
    pub(crate) fn is_before(&self, echo: u32, sent: Instant) -> bool {
        echo.wrapping_sub(timestamp(sent, self.offset))
            .cast_signed()
            < 0
    }
}
