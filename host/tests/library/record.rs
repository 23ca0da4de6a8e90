//! Records of guests that misbehave, and of callbacks that panic.

use std::io::{self, Cursor, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use l3l4_host::record::{Ending, Report, replay};
use l3l4_host::{
    Batch, Builder, Callbacks, Component, Engine, Error, Event, FiveTuple, FlowId, FlowOptions,
    Instant, Packets, Protocol, Verdict,
};

use crate::application::Application;
use crate::guest;

#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<u8>>>);

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tape {
    fn replay(&self, component: &Component) -> Report {
        let record = self.0.lock().unwrap().clone();
        replay(Cursor::new(record), component).unwrap()
    }
}

/// The report on a story told to an engine with this component.
fn told(
    component: &Component,
    builder: Builder,
    story: impl FnOnce(&mut Engine<Application>),
) -> Report {
    let tape = Tape::default();
    let mut engine = builder
        .component(component)
        .build_recorded(Application::default(), tape.clone())
        .unwrap();
    story(&mut engine);
    drop(engine);
    tape.replay(component)
}

#[test]
fn a_fault_in_the_guest_is_repeated() {
    let component = guest::with_export("l4-poll", |code, _| {
        code.unreachable();
    });
    let report = told(&component, Engine::builder(), |engine| {
        for _ in 0..3 {
            let trap = engine.l4_poll(Instant(1));
            assert!(matches!(trap, Err(Error::Trap { .. })), "{trap:?}");
            engine.flows().unwrap();
        }
    });
    assert!(report.is_identical(), "{report:#?}");
    assert_eq!((report.instances, report.traps), (4, 3));
}

#[test]
fn a_guest_that_does_not_return_is_repeated() {
    let component = guest::with_export("l4-poll", |code, _| {
        code.loop_(wasm_encoder::BlockType::Empty).br(0).end();
    });
    let limited = Engine::builder().call_time_limit(Duration::from_millis(50));
    let report = told(&component, limited, |engine| {
        engine.l4_poll(Instant(1)).unwrap_err();
    });
    assert!(report.is_identical(), "{report:#?}");
    assert_eq!(report.traps, 1);
}

#[test]
fn packets_that_do_not_add_up_are_repeated() {
    let component = guest::with_export("l4-poll", |code, l3_tx| {
        // Ten bytes and no packet.
        code.i32_const(0).i32_const(10).i32_const(0).i32_const(0);
        code.call(l3_tx).drop();
    });
    let report = told(&component, Engine::builder(), |engine| {
        engine.l4_poll(Instant(1)).unwrap_err();
    });
    assert!(report.is_identical(), "{report:#?}");
}

#[test]
fn a_guest_that_does_not_start_is_repeated() {
    let tape = Tape::default();
    let built = Engine::builder()
        .guest_memory_limit(1 << 16)
        .build_recorded(Application::default(), tape.clone());
    assert!(matches!(built, Err(Error::Start(_))), "{built:?}");
    let report = tape.replay(&Component::embedded());
    assert!(report.is_identical(), "{report:#?}");
    assert_eq!(report.instances, 1);
}

#[test]
fn another_behaviour_of_another_component_is_shown() {
    let quiet = guest::with_export("none", |_, _| ());
    let tape = Tape::default();
    let mut engine = Engine::builder()
        .component(&quiet)
        .build_recorded(Application::default(), tape.clone())
        .unwrap();
    engine.l4_poll(Instant(1)).unwrap();
    let mut batch = Batch::new();
    batch.push(b"no packet");
    engine.l3_rx(Instant(2), &batch).unwrap();
    engine.counters().unwrap();
    drop(engine);

    let record = Cursor::new(tape.0.lock().unwrap().clone());
    let reader = l3l4_host::record::Reader::new(record).unwrap();
    let mut replay = l3l4_host::record::Replay::new(reader, &Component::embedded());
    while replay.step().unwrap() {}
    let difference = replay.into_report().difference.unwrap();
    assert_eq!(difference.call, 3, "{difference:?}");
    assert_eq!(difference.now, Some(Instant(2)));
    assert_eq!(difference.during, "counters()");
}

/// Panics when it is to transmit.
struct Clumsy;

impl Callbacks for Clumsy {
    fn l3_tx(&mut self, _packets: Packets<'_>) -> usize {
        panic!("the embedder's own fault");
    }

    fn l4_rx(&mut self, _flow: FlowId, data: &[u8]) -> usize {
        data.len()
    }

    fn flow_new(&mut self, _flow: FlowId, _tuple: &FiveTuple) -> Verdict {
        Verdict::ACCEPT
    }

    fn flow_event(&mut self, _flow: FlowId, _event: Event) {}
}

/// An engine of which a callback has panicked.
fn panicked(tape: &Tape) -> Engine<Clumsy> {
    let mut engine = Engine::builder()
        .build_recorded(Clumsy, tape.clone())
        .unwrap();
    let tuple = FiveTuple {
        protocol: Protocol::Udp,
        local: "192.0.2.1:53".parse().unwrap(),
        peer: "198.51.100.2:5353".parse().unwrap(),
    };
    let (flow, _) = engine
        .flow_open(Instant(0), &tuple, FlowOptions::default())
        .unwrap();
    let send = AssertUnwindSafe(|| engine.l4_tx(Instant(0), flow, b"data"));
    assert!(catch_unwind(send).is_err());
    engine
}

#[test]
fn a_callback_that_panics_is_repeated_as_the_end_of_its_call() {
    let tape = Tape::default();
    let mut engine = panicked(&tape);
    assert_eq!(engine.flows().unwrap(), []);
    drop(engine);
    let report = tape.replay(&Component::embedded());
    assert!(report.is_identical(), "{report:#?}");
    assert_eq!((report.instances, report.traps), (2, 1));
    assert_eq!(report.unfinished, None);
}

#[test]
fn a_callback_that_panics_last_leaves_its_call_unfinished() {
    let tape = Tape::default();
    drop(panicked(&tape));
    let report = tape.replay(&Component::embedded());
    assert!(report.is_identical(), "{report:#?}");
    assert_eq!(report.ending, Some(Ending::Whole));
    let unfinished = report.unfinished.unwrap();
    assert_eq!(unfinished.call, 2);
    assert!(unfinished.replayed.starts_with("l3_tx"), "{unfinished:?}");
}
