//! smoltcp's TCP socket, one a flow in a set of its own: a set shared by all
//! flows is scanned for every packet (151 µs at 10,000 flows).

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use smoltcp::iface::{
    Config as InterfaceConfig, Interface, PollResult, SocketHandle, SocketSet, SocketStorage,
};
pub(super) use smoltcp::socket::tcp::State;
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer};
use smoltcp::time::Duration as SmolDuration;
use smoltcp::wire::{HardwareAddress, IpEndpoint, IpListenEndpoint, IpProtocol, IpRepr, TcpRepr};

use super::port::{Port, Shape, smol_instant};
use super::segment::{self, Syn};
use super::wire::Wire;
use crate::config::Config;
use crate::ip;
use crate::siphash::Key;
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::{FlowOptions, FlowState, Instant, Protocol};

/// What all sockets share: smoltcp's interface, and the key of the initial
/// sequence numbers.
pub(crate) struct Sockets {
    interface: Interface,
    key: Key,
    /// Handshakes so far.
    handshakes: u64,
    mtu: usize,
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets")
            .field("handshakes", &self.handshakes)
            .finish_non_exhaustive()
    }
}

impl Sockets {
    pub(crate) fn new(config: &Config, key: Key) -> Self {
        let mtu = config.mtu as usize;
        Self {
            interface: interface(mtu, 0),
            key,
            handshakes: 0,
            mtu,
        }
    }

    /// Seeds the next initial sequence number with the keyed hash of the tuple
    /// and the count of handshakes: each is independent of all others to whom
    /// the key is unknown (RFC 6528 3). smoltcp draws the number from its
    /// interface's generator, so the interface is made anew.
    fn begin_handshake(&mut self, tuple: &Tuple) {
        self.handshakes += 1;
        self.interface = interface(self.mtu, tuple.hash(&self.key, self.handshakes));
    }
}

fn interface(mtu: usize, seed: u64) -> Interface {
    let mut config = InterfaceConfig::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, &mut Shape(mtu), smoltcp::time::Instant::ZERO);
    interface.set_any_ip(true);
    interface
}

/// One socket.
#[derive(Debug)]
pub(crate) struct TcpSocket {
    set: SocketSet<'static>,
    handle: SocketHandle,
}

impl TcpSocket {
    /// Bytes a socket takes beside its buffers.
    pub(crate) const SIZE: usize = size_of::<SocketStorage<'static>>();

    pub(crate) fn new(config: &Config, options: &FlowOptions) -> Self {
        let buffer = |bytes: u32| SocketBuffer::new(vec![0; bytes as usize]);
        let mut socket = Socket::new(
            buffer(config.tcp_receive_buffer.min(65_535)),
            buffer(config.tcp_send_buffer.min(65_535)),
        );
        socket.set_nagle_enabled(options.nagle);
        socket.set_keep_alive(options.keep_alive.map(SmolDuration::from));
        socket.set_congestion_control(CongestionControl::Reno);
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Self { set, handle }
    }

    fn socket(&self) -> &Socket<'static> {
        self.set.get(self.handle)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(self.handle)
    }

    /// Answers the SYN when it is next asked to transmit.
    pub(crate) fn accept(
        &mut self,
        sockets: &mut Sockets,
        turn: &mut Turn<'_>,
        wire: &mut Wire,
        tuple: &Tuple,
        syn: &Syn,
    ) {
        sockets.begin_handshake(tuple);
        let local = IpListenEndpoint {
            addr: Some(tuple.local.into()),
            port: tuple.local_port,
        };
        // Fails only for port 0, which the parser does not let through.
        if self.socket_mut().listen(local).is_err() {
            return;
        }
        self.l3_rx_repr(sockets, turn, wire, tuple, &syn.repr(tuple));
    }

    /// Takes in a segment of the peer's that is not lying there as a packet.
    pub(crate) fn l3_rx_repr(
        &mut self,
        sockets: &mut Sockets,
        turn: &mut Turn<'_>,
        wire: &mut Wire,
        tuple: &Tuple,
        repr: &TcpRepr<'_>,
    ) {
        let (src, dst) = (tuple.peer, tuple.local);
        let length = repr.buffer_len();
        let header = IpRepr::new(src.into(), dst.into(), IpProtocol::Tcp, length, 64);
        // The largest IP header and the largest TCP header.
        let mut packet = [0; 40 + 60];
        let (ip, rest) = packet.split_at_mut(header.header_len());
        header.emit(ip, &ip::checksums());
        segment::emit(repr, &mut rest[..length], src, dst);
        self.l3_rx(sockets, turn, wire, &packet[..header.header_len() + length]);
    }

    /// Sends a SYN when it is next asked to transmit. False when the addresses
    /// are not taken.
    pub(crate) fn open(&mut self, sockets: &mut Sockets, tuple: &Tuple) -> bool {
        sockets.begin_handshake(tuple);
        let peer = IpEndpoint::new(tuple.peer.into(), tuple.peer_port);
        let local = IpEndpoint::new(tuple.local.into(), tuple.local_port);
        let context = sockets.interface.context();
        self.set
            .get_mut::<Socket<'static>>(self.handle)
            .connect(context, peer, local)
            .is_ok()
    }

    /// Takes a packet in.
    pub(crate) fn l3_rx(
        &mut self,
        sockets: &mut Sockets,
        turn: &mut Turn<'_>,
        wire: &mut Wire,
        packet: &[u8],
    ) {
        let mut port = Port::new(turn, wire, Some(packet));
        let now = port.smol_now();
        sockets
            .interface
            .poll_ingress_single(now, &mut port, &mut self.set);
    }

    /// Copies bytes to the send buffer; none while the connection is not
    /// established. Returns how many.
    pub(crate) fn l4_tx(&mut self, data: &[u8]) -> usize {
        self.socket_mut().send_slice(data).unwrap_or(0)
    }

    /// Lends the next contiguous bytes of the receive buffer. Returns how many
    /// were lent and how many taken.
    pub(crate) fn deliver(&mut self, mut take: impl FnMut(&[u8]) -> usize) -> (usize, usize) {
        self.socket_mut()
            .recv(|data| {
                let taken = take(data).min(data.len());
                (taken, (data.len(), taken))
            })
            .unwrap_or((0, 0))
    }

    /// FIN follows the send buffer.
    pub(crate) fn finish(&mut self) {
        self.socket_mut().close();
    }

    /// RST goes out now.
    pub(crate) fn abort(&mut self, sockets: &mut Sockets, turn: &mut Turn<'_>, wire: &mut Wire) {
        self.socket_mut().abort();
        self.transmit(sockets, turn, wire);
    }

    /// Makes every packet that may go now.
    pub(crate) fn transmit(&mut self, sockets: &mut Sockets, turn: &mut Turn<'_>, wire: &mut Wire) {
        // Each poll makes one packet at most. smoltcp must not be asked without
        // room for it: it would take a retransmission for made that was not.
        while turn.make_room() {
            let mut port = Port::new(turn, wire, None);
            let now = port.smol_now();
            let polled = sockets.interface.poll_egress(now, &mut port, &mut self.set);
            if polled == PollResult::None {
                break;
            }
            self.stop_probing(sockets, turn, wire);
        }
    }

    /// In FIN-WAIT-2 smoltcp goes on to probe a window that closed before all was
    /// acknowledged: with one empty segment after the other, without end. A window
    /// of one byte, which nobody will use, stops that.
    fn stop_probing(&mut self, sockets: &mut Sockets, turn: &mut Turn<'_>, wire: &mut Wire) {
        let goes_on = |at: Instant| at <= turn.now;
        if self.state() == State::FinWait2
            && self.deadline(sockets, turn.now).is_some_and(goes_on)
            && let Some(tuple) = self.tuple()
        {
            let repr = TcpRepr {
                window_len: 1,
                ..wire.last_ack(&tuple)
            };
            self.l3_rx_repr(sockets, turn, wire, &tuple, &repr);
        }
    }

    /// Whether smoltcp has data that the peer has not acknowledged, and nothing
    /// in mind: it forgets to send again what was in flight when the peer's window
    /// closed, and to probe a window that closed on a retransmission.
    pub(crate) fn is_stuck(&self, sockets: &mut Sockets, now: Instant) -> bool {
        self.send_queue() > 0 && self.deadline(sockets, now).is_none()
    }

    /// Repeats the peer's last acknowledgement to smoltcp until it minds its data:
    /// one starts its probes, the third duplicate its retransmission.
    pub(crate) fn remind(&mut self, sockets: &mut Sockets, turn: &mut Turn<'_>, wire: &mut Wire) {
        let Some(tuple) = self.tuple() else {
            return;
        };
        let repr = wire.last_ack(&tuple);
        // The first may count as news.
        for _ in 0..4 {
            self.l3_rx_repr(sockets, turn, wire, &tuple, &repr);
            if !self.is_stuck(sockets, turn.now) {
                break;
            }
        }
    }

    /// When it next wants to transmit.
    pub(crate) fn deadline(&self, sockets: &mut Sockets, now: Instant) -> Option<Instant> {
        let at = sockets.interface.poll_at(smol_instant(now), &self.set)?;
        Some(Instant(
            u64::try_from(at.total_micros())
                .unwrap_or(0)
                .saturating_mul(1000),
        ))
    }

    pub(crate) fn state(&self) -> State {
        self.socket().state()
    }

    /// Both ends, while there is a connection.
    pub(crate) fn tuple(&self) -> Option<Tuple> {
        let socket = self.socket();
        let (local, peer) = (socket.local_endpoint()?, socket.remote_endpoint()?);
        Some(Tuple {
            protocol: Protocol::Tcp,
            local: local.addr.into(),
            peer: peer.addr.into(),
            local_port: local.port,
            peer_port: peer.port,
        })
    }

    pub(crate) fn receive_queue(&self) -> usize {
        self.socket().recv_queue()
    }

    pub(crate) fn send_queue(&self) -> usize {
        self.socket().send_queue()
    }

    /// Whether the send buffer has room for a worthwhile write: a quarter of it.
    pub(crate) fn has_room(&self) -> bool {
        let socket = self.socket();
        socket.may_send()
            && socket.send_capacity() - socket.send_queue() >= socket.send_capacity() / 4
    }

    /// Whether data or FIN waits for the peer's acknowledgement.
    pub(crate) fn is_outstanding(&self) -> bool {
        self.send_queue() > 0
            || matches!(
                self.state(),
                State::FinWait1 | State::Closing | State::LastAck
            )
    }
}

/// RFC 9293 3.3.2 in the words of the contract.
pub(super) fn flow_state(state: State) -> FlowState {
    match state {
        State::Closed | State::Listen | State::TimeWait => FlowState::Closed,
        State::SynSent => FlowState::SynSent,
        State::SynReceived => FlowState::SynReceived,
        State::Established => FlowState::Established,
        State::FinWait1 => FlowState::FinWait1,
        State::FinWait2 => FlowState::FinWait2,
        State::CloseWait => FlowState::CloseWait,
        State::Closing => FlowState::Closing,
        State::LastAck => FlowState::LastAck,
    }
}
