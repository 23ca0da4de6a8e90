//! smoltcp's TCP socket, one a flow in a set of its own: a set shared by all
//! flows is scanned for every packet (151 µs at 10,000 flows).

use std::fmt;

use l3l4_engine::Instant;
use smoltcp::iface::{Config as InterfaceConfig, Interface, PollResult, SocketHandle, SocketSet};
pub(super) use smoltcp::socket::tcp::State;
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer};
use smoltcp::wire::{HardwareAddress, IpListenEndpoint, IpProtocol, IpRepr, TcpRepr};

use super::port::{Port, Shape, smol_instant};
use super::segment::{self, Syn};
use super::siphash::Key;
use super::table::Tuple;
use super::wire::Wire;
use super::{Config, Turn, ip};

/// What all sockets share: smoltcp's interface, and the key of the initial
/// sequence numbers.
pub(super) struct Sockets {
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
    pub(super) fn new(mtu: usize, key: Key) -> Self {
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
pub(super) struct TcpSocket {
    set: SocketSet<'static>,
    handle: SocketHandle,
}

impl TcpSocket {
    pub(super) fn new(config: &Config) -> Self {
        let buffer = |bytes: usize| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(config.receive_buffer), buffer(config.send_buffer));
        socket.set_nagle_enabled(false);
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
    pub(super) fn accept(
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
    pub(super) fn l3_rx_repr(
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

    /// Takes a packet in.
    pub(super) fn l3_rx(
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
    pub(super) fn l4_tx(&mut self, data: &[u8]) -> usize {
        self.socket_mut().send_slice(data).unwrap_or(0)
    }

    /// Lends the next contiguous bytes of the receive buffer. Returns how many
    /// were lent and how many taken.
    pub(super) fn deliver(&mut self, mut take: impl FnMut(&[u8]) -> usize) -> (usize, usize) {
        self.socket_mut()
            .recv(|data| {
                let taken = take(data).min(data.len());
                (taken, (data.len(), taken))
            })
            .unwrap_or((0, 0))
    }

    /// Makes every packet that may go now.
    pub(super) fn transmit(&mut self, sockets: &mut Sockets, turn: &mut Turn<'_>, wire: &mut Wire) {
        // Each poll makes one packet at most.
        loop {
            turn.egress.make_room(turn.callbacks, turn.counters);
            let mut port = Port::new(turn, wire, None);
            let now = port.smol_now();
            let polled = sockets.interface.poll_egress(now, &mut port, &mut self.set);
            if polled == PollResult::None {
                break;
            }
        }
    }

    /// Whether smoltcp has data that the peer has not acknowledged, and nothing
    /// in mind: it forgets to send again what was in flight when the peer's window
    /// closed, and to probe a window that closed on a retransmission.
    pub(super) fn is_stuck(&self, sockets: &mut Sockets, now: Instant) -> bool {
        self.send_queue() > 0 && self.deadline(sockets, now).is_none()
    }

    /// When it next wants to transmit.
    pub(super) fn deadline(&self, sockets: &mut Sockets, now: Instant) -> Option<Instant> {
        let at = sockets.interface.poll_at(smol_instant(now), &self.set)?;
        Some(Instant(
            u64::try_from(at.total_micros())
                .unwrap_or(0)
                .saturating_mul(1000),
        ))
    }

    pub(super) fn state(&self) -> State {
        self.socket().state()
    }

    pub(super) fn receive_queue(&self) -> usize {
        self.socket().recv_queue()
    }

    pub(super) fn send_queue(&self) -> usize {
        self.socket().send_queue()
    }

    /// Whether data or FIN waits for the peer's acknowledgement.
    pub(super) fn is_outstanding(&self) -> bool {
        self.send_queue() > 0
            || matches!(
                self.state(),
                State::FinWait1 | State::Closing | State::LastAck
            )
    }
}
