//! A capture fed to the engine, in the capture's own time.
//!
//! Of each conversation in the capture one side is fed: the *peer*. The engine
//! speaks for the other one, the *local* side, and an [`Application`] behind it
//! does what that side did, or something else. [`Replay`] is given one packet of
//! the capture after the other, and everything happens in virtual time: deadlines
//! are kept to the nanosecond, and the same packets give the same calls.
//!
//! The way of a packet through the files: `mod.rs` (the clock, and reading ahead)
//! → `feed.rs` (whose packet is it, and what does it mean) → `conversation.rs`
//! (its flow) → `mapper.rs` (acknowledgements that our engine understands) → the
//! engine → `floor.rs` (callbacks) → `speaker.rs` (the application) and its
//! `captured.rs` or `script.rs` → `settle.rs` (what they want is done).

mod captured;
mod conversation;
mod describe;
mod feed;
mod floor;
mod mapper;
mod packet;
mod report;
mod script;
mod select;
mod settle;
mod speaker;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::batch::Batch;
use crate::builder::Builder;
use crate::engine::Engine;
use crate::error::Error;
use crate::types::Instant;

pub use captured::Gaps;
pub use describe::{describe, digest};
pub use floor::Sink;
pub use mapper::{Mapping, MappingCounts};
pub use report::{MOST_LISTED, NotFed, Report, StartMissing};
pub use script::{Script, ScriptError};
pub use select::{NotASide, Side};
pub use speaker::Application;

use floor::Floor;
use packet::Headers;

/// The instant of the first packet: the capture's clock may go back a little.
pub const ORIGIN: Instant = Instant(1_000_000_000);

/// How far is read ahead, to know what the captured server made of a SYN.
const PACKETS_AHEAD: usize = 2_048;
const BYTES_AHEAD: usize = 8 << 20;

/// Calls of `l4_poll` at one instant after which the engine is taken to be stuck:
/// it may do a step of work in each, but there is only so much to do.
const MOST_POLLS: u32 = 100_000;

/// What is fed, and what answers.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The application behind the engine.
    pub application: Application,
    /// The sides that are fed. None: of each flow the side that opened it, or, if
    /// its SYN is not in the capture, the one whose SYN-ACK is.
    pub peers: Vec<Side>,
    /// What is believed of the packets' checksums.
    pub checksums: Checksums,
}

/// What is believed of the checksums of captured packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksums {
    /// One that is the sum over the pseudo-header was left to a device, after the
    /// capture: it is not verified. All others are.
    #[default]
    Detect,
    /// All are verified.
    Verify,
    /// None is.
    Ignore,
}

/// Why a replay cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The engine refused what no engine should.
    #[error("the engine refused")]
    Engine(#[from] Error),
    /// The sink failed, and says how.
    #[error(transparent)]
    Sink(#[from] io::Error),
    /// The engine wants to be polled at one instant again and again.
    #[error("the engine asks for l4-poll at {0} s without end")]
    Stuck(Instant),
}

/// A replay under way.
pub struct Replay<S: Sink> {
    engine: Engine<Floor<S>>,
    options: Options,
    batch: Batch,
    /// What the engine asked for last.
    deadline: Option<Instant>,
    /// The latest instant of a call.
    now: Instant,
    polls_here: u32,
    /// When the first packet was captured, in nanoseconds since 1970.
    first: Option<u64>,
    ahead: VecDeque<Packet>,
    bytes_ahead: usize,
    packets_since_sweep: u32,
    /// Which address was first to speak to the other, for packets of no flow.
    pairs: HashSet<(IpAddr, IpAddr)>,
    /// TCP flows without a captured start, with their packets.
    strangers: HashMap<(SocketAddr, SocketAddr), u64>,
}

/// A packet of the capture that waits for its turn.
#[derive(Debug)]
struct Packet {
    at: u64,
    bytes: Vec<u8>,
    cut: bool,
    headers: Option<Headers>,
    ends: Option<(SocketAddr, SocketAddr)>,
}

impl<S: Sink> Replay<S> {
    /// A replay with an engine of this configuration. Give it a seed, or no two
    /// runs will be the same.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new(engine: Builder, options: Options, sink: S) -> Result<Self, Error> {
        let mapping = match options.application {
            Application::Captured => Mapping::Shifted,
            Application::Echo | Application::Discard | Application::Script(_) => {
                Mapping::Everything
            }
        };
        Ok(Self {
            engine: engine.build(Floor::new(
                sink,
                Report::new(mapping),
                options.application.clone(),
            ))?,
            options,
            batch: Batch::new(),
            deadline: None,
            now: Instant(0),
            polls_here: 0,
            first: None,
            ahead: VecDeque::new(),
            bytes_ahead: 0,
            packets_since_sweep: 0,
            pairs: HashSet::new(),
            strangers: HashMap::new(),
        })
    }

    /// The next packet of the capture, captured `at` nanoseconds since 1970, from
    /// its IP header on; `cut`: only its first bytes were captured.
    ///
    /// # Errors
    ///
    /// [`ReplayError`]; the replay is over then.
    pub fn packet(&mut self, at: u64, bytes: &[u8], cut: bool) -> Result<(), ReplayError> {
        self.bytes_ahead += bytes.len();
        let headers = Headers::read(bytes);
        self.ahead.push_back(Packet {
            at,
            bytes: bytes.to_vec(),
            cut,
            headers,
            ends: headers.and_then(|headers| headers.sockets(bytes)),
        });
        while self.ahead.len() > PACKETS_AHEAD || self.bytes_ahead > BYTES_AHEAD {
            self.next_packet()?;
        }
        Ok(())
    }

    /// The capture is over. Virtual time goes on for `linger`, or until all flows
    /// have ended.
    ///
    /// # Errors
    ///
    /// [`ReplayError`].
    pub fn finish(mut self, linger: Duration) -> Result<(Report, S), ReplayError> {
        while !self.ahead.is_empty() {
            self.next_packet()?;
        }
        self.fill_gaps()?;
        let end = self.now + linger;
        while self.floor().table.lives() && self.step(end)? {}
        self.close_report()?;
        let floor = self.engine.into_callbacks();
        Ok((floor.report, floor.sink))
    }

    /// Packets that were read and not fed yet; the report is about the others.
    #[must_use]
    pub fn packets_ahead(&self) -> usize {
        self.ahead.len()
    }

    fn next_packet(&mut self) -> Result<(), ReplayError> {
        let Some(packet) = self.ahead.pop_front() else {
            return Ok(());
        };
        self.bytes_ahead -= packet.bytes.len();
        let at = self.instant(packet.at);
        while self.step(at)? {}
        let report = &mut self.floor().report;
        report.packets += 1;
        report.bytes += packet.bytes.len() as u64;
        self.feed(at, packet)?;
        self.settle(at)?;
        self.sweep(at);
        Ok(())
    }

    /// The instant of a time since 1970.
    fn instant(&mut self, at: u64) -> Instant {
        let first = *self.first.get_or_insert(at);
        Instant((ORIGIN.0.saturating_add(at)).saturating_sub(first))
    }

    /// Does what is due first, if it is due by `until`.
    fn step(&mut self, until: Instant) -> Result<bool, ReplayError> {
        let timer = self.floor().timers.first().copied();
        let poll = self.deadline.filter(|deadline| *deadline <= until);
        match (poll, timer) {
            (poll, Some((due, id))) if due <= until && poll.is_none_or(|poll| due < poll) => {
                self.floor().timers.remove(&(due, id));
                self.floor().dirty.push_back(id);
                self.settle(due.max(self.now))?;
            }
            (Some(deadline), _) => {
                self.poll(deadline.max(self.now))?;
            }
            (None, _) => return Ok(false),
        }
        Ok(true)
    }

    fn poll(&mut self, now: Instant) -> Result<(), ReplayError> {
        self.polls_here = match now == self.now {
            true => self.polls_here + 1,
            false => 0,
        };
        if self.polls_here > MOST_POLLS {
            return Err(ReplayError::Stuck(now));
        }
        self.call(now, format_args!("l4-poll"), |engine| engine.l4_poll(now))?;
        self.settle(now)
    }

    /// Forgets what is long over, from time to time.
    fn sweep(&mut self, now: Instant) {
        self.packets_since_sweep += 1;
        if self.packets_since_sweep < 16_384 {
            return;
        }
        self.packets_since_sweep = 0;
        let incomplete = self.floor().table.forget(now);
        self.floor().report.incomplete += incomplete;
    }

    fn close_report(&mut self) -> Result<(), ReplayError> {
        let counters = self.engine.counters()?;
        let mut listed: Vec<_> = self
            .strangers
            .iter()
            .map(|(&(from, to), &packets)| (from, to, packets))
            .collect();
        listed.sort_unstable_by_key(|&(from, to, packets)| (u64::MAX - packets, from, to));
        listed.truncate(MOST_LISTED);
        let floor = self.engine.callbacks_mut();
        for conversation in floor.table.iter() {
            floor.report.incomplete += u64::from(conversation.lacks_data());
            if conversation.flow.is_some() {
                let name = conversation.tuple.protocol.name();
                *floor.report.open.entry(name).or_default() += 1;
            }
        }
        floor.report.start_missing.listed = listed;
        floor.report.counters = counters;
        Ok(())
    }

    fn floor(&mut self) -> &mut Floor<S> {
        self.engine.callbacks_mut()
    }

    /// One call of the engine, on the record. A trap ends its flows and not the
    /// replay; a refusal about a flow is for the caller.
    fn call<T>(
        &mut self,
        now: Instant,
        what: impl fmt::Display,
        call: impl FnOnce(&mut Engine<Floor<S>>) -> Result<T, Error>,
    ) -> Result<Option<T>, ReplayError>
    where
        T: Returned,
    {
        let at = self.since_1970(now);
        let floor = self.engine.callbacks_mut();
        (floor.now, floor.at) = (now, at);
        floor.call(what);
        self.now = self.now.max(now);
        let result = call(&mut self.engine);
        let floor = self.engine.callbacks_mut();
        let returned = match result {
            Ok(returned) => {
                floor.note(format_args!("= {}", returned.text()));
                self.deadline = returned.deadline();
                Some(returned)
            }
            Err(Error::Trap { .. }) => {
                floor.note("= trap");
                floor.report.traps += 1;
                self.deadline = None;
                None
            }
            Err(error @ (Error::Flow(_) | Error::Open(_))) => {
                floor.note(format_args!("= {error}"));
                None
            }
            Err(error) => return Err(error.into()),
        };
        match floor.failed.take() {
            Some(error) => Err(error.into()),
            None => Ok(returned),
        }
    }

    fn since_1970(&self, now: Instant) -> u64 {
        let first = self.first.unwrap_or(0);
        first.saturating_add(now.0).saturating_sub(ORIGIN.0)
    }
}

impl<S: Sink> fmt::Debug for Replay<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("options", &self.options)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// What a call returns, with the deadline in it.
trait Returned {
    fn deadline(&self) -> Option<Instant>;

    fn text(&self) -> String {
        deadline_text(self.deadline())
    }
}

fn deadline_text(deadline: Option<Instant>) -> String {
    match deadline {
        Some(at) => at.to_string(),
        None => "none".into(),
    }
}

impl Returned for Option<Instant> {
    fn deadline(&self) -> Option<Instant> {
        *self
    }
}

impl Returned for crate::Sent {
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn text(&self) -> String {
        format!("took {}, {}", self.taken, deadline_text(self.deadline))
    }
}

impl Returned for (crate::FlowId, Option<Instant>) {
    fn deadline(&self) -> Option<Instant> {
        self.1
    }

    fn text(&self) -> String {
        format!("{}, {}", self.0, deadline_text(self.1))
    }
}
