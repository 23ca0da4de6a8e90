//! TCP (RFC 9293), one connection a flow.
//!
//! A flow is a small [`handshake`] record first and a [`connection`] then, whose
//! two sides are [`sender`] and [`receiver`]; after the last byte a [`time_wait`]
//! record remains. The owner calls, for each flow, any number of [`TcpFlow::l3_rx`]
//! and then one [`TcpFlow::settle`], which delivers once and sends once. What
//! [`TcpFlow::l4_tx`] is given and may go goes straight from where it lies, and is
//! stored on the way.
//!
//! ```text
//! segment ─ arrival ─┬─ receiver ─ chain ─┐
//!                    │                    pool
//!                    └─ sender ──── chain ┘
//!                        ├ buffer        what was taken and not acknowledged
//!                        ├ acknowledged  what an acknowledgement means
//!                        ├ timers        what time does
//!                        ├ flight        what was sent when, what is lost (SACK, RACK)
//!                        │ └ ranges
//!                        ├ rtt           the retransmission timeout
//!                        └ congestion    CUBIC, Reno
//! settle ─ connection ─ transmit ─ segment
//! ```

mod arrival;
mod chain;
mod congestion;
mod connection;
mod flight;
mod handshake;
mod options;
pub(crate) mod pool;
mod ranges;
mod receiver;
mod rtt;
pub(crate) mod secrets;
pub(crate) mod segment;
mod sender;
mod seq;
mod terms;
pub(crate) mod time_wait;
mod timestamps;
mod transmit;

use alloc::boxed::Box;
use core::time::Duration;

use self::connection::{Agreed, Connection};
pub(crate) use self::handshake::send_cookie;
use self::handshake::{Arrived, Handshake};
use self::pool::Pool;
pub(crate) use self::segment::{Segment, Syn};
pub(crate) use self::seq::Seq;
use self::terms::Terms;
use self::time_wait::TimeWait;
use crate::counters::DropReason;
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::{CloseReason, FlowError, FlowId, FlowOptions, FlowState, Instant, Unreachable};

/// One flow, from our SYN or SYN-ACK until its last byte is delivered.
#[derive(Debug)]
pub(crate) enum TcpFlow {
    Handshake(Handshake),
    Connection(Box<Connection>),
}

/// Where the peer's SYN came from, and which of our numbers answers it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// It is answered with a number of the clock's.
    Fresh,
    /// It opens anew what closed lately: our numbers go on above this one (RFC
    /// 1122 4.2.2.13).
    Above(Seq),
    /// It was answered with this number, a cookie, and the handshake is complete.
    Cookie(Seq),
}

/// What became of a flow that was settled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Settled {
    /// It lives on. It wants to transmit at one instant, and is to be looked at
    /// for its limits at the other; `starved`: and when there is memory; `mute`: and
    /// when there is a block for its first data to send.
    Alive {
        transmit: Option<Instant>,
        limit: Instant,
        starved: bool,
        mute: bool,
    },
    /// As `Alive`, but it would transmit if the device took packets.
    Stalled { limit: Instant },
    /// It is over.
    Over(CloseReason, Option<TimeWait>),
}

impl TcpFlow {
    /// What a flow counts against `memory_limit` beside its slot and its blocks, from
    /// the handshake on, so that all handshakes can end well. A round number above
    /// what a connection takes, the same for every width of pointer.
    pub(crate) const RECORD: u64 = 768;

    /// Answers a SYN, or takes over what a cookie began.
    pub(crate) fn accept(
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        syn: &Syn,
        origin: Origin,
        options: &FlowOptions,
    ) -> Self {
        turn.pool.charge(Self::RECORD);
        let terms = Terms::new(options, turn.config);
        let fresh = turn.secrets.iss(turn.now, tuple);
        let iss = match origin {
            Origin::Fresh => fresh,
            // Beyond every number of the old connection's window.
            Origin::Above(old) if fresh > old => fresh,
            Origin::Above(old) => old + (1 << 16),
            Origin::Cookie(iss) => {
                return Self::connect(turn, tuple, &handshake::completed(iss, syn, terms));
            }
        };
        Self::Handshake(Handshake::accept(turn, iss, syn, terms))
    }

    /// Sends a SYN.
    pub(crate) fn open(turn: &mut Turn<'_>, tuple: &Tuple, options: &FlowOptions) -> Self {
        turn.pool.charge(Self::RECORD);
        let terms = Terms::new(options, turn.config);
        let iss = turn.secrets.iss(turn.now, tuple);
        Self::Handshake(Handshake::open(turn, iss, terms))
    }

    fn connect(turn: &Turn<'_>, tuple: &Tuple, agreed: &Agreed) -> Self {
        Self::Connection(Box::new(Connection::new(turn, tuple, agreed)))
    }

    /// Takes a segment in. What it brings is delivered when the flow is settled, or
    /// at once if the flow of that id may `lend` it; of packets only those are made
    /// that answer this segment at once.
    pub(crate) fn l3_rx(
        &mut self,
        turn: &mut Turn<'_>,
        segment: &Segment<'_>,
        lend: Option<FlowId>,
    ) -> Result<(), DropReason> {
        let tuple = &segment.tuple;
        match self {
            Self::Connection(connection) => {
                connection.fetch();
                connection.l3_rx(turn, tuple, segment, lend)
            }
            Self::Handshake(handshake) => match handshake.l3_rx(turn, tuple, segment)? {
                Arrived::Nothing => Ok(()),
                Arrived::Complete(agreed) => {
                    *self = Self::connect(turn, tuple, &agreed);
                    match self {
                        Self::Connection(connection) => connection.complete(turn, tuple, segment),
                        Self::Handshake(_) => Ok(()),
                    }
                }
            },
        }
    }

    /// Reads what a call will read; see [`Connection::fetch`].
    pub(crate) fn fetch(&self) {
        if let Self::Connection(connection) = self {
            connection.fetch();
        }
    }

    /// Whether bytes may be given to `l4_tx`.
    pub(crate) fn may_take(&self) -> Result<(), FlowError> {
        let (ended, finished) = match self {
            Self::Handshake(handshake) => (handshake.has_ended(), handshake.is_finished()),
            Self::Connection(connection) => {
                connection.fetch();
                (connection.has_ended(), connection.is_finished())
            }
        };
        match (ended, finished) {
            (true, _) => Err(FlowError::Closing),
            (false, true) => Err(FlowError::Finished),
            (false, false) => Ok(()),
        }
    }

    /// Takes bytes to send from the front of `data`. Returns how many. They go when the
    /// flow is settled, or `at_once`.
    pub(crate) fn l4_tx(
        &mut self,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        data: &[u8],
        at_once: bool,
    ) -> usize {
        match self {
            Self::Connection(connection) => connection.l4_tx(turn, tuple, data, at_once),
            Self::Handshake(handshake) => {
                if !data.is_empty() {
                    handshake.want_room();
                }
                0
            }
        }
    }

    /// The host takes data again.
    pub(crate) fn resume(&mut self) {
        if let Self::Connection(connection) = self {
            connection.resume();
        }
    }

    /// Whether `finish` may be called; again is harmless.
    pub(crate) fn may_finish(&self) -> Result<(), FlowError> {
        match self.has_ended() {
            true => Err(FlowError::Closing),
            false => Ok(()),
        }
    }

    /// FIN follows the data taken so far.
    pub(crate) fn finish(&mut self) {
        match self {
            Self::Handshake(handshake) => handshake.finish(),
            Self::Connection(connection) => connection.finish(),
        }
    }

    /// Ends the connection at once, with RST to a peer that may still send or wait.
    pub(crate) fn abort(&mut self, turn: &mut Turn<'_>, tuple: &Tuple) {
        match self {
            Self::Handshake(handshake) => handshake.abort(turn, tuple),
            Self::Connection(connection) => connection.abort(turn, tuple),
        }
    }

    /// Whether the peer has reset it: the flow lives for what waits for the host.
    pub(crate) fn is_reset(&self) -> bool {
        match self {
            Self::Handshake(_) => false,
            Self::Connection(connection) => connection.is_reset(),
        }
    }

    /// An ICMP error says that the peer cannot be reached. Says whether it ended
    /// the flow.
    pub(crate) fn unreachable(&mut self, seq: u32, reason: Unreachable) -> bool {
        match self {
            Self::Handshake(handshake) => handshake.unreachable(seq, reason),
            Self::Connection(_) => false,
        }
    }

    /// An ICMP error says that a segment was too big. Says whether it changed
    /// anything.
    pub(crate) fn packet_too_big(
        &mut self,
        turn: &Turn<'_>,
        tuple: &Tuple,
        seq: u32,
        mtu: u32,
    ) -> bool {
        match self {
            Self::Handshake(_) => false,
            Self::Connection(connection) => connection.packet_too_big(turn, tuple, seq, mtu),
        }
    }

    /// Delivers what came, sends what may go, reports what happened, and tells
    /// how the flow stands. Limits that ran out end it.
    pub(crate) fn settle(&mut self, id: FlowId, turn: &mut Turn<'_>, tuple: &Tuple) -> Settled {
        match self {
            Self::Handshake(handshake) => handshake.settle(turn, tuple),
            Self::Connection(connection) => connection.settle(id, turn, tuple),
        }
    }

    /// Gives all memory back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        if let Self::Connection(connection) = self {
            connection.clear(pool);
        }
        pool.discharge(Self::RECORD);
    }

    /// Whether the connection has ended, and only what the host has not taken
    /// keeps the flow.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Handshake(handshake) => handshake.has_ended(),
            Self::Connection(connection) => connection.has_ended(),
        }
    }

    /// Whether the handshake is incomplete.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self, Self::Handshake(handshake) if !handshake.has_ended())
    }

    /// The fields of a snapshot that only the flow knows.
    pub(crate) fn snapshot(&self, min_rto: Duration) -> TcpSnapshot {
        match self {
            Self::Handshake(handshake) => handshake.snapshot(),
            Self::Connection(connection) => connection.snapshot(min_rto),
        }
    }
}

/// See `FlowSnapshot`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpSnapshot {
    pub(crate) state: FlowState,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) receive_queue: u32,
    pub(crate) send_queue: u32,
    pub(crate) receive_window: u32,
    pub(crate) send_window: u32,
    pub(crate) round_trip_time: Option<Duration>,
    pub(crate) retransmits: u64,
    pub(crate) congestion_window: u32,
    pub(crate) retransmission_timeout: Option<Duration>,
    pub(crate) max_segment_size: u32,
}

const _: () = assert!(size_of::<Connection>() as u64 <= TcpFlow::RECORD);
