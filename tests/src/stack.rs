//! A smoltcp stack as a peer in virtual time.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use l3l4_engine::Instant;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as Clock;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};

/// What a stack is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is.
    pub addresses: [IpAddr; 2],
    /// Bytes of its longest packet.
    pub mtu: usize,
    /// Bytes of a socket's buffer, each way.
    pub buffer: usize,
    /// Sends without congestion control, not with Reno.
    pub uncontrolled: bool,
    /// Chooses its initial sequence numbers.
    pub seed: u64,
}

/// A smoltcp stack with its device.
pub struct Stack {
    interface: Interface,
    device: Wire,
    /// Its sockets.
    pub sockets: SocketSet<'static>,
    port: u16,
    buffer: usize,
    uncontrolled: bool,
}

impl Stack {
    /// A stack without sockets.
    #[must_use]
    pub fn new(settings: &Settings, now: Instant) -> Self {
        let mut device = Wire {
            mtu: settings.mtu,
            received: VecDeque::new(),
            sent: VecDeque::new(),
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = settings.seed;
        let mut interface = Interface::new(config, &mut device, clock(now));
        interface.update_ip_addrs(|addresses| {
            for each in settings.addresses {
                addresses
                    .push(IpCidr::new(address(each), 0))
                    .expect("room for two");
            }
        });
        Self {
            interface,
            device,
            sockets: SocketSet::new(Vec::new()),
            port: 50_000,
            buffer: settings.buffer,
            uncontrolled: settings.uncontrolled,
        }
    }

    /// Begins a connection.
    pub fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        self.port += 1;
        self.connect_from(self.port, to)
    }

    /// Begins a connection from this port.
    pub fn connect_from(&mut self, port: u16, to: SocketAddr) -> SocketHandle {
        let mut socket = self.new_socket();
        let to = IpEndpoint::new(address(to.ip()), to.port());
        socket
            .connect(self.interface.context(), to, port)
            .expect("connects");
        self.sockets.add(socket)
    }

    /// Listens on a port.
    pub fn listen(&mut self, port: u16) -> SocketHandle {
        let mut socket = self.new_socket();
        socket.listen(port).expect("listens");
        self.sockets.add(socket)
    }

    /// One of its sockets.
    pub fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends what there is room for, from the front of `data`.
    pub fn send(&mut self, handle: SocketHandle, data: &[u8]) -> usize {
        let socket = self.socket(handle);
        if socket.can_send() {
            socket.send_slice(data).expect("sends")
        } else {
            0
        }
    }

    /// Takes all that arrived.
    pub fn receive(&mut self, handle: SocketHandle) -> Vec<u8> {
        let socket = self.socket(handle);
        let mut all = Vec::new();
        while socket.can_recv() {
            let piece = socket
                .recv(|data| (data.len(), data.to_vec()))
                .expect("receives");
            all.extend(piece);
        }
        all
    }

    /// Whether the peer sent FIN and all before it was taken.
    pub fn peer_finished(&mut self, handle: SocketHandle) -> bool {
        let nothing = self.socket(handle).recv(|_| (0, ()));
        matches!(nothing, Err(tcp::RecvError::Finished))
    }

    fn new_socket(&self) -> tcp::Socket<'static> {
        let buffer = || tcp::SocketBuffer::new(vec![0; self.buffer]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_congestion_control(match self.uncontrolled {
            true => tcp::CongestionControl::None,
            false => tcp::CongestionControl::Reno,
        });
        socket
    }

    /// Packets come in at its device.
    pub fn arrive(&mut self, packets: Vec<Vec<u8>>) {
        self.device.received.extend(packets);
    }

    /// The packets that it sent since the last look.
    pub fn sent(&mut self) -> VecDeque<Vec<u8>> {
        std::mem::take(&mut self.device.sent)
    }

    /// Lets it work.
    pub fn act(&mut self, now: Instant) {
        self.interface
            .poll(clock(now), &mut self.device, &mut self.sockets);
    }

    /// When it wants to work next.
    pub fn next(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(clock(now), &self.sockets)?;
        let micros = u64::try_from(at.total_micros()).expect("after the origin");
        Some(Instant(micros * 1000))
    }
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stack")
    }
}

fn clock(now: Instant) -> Clock {
    Clock::from_micros(i64::try_from(now.0 / 1000).expect("within 292,000 years"))
}

fn address(address: IpAddr) -> IpAddress {
    address.into()
}

/// Its device: two queues.
#[derive(Debug)]
struct Wire {
    mtu: usize,
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _now: Clock) -> Option<(Received, Sending<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _now: Clock) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}
