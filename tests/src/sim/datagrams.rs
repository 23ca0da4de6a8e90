//! The datagrams of a run: one end sends them, the other echoes them, and every one
//! is known by its content (I9).

use std::collections::VecDeque;
use std::time::Duration;

use l3l4_engine::Instant;

use super::end::Place;
use super::invariants::{Findings, Rule};
use super::plan::START;
use crate::craft;
use crate::random::Random;
use crate::wire::{self, Body};

/// The port of the end that echoes.
pub const PORT: u16 = 7;
/// The port of the end that sends first.
pub const OPENER_PORT: u16 = 40_007;

/// What one end knows of the datagrams.
#[derive(Debug)]
pub struct Datagrams {
    contents: Vec<Vec<u8>>,
    /// When each is to be sent; none at the end that echoes.
    due: VecDeque<(Instant, usize)>,
    /// Datagrams that its end took to send, and how many of them were empty.
    pub given: u64,
    /// The empty ones among them.
    pub given_empty: u64,
    /// Datagrams that it emitted.
    pub emitted: u64,
    /// The empty ones among them.
    pub emitted_empty: u64,
    /// Good ones that reached it.
    pub arrived: u64,
    /// Those that its application got.
    pub delivered: u64,
}

impl Datagrams {
    /// So many, at random instants of the first two seconds; lengths up to what every
    /// MTU of a run carries, and some of length 0.
    #[must_use]
    pub fn new(count: usize, seed: u64, opens: bool) -> Self {
        let mut random = Random::new(seed ^ 0x0075_6470);
        let mut contents = Vec::with_capacity(count);
        let mut due = Vec::with_capacity(count);
        for index in 0..count {
            let length = match random.below(8) {
                0 => 0,
                _ => 2 + random.below(500),
            };
            let mut content = random.bytes(length);
            if let Some(front) = content.get_mut(..2) {
                let index = u16::try_from(index).expect("few datagrams");
                front.copy_from_slice(&index.to_be_bytes());
            }
            contents.push(content);
            let micros = random.below(2_000_000) as u64;
            due.push((START + Duration::from_micros(micros), index));
        }
        due.sort_unstable();
        if !opens {
            due.clear();
        }
        Self {
            contents,
            due: due.into(),
            given: 0,
            given_empty: 0,
            emitted: 0,
            emitted_empty: 0,
            arrived: 0,
            delivered: 0,
        }
    }

    /// The next one that is due.
    pub fn take_due(&mut self, now: Instant) -> Option<Vec<u8>> {
        let (at, index) = *self.due.front()?;
        if at > now {
            return None;
        }
        self.due.pop_front();
        Some(self.contents[index].clone())
    }

    /// When the next one is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }

    /// None are sent from here on.
    pub fn stop(&mut self) {
        self.due.clear();
    }

    /// Its end took one to send.
    pub fn give(&mut self, data: &[u8]) {
        self.given += 1;
        self.given_empty += u64::from(data.is_empty());
    }

    /// It emitted one.
    pub fn emit(&mut self, data: &[u8]) {
        self.emitted += 1;
        self.emitted_empty += u64::from(data.is_empty());
    }

    /// Its application got one: whole, and one that was sent.
    pub fn deliver(&mut self, data: &[u8], findings: &mut Findings) {
        self.delivered += 1;
        let known = match data {
            [] => self.contents.iter().any(Vec::is_empty),
            [high, low, ..] => {
                let index = usize::from(u16::from_be_bytes([*high, *low]));
                self.contents
                    .get(index)
                    .is_some_and(|content| content == data)
            }
            [_] => false,
        };
        findings.rule(Rule::I9, known, || {
            format!("a datagram of {} bytes that nobody sent", data.len())
        });
    }

    /// At the end: what the end took was emitted, what reached it was delivered, or
    /// it was counted. `not_taken` counts those that the application refused,
    /// `replies_lost` the empty ones that the device refused.
    pub fn close_the_books(&self, not_taken: u64, replies_lost: u64, findings: &mut Findings) {
        let (given, emitted) = (
            self.given - self.given_empty,
            self.emitted - self.emitted_empty,
        );
        findings.rule(Rule::I9, given == emitted, || {
            format!("{given} datagrams were taken to send, {emitted} were emitted")
        });
        let most = self.emitted_empty + replies_lost;
        let empty = self.emitted_empty <= self.given_empty && self.given_empty <= most;
        findings.rule(Rule::I9, empty, || {
            format!(
                "{} empty datagrams were given, {} emitted, {replies_lost} counted",
                self.given_empty, self.emitted_empty
            )
        });
        let accounted = self.delivered + not_taken;
        findings.rule(Rule::I9, self.arrived == accounted, || {
            format!(
                "{} datagrams arrived, {} were delivered, {not_taken} counted as not taken",
                self.arrived, self.delivered
            )
        });
    }
}

/// An end of the datagrams without a stack: it crafts and reads them by hand.
#[derive(Debug)]
pub struct Correspondent {
    place: Place,
    datagrams: Datagrams,
}

impl Correspondent {
    /// At this place.
    #[must_use]
    pub fn new(place: Place, datagrams: Datagrams) -> Self {
        Self { place, datagrams }
    }

    /// Takes the datagrams out of what arrived, and gives the answers to them.
    pub fn receive(&mut self, packets: &mut Vec<Vec<u8>>, findings: &mut Findings) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        packets.retain(|packet| {
            let Ok(Body::Udp(datagram)) = wire::read(packet).map(|seen| seen.body) else {
                return true;
            };
            self.datagrams.deliver(&datagram.payload, findings);
            if !self.place.opens {
                answers.push(craft::udp(datagram.to, datagram.from, &datagram.payload));
            }
            false
        });
        answers
    }

    /// The datagrams that are due.
    pub fn act(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while let Some(data) = self.datagrams.take_due(now) {
            let own = self.place.own(PORT, OPENER_PORT);
            let other = self.place.other(PORT, OPENER_PORT);
            sent.push(craft::udp(own, other, &data));
        }
        sent
    }

    /// When the next one is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.datagrams.next()
    }

    /// None are sent from here on.
    pub fn stop(&mut self) {
        self.datagrams.stop();
    }
}
