//! The application's side of one flow: what it wants to send, and when.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::captured::Captured;
use super::script::{Script, Step};
use crate::types::{FiveTuple, FlowOptions, Instant, Protocol, Refusal, Verdict};

/// Most bytes of a flow that an echo holds.
const MOST_ECHOED: usize = 16 << 20;

/// What the application does.
#[derive(Clone, Debug, Default)]
pub enum Application {
    /// It sends what the captured one did, when it did: the other side of the
    /// capture. Where that side is not in the capture, it takes all and finishes
    /// when the peer has.
    #[default]
    Captured,
    /// It sends back what it receives.
    Echo,
    /// It takes all and finishes when the peer has.
    Discard,
    /// What a text says.
    Script(Script),
}

#[derive(Debug)]
enum Role {
    Captured(Captured),
    Echo,
    Discard,
    Script {
        steps: Arc<[Step]>,
        at: usize,
        wake: Option<Instant>,
    },
}

#[derive(Debug)]
pub(crate) struct Speaker {
    role: Role,
    pub(crate) protocol: Protocol,
    /// TCP: what to send.
    pub(crate) outgoing: VecDeque<u8>,
    /// UDP: what to send.
    pub(crate) datagrams: VecDeque<Vec<u8>>,
    /// FIN, or RST, after what is to be sent.
    pub(crate) finish: bool,
    pub(crate) abort: bool,
    /// The engine was told so.
    pub(crate) finished: bool,
    /// The engine took less than it was given.
    pub(crate) full: bool,
    received: u64,
    peer_finished: bool,
}

impl Speaker {
    pub(crate) fn new(application: &Application, tuple: &FiveTuple) -> Self {
        let role = match application {
            Application::Captured => Role::Captured(Captured::default()),
            Application::Echo => Role::Echo,
            Application::Discard => Role::Discard,
            Application::Script(script) => Role::Script {
                steps: script.steps(tuple),
                at: 0,
                wake: None,
            },
        };
        Self {
            role,
            protocol: tuple.protocol,
            outgoing: VecDeque::new(),
            datagrams: VecDeque::new(),
            finish: false,
            abort: false,
            finished: false,
            full: false,
            received: 0,
            peer_finished: false,
        }
    }

    /// The answer to a new flow. A captured connection is answered when the
    /// captured server did.
    pub(crate) fn verdict(&self) -> Verdict {
        let accept = Verdict::Accept(FlowOptions::default());
        match &self.role {
            Role::Captured(_) if self.protocol == Protocol::Tcp => Verdict::Wait,
            Role::Captured(_) | Role::Echo | Role::Discard => accept,
            Role::Script { steps, .. } => match steps.first() {
                Some(Step::Refuse(refusal)) => Verdict::Refuse(*refusal),
                Some(Step::Drop) => Verdict::Drop,
                Some(_) | None => accept,
            },
        }
    }

    /// The captured server's refusal.
    pub(crate) const REFUSED: Verdict = Verdict::Refuse(Refusal::Reset);

    pub(crate) fn captured(&mut self) -> Option<(&mut Captured, &mut VecDeque<u8>)> {
        match &mut self.role {
            Role::Captured(captured) => Some((captured, &mut self.outgoing)),
            Role::Echo | Role::Discard | Role::Script { .. } => None,
        }
    }

    /// Data came. Returns how many bytes an echo has no room for.
    pub(crate) fn received(&mut self, data: &[u8]) -> u64 {
        self.received += data.len() as u64;
        let Role::Echo = self.role else { return 0 };
        if self.outgoing.len() + data.len() > MOST_ECHOED {
            return data.len() as u64;
        }
        match self.protocol {
            Protocol::Tcp => self.outgoing.extend(data),
            Protocol::Udp | Protocol::IcmpEcho => self.datagrams.push_back(data.to_vec()),
        }
        0
    }

    pub(crate) fn peer_finished(&mut self) {
        self.peer_finished = true;
    }

    /// Decides what is to be done by `now`. Returns when it wants to be asked
    /// again, if nothing else happens.
    pub(crate) fn think(&mut self, now: Instant) -> Option<Instant> {
        let done = match &mut self.role {
            Role::Captured(captured) => {
                captured.is_finished() || self.peer_finished && !captured.seen
            }
            Role::Echo | Role::Discard => self.peer_finished,
            Role::Script { .. } => return self.follow(now),
        };
        self.finish |= done && self.protocol == Protocol::Tcp;
        None
    }

    /// Goes through the steps of a script as far as they go.
    fn follow(&mut self, now: Instant) -> Option<Instant> {
        while let Role::Script { steps, at, wake } = &mut self.role {
            let Some(step) = steps.get(*at) else {
                self.finish |= self.peer_finished && self.protocol == Protocol::Tcp;
                return None;
            };
            match step {
                Step::After(bytes) if self.received < *bytes => return None,
                Step::AfterEnd if !self.peer_finished => return None,
                Step::Wait(time) => match wake {
                    None => return Some(*wake.insert(now + (*time).max(Duration::from_nanos(1)))),
                    Some(due) if now < *due => return None,
                    Some(_) => *wake = None,
                },
                Step::Send(data) if self.protocol == Protocol::Tcp => self.outgoing.extend(data),
                Step::Send(data) => self.datagrams.push_back(data.clone()),
                Step::Finish => self.finish = true,
                Step::Abort => self.abort = true,
                Step::After(_) | Step::AfterEnd | Step::Refuse(_) | Step::Drop => {}
                Step::Echo => {
                    self.role = Role::Echo;
                    return self.think(now);
                }
            }
            *at += 1;
        }
        None
    }
}
