//! The imports: how a callback gets from the guest to the embedder.
//!
//! Lists are lent out of the guest's memory, not copied. A slice of that memory
//! borrows the whole store, so for the time of a callback the embedder's part is
//! taken out of the store and put back when the callback returns or unwinds.

use std::collections::BTreeSet;
use std::mem;

use wasmtime::component::{Linker, WasmList};
use wasmtime::{AsContextMut, Result, StoreContextMut, StoreLimits, bail};

use crate::bindings::L3l4Pre;
use crate::bindings::l3l4::engine::types as wit;
use crate::callbacks::{Callbacks, Packets};
use crate::component::Compiled;
use crate::record::{Callback, Digest, Emitted, Frame};
use crate::types::{Event, FlowId, Packet, Verdict};
use crate::witness::Witness;

/// More flows than any configuration allows: a guest that announces so many is
/// not to fill the host's memory with their ids.
const MOST_FLOWS: usize = 1 << 20;

/// What an instance's store holds for the host.
pub(crate) struct State<C> {
    /// `None` while a callback runs.
    pub(crate) callbacks: Option<Box<C>>,
    /// Who watches the border. `None` also while a callback runs.
    pub(crate) witness: Option<Box<dyn Witness>>,
    /// The flows of which the application has heard, and not yet that they closed.
    pub(crate) live: BTreeSet<FlowId>,
    /// The records of one `l3-tx`, kept for their memory.
    packets: Vec<Packet>,
    pub(crate) limits: StoreLimits,
}

impl<C> State<C> {
    pub(crate) fn new(
        callbacks: Option<Box<C>>,
        witness: Option<Box<dyn Witness>>,
        limits: StoreLimits,
    ) -> Self {
        Self {
            callbacks,
            witness,
            live: BTreeSet::new(),
            packets: Vec::new(),
            limits,
        }
    }
}

/// Joins a component to the callbacks. Fails when it imports anything else, or
/// lacks an export.
pub(crate) fn link<C: Callbacks>(component: &Compiled) -> Result<L3l4Pre<State<C>>> {
    let mut linker = Linker::<State<C>>::new(component.engine());
    linker.instance("l3l4:engine/types@0.1.0")?;
    let mut callbacks = linker.instance("l3l4:engine/callbacks@0.1.0")?;
    callbacks.func_wrap("l3-tx", |store, (bytes, packets)| {
        l3_tx::<C>(store, &bytes, &packets)
    })?;
    callbacks.func_wrap("l4-rx", |store, (flow, data)| {
        l4_rx::<C>(store, FlowId(flow), &data)
    })?;
    callbacks.func_wrap("flow-new", |store, (flow, tuple)| {
        flow_new::<C>(store, FlowId(flow), tuple)
    })?;
    callbacks.func_wrap("flow-event", |store, (flow, event)| {
        flow_event::<C>(store, FlowId(flow), event)
    })?;
    L3l4Pre::new(linker.instantiate_pre(component)?)
}

fn l3_tx<C: Callbacks>(
    mut store: StoreContextMut<'_, State<C>>,
    bytes: &WasmList<u8>,
    packets: &WasmList<Packet>,
) -> Result<(u32,)> {
    let mut records = mem::take(&mut store.data_mut().packets);
    records.clear();
    for packet in packets.iter(&mut store)? {
        records.push(packet?);
    }
    let taken = with_callbacks(&mut store, |callbacks, witness, store| {
        let Some(packets) = Packets::new(bytes.as_le_slice(store), &records) else {
            bail!("l3-tx: the packets' lengths do not add up to the length of the bytes");
        };
        tracing::trace!(
            packets = packets.len(),
            bytes = packets.bytes().len(),
            "l3_tx"
        );
        let taken = saturated(callbacks.l3_tx(packets));
        if let Some(witness) = witness {
            let packets_sent = packets.iter().map(|(packet, bytes)| Emitted {
                packet,
                digest: Digest::of(bytes),
            });
            let made = Callback::L3Tx {
                packets: packets_sent.collect(),
                taken,
            };
            witness.crossed(&Frame::Callback(made), packets.bytes())?;
        }
        Ok(taken)
    })?;
    store.data_mut().packets = records;
    Ok((taken,))
}

fn l4_rx<C: Callbacks>(
    mut store: StoreContextMut<'_, State<C>>,
    flow: FlowId,
    data: &WasmList<u8>,
) -> Result<(u32,)> {
    let taken = with_callbacks(&mut store, |callbacks, witness, store| {
        tracing::trace!(%flow, bytes = data.len(), "l4_rx");
        let data = data.as_le_slice(store);
        let taken = saturated(callbacks.l4_rx(flow, data));
        if let Some(witness) = witness {
            let made = Callback::L4Rx {
                flow: flow.0,
                length: saturated(data.len()),
                digest: Digest::of(data),
                taken,
            };
            witness.crossed(&Frame::Callback(made), data)?;
        }
        Ok(taken)
    })?;
    Ok((taken,))
}

fn flow_new<C: Callbacks>(
    mut store: StoreContextMut<'_, State<C>>,
    flow: FlowId,
    tuple: wit::FiveTuple,
) -> Result<(wit::Verdict,)> {
    if store.data().live.len() >= MOST_FLOWS {
        bail!("flow-new: more than {MOST_FLOWS} flows");
    }
    let announced = tuple;
    let tuple = tuple.into();
    let verdict = with_callbacks(&mut store, |callbacks, witness, _| {
        let verdict = callbacks.flow_new(flow, &tuple);
        if let Some(witness) = witness {
            let made = Callback::FlowNew {
                flow: flow.0,
                tuple: announced,
                verdict: verdict.into(),
            };
            witness.crossed(&Frame::Callback(made), &[])?;
        }
        Ok(verdict)
    })?;
    tracing::debug!(%flow, ?tuple, ?verdict, "flow_new");
    match verdict {
        Verdict::Accept(_) | Verdict::Wait => store.data_mut().live.insert(flow),
        Verdict::Refuse(_) | Verdict::Drop => false,
    };
    Ok((verdict.into(),))
}

fn flow_event<C: Callbacks>(
    mut store: StoreContextMut<'_, State<C>>,
    flow: FlowId,
    event: Event,
) -> Result<()> {
    match event {
        Event::Closed(_) => {
            tracing::debug!(%flow, ?event, "flow_event");
            store.data_mut().live.remove(&flow);
        }
        Event::PeerReset => {
            tracing::debug!(%flow, ?event, "flow_event");
        }
        Event::Established | Event::Writable | Event::PeerFinished => {
            tracing::trace!(%flow, ?event, "flow_event");
        }
    }
    with_callbacks(&mut store, |callbacks, witness, _| {
        callbacks.flow_event(flow, event);
        if let Some(witness) = witness {
            let flow = flow.0;
            let made = Callback::FlowEvent { flow, event };
            witness.crossed(&Frame::Callback(made), &[])?;
        }
        Ok(())
    })
}

/// Runs one callback beside the store that it was taken out of.
fn with_callbacks<C: 'static, R>(
    store: &mut StoreContextMut<'_, State<C>>,
    call: impl FnOnce(
        &mut C,
        &mut Option<Box<dyn Witness>>,
        &StoreContextMut<'_, State<C>>,
    ) -> Result<R>,
) -> Result<R> {
    let state = store.data_mut();
    let (callbacks, witness) = (state.callbacks.take(), state.witness.take());
    let mut lent = Lent {
        callbacks,
        witness,
        store: store.as_context_mut(),
    };
    match &mut lent.callbacks {
        Some(callbacks) => call(callbacks, &mut lent.witness, &lent.store),
        None => bail!("a callback within a callback"),
    }
}

/// Puts callbacks and witness back, also when a callback panics.
struct Lent<'a, C: 'static> {
    callbacks: Option<Box<C>>,
    witness: Option<Box<dyn Witness>>,
    store: StoreContextMut<'a, State<C>>,
}

impl<C: 'static> Drop for Lent<'_, C> {
    fn drop(&mut self) {
        let state = self.store.data_mut();
        state.callbacks = self.callbacks.take();
        state.witness = self.witness.take();
    }
}

/// The engine takes a count above what it offered as all of it.
fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
