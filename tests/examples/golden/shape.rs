//! The same packets in files of other kinds, written by hand from the documents of
//! the formats: our reader is not tested by our writer alone.

use l3l4_host::capture::{Direction, Writer};

use crate::session::Packet;

/// A kind of file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// With directions.
    Pcapng,
    Pcap {
        big: bool,
        nanoseconds: bool,
        frame: Frame,
    },
}

/// A kind of link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Frame {
    Raw,
    /// Padded to 60 bytes; with an 802.1Q tag of this VLAN.
    Ethernet(Option<u8>),
    /// As on macOS.
    Null,
    /// With directions.
    Cooked,
    /// With directions.
    Cooked2,
}

impl Shape {
    pub(crate) fn encode(self, packets: &[Packet]) -> Vec<u8> {
        let (big, nanoseconds, frame) = match self {
            Self::Pcapng => return pcapng(packets),
            Self::Pcap {
                big,
                nanoseconds,
                frame,
            } => (big, nanoseconds, frame),
        };
        let u32 = |value: u32| match big {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        };
        let u16 = |value: u16| match big {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        };
        let (magic, unit) = match nanoseconds {
            true => (0xa1b2_3c4d, 1),
            false => (0xa1b2_c3d4, 1000),
        };
        let mut file = Vec::new();
        file.extend(u32(magic));
        file.extend(u16(2));
        file.extend(u16(4));
        file.extend([u32(0), u32(0), u32(65_535), u32(frame.link_type())].concat());
        for packet in packets {
            let bytes = frame.around(packet);
            let length = u32(u32::try_from(bytes.len()).unwrap());
            let seconds = u32::try_from(packet.at / 1_000_000_000).unwrap();
            let fraction = u32::try_from(packet.at % 1_000_000_000 / unit).unwrap();
            file.extend([u32(seconds), u32(fraction), length, length].concat());
            file.extend(bytes);
        }
        file
    }
}

fn pcapng(packets: &[Packet]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), "l3l4").unwrap();
    for packet in packets {
        writer
            .packet(packet.at, packet.direction, &packet.bytes)
            .unwrap();
    }
    writer.into_inner()
}

impl Frame {
    fn link_type(self) -> u32 {
        match self {
            Self::Null => 0,
            Self::Ethernet(_) => 1,
            Self::Raw => 101,
            Self::Cooked => 113,
            Self::Cooked2 => 276,
        }
    }

    fn around(self, packet: &Packet) -> Vec<u8> {
        let is_ipv4 = packet.bytes[0] >> 4 == 4;
        let ether_type: &[u8] = match is_ipv4 {
            true => &[0x08, 0x00],
            false => &[0x86, 0xdd],
        };
        let outbound = packet.direction == Direction::Outbound;
        let station = |near: bool| [2, 0, 0, 0, 0, if near { 1 } else { 2 }];
        let sender = [&station(outbound)[..], &[0, 0]].concat();
        let kind = if outbound { 4 } else { 0 };
        let header = match self {
            Self::Raw => Vec::new(),
            Self::Ethernet(vlan) => {
                let tag = vlan.map_or(Vec::new(), |vlan| vec![0x81, 0, 0, vlan]);
                [
                    &station(!outbound),
                    &station(outbound),
                    &tag[..],
                    ether_type,
                ]
                .concat()
            }
            Self::Null => vec![if is_ipv4 { 2 } else { 30 }, 0, 0, 0],
            Self::Cooked => [&[0, kind, 0, 1, 0, 6], &sender[..], ether_type].concat(),
            Self::Cooked2 => {
                let middle = [0, 0, 0, 0, 0, 3, 0, 1, kind, 6];
                [ether_type, &middle, &sender].concat()
            }
        };
        let mut frame = [&header[..], &packet.bytes].concat();
        if matches!(self, Self::Ethernet(_)) && frame.len() < 60 {
            frame.resize(60, 0);
        }
        frame
    }
}
