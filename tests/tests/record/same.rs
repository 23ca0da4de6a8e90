//! Replays that are identical.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use l3l4_host::record::{Ending, Frame, Outcome, Reader, Replay};
use l3l4_host::{Component, CongestionControl, Engine, Error};
use l3l4_tests::craft::{Family, udp};

use crate::exchange::{Story, everything, replayed};
use crate::file;

#[test]
fn all_that_can_cross_the_border_is_replayed_identically() {
    let mut story = Story::new(Engine::builder());
    everything(&mut story);
    let sent = story.app().sent.len() as u64;
    let record = story.record();
    let report = replayed(&record);
    assert!(report.is_identical(), "{report:#?}");
    assert_eq!(report.ending, Some(Ending::Whole));
    assert_eq!(report.packets_out, sent);
    assert_eq!((report.instances, report.traps), (1, 0));
    assert_eq!(report.calls.len(), 13, "every export: {:?}", report.calls);
    assert_eq!(report.callbacks.len(), 4, "{:?}", report.callbacks);
}

#[test]
fn options_of_the_builder_are_replayed() {
    let builder = Engine::builder()
        .mtu(1280)
        .tcp_buffer_size(4096)
        .syn_cookies(false)
        .congestion_control(CongestionControl::Reno)
        .min_rto(Duration::from_secs(1))
        .reassembly_memory(1 << 20)
        .reassembly_timeout(Duration::from_secs(30))
        .max_flows(100)
        .max_stray_replies(0);
    let mut story = Story::new(builder);
    everything(&mut story);
    let report = replayed(&story.record());
    assert!(report.is_identical(), "{report:#?}");
}

#[test]
fn a_trap_and_what_comes_after_it_are_replayed() {
    let mut story = Story::new(Engine::builder().guest_memory_limit(8 << 20));
    for _ in 0..2 {
        everything(&mut story);
        let trap = story.receive(&[vec![0; 16 << 20]]);
        assert!(matches!(trap, Err(Error::Trap { .. })), "{trap:?}");
    }
    story.one(udp(Family::V4.peer(1), Family::V4.local(53), b"hello"));
    let record = story.record();
    let report = replayed(&record);
    assert!(report.is_identical(), "{report:#?}");
    assert_eq!((report.instances, report.traps), (3, 2));
}

#[test]
fn a_configuration_that_is_refused_is_replayed() {
    let tape = crate::exchange::Tape::default();
    let built = Engine::builder()
        .mtu(576)
        .build_recorded(crate::exchange::Application::default(), tape.clone());
    assert!(matches!(built, Err(Error::Configure(_))));
    let record = tape.bytes();
    assert!(
        file::frames(&record)
            .iter()
            .any(|frame| matches!(frame, Frame::Started(Err(why)) if why.contains("mtu: 576"))),
    );
    let report = replayed(&record);
    assert!(report.is_identical(), "{report:#?}");
}

#[test]
fn an_observer_sees_the_record_and_the_bytes_that_were_sent() {
    let mut story = Story::new(Engine::builder());
    everything(&mut story);
    let sent = story.app().sent.concat();
    let record = story.record();

    let seen = Arc::new(Mutex::new((Vec::new(), Vec::<u8>::new())));
    let reader = Reader::new(io::Cursor::new(record.clone())).unwrap();
    let mut replay = Replay::new(reader, &Component::embedded()).observe({
        let seen = Arc::clone(&seen);
        move |frame, bytes| {
            let (frames, sent) = &mut *seen.lock().unwrap();
            frames.push(postcard::to_stdvec(frame).unwrap());
            if let Frame::Callback(l3l4_host::record::Callback::L3Tx { packets, taken }) = frame {
                let taken = &packets[..*taken as usize];
                let length: u32 = taken.iter().map(|emitted| emitted.packet.length).sum();
                sent.extend(&bytes[..length as usize]);
            }
        }
    });
    while replay.step().unwrap() {}
    assert!(replay.into_report().is_identical());

    let (frames, replayed) = &*seen.lock().unwrap();
    let mut recorded = file::payloads(&record);
    recorded.remove(0);
    recorded.pop();
    assert!(
        frames
            .iter()
            .eq(recorded.iter().map(|(payload, _)| payload))
    );
    assert!(*replayed == sent, "the packets, to the byte");
}

/// A device that is full after some bytes.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        match taken {
            0 => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_record_that_cannot_be_written_does_not_disturb_the_engine() {
    let mut engine = Engine::builder()
        .build_recorded(crate::exchange::Application::default(), Full(1000))
        .unwrap();
    assert!(engine.record_failure().is_none());
    for _ in 0..100 {
        engine.counters().unwrap();
    }
    let failure = engine.record_failure().unwrap();
    assert_eq!(failure.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_call_is_on_the_tape_before_the_engine_is_entered() {
    let mut story = Story::new(Engine::builder());
    let tape = story.tape.clone();
    story.one(udp(Family::V4.peer(1), Family::V4.local(53), b"hello"));
    // Nothing waits in a buffer between two calls.
    let record = tape.bytes();
    let frames = file::frames(&record);
    assert!(
        matches!(frames.last(), Some(Frame::Outcome(Outcome::Returned(_)))),
        "{:?}",
        frames.last()
    );
    drop(story);
}
