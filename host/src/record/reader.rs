//! Reads a record, frame by frame, in the memory of one frame.

use std::io::{self, ErrorKind, Read};

use super::format::{self, AFTER, BEFORE, Frame, Header, MAGIC, MAX_PAYLOAD, VERSION};

/// Reads the frames of a record. Give it a buffered reader.
#[derive(Debug)]
pub struct Reader<R> {
    read: R,
    header: Header,
    payload: Vec<u8>,
    /// Where the frame in `payload` begins, and where the next one does.
    start: u64,
    offset: u64,
    ending: Option<Ending>,
}

/// How a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The engine was dropped: the record is whole.
    Whole,
    /// The program that wrote it was killed, or could not write: all up to this
    /// offset in bytes is there, and any bytes behind it are part of a frame.
    Cut(u64),
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is no record.
    #[error("this is no record: it does not begin with {}", String::from_utf8_lossy(&MAGIC))]
    Foreign,
    /// It is one of another version.
    #[error(
        "the record is of version {0} and this program reads version {VERSION}: use the release that wrote it"
    )]
    Version(u8),
    /// It ends before the first frame, which names the component.
    #[error("the record ends at offset {0}, before it says what was recorded")]
    Empty(u64),
    /// The bytes are not those that were written.
    #[error("the record is damaged at offset {offset}: {what}")]
    Damaged {
        /// Where the frame begins.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file or device failed.
    #[error("cannot read the record at offset {offset}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
}

impl<R: Read> Reader<R> {
    /// Reads up to the header.
    ///
    /// # Errors
    ///
    /// When this is no record of this version.
    pub fn new(read: R) -> Result<Self, ReadError> {
        let mut reader = Self {
            read,
            header: Header {
                component: [0; 32],
                component_bytes: 0,
                writer: String::new(),
                guest_memory_limit: 0,
                call_time_limit: None,
            },
            payload: Vec::new(),
            start: 0,
            offset: 0,
            ending: None,
        };
        let mut start = [0; MAGIC.len() + 1];
        let length = reader.fill(&mut start)?;
        if length < start.len() || start[..MAGIC.len()] != MAGIC {
            return Err(ReadError::Foreign);
        }
        if start[MAGIC.len()] != VERSION {
            return Err(ReadError::Version(start[MAGIC.len()]));
        }
        reader.offset = start.len() as u64;
        let header = match reader.next_frame()? {
            Some(Frame::Header(header)) => Some(header),
            Some(_) | None => None,
        };
        reader.header = match header {
            Some(header) => header,
            None if reader.ending.is_some() => return Err(ReadError::Empty(reader.offset)),
            None => return Err(reader.damaged("the header is not the first frame")),
        };
        Ok(reader)
    }

    /// The record's first frame.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How the record ends, when that has been reached.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// The next frame; none at the end ([`ending`](Self::ending)).
    ///
    /// # Errors
    ///
    /// When the bytes are not those that were written.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        if self.ending.is_some() || !self.read_payload()? {
            return Ok(None);
        }
        let first = self.start == MAGIC.len() as u64 + 1;
        match *self.payload {
            [END] => self.end(),
            [HEADER, ..] if !first => Err(self.damaged("a second header")),
            _ => self.frame().map(Some),
        }
    }

    /// The frame that was read last.
    ///
    /// # Errors
    ///
    /// None that [`next_frame`](Self::next_frame) has not had.
    pub(super) fn frame(&self) -> Result<Frame<'_>, ReadError> {
        format::decode(&self.payload)
            .map_err(|_| self.damaged("it says nothing that this program knows"))
    }

    /// Takes the payload of the frame that was read last.
    pub(super) fn take_payload(&mut self, buffer: &mut Vec<u8>) {
        std::mem::swap(&mut self.payload, buffer);
    }

    /// Reads one frame into `payload`. `false`: there is none left.
    fn read_payload(&mut self) -> Result<bool, ReadError> {
        self.start = self.offset;
        let mut before = [0; BEFORE];
        if self.fill(&mut before)? < BEFORE {
            return Ok(self.cut());
        }
        let (length, checksum) = before.split_at(4);
        if crc32fast::hash(length) != word(checksum) {
            return Err(self.damaged("the checksum of a length is wrong"));
        }
        let length = word(length) as usize;
        if length > MAX_PAYLOAD {
            return Err(self.damaged("a length beyond all that is written"));
        }
        self.payload.clear();
        let whole = (length + AFTER) as u64;
        // As it comes: a length is no reason to take memory.
        let read = (&mut self.read).take(whole).read_to_end(&mut self.payload);
        if let Err(source) = read {
            let offset = self.offset;
            return Err(ReadError::Read { offset, source });
        }
        if self.payload.len() < length + AFTER {
            return Ok(self.cut());
        }
        let checksum = word(&self.payload[length..]);
        self.payload.truncate(length);
        if crc32fast::hash(&self.payload) != checksum {
            return Err(self.damaged("a checksum is wrong"));
        }
        self.offset += BEFORE as u64 + whole;
        Ok(true)
    }

    fn cut(&mut self) -> bool {
        self.ending = Some(Ending::Cut(self.offset));
        false
    }

    fn end(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        self.start = self.offset;
        match self.fill(&mut [0])? {
            0 => {
                self.ending = Some(Ending::Whole);
                Ok(None)
            }
            _ => Err(self.damaged("there is more behind its end")),
        }
    }

    pub(super) fn damaged(&self, what: &'static str) -> ReadError {
        let offset = self.start;
        ReadError::Damaged { offset, what }
    }

    /// Reads until the buffer is full or there is no more.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.offset;
                    return Err(ReadError::Read { offset, source });
                }
            }
        }
        Ok(filled)
    }
}

/// The number of [`Frame::Header`].
const HEADER: u8 = 0;
/// The number of [`Frame::End`].
const END: u8 = 6;

fn word(bytes: &[u8]) -> u32 {
    let bytes = bytes.first_chunk().copied().unwrap_or_default();
    u32::from_le_bytes(bytes)
}
