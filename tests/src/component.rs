//! The component as a device under test, through the host library; and the
//! conversions between its vocabulary and the engine's, both directions.

use std::net::SocketAddr;

use l3l4_engine as engine;
use l3l4_engine::{
    BatchError, BatchSent, Config, CounterSnapshot, FiveTuple, FlowError, FlowId, FlowOptions,
    FlowSnapshot, Instant, OpenError, Packet, Portion, Sent, Verdict,
};
use l3l4_host as guest;

use crate::dut::{Deadline, Dut};
use crate::host::Host;

/// The engine as a component.
pub struct Component {
    config: Config,
    engine: guest::Engine<Host>,
    batch: guest::Batch,
    data: guest::DataBatch,
}

impl Component {
    /// The embedded component with this configuration and a host that accepts all.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::try_new(config).expect("the embedded component starts")
    }

    /// The same, with the refusal of a configuration out of bounds.
    pub fn try_new(config: &Config) -> Result<Self, guest::Error> {
        let engine = guest::Engine::builder()
            .seed(config.seed)
            .mtu(config.mtu)
            .max_flows(config.max_flows)
            .max_half_open(config.max_half_open)
            .syn_cookies(config.syn_cookies)
            .memory_limit(config.memory_limit)
            .tcp_receive_buffer(config.tcp_receive_buffer)
            .tcp_send_buffer(config.tcp_send_buffer)
            .congestion_control(match config.congestion_control {
                engine::CongestionControl::Cubic => guest::CongestionControl::Cubic,
                engine::CongestionControl::Reno => guest::CongestionControl::Reno,
                engine::CongestionControl::None => guest::CongestionControl::None,
            })
            .min_rto(config.min_rto)
            .verdict_timeout(config.verdict_timeout)
            .handshake_timeout(config.handshake_timeout)
            .tcp_idle_timeout(config.tcp_idle_timeout)
            .user_timeout(config.user_timeout)
            .fin_wait_timeout(config.fin_wait_timeout)
            .time_wait(config.time_wait)
            .udp_idle_timeout(config.udp_idle_timeout)
            .icmp_idle_timeout(config.icmp_idle_timeout)
            .icmp_echo(match config.icmp_echo {
                engine::IcmpEchoPolicy::Answer => guest::IcmpEchoPolicy::Answer,
                engine::IcmpEchoPolicy::Drop => guest::IcmpEchoPolicy::Drop,
                engine::IcmpEchoPolicy::Deliver => guest::IcmpEchoPolicy::Deliver,
            })
            .max_stray_replies(config.max_stray_replies)
            .reassembly_memory(config.reassembly_memory)
            .reassembly_timeout(config.reassembly_timeout)
            .build(Host::new(config.mtu))?;
        Ok(Self {
            config: *config,
            engine,
            batch: guest::Batch::new(),
            data: guest::DataBatch::new(),
        })
    }
}

impl Dut for Component {
    fn name(&self) -> &'static str {
        "component"
    }

    fn host(&mut self) -> &mut Host {
        self.engine.callbacks_mut()
    }

    fn l3_rx(
        &mut self,
        now: Instant,
        bytes: &[u8],
        packets: &[Packet],
    ) -> Result<Deadline, BatchError> {
        self.batch.clear();
        let mut rest = bytes;
        for packet in packets {
            let (one, next) = rest.split_at(usize::try_from(packet.length).expect("a length"));
            let checksum = match packet.checksum {
                engine::Checksum::Full => guest::Checksum::Full,
                engine::Checksum::Offloaded => guest::Checksum::Offloaded,
            };
            self.batch
                .push_described(one, packet.segment_size, checksum);
            rest = next;
        }
        match self.engine.l3_rx(time_in(now), &self.batch) {
            Ok(deadline) => Ok(deadline.map(time_out)),
            Err(guest::Error::Batch(guest::BatchError::LengthMismatch)) => {
                Err(BatchError::LengthMismatch)
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn l4_tx(&mut self, now: Instant, flow: FlowId, data: &[u8]) -> Result<Sent, FlowError> {
        sent(self.engine.l4_tx(time_in(now), flow_in(flow), data))
    }

    fn l4_tx_batch(
        &mut self,
        now: Instant,
        bytes: &[u8],
        portions: &[Portion],
    ) -> Result<BatchSent, BatchError> {
        self.data.clear();
        let mut rest = bytes;
        for portion in portions {
            let (one, next) = rest.split_at(usize::try_from(portion.length).expect("a length"));
            self.data.push(flow_in(portion.flow), one);
            rest = next;
        }
        match self.engine.l4_tx_batch(time_in(now), &self.data) {
            Ok(sent) => Ok(BatchSent {
                taken: sent
                    .taken
                    .into_iter()
                    .map(|taken| taken.map_err(|error| flow_error(guest::Error::Flow(error))))
                    .collect(),
                deadline: sent.deadline.map(time_out),
            }),
            Err(guest::Error::Batch(guest::BatchError::LengthMismatch)) => {
                Err(BatchError::LengthMismatch)
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn l4_tx_from(
        &mut self,
        now: Instant,
        flow: FlowId,
        local: SocketAddr,
        data: &[u8],
    ) -> Result<Sent, FlowError> {
        sent(
            self.engine
                .l4_tx_from(time_in(now), flow_in(flow), local, data),
        )
    }

    fn l4_poll(&mut self, now: Instant) -> Deadline {
        self.engine
            .l4_poll(time_in(now))
            .expect("polling works")
            .map(time_out)
    }

    fn flow_verdict(
        &mut self,
        now: Instant,
        flow: FlowId,
        verdict: Verdict,
    ) -> Result<Deadline, FlowError> {
        deadline(
            self.engine
                .flow_verdict(time_in(now), flow_in(flow), verdict_in(verdict)),
        )
    }

    fn flow_resume(&mut self, now: Instant, flow: FlowId) -> Result<Deadline, FlowError> {
        deadline(self.engine.flow_resume(time_in(now), flow_in(flow)))
    }

    fn flow_finish(&mut self, now: Instant, flow: FlowId) -> Result<Deadline, FlowError> {
        deadline(self.engine.flow_finish(time_in(now), flow_in(flow)))
    }

    fn flow_abort(&mut self, now: Instant, flow: FlowId) -> Result<Deadline, FlowError> {
        deadline(self.engine.flow_abort(time_in(now), flow_in(flow)))
    }

    fn flow_open(
        &mut self,
        now: Instant,
        tuple: &FiveTuple,
        options: FlowOptions,
    ) -> Result<(FlowId, Deadline), OpenError> {
        match self
            .engine
            .flow_open(time_in(now), &tuple_in(tuple), options_in(options))
        {
            Ok((flow, deadline)) => Ok((flow_out(flow), deadline.map(time_out))),
            Err(guest::Error::Open(error)) => Err(open_error(error)),
            Err(other) => panic!("{other}"),
        }
    }

    fn flow_info(&mut self, flow: FlowId) -> Result<FlowSnapshot, FlowError> {
        match self.engine.flow_info(flow_in(flow)) {
            Ok(snapshot) => Ok(snapshot_out(&snapshot)),
            Err(error) => Err(flow_error(error)),
        }
    }

    fn flows(&mut self) -> Vec<FlowId> {
        let flows = self.engine.flows().expect("listing works");
        flows.into_iter().map(flow_out).collect()
    }

    fn counters(&mut self) -> CounterSnapshot {
        let from = self.engine.counters().expect("counting works");
        CounterSnapshot {
            l3_rx_packets: from.l3_rx_packets,
            l3_rx_bytes: from.l3_rx_bytes,
            l3_tx_packets: from.l3_tx_packets,
            l3_tx_bytes: from.l3_tx_bytes,
            l4_rx_bytes: from.l4_rx_bytes,
            l4_tx_bytes: from.l4_tx_bytes,
            l4_polls: from.l4_polls,
            drops: from.drops,
            datagrams_reassembled: from.datagrams_reassembled,
            replies_lost: from.replies_lost,
            replies_limited: from.replies_limited,
            flows_announced: from.flows_announced,
            flows_opened: from.flows_opened,
            flows_closed: from.flows_closed,
            flows_evicted: from.flows_evicted,
            flows_out_of_memory: from.flows_out_of_memory,
            repeated_syns: from.repeated_syns,
            syn_cookies_sent: from.syn_cookies_sent,
            syn_cookies_accepted: from.syn_cookies_accepted,
            challenge_acks: from.challenge_acks,
            retransmits: from.retransmits,
            time_went_back: from.time_went_back,
            flows: from.flows,
            half_open: from.half_open,
            time_wait: from.time_wait,
            memory_bytes: from.memory_bytes,
        }
    }

    fn restart(&mut self, seed: [u8; 32]) {
        self.config.seed = seed;
        let mut next = Self::new(&self.config);
        std::mem::swap(next.engine.callbacks_mut(), self.engine.callbacks_mut());
        *self = next;
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Component")
    }
}

impl guest::Callbacks for Host {
    fn l3_tx(&mut self, packets: guest::Packets<'_>) -> usize {
        let records: Vec<_> = packets
            .iter()
            .map(|(packet, _)| packet_out(packet))
            .collect();
        engine::Callbacks::l3_tx(self, packets.bytes(), &records)
    }

    fn l4_rx(&mut self, flow: guest::FlowId, data: &[u8]) -> usize {
        engine::Callbacks::l4_rx(self, flow_out(flow), data)
    }

    fn flow_new(&mut self, flow: guest::FlowId, tuple: &guest::FiveTuple) -> guest::Verdict {
        verdict_in(engine::Callbacks::flow_new(
            self,
            flow_out(flow),
            &tuple_out(tuple),
        ))
    }

    fn flow_event(&mut self, flow: guest::FlowId, event: guest::Event) {
        engine::Callbacks::flow_event(self, flow_out(flow), event_out(event));
    }
}

fn deadline(result: Result<Option<guest::Instant>, guest::Error>) -> Result<Deadline, FlowError> {
    match result {
        Ok(deadline) => Ok(deadline.map(time_out)),
        Err(error) => Err(flow_error(error)),
    }
}

fn sent(result: Result<guest::Sent, guest::Error>) -> Result<Sent, FlowError> {
    match result {
        Ok(sent) => Ok(Sent {
            taken: sent.taken,
            deadline: sent.deadline.map(time_out),
        }),
        Err(error) => Err(flow_error(error)),
    }
}

fn flow_error(error: guest::Error) -> FlowError {
    let guest::Error::Flow(error) = error else {
        panic!("{error}");
    };
    use guest::FlowError as E;
    match error {
        E::NotConfigured => panic!("the host library configures"),
        E::UnknownFlow => FlowError::UnknownFlow,
        E::Undecided => FlowError::Undecided,
        E::AlreadyDecided => FlowError::AlreadyDecided,
        E::Finished => FlowError::Finished,
        E::Closing => FlowError::Closing,
        E::TooLong => FlowError::TooLong,
        E::WrongProtocol => FlowError::WrongProtocol,
        E::BadAddress => FlowError::BadAddress,
        E::BadOption => FlowError::BadOption,
    }
}

fn open_error(error: guest::OpenError) -> OpenError {
    use guest::OpenError as E;
    match error {
        E::NotConfigured => panic!("the host library configures"),
        E::BadAddress => OpenError::BadAddress,
        E::InUse => OpenError::InUse,
        E::FlowLimit => OpenError::FlowLimit,
        E::OutOfMemory => OpenError::OutOfMemory,
        E::BadOption => OpenError::BadOption,
    }
}

fn time_in(time: Instant) -> guest::Instant {
    guest::Instant(time.0)
}

fn time_out(time: guest::Instant) -> Instant {
    Instant(time.0)
}

fn flow_in(flow: FlowId) -> guest::FlowId {
    guest::FlowId(flow.0)
}

fn flow_out(flow: guest::FlowId) -> FlowId {
    FlowId(flow.0)
}

fn tuple_in(tuple: &FiveTuple) -> guest::FiveTuple {
    guest::FiveTuple {
        protocol: match tuple.protocol {
            engine::Protocol::Tcp => guest::Protocol::Tcp,
            engine::Protocol::Udp => guest::Protocol::Udp,
            engine::Protocol::IcmpEcho => guest::Protocol::IcmpEcho,
        },
        local: tuple.local,
        peer: tuple.peer,
    }
}

fn tuple_out(tuple: &guest::FiveTuple) -> FiveTuple {
    FiveTuple {
        protocol: match tuple.protocol {
            guest::Protocol::Tcp => engine::Protocol::Tcp,
            guest::Protocol::Udp => engine::Protocol::Udp,
            guest::Protocol::IcmpEcho => engine::Protocol::IcmpEcho,
        },
        local: tuple.local,
        peer: tuple.peer,
    }
}

fn options_in(options: FlowOptions) -> guest::FlowOptions {
    guest::FlowOptions {
        nagle: options.nagle,
        keep_alive: options.keep_alive,
        idle_timeout: options.idle_timeout,
        user_timeout: options.user_timeout,
    }
}

fn verdict_in(verdict: Verdict) -> guest::Verdict {
    use engine::Refusal as R;
    match verdict {
        Verdict::Accept(options) => guest::Verdict::Accept(options_in(options)),
        Verdict::Refuse(refusal) => guest::Verdict::Refuse(match refusal {
            R::Reset => guest::Refusal::Reset,
            R::NetworkUnreachable => guest::Refusal::NetworkUnreachable,
            R::HostUnreachable => guest::Refusal::HostUnreachable,
            R::PortUnreachable => guest::Refusal::PortUnreachable,
            R::Prohibited => guest::Refusal::Prohibited,
        }),
        Verdict::Drop => guest::Verdict::Drop,
        Verdict::Wait => guest::Verdict::Wait,
    }
}

fn packet_out(packet: guest::Packet) -> Packet {
    Packet {
        length: packet.length,
        segment_size: packet.segment_size,
        checksum: match packet.checksum {
            guest::Checksum::Full => engine::Checksum::Full,
            guest::Checksum::Offloaded => engine::Checksum::Offloaded,
        },
    }
}

fn event_out(event: guest::Event) -> engine::Event {
    match event {
        guest::Event::Established => engine::Event::Established,
        guest::Event::Writable => engine::Event::Writable,
        guest::Event::PeerFinished => engine::Event::PeerFinished,
        guest::Event::PeerReset => engine::Event::PeerReset,
        guest::Event::Closed(reason) => engine::Event::Closed(reason_out(reason)),
    }
}

fn reason_out(reason: guest::CloseReason) -> engine::CloseReason {
    use engine::{CloseReason as To, Timer, Unreachable};
    use guest::CloseReason as From;
    match reason {
        From::Finished => To::Finished,
        From::ResetByPeer => To::ResetByPeer,
        From::Refused => To::Refused,
        From::Unreachable(unreachable) => To::Unreachable(match unreachable {
            guest::Unreachable::Network => Unreachable::Network,
            guest::Unreachable::Host => Unreachable::Host,
            guest::Unreachable::Protocol => Unreachable::Protocol,
            guest::Unreachable::Port => Unreachable::Port,
            guest::Unreachable::Prohibited => Unreachable::Prohibited,
            guest::Unreachable::Other => Unreachable::Other,
        }),
        From::TimedOut(timer) => To::TimedOut(match timer {
            guest::Timer::Verdict => Timer::Verdict,
            guest::Timer::Handshake => Timer::Handshake,
            guest::Timer::Idle => Timer::Idle,
            guest::Timer::User => Timer::User,
            guest::Timer::FinWait => Timer::FinWait,
        }),
        From::Aborted => To::Aborted,
        From::Evicted => To::Evicted,
        From::OutOfMemory => To::OutOfMemory,
        From::EngineLost => panic!("the guest trapped"),
    }
}

fn snapshot_out(snapshot: &guest::FlowSnapshot) -> FlowSnapshot {
    use engine::FlowState as To;
    use guest::FlowState as From;
    FlowSnapshot {
        tuple: tuple_out(&snapshot.tuple),
        state: match snapshot.state {
            From::Waiting => To::Waiting,
            From::SynSent => To::SynSent,
            From::SynReceived => To::SynReceived,
            From::Established => To::Established,
            From::FinWait1 => To::FinWait1,
            From::FinWait2 => To::FinWait2,
            From::CloseWait => To::CloseWait,
            From::Closing => To::Closing,
            From::LastAck => To::LastAck,
            From::Closed => To::Closed,
            From::Datagram => To::Datagram,
        },
        opened: time_out(snapshot.opened),
        bytes_received: snapshot.bytes_received,
        bytes_sent: snapshot.bytes_sent,
        receive_queue: snapshot.receive_queue,
        send_queue: snapshot.send_queue,
        receive_window: snapshot.receive_window,
        send_window: snapshot.send_window,
        congestion_window: snapshot.congestion_window,
        max_segment_size: snapshot.max_segment_size,
        round_trip_time: snapshot.round_trip_time,
        retransmission_timeout: snapshot.retransmission_timeout,
        retransmits: snapshot.retransmits,
    }
}
