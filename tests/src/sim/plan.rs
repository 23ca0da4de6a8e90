//! What happens in a run: everything is drawn from the mode and the seed, and can be
//! printed.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use clap::ValueEnum;
use l3l4_engine::{CongestionControl, Instant};

use crate::craft::Family;
use crate::link::{Impairments, Loss, Rate};
use crate::random::Random;

/// Which two ends talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Ends {
    /// Our engine at both ends.
    EngineEngine,
    /// Our engine and a smoltcp stack.
    EngineSmoltcp,
    /// Our engine and a peer that sends valid and hostile segments.
    EngineScript,
    /// The baseline.
    SmoltcpSmoltcp,
}

impl Ends {
    /// Whether our engine takes part.
    #[must_use]
    pub fn has_engine(self) -> bool {
        self != Self::SmoltcpSmoltcp
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// What goes wrong.
///
/// The network's faults last 30 s, and every flow has 120 s more ([`PATIENCE`]), so
/// that a correct TCP completes every run that [`Plan::completes`] names: what loss
/// and outages leave behind is one timer, which has at most doubled its way to the
/// length of the faults and in any case fires within 60 s (RFC 6298 2.5); then 400 kB
/// on a clean path of at most 100 ms take seconds. No silence is as long as
/// [`Plan::give_up`], and 15 retries that begin at 200 ms take longer than the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Mode {
    /// Nothing.
    Clean,
    /// 5 to 50 % of the packets take up to 40 ms longer.
    Reorder,
    /// 0 to 30 % of the packets are lost: each by itself, or in bursts.
    Loss,
    /// 1 to 50 % of the packets arrive twice.
    Duplicate,
    /// The three together.
    LossReorderDuplicate,
    /// One to four outages of 0.2 to 4 s, and up to 10 % loss.
    OutageLoss,
    /// Applications that take nothing for up to 20 s, up to three times, and devices
    /// that refuse packets. All within the time of the faults; no packet is lost, so
    /// that a window update or a probe ends each pause.
    BackPressure,
    /// The longest packet goes from 1500 to 576 (1280 on IPv6, whose least it is, RFC
    /// 8200 5) and on to 1280. Half of the seeds announce it by ICMP, and then it stays:
    /// RFC 1191 and 8201 suffice. In the other half nothing tells a sender (only RFC
    /// 4821 would find out), and 1500 pass again when the faults end.
    Mtu,
    /// 1 to 10 % of the packets have a byte changed or lose their end.
    Corrupt,
    /// A bottleneck of 100 kB/s to 1 MB/s with a queue of 8 to 64 KiB.
    Rate,
    /// The engine's clock goes back by 2 s and on by 6 h.
    Clock,
    /// The guest traps in mid-transfer and is restarted.
    Restart,
    /// A little of everything.
    Chaos,
    /// Packets of up to 64 KiB, which are lent from where their data lies: some are lost,
    /// late or refused by the device, and half of the seeds announce by ICMP that packets
    /// of 9,000 bytes are the longest that pass. Our engines have buffers for five.
    Wide,
}

impl Mode {
    /// The modes of the gate.
    pub const GATE: [Self; 8] = [
        Self::Clean,
        Self::Reorder,
        Self::Loss,
        Self::Duplicate,
        Self::LossReorderDuplicate,
        Self::OutageLoss,
        Self::BackPressure,
        Self::Mtu,
    ];

    /// Whether it is about faults that only our engine's side can have.
    #[must_use]
    pub fn needs_engine(self) -> bool {
        matches!(self, Self::Clock | Self::Restart)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who talks.
    pub ends: Ends,
    /// What goes wrong.
    pub mode: Mode,
    /// The seed.
    pub seed: u64,
    /// Over which IP.
    pub family: Family,
    /// Whether the second end connects, not the first.
    pub second_opens: bool,
    /// Bytes that each end sends.
    pub bytes: [usize; 2],
    /// Bytes of the buffers of a connection, each way.
    pub buffer: usize,
    /// Bytes of the longest packet that the ends send.
    pub mtu: u32,
    /// How long our engine waits for a peer that is silent.
    pub give_up: Duration,
    /// The congestion control of our engines; smoltcp's stacks send without any, or
    /// with Reno.
    pub congestion_control: CongestionControl,
    /// From the first end to the second, and back.
    pub links: [Impairments; 2],
    /// What the ends suffer beside the network.
    pub faults: [Faults; 2],
    /// Datagrams that one end sends and the other echoes.
    pub datagrams: usize,
    /// When the faults end.
    pub calm: Instant,
    /// What a scripted peer does from then on.
    pub after: After,
}

/// What a scripted peer does when the faults end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Keeps to TCP.
    Behaves,
    /// Resets the connection.
    Resets,
    /// Says nothing any more, and hears nothing.
    FallsSilent,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from_a, from_b] = self.bytes;
        writeln!(
            f,
            "{}, {}, seed {}: IP{:?}, {} connects, {from_a} bytes from A and {from_b} from B, \
             faults end at {} s",
            self.ends,
            self.mode,
            self.seed,
            self.family,
            if self.second_opens { 'B' } else { 'A' },
            Duration::from_nanos(self.calm.0).as_secs(),
        )?;
        writeln!(f, "A --> B {:?}", self.links[0])?;
        writeln!(f, "A <-- B {:?}", self.links[1])?;
        if self.ends == Ends::EngineScript {
            writeln!(f, "B then {:?}", self.after)?;
        }
        writeln!(f, "A {:?}", self.faults[0])?;
        writeln!(f, "B {:?}", self.faults[1])
    }
}

/// What one end suffers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// When the application takes nothing.
    pub pauses: Vec<Range<Instant>>,
    /// When the device takes no packet.
    pub shut: Vec<Range<Instant>>,
    /// The device takes one packet a call.
    pub gulps: bool,
    /// The device refuses every other call.
    pub refuses_every_other: bool,
    /// How the clock jumps, in nanoseconds.
    pub jumps: Vec<(Instant, i64)>,
    /// When the guest traps.
    pub restart: Option<Instant>,
    /// The application gives every second piece in two portions of a batch: no fault,
    /// but what a transfer that is timed does without.
    pub batches: bool,
}

/// Where time begins: not at the origin, so that a clock can go back.
pub const START: Instant = Instant(10_000_000_000);

/// The longest packet of the mode `Wide`.
const WIDE_MTU: u32 = 65_535;

/// How long the network's faults last, which is enough for all 400 kB at a tenth of
/// the loss; the rest of a run is for what they have left behind.
const FAULTS: Duration = Duration::from_secs(30);

/// How long a flow may live after the faults (I4).
pub const PATIENCE: Duration = Duration::from_secs(120);

impl Plan {
    /// The run of a seed.
    #[must_use]
    pub fn new(ends: Ends, mode: Mode, seed: u64) -> Self {
        // Neighbouring seeds and modes share nothing.
        let random = &mut Random::new(seed.wrapping_mul(31).wrapping_add(mode as u64));
        let random = &mut Random::new(random.word());
        let family = [Family::V4, Family::V6][random.below(2)];
        let second_opens = random.below(2) == 1;
        let delay = millis(random, 5, 50);
        let mut plan = Self {
            ends,
            mode,
            seed,
            family,
            second_opens,
            bytes: [400_000; 2],
            buffer: 65_535,
            mtu: 1500,
            give_up: Duration::from_secs(100),
            congestion_control: CongestionControl::Cubic,
            links: [Impairments::none(delay), Impairments::none(delay)],
            faults: [0, 1].map(|_| Faults {
                batches: true,
                ..Faults::default()
            }),
            datagrams: if ends.has_engine() { 40 } else { 0 },
            calm: START,
            after: After::Behaves,
        };
        if ends == Ends::EngineScript {
            // A peer that sends something at random every 15 ms takes its time.
            plan.bytes = [20_000; 2];
            plan.calm = START + Duration::from_secs(20);
        }
        if mode == Mode::Wide {
            plan.mtu = WIDE_MTU;
            if ends == Ends::EngineEngine {
                (plan.bytes, plan.buffer) = ([1_500_000; 2], 5 * 65_535);
            }
        }
        if mode != Mode::Clean {
            plan.calm = START + FAULTS;
        }
        for side in 0..2 {
            impair(&mut plan, side, random);
        }
        plan.after = match random.below(4) {
            0 => After::Resets,
            1 => After::FallsSilent,
            _ => After::Behaves,
        };
        for side in 0..2 {
            plan.end_faults(side);
        }
        plan
    }

    /// Whether the flow has to end with all its bytes, both ways. It need not when a
    /// guest loses it, when hours in one step are over every time limit, and when the
    /// scripted peer breaks it off.
    #[must_use]
    pub fn completes(&self) -> bool {
        let broken = |faults: &Faults| {
            let hours = faults.jumps.iter().any(|(_, jump)| *jump > 0);
            hours || faults.restart.is_some()
        };
        let behaves = self.ends != Ends::EngineScript || self.after == After::Behaves;
        behaves && !self.faults.iter().any(broken)
    }

    fn end_faults(&mut self, side: usize) {
        let finds_mtu = match self.ends {
            Ends::EngineEngine | Ends::SmoltcpSmoltcp => true,
            // What our engine is measured by needs a peer that gets through; smoltcp
            // hears no ICMP.
            Ends::EngineSmoltcp | Ends::EngineScript => side == 0,
        };
        let link = &mut self.links[side];
        link.until = self.calm;
        let announced = link.announces_mtu && finds_mtu;
        if let Some((_, first)) = link.mtu.first().filter(|_| !announced) {
            link.mtu.push((self.calm, *first));
        }
    }
}

fn impair(plan: &mut Plan, side: usize, random: &mut Random) {
    let family = plan.family;
    let link = &mut plan.links[side];
    let faults = &mut plan.faults[side];
    match plan.mode {
        Mode::Clean => {}
        Mode::Reorder => link.reorder = share(random, 50, 500),
        Mode::Loss => link.loss = loss(random, 300),
        Mode::Duplicate => link.duplicate = share(random, 10, 500),
        Mode::LossReorderDuplicate => {
            link.loss = loss(random, 300);
            link.reorder = share(random, 50, 500);
            link.duplicate = share(random, 10, 500);
        }
        Mode::OutageLoss => {
            link.loss = loss(random, 100);
            link.outages = spans(random, 4, 20_000, 200, 4000);
        }
        Mode::BackPressure => {
            faults.pauses = spans(random, 3, 10_000, 0, 20_000);
            faults.shut = spans(random, 3, 10_000, 0, 2000);
            faults.gulps = random.below(4) == 0;
            faults.refuses_every_other = random.below(4) == 0;
        }
        Mode::Mtu => link.mtu = mtu(random, family),
        Mode::Corrupt => {
            link.corrupt = share(random, 10, 100);
            link.truncate = share(random, 0, 50);
        }
        Mode::Rate => link.rate = Some(rate(random)),
        Mode::Clock => faults.jumps = jumps(random),
        Mode::Restart => {
            // The end that survives is as interesting as the one that does not.
            if side == 0 {
                faults.restart = Some(START + millis(random, 10, 2000));
            }
        }
        Mode::Chaos => {
            link.loss = loss(random, 100);
            link.reorder = share(random, 0, 200);
            link.duplicate = share(random, 0, 200);
            link.corrupt = share(random, 0, 50);
            link.truncate = share(random, 0, 20);
            link.outages = spans(random, 2, 20_000, 200, 4000);
            link.rate = (random.below(2) == 0).then(|| rate(random));
            faults.pauses = spans(random, 2, 10_000, 0, 8000);
            faults.shut = spans(random, 2, 10_000, 0, 2000);
            faults.jumps = jumps(random);
            if random.below(4) == 0 {
                faults.restart = Some(START + millis(random, 10, 10_000));
            }
        }
        Mode::Wide => {
            link.loss = loss(random, 100);
            link.reorder = share(random, 0, 300);
            link.duplicate = share(random, 0, 200);
            faults.pauses = spans(random, 2, 10_000, 0, 4000);
            faults.gulps = random.below(4) == 0;
            faults.refuses_every_other = random.below(4) == 0;
            link.announces_mtu = true;
            if random.below(2) == 0 {
                let later = START + millis(random, 50, 2000);
                link.mtu = vec![(START, WIDE_MTU as usize), (later, 9000)];
            }
        }
    }
    if side == 1 && plan.mode == Mode::Mtu {
        let announces = random.below(2) == 0;
        plan.links
            .iter_mut()
            .for_each(|link| link.announces_mtu = announces);
    }
    if side == 1 && plan.mode == Mode::Rate {
        plan.calm = START + Duration::from_secs(15);
    }
}

/// Loss of up to `most` in 1,000 on average: half of the seeds lose in bursts of
/// about five packets.
fn loss(random: &mut Random, most: u32) -> Loss {
    let average = share(random, 0, most);
    if random.below(2) == 0 {
        return Loss::Independent(average);
    }
    // The share of time in the bad state is enter / (enter + leave).
    let (leave, lost) = (160, 800);
    let bad = (average * 1000 / lost).min(900);
    Loss::Bursts {
        enter: leave * bad / (1000 - bad),
        leave,
        lost,
    }
}

fn rate(random: &mut Random) -> Rate {
    Rate {
        bytes_per_second: share(random, 100_000, 1_000_000),
        queue_bytes: share(random, 8192, 65_536),
    }
}

fn mtu(random: &mut Random, family: Family) -> Vec<(Instant, usize)> {
    let smallest = match family {
        Family::V4 => 576,
        Family::V6 => 1280,
    };
    let first = START + millis(random, 50, 500);
    let second = first + millis(random, 1000, 5000);
    vec![(START, 1500), (first, smallest), (second, 1280)]
}

fn jumps(random: &mut Random) -> Vec<(Instant, i64)> {
    const SECOND: i64 = 1_000_000_000;
    let mut jumps = vec![(START + millis(random, 100, 2000), -2 * SECOND)];
    if random.below(2) == 0 {
        jumps.push((START + millis(random, 3000, 8000), 6 * 3600 * SECOND));
    }
    jumps
}

/// One to `most` stretches that begin within `within` and last `least` to `longest`,
/// all in milliseconds; they end with the other faults.
fn spans(
    random: &mut Random,
    most: usize,
    within: usize,
    least: usize,
    longest: usize,
) -> Vec<Range<Instant>> {
    let count = 1 + random.below(most);
    let span = |_| {
        let from = START + millis(random, 0, within);
        let to = from + millis(random, least, longest);
        from..to.min(START + FAULTS)
    };
    (0..count).map(span).collect()
}

fn millis(random: &mut Random, least: usize, most: usize) -> Duration {
    let micros = least * 1000 + random.below((most - least) * 1000 + 1);
    Duration::from_micros(micros as u64)
}

fn share(random: &mut Random, least: u32, most: u32) -> u32 {
    let range = usize::try_from(most - least).expect("a share") + 1;
    least + u32::try_from(random.below(range)).expect("a share")
}
