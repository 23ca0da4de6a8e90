//! The engine as streams and datagrams of tokio: any address, any port.
//!
//! A [`Stack`] joins an engine to a device of packets. Every flow that a peer opens
//! comes out of [`Stack::accept`] *before* it is answered, with the address that the
//! peer wanted; the application dials, asks, looks it up, and then accepts, refuses or
//! ignores it.
//!
//! ```
//! use l3l4_host::stack::{ChannelDevice, Incoming, Stack};
//! use l3l4_host::FlowOptions;
//! use tokio::io::copy;
//! use tokio::sync::mpsc;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! // The other ends are the link: a VPN, a microVM, a test. `FdDevice` is for TUN.
//! let (to_stack, packets_in) = mpsc::channel(256);
//! let (packets_out, from_stack) = mpsc::channel(256);
//! let device = ChannelDevice::new(packets_in, packets_out, 1500);
//!
//! let stack = Stack::builder().start(device)?;
//! # drop((to_stack, from_stack));
//! while let Ok(incoming) = stack.accept().await {
//!     match incoming {
//!         Incoming::Tcp(tcp) => {
//!             tokio::spawn(async move {
//!                 let (mut read, mut write) = tcp.accept(FlowOptions::default()).into_split();
//!                 copy(&mut read, &mut write).await
//!             });
//!         }
//!         Incoming::Udp(udp) => {
//!             tokio::spawn(async move {
//!                 let flow = udp.accept(FlowOptions::default());
//!                 while let Ok(datagram) = flow.recv_vec().await {
//!                     flow.send(&datagram).await?;
//!                 }
//!                 std::io::Result::Ok(())
//!             });
//!         }
//!         other => other.ignore(),
//!     }
//! }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Coming from another stack
//!
//! A program over `ipstack` reads `while let Ok(stream) = ip_stack.accept().await`
//! with `IpStackStream::Tcp(stream)` and `IpStackStream::Udp(stream)`: here the same
//! loop has [`Incoming::Tcp`] and [`Incoming::Udp`], and the verdict is a call of its
//! own. One over `netstack-smoltcp` has a `TcpListener` that yields `(stream, local,
//! remote)` and a `UdpSocket` of `(data, from, to)`: here these are
//! [`TcpStream::local_addr`], [`TcpStream::peer_addr`], [`UdpFlow::recv`] and
//! [`UdpFlow::send_from`]; there the source of a packet is called *local*, here *local*
//! is the side that the engine speaks for. `tokio::io::copy_bidirectional` and all
//! else that takes `AsyncRead + AsyncWrite` work as they are. The whole port of an
//! `ipstack` proxy's loop:
//!
//! ```no_run
//! # async fn example(stack: l3l4_host::stack::Stack) {
//! use l3l4_host::stack::Incoming;
//! use l3l4_host::{FlowOptions, Refusal};
//! use tokio::io::copy_bidirectional;
//! use tokio::net::TcpStream;
//!
//! while let Ok(incoming) = stack.accept().await {
//!     if let Incoming::Tcp(tcp) = incoming {
//!         tokio::spawn(async move {
//!             match TcpStream::connect(tcp.local_addr()).await {
//!                 Ok(mut server) => {
//!                     let mut client = tcp.accept(FlowOptions::default());
//!                     let _ = copy_bidirectional(&mut client, &mut server).await;
//!                 }
//!                 Err(_) => tcp.refuse(Refusal::Reset),
//!             }
//!         });
//!     }
//! }
//! # }
//! ```
//!
//! # Back-pressure
//!
//! Nothing grows without bound: flows wait for `accept` in a [backlog](Builder::backlog),
//! received data in the [receive queue](Builder::receive_queue) and then in the
//! engine's window, data to send in the [send queue](Builder::send_queue), packets in
//! the engine until the device takes them. All queues together have one
//! [memory](Builder::queue_memory).
//!
//! # Cancellation
//!
//! A future of this module that is dropped before it is ready has done nothing:
//! [`Stack::accept`] loses no flow, `recv` no datagram, `send` has queued its datagram
//! or not, a connection of [`Stack::connect`] is given up. What tokio builds from several steps
//! (`read_exact`, `write_all`, `copy`) is not cancellation safe, here as there.
//!
//! # Threads
//!
//! Each engine is driven by one task, so by one thread at a time. With several
//! queues of a link [`Builder::start_spread`] makes an engine for each, and a flow
//! stays with one of them.
//!
//! # A packet's way through the files
//!
//! `device.rs` (`poll_receive`) → `spread.rs` (whose is it) → `driver.rs` (`l3_rx`) → the
//! engine → `border.rs` (`l4_rx`) → `flow.rs` (queues of one flow) → `tcp.rs`,
//! `datagrams.rs` (the application's task). Back: `flow.rs` → `inbox.rs` (which flows
//! want something) → `driver.rs` (`l4_tx`, or `l4_tx_batch` of what is in `gathered.rs`) →
//! the engine → `border.rs` (`l3_tx`) → `device.rs`.

mod border;
mod budget;
mod builder;
mod datagrams;
mod device;
mod driver;
mod error;
mod flow;
mod gathered;
mod inbox;
mod incoming;
mod metrics;
mod queue;
mod spread;
mod tcp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

pub use builder::Builder;
pub use datagrams::{EchoFlow, UdpFlow};
pub use device::{ChannelDevice, FdDevice, PacketDevice, StreamSink};
pub use error::FlowEnded;
pub use incoming::{Incoming, IncomingEcho, IncomingTcp, IncomingUdp};
pub use metrics::{Metrics, Tally};
pub use tcp::{ReadHalf, TcpStream, WriteHalf};

use crate::record::Failure;
use crate::{CounterSnapshot, FiveTuple, FlowOptions, Protocol};
use driver::Request;
use error::stack_ended;
use flow::Opened;

/// Why a stack does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine cannot be made.
    #[error(transparent)]
    Engine(#[from] crate::Error),
    /// [`Builder::start_spread`] was given no device.
    #[error("a stack needs at least one device")]
    NoDevice,
}

/// An engine, or several, joined to a device of packets. Clones are handles of the
/// same stack.
///
/// A stack with one device ends when its last handle and its last flow are gone; one
/// with several ends by [`shutdown`](Self::shutdown).
#[derive(Clone, Debug)]
pub struct Stack {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    accepted: Mutex<mpsc::Receiver<io::Result<Incoming>>>,
    drivers: Vec<mpsc::Sender<Request>>,
    owner: spread::Owner,
    record_failure: Failure,
}

impl Stack {
    /// What can be set before a stack exists.
    pub fn builder() -> Builder {
        Builder::new()
    }

    fn new(
        accepted: mpsc::Receiver<io::Result<Incoming>>,
        drivers: Vec<mpsc::Sender<Request>>,
        owner: spread::Owner,
        record_failure: Failure,
    ) -> Self {
        let shared = Shared {
            accepted: Mutex::new(accepted),
            drivers,
            owner,
            record_failure,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The next flow that a peer opens. Flows whose peer has given up meanwhile are
    /// left out. Cancellation safe; several tasks may wait, each gets another flow.
    ///
    /// # Errors
    ///
    /// The device or the engine failed, or [`shutdown`](Self::shutdown) was called:
    /// there will be no more flows.
    pub async fn accept(&self) -> io::Result<Incoming> {
        let mut accepted = self.shared.accepted.lock().await;
        loop {
            match accepted.recv().await {
                Some(Ok(incoming)) if incoming.has_given_up() => {}
                Some(incoming) => return incoming,
                None => return Err(stack_ended()),
            }
        }
    }

    /// Connects to `peer` from `local`, any address and port, and waits for the
    /// handshake. Cancellation safe: a connection that nobody waits for is given up.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when the two ends have a flow already; what the peer or the network
    /// answered ([`FlowEnded`]).
    pub async fn connect(
        &self,
        local: SocketAddr,
        peer: SocketAddr,
        options: FlowOptions,
    ) -> io::Result<TcpStream> {
        let opened = self.open(Protocol::Tcp, local, peer, options).await?;
        if let Some(flow) = opened.flow() {
            flow.established().await.map_err(FlowEnded)?;
        }
        opened.take().map(TcpStream::new).ok_or_else(stack_ended)
    }

    /// Opens a UDP flow from `local` to `peer`.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when the two ends have a flow already.
    pub async fn open_udp(
        &self,
        local: SocketAddr,
        peer: SocketAddr,
        options: FlowOptions,
    ) -> io::Result<UdpFlow> {
        let opened = self.open(Protocol::Udp, local, peer, options).await?;
        opened.take().map(UdpFlow::new).ok_or_else(stack_ended)
    }

    /// What the stack has counted.
    ///
    /// # Errors
    ///
    /// The stack has ended.
    pub async fn metrics(&self) -> io::Result<Metrics> {
        let mut sum = Metrics::default();
        for driver in 0..self.shared.drivers.len() {
            sum.add(&self.ask(driver, Request::Metrics).await?);
        }
        Ok(sum)
    }

    /// The engines' totals.
    ///
    /// # Errors
    ///
    /// The stack has ended.
    pub async fn counters(&self) -> io::Result<CounterSnapshot> {
        Ok(self.metrics().await?.engine)
    }

    /// [`Metrics::prometheus`] of what the stack has counted.
    ///
    /// # Errors
    ///
    /// The stack has ended.
    pub async fn prometheus(&self) -> io::Result<String> {
        Ok(self.metrics().await?.prometheus())
    }

    /// Resets or refuses every flow, so that the peers are told, and ends. Waits at most a second
    /// for a device that takes no packets.
    pub async fn shutdown(&self) {
        for driver in 0..self.shared.drivers.len() {
            // One that has ended already has told its flows.
            let _ = self.ask(driver, Request::Shutdown).await;
        }
    }

    /// What ended the record ([`Builder::record`]) before the engine, which goes on
    /// without. `None` while all is written, after [`shutdown`](Self::shutdown) to the
    /// last frame; and when nothing is recorded.
    #[must_use]
    pub fn record_failure(&self) -> Option<&io::Error> {
        self.shared.record_failure.get()
    }

    async fn open(
        &self,
        protocol: Protocol,
        local: SocketAddr,
        peer: SocketAddr,
        options: FlowOptions,
    ) -> io::Result<Opened> {
        let tuple = FiveTuple {
            protocol,
            local,
            peer,
        };
        let driver = self.shared.owner.of_flow(&tuple);
        let open = |reply| Request::Open {
            tuple,
            options: options.clamped(),
            reply,
        };
        self.ask(driver, open).await?
    }

    async fn ask<R>(
        &self,
        driver: usize,
        request: impl FnOnce(oneshot::Sender<R>) -> Request,
    ) -> io::Result<R> {
        let (reply, answer) = oneshot::channel();
        let sent = self.shared.drivers[driver].send(request(reply)).await;
        sent.map_err(|_| stack_ended())?;
        answer.await.map_err(|_| stack_ended())
    }
}
