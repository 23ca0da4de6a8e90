//! What a [`Stack`](super::Stack) is joined to: a device of packets that can be
//! polled.
//!
//! [`FdDevice`] is for everything with a descriptor, a TUN device first;
//! [`ChannelDevice`] for a pair of channels; [`StreamSink`] for a stream and sink of
//! packets.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::Batch;
use crate::device::Device;

/// Packets read before the engine is called: 32 in a call cost a quarter of what
/// they cost one by one, and beyond that little is gained.
pub(super) const BATCH_PACKETS: usize = 64;
/// When a device that refused a packet is asked again at the latest: some refuse
/// for want of memory, of whose return no poll tells.
const RETRY: Duration = Duration::from_millis(1);

/// Gives and takes IP packets, and never blocks.
pub trait PacketDevice: Send + 'static {
    /// Appends the packets that are there to `batch`, at least one and some dozens
    /// at most. An error ends the stack: the device is of no more use.
    fn poll_receive(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>>;

    /// Sends one packet. `WouldBlock`: no room, it is offered again after
    /// [`poll_room`](Self::poll_room). Another error: this packet is lost.
    fn send(&mut self, packet: &[u8]) -> io::Result<()>;

    /// Ready when there may be room again after a `send` that had none.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Sees to it that what was sent leaves. Called after every turn of sending;
    /// there is nothing to do for most devices.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = cx;
        Poll::Ready(Ok(()))
    }

    /// Bytes of the longest packet.
    fn mtu(&self) -> usize;
}

/// A [`Device`] with a descriptor that tells when it is ready.
pub struct FdDevice<D> {
    device: D,
    /// A second descriptor of the device, which only tells.
    ready: AsyncFd<OwnedFd>,
    retry: Option<Pin<Box<Sleep>>>,
}

impl<D: Device + AsFd + Send + 'static> FdDevice<D> {
    /// Registers the device's descriptor, which must not block, with the tokio
    /// runtime that this is called in.
    ///
    /// # Errors
    ///
    /// What the system says of the descriptor.
    pub fn new(device: D) -> io::Result<Self> {
        let descriptor = device.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` gives the same open descriptor for as long as it lives.
        let ready = unsafe { AsyncFd::register(descriptor) };
        Ok(Self {
            device,
            ready: ready?,
            retry: None,
        })
    }
}

impl<D: Device + AsFd + Send + 'static> PacketDevice for FdDevice<D> {
    fn poll_receive(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        let (before, bytes_before) = (batch.len(), batch.bytes().len());
        loop {
            let mut ready = ready!(self.ready.poll_read_ready(cx))?;
            let mtu = self.device.mtu();
            let most = Batch::PART_BYTES.max(mtu);
            let mut drained = false;
            while batch.len() - before < BATCH_PACKETS
                && batch.bytes().len() - bytes_before + mtu <= most
                && !drained
            {
                match batch.push_with(mtu, |buffer| self.device.receive(buffer)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => drained = true,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if drained {
                ready.clear_ready();
            }
            if batch.len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        let mut asked = false;
        let sent = self.ready.try_io(Interest::WRITABLE, |_| {
            asked = true;
            self.device.send(packet)
        });
        match asked {
            true => sent,
            // A device that refused for want of memory was ready all the time, and of
            // what does not change no poll tells: the runtime would never ask again.
            false => self.device.send(packet),
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let retry = self
            .retry
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(RETRY)));
        if retry.as_mut().poll(cx).is_pending() {
            let _ = ready!(self.ready.poll_write_ready(cx))?;
        }
        self.retry = None;
        Poll::Ready(Ok(()))
    }

    fn mtu(&self) -> usize {
        self.device.mtu()
    }
}

impl<D> std::fmt::Debug for FdDevice<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FdDevice").finish_non_exhaustive()
    }
}

/// A pair of channels of packets, each from its IP header on.
///
/// When the other side drops its sender, the stack ends with `UnexpectedEof`.
pub struct ChannelDevice {
    packets_in: mpsc::Receiver<Vec<u8>>,
    packets_out: mpsc::Sender<Vec<u8>>,
    /// Resolves when `packets_out` has room.
    room: Option<Room>,
    mtu: usize,
}

type Permit = mpsc::OwnedPermit<Vec<u8>>;
type Room = Pin<Box<dyn Future<Output = Result<Permit, mpsc::error::SendError<()>>> + Send>>;

impl ChannelDevice {
    /// A device that receives what comes out of `packets_in` and sends into
    /// `packets_out`. A packet of more than `mtu` bytes is dropped.
    #[must_use]
    pub fn new(
        packets_in: mpsc::Receiver<Vec<u8>>,
        packets_out: mpsc::Sender<Vec<u8>>,
        mtu: usize,
    ) -> Self {
        Self {
            packets_in,
            packets_out,
            room: None,
            mtu,
        }
    }
}

impl PacketDevice for ChannelDevice {
    fn poll_receive(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        let before = batch.len();
        while batch.len() - before < BATCH_PACKETS {
            match self.packets_in.poll_recv(cx) {
                Poll::Ready(Some(packet)) if packet.len() > self.mtu => {}
                Poll::Ready(Some(packet)) => batch.push(&packet),
                Poll::Ready(None) if batch.len() == before => {
                    return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
                }
                Poll::Pending if batch.len() == before => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        match self.packets_out.try_reserve() {
            Ok(permit) => {
                permit.send(packet.to_vec());
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => Err(ErrorKind::WouldBlock.into()),
            Err(mpsc::error::TrySendError::Closed(())) => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let packets_out = &self.packets_out;
        let room = self
            .room
            .get_or_insert_with(|| Box::pin(packets_out.clone().reserve_owned()));
        // The permit is given back at once; only this device uses the room up.
        let _ = ready!(room.as_mut().poll(cx));
        self.room = None;
        Poll::Ready(Ok(()))
    }

    fn mtu(&self) -> usize {
        self.mtu
    }
}

impl std::fmt::Debug for ChannelDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChannelDevice")
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}

/// Anything that is a stream and a sink of packets, such as the framed devices of
/// other crates.
#[derive(Debug)]
pub struct StreamSink<S> {
    packets: S,
    mtu: usize,
    /// The sink has said that it takes one more.
    has_room: bool,
}

impl<S> StreamSink<S> {
    /// Wraps `packets`. A packet of more than `mtu` bytes is dropped.
    pub fn new(packets: S, mtu: usize) -> Self {
        Self {
            packets,
            mtu,
            has_room: false,
        }
    }
}

impl<S, In> PacketDevice for StreamSink<S>
where
    S: Stream<Item = io::Result<In>> + Sink<Vec<u8>, Error = io::Error> + Send + Unpin + 'static,
    In: AsRef<[u8]>,
{
    fn poll_receive(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        let before = batch.len();
        while batch.len() - before < BATCH_PACKETS {
            match Pin::new(&mut self.packets).poll_next(cx) {
                Poll::Ready(Some(Ok(packet))) if packet.as_ref().len() > self.mtu => {}
                Poll::Ready(Some(Ok(packet))) => batch.push(packet.as_ref()),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) if batch.len() == before => {
                    return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
                }
                Poll::Pending if batch.len() == before => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        if !self.has_room {
            // Without a task: `poll_room` comes with one when there is no room.
            let mut cx = Context::from_waker(Waker::noop());
            match Pin::new(&mut self.packets).poll_ready(&mut cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Err(ErrorKind::WouldBlock.into()),
            }
        }
        self.has_room = false;
        Pin::new(&mut self.packets).start_send(packet.to_vec())
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.packets).poll_ready(cx))?;
        self.has_room = true;
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.packets).poll_flush(cx)
    }

    fn mtu(&self) -> usize {
        self.mtu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a framed device of another crate is.
    struct Framed {
        packets_in: mpsc::Receiver<Vec<u8>>,
        packets_out: mpsc::Sender<Vec<u8>>,
    }

    impl Stream for Framed {
        type Item = io::Result<Vec<u8>>;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.packets_in.poll_recv(cx).map(|packet| packet.map(Ok))
        }
    }

    impl Sink<Vec<u8>> for Framed {
        type Error = io::Error;

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.packets_out.capacity() {
                0 => Poll::Pending,
                _ => Poll::Ready(Ok(())),
            }
        }

        fn start_send(self: Pin<&mut Self>, packet: Vec<u8>) -> io::Result<()> {
            let sent = self.packets_out.try_send(packet);
            sent.map_err(|_| ErrorKind::BrokenPipe.into())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Two packets in, one too long; out until there is no room.
    fn told(device: &mut impl PacketDevice, from_device: &mut mpsc::Receiver<Vec<u8>>) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut batch = Batch::new();
        assert!(device.poll_receive(&mut cx, &mut batch).is_ready());
        assert_eq!((batch.len(), batch.bytes()), (2, &[1, 2, 2][..]));
        assert!(device.poll_receive(&mut cx, &mut batch).is_pending());

        device.send(&[1]).unwrap();
        device.send(&[2]).unwrap();
        assert_eq!(device.send(&[3]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(device.poll_room(&mut cx).is_pending());
        assert_eq!(from_device.try_recv().unwrap(), [1]);
        assert!(device.poll_room(&mut cx).is_ready());
        device.send(&[3]).unwrap();
        assert!(device.poll_flush(&mut cx).is_ready());
        assert_eq!(from_device.try_recv().unwrap(), [2]);
        assert_eq!(from_device.try_recv().unwrap(), [3]);
    }

    struct Channels {
        packets_in: mpsc::Receiver<Vec<u8>>,
        packets_out: mpsc::Sender<Vec<u8>>,
        from_device: mpsc::Receiver<Vec<u8>>,
    }

    fn channels() -> Channels {
        let (to_device, packets_in) = mpsc::channel(4);
        for packet in [&[1][..], &[9; 1501], &[2, 2]] {
            to_device.try_send(packet.to_vec()).unwrap();
        }
        // Kept open: its end would be the device's.
        std::mem::forget(to_device);
        let (packets_out, from_device) = mpsc::channel(2);
        Channels {
            packets_in,
            packets_out,
            from_device,
        }
    }

    /// A device whose descriptor is always ready and which has no memory at first.
    struct Reluctant {
        descriptor: std::os::unix::net::UnixStream,
        refusals: u32,
    }

    impl AsFd for Reluctant {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.descriptor.as_fd()
        }
    }

    impl Device for Reluctant {
        fn receive(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(ErrorKind::WouldBlock.into())
        }

        fn send(&mut self, _: &[u8]) -> io::Result<()> {
            match self.refusals.checked_sub(1) {
                Some(left) => self.refusals = left,
                None => return Ok(()),
            }
            Err(ErrorKind::WouldBlock.into())
        }

        fn wait(&mut self, _: Option<Duration>, _: bool) -> io::Result<()> {
            Ok(())
        }

        fn mtu(&self) -> usize {
            1500
        }
    }

    #[tokio::test]
    async fn a_device_that_refuses_though_its_descriptor_is_ready_is_asked_again() {
        let (descriptor, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let refusals = 5;
        let mut device = FdDevice::new(Reluctant {
            descriptor,
            refusals,
        })
        .unwrap();
        for _ in 0..50 {
            if device.send(&[1]).is_ok() {
                return;
            }
            let room = std::future::poll_fn(|cx| device.poll_room(cx));
            room.await.unwrap();
        }
        panic!("{} refusals are still to come", device.device.refusals);
    }

    #[test]
    fn channels_are_a_device() {
        let mut channels = channels();
        let mut device = ChannelDevice::new(channels.packets_in, channels.packets_out, 1500);
        told(&mut device, &mut channels.from_device);
    }

    #[test]
    fn a_stream_and_sink_is_a_device() {
        let mut channels = channels();
        let framed = Framed {
            packets_in: channels.packets_in,
            packets_out: channels.packets_out,
        };
        let mut device = StreamSink::new(framed, 1500);
        told(&mut device, &mut channels.from_device);
    }
}
