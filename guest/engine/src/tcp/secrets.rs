//! What a peer must not be able to foretell: initial sequence numbers (RFC 6528),
//! timestamp offsets (RFC 7323 7.1) and SYN cookies (RFC 4987 3.6). All are keyed
//! hashes of the connection's tuple.

use core::net::IpAddr;
use core::time::Duration;

use super::options::Timestamps;
use super::segment::{Segment, Syn};
use super::seq::Seq;
use crate::siphash::Key;
use crate::tuple::Tuple;
use crate::types::Instant;

/// RFC 6528 3: the clock of the sequence numbers ticks every 4 microseconds.
const TICK: u64 = 4_000;
/// The clock of our timestamps ticks every millisecond (RFC 7323 5.4).
const TIMESTAMP_TICK: u64 = 1_000_000;
/// A cookie is good for this and the next period.
const COOKIE_PERIOD: u64 = 64_000_000_000;
pub(crate) const COOKIE_LIFETIME: Duration = Duration::from_nanos(2 * COOKIE_PERIOD);
/// Bits of a cookie that vary with its period and carry the MSS.
const COOKIE_BITS: u32 = 0x00ff_ffff;
/// The segment sizes that a cookie can carry: those of Ethernet with and without
/// tunnels, jumbo frames, and the largest.
const SIZES: [u16; 8] = [48, 536, 1220, 1340, 1440, 1460, 8940, 65_475];
/// Bits of the timestamp that carry what else a SYN said: four for the scale, one
/// for SACK.
const TOLD_BITS: u32 = 0x1f;
const NO_SCALE: u32 = 15;

/// Separates the uses of the key.
#[derive(Clone, Copy, Debug)]
enum Use {
    Sequence = 1,
    Timestamp,
    Cookie,
    CookiePeriod,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Secrets(Key);

impl Secrets {
    pub(crate) fn new(key: Key) -> Self {
        Self(key)
    }

    /// RFC 6528 3: ISN = M + F(tuple, key).
    pub(crate) fn iss(&self, now: Instant, tuple: &Tuple) -> Seq {
        let clock = Seq(low(now.0 / TICK));
        clock + self.hash(tuple, Use::Sequence, 0)
    }

    /// What is added to the clock in the timestamps of a connection.
    pub(crate) fn timestamp_offset(&self, tuple: &Tuple) -> u32 {
        self.hash(tuple, Use::Timestamp, 0)
    }

    /// The initial sequence number, and the value of the timestamp if the SYN had
    /// one, that remember a SYN without state.
    pub(crate) fn cookie(&self, now: Instant, tuple: &Tuple, syn: &Syn) -> (Seq, u32) {
        let period = now.0 / COOKIE_PERIOD;
        let fits = SIZES.partition_point(|size| *size <= syn.mss_or_default(tuple));
        let size = u32::try_from(fits.saturating_sub(1)).unwrap_or(0);
        let varying = self.varying(tuple, syn.irs, period).wrapping_add(size) & COOKIE_BITS;
        let iss = syn.irs + self.hash(tuple, Use::Cookie, 0) + (low(period) << 24) + varying;
        let scale = syn.window_scale.map_or(NO_SCALE, u32::from);
        let told = scale | u32::from(syn.sack_permitted) << 4;
        let clock = timestamp(now, self.timestamp_offset(tuple));
        let value = clock & !TOLD_BITS | told;
        // Never ahead of the clock.
        let ahead = value.wrapping_sub(clock).cast_signed() > 0;
        (
            iss,
            if ahead {
                value.wrapping_sub(TOLD_BITS + 1)
            } else {
                value
            },
        )
    }

    /// The SYN that a cookie remembers, if the segment acknowledges one of ours,
    /// and our initial sequence number.
    pub(crate) fn recall(&self, now: Instant, segment: &Segment<'_>) -> Option<(Syn, Seq)> {
        let tuple = &segment.tuple;
        let (irs, iss) = (segment.seq - 1, segment.ack? - 1);
        let rest = iss.since(irs + self.hash(tuple, Use::Cookie, 0));
        let period = now.0 / COOKIE_PERIOD;
        let age = low(period).wrapping_sub(rest >> 24) & 0xff;
        if age > 1 {
            return None;
        }
        let made = period.checked_sub(u64::from(age))?;
        let size = rest.wrapping_sub(self.varying(tuple, irs, made)) & COOKIE_BITS;
        let mss = *SIZES.get(size as usize)?;
        let told = segment
            .options
            .timestamps
            .map(|Timestamps { echo, .. }| echo & TOLD_BITS);
        let scale = told
            .map(|told| told & 0xf)
            .filter(|scale| *scale != NO_SCALE);
        let syn = Syn {
            irs,
            window: segment.window,
            mss: Some(mss),
            window_scale: scale.and_then(|scale| u8::try_from(scale).ok()),
            sack_permitted: told.is_some_and(|told| told >> 4 != 0),
            timestamp: segment.options.timestamps.map(|times| times.value),
        };
        Some((syn, iss))
    }

    /// The peer's number is part of it: a cookie that is proven by a segment some
    /// bytes further on would be of another size, and those bytes be lost.
    fn varying(&self, tuple: &Tuple, irs: Seq, period: u64) -> u32 {
        let period = period & 0x00ff_ffff;
        self.hash(tuple, Use::CookiePeriod, u64::from(irs.0) << 24 | period)
    }

    fn hash(&self, tuple: &Tuple, purpose: Use, with: u64) -> u32 {
        low(tuple.hash(&self.0, with << 8 | purpose as u64))
    }
}

/// The clock of a connection's timestamps.
pub(crate) fn timestamp(now: Instant, offset: u32) -> u32 {
    low(now.0 / TIMESTAMP_TICK).wrapping_add(offset)
}

/// RFC 9293 MUST-15, and the same for IPv6 (RFC 8200 5).
pub(crate) fn default_mss(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => 536,
        IpAddr::V6(_) => 1220,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "32 bits are wanted")]
fn low(value: u64) -> u32 {
    value as u32
}
