//! The network of the cases: this process's own namespace, whose servers are at its
//! loopback, and a TUN device with a proxy behind it for each case.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use l3l4_host::proxy::{Config, End, Flow, Mapping, Proxy, Watch};
use l3l4_host::stack::{FdDevice, Stack};
use l3l4_host::{Engine, netns, tun};
use socket2::SockRef;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long anything of a healthy proxy may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    /// Where servers are.
    pub(crate) fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// A listener at the loopback, with a port that is free.
    pub(crate) fn listen(self) -> TcpListener {
        TcpListener::bind((self.loopback(), 0)).expect("listens")
    }

    /// A port of the loopback at which nobody listens.
    pub(crate) fn closed_port(self) -> u16 {
        self.listen().local_addr().unwrap().port()
    }

    pub(crate) fn udp(self) -> UdpSocket {
        let socket = UdpSocket::bind((self.loopback(), 0)).expect("binds");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

/// The namespace.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    /// Networks given.
    networks: AtomicU8,
    /// A device that nobody reads.
    silence: Option<(Network, tun::Tun)>,
}

impl World {
    pub(crate) fn make() -> Result<Self, String> {
        netns::enter().map_err(|error| error.to_string())?;
        ip("link set lo up")?;
        let path = "/proc/sys/net/ipv4/ping_group_range";
        std::fs::write(path, "0 0").map_err(|error| format!("cannot write {path}: {error}"))?;
        // Its threads are of the namespace.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let mut world = Self {
            runtime,
            networks: AtomicU8::new(0),
            silence: None,
        };
        world.silence = Some(world.device()?);
        Ok(world)
    }

    /// The next network, with a device.
    pub(crate) fn device(&self) -> Result<(Network, tun::Tun), String> {
        let network = self.network();
        let device = tun::Tun::new(&tun::Configuration {
            name: network.name(),
            addresses: network.addresses().map(|it| it.parse().unwrap()).to_vec(),
            mtu: 1500,
        });
        let device = device.map_err(|error| error.to_string())?;
        network.wait();
        Ok((network, device))
    }

    pub(crate) fn network(&self) -> Network {
        Network(self.networks.fetch_add(1, Ordering::Relaxed))
    }

    /// Where hosts of a proxy's networks are: 7 at the loopback, 8 beyond all routes, 9
    /// where nobody answers.
    fn mappings(&self, network: Network) -> Vec<Mapping> {
        let mut mappings = Vec::new();
        for (family, nowhere) in [(Family::V4, "192.0.2.1"), (Family::V6, "2001:db8::1")] {
            let mut map = |host, to| {
                let from = network.at(family, host);
                mappings.push(Mapping { from, to });
            };
            map(7, family.loopback());
            map(8, nowhere.parse().unwrap());
            if let Some((silence, _)) = &self.silence {
                map(9, silence.at(family, 9));
            }
        }
        mappings
    }

    /// A proxy behind a device of its own.
    pub(crate) fn serve(&self, config: Config) -> Serving<'_> {
        let (network, device) = self.device().expect("a device");
        let proxy = Proxy::new(Config {
            map: self.mappings(network),
            ..config
        });
        let proxy = proxy.expect("a configuration");
        let log = Arc::new(Log::default());
        let entered = self.runtime.enter();
        let engine = Engine::builder().mtu(1500).icmp_echo(proxy.icmp_echo());
        let device = FdDevice::new(device).expect("a descriptor");
        let stack = Stack::builder().engine(engine).start(device);
        let stack = stack.expect("an engine");
        let (stop, stopped) = oneshot::channel::<()>();
        let (served, watch) = (stack.clone(), Arc::clone(&log));
        let task = self.runtime.spawn(async move {
            let stopped = async { drop(stopped.await) };
            proxy.serve(&served, watch, stopped).await.expect("served");
        });
        drop(entered);
        Serving {
            world: self,
            network,
            log,
            stack,
            stop: Some((stop, task)),
        }
    }
}

/// The networks of one device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network(u8);

impl Network {
    pub(crate) fn name(self) -> String {
        format!("proxy{}", self.0)
    }

    pub(crate) fn addresses(self) -> [String; 2] {
        [
            format!("10.{}.0.1/24", self.0),
            format!("fd00:{}::1/64", self.0),
        ]
    }

    pub(crate) fn at(self, family: Family, host: u8) -> IpAddr {
        match family {
            Family::V4 => [10, self.0, 0, host].into(),
            Family::V6 => {
                let text = format!("fd00:{}::{host}", self.0);
                text.parse().unwrap()
            }
        }
    }

    /// The IPv6 address is usable once the kernel has found nobody else to have it.
    fn wait(self) {
        let start = Instant::now();
        while UdpSocket::bind((self.at(Family::V6, 1), 0)).is_err() {
            assert!(start.elapsed() < PATIENCE, "the IPv6 address is not usable");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A proxy that serves.
pub(crate) struct Serving<'w> {
    world: &'w World,
    pub(crate) network: Network,
    pub(crate) log: Arc<Log>,
    stack: Stack,
    stop: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Serving<'_> {
    /// An address behind the device ([`World::mappings`]).
    pub(crate) fn at(&self, family: Family, host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.network.at(family, host), port)
    }

    /// Connects to a port of the loopback through the proxy.
    pub(crate) fn connect(&self, family: Family, port: u16) -> TcpStream {
        connect(self.at(family, 7, port)).expect("connects")
    }

    /// Ends the proxy, with its device.
    pub(crate) fn stop(&mut self) {
        if let Some((stop, task)) = self.stop.take() {
            drop(stop);
            self.world.runtime.block_on(async {
                task.await.expect("no panic");
                self.stack.shutdown().await;
            });
        }
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// Connects, with patience for all that follows.
pub(crate) fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The next connection, with patience.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Resets the connection.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// What the proxy told of its flows.
#[derive(Debug, Default)]
pub(crate) struct Log {
    lines: Mutex<Vec<String>>,
    told: Condvar,
}

impl Log {
    /// Waits until a flow to this port has ended, and says how.
    pub(crate) fn end_of(&self, port: u16) -> String {
        let of_port = format!(" {port} ");
        let lines = self.lines.lock().unwrap();
        let is_missing = |lines: &mut Vec<String>| !lines.iter().any(|it| it.contains(&of_port));
        let (mut lines, timeout) = self
            .told
            .wait_timeout_while(lines, PATIENCE, is_missing)
            .unwrap();
        assert!(!timeout.timed_out(), "no flow to {port} ended: {lines:?}");
        let found = lines.iter().position(|it| it.contains(&of_port)).unwrap();
        let line = lines.remove(found);
        line.split_once(&of_port).unwrap().1.to_owned()
    }
}

impl Watch for Log {
    fn ended(&self, flow: &Flow, end: &End) {
        let (protocol, port) = (flow.tuple.protocol, flow.tuple.local.port());
        let End {
            sent,
            received,
            reason,
            ..
        } = end;
        let line = format!("{protocol} {port} {sent} {received} {reason}");
        self.lines.lock().unwrap().push(line);
        self.told.notify_all();
    }
}

/// `ip` of iproute2, in this namespace.
pub(crate) fn ip(command: &str) -> Result<(), String> {
    let output = Command::new("ip").args(command.split_whitespace()).output();
    let output = output.map_err(|error| format!("cannot run ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(format!("ip {command}: {why}"))
        }
    }
}
