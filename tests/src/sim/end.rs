//! One end of a world.

use std::fmt;
use std::net::SocketAddr;

use l3l4_engine::Instant;

use super::invariants::Findings;
use crate::craft::Family;

/// How far the TCP conversation of an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nobody connected yet.
    Idle,
    /// It goes on.
    Running,
    /// It has ended: with all bytes both ways, or not.
    Ended {
        /// All bytes.
        whole: bool,
    },
}

/// One end: it is given packets and time, and gives packets.
pub trait End: fmt::Debug {
    /// Packets come in.
    fn receive(&mut self, now: Instant, packets: Vec<Vec<u8>>);
    /// Does all that is to do at this instant.
    fn act(&mut self, now: Instant);
    /// The packets emitted since the last look.
    fn sent(&mut self) -> Vec<Vec<u8>>;
    /// When it wants to act next.
    fn next(&mut self, now: Instant) -> Option<Instant>;
    /// How far the conversation is.
    fn status(&self) -> Status;
    /// Bytes that its application has got.
    fn delivered(&self) -> usize;
    /// The conversation is over: ends what else there is.
    fn retire(&mut self, now: Instant);
    /// Nothing is left to happen: checks what has to hold then.
    fn close_the_books(&mut self, _now: Instant) {}
    /// What was broken so far.
    fn findings(&mut self) -> &mut Findings;
    /// The digest of its trace, if it keeps one.
    fn digest(&mut self) -> Option<u64> {
        None
    }
    /// The lines of its trace since the last look.
    fn trace(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Who is who in a conversation.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Over which IP.
    pub family: Family,
    /// Whether it is the first end.
    pub first: bool,
    /// Whether it connects.
    pub opens: bool,
}

impl Place {
    /// Its own address, for a server's or a client's port.
    #[must_use]
    pub fn own(&self, server: u16, client: u16) -> SocketAddr {
        let port = if self.opens { client } else { server };
        self.address(self.first, port)
    }

    /// The other end's.
    #[must_use]
    pub fn other(&self, server: u16, client: u16) -> SocketAddr {
        let port = if self.opens { server } else { client };
        self.address(!self.first, port)
    }

    fn address(&self, first: bool, port: u16) -> SocketAddr {
        match first {
            true => self.family.local(port),
            false => self.family.peer(port),
        }
    }
}

/// The port of the end that is connected to.
pub const SERVER_PORT: u16 = 9;
/// The port of the end that connects.
pub const CLIENT_PORT: u16 = 40_001;
