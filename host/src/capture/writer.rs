//! Writes captures.

use std::io::{self, ErrorKind, Write};

use super::Direction;

/// LINKTYPE_RAW: the packet and nothing else.
const RAW: u16 = 101;

/// Writes a pcapng with one interface of raw IP packets, their times in
/// nanoseconds and their directions.
///
/// Each packet is one write, so a reader of the file always finds whole packets,
/// however this process ends. No buffer beneath it is needed, nor is one gained:
/// the packets of a device cost a system call each anyway.
#[derive(Debug)]
pub struct Writer<W> {
    write: W,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a capture, of an interface with this name.
    ///
    /// # Errors
    ///
    /// Those of `write`.
    pub fn new(write: W, interface: &str) -> io::Result<Self> {
        let mut writer = Self {
            write,
            block: Vec::new(),
        };
        let program = concat!("l3l4 ", env!("CARGO_PKG_VERSION"));
        writer.begin(0x0a0d_0d0a);
        writer.u32(0x1a2b_3c4d);
        writer.u16(1);
        writer.u16(0);
        // The length of the section is not known before its end: -1.
        writer.u32(u32::MAX);
        writer.u32(u32::MAX);
        writer.option(4, program.as_bytes());
        writer.option(0, &[]);
        writer.end()?;

        writer.begin(1);
        writer.u16(RAW);
        writer.u16(0);
        // No limit to the length of packets.
        writer.u32(0);
        writer.option(2, interface.as_bytes());
        writer.option(9, &[9]);
        writer.option(0, &[]);
        writer.end()?;
        Ok(writer)
    }

    /// Writes one packet, with its time in nanoseconds since 1970.
    ///
    /// # Errors
    ///
    /// Those of the writer beneath.
    pub fn packet(&mut self, at: u64, direction: Direction, packet: &[u8]) -> io::Result<()> {
        let length = u32::try_from(packet.len()).map_err(|_| ErrorKind::InvalidInput)?;
        let [a, b, c, d, e, f, g, h] = at.to_be_bytes();
        self.begin(6);
        self.u32(0);
        self.u32(u32::from_be_bytes([a, b, c, d]));
        self.u32(u32::from_be_bytes([e, f, g, h]));
        self.u32(length);
        self.u32(length);
        self.padded(packet);
        let flags: u32 = match direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        self.option(2, &flags.to_le_bytes());
        self.option(0, &[]);
        self.end()
    }

    /// Flushes the writer beneath.
    ///
    /// # Errors
    ///
    /// Those of the writer beneath.
    pub fn flush(&mut self) -> io::Result<()> {
        self.write.flush()
    }

    /// The writer beneath. A capture needs no end.
    pub fn into_inner(self) -> W {
        self.write
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.u32(kind);
        self.u32(0);
    }

    /// Fills in both lengths, and writes the block.
    fn end(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.block.len() + 4).map_err(|_| ErrorKind::InvalidInput)?;
        self.block[4..8].copy_from_slice(&length.to_le_bytes());
        self.u32(length);
        self.write.write_all(&self.block)
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.u16(code);
        self.u16(length);
        self.padded(&value[..length.into()]);
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
        let length = self.block.len().next_multiple_of(4);
        self.block.resize(length, 0);
    }

    fn u16(&mut self, value: u16) {
        self.block.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.block.extend_from_slice(&value.to_le_bytes());
    }
}
