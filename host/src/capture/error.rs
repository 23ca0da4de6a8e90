//! What can be wrong with a capture.

use std::io;

/// Why a capture cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The begin of the file is at fault.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: Box<ReadError>,
    },
    /// It does not begin as a capture does.
    #[error(
        "not a capture: {found}; pcap (a1 b2 c3 d4, in either order) and pcapng (0a 0d 0d 0a) can be read"
    )]
    NotACapture {
        /// What the first bytes are.
        found: String,
    },
    /// The file ends too early.
    #[error(
        "cut off: the file ends at offset {end}, within the {what} that begins at offset {offset}, after {packets} packets"
    )]
    Truncated {
        /// Where the record begins that is not complete.
        offset: u64,
        /// Bytes of the file.
        end: u64,
        /// What is not complete.
        what: &'static str,
        /// Packets before it.
        packets: u64,
    },
    /// A part of the file contradicts itself or the format.
    #[error("damaged: the {what} at offset {offset} {why}, after {packets} packets")]
    Damaged {
        /// Where the record begins.
        offset: u64,
        /// What is damaged.
        what: &'static str,
        /// What was found.
        why: String,
        /// Packets before it.
        packets: u64,
    },
    /// Nothing in the file can be read: all was captured on links of other kinds.
    #[error(
        "link type {link_type} of interface {interface} (described at offset {offset}) is not supported: Ethernet (1), raw IP (12, 14, 101), IPv4 (228), IPv6 (229), null (0), loop (108) and Linux cooked v1 (113) and v2 (276) are"
    )]
    LinkType {
        /// As numbered by tcpdump.org.
        link_type: u16,
        /// The interface, by its number within the section (0 in a pcap).
        interface: u32,
        /// Where the file says so.
        offset: u64,
    },
    /// The file cannot be read on.
    #[error("cannot read on at offset {offset}: {source}")]
    Io {
        /// Bytes read until then.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
}
