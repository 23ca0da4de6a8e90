//! The records of a pcap file
//! (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap>).

use std::io::Read;

use pcap_parser::{
    LegacyPcapBlock, PcapHeader, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified,
    parse_pcap_header,
};

use super::error::ReadError;
use super::link_layer::Link;
use super::reader::{Faults, LONGEST_PACKET, Order, Record};
use super::window::Window;

/// Bytes of the file's header.
const HEADER: usize = 24;

/// A pcap file after its header.
#[derive(Debug)]
pub(super) struct Pcap {
    header: PcapHeader,
    link: Link,
}

impl Pcap {
    pub(super) fn begin<R: Read>(
        window: &mut Window<R>,
        faults: Faults,
    ) -> Result<Self, ReadError> {
        let bytes = faults.peek(window, HEADER, "file header")?;
        let Ok((_, header)) = parse_pcap_header(bytes) else {
            return Err(faults.damaged("file header", "is no pcap header"));
        };
        window.consume(HEADER);
        // The upper half may tell of a frame check sequence, which is behind the
        // packet and goes with the padding.
        let [low, high, ..] = header.network.0.to_le_bytes();
        let link = Link::new(u16::from_le_bytes([low, high]));
        if let Link::Unsupported(link_type) = link {
            return Err(ReadError::LinkType {
                link_type,
                interface: 0,
                offset: 20,
            });
        }
        Ok(Self { header, link })
    }

    pub(super) fn next<R: Read>(
        &self,
        window: &mut Window<R>,
        faults: Faults,
    ) -> Result<Option<Record>, ReadError> {
        const WHAT: &str = "packet record";
        if faults.is_at_end(window)? {
            return Ok(None);
        }
        // The modified format of 1999 has eight more bytes.
        let header = if self.header.is_modified_format() {
            24
        } else {
            16
        };
        let bytes = faults.peek(window, header, WHAT)?;
        let order = match self.header.is_bigendian() {
            true => Order::Big,
            false => Order::Little,
        };
        let length = order.u32(bytes, 8);
        if length > LONGEST_PACKET {
            let why = format!("claims {length} bytes of packet, more than {LONGEST_PACKET}");
            return Err(faults.damaged(WHAT, why));
        }
        let total = header + length as usize;
        let bytes = faults.peek(window, total, WHAT)?;
        let parsed = match order {
            Order::Big => parse_pcap_frame_be(bytes),
            Order::Little if self.header.is_modified_format() => parse_pcap_frame_modified(bytes),
            Order::Little => parse_pcap_frame(bytes),
        };
        let Ok((_, frame)) = parsed else {
            return Err(faults.damaged(WHAT, "cannot be understood"));
        };
        let (at, original) = (self.time(&frame), frame.origlen);
        let position = window.position() + header;
        window.consume(total);
        Ok(Some(Record {
            at: Some(at),
            frame: position..position + length as usize,
            original,
            interface: 0,
            link: self.link,
            direction: None,
        }))
    }

    fn time(&self, frame: &LegacyPcapBlock<'_>) -> u64 {
        let fraction = u64::from(frame.ts_usec);
        let nanoseconds = match self.header.is_nanosecond_precision() {
            true => fraction,
            false => fraction * 1000,
        };
        u64::from(frame.ts_sec) * 1_000_000_000 + nanoseconds
    }
}
