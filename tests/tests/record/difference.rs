//! Replays that differ, and that show it where it is.

use l3l4_host::record::{Callback, Difference, Digest, Frame, Outcome, Returned, wit};
use l3l4_host::{Component, EMBEDDED, Engine, record};

use crate::exchange::{Story, everything, replayed, small};
use crate::file;

/// The number of the call that each frame belongs to.
fn calls(frames: &[Frame<'_>]) -> Vec<u64> {
    let numbers = frames.iter().scan(0, |call, frame| {
        *call += u64::from(matches!(frame, Frame::Call(_)));
        Some(*call)
    });
    numbers.collect()
}

/// What the replay shows when frame `at` is another.
fn difference(frames: &[Frame<'_>], at: usize, other: Frame<'_>) -> Difference {
    let mut frames = frames.to_vec();
    frames[at] = other;
    let report = replayed(&file::record(&frames));
    assert!(!report.is_identical(), "{:?}", frames[at]);
    report
        .difference
        .unwrap_or_else(|| panic!("no difference: {:?}", frames[at]))
}

/// The frame with something else in what the engine said.
fn said_otherwise(frame: &Frame<'_>) -> Option<Frame<'static>> {
    let other = |deadline: wit::Deadline| Some(deadline.unwrap_or(0) + 1);
    let frame = match frame.clone() {
        Frame::Callback(Callback::L3Tx { mut packets, taken }) => {
            packets.last_mut()?.digest.0 ^= 1;
            Frame::Callback(Callback::L3Tx { packets, taken })
        }
        Frame::Callback(Callback::L4Rx {
            flow,
            length,
            digest,
            taken,
        }) => Frame::Callback(Callback::L4Rx {
            flow,
            length,
            digest: Digest(digest.0 ^ 1 << 63),
            taken,
        }),
        Frame::Callback(Callback::FlowNew {
            flow,
            mut tuple,
            verdict,
        }) => {
            tuple.protocol = wit::Protocol::IcmpEcho;
            Frame::Callback(Callback::FlowNew {
                flow,
                tuple,
                verdict,
            })
        }
        Frame::Callback(Callback::FlowEvent { flow, .. }) => {
            let event = wit::Event::Closed(wit::CloseReason::OutOfMemory);
            Frame::Callback(Callback::FlowEvent { flow, event })
        }
        Frame::Outcome(Outcome::Returned(returned)) => {
            let returned = match returned {
                Returned::L3Rx(Ok(deadline)) => Returned::L3Rx(Ok(other(deadline))),
                Returned::Deadline(deadline) => Returned::Deadline(other(deadline)),
                Returned::Flow(Ok(deadline)) => Returned::Flow(Ok(other(deadline))),
                Returned::Flow(Err(_)) => Returned::Flow(Err(wit::FlowError::TooLong)),
                Returned::Sent(Ok(mut sent)) => {
                    sent.taken += 1;
                    Returned::Sent(Ok(sent))
                }
                Returned::Sent(Err(_)) => Returned::Sent(Err(wit::FlowError::NotConfigured)),
                Returned::BatchSent(Ok(mut sent)) => {
                    sent.taken.pop();
                    Returned::BatchSent(Ok(sent))
                }
                Returned::Opened(Ok((flow, deadline))) => {
                    Returned::Opened(Ok((flow + 1, deadline)))
                }
                Returned::Opened(Err(_)) => Returned::Opened(Err(wit::OpenError::FlowLimit)),
                Returned::Info(Ok(mut info)) => {
                    info.retransmits += 1;
                    Returned::Info(Ok(info))
                }
                Returned::Flows(mut flows) => {
                    flows.push(0);
                    Returned::Flows(flows)
                }
                Returned::Counters(mut counters) => {
                    counters.drops[3].packets += 1;
                    Returned::Counters(counters)
                }
                Returned::L3Rx(Err(_)) | Returned::BatchSent(Err(_)) | Returned::Info(Err(_)) => {
                    return None;
                }
            };
            Frame::Outcome(Outcome::Returned(returned))
        }
        _ => return None,
    };
    Some(frame)
}

#[test]
fn whatever_the_engine_says_otherwise_is_shown_at_its_call() {
    let mut story = Story::new(Engine::builder());
    everything(&mut story);
    let record = story.record();
    let frames = file::frames(&record);
    let calls = calls(&frames);
    let mut tried = 0;
    for (at, frame) in frames.iter().enumerate() {
        if let Some(other) = said_otherwise(frame) {
            let shown = difference(&frames, at, other);
            assert_eq!(shown.call, calls[at], "frame {at}: {frame:?}: {shown:?}");
            assert_ne!(shown.recorded, shown.replayed);
            let is_packet = matches!(frame, Frame::Callback(Callback::L3Tx { .. }));
            assert_eq!(shown.packet.is_some(), is_packet, "{shown:?}");
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn another_answer_is_shown_where_it_has_an_effect() {
    let record = small();
    let frames = file::frames(&record);
    let calls = calls(&frames);
    for (at, frame) in frames.iter().enumerate() {
        let other = match frame.clone() {
            Frame::Callback(Callback::L3Tx { packets, taken: 1 }) => {
                Callback::L3Tx { packets, taken: 0 }
            }
            Frame::Callback(Callback::FlowNew { flow, tuple, .. }) => Callback::FlowNew {
                flow,
                tuple,
                verdict: wit::Verdict::Drop,
            },
            Frame::Callback(Callback::L4Rx {
                flow,
                length,
                digest,
                taken,
            }) => Callback::L4Rx {
                flow,
                length,
                digest,
                taken: taken - 1,
            },
            _ => continue,
        };
        let shown = difference(&frames, at, Frame::Callback(other));
        assert!(shown.call >= calls[at], "frame {at}: {frame:?}: {shown:?}");
    }
}

#[test]
fn a_callback_too_many_or_too_few_is_shown() {
    let record = small();
    let frames = file::frames(&record);
    for (at, frame) in frames.iter().enumerate() {
        if !matches!(frame, Frame::Callback(_)) {
            continue;
        }
        let mut more = frames.clone();
        more.insert(at, frame.clone());
        let mut fewer = frames.clone();
        fewer.remove(at);
        for frames in [more, fewer] {
            let report = replayed(&file::record(&frames));
            assert!(report.difference.is_some(), "{report:#?}");
        }
    }
}

#[test]
fn a_trap_that_does_not_come_again_is_shown() {
    let record = small();
    let mut frames = file::frames(&record);
    let at = frames
        .iter()
        .rposition(|frame| matches!(frame, Frame::Outcome(_)))
        .unwrap();
    frames[at] = Frame::Outcome(Outcome::Trapped("wasm trap: interrupt".into()));
    let shown = replayed(&file::record(&frames)).difference.unwrap();
    assert!(shown.recorded.contains("trapped"), "{shown:?}");
    assert!(shown.replayed.contains("returned"), "{shown:?}");
}

#[test]
fn another_component_is_named_and_not_compared_unasked() {
    let record = small();
    // The same code: a custom section behind it changes nothing but the hash.
    let mut bytes = EMBEDDED.to_vec();
    bytes.extend([0, 2, 1, b'x']);
    let other = Component::from_bytes(bytes);
    let error = record::replay(std::io::Cursor::new(record.clone()), &other).unwrap_err();
    let text = error.to_string();
    for component in [&Component::embedded(), &other] {
        let hash: String = component
            .sha256()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert!(text.contains(&hash), "{text}");
    }
    let reader = record::Reader::new(std::io::Cursor::new(record)).unwrap();
    let mut replay = record::Replay::new(reader, &other);
    while replay.step().unwrap() {}
    assert!(replay.into_report().is_identical(), "on purpose");
}
