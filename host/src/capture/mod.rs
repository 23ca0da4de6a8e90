//! Captures: packets read from pcap and pcapng files, and written to pcapng.
//!
//! [`Reader`] gives the IP packets of a capture one after the other, in constant
//! memory, whatever link they were captured on; of a file that is cut off or
//! damaged it gives all that comes before. [`Writer`] makes a pcapng that says of
//! each packet which way it went, and [`Tap`] writes one of all that passes a
//! device.
//!
//! The way of a packet through the files: `window.rs` (bytes of the file) →
//! `pcap.rs` or `pcapng.rs` (a record of it) → `link_layer.rs` (the IP packet in
//! the frame) → `reader.rs`.

mod error;
mod link_layer;
mod pcap;
mod pcapng;
mod reader;
mod tap;
mod window;
mod writer;

pub use error::ReadError;
pub use reader::Reader;
pub use tap::Tap;
pub use writer::Writer;

/// A packet of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured<'a> {
    /// Nanoseconds since 1970. A simple packet block of pcapng has no time: it
    /// gets that of the packet before it.
    pub at: u64,
    /// Its place in the file from 1, as Wireshark counts.
    pub number: u64,
    /// Where its record begins in the file.
    pub offset: u64,
    /// What there is of it.
    pub content: Content<'a>,
    /// Bytes that were on the link, its header included.
    pub original_length: u32,
    /// Which way it went, when the capture says so.
    pub direction: Option<Direction>,
    /// The interface, by its number within the section (0 in a pcap).
    pub interface: u32,
}

/// What a record of a capture holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// An IP packet, as good or bad as it was sent.
    Ip(&'a [u8]),
    /// The begin of an IP packet: the rest was not captured (snap length).
    Cut(&'a [u8]),
    /// Something else.
    Other(Other),
}

/// What is not an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// Address resolution.
    Arp,
    /// Another protocol on the link, by its EtherType; below 1,536 it is the length of
    /// an IEEE 802.3 frame.
    EtherType(u16),
    /// Another address family on a loopback interface.
    Family(u32),
    /// A frame that ends within the header of its link.
    TooShort,
    /// A frame of an interface whose link type is not supported.
    LinkType(u16),
}

impl std::fmt::Display for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Arp => write!(f, "ARP"),
            Self::EtherType(kind) => write!(f, "EtherType {kind:#06x}"),
            Self::Family(family) => write!(f, "address family {family}"),
            Self::TooShort => write!(f, "a frame shorter than its header"),
            Self::LinkType(link) => write!(f, "link type {link}"),
        }
    }
}

/// Which way a packet went, as the engine's side of the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards the engine.
    Inbound,
    /// From the engine.
    Outbound,
}

/// What a [`Reader`] has met so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// IP packets.
    pub ip: u64,
    /// IP packets that the snap length cut.
    pub cut: u64,
    /// Records of something else.
    pub other: u64,
    /// Frames of interfaces whose link type is not supported.
    pub unsupported: u64,
    /// Blocks that hold no packet and that reading needs nothing of.
    pub skipped_blocks: u64,
}
