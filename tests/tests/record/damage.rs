//! Records that are cut, damaged or none at all.

use std::io::Cursor;

use l3l4_host::Component;
use l3l4_host::record::{Ending, Frame, ReadError, ReplayError, replay};
use l3l4_tests::random::Random;

use crate::exchange::{replayed, small};
use crate::file;

fn read_error(record: Vec<u8>) -> ReadError {
    match replay(Cursor::new(record), &Component::embedded()) {
        Err(ReplayError::Read(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_cut_anywhere_is_replayed_up_to_there() {
    let record = small();
    let payloads = file::payloads(&record);
    let frames = file::frames(&record);
    let (_, header_end) = payloads[0];
    for length in 0..record.len() {
        let cut = record[..length].to_vec();
        if length < header_end {
            let error = read_error(cut);
            match length {
                ..8 => assert!(matches!(error, ReadError::Foreign), "{length}: {error}"),
                _ => assert!(matches!(error, ReadError::Empty(8)), "{length}: {error}"),
            }
            continue;
        }
        let whole = payloads.iter().filter(|(_, end)| *end <= length).count();
        let report = replayed(&cut);
        assert!(report.is_identical(), "{length}: {report:#?}");
        let (_, end) = payloads[whole - 1];
        assert_eq!(report.ending, Some(Ending::Cut(end as u64)), "{length}");
        let calls = frames[..whole]
            .iter()
            .filter(|frame| matches!(frame, Frame::Call(_)));
        assert_eq!(report.all_calls(), calls.count() as u64, "{length}");
        // What the engine does next in a call without an outcome is shown.
        let within = matches!(frames[whole - 1], Frame::Call(_) | Frame::Callback(_));
        assert_eq!(report.unfinished.is_some(), within, "{length}: {report:#?}");
    }
}

#[test]
fn every_byte_that_is_wrong_is_noticed() {
    let record = small();
    let mut random = Random::new(1);
    for at in 0..record.len() {
        let mut damaged = record.clone();
        damaged[at] ^= 1 << random.below(8);
        let outcome = replay(Cursor::new(damaged), &Component::embedded());
        match at {
            ..7 => assert!(
                matches!(outcome, Err(ReplayError::Read(ReadError::Foreign))),
                "{at}: {outcome:?}"
            ),
            7 => assert!(
                matches!(outcome, Err(ReplayError::Read(ReadError::Version(_)))),
                "{at}: {outcome:?}"
            ),
            _ => match outcome {
                Err(ReplayError::Read(ReadError::Damaged { offset, .. })) => {
                    assert!(offset <= at as u64, "{at}: {offset}");
                }
                Ok(report) => {
                    let Some(ReadError::Damaged { offset, .. }) = report.damage else {
                        panic!("{at}: {report:#?}");
                    };
                    assert!(!report.is_identical());
                    assert!(offset <= at as u64, "{at}: {offset}");
                }
                Err(error) => panic!("{at}: {error}"),
            },
        }
    }
}

#[test]
fn another_version_is_named() {
    for version in [1, 2, 9] {
        let mut record = small();
        record[7] = version;
        let text = read_error(record).to_string();
        assert!(
            text.contains(&format!("version {version}")) && text.contains("reads version 4"),
            "{text}"
        );
    }
}

#[test]
fn what_follows_the_end_is_damage() {
    let mut record = small();
    record.push(0);
    assert!(replayed(&record).damage.is_some());
}

#[test]
fn a_length_is_no_reason_to_take_memory() {
    let mut record = small();
    record.truncate(8);
    let length = u32::MAX.to_le_bytes();
    record.extend(length);
    record.extend(crc32fast::hash(&length).to_le_bytes());
    assert!(matches!(
        read_error(record),
        ReadError::Damaged { offset: 8, .. }
    ));
}

#[test]
fn noise_is_never_more_than_an_error() {
    let mut random = Random::new(2);
    let good = small();
    let header = file::payloads(&good)[0].0.to_vec();
    for _ in 0..2000 {
        let length = random.below(200);
        let noise = random.bytes(length);
        let behind_the_magic = [b"L3L4REC\x04", &noise[..]].concat();
        let in_a_frame = file::wrapped([noise.clone()]);
        let behind_the_header = file::wrapped([header.clone(), noise.clone()]);
        for record in [noise, behind_the_magic, in_a_frame, behind_the_header] {
            let outcome = replay(Cursor::new(record), &Component::embedded());
            assert!(
                !matches!(&outcome, Ok(report) if report.is_identical() && report.all_calls() > 0),
                "{outcome:?}"
            );
        }
    }
}

/// Frames that are sound each for itself, in an order that no engine made, with
/// calls that no embedder would make.
#[test]
fn frames_in_disorder_are_never_more_than_a_difference() {
    let record = small();
    let payloads: Vec<Vec<u8>> = file::payloads(&record)
        .into_iter()
        .map(|(payload, _)| payload.to_vec())
        .collect();
    let mut random = Random::new(3);
    for _ in 0..1000 {
        let mut shuffled = payloads.clone();
        for _ in 0..=random.below(3) {
            let at = 1 + random.below(shuffled.len() - 1);
            let to = 1 + random.below(shuffled.len() - 1);
            match random.below(4) {
                0 => shuffled.swap(at, to),
                1 => drop(shuffled.remove(at)),
                2 => shuffled.insert(to, shuffled[at].clone()),
                _ => {
                    let byte = random.below(shuffled[at].len());
                    shuffled[at][byte] = random.byte();
                }
            }
        }
        let _ = replay(Cursor::new(file::wrapped(shuffled)), &Component::embedded());
    }
}
