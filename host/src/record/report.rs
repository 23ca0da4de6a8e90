//! What came of a replay.

use std::collections::BTreeMap;
use std::time::Duration;

use super::format::{Call, Callback, Frame, Header, Outcome};
use super::reader::{Ending, ReadError};
use super::text::in_words;
use crate::types::Instant;

/// What came of a replay: all that was compared and, if there is one, the first
/// difference.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The record's own.
    pub header: Header,
    /// Calls that were repeated, by the export's name.
    pub calls: BTreeMap<&'static str, u64>,
    /// Callbacks that were compared, by the import's name.
    pub callbacks: BTreeMap<&'static str, u64>,
    /// Instances that were made.
    pub instances: u64,
    /// Calls that ended with a trap or a callback's panic.
    pub traps: u64,
    /// Packets given to `l3_rx`.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets taken from `l3_tx`.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// The instants of the first and the last call that had one.
    pub span: Option<(Instant, Instant)>,
    /// How the record ends; none when the replay did not come so far.
    pub ending: Option<Ending>,
    /// The call that the record ends in.
    pub unfinished: Option<Unfinished>,
    /// What differs.
    pub difference: Option<Difference>,
    /// Why the record could not be read further. What comes before was replayed.
    pub damage: Option<ReadError>,
}

/// The call that was under way when the record ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Its number, from 1.
    pub call: u64,
    /// The call in words.
    pub during: String,
    /// What came first in the replay that the record has no word of, in words.
    pub replayed: String,
}

/// The first difference between a record and its replay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The number of the call, from 1; 0 before the first.
    pub call: u64,
    /// The instant that it was given, or the last one before.
    pub now: Option<Instant>,
    /// The call in words.
    pub during: String,
    /// What the record says, in words.
    pub recorded: String,
    /// What the replay says, in words.
    pub replayed: String,
    /// The packet of the replay that differs.
    pub packet: Option<Vec<u8>>,
}

impl Report {
    pub(super) fn new(header: Header) -> Self {
        Self {
            header,
            calls: BTreeMap::new(),
            callbacks: BTreeMap::new(),
            instances: 0,
            traps: 0,
            packets_in: 0,
            bytes_in: 0,
            packets_out: 0,
            bytes_out: 0,
            span: None,
            ending: None,
            unfinished: None,
            difference: None,
            damage: None,
        }
    }

    /// Whether every output that the record has is the same in the replay, and
    /// all of the record could be read. A record may end early ([`Ending::Cut`]).
    #[must_use]
    pub fn is_identical(&self) -> bool {
        self.difference.is_none() && self.damage.is_none() && self.ending.is_some()
    }

    /// Calls of all kinds.
    #[must_use]
    pub fn all_calls(&self) -> u64 {
        self.calls.values().sum()
    }

    /// The time between the first call and the last.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.span
            .map_or(Duration::ZERO, |(first, last)| last - first)
    }

    /// Counts a frame that was found equal, or a call that is made.
    pub(super) fn count(&mut self, frame: &Frame<'_>) {
        match frame {
            Frame::Header(_) | Frame::Started(_) | Frame::End => {}
            Frame::Instance(_) => self.instances += 1,
            Frame::Call(call) => self.count_call(call),
            Frame::Callback(callback) => {
                *self.callbacks.entry(callback.name()).or_default() += 1;
                if let Callback::L3Tx { packets, taken } = callback {
                    let taken = &packets[..packets.len().min(*taken as usize)];
                    let lengths = taken.iter().map(|sent| u64::from(sent.packet.length));
                    self.packets_out += taken.len() as u64;
                    self.bytes_out += lengths.sum::<u64>();
                }
            }
            Frame::Outcome(Outcome::Returned(_)) => {}
            Frame::Outcome(Outcome::Trapped(_) | Outcome::Panicked) => self.traps += 1,
        }
    }

    fn count_call(&mut self, call: &Call<'_>) {
        *self.calls.entry(call.name()).or_default() += 1;
        if let Call::L3Rx { packets, bytes, .. } = call {
            self.packets_in += packets.len() as u64;
            self.bytes_in += bytes.0.len() as u64;
        }
        if let Some(now) = call.now().map(Instant) {
            let first = self.span.map_or(now, |(first, _)| first);
            self.span = Some((first, now));
        }
    }

    /// Two frames that should be the same.
    pub(super) fn differ(
        &mut self,
        during: &str,
        recorded: &Frame<'_>,
        replayed: &Frame<'_>,
        bytes: &[u8],
    ) {
        let (recorded, replayed, packet) = match different_packet(recorded, replayed, bytes) {
            Some(found) => found,
            None => (in_words(recorded), in_words(replayed), None),
        };
        self.difference = Some(Difference {
            call: self.all_calls(),
            now: self.span.map(|(_, last)| last),
            during: during.to_owned(),
            recorded,
            replayed,
            packet,
        });
    }
}

/// The first packet that differs in two `l3-tx`, in words, and its bytes.
fn different_packet(
    recorded: &Frame<'_>,
    replayed: &Frame<'_>,
    bytes: &[u8],
) -> Option<(String, String, Option<Vec<u8>>)> {
    let (
        Frame::Callback(Callback::L3Tx {
            packets: before, ..
        }),
        Frame::Callback(Callback::L3Tx { packets: after, .. }),
    ) = (recorded, replayed)
    else {
        return None;
    };
    let at = (0..before.len().max(after.len())).find(|&at| before.get(at) != after.get(at))?;
    let words = |packets: &[super::Emitted]| match packets.get(at) {
        Some(emitted) => format!(
            "l3_tx, packet {} of {}: {} bytes, digest {:?}",
            at + 1,
            packets.len(),
            emitted.packet.length,
            emitted.digest
        ),
        None => format!("l3_tx of {} packets", packets.len()),
    };
    let start = after[..at.min(after.len())]
        .iter()
        .map(|emitted| emitted.packet.length as usize)
        .sum();
    let packet = after
        .get(at)
        .and_then(|emitted| bytes.get(start..)?.get(..emitted.packet.length as usize));
    Some((words(before), words(after), packet.map(<[u8]>::to_vec)))
}
