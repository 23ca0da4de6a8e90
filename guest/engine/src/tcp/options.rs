//! TCP options: maximum segment size (RFC 9293 3.7.1), window scale and
//! timestamps (RFC 7323), selective acknowledgement (RFC 2018).

use super::seq::Seq;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// RFC 7323 2.3: a larger shift count is taken as this one.
pub(crate) const MOST_SHIFT: u8 = 14;
/// Bytes of a timestamps option with its padding: what every segment carries when
/// both ends agreed on it (RFC 7323 appendix A).
pub(crate) const TIMESTAMPS_LENGTH: u32 = 12;
/// SACK blocks that fit into a header without timestamps (RFC 2018 3).
pub(crate) const MOST_BLOCKS: usize = 4;
/// What a TCP header has room for: 15 words of 4 bytes but the 5 fixed ones.
const MOST_BYTES: usize = 40;

/// RFC 7323 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timestamps {
    /// TSval: the sender's clock.
    pub(crate) value: u32,
    /// `TSecr`: the receiver's clock, as the sender last heard it.
    pub(crate) echo: u32,
}

/// The options of a received segment. One that is broken ends them, and unknown
/// ones are passed over (RFC 9293 MUST-6, MUST-7).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options<'a> {
    pub(crate) mss: Option<u16>,
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    pub(crate) timestamps: Option<Timestamps>,
    /// Blocks of eight bytes.
    sack: &'a [u8],
}

impl<'a> Options<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Self {
        let mut options = Self::default();
        // What nearly every segment of a connection with timestamps carries.
        if let [NO_OPERATION, NO_OPERATION, TIMESTAMPS, 10, rest @ ..] = bytes
            && rest.len() == 8
        {
            options.timestamps = timestamps(rest);
            return options;
        }
        let mut rest = bytes;
        while let Some((kind, after)) = rest.split_first() {
            match *kind {
                END => break,
                NO_OPERATION => rest = after,
                kind => {
                    // The length counts the kind and itself.
                    let Some(length) = after.first().map(|length| usize::from(*length)) else {
                        break;
                    };
                    if length < 2 || length > rest.len() {
                        break;
                    }
                    let (option, after) = rest.split_at(length);
                    options.read(kind, &option[2..]);
                    rest = after;
                }
            }
        }
        options
    }

    fn read(&mut self, kind: u8, value: &'a [u8]) {
        match (kind, value) {
            (MSS, [high, low]) => self.mss = Some(u16::from_be_bytes([*high, *low])),
            (WINDOW_SCALE, [shift]) => self.window_scale = Some((*shift).min(MOST_SHIFT)),
            (SACK_PERMITTED, []) => self.sack_permitted = true,
            (SACK, blocks) if !blocks.is_empty() && blocks.len() % 8 == 0 => self.sack = blocks,
            (TIMESTAMPS, value) if value.len() == 8 => self.timestamps = timestamps(value),
            _ => {}
        }
    }

    /// The SACK blocks: first number, and the number after the last.
    pub(crate) fn sack(&self) -> impl Iterator<Item = (Seq, Seq)> + use<'a> {
        let (blocks, _) = self.sack.as_chunks::<8>();
        blocks.iter().map(|block| {
            let [s0, s1, s2, s3, e0, e1, e2, e3] = *block;
            let start = u32::from_be_bytes([s0, s1, s2, s3]);
            let end = u32::from_be_bytes([e0, e1, e2, e3]);
            (Seq(start), Seq(end))
        })
    }
}

fn timestamps(value: &[u8]) -> Option<Timestamps> {
    let [v0, v1, v2, v3, e0, e1, e2, e3] = *value.first_chunk::<8>()?;
    Some(Timestamps {
        value: u32::from_be_bytes([v0, v1, v2, v3]),
        echo: u32::from_be_bytes([e0, e1, e2, e3]),
    })
}

/// The options of a segment being made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer {
    bytes: [u8; MOST_BYTES],
    length: usize,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [NO_OPERATION; MOST_BYTES],
            length: 0,
        }
    }

    /// The options, padded to words of four bytes. None of the methods below
    /// writes what does not fit.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes
            .get(..self.length.next_multiple_of(4))
            .unwrap_or(&self.bytes)
    }

    pub(crate) fn mss(&mut self, mss: u16) {
        let [high, low] = mss.to_be_bytes();
        self.put(&[MSS, 4, high, low]);
    }

    pub(crate) fn window_scale(&mut self, shift: u8) {
        self.put(&[NO_OPERATION, WINDOW_SCALE, 3, shift]);
    }

    pub(crate) fn sack_permitted(&mut self) {
        self.put(&[NO_OPERATION, NO_OPERATION, SACK_PERMITTED, 2]);
    }

    pub(crate) fn timestamps(&mut self, timestamps: Timestamps) {
        let [v0, v1, v2, v3] = timestamps.value.to_be_bytes();
        let [e0, e1, e2, e3] = timestamps.echo.to_be_bytes();
        self.put(&[
            NO_OPERATION,
            NO_OPERATION,
            TIMESTAMPS,
            10,
            v0,
            v1,
            v2,
            v3,
            e0,
            e1,
            e2,
            e3,
        ]);
    }

    /// As many of the blocks, from the first, as fit into `room` bytes.
    pub(crate) fn sack(&mut self, blocks: &[(Seq, Seq)], room: usize) {
        let room = room.min(MOST_BYTES - self.length);
        let fit = (room.saturating_sub(4) / 8).min(blocks.len());
        let Some(length) = u8::try_from(8 * fit + 2).ok().filter(|_| fit > 0) else {
            return;
        };
        self.put(&[NO_OPERATION, NO_OPERATION, SACK, length]);
        for (start, end) in &blocks[..fit] {
            self.put(&start.0.to_be_bytes());
            self.put(&end.0.to_be_bytes());
        }
    }

    fn put(&mut self, option: &[u8]) {
        if let Some(space) = self.bytes.get_mut(self.length..self.length + option.len()) {
            space.copy_from_slice(option);
            self.length += option.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new();
        writer.mss(1460);
        writer.window_scale(7);
        writer.sack_permitted();
        let times = Timestamps { value: 1, echo: 2 };
        writer.timestamps(times);
        let options = Options::parse(writer.bytes());
        assert_eq!(options.mss, Some(1460));
        assert_eq!(options.window_scale, Some(7));
        assert!(options.sack_permitted);
        assert_eq!(options.timestamps, Some(times));
    }

    #[test]
    fn three_blocks_fit_beside_timestamps() {
        let blocks = [1, 2, 3, 4].map(|i| (Seq(10 * i), Seq(10 * i + 5)));
        let mut writer = Writer::new();
        writer.timestamps(Timestamps { value: 1, echo: 2 });
        writer.sack(&blocks, MOST_BYTES);
        assert_eq!(writer.bytes().len(), MOST_BYTES);
        assert!(
            Options::parse(writer.bytes())
                .sack()
                .eq(blocks[..3].iter().copied())
        );
    }

    #[test]
    fn broken_options_end_the_list() {
        for broken in [&[MSS, 0][..], &[MSS, 1], &[MSS, 40, 1], &[MSS], &[5, 3, 1]] {
            let options = Options::parse(broken);
            assert_eq!(options.mss, None);
            assert_eq!(options.sack().count(), 0);
        }
        assert_eq!(
            Options::parse(&[WINDOW_SCALE, 3, 15]).window_scale,
            Some(14)
        );
        assert_eq!(Options::parse(&[END, MSS, 4, 1, 1]).mss, None);
        assert_eq!(Options::parse(&[77, 2, MSS, 4, 1, 1]).mss, Some(0x101));
    }
}
