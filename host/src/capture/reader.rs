//! Reads captures.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use super::error::ReadError;
use super::link_layer::Link;
use super::pcap::Pcap;
use super::pcapng::Pcapng;
use super::window::Window;
use super::{Captured, Content, Counters, Direction};

/// The longest packet that libpcap captures (MAXIMUM_SNAPLEN). A record that claims
/// more is taken for damage.
pub(super) const LONGEST_PACKET: u32 = 262_144;

/// Reads packets of a capture, one after the other, in constant memory.
#[derive(Debug)]
pub struct Reader<R> {
    window: Window<R>,
    format: Format,
    /// Packets so far.
    packets: u64,
    /// Of the last packet that had one.
    time: u64,
    counters: Counters,
    /// At the end, or after an error.
    done: bool,
}

#[derive(Debug)]
enum Format {
    Pcap(Pcap),
    Pcapng(Pcapng),
}

/// A packet's record. The frame is given by its place in the window.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) at: Option<u64>,
    pub(super) frame: Range<usize>,
    pub(super) original: u32,
    pub(super) interface: u32,
    pub(super) link: Link,
    pub(super) direction: Option<Direction>,
}

impl Reader<File> {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or is not a capture that can be read. The error names
    /// the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref();
        let name = || path.display().to_string();
        let file = File::open(path).map_err(|source| ReadError::Open {
            path: name(),
            source,
        })?;
        Self::new(file).map_err(|source| ReadError::File {
            path: name(),
            source: Box::new(source),
        })
    }
}

impl<R: Read> Reader<R> {
    /// Begins to read. It reads ahead, in pieces of 64 KiB: a buffered stream gains
    /// nothing.
    ///
    /// # Errors
    ///
    /// The stream does not begin as a capture does.
    pub fn new(read: R) -> Result<Self, ReadError> {
        let mut window = Window::new(read);
        let faults = Faults::default();
        let first = window
            .peek(4)
            .map_err(|source| ReadError::Io { offset: 0, source })?;
        let format = match first {
            [0x0a, 0x0d, 0x0d, 0x0a] => Format::Pcapng(Pcapng::default()),
            [0xa1, 0xb2, 0xc3, 0xd4]
            | [0xd4, 0xc3, 0xb2, 0xa1]
            | [0xa1, 0xb2, 0x3c, 0x4d]
            | [0x4d, 0x3c, 0xb2, 0xa1]
            | [0x34, 0xcd, 0xb2, 0xa1] => Format::Pcap(Pcap::begin(&mut window, faults)?),
            other => {
                return Err(ReadError::NotACapture {
                    found: describe(other),
                });
            }
        };
        Ok(Self {
            window,
            format,
            packets: 0,
            time: 0,
            counters: Counters::default(),
            done: false,
        })
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    ///
    /// The rest of the capture cannot be read. After an error there is nothing
    /// more.
    #[expect(clippy::should_implement_trait, reason = "the packet is lent")]
    pub fn next(&mut self) -> Result<Option<Captured<'_>>, ReadError> {
        if self.done {
            return Ok(None);
        }
        self.done = true;
        let mut faults = Faults {
            offset: self.window.offset(),
            packets: self.packets,
        };
        let record = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.window, faults)?,
            Format::Pcapng(pcapng) => {
                let record = pcapng.next(&mut self.window, &mut faults)?;
                self.counters.skipped_blocks = pcapng.skipped_blocks;
                record
            }
        };
        let Some(record) = record else {
            self.judge_end()?;
            return Ok(None);
        };
        self.done = false;
        Ok(Some(self.captured(record, faults.offset)))
    }

    /// Bytes consumed: where the next record begins.
    pub fn offset(&self) -> u64 {
        self.window.offset()
    }

    /// What there was so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A capture of nothing but links that cannot be read is not an empty one.
    fn judge_end(&self) -> Result<(), ReadError> {
        let Format::Pcapng(Pcapng {
            unsupported: Some(found),
            ..
        }) = &self.format
        else {
            return Ok(());
        };
        if self.packets > self.counters.unsupported {
            return Ok(());
        }
        Err(ReadError::LinkType {
            link_type: found.link_type,
            interface: found.interface,
            offset: found.offset,
        })
    }

    fn captured(&mut self, record: Record, offset: u64) -> Captured<'_> {
        self.packets += 1;
        self.time = record.at.unwrap_or(self.time);
        let frame = self.window.bytes(record.frame);
        let whole = frame.len() as u64 >= u64::from(record.original);
        let (content, direction) = record.link.open(frame, whole);
        let counter = match content {
            Content::Ip(_) => &mut self.counters.ip,
            Content::Cut(_) => &mut self.counters.cut,
            Content::Other(super::Other::LinkType(_)) => &mut self.counters.unsupported,
            Content::Other(_) => &mut self.counters.other,
        };
        *counter += 1;
        Captured {
            at: self.time,
            number: self.packets,
            offset,
            content,
            original_length: record.original,
            direction: record.direction.or(direction),
            interface: record.interface,
        }
    }
}

/// The first bytes of what is not a capture, in hexadecimal.
fn describe(first: &[u8]) -> String {
    let hex: Vec<String> = first.iter().map(|byte| format!("{byte:02x}")).collect();
    let hint = match first {
        [] => return "it is empty".to_owned(),
        [0x1f, 0x8b, ..] => " (gzip: unpack it first)",
        [0x28, 0xb5, 0x2f, 0xfd] => " (Zstandard: unpack it first)",
        [0x04, 0x22, 0x4d, 0x18] => " (LZ4: unpack it first)",
        _ => "",
    };
    format!("it begins with {}{hint}", hex.join(" "))
}

/// What an error tells of where it was met.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// Where the record begins.
    pub(super) offset: u64,
    /// Packets before it.
    pub(super) packets: u64,
}

impl Faults {
    /// All of the next `length` bytes, which belong to `what`.
    pub(super) fn peek<'a, R: Read>(
        self,
        window: &'a mut Window<R>,
        length: usize,
        what: &'static str,
    ) -> Result<&'a [u8], ReadError> {
        let read = window.peek(length).map(<[u8]>::len);
        match read {
            Ok(found) if found == length => {}
            Ok(_) => return Err(self.truncated(window, what)),
            Err(source) => return Err(Self::io(window, source)),
        }
        let position = window.position();
        Ok(window.bytes(position..position + length))
    }

    pub(super) fn is_at_end<R: Read>(self, window: &mut Window<R>) -> Result<bool, ReadError> {
        match window.peek(1).map(<[u8]>::is_empty) {
            Ok(is_empty) => Ok(is_empty),
            Err(source) => Err(Self::io(window, source)),
        }
    }

    pub(super) fn truncated<R: Read>(self, window: &Window<R>, what: &'static str) -> ReadError {
        ReadError::Truncated {
            offset: self.offset,
            end: window.end(),
            what,
            packets: self.packets,
        }
    }

    pub(super) fn damaged(self, what: &'static str, why: impl Into<String>) -> ReadError {
        ReadError::Damaged {
            offset: self.offset,
            what,
            why: why.into(),
            packets: self.packets,
        }
    }

    pub(super) fn io<R: Read>(window: &Window<R>, source: io::Error) -> ReadError {
        ReadError::Io {
            offset: window.end(),
            source,
        }
    }
}

/// A byte order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Order {
    Big,
    #[default]
    Little,
}

impl Order {
    /// 0 beyond the end, which the caller has looked at.
    pub(super) fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let bytes = bytes
            .get(at..at + 2)
            .and_then(|bytes| bytes.try_into().ok());
        match self {
            Self::Big => u16::from_be_bytes(bytes.unwrap_or_default()),
            Self::Little => u16::from_le_bytes(bytes.unwrap_or_default()),
        }
    }

    /// 0 beyond the end, which the caller has looked at.
    pub(super) fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        match self {
            Self::Big => u32::from_be_bytes(bytes.unwrap_or_default()),
            Self::Little => u32::from_le_bytes(bytes.unwrap_or_default()),
        }
    }

    pub(super) fn i64(self, bytes: [u8; 8]) -> i64 {
        match self {
            Self::Big => i64::from_be_bytes(bytes),
            Self::Little => i64::from_le_bytes(bytes),
        }
    }
}
