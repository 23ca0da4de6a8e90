//! Repeats the calls of a record.

use std::io::Read;
use std::time::Duration;

use super::format::{self, Call, Frame, Header, wit};
use super::reader::{ReadError, Reader};
use super::report::Report;
use super::script::Shared;
use crate::builder::Builder;
use crate::component::Component;
use crate::engine::Engine;
use crate::error::Error;
use crate::types::FlowId;

/// The time that a call has in a replay, so that a guest that did not return when
/// it was recorded does not stop the replay either. The longest batch takes some
/// tens of milliseconds.
const LONGEST_CALL: Duration = Duration::from_secs(10);
/// Where the record has a limit, a call has this many times as long: what returned
/// in time on the other machine is to return here too.
const PATIENCE: u32 = 20;
/// And never less than this.
const SHORTEST_LIMIT: Duration = Duration::from_secs(1);

/// Why there is no replay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The record cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The record is of another component.
    #[error(
        "the record is of the component with SHA-256 {}, and this one has {}: give the other",
        hex(recorded),
        hex(given)
    )]
    OtherComponent {
        /// The SHA-256 that the record names.
        recorded: [u8; 32],
        /// The SHA-256 of the component to replay on.
        given: [u8; 32],
    },
    /// The component cannot be used at all.
    #[error(transparent)]
    Component(Error),
}

/// Repeats a record on the component that it was made with, up to the first
/// difference.
///
/// # Errors
///
/// When there is nothing to compare. Damage further on stands in the report.
pub fn replay<R: Read + Send + 'static>(
    read: R,
    component: &Component,
) -> Result<Report, ReplayError> {
    let reader = Reader::new(read)?;
    reader.header().check(component)?;
    let mut replay = Replay::new(reader, component);
    while replay.step()? {}
    Ok(replay.into_report())
}

impl Header {
    /// Whether the record is of this component.
    ///
    /// # Errors
    ///
    /// [`ReplayError::OtherComponent`] when it is not.
    pub fn check(&self, component: &Component) -> Result<(), ReplayError> {
        let (recorded, given) = (self.component, component.sha256());
        match recorded == given {
            true => Ok(()),
            false => Err(ReplayError::OtherComponent { recorded, given }),
        }
    }
}

/// A replay, call by call.
#[expect(
    missing_debug_implementations,
    reason = "it holds an engine and a record"
)]
pub struct Replay<R: Read + Send + 'static> {
    script: Shared<R>,
    component: Component,
    engine: Option<Engine<Shared<R>>>,
    /// Of the call that is repeated.
    payload: Vec<u8>,
}

impl<R: Read + Send + 'static> Replay<R> {
    /// A replay on any component, the one that the record was made with or, to
    /// compare the two, another.
    pub fn new(reader: Reader<R>, component: &Component) -> Self {
        Self {
            script: Shared::new(reader),
            component: component.clone(),
            engine: None,
            payload: Vec::new(),
        }
    }

    /// Shows `observer` each call before it is made, and each callback and
    /// outcome that was found equal, with the bytes that stand as digests in it.
    #[must_use]
    pub fn observe(self, observer: impl FnMut(&Frame<'_>, &[u8]) + Send + 'static) -> Self {
        self.script.lock().observer = Some(Box::new(observer));
        self
    }

    /// Bytes of the record that have been read.
    pub fn offset(&self) -> u64 {
        self.script.lock().offset()
    }

    /// Repeats one call, or makes one instance. `false`: there is no more to do.
    ///
    /// # Errors
    ///
    /// [`ReplayError::Component`] when the component is of another world.
    pub fn step(&mut self) -> Result<bool, ReplayError> {
        let mut script = self.script.lock();
        let instance = match script.peek() {
            None => return Ok(false),
            Some(Frame::Instance(configuration)) => Some(configuration),
            Some(Frame::Call(_)) if self.engine.is_some() => None,
            Some(_) => {
                script.out_of_order();
                return Ok(false);
            }
        };
        match (instance, &mut self.engine) {
            (Some(_), Some(engine)) => {
                drop(script);
                // Whether it starts is in the record, and was compared.
                let _ = engine.renew();
            }
            (Some(configuration), None) => {
                let header = script.report.header.clone();
                drop(script);
                self.start(&header, *configuration)?;
            }
            (None, Some(engine)) => {
                script.take_call(&mut self.payload);
                drop(script);
                if let Ok(Frame::Call(call)) = format::decode(&self.payload) {
                    // Refusals and traps are in the record too.
                    let _ = engine.repeat(&call);
                }
            }
            (None, None) => {}
        }
        Ok(true)
    }

    /// What came of it so far.
    pub fn into_report(self) -> Report {
        drop(self.engine);
        let mut script = self.script.lock();
        let header = script.report.header.clone();
        std::mem::replace(&mut script.report, Report::new(header))
    }

    fn start(
        &mut self,
        header: &Header,
        configuration: wit::Configuration,
    ) -> Result<(), ReplayError> {
        let memory = usize::try_from(header.guest_memory_limit).unwrap_or(usize::MAX);
        let limit = header.call_time_limit.map_or(LONGEST_CALL, |limit| {
            let limit = Duration::from_nanos(limit).saturating_mul(PATIENCE);
            limit.max(SHORTEST_LIMIT)
        });
        let built = Builder::recorded(&self.component, configuration, memory, limit)
            .build_witnessed(
                self.script.clone(),
                self.script.seeds(),
                Some(Box::new(self.script.clone())),
            );
        match built {
            Ok(engine) => self.engine = Some(engine),
            Err(error @ (Error::Component(_) | Error::System(_))) => {
                return Err(ReplayError::Component(error));
            }
            // It did not start when it was recorded either, or that differs.
            Err(_) => {}
        }
        Ok(())
    }
}

impl<R: Read + Send + 'static> Engine<Shared<R>> {
    /// Makes a call as it is in a record.
    fn repeat(&mut self, call: &Call<'_>) -> Result<(), Error> {
        match *call {
            Call::L3Rx {
                now,
                ref packets,
                bytes,
            } => self
                .call(call, |guest, store| {
                    guest.call_l3_rx(store, now, bytes.0, packets)
                })
                .map(drop),
            Call::L4Tx { now, flow, data } => self
                .call(call, |guest, store| {
                    guest.call_l4_tx(store, now, flow, data.0)
                })
                .map(drop),
            Call::L4TxBatch {
                now,
                ref portions,
                bytes,
            } => self
                .call(call, |guest, store| {
                    guest.call_l4_tx_batch(store, now, bytes.0, portions)
                })
                .map(drop),
            Call::L4TxFrom {
                now,
                flow,
                local,
                data,
            } => self
                .call(call, |guest, store| {
                    guest.call_l4_tx_from(store, now, flow, local, data.0)
                })
                .map(drop),
            Call::L4Poll { now } => self
                .call(call, |guest, store| guest.call_l4_poll(store, now))
                .map(drop),
            Call::FlowVerdict { now, flow, verdict } => self
                .call(call, |guest, store| {
                    guest.call_flow_verdict(store, now, flow, verdict)
                })
                .map(drop),
            Call::FlowResume { now, flow } => self
                .call(call, |guest, store| {
                    guest.call_flow_resume(store, now, flow)
                })
                .map(drop),
            Call::FlowFinish { now, flow } => self
                .call(call, |guest, store| {
                    guest.call_flow_finish(store, now, flow)
                })
                .map(drop),
            Call::FlowAbort { now, flow } => self
                .call(call, |guest, store| guest.call_flow_abort(store, now, flow))
                .map(drop),
            Call::FlowOpen {
                now,
                tuple,
                options,
            } => {
                let opened = self.call(call, |guest, store| {
                    guest.call_flow_open(store, now, tuple, options)
                })?;
                if let Ok((flow, _)) = opened {
                    self.opened(FlowId(flow));
                }
                Ok(())
            }
            Call::FlowInfo { flow } => self
                .call(call, |guest, store| guest.call_flow_info(store, flow))
                .map(drop),
            Call::Flows => self
                .call(call, |guest, store| guest.call_flows(store))
                .map(drop),
            Call::Counters => self
                .call(call, |guest, store| guest.call_counters(store))
                .map(drop),
        }
    }
}

/// A hash as `sha256sum` prints it.
fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
