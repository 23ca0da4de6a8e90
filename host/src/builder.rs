//! What an embedder can set before an engine exists.

use std::io::Write;
use std::time::Duration;

use wasmtime::StoreLimitsBuilder;

use crate::bindings::l3l4::engine::types::Configuration;
use crate::callbacks::Callbacks;
use crate::component::Component;
use crate::engine::Engine;
use crate::error::Error;
use crate::instance::{CallTime, Recipe};
use crate::link::link;
use crate::record::{Failure, Header, Recorder};
use crate::seed::Seeds;
use crate::ticker::Ticker;
use crate::types::{CongestionControl, IcmpEchoPolicy, nanoseconds};
use crate::witness::Witness;

/// What an embedder can set before an engine exists. What is not set keeps its
/// default. Numbers are checked by [`build`](Self::build), against the bounds that
/// stand at each option.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    component: Component,
    seed: Option<[u8; 32]>,
    guest_memory_limit: Option<usize>,
    call_time_limit: Option<Duration>,
    configuration: Configuration,
}

/// The default of `memory_limit` (`wit/types.wit`).
const DEFAULT_MEMORY_LIMIT: u64 = 256 << 20;
/// The default of `reassembly_memory` (`wit/types.wit`).
const DEFAULT_REASSEMBLY_MEMORY: u32 = 4 << 20;
/// The default of `tcp_send_buffer` (`wit/types.wit`).
const DEFAULT_SEND_BUFFER: u32 = 4 << 20;
/// What a 32-bit guest can address.
const GUEST_ADDRESS_SPACE: u64 = 4 << 30;
/// A guest's tables hold its functions: some hundreds.
const MOST_TABLE_ELEMENTS: usize = 16_384;
/// A guest is the engine's module and two small ones that wit-component adds,
/// with one memory and two tables among them.
const MOST_INSTANCES: usize = 16;

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            component: Component::embedded(),
            seed: None,
            guest_memory_limit: None,
            call_time_limit: None,
            configuration: Configuration {
                seed: (0, 0, 0, 0),
                mtu: None,
                max_flows: None,
                max_half_open: None,
                syn_cookies: None,
                memory_limit: None,
                tcp_receive_buffer: None,
                tcp_send_buffer: None,
                congestion_control: None,
                min_rto: None,
                verdict_timeout: None,
                handshake_timeout: None,
                tcp_idle_timeout: None,
                user_timeout: None,
                fin_wait_timeout: None,
                time_wait: None,
                udp_idle_timeout: None,
                icmp_idle_timeout: None,
                icmp_echo: None,
                max_stray_replies: None,
                reassembly_memory: None,
                reassembly_timeout: None,
            },
        }
    }

    /// Another component than [`Component::embedded`].
    pub fn component(mut self, component: &Component) -> Self {
        self.component = component.clone();
        self
    }

    /// 32 bytes that key the initial sequence numbers, the flow table and the flow
    /// ids. They must come from a cryptographic source and never be used twice,
    /// but where a run is to be repeated exactly. By default they come from the
    /// operating system.
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Most bytes of memory that the guest gets, whatever it asks for. A guest
    /// that needs more traps ([`Error::Trap`]). By default twice
    /// [`memory_limit`](Self::memory_limit) and
    /// [`reassembly_memory`](Self::reassembly_memory), and 64 MiB: the engine keeps
    /// its own limits, and the allocator's holes, one batch and the flow table's
    /// growth come on top. That is 584 MiB when nothing is set, and never above
    /// 4 GiB.
    pub fn guest_memory_limit(mut self, bytes: usize) -> Self {
        self.guest_memory_limit = Some(bytes);
        self
    }

    /// Longest time that one call may take, for components that are not trusted to
    /// return. A guest that computes longer traps ([`Error::Trap`]), up to 10 ms
    /// late; time in callbacks counts. Off by default: the guest then runs 15 to
    /// 20 % slower, is compiled once more, and a thread measures the time.
    pub fn call_time_limit(mut self, limit: Duration) -> Self {
        self.call_time_limit = Some(limit);
        self
    }

    /// Largest IP packet to emit, in bytes. 1,280 (RFC 8200 5) to 65,535, default
    /// 1,500.
    pub fn mtu(mut self, bytes: u32) -> Self {
        self.configuration.mtu = Some(bytes);
        self
    }

    /// Most flows at once, waiting ones included. 1 to 1,048,576, default 65,536.
    /// At the bound a new flow is dropped in silence and counted.
    pub fn max_flows(mut self, flows: u32) -> Self {
        self.configuration.max_flows = Some(flows);
        self
    }

    /// Most half-open flows (awaiting the verdict or in the handshake) among them.
    /// 1 to 1,048,576, default 4,096. At the bound SYNs are answered with cookies,
    /// or ([`syn_cookies`](Self::syn_cookies) false) the oldest is evicted in
    /// silence, reported and counted.
    pub fn max_half_open(mut self, flows: u32) -> Self {
        self.configuration.max_half_open = Some(flows);
        self
    }

    /// Whether SYNs at [`max_half_open`](Self::max_half_open) are answered without
    /// state (SYN cookies, RFC 4987 3.6), the flow being announced when its
    /// handshake is complete; false: the oldest half-open flow is evicted instead.
    /// Default true.
    pub fn syn_cookies(mut self, answer: bool) -> Self {
        self.configuration.syn_cookies = Some(answer);
        self
    }

    /// Most bytes for the buffers and records of flows. 1 MiB to 3 GiB, default
    /// 256 MiB. The blocks of all TCP buffers come from one pool under it: when it
    /// runs out windows close, new flows are refused
    /// ([`CloseReason::OutOfMemory`](crate::CloseReason::OutOfMemory)), and nothing
    /// that was acknowledged is lost.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.configuration.memory_limit = Some(bytes);
        self
    }

    /// Both buffers of a TCP flow: [`tcp_receive_buffer`](Self::tcp_receive_buffer)
    /// and [`tcp_send_buffer`](Self::tcp_send_buffer).
    pub fn tcp_buffer_size(self, bytes: u32) -> Self {
        self.tcp_receive_buffer(bytes).tcp_send_buffer(bytes)
    }

    /// The largest window that a TCP flow may grow to, in bytes: it starts at 65,535
    /// and follows what the host takes in a round trip. 2,048 to 16,777,216, default
    /// 4,194,304.
    pub fn tcp_receive_buffer(mut self, bytes: u32) -> Self {
        self.configuration.tcp_receive_buffer = Some(bytes);
        self
    }

    /// The most that a TCP flow may hold unacknowledged, in bytes: it starts at
    /// 65,535 and grows with the congestion window. 2,048 to 16,777,216, default
    /// 4,194,304.
    pub fn tcp_send_buffer(mut self, bytes: u32) -> Self {
        self.configuration.tcp_send_buffer = Some(bytes);
        self
    }

    /// What limits a TCP flow's data in flight beside the peer's window. By default
    /// [`CongestionControl::Cubic`].
    pub fn congestion_control(mut self, control: CongestionControl) -> Self {
        self.configuration.congestion_control = Some(control);
        self
    }

    /// Floor of the retransmission timeout. 10 ms to 60 s, default 200 ms (Linux;
    /// RFC 6298 2.4 says 1 s).
    pub fn min_rto(mut self, timeout: Duration) -> Self {
        self.configuration.min_rto = Some(nanoseconds(timeout));
        self
    }

    /// How long a flow may wait for its verdict after the peer's last packet.
    /// 100 ms to 7 days, default 75 s.
    pub fn verdict_timeout(mut self, timeout: Duration) -> Self {
        self.configuration.verdict_timeout = Some(nanoseconds(timeout));
        self
    }

    /// From our first SYN or SYN-ACK until the connection is established. 100 ms
    /// to 7 days, default 63 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.configuration.handshake_timeout = Some(nanoseconds(timeout));
        self
    }

    /// A TCP flow on which no segment came and no data was sent. 100 ms to 7 days,
    /// default 7,440 s (RFC 5382 REQ-5).
    pub fn tcp_idle_timeout(mut self, timeout: Duration) -> Self {
        self.configuration.tcp_idle_timeout = Some(nanoseconds(timeout));
        self
    }

    /// Both timeouts of a TCP flow of which one side is not open:
    /// [`handshake_timeout`](Self::handshake_timeout) and
    /// [`fin_wait_timeout`](Self::fin_wait_timeout).
    pub fn tcp_halfopen_idle_timeout(self, timeout: Duration) -> Self {
        self.handshake_timeout(timeout).fin_wait_timeout(timeout)
    }

    /// Data or FIN outstanding and no segment from the peer. 100 ms to 7 days,
    /// default 120 s (RFC 9293 3.8.3).
    pub fn user_timeout(mut self, timeout: Duration) -> Self {
        self.configuration.user_timeout = Some(nanoseconds(timeout));
        self
    }

    /// We sent FIN, it was acknowledged, and no segment came. 100 ms to 7 days,
    /// default 60 s.
    pub fn fin_wait_timeout(mut self, timeout: Duration) -> Self {
        self.configuration.fin_wait_timeout = Some(nanoseconds(timeout));
        self
    }

    /// How long a closed connection's tuple is remembered (RFC 9293 3.6.1). 100 ms
    /// to 7 days, default 60 s.
    pub fn time_wait(mut self, timeout: Duration) -> Self {
        self.configuration.time_wait = Some(nanoseconds(timeout));
        self
    }

    /// A UDP flow without a datagram either way. 100 ms to 7 days, default 300 s
    /// (RFC 4787 REQ-5).
    pub fn udp_idle_timeout(mut self, timeout: Duration) -> Self {
        self.configuration.udp_idle_timeout = Some(nanoseconds(timeout));
        self
    }

    /// An ICMP echo flow without a message either way. 100 ms to 7 days, default
    /// 60 s (RFC 5508 REQ-1).
    pub fn icmp_idle_timeout(mut self, timeout: Duration) -> Self {
        self.configuration.icmp_idle_timeout = Some(nanoseconds(timeout));
        self
    }

    /// What is done with ICMP echo requests. By default they are answered.
    pub fn icmp_echo(mut self, policy: IcmpEchoPolicy) -> Self {
        self.configuration.icmp_echo = Some(policy);
        self
    }

    /// Most answers a second to packets that belong to no flow (RFC 4443 2.4(f)).
    /// 0 to 1,000,000, default 1,000.
    pub fn max_stray_replies(mut self, replies_per_second: u32) -> Self {
        self.configuration.max_stray_replies = Some(replies_per_second);
        self
    }

    /// Most bytes for fragments of IP datagrams that are not complete. 128 KiB to
    /// 256 MiB, default 4 MiB. At the bound the oldest datagram is given up first.
    pub fn reassembly_memory(mut self, bytes: u32) -> Self {
        self.configuration.reassembly_memory = Some(bytes);
        self
    }

    /// How long the fragments of a datagram are kept after the first came. 100 ms to
    /// 7 days, default 60 s (RFC 8200 4.5).
    pub fn reassembly_timeout(mut self, timeout: Duration) -> Self {
        self.configuration.reassembly_timeout = Some(nanoseconds(timeout));
        self
    }

    /// Makes the engine. The first in a process compiles the component.
    ///
    /// # Errors
    ///
    /// [`Error::Configure`] when a number is outside of its bounds;
    /// [`Error::Component`] and [`Error::Start`] when the component is not of the
    /// contract or does not start; [`Error::System`] when there is no random seed
    /// or no thread to be had.
    pub fn build<C: Callbacks>(self, callbacks: C) -> Result<Engine<C>, Error> {
        let seeds = self.seeds();
        self.build_witnessed(callbacks, seeds, None)
    }

    /// As [`build`](Self::build), and writes all that crosses the border into the
    /// engine, with what came of it, as a record that
    /// [`record::replay`](crate::record::replay) repeats exactly.
    ///
    /// What is under way is handed to `record` before the engine is entered, so
    /// give a [`File`](std::fs::File) without a buffer of its own, and a killed
    /// process leaves a record up to its last moment. Where `record` fails, the
    /// record ends and the engine goes on ([`Engine::record_failure`]).
    ///
    /// A record holds every packet and all data in clear, and the seed.
    ///
    /// ```
    /// use std::fs::File;
    /// use std::io::BufReader;
    /// use l3l4_host::{Batch, Callbacks, Component, Engine, Event, FiveTuple};
    /// use l3l4_host::{FlowId, Instant, Packets, Verdict, record};
    ///
    /// struct Application;
    ///
    /// impl Callbacks for Application {
    ///     fn l3_tx(&mut self, packets: Packets<'_>) -> usize {
    ///         packets.len()
    ///     }
    ///     fn l4_rx(&mut self, _: FlowId, data: &[u8]) -> usize {
    ///         data.len()
    ///     }
    ///     fn flow_new(&mut self, _: FlowId, _: &FiveTuple) -> Verdict {
    ///         Verdict::ACCEPT
    ///     }
    ///     fn flow_event(&mut self, _: FlowId, _: Event) {}
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let path = std::env::temp_dir().join(format!("example-{}.l3l4", std::process::id()));
    /// let mut engine =
    ///     Engine::builder().build_recorded(Application, File::create(&path)?)?;
    /// let mut batch = Batch::new();
    /// batch.push(b"no packet at all");
    /// engine.l3_rx(Instant(0), &batch)?;
    /// drop(engine);
    ///
    /// let file = BufReader::new(File::open(&path)?);
    /// let report = record::replay(file, &Component::embedded())?;
    /// assert!(report.is_identical());
    /// assert_eq!(report.packets_in, 1);
    /// # std::fs::remove_file(&path)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`build`](Self::build).
    pub fn build_recorded<C: Callbacks>(
        self,
        callbacks: C,
        record: impl Write + Send + 'static,
    ) -> Result<Engine<C>, Error> {
        self.build_recorded_until(callbacks, record, Failure::default())
    }

    /// [`build_recorded`](Self::build_recorded), and what ends the record early is told
    /// where it outlives the engine.
    pub(crate) fn build_recorded_until<C: Callbacks>(
        self,
        callbacks: C,
        record: impl Write + Send + 'static,
        failure: Failure,
    ) -> Result<Engine<C>, Error> {
        let header = Header {
            component: self.component.sha256(),
            component_bytes: self.component.bytes().len() as u64,
            writer: concat!("l3l4-host ", env!("CARGO_PKG_VERSION")).to_owned(),
            guest_memory_limit: self.guest_memory() as u64,
            call_time_limit: self.call_time_limit.map(nanoseconds),
        };
        let seeds = self.seeds();
        let recorder = Recorder::new(record, header, failure);
        self.build_witnessed(callbacks, seeds, Some(Box::new(recorder)))
    }

    /// A builder with the configuration of a record.
    pub(crate) fn recorded(
        component: &Component,
        configuration: Configuration,
        guest_memory_limit: usize,
        call_time_limit: Duration,
    ) -> Self {
        Self {
            component: component.clone(),
            configuration,
            guest_memory_limit: Some(guest_memory_limit),
            call_time_limit: Some(call_time_limit),
            ..Self::new()
        }
    }

    pub(crate) fn build_witnessed<C: Callbacks>(
        self,
        callbacks: C,
        seeds: Seeds,
        witness: Option<Box<dyn Witness>>,
    ) -> Result<Engine<C>, Error> {
        let memory = self.guest_memory();
        let (code, call_time) = match self.call_time_limit {
            None => (self.component.plain()?, None),
            Some(limit) => {
                let (code, ticker) = self.component.interruptible()?;
                let ticks = Ticker::ticks(limit);
                (
                    code,
                    Some(CallTime {
                        ticks,
                        _ticker: ticker,
                    }),
                )
            }
        };
        let limits = StoreLimitsBuilder::new()
            .memory_size(memory)
            .table_elements(MOST_TABLE_ELEMENTS)
            .instances(MOST_INSTANCES)
            .tables(MOST_INSTANCES)
            .memories(MOST_INSTANCES)
            .build();
        let linked = link(&code).map_err(|error| Error::Component(error.into()))?;
        let send_buffer = self
            .configuration
            .tcp_send_buffer
            .unwrap_or(DEFAULT_SEND_BUFFER);
        let recipe = Recipe {
            linked,
            configuration: self.configuration,
            seeds,
            limits,
            call_time,
        };
        Engine::start(recipe, callbacks, witness, send_buffer)
    }

    fn seeds(&self) -> Seeds {
        match self.seed {
            None => Seeds::System,
            Some(seed) => Seeds::Given { seed, instances: 0 },
        }
    }

    /// The guest's memory limit in bytes.
    fn guest_memory(&self) -> usize {
        let default = || {
            let flows = self
                .configuration
                .memory_limit
                .unwrap_or(DEFAULT_MEMORY_LIMIT);
            let fragments = self
                .configuration
                .reassembly_memory
                .unwrap_or(DEFAULT_REASSEMBLY_MEMORY);
            let kept = flows.saturating_add(fragments.into());
            let twice = kept.saturating_mul(2).saturating_add(64 << 20);
            usize::try_from(twice.min(GUEST_ADDRESS_SPACE)).unwrap_or(usize::MAX)
        };
        self.guest_memory_limit.unwrap_or_else(default)
    }
}
