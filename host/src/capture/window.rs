//! The part of a stream that is in memory.
//!
//! The buffer grows with the bytes that really come, never by what a length field
//! claims, and whoever asks for bytes bounds what it asks for.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;

/// Bytes to ask the stream for at once.
const PIECE: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Window<R> {
    read: R,
    buffer: Vec<u8>,
    /// What of the buffer has come and is not consumed.
    held: Range<usize>,
    /// Offset in the stream of the first byte held.
    offset: u64,
}

impl<R: Read> Window<R> {
    pub(super) fn new(read: R) -> Self {
        Self {
            read,
            buffer: Vec::new(),
            held: 0..0,
            offset: 0,
        }
    }

    /// Bytes consumed.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that have come, consumed or not.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.held.len() as u64
    }

    /// The next `length` bytes; fewer at the end of the stream.
    pub(super) fn peek(&mut self, length: usize) -> io::Result<&[u8]> {
        while self.held.len() < length {
            if self.fill()? == 0 {
                break;
            }
        }
        let end = self.held.end.min(self.held.start + length);
        Ok(&self.buffer[self.held.start..end])
    }

    /// Consumes bytes that were peeked at. They stay where they are until the
    /// stream is read on: see [`Window::bytes`].
    pub(super) fn consume(&mut self, length: usize) {
        let length = length.min(self.held.len());
        self.held.start += length;
        self.offset += length as u64;
    }

    /// Consumes without holding; fewer than `length` at the end of the stream.
    pub(super) fn skip(&mut self, length: u64) -> io::Result<u64> {
        let mut left = length;
        loop {
            let held = self
                .held
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            self.consume(held);
            left -= held as u64;
            if left == 0 || self.fill()? == 0 {
                return Ok(length - left);
            }
        }
    }

    /// Where in the buffer the next byte stands.
    pub(super) fn position(&self) -> usize {
        self.held.start
    }

    /// Bytes by their place in the buffer, as long as the stream was not read on.
    pub(super) fn bytes(&self, place: Range<usize>) -> &[u8] {
        self.buffer.get(place).unwrap_or_default()
    }

    /// Reads once. 0: the stream has ended.
    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.copy_within(self.held.clone(), 0);
        self.held = 0..self.held.len();
        if self.buffer.len() < self.held.end + PIECE {
            self.buffer.resize(self.held.end + PIECE, 0);
        }
        loop {
            match self.read.read(&mut self.buffer[self.held.end..]) {
                Ok(length) => {
                    self.held.end += length;
                    return Ok(length);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
