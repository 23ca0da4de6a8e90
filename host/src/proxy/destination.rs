//! The socket of a destination by shared reference: its loss is awaited while others
//! read and write, which tokio's own streams allow by exclusive reference only.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Reads and writes as the stream does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destination<'a>(pub(super) &'a TcpStream);

impl Destination<'_> {
    /// Waits until the connection has failed, whatever waits to be read, and says how.
    pub(super) async fn lost(self) -> io::Error {
        loop {
            if let Err(error) = self.0.ready(Interest::ERROR).await {
                return error;
            }
            let failed = || self.0.take_error()?.ok_or(ErrorKind::WouldBlock.into());
            match self.0.try_io(Interest::ERROR, failed) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(error) | Err(error) => return error,
            }
        }
    }

    /// Reads once. A read that does not fill the buffer has emptied the socket, which
    /// then says when there is more: asking it again would be a system call for each
    /// message.
    fn try_read(self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut taken = None;
        let read = self.0.try_io(Interest::READABLE, || {
            let length = (&*SockRef::from(self.0)).read(buffer)?;
            taken = Some(length);
            match 0 < length && length < buffer.len() {
                true => Err(ErrorKind::WouldBlock.into()),
                false => Ok(length),
            }
        });
        taken.map_or(read, Ok)
    }
}

impl AsyncRead for Destination<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.try_read(buffer.initialize_unfilled()) {
                Ok(length) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Destination<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(data) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// There is nothing to do: a socket sends as soon as it can.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = SockRef::from(self.0).shutdown(Shutdown::Write);
        Poll::Ready(match shut {
            // It was reset, which nobody has read yet.
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                let reset = || ErrorKind::ConnectionReset.into();
                Err(self.0.take_error()?.unwrap_or_else(reset))
            }
            shut => shut,
        })
    }
}
