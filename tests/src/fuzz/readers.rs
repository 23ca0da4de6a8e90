//! The host's readers of files that nobody vouches for.

use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex, OnceLock};

use l3l4_host::capture::{self, Content};
use l3l4_host::record::{self, Ending};
use l3l4_host::{Component, Engine};

use crate::host::Host;
use crate::scene::config;

/// A capture: no panic, an end, packets in order and within the file.
pub(super) fn capture(data: &[u8]) {
    let Ok(mut reader) = capture::Reader::new(data) else {
        return;
    };
    let length = data.len() as u64;
    let (mut number, mut offset) = (0, 0);
    while let Ok(Some(packet)) = reader.next() {
        number += 1;
        assert_eq!(packet.number, number, "packets count up");
        assert!(packet.offset >= offset, "a record before the last one");
        offset = packet.offset;
        if let Content::Ip(bytes) | Content::Cut(bytes) = packet.content {
            assert!(offset + bytes.len() as u64 <= length, "beyond the file");
        }
    }
    assert!(reader.offset() <= length, "read beyond the file");
    assert!(matches!(reader.next(), Ok(None) | Err(_)), "it has ended");
}

/// A record, as it is, and as frames whose checksums are right behind the true
/// beginning of one, which are then replayed: no panic, an end, no trap of the host.
pub(super) fn record(data: &[u8]) {
    read(data);
    let framed = framed(data);
    read(&framed);
    // A difference is what is to be expected: the frames were never recorded.
    let _ = record::replay(Cursor::new(framed), &Component::embedded());
}

fn read(data: &[u8]) {
    let Ok(mut reader) = record::Reader::new(data) else {
        return;
    };
    let mut frames = 0;
    while let Ok(Some(_)) = reader.next_frame() {
        frames += 1;
        assert!(frames <= data.len(), "more frames than bytes");
    }
    assert!(reader.offset() <= data.len() as u64, "read beyond the file");
    if let Some(Ending::Cut(at)) = reader.ending() {
        assert!(at <= data.len() as u64, "cut beyond the file");
    }
}

/// The input is a sequence of payloads, each behind its length in two bytes.
fn framed(mut data: &[u8]) -> Vec<u8> {
    let mut record = beginning().to_vec();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        frame(&mut record, payload);
        data = rest;
    }
    record
}

/// One frame, as `l3l4_host::record::format` says.
fn frame(record: &mut Vec<u8>, payload: &[u8]) {
    let length = u32::try_from(payload.len())
        .expect("two bytes")
        .to_le_bytes();
    record.extend(length);
    record.extend(crc32fast::hash(&length).to_le_bytes());
    record.extend(payload);
    record.extend(crc32fast::hash(payload).to_le_bytes());
}

/// How a record of the embedded component begins: up to the first call.
fn beginning() -> &'static [u8] {
    static BEGINNING: OnceLock<Vec<u8>> = OnceLock::new();
    BEGINNING.get_or_init(|| {
        let tape = Tape::default();
        let config = config();
        let engine = Engine::builder()
            .seed(config.seed)
            .build_recorded(Host::new(config.mtu), tape.clone())
            .expect("the embedded component starts");
        // What is written when the engine is dropped ends the record.
        let beginning = tape.0.lock().expect("no panic").clone();
        drop(engine);
        beginning
    })
}

/// Keeps what is written to it.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<u8>>>);

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
