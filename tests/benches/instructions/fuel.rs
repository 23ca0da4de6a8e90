//! The component, in a runtime that counts fuel.

use std::sync::LazyLock;

use l3l4_host::EMBEDDED;
use wasmtime::component::types::{ComponentFunc, Type};
use wasmtime::component::{Component, Func, Instance, Linker, Val};
use wasmtime::{Config, Engine, OptLevel, Result, Store};

use super::REPETITIONS;
use super::script::{Call, Operation, SEED, data};

const CALLBACKS: &str = "l3l4:engine/callbacks@0.1.0";
const ENGINE: &str = "l3l4:engine/engine@0.1.0";

/// Fuel of one repetition.
pub(crate) fn count(operation: &Operation) -> u64 {
    let script = operation.script();
    let mut guest = Guest::new();
    for (now, call) in &script.setup {
        guest.make(*now, call);
    }
    let mut left = Vec::new();
    for repetitions in script.repetitions.chunks(REPETITIONS) {
        for (now, call) in repetitions.iter().flatten() {
            guest.make(*now, call);
        }
        left.push(guest.store.get_fuel().unwrap());
    }
    assert_eq!(
        *guest.store.data(),
        script.packets,
        "{}: the component does what the native engine does",
        operation.name
    );
    (left[0] - left[1]) / REPETITIONS as u64
}

/// An instance. Its store counts packets.
struct Guest {
    store: Store<usize>,
    instance: Instance,
    data: Vec<Val>,
}

impl Guest {
    fn new() -> Self {
        static COMPILED: LazyLock<Component> = LazyLock::new(|| {
            let mut config = Config::new();
            config.consume_fuel(true);
            // Fuel is counted before machine code is made: the quickest will do.
            config.cranelift_opt_level(OptLevel::None);
            let engine = Engine::new(&config).unwrap();
            Component::new(&engine, EMBEDDED).unwrap()
        });
        let engine = COMPILED.engine();
        let mut store = Store::new(engine, 0);
        store.set_fuel(u64::MAX).unwrap();
        let instance = linker(engine)
            .unwrap()
            .instantiate(&mut store, &COMPILED)
            .unwrap();
        let data = data().into_iter().map(Val::U8).collect();
        let mut guest = Self {
            store,
            instance,
            data,
        };
        guest.configure();
        guest
    }

    /// All defaults but the seed.
    fn configure(&mut self) {
        let function = self.function("configure");
        let types = function.ty(&self.store);
        let (_, Type::Record(configuration)) = types.params().next().unwrap() else {
            panic!("a record");
        };
        let (words, _) = SEED.as_chunks::<8>();
        let seed = words.iter().map(|word| Val::U64(u64::from_le_bytes(*word)));
        let seed = Val::Tuple(seed.collect());
        let fields = configuration.fields().map(|field| match field.name {
            "seed" => ("seed".to_owned(), seed.clone()),
            name => (name.to_owned(), nothing(&field.ty)),
        });
        self.call("configure", &[Val::Record(fields.collect())]);
    }

    fn make(&mut self, now: u64, call: &Call) {
        let now = Val::U64(now);
        match call {
            Call::L3Rx(bytes, packets) => {
                let bytes = bytes.iter().map(|byte| Val::U8(*byte));
                let bytes = Val::List(bytes.collect());
                let packets = packets.iter().map(|packet| described(packet.length));
                self.call("l3-rx", &[now, bytes, Val::List(packets.collect())])
            }
            Call::L4Tx(flow, length) => {
                let data = Val::List(self.data[..*length].to_vec());
                self.call("l4-tx", &[now, Val::U64(*flow), data])
            }
            Call::L4TxBatch(flows, length) => {
                let data = Val::List(self.data[..flows.len() * length].to_vec());
                let portion = |flow: &u64| {
                    Val::Record(vec![
                        ("flow".into(), Val::U64(*flow)),
                        ("length".into(), Val::U32(u32::try_from(*length).unwrap())),
                    ])
                };
                let portions = Val::List(flows.iter().map(portion).collect());
                self.call("l4-tx-batch", &[now, data, portions])
            }
            Call::FlowFinish(flow) => self.call("flow-finish", &[now, Val::U64(*flow)]),
            Call::L4Poll => self.call("l4-poll", &[now]),
        }
    }

    fn call(&mut self, name: &str, arguments: &[Val]) {
        let mut results = [Val::Bool(false)];
        self.function(name)
            .call(&mut self.store, arguments, &mut results)
            .unwrap();
        let [result] = results;
        assert!(!matches!(result, Val::Result(Err(_))), "{name}: {result:?}");
    }

    fn function(&mut self, name: &str) -> Func {
        let Self {
            store, instance, ..
        } = self;
        let interface = instance.get_export_index(&mut *store, None, ENGINE);
        let function = instance.get_export_index(&mut *store, interface.as_ref(), name);
        instance.get_func(store, function.unwrap()).unwrap()
    }
}

/// Callbacks that accept every flow and take all.
fn linker(engine: &Engine) -> Result<Linker<usize>> {
    let mut linker = Linker::<usize>::new(engine);
    let mut callbacks = linker.instance(CALLBACKS)?;
    callbacks.func_new("l3-tx", |mut store, _, arguments, results| {
        let count = length(&arguments[1]);
        *store.data_mut() += count;
        results[0] = Val::U32(u32::try_from(count)?);
        Ok(())
    })?;
    callbacks.func_new("l4-rx", |_, _, arguments, results| {
        results[0] = Val::U32(u32::try_from(length(&arguments[1]))?);
        Ok(())
    })?;
    callbacks.func_new("flow-new", |_, types, _, results| {
        results[0] = accept(&types);
        Ok(())
    })?;
    callbacks.func_new("flow-event", |_, _, _, _| Ok(()))?;
    Ok(linker)
}

fn length(list: &Val) -> usize {
    match list {
        Val::List(items) => items.len(),
        other => panic!("a list, not {other:?}"),
    }
}

/// The verdict that accepts, with no options.
fn accept(types: &ComponentFunc) -> Val {
    let Some(Type::Variant(verdict)) = types.results().next() else {
        panic!("a verdict");
    };
    let accept = verdict.cases().find(|case| case.name == "accept").unwrap();
    let Some(Type::Record(options)) = accept.ty else {
        panic!("options");
    };
    let fields = options.fields();
    let fields = fields.map(|field| (field.name.to_owned(), nothing(&field.ty)));
    let options = Val::Record(fields.collect());
    Val::Variant("accept".into(), Some(Box::new(options)))
}

/// What stands for a default.
fn nothing(of: &Type) -> Val {
    match of {
        Type::Option(_) => Val::Option(None),
        other => panic!("no default for {other:?}"),
    }
}

fn described(length: u32) -> Val {
    Val::Record(vec![
        ("length".into(), Val::U32(length)),
        ("segment-size".into(), Val::U16(0)),
        ("checksum".into(), Val::Enum("full".into())),
    ])
}
