//! Conversions between the contract's types and the engine's, both directions
//! side by side.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use l3l4_engine as engine;

use crate::bindings::l3l4::engine::types as wit;

pub(crate) fn to_config(given: &wit::Configuration) -> engine::Config {
    let seed = <[u64; 4]>::from(given.seed).map(u64::to_le_bytes);
    let default = engine::Config::new(seed_bytes(seed));
    let timeout = |given: Option<wit::Duration>, default| given.map_or(default, to_duration);
    engine::Config {
        seed: default.seed,
        mtu: given.mtu.unwrap_or(default.mtu),
        max_flows: given.max_flows.unwrap_or(default.max_flows),
        max_half_open: given.max_half_open.unwrap_or(default.max_half_open),
        syn_cookies: given.syn_cookies.unwrap_or(default.syn_cookies),
        memory_limit: given.memory_limit.unwrap_or(default.memory_limit),
        tcp_receive_buffer: given
            .tcp_receive_buffer
            .unwrap_or(default.tcp_receive_buffer),
        tcp_send_buffer: given.tcp_send_buffer.unwrap_or(default.tcp_send_buffer),
        congestion_control: given
            .congestion_control
            .map_or(default.congestion_control, Into::into),
        min_rto: timeout(given.min_rto, default.min_rto),
        verdict_timeout: timeout(given.verdict_timeout, default.verdict_timeout),
        handshake_timeout: timeout(given.handshake_timeout, default.handshake_timeout),
        tcp_idle_timeout: timeout(given.tcp_idle_timeout, default.tcp_idle_timeout),
        user_timeout: timeout(given.user_timeout, default.user_timeout),
        fin_wait_timeout: timeout(given.fin_wait_timeout, default.fin_wait_timeout),
        time_wait: timeout(given.time_wait, default.time_wait),
        udp_idle_timeout: timeout(given.udp_idle_timeout, default.udp_idle_timeout),
        icmp_idle_timeout: timeout(given.icmp_idle_timeout, default.icmp_idle_timeout),
        icmp_echo: given.icmp_echo.map_or(default.icmp_echo, Into::into),
        max_stray_replies: given.max_stray_replies.unwrap_or(default.max_stray_replies),
        reassembly_memory: given.reassembly_memory.unwrap_or(default.reassembly_memory),
        reassembly_timeout: timeout(given.reassembly_timeout, default.reassembly_timeout),
    }
}

fn seed_bytes(words: [[u8; 8]; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.as_chunks_mut().0.copy_from_slice(&words);
    bytes
}

fn to_duration(nanoseconds: wit::Duration) -> Duration {
    Duration::from_nanos(nanoseconds)
}

/// Saturates at `u64::MAX`, 584 years.
fn from_duration(duration: Duration) -> wit::Duration {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn from_deadline(deadline: Option<engine::Instant>) -> wit::Deadline {
    deadline.map(|instant| instant.0)
}

pub(crate) fn from_flow_ids(flows: Vec<engine::FlowId>) -> Vec<wit::FlowId> {
    flows.into_iter().map(|flow| flow.0).collect()
}

pub(crate) fn to_socket_addr(address: wit::IpSocketAddress) -> SocketAddr {
    match address {
        wit::IpSocketAddress::Ipv4(v4) => {
            let (a, b, c, d) = v4.address;
            SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), v4.port).into()
        }
        wit::IpSocketAddress::Ipv6(v6) => {
            let address = Ipv6Addr::from(<[u16; 8]>::from(v6.address));
            SocketAddrV6::new(address, v6.port, 0, 0).into()
        }
    }
}

fn from_socket_addr(address: SocketAddr) -> wit::IpSocketAddress {
    match address {
        SocketAddr::V4(v4) => wit::IpSocketAddress::Ipv4(wit::Ipv4SocketAddress {
            port: v4.port(),
            address: v4.ip().octets().into(),
        }),
        SocketAddr::V6(v6) => wit::IpSocketAddress::Ipv6(wit::Ipv6SocketAddress {
            port: v6.port(),
            flow_info: 0,
            address: v6.ip().segments().into(),
            scope_id: 0,
        }),
    }
}

pub(crate) fn to_five_tuple(tuple: wit::FiveTuple) -> engine::FiveTuple {
    engine::FiveTuple {
        protocol: match tuple.protocol {
            wit::Protocol::Tcp => engine::Protocol::Tcp,
            wit::Protocol::Udp => engine::Protocol::Udp,
            wit::Protocol::IcmpEcho => engine::Protocol::IcmpEcho,
        },
        local: to_socket_addr(tuple.local),
        peer: to_socket_addr(tuple.peer),
    }
}

pub(crate) fn from_five_tuple(tuple: &engine::FiveTuple) -> wit::FiveTuple {
    wit::FiveTuple {
        protocol: match tuple.protocol {
            engine::Protocol::Tcp => wit::Protocol::Tcp,
            engine::Protocol::Udp => wit::Protocol::Udp,
            engine::Protocol::IcmpEcho => wit::Protocol::IcmpEcho,
        },
        local: from_socket_addr(tuple.local),
        peer: from_socket_addr(tuple.peer),
    }
}

/// In place: the two records have the same layout, so `collect` reuses the memory.
pub(crate) fn to_packets(packets: Vec<wit::Packet>) -> Vec<engine::Packet> {
    packets
        .into_iter()
        .map(|packet| engine::Packet {
            length: packet.length,
            segment_size: packet.segment_size,
            checksum: match packet.checksum {
                wit::Checksum::Full => engine::Checksum::Full,
                wit::Checksum::Offloaded => engine::Checksum::Offloaded,
            },
        })
        .collect()
}

/// In place, too.
pub(crate) fn to_portions(portions: Vec<wit::Portion>) -> Vec<engine::Portion> {
    portions
        .into_iter()
        .map(|portion| engine::Portion {
            flow: engine::FlowId(portion.flow),
            length: portion.length,
        })
        .collect()
}

impl From<engine::Packet> for wit::Packet {
    fn from(packet: engine::Packet) -> Self {
        Self {
            length: packet.length,
            segment_size: packet.segment_size,
            checksum: match packet.checksum {
                engine::Checksum::Full => wit::Checksum::Full,
                engine::Checksum::Offloaded => wit::Checksum::Offloaded,
            },
        }
    }
}

impl From<wit::IcmpEchoPolicy> for engine::IcmpEchoPolicy {
    fn from(policy: wit::IcmpEchoPolicy) -> Self {
        match policy {
            wit::IcmpEchoPolicy::Answer => Self::Answer,
            wit::IcmpEchoPolicy::Drop => Self::Drop,
            wit::IcmpEchoPolicy::Deliver => Self::Deliver,
        }
    }
}

impl From<wit::CongestionControl> for engine::CongestionControl {
    fn from(control: wit::CongestionControl) -> Self {
        match control {
            wit::CongestionControl::Cubic => Self::Cubic,
            wit::CongestionControl::Reno => Self::Reno,
            wit::CongestionControl::None => Self::None,
        }
    }
}

impl From<wit::FlowOptions> for engine::FlowOptions {
    fn from(options: wit::FlowOptions) -> Self {
        Self {
            nagle: options.nagle.unwrap_or(false),
            keep_alive: options.keep_alive.map(to_duration),
            idle_timeout: options.idle_timeout.map(to_duration),
            user_timeout: options.user_timeout.map(to_duration),
        }
    }
}

impl From<wit::Verdict> for engine::Verdict {
    fn from(verdict: wit::Verdict) -> Self {
        match verdict {
            wit::Verdict::Accept(options) => Self::Accept(options.into()),
            wit::Verdict::Refuse(refusal) => Self::Refuse(refusal.into()),
            wit::Verdict::Drop => Self::Drop,
            wit::Verdict::Wait => Self::Wait,
        }
    }
}

impl From<wit::Refusal> for engine::Refusal {
    fn from(refusal: wit::Refusal) -> Self {
        match refusal {
            wit::Refusal::Reset => Self::Reset,
            wit::Refusal::NetworkUnreachable => Self::NetworkUnreachable,
            wit::Refusal::HostUnreachable => Self::HostUnreachable,
            wit::Refusal::PortUnreachable => Self::PortUnreachable,
            wit::Refusal::Prohibited => Self::Prohibited,
        }
    }
}

impl From<engine::Event> for wit::Event {
    fn from(event: engine::Event) -> Self {
        match event {
            engine::Event::Established => Self::Established,
            engine::Event::Writable => Self::Writable,
            engine::Event::PeerFinished => Self::PeerFinished,
            engine::Event::PeerReset => Self::PeerReset,
            engine::Event::Closed(reason) => Self::Closed(reason.into()),
        }
    }
}

impl From<engine::CloseReason> for wit::CloseReason {
    fn from(reason: engine::CloseReason) -> Self {
        match reason {
            engine::CloseReason::Finished => Self::Finished,
            engine::CloseReason::ResetByPeer => Self::ResetByPeer,
            engine::CloseReason::Refused => Self::Refused,
            engine::CloseReason::Unreachable(why) => Self::Unreachable(why.into()),
            engine::CloseReason::TimedOut(timer) => Self::TimedOut(timer.into()),
            engine::CloseReason::Aborted => Self::Aborted,
            engine::CloseReason::Evicted => Self::Evicted,
            engine::CloseReason::OutOfMemory => Self::OutOfMemory,
        }
    }
}

impl From<engine::Unreachable> for wit::Unreachable {
    fn from(why: engine::Unreachable) -> Self {
        match why {
            engine::Unreachable::Network => Self::Network,
            engine::Unreachable::Host => Self::Host,
            engine::Unreachable::Protocol => Self::Protocol,
            engine::Unreachable::Port => Self::Port,
            engine::Unreachable::Prohibited => Self::Prohibited,
            engine::Unreachable::Other => Self::Other,
        }
    }
}

impl From<engine::Timer> for wit::Timer {
    fn from(timer: engine::Timer) -> Self {
        match timer {
            engine::Timer::Verdict => Self::Verdict,
            engine::Timer::Handshake => Self::Handshake,
            engine::Timer::Idle => Self::Idle,
            engine::Timer::User => Self::User,
            engine::Timer::FinWait => Self::FinWait,
        }
    }
}

impl From<engine::Sent> for wit::Sent {
    fn from(sent: engine::Sent) -> Self {
        Self {
            taken: to_taken(sent.taken),
            deadline: from_deadline(sent.deadline),
        }
    }
}

impl From<engine::BatchSent> for wit::BatchSent {
    fn from(sent: engine::BatchSent) -> Self {
        let taken = sent.taken.into_iter().map(|taken| Ok(to_taken(taken?)));
        Self {
            taken: taken.collect(),
            deadline: from_deadline(sent.deadline),
        }
    }
}

/// No more than was given, and a list's length fits into 32 bits here.
fn to_taken(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl From<engine::BatchError> for wit::BatchError {
    fn from(error: engine::BatchError) -> Self {
        match error {
            engine::BatchError::LengthMismatch => Self::LengthMismatch,
        }
    }
}

impl From<engine::FlowError> for wit::FlowError {
    fn from(error: engine::FlowError) -> Self {
        match error {
            engine::FlowError::UnknownFlow => Self::UnknownFlow,
            engine::FlowError::Undecided => Self::Undecided,
            engine::FlowError::AlreadyDecided => Self::AlreadyDecided,
            engine::FlowError::Finished => Self::Finished,
            engine::FlowError::Closing => Self::Closing,
            engine::FlowError::TooLong => Self::TooLong,
            engine::FlowError::WrongProtocol => Self::WrongProtocol,
            engine::FlowError::BadAddress => Self::BadAddress,
            engine::FlowError::BadOption => Self::BadOption,
        }
    }
}

impl From<engine::OpenError> for wit::OpenError {
    fn from(error: engine::OpenError) -> Self {
        match error {
            engine::OpenError::BadAddress => Self::BadAddress,
            engine::OpenError::InUse => Self::InUse,
            engine::OpenError::FlowLimit => Self::FlowLimit,
            engine::OpenError::OutOfMemory => Self::OutOfMemory,
            engine::OpenError::BadOption => Self::BadOption,
        }
    }
}

impl From<engine::OutOfBounds> for wit::OutOfBounds {
    fn from(error: engine::OutOfBounds) -> Self {
        Self {
            item: error.item.into(),
            given: error.given,
            least: error.least,
            most: error.most,
        }
    }
}

impl From<engine::ConfigItem> for wit::ConfigurationItem {
    fn from(item: engine::ConfigItem) -> Self {
        match item {
            engine::ConfigItem::Mtu => Self::Mtu,
            engine::ConfigItem::MaxFlows => Self::MaxFlows,
            engine::ConfigItem::MaxHalfOpen => Self::MaxHalfOpen,
            engine::ConfigItem::MemoryLimit => Self::MemoryLimit,
            engine::ConfigItem::TcpReceiveBuffer => Self::TcpReceiveBuffer,
            engine::ConfigItem::TcpSendBuffer => Self::TcpSendBuffer,
            engine::ConfigItem::MinRto => Self::MinRto,
            engine::ConfigItem::VerdictTimeout => Self::VerdictTimeout,
            engine::ConfigItem::HandshakeTimeout => Self::HandshakeTimeout,
            engine::ConfigItem::TcpIdleTimeout => Self::TcpIdleTimeout,
            engine::ConfigItem::UserTimeout => Self::UserTimeout,
            engine::ConfigItem::FinWaitTimeout => Self::FinWaitTimeout,
            engine::ConfigItem::TimeWait => Self::TimeWait,
            engine::ConfigItem::UdpIdleTimeout => Self::UdpIdleTimeout,
            engine::ConfigItem::IcmpIdleTimeout => Self::IcmpIdleTimeout,
            engine::ConfigItem::MaxStrayReplies => Self::MaxStrayReplies,
            engine::ConfigItem::ReassemblyMemory => Self::ReassemblyMemory,
            engine::ConfigItem::ReassemblyTimeout => Self::ReassemblyTimeout,
        }
    }
}

impl From<engine::FlowState> for wit::FlowState {
    fn from(state: engine::FlowState) -> Self {
        match state {
            engine::FlowState::Waiting => Self::Waiting,
            engine::FlowState::SynSent => Self::SynSent,
            engine::FlowState::SynReceived => Self::SynReceived,
            engine::FlowState::Established => Self::Established,
            engine::FlowState::FinWait1 => Self::FinWait1,
            engine::FlowState::FinWait2 => Self::FinWait2,
            engine::FlowState::CloseWait => Self::CloseWait,
            engine::FlowState::Closing => Self::Closing,
            engine::FlowState::LastAck => Self::LastAck,
            engine::FlowState::Closed => Self::Closed,
            engine::FlowState::Datagram => Self::Datagram,
        }
    }
}

impl From<engine::FlowSnapshot> for wit::FlowSnapshot {
    fn from(flow: engine::FlowSnapshot) -> Self {
        Self {
            tuple: from_five_tuple(&flow.tuple),
            state: flow.state.into(),
            opened: flow.opened.0,
            bytes_received: flow.bytes_received,
            bytes_sent: flow.bytes_sent,
            receive_queue: flow.receive_queue,
            send_queue: flow.send_queue,
            receive_window: flow.receive_window,
            send_window: flow.send_window,
            congestion_window: flow.congestion_window,
            max_segment_size: flow.max_segment_size,
            round_trip_time: flow.round_trip_time.map(from_duration),
            retransmission_timeout: flow.retransmission_timeout.map(from_duration),
            retransmits: flow.retransmits,
        }
    }
}

impl From<engine::DropReason> for wit::DropReason {
    fn from(reason: engine::DropReason) -> Self {
        match reason {
            engine::DropReason::IpVersion => Self::IpVersion,
            engine::DropReason::Malformed => Self::Malformed,
            engine::DropReason::IpChecksum => Self::IpChecksum,
            engine::DropReason::TransportChecksum => Self::TransportChecksum,
            engine::DropReason::Fragment => Self::Fragment,
            engine::DropReason::ExtensionHeader => Self::ExtensionHeader,
            engine::DropReason::UnsupportedProtocol => Self::UnsupportedProtocol,
            engine::DropReason::Martian => Self::Martian,
            engine::DropReason::StraySegment => Self::StraySegment,
            engine::DropReason::Unacceptable => Self::Unacceptable,
            engine::DropReason::OutOfMemory => Self::OutOfMemory,
            engine::DropReason::Undecided => Self::Undecided,
            engine::DropReason::FlowLimit => Self::FlowLimit,
            engine::DropReason::Refused => Self::Refused,
            engine::DropReason::Dropped => Self::Dropped,
            engine::DropReason::NotTaken => Self::NotTaken,
            engine::DropReason::EchoPolicy => Self::EchoPolicy,
            engine::DropReason::IcmpIgnored => Self::IcmpIgnored,
        }
    }
}

impl From<engine::CounterSnapshot> for wit::CounterSnapshot {
    fn from(counters: engine::CounterSnapshot) -> Self {
        let drops = engine::DropReason::ALL.map(|reason| wit::DropCount {
            reason: reason.into(),
            packets: counters.dropped(reason),
        });
        Self {
            l3_rx_packets: counters.l3_rx_packets,
            l3_rx_bytes: counters.l3_rx_bytes,
            l3_tx_packets: counters.l3_tx_packets,
            l3_tx_bytes: counters.l3_tx_bytes,
            l4_rx_bytes: counters.l4_rx_bytes,
            l4_tx_bytes: counters.l4_tx_bytes,
            l4_polls: counters.l4_polls,
            drops: drops.to_vec(),
            datagrams_reassembled: counters.datagrams_reassembled,
            replies_lost: counters.replies_lost,
            replies_limited: counters.replies_limited,
            flows_announced: counters.flows_announced,
            flows_opened: counters.flows_opened,
            flows_closed: counters.flows_closed,
            flows_evicted: counters.flows_evicted,
            flows_out_of_memory: counters.flows_out_of_memory,
            repeated_syns: counters.repeated_syns,
            syn_cookies_sent: counters.syn_cookies_sent,
            syn_cookies_accepted: counters.syn_cookies_accepted,
            challenge_acks: counters.challenge_acks,
            retransmits: counters.retransmits,
            time_went_back: counters.time_went_back,
            flows: counters.flows,
            half_open: counters.half_open,
            time_wait: counters.time_wait,
            memory_bytes: counters.memory_bytes,
        }
    }
}
