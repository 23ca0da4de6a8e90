//! What happened, as text: every call with its instant, every callback below it.
//! Two runs are the same when their traces are.

use std::fmt::{self, Write};

use l3l4_engine::{FiveTuple, FlowId, Instant, Packet};

use crate::wire;

/// The lines so far, or their digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    lines: Vec<String>,
    digest: Option<Digest>,
}

impl Trace {
    /// Keeps no lines, only a digest of them: for runs that are made again when
    /// theirs differ.
    #[must_use]
    pub fn digest_only() -> Self {
        Self {
            lines: Vec::new(),
            digest: Some(Digest::default()),
        }
    }

    /// The digest, when that is what is kept.
    #[must_use]
    pub fn digest(&self) -> Option<u64> {
        self.digest.map(|digest| digest.0)
    }

    /// The lines since the last look.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        match &mut self.digest {
            None => self.lines.push(line.to_string()),
            Some(digest) => {
                let _ = writeln!(digest, "{line}");
            }
        }
    }

    /// A call of an export.
    pub fn call(&mut self, now: Instant, what: impl fmt::Display) {
        let (seconds, rest) = (now.0 / 1_000_000_000, now.0 % 1_000_000_000);
        self.line(format_args!("{seconds}.{rest:09} {what}"));
    }

    /// A callback, or what a call returned.
    pub fn note(&mut self, what: impl fmt::Display) {
        self.line(format_args!("    {what}"));
    }

    /// The packets of a batch.
    pub fn packets(&mut self, arrow: &str, bytes: &[u8], packets: &[Packet]) {
        let mut rest = bytes;
        for packet in packets {
            let length = usize::try_from(packet.length)
                .expect("a length")
                .min(rest.len());
            let (one, next) = rest.split_at(length);
            match &mut self.digest {
                None => self.note(format_args!("{arrow} {}", describe(one))),
                Some(sum) => *sum = Digest(sum.0 ^ digest(one)).with(arrow.len() as u64),
            }
            rest = next;
        }
    }

    /// All lines.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The last lines, for a failure message.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let from = self.lines.len().saturating_sub(lines);
        self.lines[from..].join("\n")
    }

    /// Where two traces part, with some lines around; none when they are equal.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let longest = self.lines.len().max(other.lines.len());
        let at = (0..longest).find(|&i| self.lines.get(i) != other.lines.get(i))?;
        let mut text = format!("line {at}:\n");
        for line in &self.lines[at.saturating_sub(8)..at] {
            let _ = writeln!(text, "   {line}");
        }
        for (mark, trace) in [('-', self), ('+', other)] {
            for line in trace.lines.iter().skip(at).take(4) {
                let _ = writeln!(text, "{mark}  {line}");
            }
        }
        Some(text)
    }
}

/// One packet in a line, with a digest of all its bytes.
#[must_use]
pub fn describe(packet: &[u8]) -> String {
    let digest = digest(packet);
    match wire::read(packet) {
        Ok(seen) => format!("{seen} #{digest:016x}"),
        Err(error) => format!("broken ({error}), {} bytes #{digest:016x}", packet.len()),
    }
}

/// FNV-1a, over words of 64 bits instead of bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    let start = Digest::default().with(bytes.len() as u64);
    words
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
        .fold(start, Digest::with)
        .with(u64::from_le_bytes(last))
        .0
}

/// A digest under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// The rotation lets the upper half of a word reach the lower half of the sum.
    fn with(self, word: u64) -> Self {
        Self(
            (self.0 ^ word)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(29),
        )
    }
}

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        *self = self.with(digest(text.as_bytes()));
        Ok(())
    }
}

/// A flow's id as it is printed.
#[must_use]
pub fn name(flow: FlowId) -> String {
    format!("{flow:?}")
}

/// A tuple as it is printed.
#[must_use]
pub fn tuple(tuple: &FiveTuple) -> String {
    format!("{:?} {} < {}", tuple.protocol, tuple.local, tuple.peer)
}
