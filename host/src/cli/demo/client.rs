//! What the job needs of a network: the kernel's, or a stack in memory.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long any operation may make no progress: then it fails with `TimedOut`.
/// Longer than a handshake whose first two packets are lost (1 + 2 s).
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Clients, each blocking for at most [`PATIENCE`] a call.
pub(super) trait Network: Sync {
    fn tcp(&self, to: SocketAddr) -> io::Result<Box<dyn Stream>>;
    fn udp(&self, to: SocketAddr) -> io::Result<Box<dyn Datagrams>>;
    fn ping(&self, to: IpAddr) -> io::Result<Box<dyn Ping>>;
}

/// A TCP connection, whose two directions may be used by two threads.
pub(super) trait Stream: Send + Sync {
    /// 0 is the end of the data, and never an error.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    fn write(&self, data: &[u8]) -> io::Result<usize>;
    /// No more is sent. Receiving goes on.
    fn finish(&self) -> io::Result<()>;
}

/// A UDP socket that hears one peer only.
pub(super) trait Datagrams: Send {
    fn send(&self, data: &[u8]) -> io::Result<()>;
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;
}

/// Echo requests to one address.
pub(super) trait Ping: Send {
    /// Sends a request and returns the data of the reply to it.
    fn ping(&self, sequence: u16, data: &[u8]) -> io::Result<Vec<u8>>;
}

pub(super) fn write_all(stream: &dyn Stream, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let taken = stream.write(data)?;
        data = &data[taken..];
    }
    Ok(())
}

/// Fills the buffer; the end of the data before is an error.
pub(super) fn read_exact(stream: &dyn Stream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            taken => filled += taken,
        }
    }
    Ok(())
}
