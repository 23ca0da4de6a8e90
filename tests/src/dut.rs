//! The device under test: the exports of the contract, with two back ends.

use std::net::SocketAddr;

use l3l4_engine::{
    BatchError, BatchSent, Config, CounterSnapshot, Engine, FiveTuple, FlowError, FlowId,
    FlowOptions, FlowSnapshot, Instant, OpenError, OutOfBounds, Packet, Portion, Sent, Verdict,
};

use crate::host::Host;

/// When `l4_poll` is wanted.
pub type Deadline = Option<Instant>;

/// The exports, in the engine's own vocabulary.
#[expect(missing_docs, reason = "wit/engine.wit explains each")]
#[expect(clippy::missing_errors_doc, reason = "wit/engine.wit explains each")]
pub trait Dut {
    /// "native" or "component".
    fn name(&self) -> &'static str;
    /// The host that answers its callbacks.
    fn host(&mut self) -> &mut Host;
    fn l3_rx(
        &mut self,
        now: Instant,
        bytes: &[u8],
        packets: &[Packet],
    ) -> Result<Deadline, BatchError>;
    fn l4_tx(&mut self, now: Instant, flow: FlowId, data: &[u8]) -> Result<Sent, FlowError>;
    fn l4_tx_batch(
        &mut self,
        now: Instant,
        bytes: &[u8],
        portions: &[Portion],
    ) -> Result<BatchSent, BatchError>;
    fn l4_tx_from(
        &mut self,
        now: Instant,
        flow: FlowId,
        local: SocketAddr,
        data: &[u8],
    ) -> Result<Sent, FlowError>;
    fn l4_poll(&mut self, now: Instant) -> Deadline;
    fn flow_verdict(
        &mut self,
        now: Instant,
        flow: FlowId,
        verdict: Verdict,
    ) -> Result<Deadline, FlowError>;
    fn flow_resume(&mut self, now: Instant, flow: FlowId) -> Result<Deadline, FlowError>;
    fn flow_finish(&mut self, now: Instant, flow: FlowId) -> Result<Deadline, FlowError>;
    fn flow_abort(&mut self, now: Instant, flow: FlowId) -> Result<Deadline, FlowError>;
    fn flow_open(
        &mut self,
        now: Instant,
        tuple: &FiveTuple,
        options: FlowOptions,
    ) -> Result<(FlowId, Deadline), OpenError>;
    fn flow_info(&mut self, flow: FlowId) -> Result<FlowSnapshot, FlowError>;
    fn flows(&mut self) -> Vec<FlowId>;
    fn counters(&mut self) -> CounterSnapshot;
    /// What the host library does after a trap: a new instance of the same
    /// configuration but for the seed. The host stays.
    fn restart(&mut self, seed: [u8; 32]);
}

/// The engine as a crate.
#[derive(Debug)]
pub struct Native {
    config: Config,
    engine: Engine,
    host: Host,
}

impl Native {
    /// An engine with this configuration and a host that accepts all.
    pub fn new(config: Config) -> Result<Self, OutOfBounds> {
        Ok(Self {
            config,
            engine: Engine::new(config)?,
            host: Host::new(config.mtu),
        })
    }
}

impl Dut for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn host(&mut self) -> &mut Host {
        &mut self.host
    }

    fn l3_rx(
        &mut self,
        now: Instant,
        bytes: &[u8],
        packets: &[Packet],
    ) -> Result<Deadline, BatchError> {
        self.engine.l3_rx(now, bytes, packets, &mut self.host)
    }

    fn l4_tx(&mut self, now: Instant, flow: FlowId, data: &[u8]) -> Result<Sent, FlowError> {
        self.engine.l4_tx(now, flow, data, &mut self.host)
    }

    fn l4_tx_batch(
        &mut self,
        now: Instant,
        bytes: &[u8],
        portions: &[Portion],
    ) -> Result<BatchSent, BatchError> {
        self.engine
            .l4_tx_batch(now, bytes, portions, &mut self.host)
    }

    fn l4_tx_from(
        &mut self,
        now: Instant,
        flow: FlowId,
        local: SocketAddr,
        data: &[u8],
    ) -> Result<Sent, FlowError> {
        self.engine
            .l4_tx_from(now, flow, local, data, &mut self.host)
    }

    fn l4_poll(&mut self, now: Instant) -> Deadline {
        self.engine.l4_poll(now, &mut self.host)
    }

    fn flow_verdict(
        &mut self,
        now: Instant,
        flow: FlowId,
        verdict: Verdict,
    ) -> Result<Deadline, FlowError> {
        self.engine.flow_verdict(now, flow, verdict, &mut self.host)
    }

    fn flow_resume(&mut self, now: Instant, flow: FlowId) -> Result<Deadline, FlowError> {
        self.engine.flow_resume(now, flow, &mut self.host)
    }

    fn flow_finish(&mut self, now: Instant, flow: FlowId) -> Result<Deadline, FlowError> {
        self.engine.flow_finish(now, flow, &mut self.host)
    }

    fn flow_abort(&mut self, now: Instant, flow: FlowId) -> Result<Deadline, FlowError> {
        self.engine.flow_abort(now, flow, &mut self.host)
    }

    fn flow_open(
        &mut self,
        now: Instant,
        tuple: &FiveTuple,
        options: FlowOptions,
    ) -> Result<(FlowId, Deadline), OpenError> {
        self.engine.flow_open(now, tuple, options, &mut self.host)
    }

    fn flow_info(&mut self, flow: FlowId) -> Result<FlowSnapshot, FlowError> {
        self.engine.flow_info(flow)
    }

    fn flows(&mut self) -> Vec<FlowId> {
        self.engine.flows()
    }

    fn counters(&mut self) -> CounterSnapshot {
        self.engine.counters()
    }

    fn restart(&mut self, seed: [u8; 32]) {
        self.config.seed = seed;
        self.engine = Engine::new(self.config).expect("it was in bounds");
    }
}
