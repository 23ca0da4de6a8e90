//! What holds in every run, at every step: the table of the invariants, and the two
//! observers that know when one is broken. The [`Ledger`] is the application's view
//! of a flow, the [`Tap`] sits on the wire beside an end and sees what it emits and
//! what reaches it.

use std::fmt;
use std::sync::Arc;

use l3l4_engine::Instant;

use crate::wire::{ACK, FIN, RST, SYN, Tcp};

/// The invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Delivered bytes are a prefix of the bytes sent, both ways, at every moment.
    I1,
    /// End of data only after the last byte; exactly one terminal event a flow.
    I2,
    /// No byte is acknowledged that can still be lost on our side.
    I3,
    /// Every flow ends within 120 s of virtual time after the faults end.
    I4,
    /// Every packet emitted passes an independent parser: checksums, lengths, MTU,
    /// peer's window, options only if offered.
    I5,
    /// No busy loop: the number of polls is bounded by packets and timers.
    I6,
    /// Memory returns to the baseline when the flows are gone.
    I7,
    /// The same seed gives the same trace; the native trace equals the component's.
    I8,
    /// UDP boundaries are kept; drops are counted, never silent.
    I9,
    /// What the scene asserts on the way (I5 for packets, I6 for polls, the contract
    /// of `wit/` for callbacks), and any panic.
    Assertion,
}

/// One invariant, broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// When.
    pub at: Instant,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rest) = (self.at.0 / 1_000_000_000, self.at.0 % 1_000_000_000);
        write!(
            f,
            "{:?} broken at {seconds}.{rest:09}: {}",
            self.rule, self.what
        )
    }
}

/// What was found so far. The first few tell all.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The instant of the step.
    pub now: Instant,
    /// What is broken.
    pub violations: Vec<Violation>,
}

const MOST_FINDINGS: usize = 20;

impl Findings {
    /// Says so if a rule does not hold.
    pub fn rule(&mut self, rule: Rule, holds: bool, broken: impl FnOnce() -> String) {
        if !holds && self.violations.len() < MOST_FINDINGS {
            self.violations.push(Violation {
                rule,
                at: self.now,
                what: broken(),
            });
        }
    }
}

/// What one application gave to its flow and got from it.
#[derive(Debug)]
pub struct Ledger {
    /// All that it sends.
    pub outgoing: Arc<Vec<u8>>,
    /// All that the other end sends.
    pub incoming: Arc<Vec<u8>>,
    /// How much of `outgoing` its end took.
    pub given: usize,
    /// How much of `incoming` came.
    pub delivered: usize,
    /// The end of the peer's data came.
    pub peer_finished: bool,
    /// The peer has reset the connection, and data of it is kept back.
    pub peer_reset: bool,
    /// How the flow ended.
    pub ended: Option<Ending>,
}

/// How a flow ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both sides sent and got all.
    Finished,
    /// Otherwise.
    Broken(String),
}

impl Ledger {
    /// Before the first byte.
    #[must_use]
    pub fn new(outgoing: Arc<Vec<u8>>, incoming: Arc<Vec<u8>>) -> Self {
        Self {
            outgoing,
            incoming,
            given: 0,
            delivered: 0,
            peer_finished: false,
            peer_reset: false,
            ended: None,
        }
    }

    /// The next bytes came.
    pub fn deliver(&mut self, data: &[u8], findings: &mut Findings) {
        let from = self.delivered;
        let expected = self.incoming.get(from..from + data.len());
        findings.rule(Rule::I1, expected == Some(data), || {
            let good = self.incoming[from.min(self.incoming.len())..]
                .iter()
                .zip(data)
                .take_while(|(a, b)| a == b)
                .count();
            format!(
                "{} bytes delivered at {from}, of which only {good} are those sent",
                data.len()
            )
        });
        let after = self.peer_finished || self.ended.is_some();
        findings.rule(Rule::I2, !after, || {
            format!("{} bytes delivered after the end", data.len())
        });
        self.delivered += data.len();
    }

    /// The end of the peer's data came.
    pub fn finish(&mut self, findings: &mut Findings) {
        let (delivered, all) = (self.delivered, self.incoming.len());
        findings.rule(Rule::I2, delivered == all, || {
            format!("end of data after {delivered} of {all} bytes")
        });
        findings.rule(Rule::I2, !self.peer_finished, || "end of data twice".into());
        self.peer_finished = true;
    }

    /// The peer has reset the connection, and data of it is kept back.
    pub fn reset(&mut self, findings: &mut Findings) {
        let (delivered, all) = (self.delivered, self.incoming.len());
        findings.rule(Rule::I2, !self.peer_reset, || "reset twice".into());
        findings.rule(Rule::I2, delivered < all, || {
            "reset with nothing to be taken before the end".into()
        });
        self.peer_reset = true;
    }

    /// The flow ended.
    pub fn end(&mut self, ending: Ending, findings: &mut Findings) {
        findings.rule(Rule::I2, self.ended.is_none(), || {
            format!("the flow ended as {:?} and as {ending:?}", self.ended)
        });
        let whole = self.peer_finished && self.given == self.outgoing.len();
        let clean = ending == Ending::Finished;
        findings.rule(Rule::I2, !clean || !self.peer_reset, || {
            "finished after the peer's reset".into()
        });
        findings.rule(Rule::I2, !clean || whole, || {
            format!(
                "finished with {} of {} bytes sent, and the peer's end {}",
                self.given,
                self.outgoing.len(),
                if self.peer_finished { "seen" } else { "unseen" },
            )
        });
        self.ended = Some(ending);
    }
}

/// What a SYN said.
#[derive(Clone, Copy, Debug)]
struct Opening {
    isn: u32,
    mss: Option<u16>,
    scale: Option<u8>,
    sack: bool,
    timestamps: bool,
}

impl Opening {
    fn of(segment: &Tcp) -> Self {
        Self {
            isn: segment.seq,
            mss: segment.mss,
            scale: segment.window_scale,
            sack: segment.sack_permitted,
            timestamps: segment.timestamps.is_some(),
        }
    }

    /// How far a sequence number is from the first byte.
    fn offset(&self, seq: u32) -> u32 {
        seq.wrapping_sub(self.isn).wrapping_sub(1)
    }
}

/// The TCP conversation of one end as its wire sees it. Offsets count from the
/// first byte of a stream.
#[derive(Debug, Default)]
pub struct Tap {
    mine: Option<Opening>,
    theirs: Option<Opening>,
    /// The end of what was emitted.
    sent: u32,
    /// The furthest that the peer's windows ever reached.
    right_edge: u32,
    /// The furthest that was acknowledged to the peer, its FIN included.
    acked: u32,
}

impl Tap {
    /// Another connection follows.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// A good segment reaches the end.
    pub fn received(&mut self, segment: &Tcp) {
        if segment.has(SYN) && !segment.has(RST) && self.theirs.is_none() {
            self.theirs = Some(Opening::of(segment));
        }
        let (Some(mine), Some(theirs)) = (self.mine, self.theirs) else {
            return;
        };
        let acked = mine.offset(segment.ack);
        // A window counts from what the peer can acknowledge: nothing unsent.
        if !segment.has(ACK) || segment.has(RST) || acked > self.sent + 1 {
            return;
        }
        let scale = match (mine.scale, theirs.scale) {
            (Some(_), Some(scale)) if !segment.has(SYN) => scale.min(14),
            _ => 0,
        };
        let edge = acked + (u32::from(segment.window) << scale);
        self.right_edge = self.right_edge.max(edge);
    }

    /// The end emits a segment.
    pub fn emitted(&mut self, segment: &Tcp, ledger: &Ledger, findings: &mut Findings) {
        self.check_options(segment, findings);
        if segment.has(RST) {
            return;
        }
        if segment.has(SYN) {
            let mine = *self.mine.get_or_insert(Opening::of(segment));
            findings.rule(Rule::I5, mine.isn == segment.seq, || {
                format!("another initial sequence number: {segment}")
            });
        }
        let Some(mine) = self.mine else {
            return;
        };
        if let Some(theirs) = self.theirs.filter(|_| segment.has(ACK)) {
            self.acked = self.acked.max(theirs.offset(segment.ack));
            let most = ledger.incoming.len() + 1;
            findings.rule(Rule::I3, size(self.acked) <= most, || {
                format!("acknowledges more than was sent: {segment}")
            });
        }
        if !segment.payload.is_empty() {
            self.check_data(&mine, segment, ledger, findings);
        }
        if segment.has(FIN) {
            let end = size(mine.offset(segment.end())) - 1;
            findings.rule(Rule::I5, end == ledger.outgoing.len(), || {
                format!("FIN before the last byte: {segment}")
            });
        }
    }

    /// I3: what was acknowledged was delivered, or is `queued` for the application.
    pub fn check_acked(
        &self,
        ledger: &Ledger,
        queued: impl FnOnce() -> u32,
        findings: &mut Findings,
    ) {
        let acked = size(self.acked).min(ledger.incoming.len());
        if acked > ledger.delivered {
            let kept = ledger.delivered + size(queued());
            findings.rule(Rule::I3, acked <= kept, || {
                format!("{acked} bytes are acknowledged, {kept} delivered or queued")
            });
        }
    }

    fn check_data(
        &mut self,
        mine: &Opening,
        segment: &Tcp,
        ledger: &Ledger,
        findings: &mut Findings,
    ) {
        let start = mine.offset(segment.seq);
        let length = segment.payload.len();
        let given = &ledger.outgoing[..ledger.given];
        let right = given.get(size(start)..size(start) + length);
        findings.rule(Rule::I1, right == Some(&segment.payload[..]), || {
            format!("emits bytes at {start} that nobody sent: {segment}")
        });
        let end = start.saturating_add(u32::try_from(length).expect("a segment"));
        self.sent = self.sent.max(end);
        // RFC 9293 3.8.6.1: a closed window is probed with one byte.
        let probes = length == 1 && start == self.right_edge;
        findings.rule(Rule::I5, end <= self.right_edge || probes, || {
            format!(
                "bytes up to {end}, the window ends at {}: {segment}",
                self.right_edge
            )
        });
        // RFC 9293 3.7.1: what a peer takes that says nothing.
        let silent = if segment.from.is_ipv4() { 536 } else { 1220 };
        let mss = self.theirs.and_then(|theirs| theirs.mss).unwrap_or(silent);
        findings.rule(Rule::I5, length <= usize::from(mss), || {
            format!("{length} bytes, the peer's MSS is {mss}: {segment}")
        });
    }

    fn check_options(&self, segment: &Tcp, findings: &mut Findings) {
        let syn = segment.has(SYN);
        let opens = syn && !segment.has(ACK);
        let offers = |by: Option<Opening>, what: fn(&Opening) -> bool| by.is_some_and(|o| what(&o));
        let both = |what| offers(self.theirs, what) && (syn || offers(self.mine, what));
        let asked =
            |used: bool, in_syn: bool, what| !used || opens || (both(what) && syn == in_syn);
        let timestamps = segment.timestamps.is_none() || opens || both(|o| o.timestamps);
        let sack = segment.sack.is_empty() || (!syn && offers(self.theirs, |o| o.sack));
        let holds = (segment.mss.is_none() || syn)
            && asked(segment.window_scale.is_some(), true, |o: &Opening| {
                o.scale.is_some()
            })
            && asked(segment.sack_permitted, true, |o: &Opening| o.sack)
            && timestamps
            && sack;
        findings.rule(Rule::I5, holds, || {
            format!("an option that was not offered: {segment}")
        });
    }
}

fn size(offset: u32) -> usize {
    usize::try_from(offset).expect("32 bits")
}
