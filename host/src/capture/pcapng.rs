//! The blocks of a pcapng file
//! (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng>).
//!
//! The frame of a block, its type and both its lengths, is judged here; what is in
//! it is the library's. Two things it does not read right, so the raw options are
//! read here: the offset of the time in a big-endian section, and a resolution that
//! is a power of two.

use std::io::Read;

use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{
    Block, EnhancedPacketBlock, InterfaceDescriptionBlock, OptionCode, PcapNGOption,
    SimplePacketBlock, parse_block_be, parse_block_le,
};

use super::Direction;
use super::error::ReadError;
use super::link_layer::Link;
use super::reader::{Faults, LONGEST_PACKET, Order, Record};
use super::window::Window;

/// The same in both byte orders.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// Bytes of the type and the length before a block's body.
const HEAD: usize = 8;
/// Bytes of the length behind it.
const TAIL: usize = 4;

/// The longest block that is held in memory: a packet with 64 KiB of each of a few
/// options. A longer one of a kind that is read is taken for damage.
const LONGEST_BLOCK: u32 = 1 << 20;

/// Interfaces that a section may describe.
const MOST_INTERFACES: usize = 1 << 16;

/// A pcapng file at the begin of a block.
#[derive(Debug, Default)]
pub(super) struct Pcapng {
    order: Order,
    /// Of this section.
    interfaces: Vec<Interface>,
    /// The first interface of another kind of link, and the packets of such.
    pub(super) unsupported: Option<Unsupported>,
    pub(super) skipped_blocks: u64,
}

/// An interface whose frames cannot be opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsupported {
    pub(super) link_type: u16,
    pub(super) interface: u32,
    pub(super) offset: u64,
}

#[derive(Debug)]
struct Interface {
    link: Link,
    /// 0: without limit.
    snap_length: u32,
    /// As in the option if_tsresol.
    resolution: u8,
    /// Seconds to add to each time.
    offset: i64,
}

/// What a block turned out to be.
enum Found {
    Packet(Record),
    /// Something to remember.
    State,
    Damage(String),
}

impl Pcapng {
    pub(super) fn next<R: Read>(
        &mut self,
        window: &mut Window<R>,
        faults: &mut Faults,
    ) -> Result<Option<Record>, ReadError> {
        loop {
            faults.offset = window.offset();
            let faults = *faults;
            if faults.is_at_end(window)? {
                return Ok(None);
            }
            let (kind, length) = self.head(window, faults)?;
            let what = name(kind);
            let is_read = matches!(
                kind,
                SECTION_HEADER
                    | INTERFACE_DESCRIPTION
                    | OBSOLETE_PACKET
                    | SIMPLE_PACKET
                    | ENHANCED_PACKET
            );
            if !is_read {
                self.skip(window, faults, length)?;
                continue;
            }
            if length > LONGEST_BLOCK {
                let why = format!("claims to be {length} bytes long, more than {LONGEST_BLOCK}");
                return Err(faults.damaged(what, why));
            }
            let total = length as usize;
            faults.peek(window, total, what)?;
            let position = window.position();
            let block = window.bytes(position..position + total);
            let tail = self.order.u32(block, total - TAIL);
            if tail != length {
                return Err(faults.damaged(what, mismatch(length, tail)));
            }
            let found = self.read(kind, block, position, faults.offset);
            window.consume(total);
            match found {
                Found::Packet(record) => return Ok(Some(record)),
                Found::State => {}
                Found::Damage(why) => return Err(faults.damaged(what, why)),
            }
        }
    }

    /// The type and the length of the next block. A section header also tells the
    /// byte order, its own length's included.
    fn head<R: Read>(
        &mut self,
        window: &mut Window<R>,
        faults: Faults,
    ) -> Result<(u32, u32), ReadError> {
        let head = faults.peek(window, HEAD, "block")?;
        let kind = self.order.u32(head, 0);
        if kind == SECTION_HEADER {
            let head = faults.peek(window, HEAD + 4, name(kind))?;
            self.order = match Order::Big.u32(head, HEAD) {
                BYTE_ORDER_MAGIC => Order::Big,
                magic if magic.swap_bytes() == BYTE_ORDER_MAGIC => Order::Little,
                magic => {
                    let why = format!("has {magic:08x} for its byte order");
                    return Err(faults.damaged(name(kind), why));
                }
            };
        }
        let head = faults.peek(window, HEAD, "block")?;
        let length = self.order.u32(head, 4);
        if length < 12 || !length.is_multiple_of(4) {
            let why = format!(
                "claims to be {length} bytes long, which is not a multiple of 4 from 12 on"
            );
            return Err(faults.damaged(name(kind), why));
        }
        Ok((kind, length))
    }

    /// Goes over a block that nothing is needed of, however long.
    fn skip<R: Read>(
        &mut self,
        window: &mut Window<R>,
        faults: Faults,
        length: u32,
    ) -> Result<(), ReadError> {
        const WHAT: &str = "block";
        let body = u64::from(length) - TAIL as u64;
        let skipped = match window.skip(body) {
            Ok(skipped) => skipped,
            Err(source) => return Err(Faults::io(window, source)),
        };
        if skipped < body {
            return Err(faults.truncated(window, WHAT));
        }
        let tail = self.order.u32(faults.peek(window, TAIL, WHAT)?, 0);
        if tail != length {
            return Err(faults.damaged(WHAT, mismatch(length, tail)));
        }
        window.consume(TAIL);
        self.skipped_blocks += 1;
        Ok(())
    }

    /// `position` is that of the block in the window.
    fn read(&mut self, kind: u32, block: &[u8], position: usize, offset: u64) -> Found {
        if kind == OBSOLETE_PACKET {
            return self.obsolete_packet(block, position);
        }
        let parsed = match self.order {
            Order::Big => parse_block_be(block),
            Order::Little => parse_block_le(block),
        };
        match parsed {
            Ok((_, Block::SectionHeader(header))) if header.major_version != 1 => {
                Found::Damage(format!("is of version {}, not 1", header.major_version))
            }
            Ok((_, Block::SectionHeader(_))) => {
                self.interfaces.clear();
                Found::State
            }
            Ok((_, Block::InterfaceDescription(description))) => {
                self.describe(&description, offset)
            }
            Ok((_, Block::EnhancedPacket(packet))) => self.enhanced_packet(&packet, position),
            Ok((_, Block::SimplePacket(packet))) => self.simple_packet(&packet, position),
            Ok(_) | Err(_) => Found::Damage("does not hold what its lengths claim".to_owned()),
        }
    }

    fn describe(&mut self, block: &InterfaceDescriptionBlock<'_>, offset: u64) -> Found {
        if self.interfaces.len() == MOST_INTERFACES {
            return Found::Damage(format!("is one more than {MOST_INTERFACES}"));
        }
        let [low, high, ..] = block.linktype.0.to_le_bytes();
        let link = Link::new(u16::from_le_bytes([low, high]));
        if let (Link::Unsupported(link_type), None) = (link, self.unsupported) {
            self.unsupported = Some(Unsupported {
                link_type,
                interface: u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX),
                offset,
            });
        }
        let seconds = option(&block.options, OptionCode::IfTsoffset)
            .and_then(|value| value.try_into().ok())
            .map_or(0, |value| self.order.i64(value));
        let resolution =
            option(&block.options, OptionCode::IfTsresol).and_then(|value| value.first().copied());
        self.interfaces.push(Interface {
            link,
            snap_length: block.snaplen,
            resolution: resolution.unwrap_or(MICROSECONDS),
            offset: seconds,
        });
        Found::State
    }

    fn enhanced_packet(&self, block: &EnhancedPacketBlock<'_>, position: usize) -> Found {
        let ticks = (u64::from(block.ts_high) << 32) | u64::from(block.ts_low);
        let start = position + 28;
        let captured = block.caplen;
        self.packet(
            block.if_id,
            Some(ticks),
            start,
            captured,
            block.origlen,
            || self.direction(&block.options),
        )
    }

    fn simple_packet(&self, block: &SimplePacketBlock<'_>, position: usize) -> Found {
        let room = u32::try_from(block.packet_data().len()).unwrap_or(u32::MAX);
        let captured = match self.interfaces.first().map(|from| from.snap_length) {
            Some(limit) if limit > 0 => room.min(limit),
            _ => room,
        };
        self.packet(0, None, position + 12, captured, block.origlen, || None)
    }

    /// The library does not know it: interface and drops of 16 bits each, the time,
    /// the lengths, the packet, options as of an enhanced one.
    fn obsolete_packet(&self, block: &[u8], position: usize) -> Found {
        let Some(body) = block
            .get(HEAD..block.len() - TAIL)
            .filter(|body| body.len() >= 20)
        else {
            return Found::Damage("is too short".to_owned());
        };
        let captured = self.order.u32(body, 12);
        if captured as usize > body.len() - 20 {
            return Found::Damage(format!(
                "claims {captured} bytes of packet, more than it has"
            ));
        }
        let interface = self.order.u16(body, 0).into();
        let ticks = (u64::from(self.order.u32(body, 4)) << 32) | u64::from(self.order.u32(body, 8));
        let options = (20 + captured as usize).next_multiple_of(4);
        self.packet(
            interface,
            Some(ticks),
            position + HEAD + 20,
            captured,
            self.order.u32(body, 16),
            || self.obsolete_direction(body.get(options..)?),
        )
    }

    fn packet(
        &self,
        interface: u32,
        ticks: Option<u64>,
        start: usize,
        captured: u32,
        original: u32,
        direction: impl FnOnce() -> Option<Direction>,
    ) -> Found {
        let known = usize::try_from(interface)
            .ok()
            .and_then(|index| self.interfaces.get(index));
        let Some(from) = known else {
            let described = self.interfaces.len();
            return Found::Damage(format!(
                "is of interface {interface}, and {described} are described before it"
            ));
        };
        if captured > LONGEST_PACKET {
            return Found::Damage(format!(
                "claims {captured} bytes of packet, more than {LONGEST_PACKET}"
            ));
        }
        Found::Packet(Record {
            at: ticks.map(|ticks| from.time(ticks)),
            frame: start..start + captured as usize,
            original,
            interface,
            link: from.link,
            direction: direction(),
        })
    }

    /// The lowest bits of epb_flags: 1 inbound, 2 outbound, 0 not known.
    fn direction(&self, options: &[PcapNGOption<'_>]) -> Option<Direction> {
        let flags = option(options, FLAGS)?;
        direction(self.order.u32(flags.get(..4)?, 0))
    }

    fn obsolete_direction(&self, mut options: &[u8]) -> Option<Direction> {
        while options.len() >= 4 {
            let length = usize::from(self.order.u16(options, 2));
            match self.order.u16(options, 0) {
                0 => return None,
                2 => return direction(self.order.u32(options.get(4..8)?, 0)),
                _ => options = options.get(4 + length.next_multiple_of(4)..)?,
            }
        }
        None
    }
}

/// The option epb_flags.
const FLAGS: OptionCode = OptionCode(2);

/// The resolution where none is given.
const MICROSECONDS: u8 = 6;

fn direction(flags: u32) -> Option<Direction> {
    match flags & 3 {
        1 => Some(Direction::Inbound),
        2 => Some(Direction::Outbound),
        _ => None,
    }
}

/// The value of the first option of this kind, before the end of the options.
fn option<'a>(options: &'a [PcapNGOption<'_>], code: OptionCode) -> Option<&'a [u8]> {
    options
        .iter()
        .take_while(|option| option.code != OptionCode::EndOfOpt)
        .find(|option| option.code == code)
        .and_then(|option| option.as_bytes().ok())
}

impl Interface {
    /// Nanoseconds since 1970. What no such number can hold is the nearest.
    fn time(&self, ticks: u64) -> u64 {
        const SECOND: u128 = 1_000_000_000;
        let power = u32::from(self.resolution & 0x7f);
        let nanoseconds = match self.resolution & 0x80 {
            0 => 10_u128
                .checked_pow(power)
                .map_or(0, |per_second| u128::from(ticks) * SECOND / per_second),
            _ => (u128::from(ticks) * SECOND) >> power,
        };
        let offset = u128::from(self.offset.unsigned_abs()) * SECOND;
        let sum = match self.offset < 0 {
            true => nanoseconds.saturating_sub(offset),
            false => nanoseconds.saturating_add(offset),
        };
        u64::try_from(sum).unwrap_or(u64::MAX)
    }
}

fn mismatch(length: u32, tail: u32) -> String {
    format!("claims to be {length} bytes long at its begin and {tail} at its end")
}

fn name(kind: u32) -> &'static str {
    match kind {
        SECTION_HEADER => "section header",
        INTERFACE_DESCRIPTION => "interface description",
        OBSOLETE_PACKET | SIMPLE_PACKET | ENHANCED_PACKET => "packet block",
        _ => "block",
    }
}
