//! Captures made by hand from the documents of the formats (draft-ietf-opsawg-pcap,
//! draft-ietf-opsawg-pcapng, tcpdump.org/linktypes.html), whole, cut off anywhere,
//! and damaged.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use super::{Captured, Content, Direction, Other, ReadError, Reader, Tap, Writer};
use crate::device::{self, Device};

/// Bytes of a file in one byte order.
#[derive(Clone, Default)]
struct Bytes {
    big: bool,
    bytes: Vec<u8>,
    /// Where records end: a file cut off there is whole.
    ends: Vec<usize>,
    /// Where records that hold packets end.
    packet_ends: Vec<usize>,
}

impl Bytes {
    fn new(big: bool) -> Self {
        Self {
            big,
            ..Self::default()
        }
    }

    fn u16(mut self, value: u16) -> Self {
        self.bytes.extend(match self.big {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        });
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.bytes.extend(match self.big {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        });
        self
    }

    fn i64(mut self, value: i64) -> Self {
        self.bytes.extend(match self.big {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        });
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn padded(mut self) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn record(mut self, has_packet: bool) -> Self {
        self.ends.push(self.bytes.len());
        if has_packet {
            self.packet_ends.push(self.bytes.len());
        }
        self
    }

    fn pcap(self, magic: u32, link: u32) -> Self {
        self.u32(magic)
            .u16(2)
            .u16(4)
            .u32(0)
            .u32(0)
            .u32(65_535)
            .u32(link)
            .record(false)
    }

    fn frame(self, seconds: u32, fraction: u32, original: usize, frame: &[u8]) -> Self {
        self.u32(seconds)
            .u32(fraction)
            .u32(u32::try_from(frame.len()).unwrap())
            .u32(u32::try_from(original).unwrap())
            .raw(frame)
            .record(true)
    }

    /// A block of pcapng around a body in the same order.
    fn block(self, kind: u32, body: impl FnOnce(Self) -> Self) -> Self {
        let body = body(Self::new(self.big)).padded().bytes;
        let length = u32::try_from(body.len() + 12).unwrap();
        let has_packet = matches!(kind, 2 | 3 | 6);
        self.u32(kind)
            .u32(length)
            .raw(&body)
            .u32(length)
            .record(has_packet)
    }

    fn option(self, code: u16, value: &[u8]) -> Self {
        self.u16(code)
            .u16(u16::try_from(value.len()).unwrap())
            .raw(value)
            .padded()
    }

    /// A section header; from here on in this byte order.
    fn section(mut self, big: bool) -> Self {
        self.big = big;
        self.block(0x0a0d_0d0a, |body| {
            body.u32(0x1a2b_3c4d)
                .u16(1)
                .u16(0)
                .i64(-1)
                .option(1, b"caf\xe9: not UTF-8")
                .option(0, b"")
        })
    }

    fn interface(self, link: u16, snap: u32, options: impl FnOnce(Self) -> Self) -> Self {
        self.block(1, |body| options(body.u16(link).u16(0).u32(snap)))
    }

    fn enhanced(self, interface: u32, ticks: u64, packet: &[u8], flags: Option<u32>) -> Self {
        let length = u32::try_from(packet.len()).unwrap();
        self.block(6, |body| {
            let body = body
                .u32(interface)
                .u32(u32::try_from(ticks >> 32).unwrap())
                .u32(u32::try_from(ticks & 0xffff_ffff).unwrap())
                .u32(length)
                .u32(length)
                .raw(packet)
                .padded();
            match flags {
                None => body,
                Some(flags) => {
                    let value = Self::new(body.big).u32(flags).bytes;
                    body.option(1, b"a comment")
                        .option(2, &value)
                        .option(0, b"")
                }
            }
        })
    }
}

/// UDP over IPv4, 30 bytes.
fn ipv4() -> Vec<u8> {
    let mut packet = vec![
        0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    packet.extend([0x13, 0x88, 0, 7, 0, 10, 0, 0, b'h', b'i']);
    packet
}

/// UDP over IPv6, 50 bytes.
fn ipv6() -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 10, 17, 64];
    packet.extend([0xfd; 32]);
    packet.extend([0x13, 0x88, 0, 7, 0, 10, 0, 0, b'h', b'i']);
    packet
}

/// What a test compares of a packet.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Seen {
    at: u64,
    number: u64,
    offset: u64,
    content: Result<Vec<u8>, Other>,
    cut: bool,
    original: u32,
    direction: Option<Direction>,
    interface: u32,
}

impl From<Captured<'_>> for Seen {
    fn from(packet: Captured<'_>) -> Self {
        Self {
            at: packet.at,
            number: packet.number,
            offset: packet.offset,
            content: match packet.content {
                Content::Ip(bytes) | Content::Cut(bytes) => Ok(bytes.to_vec()),
                Content::Other(other) => Err(other),
            },
            cut: matches!(packet.content, Content::Cut(_)),
            original: packet.original_length,
            direction: packet.direction,
            interface: packet.interface,
        }
    }
}

/// All packets, and how it ended.
fn read(stream: impl Read) -> (Vec<Seen>, Result<(), ReadError>) {
    let mut seen = Vec::new();
    let mut reader = match Reader::new(stream) {
        Ok(reader) => reader,
        Err(error) => return (seen, Err(error)),
    };
    let end = loop {
        match reader.next() {
            Ok(Some(packet)) => seen.push(packet.into()),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert!(matches!(reader.next(), Ok(None)), "nothing after the end");
    (seen, end)
}

fn read_all(file: &[u8]) -> Vec<Seen> {
    let (seen, end) = read(file);
    end.unwrap();
    seen
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

/// One file of each kind, for what holds of all.
fn samples() -> Vec<(&'static str, Bytes)> {
    let mut all = Vec::new();
    for big in [false, true] {
        for (name, magic) in [("microseconds", MICROSECONDS), ("nanoseconds", NANOSECONDS)] {
            let file = Bytes::new(big)
                .pcap(magic, 101)
                .frame(1, 2, 30, &ipv4())
                .frame(3, 4, 50, &ipv6())
                .frame(5, 6, 1000, &ipv4()[..25]);
            all.push((name, file));
        }
        let file = Bytes::default()
            .section(big)
            .interface(1, 0, |options| options.option(9, &[9]).option(0, b""))
            .interface(101, 65_535, |options| options)
            .block(0x0bad, |body| body.u32(32_473).raw(b"private"))
            .enhanced(1, 7, &ipv4(), Some(1))
            .block(5, |body| body.u32(0).u32(0).u32(0))
            .enhanced(0, 8, &ethernet(&[0x08, 0], &ipv4()), None)
            .section(!big)
            .interface(101, 0, |options| options)
            .block(3, |body| body.u32(50).raw(&ipv6()))
            .block(2, |body| {
                let body = body.u16(0).u16(9).u32(0).u32(77).u32(30).u32(30);
                body.raw(&ipv4()).padded()
            });
        all.push(("pcapng", file));
    }
    all
}

fn ethernet(ether_type: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[2; 12], ether_type, payload].concat()
}

#[test]
fn pcap_is_read_in_both_orders_and_resolutions() {
    for big in [false, true] {
        for (magic, nanoseconds) in [(MICROSECONDS, 1000), (NANOSECONDS, 1)] {
            let file = Bytes::new(big)
                .pcap(magic, 101)
                .frame(1_700_000_000, 123_456, 30, &ipv4())
                .frame(u32::MAX, 999_999, 50, &ipv6())
                .bytes;
            let seen = read_all(&file);
            let at = [
                1_700_000_000_000_000_000 + 123_456 * nanoseconds,
                4_294_967_295_000_000_000 + 999_999 * nanoseconds,
            ];
            assert_eq!(seen.len(), 2);
            for (index, packet) in [ipv4(), ipv6()].into_iter().enumerate() {
                let expected = Seen {
                    at: at[index],
                    number: index as u64 + 1,
                    offset: [24, 24 + 16 + 30][index],
                    original: u32::try_from(packet.len()).unwrap(),
                    content: Ok(packet),
                    cut: false,
                    direction: None,
                    interface: 0,
                };
                assert_eq!(seen[index], expected);
            }
        }
    }
}

#[test]
fn the_modified_pcap_of_1999_is_read() {
    let file = Bytes::new(false)
        .pcap(0xa1b2_cd34, 101)
        .u32(1)
        .u32(2)
        .u32(30)
        .u32(30)
        .u32(4)
        .u32(0)
        .raw(&ipv4());
    let seen = read_all(&file.bytes);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].content, Ok(ipv4()));
    assert_eq!(seen[0].at, 1_000_002_000);
}

/// A link type, a frame, what is in it, and which way it went.
type Opened<'a> = (u32, Vec<u8>, Result<&'a [u8], Other>, Option<Direction>);

#[test]
fn every_link_is_opened() {
    let v4 = &ipv4()[..];
    let v6 = &ipv6()[..];
    let sll = |kind: u8, protocol: &[u8], payload: &[u8]| {
        [
            &[0, kind, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0],
            protocol,
            payload,
        ]
        .concat()
    };
    let sll2 = |kind: u8, protocol: &[u8], payload: &[u8]| {
        let header = [0, 0, 0, 0, 0, 3, 0, 1, kind, 6, 1, 2, 3, 4, 5, 6, 0, 0];
        [protocol, &header, payload].concat()
    };
    let null = |family: [u8; 4], packet: &[u8]| [&family, packet].concat();
    let inbound = Some(Direction::Inbound);
    let outbound = Some(Direction::Outbound);
    let table: Vec<Opened<'_>> = vec![
        (1, ethernet(&[0x08, 0x00], v4), Ok(v4), None),
        (1, ethernet(&[0x86, 0xdd], v6), Ok(v6), None),
        (
            1,
            ethernet(&[0x81, 0x00, 0, 5, 0x08, 0x00], v4),
            Ok(v4),
            None,
        ),
        (
            1,
            ethernet(&[0x88, 0xa8, 0, 5, 0x81, 0x00, 0, 6, 0x86, 0xdd], v6),
            Ok(v6),
            None,
        ),
        (
            1,
            ethernet(&[0x91, 0x00, 0, 5, 0x81, 0x00, 0, 6, 0x08, 0x00], v4),
            Ok(v4),
            None,
        ),
        (1, ethernet(&[0x08, 0x06], v4), Err(Other::Arp), None),
        (
            1,
            ethernet(&[0x81, 0x00, 0, 5, 0x08, 0x06], v4),
            Err(Other::Arp),
            None,
        ),
        (
            1,
            ethernet(&[0x88, 0xcc], v4),
            Err(Other::EtherType(0x88cc)),
            None,
        ),
        (1, ethernet(&[0, 38], v4), Err(Other::EtherType(38)), None),
        (1, ethernet(&[0x08], b""), Err(Other::TooShort), None),
        (
            1,
            ethernet(&[0x81, 0x00, 0, 5, 0x08], b""),
            Err(Other::TooShort),
            None,
        ),
        (12, v4.to_vec(), Ok(v4), None),
        (14, v6.to_vec(), Ok(v6), None),
        (101, v4.to_vec(), Ok(v4), None),
        (228, v4.to_vec(), Ok(v4), None),
        (229, v6.to_vec(), Ok(v6), None),
        (0, null([2, 0, 0, 0], v4), Ok(v4), None),
        (0, null([0, 0, 0, 2], v4), Ok(v4), None),
        (0, null([24, 0, 0, 0], v6), Ok(v6), None),
        (0, null([0, 0, 0, 28], v6), Ok(v6), None),
        (0, null([30, 0, 0, 0], v6), Ok(v6), None),
        (0, null([7, 0, 0, 0], v4), Err(Other::Family(7)), None),
        (0, vec![2, 0, 0], Err(Other::TooShort), None),
        (108, null([0, 0, 0, 2], v4), Ok(v4), None),
        (108, null([0, 0, 0, 24], v6), Ok(v6), None),
        (108, null([0, 0, 0, 28], v6), Ok(v6), None),
        (108, null([0, 0, 0, 30], v6), Ok(v6), None),
        (113, sll(0, &[0x08, 0], v4), Ok(v4), inbound),
        (113, sll(4, &[0x86, 0xdd], v6), Ok(v6), outbound),
        (113, sll(4, &[0x81, 0, 0, 5, 0x08, 0], v4), Ok(v4), outbound),
        (113, sll(0, &[0x08, 6], v4), Err(Other::Arp), inbound),
        (113, vec![0, 4, 0], Err(Other::TooShort), outbound),
        (276, sll2(0, &[0x08, 0], v4), Ok(v4), inbound),
        (276, sll2(4, &[0x86, 0xdd], v6), Ok(v6), outbound),
        (276, vec![0x08, 0, 0], Err(Other::TooShort), None),
    ];
    for (link, frame, content, direction) in table {
        let file = Bytes::new(false)
            .pcap(MICROSECONDS, link)
            .frame(0, 0, frame.len(), &frame);
        let seen = read_all(&file.bytes);
        assert_eq!(seen.len(), 1);
        let expected = content.map(<[u8]>::to_vec);
        assert_eq!(seen[0].content, expected, "link {link}, frame {frame:x?}");
        assert_eq!(seen[0].direction, direction, "link {link}, {frame:x?}");
        assert!(!seen[0].cut);
    }
}

#[test]
fn padding_goes_when_the_packet_says_how_long_it_is() {
    let with_length = |length: u16| {
        let mut packet = ipv4();
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet
    };
    let jumbogram = {
        let mut packet = ipv6();
        packet[4..6].fill(0);
        packet
    };
    let padding = [0; 16];
    for (kind, packet, padding_goes) in [
        ([0x08, 0x00], ipv4(), true),
        ([0x86, 0xdd], ipv6(), true),
        // What the length cannot be, or what it does not reach to: all is kept.
        ([0x08, 0x00], with_length(0), false),
        ([0x08, 0x00], with_length(19), false),
        ([0x08, 0x00], with_length(2000), false),
        ([0x86, 0xdd], jumbogram, false),
    ] {
        let padded = [&packet[..], &padding].concat();
        let frame = ethernet(&kind, &padded);
        let file = Bytes::new(false)
            .pcap(MICROSECONDS, 1)
            .frame(0, 0, frame.len(), &frame);
        let expected = if padding_goes { packet } else { padded };
        let seen = read_all(&file.bytes);
        assert_eq!(seen[0].content, Ok(expected));
        assert!(!seen[0].cut);
    }
    // Raw packets have no padding: a tail is the packet's own fault.
    let tail = [&ipv4()[..], &padding].concat();
    let file = Bytes::new(false)
        .pcap(MICROSECONDS, 101)
        .frame(0, 0, tail.len(), &tail);
    assert_eq!(read_all(&file.bytes)[0].content, Ok(tail));
}

#[test]
fn a_packet_is_cut_when_not_all_of_it_is_there() {
    let frame = ethernet(&[0x08, 0], &[&ipv4()[..], &[0; 16]].concat());
    for (captured, cut) in [(14, true), (16, true), (43, true), (44, false), (50, false)] {
        let file =
            Bytes::new(false)
                .pcap(MICROSECONDS, 1)
                .frame(0, 0, frame.len(), &frame[..captured]);
        let seen = read_all(&file.bytes);
        assert_eq!(seen[0].cut, cut, "{captured} bytes captured");
        let length = (captured - 14).min(30);
        assert_eq!(seen[0].content, Ok(ipv4()[..length].to_vec()));
        assert_eq!(seen[0].original, 60);
    }
}

#[test]
fn pcapng_is_read_with_its_sections_interfaces_and_blocks() {
    for (name, file) in samples().into_iter().filter(|(name, _)| *name == "pcapng") {
        let seen = read_all(&file.bytes);
        let packets: Vec<_> = seen
            .iter()
            .map(|packet| {
                let content = packet.content.clone();
                (packet.at, packet.interface, content, packet.direction)
            })
            .collect();
        let inbound = Some(Direction::Inbound);
        let expected = vec![
            // 7 µs, 8 ns; none, so that of the packet before; 77 µs.
            (7_000, 1, Ok(ipv4()), inbound),
            (8, 0, Ok(ipv4()), None),
            (8, 0, Ok(ipv6()), None),
            (77_000, 0, Ok(ipv4()), None),
        ];
        assert_eq!(packets, expected, "{name}");
        let numbers: Vec<_> = seen.iter().map(|packet| packet.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        for packet in &seen {
            let begin = usize::try_from(packet.offset).unwrap();
            assert!(file.ends.contains(&begin), "a record begins at {begin}");
        }
    }
}

#[test]
fn directions_are_those_of_the_flags() {
    for big in [false, true] {
        let mut file = Bytes::default().section(big).interface(101, 0, |o| o);
        // Beside the direction: reception by broadcast, and a link error.
        for flags in [0, 1, 2, 3, 0x8000_0009, 0x0100_000a] {
            file = file.enhanced(0, 0, &ipv4(), Some(flags));
        }
        let obsolete = |body: Bytes| {
            let flags = Bytes::new(big).u32(2).bytes;
            let body = body.u16(0).u16(0).u32(0).u32(0).u32(30).u32(30);
            let body = body.raw(&ipv4()).padded();
            body.option(3, b"hash").option(2, &flags).option(0, b"")
        };
        let file = file.block(2, obsolete);
        let seen = read_all(&file.bytes);
        let directions: Vec<_> = seen.iter().map(|packet| packet.direction).collect();
        let (inbound, outbound) = (Some(Direction::Inbound), Some(Direction::Outbound));
        let expected = [None, inbound, outbound, None, inbound, outbound, outbound];
        assert_eq!(directions, expected);
    }
}

#[test]
fn times_follow_the_resolution_and_the_offset() {
    const DAY: u64 = 86_400_000_000_000;
    for big in [false, true] {
        for (resolution, offset, ticks, at) in [
            (None, None, 1_500_000, 1_500_000_000),
            (Some(9), None, u64::from(u32::MAX) + 7, 4_294_967_302),
            (Some(3), None, 2_500, 2_500_000_000),
            (Some(0), None, 2, 2_000_000_000),
            (Some(12), None, 5_000, 5),
            // A number that stands for less than 10^-38 of a second.
            (Some(0x7f), None, u64::MAX, 0),
            (Some(0x80), None, 3, 3_000_000_000),
            (Some(0x8a), None, 1536, 1_500_000_000),
            (Some(0xff), None, u64::MAX, 0),
            (Some(9), Some(86_400), 5, DAY + 5),
            (Some(9), Some(-1), 1_000_000_005, 5),
            (Some(9), Some(-2), 5, 0),
            (Some(0), None, u64::MAX, u64::MAX),
            (Some(9), Some(i64::MAX), 5, u64::MAX),
            (Some(9), Some(i64::MIN), 5, 0),
        ] {
            let file = Bytes::default().section(big).interface(101, 0, |mut o| {
                if let Some(resolution) = resolution {
                    o = o.option(9, &[resolution]);
                }
                if let Some(offset) = offset {
                    let value = Bytes::new(big).i64(offset).bytes;
                    o = o.option(14, &value);
                }
                o.option(0, b"")
            });
            let seen = read_all(&file.enhanced(0, ticks, &ipv4(), None).bytes);
            assert_eq!(seen[0].at, at, "{resolution:?} {offset:?} {ticks}");
        }
    }
}

#[test]
fn a_simple_packet_ends_where_the_snap_length_of_the_first_interface_is() {
    let file = Bytes::default()
        .section(false)
        .interface(101, 22, |options| options)
        .block(3, |body| body.u32(50).raw(&ipv6()[..22]));
    let seen = read_all(&file.bytes);
    assert!(seen[0].cut);
    assert_eq!(seen[0].content, Ok(ipv6()[..22].to_vec()));
}

#[test]
fn packets_of_an_unsupported_link_are_counted_unless_there_is_nothing_else() {
    let mixed = Bytes::default()
        .section(false)
        .interface(105, 0, |options| options)
        .interface(101, 0, |options| options)
        .enhanced(0, 0, b"802.11", None)
        .enhanced(1, 0, &ipv4(), None)
        .bytes;
    let mut reader = Reader::new(&mixed[..]).unwrap();
    let first = reader.next().unwrap().unwrap();
    assert_eq!(first.content, Content::Other(Other::LinkType(105)));
    assert_eq!(
        reader.next().unwrap().unwrap().content,
        Content::Ip(&ipv4())
    );
    assert!(reader.next().unwrap().is_none());
    assert_eq!(reader.counters().unsupported, 1);
    assert_eq!(reader.counters().ip, 1);

    let alone = Bytes::default()
        .section(false)
        .interface(105, 0, |options| options)
        .enhanced(0, 0, b"802.11", None);
    let (seen, end) = read(&alone.bytes[..]);
    assert_eq!(seen.len(), 1);
    let text = end.unwrap_err().to_string();
    for part in ["link type 105", "interface 0", "Ethernet (1)"] {
        assert!(text.contains(part), "{text}");
    }
    let pcap = Bytes::new(true).pcap(MICROSECONDS, 105);
    let (_, end) = read(&pcap.bytes[..]);
    assert!(end.unwrap_err().to_string().contains("link type 105"));
}

#[test]
fn a_file_cut_off_anywhere_gives_all_before_and_says_where() {
    for (name, file) in samples() {
        let whole = read_all(&file.bytes);
        for length in 0..file.bytes.len() {
            let (seen, end) = read(&file.bytes[..length]);
            let packets = file
                .packet_ends
                .iter()
                .filter(|end| **end <= length)
                .count();
            assert_eq!(seen, whole[..packets], "{name} cut at {length}");
            let begin = file.ends.iter().rev().find(|end| **end <= length);
            match end {
                Ok(()) => assert_eq!(begin, Some(&length), "{name} cut at {length}"),
                Err(ReadError::NotACapture { .. }) => assert!(length < 4, "{name} at {length}"),
                Err(ReadError::Truncated {
                    offset,
                    end,
                    packets: before,
                    ..
                }) => {
                    assert_eq!(offset, *begin.unwrap_or(&0) as u64, "{name} at {length}");
                    assert_eq!(end, length as u64);
                    assert_eq!(before, packets as u64);
                }
                Err(other) => panic!("{name} cut at {length}: {other}"),
            }
        }
    }
}

#[test]
fn bytes_that_come_one_by_one_make_no_difference() {
    for (name, file) in samples() {
        let (seen, end) = read(Slowly(&file.bytes));
        end.unwrap();
        assert_eq!(seen, read_all(&file.bytes), "{name}");
    }
}

/// Gives a byte at a time, and is interrupted before each.
struct Slowly<'a>(&'a [u8]);

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn damage_is_named_and_nothing_is_allocated_for_it() {
    let pcap = || {
        Bytes::new(false)
            .pcap(MICROSECONDS, 101)
            .frame(0, 0, 30, &ipv4())
    };
    let section = || Bytes::default().section(true).interface(101, 0, |o| o);
    let packet = || section().enhanced(0, 0, &ipv4(), None);
    let block = |kind: u32, length: u32| packet().u32(kind).u32(length).raw(&[0; 64]);
    let table: Vec<(&str, Bytes)> = vec![
        (
            "packet record at offset 70 claims 4294967295 bytes of packet",
            pcap()
                .u32(0)
                .u32(0)
                .u32(u32::MAX)
                .u32(u32::MAX)
                .raw(&[0; 64]),
        ),
        (
            "packet record at offset 70 claims 262145 bytes of packet",
            pcap().u32(0).u32(0).u32(262_145).u32(262_145).raw(&[0; 64]),
        ),
        ("claims to be 0 bytes long", block(6, 0)),
        ("claims to be 8 bytes long", block(6, 8)),
        ("claims to be 30 bytes long", block(6, 30)),
        (
            "packet block at offset 136 claims to be 4294967292 bytes long, more than",
            block(6, u32::MAX - 3),
        ),
        ("claims to be 4294967292 bytes long", block(1, u32::MAX - 3)),
        (
            "packet block at offset 136 claims to be 36 bytes long at its begin and 7 at its end",
            packet().u32(6).u32(36).raw(&[0; 24]).u32(7),
        ),
        (
            "block at offset 136 claims to be 16 bytes long at its begin and 7 at its end",
            packet().u32(77).u32(16).u32(0).u32(7),
        ),
        (
            "does not hold what its lengths claim",
            packet().block(6, |body| body.u32(0).u32(0).u32(0).u32(99).u32(99).u32(0)),
        ),
        (
            "does not hold what its lengths claim",
            packet().block(6, |body| body.u32(0)),
        ),
        (
            "is of interface 3, and 1 are described before it",
            packet().enhanced(3, 0, &ipv4(), None),
        ),
        (
            "is of interface 0, and 0 are described before it",
            packet()
                .section(false)
                .block(3, |body| body.u32(30).raw(&ipv4())),
        ),
        (
            "claims 99 bytes of packet, more than it has",
            packet().block(2, |body| body.u32(0).u32(0).u32(0).u32(99).u32(99)),
        ),
        ("is too short", packet().block(2, |body| body.u32(0))),
        (
            "section header at offset 136 has 01020304 for its byte order",
            packet().block(0x0a0d_0d0a, |body| {
                body.u32(0x0102_0304).u32(0).u32(0).u32(0)
            }),
        ),
        (
            "is of version 2, not 1",
            packet().block(0x0a0d_0d0a, |body| {
                body.u32(0x1a2b_3c4d).u16(2).u16(0).i64(-1)
            }),
        ),
    ];
    for (text, file) in table {
        let mut reader = Reader::new(&file.bytes[..]).unwrap();
        assert!(
            reader.next().unwrap().is_some(),
            "the packet before: {text}"
        );
        let error = reader.next().unwrap_err();
        assert!(
            matches!(error, ReadError::Damaged { packets: 1, .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains(text),
            "{text:?} is not in {error}"
        );
        assert!(
            reader.held() <= 1 << 18,
            "{} bytes for {text}",
            reader.held()
        );
    }
    // A block that is skipped may be as long as it likes, and is not there.
    let file = block(77, u32::MAX - 3);
    let mut reader = Reader::new(&file.bytes[..]).unwrap();
    assert!(reader.next().unwrap().is_some());
    let error = reader.next().unwrap_err().to_string();
    assert!(error.contains("the file ends at offset 208"), "{error}");
    assert!(reader.held() <= 1 << 18);
}

#[test]
fn a_capture_larger_than_the_memory_it_takes() {
    for (name, file) in samples() {
        // 8 MiB of the same records, without those that begin the file.
        let begin = if name == "pcapng" { 0 } else { file.ends[0] };
        let (head, records) = file.bytes.split_at(begin);
        let times = (8 << 20) / records.len();
        let stream = Repeat {
            records,
            left: times * records.len(),
        };
        let mut reader = Reader::new(head.chain(stream)).unwrap();
        let mut packets = 0;
        while reader.next().unwrap().is_some() {
            packets += 1;
        }
        assert_eq!(packets, times * file.packet_ends.len(), "{name}");
        assert!(reader.held() <= 1 << 18, "{name}: {}", reader.held());
        assert_eq!(reader.offset(), (begin + times * records.len()) as u64);
    }
}

/// The same bytes again and again.
struct Repeat<'a> {
    records: &'a [u8],
    left: usize,
}

impl Read for Repeat<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let done = self.records.len() - self.left % self.records.len();
        let begin = done % self.records.len();
        let length = buffer.len().min(self.records.len() - begin).min(self.left);
        buffer[..length].copy_from_slice(&self.records[begin..begin + length]);
        self.left -= length;
        Ok(length)
    }
}

#[test]
fn what_is_not_a_capture_is_told_so() {
    for (bytes, text) in [
        (&b""[..], "it is empty"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"GET / HTTP/1.1", "47 45 54 20"),
        (b"\xa1", "it begins with a1"),
    ] {
        let (_, end) = read(bytes);
        let error = end.unwrap_err();
        assert!(matches!(error, ReadError::NotACapture { .. }));
        assert!(error.to_string().contains(text), "{error}");
    }
    let error = Reader::open("/no/such/file.pcap").unwrap_err().to_string();
    assert!(error.contains("/no/such/file.pcap"), "{error}");
}

#[test]
fn a_stream_that_fails_says_where() {
    let file = Bytes::new(false)
        .pcap(MICROSECONDS, 101)
        .frame(0, 0, 30, &ipv4());
    let (seen, end) = read(file.bytes.chain(Failing));
    assert_eq!(seen.len(), 1);
    assert!(
        matches!(end, Err(ReadError::Io { offset: 70, .. })),
        "{end:?}"
    );
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::BrokenPipe.into())
    }
}

impl Write for Failing {
    fn write(&mut self, _buffer: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }
}

#[test]
fn random_damage_never_panics_nor_runs_on() {
    let mut random = Random(1);
    let mut damaged = 0;
    for (_, file) in samples() {
        for _ in 0..5_000 {
            let mut bytes = file.bytes.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                    2 => {
                        let end = bytes.len().min(at + 4);
                        bytes[at..end].fill([0, 0xff][random.below(2)]);
                    }
                    _ => drop(bytes.splice(at..at, vec![0; random.below(9)])),
                }
            }
            let (seen, end) = read(&bytes[..]);
            // A record of a packet takes 16 bytes at least.
            assert!(seen.len() <= bytes.len() / 16);
            damaged += usize::from(end.is_err());
        }
    }
    assert!(damaged > 5_000, "{damaged} of 30,000 were noticed");
}

#[test]
fn what_is_written_is_read_again() {
    let mut writer = Writer::new(Vec::new(), "l3l4").unwrap();
    let packets: Vec<Vec<u8>> = (0..9).map(|length| vec![0x45; length]).collect();
    let mut at = 1_700_000_000_123_456_789;
    for packet in &packets {
        for direction in [Direction::Inbound, Direction::Outbound] {
            writer.packet(at, direction, packet).unwrap();
            at += 1;
        }
    }
    let seen = read_all(&writer.into_inner());
    assert_eq!(seen.len(), 18);
    for (index, packet) in seen.iter().enumerate() {
        let direction = [Direction::Inbound, Direction::Outbound][index % 2];
        assert_eq!(packet.at, 1_700_000_000_123_456_789 + index as u64);
        assert_eq!(packet.direction, Some(direction));
        assert_eq!(packet.content, Ok(packets[index / 2].clone()));
        assert_eq!(packet.number, index as u64 + 1);
    }
}

#[test]
fn a_tap_writes_what_passes_and_nothing_else() {
    let (near, mut far) = device::pair(1500, 1);
    let mut tap = Tap::new(near, Writer::new(Vec::new(), "pair").unwrap());
    assert_eq!(tap.mtu(), 1500);
    far.send(&ipv4()).unwrap();
    let mut buffer = [0; 1500];
    tap.wait(None, false).unwrap();
    assert_eq!(tap.receive(&mut buffer).unwrap(), 30);
    tap.receive(&mut buffer).unwrap_err();
    tap.send(&ipv6()).unwrap();
    // The queue is full: what is not sent is not captured.
    let full = tap.send(&ipv4()).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    let seen = read_all(&tap.into_writer().into_inner());
    let packets: Vec<_> = seen
        .into_iter()
        .map(|packet| (packet.content, packet.direction))
        .collect();
    assert_eq!(
        packets,
        [
            (Ok(ipv4()), Some(Direction::Inbound)),
            (Ok(ipv6()), Some(Direction::Outbound)),
        ]
    );
}

#[test]
fn a_capture_that_cannot_be_written_fails_the_device() {
    // Room for the two blocks before the first packet.
    let (near, _far) = device::pair(1500, 1);
    let writer = Writer::new(Full { room: 2 }, "pair").unwrap();
    let mut tap = Tap::new(near, writer);
    tap.send(&ipv4()).unwrap();
    let error = tap.wait(Some(Duration::ZERO), false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(error.to_string().contains("capture"), "{error}");
}

/// Takes a few writes.
struct Full {
    room: usize,
}

impl Write for Full {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Failing.write(buffer);
        }
        self.room -= 1;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
