//! A client stack in memory (smoltcp), for where no kernel's can be had.
//!
//! One thread drives the stack. Clients lock it, do their operation on a socket,
//! wake the driver, and sleep until something changed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use l3l4_host::device::{Device as _, Memory, Waker};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::client::{Datagrams, Network, PATIENCE, Ping, Stream};
use super::icmp as messages;

/// 65,535: a larger receive buffer can make smoltcp 0.14 assert on a segment that
/// comes before its first acknowledgement.
const TCP_BUFFER: usize = 65_535;

/// The stack and the thread that drives it.
pub(super) struct InMemory {
    shared: Arc<Shared>,
    driver: Option<JoinHandle<()>>,
}

struct Shared {
    stack: Mutex<Stack>,
    changed: Condvar,
    waker: Waker,
    stop: AtomicBool,
    start: std::time::Instant,
}

struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    /// Removed once they have said their last.
    leaving: VecDeque<SocketHandle>,
    next_port: u16,
}

impl InMemory {
    /// A stack with these addresses, on the device.
    pub(super) fn start(device: Memory, addresses: &[(IpAddr, u8)]) -> io::Result<Self> {
        let start = std::time::Instant::now();
        let waker = device.waker();
        let mut port = Port {
            device,
            buffer: Vec::new(),
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 0x6c33_6c34;
        let mut interface = Interface::new(config, &mut port, Instant::ZERO);
        interface.update_ip_addrs(|list| {
            for (address, prefix) in addresses {
                // The build has room for two, one of each family.
                let _ = list.push(IpCidr::new((*address).into(), *prefix));
            }
        });
        let stack = Stack {
            interface,
            sockets: SocketSet::new(Vec::new()),
            leaving: VecDeque::new(),
            next_port: 49_152,
        };
        let shared = Arc::new(Shared {
            stack: Mutex::new(stack),
            changed: Condvar::new(),
            waker,
            stop: AtomicBool::new(false),
            start,
        });
        let driver = thread::Builder::new().name("client".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.drive(port)
        })?;
        Ok(Self {
            shared,
            driver: Some(driver),
        })
    }

    fn socket(&self, handle: SocketHandle) -> Socket {
        Socket {
            shared: Arc::clone(&self.shared),
            handle,
        }
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.waker.wake();
        if let Some(driver) = self.driver.take() {
            let _ = driver.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        let micros = self.start.elapsed().as_micros();
        Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn drive(&self, mut port: Port) {
        while !self.stop.load(Ordering::Relaxed) {
            let mut stack = self.lock();
            let Stack {
                interface,
                sockets,
                leaving,
                ..
            } = &mut *stack;
            interface.poll(self.now(), &mut port, sockets);
            for handle in leaving.drain(..) {
                sockets.remove(handle);
            }
            let delay = interface.poll_delay(self.now(), sockets);
            drop(stack);
            self.changed.notify_all();
            let delay = delay.map(|delay| Duration::from_micros(delay.total_micros()));
            // With no room the device would be asked again and again.
            let want_room = !port.device.has_room();
            let delay = if want_room { None } else { delay };
            if port.device.wait(delay, want_room).is_err() {
                break;
            }
        }
    }

    /// Repeats `attempt` until it comes to an end, or no end in [`PATIENCE`].
    fn complete<T>(
        &self,
        mut attempt: impl FnMut(&mut Stack) -> Option<io::Result<T>>,
    ) -> io::Result<T> {
        let until = std::time::Instant::now() + PATIENCE;
        let mut stack = self.lock();
        loop {
            if let Some(result) = attempt(&mut stack) {
                drop(stack);
                self.waker.wake();
                return result;
            }
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let waited = self.changed.wait_timeout(stack, left);
            stack = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Stack {
    fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(49_152);
        port
    }
}

impl Network for InMemory {
    fn tcp(&self, to: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut stack = self.shared.lock();
        let port = stack.port();
        socket
            .connect(stack.interface.context(), to, port)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let handle = stack.sockets.add(socket);
        drop(stack);
        self.shared.waker.wake();
        let connection = self.socket(handle);
        self.shared.complete(|stack| {
            match stack.sockets.get::<tcp::Socket<'_>>(handle).state() {
                tcp::State::SynSent | tcp::State::SynReceived => None,
                tcp::State::Closed => Some(Err(ErrorKind::ConnectionRefused.into())),
                _ => Some(Ok(())),
            }
        })?;
        Ok(Box::new(connection))
    }

    fn udp(&self, to: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 4 * 65_536]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        let mut stack = self.shared.lock();
        let port = stack.port();
        socket
            .bind(port)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let handle = stack.sockets.add(socket);
        Ok(Box::new(UdpClient {
            socket: self.socket(handle),
            to,
        }))
    }

    fn ping(&self, to: IpAddr) -> io::Result<Box<dyn Ping>> {
        let buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 2 * 65_536]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket
            .bind(icmp::Endpoint::Ident(messages::IDENTIFIER))
            .map_err(|error| io::Error::other(error.to_string()))?;
        let handle = self.shared.lock().sockets.add(socket);
        Ok(Box::new(PingClient {
            socket: self.socket(handle),
            to,
        }))
    }
}

/// A socket of the stack, removed when this is dropped.
struct Socket {
    shared: Arc<Shared>,
    handle: SocketHandle,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut stack = self.shared.lock();
        if let Some(smoltcp::socket::Socket::Tcp(socket)) = stack
            .sockets
            .iter_mut()
            .find_map(|(handle, socket)| (handle == self.handle).then_some(socket))
            && socket.state() != tcp::State::TimeWait
        {
            socket.abort();
        }
        stack.leaving.push_back(self.handle);
        drop(stack);
        self.shared.waker.wake();
    }
}

impl Stream for Socket {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.shared.complete(|stack| {
            let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
            match socket.recv_slice(buffer) {
                Ok(0) => None,
                Ok(taken) => Some(Ok(taken)),
                Err(tcp::RecvError::Finished) => Some(Ok(0)),
                Err(tcp::RecvError::InvalidState) => Some(Err(ErrorKind::ConnectionReset.into())),
            }
        })
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.shared.complete(|stack| {
            let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
            match socket.send_slice(data) {
                Ok(0) => None,
                Ok(taken) => Some(Ok(taken)),
                Err(tcp::SendError::InvalidState) => Some(Err(ErrorKind::ConnectionReset.into())),
            }
        })
    }

    fn finish(&self) -> io::Result<()> {
        self.shared.complete(|stack| {
            stack
                .sockets
                .get_mut::<tcp::Socket<'_>>(self.handle)
                .close();
            Some(Ok(()))
        })
    }
}

struct UdpClient {
    socket: Socket,
    to: SocketAddr,
}

impl Datagrams for UdpClient {
    fn send(&self, data: &[u8]) -> io::Result<()> {
        self.socket.shared.complete(|stack| {
            let socket = stack.sockets.get_mut::<udp::Socket<'_>>(self.socket.handle);
            match socket.send_slice(data, self.to) {
                Ok(()) => Some(Ok(())),
                Err(udp::SendError::BufferFull) => None,
                Err(error) => Some(Err(io::Error::other(error.to_string()))),
            }
        })
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.shared.complete(|stack| {
            let socket = stack.sockets.get_mut::<udp::Socket<'_>>(self.socket.handle);
            match socket.recv_slice(buffer) {
                Ok((length, from)) if from.endpoint == self.to.into() => Some(Ok(length)),
                Ok(_) | Err(udp::RecvError::Exhausted) => None,
                Err(error) => Some(Err(io::Error::other(error.to_string()))),
            }
        })
    }
}

struct PingClient {
    socket: Socket,
    to: IpAddr,
}

impl Ping for PingClient {
    fn ping(&self, sequence: u16, data: &[u8]) -> io::Result<Vec<u8>> {
        let request = messages::request(self.to, sequence, data);
        self.socket.shared.complete(|stack| {
            let socket = stack
                .sockets
                .get_mut::<icmp::Socket<'_>>(self.socket.handle);
            match socket.send_slice(&request, self.to.into()) {
                Ok(()) => Some(Ok(())),
                Err(icmp::SendError::BufferFull) => None,
                Err(error) => Some(Err(io::Error::other(error.to_string()))),
            }
        })?;
        self.socket.shared.complete(|stack| {
            let socket = stack
                .sockets
                .get_mut::<icmp::Socket<'_>>(self.socket.handle);
            let (message, _) = socket.recv().ok()?;
            messages::reply(self.to, sequence, message).map(Ok)
        })
    }
}

/// The device as smoltcp wants it.
struct Port {
    device: Memory,
    buffer: Vec<u8>,
}

impl phy::Device for Port {
    type RxToken<'a> = Received;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received, Room<'_>)> {
        if !self.device.has_room() {
            return None;
        }
        let mtu = self.device.mtu();
        self.buffer.resize(mtu, 0);
        let length = self.device.receive(&mut self.buffer).ok()?;
        let packet = Received(self.buffer[..length].to_vec());
        Some((packet, Room(self)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Room<'_>> {
        self.device.has_room().then_some(Room(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.device.mtu();
        capabilities
    }
}

struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Room<'a>(&'a mut Port);

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        self.0.buffer.resize(length.max(self.0.buffer.len()), 0);
        let packet = &mut self.0.buffer[..length];
        let result = write(packet);
        // There was room, and only the other end's departure takes it away.
        if let Err(error) = self.0.device.send(packet) {
            tracing::debug!(length, %error, "packet lost");
        }
        result
    }
}
