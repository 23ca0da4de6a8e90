//! The component: a thin shim from the contract (`wit/`) to the engine.
//!
//! One instance holds one engine. The component model forbids calling an export
//! from within an import, so the engine is never borrowed twice.

use std::cell::RefCell;

use l3l4_engine::{Engine, FlowId, Instant};

mod bindings;
mod convert;
mod imports;

use bindings::exports::l3l4::engine::engine::Guest;
use bindings::l3l4::engine::types as wit;
use convert::{from_deadline, from_flow_ids, to_config, to_five_tuple, to_packets, to_portions};
use imports::Imports;

thread_local! {
    static CONFIGURED: RefCell<Option<Configured>> = const { RefCell::new(None) };
}

struct Configured {
    engine: Engine,
    imports: Imports,
}

/// Calls into the engine, or answers with what the contract says of a call before
/// `configure`.
fn with_engine<R>(unconfigured: R, call: impl FnOnce(&mut Engine, &mut Imports) -> R) -> R {
    CONFIGURED.with_borrow_mut(|configured| match configured {
        Some(Configured { engine, imports }) => call(engine, imports),
        None => unconfigured,
    })
}

struct Component;

impl Guest for Component {
    fn configure(configuration: wit::Configuration) -> Result<(), wit::ConfigureError> {
        CONFIGURED.with_borrow_mut(|configured| {
            if configured.is_some() {
                return Err(wit::ConfigureError::AlreadyConfigured);
            }
            let engine = Engine::new(to_config(&configuration))
                .map_err(|error| wit::ConfigureError::OutOfBounds(error.into()))?;
            *configured = Some(Configured {
                engine,
                imports: Imports::default(),
            });
            Ok(())
        })
    }

    fn l3_rx(
        now: wit::Instant,
        bytes: Vec<u8>,
        packets: Vec<wit::Packet>,
    ) -> Result<wit::Deadline, wit::BatchError> {
        with_engine(Err(wit::BatchError::NotConfigured), |engine, imports| {
            let deadline = engine.l3_rx(Instant(now), &bytes, &to_packets(packets), imports)?;
            Ok(from_deadline(deadline))
        })
    }

    fn l4_tx(
        now: wit::Instant,
        flow: wit::FlowId,
        data: Vec<u8>,
    ) -> Result<wit::Sent, wit::FlowError> {
        with_engine(Err(wit::FlowError::NotConfigured), |engine, imports| {
            Ok(engine
                .l4_tx(Instant(now), FlowId(flow), &data, imports)?
                .into())
        })
    }

    fn l4_tx_batch(
        now: wit::Instant,
        bytes: Vec<u8>,
        portions: Vec<wit::Portion>,
    ) -> Result<wit::BatchSent, wit::BatchError> {
        with_engine(Err(wit::BatchError::NotConfigured), |engine, imports| {
            let portions = to_portions(portions);
            Ok(engine
                .l4_tx_batch(Instant(now), &bytes, &portions, imports)?
                .into())
        })
    }

    fn l4_tx_from(
        now: wit::Instant,
        flow: wit::FlowId,
        local: wit::IpSocketAddress,
        data: Vec<u8>,
    ) -> Result<wit::Sent, wit::FlowError> {
        with_engine(Err(wit::FlowError::NotConfigured), |engine, imports| {
            let local = convert::to_socket_addr(local);
            Ok(engine
                .l4_tx_from(Instant(now), FlowId(flow), local, &data, imports)?
                .into())
        })
    }

    fn l4_poll(now: wit::Instant) -> wit::Deadline {
        with_engine(None, |engine, imports| {
            from_deadline(engine.l4_poll(Instant(now), imports))
        })
    }

    fn flow_verdict(
        now: wit::Instant,
        flow: wit::FlowId,
        verdict: wit::Verdict,
    ) -> Result<wit::Deadline, wit::FlowError> {
        with_engine(Err(wit::FlowError::NotConfigured), |engine, imports| {
            let verdict = verdict.into();
            let deadline = engine.flow_verdict(Instant(now), FlowId(flow), verdict, imports)?;
            Ok(from_deadline(deadline))
        })
    }

    fn flow_resume(now: wit::Instant, flow: wit::FlowId) -> Result<wit::Deadline, wit::FlowError> {
        with_engine(Err(wit::FlowError::NotConfigured), |engine, imports| {
            Ok(from_deadline(engine.flow_resume(
                Instant(now),
                FlowId(flow),
                imports,
            )?))
        })
    }

    fn flow_finish(now: wit::Instant, flow: wit::FlowId) -> Result<wit::Deadline, wit::FlowError> {
        with_engine(Err(wit::FlowError::NotConfigured), |engine, imports| {
            Ok(from_deadline(engine.flow_finish(
                Instant(now),
                FlowId(flow),
                imports,
            )?))
        })
    }

    fn flow_abort(now: wit::Instant, flow: wit::FlowId) -> Result<wit::Deadline, wit::FlowError> {
        with_engine(Err(wit::FlowError::NotConfigured), |engine, imports| {
            Ok(from_deadline(engine.flow_abort(
                Instant(now),
                FlowId(flow),
                imports,
            )?))
        })
    }

    fn flow_open(
        now: wit::Instant,
        tuple: wit::FiveTuple,
        options: wit::FlowOptions,
    ) -> Result<(wit::FlowId, wit::Deadline), wit::OpenError> {
        with_engine(Err(wit::OpenError::NotConfigured), |engine, imports| {
            let (tuple, options) = (to_five_tuple(tuple), options.into());
            let (flow, deadline) = engine.flow_open(Instant(now), &tuple, options, imports)?;
            Ok((flow.0, from_deadline(deadline)))
        })
    }

    fn flow_info(flow: wit::FlowId) -> Result<wit::FlowSnapshot, wit::FlowError> {
        with_engine(Err(wit::FlowError::NotConfigured), |engine, _| {
            Ok(engine.flow_info(FlowId(flow))?.into())
        })
    }

    fn flows() -> Vec<wit::FlowId> {
        with_engine(Vec::new(), |engine, _| from_flow_ids(engine.flows()))
    }

    fn counters() -> wit::CounterSnapshot {
        with_engine(Default::default(), |engine, _| engine.counters()).into()
    }
}
