//! One run: two ends, two links, and time that jumps to the next event.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use l3l4_engine::{Config, CongestionControl, Instant};

use super::datagrams::{Correspondent, Datagrams};
use super::end::{End, Place, Status};
use super::engine::{EngineEnd, config};
use super::invariants::{Ledger, Rule, Violation};
use super::plan::{Ends, PATIENCE, Plan, START};
use super::script::ScriptEnd;
use super::smoltcp::SmoltcpEnd;
use crate::component::Component;
use crate::craft::FAMILIES;
use crate::dut::{Dut, Native};
use crate::link::Link;
use crate::random::Random;
use crate::stack::Settings;
use crate::trace::describe;

/// How long the last packets, and what the engine remembers of a connection (60 s,
/// TIME-WAIT), may take after the flows have ended.
const AFTERMATH: Duration = Duration::from_secs(75);

/// No run takes as many steps; one that does is busy with nothing.
const MOST_STEPS: u64 = 200_000;

/// What an engine runs as.
#[derive(Clone, Copy)]
pub enum Device {
    /// The crate.
    Native,
    /// The WebAssembly component.
    Component,
    /// Another one: the harness is tested with engines that break a rule.
    Other(fn(Config) -> Box<dyn Dut>),
}

impl Device {
    fn make(self, config: Config) -> Box<dyn Dut> {
        match self {
            Self::Native => Box::new(Native::new(config).expect("in bounds")),
            Self::Component => Box::new(Component::new(&config)),
            Self::Other(make) => make(config),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Component => "component",
            Self::Other(_) => "other",
        })
    }
}

/// How a run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// As it should.
    Good,
    /// A flow did not end in time, or (where all have to complete) gave up.
    Hung,
    /// Bytes came that were not sent.
    Corrupt,
    /// Another invariant was broken.
    Violated,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Hung => "hung",
            Self::Corrupt => "corrupt",
            Self::Violated => "violated",
        })
    }
}

/// What came out of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it went.
    pub outcome: Outcome,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// How far each end was when the run ended.
    pub ends: [EndReport; 2],
    /// From the start until both flows had ended, or the run was given up.
    pub took: Duration,
    /// The digests of the engines' traces, together.
    pub digest: u64,
    /// What happened, when that was asked for.
    pub trace: Vec<String>,
}

/// How far one end was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndReport {
    /// How the flow ended, if it did.
    pub status: Status,
    /// How many bytes were delivered.
    pub delivered: usize,
    /// When the last of them was, from the start.
    pub last_after: Duration,
}

/// Runs a plan.
#[must_use]
pub fn run(plan: &Plan, device: Device, trace: bool) -> Report {
    let mut world = World::new(plan, device, trace);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let mut report = world.report();
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        report.violations.push(Violation {
            rule: Rule::Assertion,
            at: world.now,
            what: text.unwrap_or_else(|| "a panic".into()),
        });
    }
    report.outcome = judge(&report, world.hung);
    report
}

/// The worst that happened.
fn judge(report: &Report, hung: bool) -> Outcome {
    let broken = |rule| report.violations.iter().any(|each| each.rule == rule);
    if broken(Rule::I1) {
        Outcome::Corrupt
    } else if report.violations.iter().any(|each| each.rule != Rule::I4) {
        Outcome::Violated
    } else if hung || broken(Rule::I4) {
        Outcome::Hung
    } else {
        Outcome::Good
    }
}

struct World<'a> {
    plan: &'a Plan,
    now: Instant,
    ends: [Box<dyn End>; 2],
    /// From each end to the other.
    links: [Link; 2],
    /// How many bytes were delivered at each end, and since when.
    progress: [(usize, Instant); 2],
    hung: bool,
    ended: Option<Instant>,
    trace: Option<Vec<String>>,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, device: Device, trace: bool) -> Self {
        let mut random = Random::new(plan.seed ^ 0x6c69_6e6b);
        let [there, back] = plan.links.clone();
        Self {
            plan,
            now: START,
            ends: ends(plan, device, trace),
            links: [
                Link::new(there, random.word()),
                Link::new(back, random.word()),
            ],
            progress: [(0, START); 2],
            hung: false,
            ended: None,
            trace: trace.then(Vec::new),
        }
    }

    fn run(&mut self) {
        self.run_until(self.plan.calm + PATIENCE, Self::is_over);
        self.hung = !self.is_over();
        self.ended = Some(self.now);
        for side in 0..2 {
            let status = self.ends[side].status();
            let gave_up = self.plan.completes() && status != Status::Ended { whole: true };
            self.hung |= gave_up;
            self.ends[side].retire(self.now);
        }
        if self.hung {
            return;
        }
        self.run_until(self.now + AFTERMATH, |_| false);
        for end in &mut self.ends {
            end.close_the_books(self.now);
        }
        self.collect();
    }

    /// Runs until `done`, or nothing is left to happen, or the limit has passed.
    fn run_until(&mut self, limit: Instant, done: impl Fn(&Self) -> bool) {
        for _ in 0..MOST_STEPS {
            let next = self.step();
            if done(self) {
                return;
            }
            match next {
                Some(next) if next <= limit => self.now = next,
                Some(_) | None => {
                    self.now = limit;
                    return;
                }
            }
        }
        panic!("{MOST_STEPS} steps until {:?}", self.now);
    }

    fn is_over(&self) -> bool {
        let [a, b] = [0, 1].map(|side| self.ends[side].status());
        let ended = |status| matches!(status, Status::Ended { .. });
        let nothing_flies = self.links.iter().all(|link| link.next().is_none());
        match (a, b) {
            (Status::Idle, b) => ended(b) && nothing_flies,
            (a, Status::Idle) => ended(a) && nothing_flies,
            (a, b) => ended(a) && ended(b),
        }
    }

    /// All that happens at this instant; then the instant of the next event.
    fn step(&mut self) -> Option<Instant> {
        let now = self.now;
        for side in 0..2 {
            let arrived = self.links[1 - side].arrived(now);
            self.ends[side].receive(now, arrived);
            self.ends[side].act(now);
            self.collect_trace(side);
            let delivered = self.ends[side].delivered();
            if delivered != self.progress[side].0 {
                self.progress[side] = (delivered, now);
            }
            for packet in self.ends[side].sent() {
                self.send(side, packet);
            }
        }
        let links = self.links.iter().filter_map(Link::next);
        let ends = self.ends.iter_mut().filter_map(|end| end.next(now));
        let next = links.chain(ends).min()?;
        // An end that wants to act at once acts a microsecond later, smoltcp's tick.
        Some(next.max(now + Duration::from_micros(1)))
    }

    fn send(&mut self, side: usize, packet: Vec<u8>) {
        let said = self.trace.is_some().then(|| describe(&packet));
        let (fate, copy) = self.links[side].send(self.now, packet);
        if let Some(said) = said {
            self.say(side, &format!("{said} -> {fate}"));
            if let Some(copy) = copy {
                self.say(side, &format!("    and its duplicate {copy}"));
            }
        }
        for reply in self.links[side].replies() {
            if self.trace.is_some() {
                let said = describe(&reply);
                self.say(1 - side, &format!("(a router) {said}"));
            }
            self.links[1 - side].send_untouched(self.now, reply);
        }
    }

    fn say(&mut self, side: usize, what: &str) {
        let at = Duration::from_nanos(self.now.0).as_secs_f64();
        let arrow = ["A --> B", "A <-- B"][side];
        self.trace
            .get_or_insert_default()
            .push(format!("{at:.6} {arrow} {what}"));
    }

    fn collect(&mut self) {
        (0..2).for_each(|side| self.collect_trace(side));
    }

    fn collect_trace(&mut self, side: usize) {
        if let Some(trace) = &mut self.trace {
            let name = ["A", "B"][side];
            let lines = self.ends[side].trace();
            trace.extend(lines.iter().map(|line| format!("        {name}  {line}")));
        }
    }

    fn report(&mut self) -> Report {
        let mut violations = Vec::new();
        let mut digest = 0u64;
        for (side, end) in self.ends.iter_mut().enumerate() {
            // Beside our engine, smoltcp and the script judge our bytes only.
            let ours = side == 0 || self.plan.ends == Ends::EngineEngine;
            let all = !self.plan.ends.has_engine() || ours;
            let found = end.findings().violations.iter();
            violations.extend(
                found
                    .filter(|each| all || matches!(each.rule, Rule::I1 | Rule::I3))
                    .cloned(),
            );
            digest = digest
                .rotate_left(17)
                .wrapping_add(end.digest().unwrap_or(0));
        }
        let ends = [0, 1].map(|side| {
            let end = &self.ends[side];
            EndReport {
                status: end.status(),
                delivered: end.delivered(),
                last_after: self.progress[side].1 - START,
            }
        });
        Report {
            outcome: Outcome::Good,
            violations,
            ends,
            took: self.ended.unwrap_or(self.now) - START,
            digest,
            trace: self.trace.take().unwrap_or_default(),
        }
    }
}

fn ends(plan: &Plan, device: Device, trace: bool) -> [Box<dyn End>; 2] {
    let streams = [0, 1].map(|side| {
        let mut random = Random::new(plan.seed ^ (0x7374_7200 + side as u64));
        Arc::new(random.bytes(plan.bytes[side]))
    });
    [0, 1].map(|side| {
        let place = Place {
            family: plan.family,
            first: side == 0,
            opens: plan.second_opens == (side == 1),
        };
        let (own, other) = (&streams[side], &streams[1 - side]);
        let ledger = || Ledger::new(Arc::clone(own), Arc::clone(other));
        let datagrams = Datagrams::new(plan.datagrams, plan.seed, place.opens);
        let faults = plan.faults[side].clone();
        let is_engine = match plan.ends {
            Ends::EngineEngine => true,
            Ends::EngineSmoltcp | Ends::EngineScript => side == 0,
            Ends::SmoltcpSmoltcp => false,
        };
        let end: Box<dyn End> = if is_engine {
            let number = u8::try_from(1 + 100 * side).expect("below 256");
            let dut = device.make(config(plan, number));
            Box::new(EngineEnd::new(
                dut,
                place,
                faults,
                ledger(),
                datagrams,
                trace,
            ))
        } else if plan.ends == Ends::EngineScript {
            Box::new(ScriptEnd::new(
                place,
                [Arc::clone(own), Arc::clone(other)],
                Correspondent::new(place, datagrams),
                plan,
            ))
        } else {
            let settings = Settings {
                addresses: FAMILIES.map(|family| match side {
                    0 => family.local(1).ip(),
                    _ => family.peer(1).ip(),
                }),
                mtu: usize::try_from(plan.mtu).expect("16 bits"),
                buffer: plan.buffer,
                uncontrolled: plan.congestion_control == CongestionControl::None,
                seed: plan.seed ^ (side as u64),
            };
            Box::new(SmoltcpEnd::new(
                &settings,
                place,
                faults.pauses,
                ledger(),
                Correspondent::new(place, datagrams),
                START,
            ))
        };
        end
    })
}
