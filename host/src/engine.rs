//! The engine: the calls of the contract, on one instance of the component.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::{fmt, io, mem};

use wasmtime::Store;

use crate::batch::Batch;
use crate::bindings::L3l4;
use crate::bindings::exports::l3l4::engine::engine::Guest;
use crate::builder::Builder;
use crate::callbacks::Callbacks;
use crate::convert::deadline;
use crate::data_batch::DataBatch;
use crate::error::Error;
use crate::instance::Recipe;
use crate::link::State;
use crate::record::{Bytes, Call, Frame, Outcome, Output};
use crate::types::{
    BatchSent, CloseReason, CounterSnapshot, Event, FiveTuple, FlowId, FlowOptions, FlowSnapshot,
    Instant, Packet, Sent, Verdict,
};
use crate::witness::Witness;

/// One engine: one instance of the component, one device, one thread at a time.
///
/// Every call that does work is given the instant, may call the callbacks, and
/// leaves nothing to fetch but the deadline that it returns: call
/// [`l4_poll`](Self::l4_poll) when the last one returned has come (none: nothing
/// is pending).
///
/// # Errors
///
/// Beside the refusals that stand at each call, every call can end with
/// [`Error::Trap`], and with [`Error::Start`] when no new instance could be made
/// after a trap; the call after tries again.
pub struct Engine<C: 'static> {
    recipe: Recipe<C>,
    store: Store<State<C>>,
    /// `None` when no new instance could be made after a trap.
    instance: Option<L3l4>,
    /// Whether a call is under way: when one starts, a callback of the one before
    /// has panicked.
    inside: bool,
    /// Whether the guest has been entered and did not return.
    entered: bool,
    /// More than any `l4_tx` takes: a longer slice is not copied whole.
    most_sent: usize,
}

impl Engine<()> {
    /// Starts to build an engine.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl<C: Callbacks> Engine<C> {
    pub(crate) fn start(
        mut recipe: Recipe<C>,
        callbacks: C,
        witness: Option<Box<dyn Witness>>,
        send_buffer: u32,
    ) -> Result<Self, Error> {
        let mut store = recipe.store(Some(Box::new(callbacks)), witness);
        let instance = Some(recipe.start(&mut store)?);
        // A longest datagram has to arrive whole, and a longer one to be refused.
        let most_sent = (send_buffer as usize).max(1 << 16);
        Ok(Self {
            recipe,
            store,
            instance,
            inside: false,
            entered: false,
            most_sent,
        })
    }

    /// The callbacks given to [`Builder::build`].
    pub fn callbacks(&self) -> &C {
        match &self.store.data().callbacks {
            Some(callbacks) => callbacks,
            None => unreachable!("taken out during a callback only"),
        }
    }

    /// The callbacks given to [`Builder::build`].
    pub fn callbacks_mut(&mut self) -> &mut C {
        match &mut self.store.data_mut().callbacks {
            Some(callbacks) => callbacks,
            None => unreachable!("taken out during a callback only"),
        }
    }

    /// Ends the engine and every flow with it, silently, and gives the callbacks
    /// back.
    pub fn into_callbacks(self) -> C {
        match self.store.into_data().callbacks {
            Some(callbacks) => *callbacks,
            None => unreachable!("taken out during a callback only"),
        }
    }

    /// What ended the record ([`Builder::build_recorded`]) before the engine: the
    /// engine goes on without. None while all is written, and when nothing is
    /// recorded.
    pub fn record_failure(&self) -> Option<&io::Error> {
        self.store.data().witness.as_ref()?.failure()
    }

    /// Received IP packets, in order. A packet that cannot be used is counted
    /// ([`CounterSnapshot::drops`]), never an error. A batch above
    /// [`Batch::PART_BYTES`] is given to the guest in parts, a call each.
    ///
    /// Calls back: `flow_new`, `l4_rx`, `flow_event`, `l3_tx`.
    ///
    /// # Errors
    ///
    /// [`Error::BatchTooLong`] above [`Batch::MAX_BYTES`]. After any other the parts
    /// that follow are lost, as packets are on a network.
    pub fn l3_rx(&mut self, now: Instant, batch: &Batch) -> Result<Option<Instant>, Error> {
        if batch.footprint() > Batch::MAX_BYTES {
            return Err(Error::BatchTooLong(batch.footprint()));
        }
        let mut next = None;
        for (bytes, packets) in batch.parts() {
            next = self.l3_rx_part(now, bytes, packets)?;
        }
        Ok(next)
    }

    fn l3_rx_part(
        &mut self,
        now: Instant,
        bytes: &[u8],
        packets: &[Packet],
    ) -> Result<Option<Instant>, Error> {
        let call = Call::L3Rx {
            now: now.0,
            packets: Cow::Borrowed(packets),
            bytes: Bytes(bytes),
        };
        self.call(&call, |guest, store| {
            guest.call_l3_rx(store, now.0, bytes, packets)
        })?
        .map(deadline)
        .map_err(Error::Batch)
    }

    /// Data to send on a flow.
    ///
    /// TCP: takes as many bytes from the front as the send buffer has room for.
    /// When it takes fewer, [`Event::Writable`] follows when there is room. Up to
    /// `tcp_send_buffer` bytes of the data are copied to see how many that is, so
    /// that slices of some 64 KiB cost least.
    ///
    /// UDP and ICMP echo: one datagram, from the flow's local address, taken whole
    /// or, while the device takes no packets, not at all.
    ///
    /// Calls back: `l3_tx`, `flow_event`.
    ///
    /// # Errors
    ///
    /// [`Error::Flow`] when the flow cannot send.
    pub fn l4_tx(&mut self, now: Instant, flow: FlowId, data: &[u8]) -> Result<Sent, Error> {
        let data = &data[..data.len().min(self.most_sent)];
        let (now, flow) = (now.0, flow.0);
        let call = Call::L4Tx {
            now,
            flow,
            data: Bytes(data),
        };
        self.call(&call, |guest, store| {
            guest.call_l4_tx(store, now, flow, data)
        })?
        .map(Sent::from)
        .map_err(Error::Flow)
    }

    /// As [`l4_tx`](Self::l4_tx) for each portion of a batch in order, but in one call,
    /// so that what calls and callbacks cost is shared.
    ///
    /// After a portion that was taken in part or not at all, though not refused, none
    /// of the flow's later ones is taken, so that the rest can be given again in order.
    /// [`Event::Writable`] says when; it may come before this call returns.
    ///
    /// Calls back: `l3_tx`, `flow_event`.
    ///
    /// # Errors
    ///
    /// [`Error::BatchTooLong`] above [`DataBatch::MAX_BYTES`]. A portion that is refused
    /// is no error of the call: the others go on.
    pub fn l4_tx_batch(&mut self, now: Instant, batch: &DataBatch) -> Result<BatchSent, Error> {
        if batch.footprint() > DataBatch::MAX_BYTES {
            return Err(Error::BatchTooLong(batch.footprint()));
        }
        let (now, bytes, portions) = (now.0, batch.bytes(), batch.portions());
        let call = Call::L4TxBatch {
            now,
            portions: Cow::Borrowed(portions),
            bytes: Bytes(bytes),
        };
        let sent = self.call(&call, |guest, store| {
            guest.call_l4_tx_batch(store, now, bytes, portions)
        })?;
        let mut sent = sent.map(BatchSent::from).map_err(Error::Batch)?;
        // Of what a component says nothing it took nothing.
        sent.taken.resize(batch.len(), Ok(0));
        Ok(sent)
    }

    /// As [`l4_tx`](Self::l4_tx) for one UDP datagram, but from the source address
    /// `local`: the peer hears from whoever answered (full cone, RFC 4787 4.1).
    ///
    /// Calls back: `l3_tx`, `flow_event`.
    ///
    /// # Errors
    ///
    /// [`Error::Flow`] when the flow cannot send, or not from there.
    pub fn l4_tx_from(
        &mut self,
        now: Instant,
        flow: FlowId,
        local: SocketAddr,
        data: &[u8],
    ) -> Result<Sent, Error> {
        let data = &data[..data.len().min(self.most_sent)];
        let (now, flow, local) = (now.0, flow.0, local.into());
        let call = Call::L4TxFrom {
            now,
            flow,
            local,
            data: Bytes(data),
        };
        self.call(&call, |guest, store| {
            guest.call_l4_tx_from(store, now, flow, local, data)
        })?
        .map(Sent::from)
        .map_err(Error::Flow)
    }

    /// Housekeeping, when the last deadline returned has come, or when a device
    /// that had refused packets has room. Calling it early is harmless.
    ///
    /// Calls back: `l3_tx`, `l4_rx`, `flow_event`.
    ///
    /// # Errors
    ///
    /// None of its own.
    pub fn l4_poll(&mut self, now: Instant) -> Result<Option<Instant>, Error> {
        let now = now.0;
        self.call(&Call::L4Poll { now }, |guest, store| {
            guest.call_l4_poll(store, now)
        })
        .map(deadline)
    }

    /// The verdict on a flow for which `flow_new` said [`Verdict::Wait`].
    ///
    /// On a flow of datagrams (UDP, ICMP echo) the application may change its mind:
    /// accept once more gives it other options, and refuse tells the peer that what
    /// it sends reaches nobody.
    ///
    /// Calls back: `l3_tx`, `flow_event`.
    ///
    /// # Errors
    ///
    /// [`Error::Flow`] when the flow has ended, or is a TCP flow that has its verdict,
    /// or an option is outside of its bounds.
    pub fn flow_verdict(
        &mut self,
        now: Instant,
        flow: FlowId,
        verdict: Verdict,
    ) -> Result<Option<Instant>, Error> {
        let (now, flow, verdict) = (now.0, flow.0, verdict.into());
        let call = Call::FlowVerdict { now, flow, verdict };
        self.call(&call, |guest, store| {
            guest.call_flow_verdict(store, now, flow, verdict)
        })?
        .map(deadline)
        .map_err(Error::Flow)
    }

    /// The application can take data of this flow again: what stayed is offered
    /// through `l4_rx` at once. Harmless when nothing was held back.
    ///
    /// Calls back: `l4_rx`, `l3_tx`, `flow_event`.
    ///
    /// # Errors
    ///
    /// [`Error::Flow`] when the flow has ended.
    pub fn flow_resume(&mut self, now: Instant, flow: FlowId) -> Result<Option<Instant>, Error> {
        let (now, flow) = (now.0, flow.0);
        self.call(&Call::FlowResume { now, flow }, |guest, store| {
            guest.call_flow_resume(store, now, flow)
        })?
        .map(deadline)
        .map_err(Error::Flow)
    }

    /// The local side has sent all. TCP: FIN follows the data taken so far;
    /// receiving goes on. UDP and ICMP echo: the flow ends.
    ///
    /// Calls back: `l3_tx`, `flow_event`.
    ///
    /// # Errors
    ///
    /// [`Error::Flow`] when the flow has ended. To finish again is harmless.
    pub fn flow_finish(&mut self, now: Instant, flow: FlowId) -> Result<Option<Instant>, Error> {
        let (now, flow) = (now.0, flow.0);
        self.call(&Call::FlowFinish { now, flow }, |guest, store| {
            guest.call_flow_finish(store, now, flow)
        })?
        .map(deadline)
        .map_err(Error::Flow)
    }

    /// Ends the flow at once. TCP: RST; data not yet sent or not yet taken is gone. After
    /// [`Event::PeerReset`] it ends as [`CloseReason::ResetByPeer`].
    ///
    /// Calls back: `l3_tx`, `flow_event`.
    ///
    /// # Errors
    ///
    /// [`Error::Flow`] when the flow has ended.
    pub fn flow_abort(&mut self, now: Instant, flow: FlowId) -> Result<Option<Instant>, Error> {
        let (now, flow) = (now.0, flow.0);
        self.call(&Call::FlowAbort { now, flow }, |guest, store| {
            guest.call_flow_abort(store, now, flow)
        })?
        .map(deadline)
        .map_err(Error::Flow)
    }

    /// Opens a flow from any local to any peer address. TCP: SYN is sent, and
    /// [`Event::Established`] or [`Event::Closed`] follows. UDP: it is ready.
    ///
    /// Calls back: `l3_tx`, `flow_event`.
    ///
    /// # Errors
    ///
    /// [`Error::Open`].
    pub fn flow_open(
        &mut self,
        now: Instant,
        tuple: &FiveTuple,
        options: FlowOptions,
    ) -> Result<(FlowId, Option<Instant>), Error> {
        let call = Call::FlowOpen {
            now: now.0,
            tuple: tuple.into(),
            options: options.into(),
        };
        let (flow, next) = self
            .call(&call, |guest, store| {
                guest.call_flow_open(store, now.0, tuple.into(), options.into())
            })?
            .map_err(Error::Open)?;
        let flow = FlowId(flow);
        tracing::debug!(%flow, ?tuple, "flow_open");
        self.opened(flow);
        Ok((flow, deadline(next)))
    }

    /// A snapshot of one flow.
    ///
    /// # Errors
    ///
    /// [`Error::Flow`] when the flow has ended.
    pub fn flow_info(&mut self, flow: FlowId) -> Result<FlowSnapshot, Error> {
        let flow = flow.0;
        self.call(&Call::FlowInfo { flow }, |guest, store| {
            guest.call_flow_info(store, flow)
        })?
        .map(FlowSnapshot::from)
        .map_err(Error::Flow)
    }

    /// The flows that live, in the order of their slots.
    ///
    /// # Errors
    ///
    /// None of its own.
    pub fn flows(&mut self) -> Result<Vec<FlowId>, Error> {
        let flows = self.call(&Call::Flows, |guest, store| guest.call_flows(store))?;
        Ok(flows.into_iter().map(FlowId).collect())
    }

    /// The totals of the current instance.
    ///
    /// # Errors
    ///
    /// None of its own.
    pub fn counters(&mut self) -> Result<CounterSnapshot, Error> {
        self.call(&Call::Counters, |guest, store| guest.call_counters(store))
            .map(CounterSnapshot::from)
    }

    /// The application hears of this flow from here.
    pub(crate) fn opened(&mut self, flow: FlowId) {
        self.store.data_mut().live.insert(flow);
    }

    /// One call of an export. The only errors that wasmtime reports here are
    /// traps, and an instance that trapped cannot be entered again.
    pub(crate) fn call<R: Output>(
        &mut self,
        call: &Call<'_>,
        enter: impl FnOnce(&Guest, &mut Store<State<C>>) -> wasmtime::Result<R>,
    ) -> Result<R, Error> {
        if mem::replace(&mut self.inside, true) {
            tracing::error!("a callback panicked and left the guest in the middle of a call");
            if mem::take(&mut self.entered) {
                self.tell(|| Frame::Outcome(Outcome::Panicked))
                    .map_err(trapped)?;
            }
            self.replace_instance();
        }
        let outcome = self.enter(call, enter);
        self.inside = false;
        outcome
    }

    fn enter<R: Output>(
        &mut self,
        call: &Call<'_>,
        enter: impl FnOnce(&Guest, &mut Store<State<C>>) -> wasmtime::Result<R>,
    ) -> Result<R, Error> {
        if self.instance.is_none() {
            self.renew()?;
        }
        self.tell(|| Frame::Call(call.clone())).map_err(trapped)?;
        self.recipe.allow_time(&mut self.store);
        let Some(instance) = &self.instance else {
            unreachable!("it was made above")
        };
        self.entered = true;
        let outcome = enter(instance.l3l4_engine_engine(), &mut self.store);
        self.entered = false;
        self.tell(|| Frame::Outcome(Outcome::of(&outcome)))
            .map_err(trapped)?;
        outcome.map_err(|trap| {
            tracing::error!(error = format!("{trap:#}"), "the guest trapped");
            let flows_lost = self.replace_instance();
            let source = trap.into();
            Error::Trap { flows_lost, source }
        })
    }

    /// Puts a new instance in the place of one that cannot go on, and tells the
    /// application that the flows are gone. Returns how many.
    fn replace_instance(&mut self) -> usize {
        let lost = mem::take(&mut self.store.data_mut().live);
        if let Err(error) = self.renew() {
            tracing::error!(%error, "no new instance");
        }
        for &flow in &lost {
            let closed = Event::Closed(CloseReason::EngineLost);
            self.callbacks_mut().flow_event(flow, closed);
        }
        lost.len()
    }

    /// Makes a new instance, in a store of its own: one that did not start leaves
    /// what it took in its store.
    pub(crate) fn renew(&mut self) -> Result<(), Error> {
        self.instance = None;
        let state = self.store.data_mut();
        let (callbacks, witness) = (state.callbacks.take(), state.witness.take());
        self.store = self.recipe.store(callbacks, witness);
        self.instance = Some(self.recipe.start(&mut self.store)?);
        Ok(())
    }

    /// Tells who watches the border, if anyone does.
    fn tell<'a>(&mut self, frame: impl FnOnce() -> Frame<'a>) -> wasmtime::Result<()> {
        match &mut self.store.data_mut().witness {
            Some(witness) => witness.crossed(&frame(), &[]),
            None => Ok(()),
        }
    }
}

/// The end of a replay, as its driver hears of it.
fn trapped(stop: wasmtime::Error) -> Error {
    Error::Trap {
        flows_lost: 0,
        source: stop.into(),
    }
}

impl<C: 'static> fmt::Debug for Engine<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("live_flows", &self.store.data().live.len())
            .finish_non_exhaustive()
    }
}
