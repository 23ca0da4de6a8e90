//! A small world in virtual time: a smoltcp client, a link with a delay, and the
//! device under test with an application behind it. Time jumps to the next event.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use l3l4_engine::Instant;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as Clock;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use crate::app::{App, Application};
use crate::scene::Scene;

/// Everything of one simulation.
pub struct World<'a> {
    /// The device under test.
    pub scene: &'a mut Scene,
    /// What runs behind it.
    pub app: Application,
    /// The far end.
    pub client: Client,
    link: Link,
}

impl<'a> World<'a> {
    /// A client 10 ms away from a device under test with this application.
    pub fn new(scene: &'a mut Scene, app: App) -> Self {
        let mtu = scene.host().mtu;
        let client = Client::new(mtu, scene.now);
        Self {
            scene,
            app: Application::new(app),
            client,
            link: Link::new(Duration::from_millis(10)),
        }
    }

    /// Runs until `done` or until `limit` has passed, which is a failure.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.scene.now + limit;
        while !done(self) {
            let next = self.step();
            if done(self) {
                break;
            }
            let Some(next) = next.filter(|next| *next <= end) else {
                panic!(
                    "not done in {limit:?}\n{}",
                    self.scene.host().trace.tail(40)
                );
            };
            self.scene.now = next;
        }
    }

    /// Runs until nothing is left to happen, or `limit` has passed.
    pub fn run_for(&mut self, limit: Duration) {
        let end = self.scene.now + limit;
        while let Some(next) = self.step().filter(|next| *next <= end) {
            self.scene.now = next;
        }
        self.scene.now = end;
    }

    /// All that happens at this instant; then the instant of the next event.
    fn step(&mut self) -> Option<Instant> {
        let now = self.scene.now;
        for packet in self.link.arrived(now, End::Client) {
            self.client.device.received.push_back(packet);
        }
        let batch = self.link.arrived(now, End::Engine);
        if !batch.is_empty() {
            self.scene.rx_batch(&batch);
        }
        if self.scene.deadline.is_some_and(|deadline| deadline <= now) {
            self.scene.poll();
        }
        self.app.react(self.scene);
        // A device that refused packets has room again at once.
        while self.scene.host().packets_kept() && self.scene.host().device_room != Some(0) {
            self.scene.poll();
            self.app.react(self.scene);
        }
        self.client.act(now);
        for packet in self.client.device.sent.drain(..) {
            self.link.send(now, End::Engine, packet);
        }
        for packet in std::mem::take(&mut self.scene.host().sent) {
            self.link.send(now, End::Client, packet);
        }
        let times = [self.link.next(), self.scene.deadline, self.client.next(now)];
        let next = times.into_iter().flatten().min()?;
        // A peer that wants to act at once acts a microsecond later, its tick.
        Some(next.max(now + Duration::from_micros(1)))
    }
}

impl std::fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World of {:?}", self.scene)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Client,
    Engine,
}

/// Carries packets with a delay. Impairments belong into [`Link::send`].
#[derive(Debug)]
struct Link {
    delay: Duration,
    serial: u64,
    flying: BTreeMap<(Instant, u64), (End, Vec<u8>)>,
}

impl Link {
    fn new(delay: Duration) -> Self {
        Self {
            delay,
            serial: 0,
            flying: BTreeMap::new(),
        }
    }

    fn send(&mut self, now: Instant, to: End, packet: Vec<u8>) {
        self.serial += 1;
        self.flying
            .insert((now + self.delay, self.serial), (to, packet));
    }

    fn arrived(&mut self, now: Instant, at: End) -> Vec<Vec<u8>> {
        let due: Vec<_> = self
            .flying
            .range(..=(now, u64::MAX))
            .filter(|(_, (end, _))| *end == at)
            .map(|(key, _)| *key)
            .collect();
        due.iter()
            .filter_map(|key| self.flying.remove(key))
            .map(|(_, packet)| packet)
            .collect()
    }

    fn next(&self) -> Option<Instant> {
        self.flying.keys().next().map(|(at, _)| *at)
    }
}

/// A smoltcp stack at 198.51.100.2 and 2001:db8::b.
pub struct Client {
    interface: Interface,
    device: Wire,
    /// Its sockets.
    pub sockets: SocketSet<'static>,
    port: u16,
}

impl Client {
    fn new(mtu: usize, now: Instant) -> Self {
        let mut device = Wire {
            mtu,
            received: VecDeque::new(),
            sent: VecDeque::new(),
        };
        let mut settings = Config::new(HardwareAddress::Ip);
        settings.random_seed = 1;
        let mut interface = Interface::new(settings, &mut device, clock(now));
        interface.update_ip_addrs(|addresses| {
            for family in crate::craft::FAMILIES {
                let address = address(family.peer(1).ip());
                addresses
                    .push(IpCidr::new(address, 0))
                    .expect("room for two");
            }
        });
        Self {
            interface,
            device,
            sockets: SocketSet::new(Vec::new()),
            port: 50_000,
        }
    }

    /// Begins a connection, with 64 KiB of buffer each way.
    pub fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        self.port += 1;
        let mut socket = socket();
        let to = IpEndpoint::new(address(to.ip()), to.port());
        socket
            .connect(self.interface.context(), to, self.port)
            .expect("connects");
        self.sockets.add(socket)
    }

    /// Listens on a port.
    pub fn listen(&mut self, port: u16) -> SocketHandle {
        let mut socket = socket();
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

    fn act(&mut self, now: Instant) {
        self.interface
            .poll(clock(now), &mut self.device, &mut self.sockets);
    }

    fn next(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(clock(now), &self.sockets)?;
        let micros = u64::try_from(at.total_micros()).expect("after the origin");
        Some(Instant(micros * 1000))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

fn socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; 65_535]);
    tcp::Socket::new(buffer(), buffer())
}

fn clock(now: Instant) -> Clock {
    Clock::from_micros(i64::try_from(now.0 / 1000).expect("within 292,000 years"))
}

fn address(address: IpAddr) -> IpAddress {
    address.into()
}

/// The client's device: two queues.
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
