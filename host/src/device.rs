//! What an engine is joined to: something that gives and takes IP packets.
//!
//! [`Device`] is the whole requirement. `tun::Tun` (feature `tun`) is the kernel's;
//! [`pair`] joins two ends within a process, for tests and for a client stack
//! beside the engine.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Gives and takes IP packets, one a call, and never blocks but in [`Device::wait`].
pub trait Device {
    /// Reads one packet into `buffer`, which holds at least [`Device::mtu`] bytes,
    /// and says how long it is. `WouldBlock`: none is there. Another error: the
    /// device is of no more use.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes one packet. `WouldBlock`: no room, offer it again after a `wait`.
    /// Another error: this packet is lost.
    fn send(&mut self, packet: &[u8]) -> io::Result<()>;

    /// Sleeps until a packet is there, or (when asked for) there is room to send,
    /// or the time is over (`None`: for ever). May return early.
    fn wait(&mut self, timeout: Option<Duration>, want_room: bool) -> io::Result<()>;

    /// Bytes of the longest packet.
    fn mtu(&self) -> usize;
}

impl<D: Device + ?Sized> Device for Box<D> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).receive(buffer)
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        (**self).send(packet)
    }

    fn wait(&mut self, timeout: Option<Duration>, want_room: bool) -> io::Result<()> {
        (**self).wait(timeout, want_room)
    }

    fn mtu(&self) -> usize {
        (**self).mtu()
    }
}

/// Two devices, each receiving what the other sends, with room for `packets`
/// packets in each direction.
///
/// When one is dropped the other receives what is still queued, then
/// `UnexpectedEof`.
pub fn pair(mtu: usize, packets: usize) -> (Memory, Memory) {
    let link = Arc::new(Link::default());
    let end = |side| Memory {
        link: Arc::clone(&link),
        side,
        mtu,
        packets,
    };
    (end(0), end(1))
}

/// One end of a [`pair`].
#[derive(Debug)]
pub struct Memory {
    link: Arc<Link>,
    /// The queue that this end receives from; the other end's is `1 - side`.
    side: usize,
    mtu: usize,
    packets: usize,
}

impl Memory {
    /// Something that ends a [`Device::wait`] of this end from another thread.
    pub fn waker(&self) -> Waker {
        Waker {
            link: Arc::clone(&self.link),
            side: self.side,
        }
    }

    /// Whether a packet would be taken. Only this end can use the room up.
    pub fn has_room(&self) -> bool {
        self.link.lock().queues[1 - self.side].len() < self.packets
    }
}

/// Ends the wait of one [`Memory`]; see [`Memory::waker`].
#[derive(Debug, Clone)]
pub struct Waker {
    link: Arc<Link>,
    side: usize,
}

impl Waker {
    /// Ends the wait that goes on, or else the next one.
    pub fn wake(&self) {
        self.link.lock().woken[self.side] = true;
        self.link.changed.notify_all();
    }
}

#[derive(Debug, Default)]
struct Link {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By receiving side.
    queues: [VecDeque<Vec<u8>>; 2],
    /// By waiting side.
    woken: [bool; 2],
    /// Buffers to use again, so that a packet costs no allocation.
    spare: Vec<Vec<u8>>,
    closed: bool,
}

impl Link {
    /// The state is whole between any two statements that hold the lock, so a
    /// panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Memory {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.link.lock();
        let Some(packet) = state.queues[self.side].pop_front() else {
            return Err(match state.closed {
                true => ErrorKind::UnexpectedEof.into(),
                false => ErrorKind::WouldBlock.into(),
            });
        };
        let length = packet.len();
        buffer[..length].copy_from_slice(&packet);
        let was_full = state.queues[self.side].len() + 1 == self.packets;
        state.spare.push(packet);
        drop(state);
        if was_full {
            self.link.changed.notify_all();
        }
        Ok(length)
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        if packet.len() > self.mtu {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut state = self.link.lock();
        let other = 1 - self.side;
        if state.closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if state.queues[other].len() >= self.packets {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut buffer = state.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet);
        state.queues[other].push_back(buffer);
        let was_empty = state.queues[other].len() == 1;
        drop(state);
        if was_empty {
            self.link.changed.notify_all();
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, want_room: bool) -> io::Result<()> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.link.lock();
        loop {
            let woken = std::mem::take(&mut state.woken[self.side]);
            let has_packet = !state.queues[self.side].is_empty();
            let has_room = state.queues[1 - self.side].len() < self.packets;
            if woken || has_packet || (want_room && has_room) || state.closed {
                return Ok(());
            }
            let left = match until {
                Some(until) => until.saturating_duration_since(Instant::now()),
                // A spurious return is allowed, so "for ever" may be an hour.
                None => Duration::from_secs(3600),
            };
            if left.is_zero() {
                return Ok(());
            }
            let waited = self.link.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn mtu(&self) -> usize {
        self.mtu
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.link.lock().closed = true;
        self.link.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_cross_in_order_and_a_full_queue_says_so() {
        let (mut near, mut far) = pair(1500, 2);
        near.send(&[1]).unwrap();
        near.send(&[2, 2]).unwrap();
        assert_eq!(near.send(&[3]).unwrap_err().kind(), ErrorKind::WouldBlock);

        let mut buffer = [0; 1500];
        assert_eq!(far.receive(&mut buffer).unwrap(), 1);
        near.wait(Some(Duration::from_secs(5)), true).unwrap();
        near.send(&[3, 3, 3]).unwrap();
        assert_eq!(far.receive(&mut buffer).unwrap(), 2);
        assert_eq!(far.receive(&mut buffer).unwrap(), 3);
        assert_eq!(
            far.receive(&mut buffer).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
    }

    #[test]
    fn an_end_that_goes_away_is_noticed_after_its_last_packet() {
        let (mut near, mut far) = pair(1500, 2);
        near.send(&[1]).unwrap();
        drop(near);
        let mut buffer = [0; 1500];
        assert_eq!(far.receive(&mut buffer).unwrap(), 1);
        far.wait(None, false).unwrap();
        assert_eq!(
            far.receive(&mut buffer).unwrap_err().kind(),
            ErrorKind::UnexpectedEof
        );
    }
}
