//! Flows of datagrams: UDP, and ping.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use super::flow::{Flow, Owner};
use super::queue::Queue;
use crate::{CloseReason, FlowId, FlowSnapshot, Refusal, Verdict};

/// The longest datagram that an IP packet can carry behind a header of 8 bytes
/// (RFC 791 3.1; RFC 8200 3 does not count the IPv6 header).
const LONGEST_V4: usize = 65_535 - 20 - 8;
const LONGEST_V6: usize = 65_535 - 8;

/// The datagrams between one peer's port and one local port.
///
/// The methods take `&self`, so that an [`Arc`](std::sync::Arc) of it serves several
/// tasks. Dropping it ends the flow; the peer's next datagram is a new one.
#[derive(Debug)]
pub struct UdpFlow(Owner);

/// The pings of one peer with one identifier. A datagram is the sequence number (2
/// bytes, network order) and the echo data, both ways.
///
/// Dropping it ends the flow.
#[derive(Debug)]
pub struct EchoFlow(Owner);

macro_rules! datagrams {
    ($($name:ident),*) => { $(
        impl $name {
            pub(super) fn new(owner: Owner) -> Self {
                Self(owner)
            }

            fn flow(&self) -> &Flow {
                &self.0.0
            }

            /// Who is at the other end.
            #[must_use]
            pub fn peer_addr(&self) -> SocketAddr {
                self.flow().tuple.peer
            }

            /// The address that the engine speaks for.
            #[must_use]
            pub fn local_addr(&self) -> SocketAddr {
                self.flow().tuple.local
            }

            /// The engine's name for the flow, as in logs and records.
            #[must_use]
            pub fn id(&self) -> FlowId {
                self.flow().id
            }

            /// The next datagram. What does not fit into `buffer` is lost, as with a
            /// socket. Cancellation safe.
            ///
            /// # Errors
            ///
            /// Why the flow has ended ([`FlowEnded`](super::FlowEnded)): when it was
            /// idle for too long `TimedOut`.
            pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
                poll_fn(|cx| self.poll_recv(cx, buffer)).await
            }

            /// As [`recv`](Self::recv).
            pub fn poll_recv(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
                poll_datagram(self.flow(), cx, |data| {
                    let length = data.len().min(buffer.len());
                    buffer[..length].copy_from_slice(&data[..length]);
                    length
                })
            }

            /// The next datagram, whole. Cancellation safe.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv).
            pub async fn recv_vec(&self) -> io::Result<Vec<u8>> {
                poll_fn(|cx| poll_datagram(self.flow(), cx, <[u8]>::to_vec)).await
            }

            /// Sends a datagram to the peer, from the flow's local address. Waits for
            /// room in the queue. Cancellation safe: it is queued or not.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for one that no IP packet can carry; why the flow has
            /// ended.
            pub async fn send(&self, data: &[u8]) -> io::Result<()> {
                poll_fn(|cx| poll_send(self.flow(), cx, data, None)).await
            }

            /// Ends the flow and tells the peer that what it sends reaches nobody
            /// (ICMP unreachable), as when the application's own way on was refused.
            pub fn refuse(self, refusal: Refusal) {
                self.flow().decide(Verdict::Refuse(refusal));
            }

            /// The truth about the end, when there was one.
            #[must_use]
            pub fn close_reason(&self) -> Option<CloseReason> {
                self.flow().close_reason()
            }

            /// Waits until the flow has ended. Cancellation safe.
            pub async fn closed(&self) -> CloseReason {
                self.flow().closed().await
            }

            /// The engine's view of the flow.
            ///
            /// # Errors
            ///
            /// The flow has ended.
            pub async fn info(&self) -> io::Result<FlowSnapshot> {
                self.flow().info().await
            }
        }
    )* };
}

datagrams!(UdpFlow, EchoFlow);

impl UdpFlow {
    /// As [`send`](Self::send), but from the source address `source`: the peer hears
    /// from whoever answered (full cone, RFC 4787 4.1).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and `InvalidInput` for a source of another family or
    /// without a port.
    pub async fn send_from(&self, source: SocketAddr, data: &[u8]) -> io::Result<()> {
        if source.is_ipv4() != self.peer_addr().is_ipv4() || source.port() == 0 {
            let why = format!(
                "{source} cannot be the source of a datagram to {}",
                self.peer_addr()
            );
            return Err(io::Error::new(ErrorKind::InvalidInput, why));
        }
        poll_fn(|cx| poll_send(self.flow(), cx, data, Some(source))).await
    }
}

fn poll_datagram<R>(
    flow: &Flow,
    cx: &Context<'_>,
    read: impl FnOnce(&[u8]) -> R,
) -> Poll<io::Result<R>> {
    let mut result = None;
    let polled = flow.poll_read(cx, |received| {
        if let Some((data, _)) = received.front_datagram() {
            result = Some(read(data));
        }
        received.advance_datagram();
    });
    polled.map(|done| {
        done?;
        // Datagrams have no end of the data.
        result.ok_or_else(|| ErrorKind::NotConnected.into())
    })
}

fn poll_send(
    flow: &Flow,
    cx: &Context<'_>,
    data: &[u8],
    source: Option<SocketAddr>,
) -> Poll<io::Result<()>> {
    let longest = match flow.tuple.peer {
        SocketAddr::V4(_) => LONGEST_V4,
        SocketAddr::V6(_) => LONGEST_V6,
    };
    if data.len() > longest {
        let why = format!(
            "a datagram of {} bytes: the longest is {longest}",
            data.len()
        );
        return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidInput, why)));
    }
    flow.poll_write(cx, |queue: &mut Queue, room| {
        queue.push_datagram(data, source, room).then_some(())
    })
}
