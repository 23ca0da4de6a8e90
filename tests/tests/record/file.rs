//! The file's layout, read and written by what `record::format` says about it and
//! not by the library's own functions.

use l3l4_host::record::Frame;

/// The payloads of a record's complete frames, and where each frame ends.
pub(crate) fn payloads(record: &[u8]) -> Vec<(&[u8], usize)> {
    assert_eq!(record[..8], *b"L3L4REC\x04");
    let mut payloads = Vec::new();
    let mut at = 8;
    while let Some(length) = record.get(at..at + 4) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        let end = at + 8 + length + 4;
        if end > record.len() {
            break;
        }
        payloads.push((&record[at + 8..at + 8 + length], end));
        at = end;
    }
    payloads
}

/// The frames of a record.
pub(crate) fn frames(record: &[u8]) -> Vec<Frame<'_>> {
    payloads(record)
        .into_iter()
        .map(|(payload, _)| postcard::from_bytes(payload).unwrap())
        .collect()
}

/// A record with these frames.
pub(crate) fn record(frames: &[Frame<'_>]) -> Vec<u8> {
    let payloads = frames
        .iter()
        .map(|frame| postcard::to_stdvec(frame).unwrap());
    wrapped(payloads)
}

/// A record with these payloads.
pub(crate) fn wrapped(payloads: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut record = b"L3L4REC\x04".to_vec();
    for payload in payloads {
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        record.extend(length);
        record.extend(crc32fast::hash(&length).to_le_bytes());
        record.extend(&payload);
        record.extend(crc32fast::hash(&payload).to_le_bytes());
    }
    record
}
