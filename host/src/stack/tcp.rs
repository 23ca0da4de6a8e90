//! A TCP connection as a stream of tokio's.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::flow::{Flow, Owner};
use super::queue::Queue;
use crate::{CloseReason, FlowId, FlowSnapshot};

/// A TCP connection of the engine.
///
/// As [`tokio::net::TcpStream`], with these points written down:
/// - A read of 0 bytes means that the peer has sent FIN, and nothing else does. Any
///   other end is an error that carries its [`CloseReason`]
///   ([`FlowEnded`](super::FlowEnded)), after all that was received before it.
/// - A peer's reset fails writing at once, and reading after what came before it. A
///   task that reads nothing for the time being awaits [`ending`](Self::ending) to
///   hear of it.
/// - `shutdown` sends FIN after what was written; reading goes on.
/// - A write takes what the [send queue](super::Builder::send_queue) has room for.
///   Taken is not acknowledged: await [`closed`](Self::closed) to learn that the
///   connection ended [`CloseReason::Finished`], with all data of both sides
///   acknowledged.
/// - Data that is not read fills the [receive queue](super::Builder::receive_queue),
///   then the engine's window, and then the peer waits.
/// - Dropping it sends what was written, then FIN. Received data that was not read,
///   or that comes later, resets the connection.
///
/// As with the standard library's streams, a shared reference reads and writes too.
///
/// Reading and writing are cancellation safe as tokio's own: `read` and `write` take
/// or give nothing when they are dropped before they are done; `read_exact`,
/// `write_all` and their like are not.
#[derive(Debug)]
pub struct TcpStream(Arc<Owner>);

/// The half of a [`TcpStream`] that reads; see [`TcpStream::into_split`].
#[derive(Debug)]
pub struct ReadHalf(Arc<Owner>);

/// The half of a [`TcpStream`] that writes; see [`TcpStream::into_split`]. Dropping
/// it sends FIN.
#[derive(Debug)]
pub struct WriteHalf(Arc<Owner>);

impl TcpStream {
    pub(super) fn new(owner: Owner) -> Self {
        Self(Arc::new(owner))
    }

    /// Two halves for two tasks. Dropping the half that writes sends FIN; dropping
    /// both is dropping the stream.
    #[must_use]
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (ReadHalf(Arc::clone(&self.0)), WriteHalf(self.0))
    }

    /// Waits until the handshake is complete.
    ///
    /// # Errors
    ///
    /// Why the flow ended without.
    pub async fn established(&self) -> io::Result<()> {
        let established = self.flow().established().await;
        established.map_err(|reason| super::FlowEnded(reason).into())
    }
}

macro_rules! connection {
    ($($name:ident),*) => { $(
        impl $name {
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

            /// Resets the connection: what was not sent or read is gone.
            pub fn abort(&self) {
                self.flow().abort();
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

            /// Waits until it is known how the flow ends: as [`closed`](Self::closed),
            /// and when the peer has reset the connection also while data that came
            /// before waits to be read, whoever reads it. Cancellation safe.
            pub async fn ending(&self) -> CloseReason {
                self.flow().ending().await
            }

            /// The engine's view of the connection: state, round trip, windows, bytes.
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

connection!(TcpStream, ReadHalf, WriteHalf);

macro_rules! reads {
    ($($name:ty),*) => { $(
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.flow().poll_read(cx, |received| read(received, buffer))
            }
        }
    )* };
}

reads!(TcpStream, &TcpStream, ReadHalf);

fn read(received: &mut Queue, buffer: &mut ReadBuf<'_>) {
    // A ring lies in at most two pieces.
    for _ in 0..2 {
        let piece = received.front();
        let length = piece.len().min(buffer.remaining());
        buffer.put_slice(&piece[..length]);
        received.advance(length);
    }
}

macro_rules! writes {
    ($($name:ty),*) => { $(
        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                data: &[u8],
            ) -> Poll<io::Result<usize>> {
                let taken = |queue: &mut Queue, room| Some(queue.push(data, room));
                self.flow().poll_write(cx, taken)
            }

            /// There is nothing to do: the driver sends as soon as it can.
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            /// FIN after what was written. Reading goes on.
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self.flow().finish())
            }
        }
    )* };
}

writes!(TcpStream, &TcpStream, WriteHalf);

impl Drop for WriteHalf {
    fn drop(&mut self) {
        let _ = self.flow().finish();
    }
}
