//! A guest that traps: the application hears that its flows are gone, and the
//! next call works.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant as Wall};

use l3l4_host::{
    Batch, Builder, Callbacks, CloseReason, Engine, Error, Event, FiveTuple, FlowId, FlowOptions,
    Instant, Packets, Protocol, Verdict,
};

use crate::application::Application;
use crate::guest;

fn udp_flow() -> FiveTuple {
    FiveTuple {
        protocol: Protocol::Udp,
        local: "192.0.2.1:53".parse().unwrap(),
        peer: "198.51.100.2:5353".parse().unwrap(),
    }
}

fn open(engine: &mut Engine<Application>) -> FlowId {
    engine
        .flow_open(Instant(0), &udp_flow(), FlowOptions::default())
        .unwrap()
        .0
}

/// Opens a flow, makes the guest trap with `call`, and sees all go on. Returns
/// what the trap was.
fn survives<R: std::fmt::Debug>(
    builder: Builder,
    call: impl FnOnce(&mut Engine<Application>) -> Result<R, Error>,
) -> String {
    let mut engine = builder.build(Application::default()).unwrap();
    let flow = open(&mut engine);
    let outcome = call(&mut engine);
    let Err(Error::Trap {
        flows_lost: 1,
        source,
    }) = outcome
    else {
        panic!("{outcome:?}");
    };
    let lost = (flow, Event::Closed(CloseReason::EngineLost));
    assert_eq!(engine.callbacks().events, [lost]);
    open(&mut engine);
    source.to_string()
}

#[test]
fn the_engine_beyond_its_memory_traps_and_is_replaced() {
    let seed = [7; 32];
    let builder = Engine::builder()
        .seed(seed)
        .memory_limit(1 << 20)
        .guest_memory_limit(8 << 20);
    let mut batch = Batch::new();
    batch.push(&vec![0; 16 << 20]);
    survives(builder, |engine| engine.l3_rx(Instant(0), &batch));
}

#[test]
fn a_replaced_engine_gives_no_flow_id_twice() {
    let builder = Engine::builder().seed([7; 32]).guest_memory_limit(8 << 20);
    let mut engine = builder.build(Application::default()).unwrap();
    let mut batch = Batch::new();
    batch.push(&vec![0; 16 << 20]);
    let first = open(&mut engine);
    assert!(matches!(
        engine.l3_rx(Instant(0), &batch),
        Err(Error::Trap { .. })
    ));
    let second = open(&mut engine);
    assert!(matches!(
        engine.l3_rx(Instant(0), &batch),
        Err(Error::Trap { .. })
    ));
    let third = open(&mut engine);
    assert!(first != second && second != third && first != third);
    assert_eq!(engine.flows().unwrap(), [third]);
}

#[test]
fn a_fault_in_the_guest_is_a_trap() {
    let component = guest::with_export("l4-poll", |code, _| {
        code.unreachable();
    });
    let trap = survives(Engine::builder().component(&component), |engine| {
        engine.l4_poll(Instant(0))
    });
    assert!(trap.contains("unreachable"), "{trap}");
}

#[test]
fn a_guest_that_does_not_return_runs_out_of_time() {
    let component = guest::with_export("l4-poll", |code, _| {
        code.loop_(wasm_encoder::BlockType::Empty).br(0).end();
    });
    let builder = Engine::builder()
        .component(&component)
        .call_time_limit(Duration::from_millis(50));
    let started = Wall::now();
    let trap = survives(builder, |engine| engine.l4_poll(Instant(0)));
    assert!(trap.contains("interrupt"), "{trap}");
    assert!(started.elapsed() >= Duration::from_millis(50));
}

#[test]
fn packets_that_do_not_add_up_are_a_trap() {
    let component = guest::with_export("l4-poll", |code, l3_tx| {
        // Ten bytes and no packet.
        code.i32_const(0).i32_const(10).i32_const(0).i32_const(0);
        code.call(l3_tx).drop();
    });
    let trap = survives(Engine::builder().component(&component), |engine| {
        engine.l4_poll(Instant(0))
    });
    assert!(trap.contains("do not add up"), "{trap}");
}

#[test]
fn a_guest_below_its_memory_limit_does_not_start() {
    let built = Engine::builder()
        .guest_memory_limit(1 << 16)
        .build(Application::default());
    assert!(matches!(built, Err(Error::Start(_))), "{built:?}");
}

/// Panics when it is to transmit.
#[derive(Default)]
struct Clumsy(Vec<(FlowId, Event)>);

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

    fn flow_event(&mut self, flow: FlowId, event: Event) {
        self.0.push((flow, event));
    }
}

#[test]
fn a_callback_that_panics_costs_the_instance_and_not_the_engine() {
    let mut engine = Engine::builder().build(Clumsy::default()).unwrap();
    let options = FlowOptions::default();
    let (flow, _) = engine.flow_open(Instant(0), &udp_flow(), options).unwrap();
    let send = AssertUnwindSafe(|| engine.l4_tx(Instant(0), flow, b"data"));
    assert!(catch_unwind(send).is_err());
    // The guest was left in the middle of a call: the next goes to another.
    assert_eq!(engine.flows().unwrap(), []);
    let lost = (flow, Event::Closed(CloseReason::EngineLost));
    assert_eq!(engine.callbacks().0, [lost]);
}
