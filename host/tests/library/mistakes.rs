//! What the library says to an embedder's mistakes and to the engine's refusals.

use std::error::Error as _;
use std::time::Duration;

use l3l4_host::{
    Batch, Component, ConfigurationItem, ConfigureError, DataBatch, Engine, Error, FlowError,
    FlowId, Instant,
};

use crate::application::Application;
use crate::guest;

#[test]
fn a_value_outside_of_its_bounds_is_named() {
    let built = Engine::builder().mtu(576).build(Application::default());
    let Err(Error::Configure(ConfigureError::OutOfBounds(bounds))) = built else {
        panic!("{built:?}");
    };
    assert_eq!(bounds.item, ConfigurationItem::Mtu);
    assert_eq!(
        (bounds.given, bounds.least, bounds.most),
        (576, 1280, 65_535)
    );
    let built = Engine::builder()
        .time_wait(Duration::ZERO)
        .build(Application::default());
    assert_eq!(
        built.unwrap_err().to_string(),
        "time_wait: 0 ns is outside of 100000000 to 604800000000000 ns"
    );
}

#[test]
fn bytes_that_are_no_component_are_refused() {
    let component = Component::from_bytes(*b"\0asm nonsense");
    let built = Engine::builder()
        .component(&component)
        .build(Application::default());
    assert!(matches!(built, Err(Error::Component(_))), "{built:?}");
}

#[test]
fn a_component_without_the_exports_is_refused() {
    let empty = b"\0asm\x0d\0\x01\0";
    let component = Component::from_bytes(*empty);
    let built = Engine::builder()
        .component(&component)
        .build(Application::default());
    let Err(error @ Error::Component(_)) = built else {
        panic!("{built:?}");
    };
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("l3l4:engine/engine@0.1.0"), "{cause}");
}

#[test]
fn a_component_file_that_is_not_there_is_named() {
    let error = Component::from_file("/nonexistent/l3l4.wasm").unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the component /nonexistent/l3l4.wasm"
    );
}

#[test]
fn a_guest_that_does_nothing_is_a_component_of_the_world() {
    let component = guest::with_export("none", |_, _| ());
    let mut engine = Engine::builder()
        .component(&component)
        .build(Application::default())
        .unwrap();
    assert_eq!(engine.l4_poll(Instant(0)).unwrap(), None);
    assert_eq!(engine.flows().unwrap(), []);
}

#[test]
fn a_guest_that_says_nothing_of_a_portion_took_none_of_it() {
    let component = guest::with_export("none", |_, _| ());
    let builder = Engine::builder().component(&component);
    let mut engine = builder.build(Application::default()).unwrap();
    let mut batch = DataBatch::new();
    batch.push(FlowId(7), b"nothing");
    batch.push(FlowId(8), b"at all");
    let sent = engine.l4_tx_batch(Instant(0), &batch).unwrap();
    assert_eq!(sent.taken, [Ok(0), Ok(0)]);
}

#[test]
fn a_flow_that_never_was_is_unknown() {
    let mut engine = Engine::builder().build(Application::default()).unwrap();
    let outcome = engine.flow_resume(Instant(0), FlowId(7));
    assert!(
        matches!(outcome, Err(Error::Flow(FlowError::UnknownFlow))),
        "{outcome:?}"
    );
}

#[test]
fn a_batch_beyond_the_bound_is_refused_before_the_guest_sees_it() {
    let mut engine = Engine::builder().build(Application::default()).unwrap();
    let mut batch = Batch::new();
    batch.push(&vec![0; Batch::MAX_BYTES]);
    let outcome = engine.l3_rx(Instant(0), &batch);
    assert!(
        matches!(outcome, Err(Error::BatchTooLong(_))),
        "{outcome:?}"
    );
    let mut batch = DataBatch::new();
    batch.push(FlowId(7), &vec![0; DataBatch::MAX_BYTES - 32]);
    let sent = engine.l4_tx_batch(Instant(0), &batch).unwrap();
    assert_eq!(sent.taken, [Err(FlowError::UnknownFlow)]);
    batch.push(FlowId(7), b"");
    let outcome = engine.l4_tx_batch(Instant(0), &batch);
    assert!(
        matches!(outcome, Err(Error::BatchTooLong(_))),
        "{outcome:?}"
    );
}

#[test]
fn an_engine_may_move_to_another_thread() {
    fn moves<T: Send>() {}
    moves::<Engine<Application>>();
}
