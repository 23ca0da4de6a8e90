//! The component without the host library: what the library never does, and what
//! another host may (configure twice, call before, lie about lengths).

use std::sync::LazyLock;

use l3l4_host::EMBEDDED;
use wasmtime::component::{Component, Instance, Linker, Val};
use wasmtime::{Engine, Store};

#[test]
fn configure_works_once_and_a_refusal_leaves_it_to_be_done() {
    let mut raw = Raw::new();
    let error = refusal(&raw.configure(&[("mtu", Val::U32(1279))]));
    assert_eq!(error.0, "out-of-bounds");
    let Some(Val::Record(fields)) = error.1 else {
        panic!("the bounds, not {error:?}");
    };
    let expected = [
        ("item", Val::Enum("mtu".into())),
        ("given", Val::U64(1279)),
        ("least", Val::U64(1280)),
        ("most", Val::U64(65_535)),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    assert_eq!(fields, expected);

    assert!(succeeded(&raw.configure(&[("mtu", Val::U32(1280))])));
    assert_eq!(refusal(&raw.configure(&[])).0, "already-configured");
}

#[test]
fn before_configure_calls_are_refused_and_the_counters_are_zero() {
    let mut raw = Raw::new();
    let (now, flow) = (Val::U64(0), Val::U64(0));
    let empty = || Val::List(Vec::new());
    let not_configured = |result: &Val| assert_eq!(refusal(result).0, "not-configured");
    not_configured(&raw.call("l3-rx", &[now.clone(), empty(), empty()]));
    not_configured(&raw.call("l4-tx", &[now.clone(), flow.clone(), empty()]));
    not_configured(&raw.call("l4-tx-batch", &[now.clone(), empty(), empty()]));
    for name in ["flow-resume", "flow-finish", "flow-abort"] {
        not_configured(&raw.call(name, &[now.clone(), flow.clone()]));
    }
    not_configured(&raw.call("flow-info", std::slice::from_ref(&flow)));
    assert_eq!(raw.call("l4-poll", &[now]), Val::Option(None));
    assert_eq!(raw.call("flows", &[]), empty());
    let Val::Record(counters) = raw.call("counters", &[]) else {
        panic!("a record");
    };
    for (name, value) in counters {
        assert!(
            matches!(value, Val::U32(0) | Val::U64(0) | Val::List(_)),
            "{name}: {value:?}"
        );
    }
}

#[test]
fn lengths_that_do_not_add_up_refuse_the_batch_and_nothing_of_it_is_looked_at() {
    let mut raw = Raw::new();
    assert!(succeeded(&raw.configure(&[])));
    let bytes = || Val::List(vec![Val::U8(0x45); 20]);
    for lengths in [&[19][..], &[21], &[], &[20, 1], &[u32::MAX, 21]] {
        let packets = Val::List(lengths.iter().copied().map(packet).collect());
        let result = raw.call("l3-rx", &[Val::U64(0), bytes(), packets]);
        assert_eq!(refusal(&result).0, "length-mismatch", "{lengths:?}");
        let portions = Val::List(lengths.iter().copied().map(portion).collect());
        let result = raw.call("l4-tx-batch", &[Val::U64(0), bytes(), portions]);
        assert_eq!(refusal(&result).0, "length-mismatch", "{lengths:?}");
    }
    let Val::Record(counters) = raw.call("counters", &[]) else {
        panic!("a record");
    };
    assert_eq!(counters[0], ("l3-rx-packets".into(), Val::U64(0)));
    let packets = Val::List(vec![packet(20)]);
    assert!(succeeded(
        &raw.call("l3-rx", &[Val::U64(0), bytes(), packets])
    ));
}

/// An instance whose callbacks trap: none is called here.
struct Raw {
    store: Store<()>,
    instance: Instance,
}

impl Raw {
    fn new() -> Self {
        static COMPILED: LazyLock<(Engine, Component)> = LazyLock::new(|| {
            let engine = Engine::default();
            let component = Component::new(&engine, EMBEDDED).expect("a component");
            (engine, component)
        });
        let (engine, component) = &*COMPILED;
        let mut linker = Linker::new(engine);
        linker
            .define_unknown_imports_as_traps(component)
            .expect("links");
        let mut store = Store::new(engine, ());
        let instance = linker.instantiate(&mut store, component).expect("starts");
        Self { store, instance }
    }

    fn call(&mut self, name: &str, arguments: &[Val]) -> Val {
        let interface = self
            .instance
            .get_export_index(&mut self.store, None, "l3l4:engine/engine@0.1.0")
            .expect("the interface");
        let function = self
            .instance
            .get_export_index(&mut self.store, Some(&interface), name)
            .expect("the function");
        let function = self
            .instance
            .get_func(&mut self.store, function)
            .expect("a function");
        let mut results = [Val::Bool(false)];
        function
            .call(&mut self.store, arguments, &mut results)
            .expect("no trap");
        let [result] = results;
        result
    }

    /// All defaults but these.
    fn configure(&mut self, given: &[(&str, Val)]) -> Val {
        let seed = Val::Tuple(vec![Val::U64(1); 4]);
        let mut fields = vec![("seed".to_owned(), seed)];
        for name in ITEMS {
            let value = given.iter().find(|(item, _)| *item == name);
            let value = value.map(|(_, value)| Box::new(value.clone()));
            fields.push((name.to_owned(), Val::Option(value)));
        }
        self.call("configure", &[Val::Record(fields)])
    }
}

/// The items of `configuration` after the seed, in the order of the contract.
const ITEMS: [&str; 21] = [
    "mtu",
    "max-flows",
    "max-half-open",
    "syn-cookies",
    "memory-limit",
    "tcp-receive-buffer",
    "tcp-send-buffer",
    "congestion-control",
    "min-rto",
    "verdict-timeout",
    "handshake-timeout",
    "tcp-idle-timeout",
    "user-timeout",
    "fin-wait-timeout",
    "time-wait",
    "udp-idle-timeout",
    "icmp-idle-timeout",
    "icmp-echo",
    "max-stray-replies",
    "reassembly-memory",
    "reassembly-timeout",
];

fn packet(length: u32) -> Val {
    Val::Record(vec![
        ("length".into(), Val::U32(length)),
        ("segment-size".into(), Val::U16(0)),
        ("checksum".into(), Val::Enum("full".into())),
    ])
}

fn portion(length: u32) -> Val {
    Val::Record(vec![
        ("flow".into(), Val::U64(0)),
        ("length".into(), Val::U32(length)),
    ])
}

fn succeeded(result: &Val) -> bool {
    matches!(result, Val::Result(Ok(_)))
}

/// The name of the error, and what comes with it.
fn refusal(result: &Val) -> (String, Option<Val>) {
    match result {
        Val::Result(Err(Some(error))) => match &**error {
            Val::Enum(name) => (name.clone(), None),
            Val::Variant(name, value) => (name.clone(), value.as_deref().cloned()),
            other => panic!("an error, not {other:?}"),
        },
        other => panic!("a refusal, not {other:?}"),
    }
}
