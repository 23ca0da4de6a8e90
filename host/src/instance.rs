//! How an instance of the component is made, the first time and after a trap.

use std::error::Error as _;
use std::sync::Arc;

use wasmtime::{Store, StoreLimits};

use crate::bindings::l3l4::engine::types::Configuration;
use crate::bindings::{L3l4, L3l4Pre};
use crate::error::Error;
use crate::link::State;
use crate::record::Frame;
use crate::seed::Seeds;
use crate::ticker::Ticker;
use crate::witness::Witness;

/// All it takes to make one more instance of the same kind.
pub(crate) struct Recipe<C: 'static> {
    pub(crate) linked: L3l4Pre<State<C>>,
    /// Its seed is set anew for each instance.
    pub(crate) configuration: Configuration,
    pub(crate) seeds: Seeds,
    pub(crate) limits: StoreLimits,
    pub(crate) call_time: Option<CallTime>,
}

/// The time that one call may take.
pub(crate) struct CallTime {
    pub(crate) ticks: u64,
    /// Held so that it ticks.
    pub(crate) _ticker: Arc<Ticker>,
}

impl<C: 'static> Recipe<C> {
    /// A store for one instance.
    pub(crate) fn store(
        &self,
        callbacks: Option<Box<C>>,
        witness: Option<Box<dyn Witness>>,
    ) -> Store<State<C>> {
        let state = State::new(callbacks, witness, self.limits.clone());
        let mut store = Store::new(self.linked.engine(), state);
        store.limiter(|state| &mut state.limits);
        store
    }

    /// Gives the next call its time. Without an epoch in the code it is not read.
    pub(crate) fn allow_time(&self, store: &mut Store<State<C>>) {
        if let Some(CallTime { ticks, .. }) = &self.call_time {
            store.set_epoch_deadline(*ticks);
        }
    }

    /// Makes an instance and configures it.
    pub(crate) fn start(&mut self, store: &mut Store<State<C>>) -> Result<L3l4, Error> {
        self.configuration.seed = self.seeds.next().map_err(Error::System)?;
        if let Some(witness) = &mut store.data_mut().witness {
            let instance = Frame::Instance(Box::new(self.configuration));
            witness.crossed(&instance, &[]).map_err(stopped)?;
        }
        let started = self.configured(store);
        if let Some(witness) = &mut store.data_mut().witness {
            let outcome = started.as_ref().map(drop).map_err(whole_text);
            witness
                .crossed(&Frame::Started(outcome), &[])
                .map_err(stopped)?;
        }
        started
    }

    fn configured(&self, store: &mut Store<State<C>>) -> Result<L3l4, Error> {
        self.allow_time(store);
        let instance = self
            .linked
            .instantiate(&mut *store)
            .map_err(|error| Error::Start(error.into()))?;
        instance
            .l3l4_engine_engine()
            .call_configure(&mut *store, self.configuration)
            .map_err(|error| Error::Start(error.into()))?
            .map_err(Error::Configure)?;
        tracing::debug!("engine instance started");
        Ok(instance)
    }
}

fn stopped(stop: wasmtime::Error) -> Error {
    Error::Start(stop.into())
}

/// An error with its causes, in a line.
fn whole_text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
