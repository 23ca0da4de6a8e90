//! A name server that knows one name (RFC 1035), over UDP and TCP.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};

use crate::world::{DNS, FAMILIES, Family, NAME};

/// Serves at the name server's address of both families.
pub(crate) fn serve() {
    for family in FAMILIES {
        let at = family.at(DNS, 53);
        let socket = UdpSocket::bind(at).expect("the port of DNS");
        super::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                if let Some(answer) = answer(&query[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        super::serve(
            TcpListener::bind(at).expect("the port of DNS"),
            |mut stream| {
                let mut length = [0; 2];
                while stream.read_exact(&mut length).is_ok() {
                    let mut query = vec![0; u16::from_be_bytes(length).into()];
                    if stream.read_exact(&mut query).is_err() {
                        return;
                    }
                    let Some(answer) = answer(&query) else { return };
                    let length = u16::try_from(answer.len()).expect("short");
                    let framed = [length.to_be_bytes().as_slice(), &answer].concat();
                    let _ = stream.write_all(&framed);
                }
            },
        );
    }
}

const A: [u8; 2] = [0, 1];
const AAAA: [u8; 2] = [0, 28];

/// The answer to a query with one question: addresses of [`NAME`], or no such name.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let question = query.get(12..)?;
    let name_end = question.iter().position(|byte| *byte == 0)? + 1;
    let (name, kind) = (&question[..name_end], question.get(name_end..name_end + 2)?);
    let question = &question[..name_end + 4];
    let is_known = name.eq_ignore_ascii_case(&labels(NAME));
    let data = match (is_known, [kind[0], kind[1]]) {
        (true, A) => octets(Family::V4),
        (true, AAAA) => octets(Family::V6),
        _ => Vec::new(),
    };
    let mut answer = query[..2].to_vec();
    // A response, authoritative, recursion desired and available; 3: no such name.
    answer.extend([0x85, if is_known { 0x80 } else { 0x83 }]);
    answer.extend([0, 1, 0, u8::from(!data.is_empty()), 0, 0, 0, 0]);
    answer.extend(question);
    if !data.is_empty() {
        // The name is at offset 12; the class is IN; it lives for a minute.
        answer.extend([0xc0, 12, kind[0], kind[1], 0, 1, 0, 0, 0, 60]);
        answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}

fn labels(name: &str) -> Vec<u8> {
    let mut labels = Vec::new();
    for label in name.split('.') {
        labels.push(u8::try_from(label.len()).expect("short"));
        labels.extend(label.bytes());
    }
    labels.push(0);
    labels
}

fn octets(family: Family) -> Vec<u8> {
    match family.at(2, 0).ip() {
        std::net::IpAddr::V4(address) => address.octets().into(),
        std::net::IpAddr::V6(address) => address.octets().into(),
    }
}
