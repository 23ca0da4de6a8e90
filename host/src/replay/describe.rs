//! One packet in a line, for people, goldens and differences.

use std::fmt::Write as _;

use super::packet::{
    ACK, FIN, Headers, ICMP, ICMPV6, MAXIMUM_SEGMENT_SIZE, PSH, RST, SACK, SACK_PERMITTED, SYN,
    Segment, TCP, TIMESTAMPS, UDP, URG, WINDOW_SCALE, u16_at, u32_at,
};

/// One IP packet in a line, with a digest of all its bytes: two packets are the
/// same when their lines are.
///
/// ```
/// let line = l3l4_host::replay::describe(&[0x45]);
/// assert!(line.starts_with("not an IP packet, 1 bytes #"));
/// ```
#[must_use]
pub fn describe(packet: &[u8]) -> String {
    let mut line = match Headers::read(packet) {
        Some(headers) => body(&headers, packet),
        None => format!("not an IP packet, {} bytes", packet.len()),
    };
    let _ = write!(line, " #{:016x}", digest(packet));
    line
}

/// FNV-1a, 64 bits.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn body(headers: &Headers, packet: &[u8]) -> String {
    let (from, to) = (headers.from, headers.to);
    let length = headers.end.saturating_sub(headers.transport);
    if headers.fragment {
        let protocol = headers.protocol;
        return format!("{from} > {to} fragment of protocol {protocol} length {length}");
    }
    let known = match headers.protocol {
        TCP => segment(headers, packet),
        UDP => headers
            .sockets(packet)
            .map(|(from, to)| format!("{from} > {to} udp length {}", length.saturating_sub(8))),
        ICMP | ICMPV6 => packet
            .get(headers.transport..headers.transport + 8)
            .map(|message| icmp(headers, message, length.saturating_sub(8))),
        _ => None,
    };
    known.unwrap_or_else(|| {
        let protocol = headers.protocol;
        format!("{from} > {to} protocol {protocol} length {length}")
    })
}

fn icmp(headers: &Headers, message: &[u8], length: usize) -> String {
    let (from, to) = (headers.from, headers.to);
    let (kind, code, rest) = (message[0], message[1], &message[4..]);
    format!("{from} > {to} icmp {kind}/{code} {rest:02x?} length {length}")
}

fn segment(headers: &Headers, packet: &[u8]) -> Option<String> {
    let (from, to) = headers.sockets(packet)?;
    let segment = headers.tcp(packet)?;
    let mut line = format!("{from} > {to} tcp {}", letters(segment.flags));
    let _ = write!(line, " seq {}", segment.seq);
    if segment.has(ACK) {
        let _ = write!(line, " ack {}", segment.ack);
    }
    let _ = write!(line, " window {}", segment.window);
    options(&mut line, &segment, packet);
    let _ = write!(line, " length {}", segment.length);
    Some(line)
}

fn options(line: &mut String, segment: &Segment, packet: &[u8]) {
    let header = &packet[segment.header.clone()];
    for (kind, range) in segment.options(packet) {
        let option = &header[range];
        let _ = match (kind, option.len()) {
            (MAXIMUM_SEGMENT_SIZE, 4) => write!(line, " mss {}", u16_at(option, 2)),
            (WINDOW_SCALE, 3) => write!(line, " scale {}", option[2]),
            (SACK_PERMITTED, 2) => write!(line, " sack-permitted"),
            (SACK, length) if length % 8 == 2 => {
                option[2..].chunks_exact(8).try_for_each(|edges| {
                    write!(line, " sack {}-{}", u32_at(edges, 0), u32_at(edges, 4))
                })
            }
            (TIMESTAMPS, 10) => {
                let (value, echo) = (u32_at(option, 2), u32_at(option, 6));
                write!(line, " timestamps {value} {echo}")
            }
            _ => write!(line, " option-{kind}"),
        };
    }
}

fn letters(flags: u8) -> String {
    let letters = [
        (SYN, 'S'),
        (FIN, 'F'),
        (RST, 'R'),
        (PSH, 'P'),
        (ACK, '.'),
        (URG, 'U'),
    ];
    letters
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .map(|(_, letter)| letter)
        .collect()
}
