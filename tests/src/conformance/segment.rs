//! One TCP segment as a case writes it, with sequence numbers relative to the first
//! of each side. The same words inject a segment and expect one: what is left open
//! is filled in from the conversation, or matches anything.
//!
//! ```text
//! x.inject(syn().mss(1460).scale(7));
//! x.expect(syn_ack().ack(1).mss(1460).without(&[Kind::Timestamps]));
//! x.inject(data(b"hello").seq(1));
//! x.expect_within(ms(500), ack().ack(6));
//! ```

use std::fmt;

use crate::craft;
use crate::wire::{self, ACK, FIN, PSH, RST, SYN, Tcp, flag_letters};

/// A segment to inject or to expect.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    flags: u8,
    seq: Option<u32>,
    ack: Option<u32>,
    window: Option<u16>,
    urgent: u16,
    options: Vec<Opt>,
    without: Vec<Kind>,
    payload: Option<Vec<u8>>,
    length: Option<usize>,
}

/// A TCP option.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Opt {
    Mss(u16),
    Scale(u8),
    SackPermitted,
    Sack(Vec<(u32, u32)>),
    Timestamps(u32, u32),
    Raw(Vec<u8>),
}

/// Which option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Maximum segment size (RFC 9293 3.7.1).
    Mss,
    /// Window scale (RFC 7323 2).
    Scale,
    /// SACK permitted (RFC 2018 2).
    SackPermitted,
    /// SACK blocks (RFC 2018 3).
    Sack,
    /// Timestamps (RFC 7323 3).
    Timestamps,
}

/// A segment with exactly these flags.
#[must_use]
pub fn seg(flags: u8) -> Segment {
    Segment {
        flags,
        ..Segment::default()
    }
}

/// SYN.
#[must_use]
pub fn syn() -> Segment {
    seg(SYN)
}

/// SYN and ACK.
#[must_use]
pub fn syn_ack() -> Segment {
    seg(SYN | ACK)
}

/// A bare acknowledgement.
#[must_use]
pub fn ack() -> Segment {
    seg(ACK).len(0)
}

/// These bytes.
#[must_use]
pub fn data(bytes: &[u8]) -> Segment {
    let mut segment = seg(ACK | PSH);
    segment.payload = Some(bytes.to_vec());
    segment
}

/// FIN and ACK.
#[must_use]
pub fn fin() -> Segment {
    seg(FIN | ACK)
}

/// RST without an acknowledgement.
#[must_use]
pub fn rst() -> Segment {
    seg(RST)
}

/// RST and ACK.
#[must_use]
pub fn rst_ack() -> Segment {
    seg(RST | ACK)
}

impl Segment {
    /// SEG.SEQ, relative to the first of the sender.
    #[must_use]
    pub fn seq(mut self, seq: u32) -> Self {
        self.seq = Some(seq);
        self
    }

    /// SEG.ACK, relative to the first of the receiver; the flag stays as it is.
    #[must_use]
    pub fn ack(mut self, ack: u32) -> Self {
        self.ack = Some(ack);
        self
    }

    /// SEG.WND, as it stands in the header.
    #[must_use]
    pub fn win(mut self, window: u16) -> Self {
        self.window = Some(window);
        self
    }

    /// The urgent pointer, with its flag.
    #[must_use]
    pub fn urgent(mut self, pointer: u16) -> Self {
        self.flags |= wire::URG;
        self.urgent = pointer;
        self
    }

    /// More flags.
    #[must_use]
    pub fn with(mut self, flags: u8) -> Self {
        self.flags |= flags;
        self
    }

    /// Bytes in it.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = Some(bytes.to_vec());
        self.length = None;
        self
    }

    /// So many bytes in it, whichever.
    #[must_use]
    pub fn len(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// Maximum segment size.
    #[must_use]
    pub fn mss(self, mss: u16) -> Self {
        self.option(Opt::Mss(mss))
    }

    /// Window scale.
    #[must_use]
    pub fn scale(self, shift: u8) -> Self {
        self.option(Opt::Scale(shift))
    }

    /// SACK permitted.
    #[must_use]
    pub fn sack_ok(self) -> Self {
        self.option(Opt::SackPermitted)
    }

    /// SACK blocks, relative to the first sequence number of the receiver of this
    /// segment.
    #[must_use]
    pub fn sack(self, blocks: &[(u32, u32)]) -> Self {
        self.option(Opt::Sack(blocks.to_vec()))
    }

    /// Timestamps: the sender's value and the echo.
    #[must_use]
    pub fn ts(self, value: u32, echo: u32) -> Self {
        self.option(Opt::Timestamps(value, echo))
    }

    /// Bytes of an option, however broken; only to inject.
    #[must_use]
    pub fn raw_option(self, bytes: &[u8]) -> Self {
        self.option(Opt::Raw(bytes.to_vec()))
    }

    /// None of these options; only to expect.
    #[must_use]
    pub fn without(mut self, kinds: &[Kind]) -> Self {
        self.without.extend_from_slice(kinds);
        self
    }

    fn option(mut self, option: Opt) -> Self {
        self.options.push(option);
        self
    }

    /// Whether the sequence number was left open, so that the segment is the next
    /// of the stream.
    pub(crate) fn is_next(&self) -> bool {
        self.seq.is_none()
    }

    /// What it uses up of the sequence.
    pub(crate) fn sequence_length(&self) -> u32 {
        let length = self.payload.as_ref().map_or(0, Vec::len);
        let flags = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        u32::try_from(length).expect("a segment") + flags
    }

    /// To inject: `bare` has the addresses, `next` and `heard` stand for what was
    /// left open, and both sides' first numbers are added.
    pub(crate) fn packet(
        &self,
        bare: craft::Segment,
        (isn, next): (u32, u32),
        (irs, heard): (u32, u32),
    ) -> Vec<u8> {
        let mut segment = bare
            .with(self.flags)
            .seq(isn.wrapping_add(self.seq.unwrap_or(next)))
            .urgent(self.urgent);
        if self.flags & ACK != 0 || self.ack.is_some() {
            segment = segment.acking(irs.wrapping_add(self.ack.unwrap_or(heard)));
        }
        if let Some(window) = self.window {
            segment = segment.window(window);
        }
        for option in &self.options {
            segment = match option {
                Opt::Mss(mss) => segment.mss(*mss),
                Opt::Scale(shift) => segment.scale(*shift),
                Opt::SackPermitted => segment.sack_permitted(),
                Opt::Sack(blocks) => {
                    let edge = |edge: u32| irs.wrapping_add(edge);
                    let blocks: Vec<_> = blocks.iter().map(|(l, r)| (edge(*l), edge(*r))).collect();
                    segment.sack(&blocks)
                }
                Opt::Timestamps(value, echo) => segment.timestamps(*value, *echo),
                Opt::Raw(bytes) => segment.option(bytes),
            };
        }
        segment
            .payload(self.payload.as_deref().unwrap_or_default())
            .into()
    }

    /// In what a segment that came, its numbers relative, differs from this one.
    /// PSH is the sender's business and never counts.
    pub(crate) fn differences(&self, seen: &Tcp) -> Vec<String> {
        let mut found = Vec::new();
        let (wanted, came) = (self.flags & !PSH, seen.flags & !PSH);
        if wanted != came {
            let (wanted, came) = (flag_letters(wanted), flag_letters(came));
            found.push(format!("flags {came}, not {wanted}"));
        }
        let mut number = |name, came: usize, wanted: Option<usize>| {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != came) {
                found.push(format!("{name} {came}, not {wanted}"));
            }
        };
        let wide = |number: u32| usize::try_from(number).expect("32 bits");
        number("seq", wide(seen.seq), self.seq.map(wide));
        number("ack", wide(seen.ack), self.ack.map(wide));
        number("window", seen.window.into(), self.window.map(usize::from));
        let length = self.length.or(self.payload.as_ref().map(Vec::len));
        number("length", seen.payload.len(), length);
        if self
            .payload
            .as_ref()
            .is_some_and(|wanted| wanted.len() == seen.payload.len() && *wanted != seen.payload)
        {
            found.push("other bytes".into());
        }
        found.extend(
            self.options
                .iter()
                .filter_map(|option| missing(option, seen)),
        );
        let present = self.without.iter().filter(|kind| has(seen, **kind));
        found.extend(present.map(|kind| format!("option {kind:?} is present")));
        found
    }
}

fn missing(option: &Opt, seen: &Tcp) -> Option<String> {
    let (holds, came) = match option {
        Opt::Mss(mss) => (seen.mss == Some(*mss), format!("mss {:?}", seen.mss)),
        Opt::Scale(shift) => {
            let came = seen.window_scale;
            (came == Some(*shift), format!("window scale {came:?}"))
        }
        Opt::SackPermitted => (seen.sack_permitted, "no SACK-permitted".into()),
        Opt::Sack(blocks) => (seen.sack == *blocks, format!("SACK {:?}", seen.sack)),
        Opt::Timestamps(value, echo) => {
            let came = seen.timestamps;
            (
                came == Some((*value, *echo)),
                format!("timestamps {came:?}"),
            )
        }
        Opt::Raw(bytes) => panic!("{bytes:?} can be injected, not expected"),
    };
    (!holds).then(|| format!("{came}, not {option:?}"))
}

fn has(seen: &Tcp, kind: Kind) -> bool {
    match kind {
        Kind::Mss => seen.mss.is_some(),
        Kind::Scale => seen.window_scale.is_some(),
        Kind::SackPermitted => seen.sack_permitted,
        Kind::Sack => !seen.sack.is_empty(),
        Kind::Timestamps => seen.timestamps.is_some(),
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&flag_letters(self.flags))?;
        if let Some(seq) = self.seq {
            write!(f, " seq {seq}")?;
        }
        if let Some(ack) = self.ack {
            write!(f, " ack {ack}")?;
        }
        if let Some(window) = self.window {
            write!(f, " win {window}")?;
        }
        if let Some(length) = self.length.or(self.payload.as_ref().map(Vec::len)) {
            write!(f, " length {length}")?;
        }
        for option in &self.options {
            write!(f, " {option:?}")?;
        }
        for kind in &self.without {
            write!(f, " no {kind:?}")?;
        }
        Ok(())
    }
}

/// A segment that came, its numbers relative, in packetdrill's order.
#[must_use]
pub fn brief(seen: &Tcp) -> String {
    let mut text = flag_letters(seen.flags);
    text += &format!(" {}:{}({})", seen.seq, seen.end(), seen.payload.len());
    if seen.has(ACK) {
        text += &format!(" ack {}", seen.ack);
    }
    text += &format!(" win {}", seen.window);
    let mut options = Vec::new();
    options.extend(seen.mss.map(|mss| format!("mss {mss}")));
    options.extend(seen.window_scale.map(|shift| format!("ws {shift}")));
    options.extend(seen.sack_permitted.then(|| "sackOK".to_owned()));
    options.extend(
        seen.timestamps
            .map(|(value, echo)| format!("TS {value} {echo}")),
    );
    options.extend(
        seen.sack
            .iter()
            .map(|(left, right)| format!("sack {left}:{right}")),
    );
    if !options.is_empty() {
        text += &format!(" <{}>", options.join(","));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::craft::{Family, Peer};
    use crate::wire::Body;

    /// As a segment of the peer's would be read, its numbers relative.
    fn seen(segment: &Segment) -> Tcp {
        let packet = segment.packet(Peer::new(Family::V4).segment(0), (0, 0), (0, 0));
        match wire::read(&packet).unwrap().body {
            Body::Tcp(tcp) => tcp,
            other => panic!("a segment, not {other:?}"),
        }
    }

    #[test]
    fn a_segment_is_like_itself_and_like_one_that_leaves_all_open() {
        let full = data(b"hello")
            .seq(1)
            .ack(7)
            .win(99)
            .ts(1, 2)
            .sack(&[(3, 4)]);
        assert_eq!(full.differences(&seen(&full)), Vec::<String>::new());
        assert_eq!(seg(ACK).differences(&seen(&full)), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_named() {
        let came = seen(&data(b"hello").seq(1).ack(7).win(99).ts(1, 2));
        let differences = |wanted: Segment| wanted.differences(&came).join("; ");
        assert_eq!(differences(fin()), "flags ., not F.");
        assert_eq!(differences(seg(ACK).seq(2)), "seq 1, not 2");
        assert_eq!(differences(seg(ACK).ack(8)), "ack 7, not 8");
        assert_eq!(differences(seg(ACK).win(0)), "window 99, not 0");
        assert_eq!(differences(ack()), "length 5, not 0");
        assert_eq!(differences(data(b"hallo")), "other bytes");
        assert_eq!(
            differences(seg(ACK).ts(1, 3)),
            "timestamps Some((1, 2)), not Timestamps(1, 3)"
        );
        assert_eq!(differences(seg(ACK).mss(500)), "mss None, not Mss(500)");
        assert_eq!(
            differences(seg(ACK).without(&[Kind::Timestamps, Kind::Sack])),
            "option Timestamps is present"
        );
    }

    #[test]
    fn a_brief_segment_reads_as_packetdrill_writes_it() {
        let segment = seen(&syn().mss(1460).sack_ok().scale(7).ts(5, 0).win(1000));
        let text = "S 0:1(0) win 1000 <mss 1460,ws 7,sackOK,TS 5 0>";
        assert_eq!(brief(&segment), text);
    }
}
