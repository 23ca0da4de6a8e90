//! The embedder's side of the contract: answers the callbacks by a policy that the
//! story sets, records all, and notices what the contract forbids.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use l3l4_engine::{
    Callbacks, Checksum, CloseReason, Event, FiveTuple, FlowId, FlowOptions, Packet, Protocol,
    Timer, Verdict,
};

use crate::trace::{self, Trace};
use crate::wire;

/// No export makes as many callbacks; one that does would go on for ever (I6).
const MOST_CALLBACKS: u64 = 100_000;

/// Decides on new flows.
pub type Policy = Box<dyn FnMut(&FiveTuple) -> Verdict + Send>;

/// A host under the story's control.
pub struct Host {
    /// The verdict on new flows: accept, unless the story says otherwise.
    pub policy: Policy,
    /// How many more bytes `l4_rx` takes of a flow; all when there is no entry.
    pub appetite: BTreeMap<FlowId, usize>,
    /// How many more packets the device takes; all when none.
    pub device_room: Option<usize>,
    /// How many packets the device takes in one call at most; all when none.
    pub device_gulp: Option<usize>,
    /// The device refuses every other call altogether.
    pub device_refuses_every_other: bool,
    /// Answers with more than there is, which counts as all.
    pub overclaims: bool,
    /// The record.
    pub trace: Trace,
    /// Keeps no trace: for measurements and for long random runs.
    pub silent: bool,
    /// Packets that the device took and nobody looked at yet.
    pub sent: VecDeque<Vec<u8>>,
    /// Events that nobody looked at yet.
    pub events: VecDeque<(FlowId, Event)>,
    /// Flows announced, in order, that nobody looked at yet.
    pub announced: VecDeque<(FlowId, FiveTuple)>,
    /// Data taken of each flow that nobody looked at yet: the TCP stream in one
    /// piece, datagrams one by one.
    pub received: BTreeMap<FlowId, VecDeque<Vec<u8>>>,
    /// Flows of which `l4_rx` took less than offered.
    pub held: BTreeSet<FlowId>,
    /// Flows of which `l4_tx` took less than given: the event `writable` is due.
    pub full: BTreeSet<FlowId>,
    /// Flows that were announced or opened and have not ended.
    pub living: BTreeMap<FlowId, Life>,
    /// How flows ended.
    pub ended: BTreeMap<FlowId, CloseReason>,
    /// What the contract forbids and happened all the same.
    pub violations: Vec<String>,
    /// The largest packet allowed.
    pub mtu: usize,
    /// Callbacks so far.
    pub callbacks: u64,
    /// The same when this export was called.
    callbacks_before: u64,
    /// Packets offered and not taken, which have to come first next time.
    untaken: Vec<Vec<u8>>,
    /// A packet was left in this export: no more may be offered.
    refused_in_export: bool,
    /// Packets were left in an earlier export, and were not offered again yet.
    offer_due: bool,
    offers: u64,
}

/// What the host knows about a flow that lives.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    protocol: Protocol,
    established: bool,
    peer_finished: bool,
    peer_reset: bool,
}

impl Host {
    /// Accepts everything and takes everything.
    #[must_use]
    pub fn new(mtu: u32) -> Self {
        Self {
            policy: Box::new(|_| Verdict::Accept(FlowOptions::default())),
            appetite: BTreeMap::new(),
            device_room: None,
            device_gulp: None,
            device_refuses_every_other: false,
            overclaims: false,
            trace: Trace::default(),
            silent: false,
            sent: VecDeque::new(),
            events: VecDeque::new(),
            announced: VecDeque::new(),
            received: BTreeMap::new(),
            held: BTreeSet::new(),
            full: BTreeSet::new(),
            living: BTreeMap::new(),
            ended: BTreeMap::new(),
            violations: Vec::new(),
            mtu: usize::try_from(mtu).expect("an MTU"),
            callbacks: 0,
            callbacks_before: 0,
            untaken: Vec::new(),
            refused_in_export: false,
            offer_due: false,
            offers: 0,
        }
    }

    /// An export is about to be called.
    pub fn begin_export(&mut self) {
        self.callbacks_before = self.callbacks;
        self.refused_in_export = false;
        self.offer_due = !self.untaken.is_empty();
    }

    /// An export that does work has returned, and not with an error.
    pub fn end_export(&mut self) {
        let due = std::mem::take(&mut self.offer_due);
        self.rule(!due, || "kept packets were not offered again".into());
    }

    /// The host opened a flow.
    pub fn opened(&mut self, flow: FlowId, protocol: Protocol) {
        self.born(flow, protocol);
    }

    /// The guest has trapped: its flows are lost, and so are the packets that it
    /// kept. The flows, which the story tells its application about.
    pub fn lost(&mut self) -> Vec<FlowId> {
        self.untaken.clear();
        self.offer_due = false;
        self.held.clear();
        self.full.clear();
        let lost = std::mem::take(&mut self.living);
        lost.into_keys().collect()
    }

    /// All that was taken of a flow since the last look, in one piece.
    pub fn stream(&mut self, flow: FlowId) -> Vec<u8> {
        self.received
            .remove(&flow)
            .into_iter()
            .flatten()
            .flatten()
            .collect()
    }

    /// Whether packets were left for next time.
    #[must_use]
    pub fn packets_kept(&self) -> bool {
        !self.untaken.is_empty()
    }

    fn born(&mut self, flow: FlowId, protocol: Protocol) {
        let life = Life {
            protocol,
            established: false,
            peer_finished: false,
            peer_reset: false,
        };
        let again = self.living.insert(flow, life).is_some() || self.ended.contains_key(&flow);
        self.rule(!again, || format!("{flow:?} was used before"));
    }

    fn rule(&mut self, holds: bool, broken: impl FnOnce() -> String) {
        if !holds {
            let broken = broken();
            self.trace.note(format_args!("VIOLATION: {broken}"));
            self.violations.push(broken);
        }
    }

    fn check_packet(&mut self, bytes: &[u8], packet: &Packet) {
        let mtu = self.mtu;
        self.rule(bytes.len() <= mtu, || {
            format!("{} bytes over an MTU of {mtu}", bytes.len())
        });
        self.rule(
            packet.checksum == Checksum::Full && packet.segment_size == 0,
            || format!("a packet as {packet:?}"),
        );
        if let Err(error) = wire::read(bytes) {
            self.rule(false, || {
                format!("emitted a broken packet: {error}: {bytes:02x?}")
            });
        }
    }

    /// What was not taken last time is offered first, unchanged.
    fn check_kept(&mut self, offered: &[&[u8]]) {
        let kept = std::mem::take(&mut self.untaken);
        self.offer_due = false;
        let again = offered.len() >= kept.len() && kept.iter().zip(offered).all(|(a, b)| a == b);
        self.rule(again, || {
            format!("{} kept packets were not offered first", kept.len())
        });
        let twice = self.refused_in_export;
        self.rule(!twice, || {
            "packets offered after one was left in the same export".into()
        });
    }
}

impl Callbacks for Host {
    fn l3_tx(&mut self, bytes: &[u8], packets: &[Packet]) -> usize {
        self.callbacks += 1;
        let within = self.callbacks - self.callbacks_before;
        assert!(within < MOST_CALLBACKS, "an export that never ends");
        let mut offered = Vec::with_capacity(packets.len());
        let mut rest = bytes;
        for packet in packets {
            let length = usize::try_from(packet.length).expect("a length");
            if length > rest.len() {
                self.rule(false, || "packets longer than their bytes".into());
                return packets.len();
            }
            let (one, next) = rest.split_at(length);
            self.check_packet(one, packet);
            offered.push(one);
            rest = next;
        }
        self.rule(rest.is_empty(), || {
            format!("{} bytes of no packet", rest.len())
        });
        self.rule(!packets.is_empty(), || "an empty batch".into());
        self.check_kept(&offered);
        self.offers += 1;
        let refuses = self.device_refuses_every_other && self.offers.is_multiple_of(2);
        let take = offered
            .len()
            .min(self.device_room.unwrap_or(usize::MAX))
            .min(self.device_gulp.unwrap_or(usize::MAX))
            .min(if refuses { 0 } else { usize::MAX });
        if let Some(room) = &mut self.device_room {
            *room -= take;
        }
        self.sent
            .extend(offered[..take].iter().map(|packet| packet.to_vec()));
        self.untaken = offered[take..]
            .iter()
            .map(|packet| packet.to_vec())
            .collect();
        self.refused_in_export = take < offered.len();
        if !self.silent {
            self.trace.packets("l3-tx", bytes, packets);
            if take < offered.len() {
                self.trace
                    .note(format_args!("l3-tx took {take} of {}", offered.len()));
            }
        }
        if self.overclaims { take + 1000 } else { take }
    }

    fn l4_rx(&mut self, flow: FlowId, data: &[u8]) -> usize {
        self.callbacks += 1;
        let Some(life) = self.living.get(&flow).copied() else {
            self.rule(false, || format!("data of {flow:?}, which does not live"));
            return data.len();
        };
        let take = data
            .len()
            .min(self.appetite.get(&flow).copied().unwrap_or(usize::MAX));
        if let Some(appetite) = self.appetite.get_mut(&flow) {
            *appetite -= take;
        }
        if !self.silent {
            let digest = trace::digest(data);
            self.trace.note(format_args!(
                "l4-rx {flow:?} took {take} of {} #{digest:016x}",
                data.len()
            ));
        }
        if life.protocol == Protocol::Tcp {
            let held = self.held.contains(&flow);
            self.rule(!held, || format!("data of {flow:?}, which is held back"));
            self.rule(!data.is_empty(), || format!("an empty piece of {flow:?}"));
            self.rule(!life.peer_finished, || {
                format!("data of {flow:?} after its end")
            });
        }
        if take < data.len() && life.protocol == Protocol::Tcp {
            self.held.insert(flow);
        }
        if take == data.len() || life.protocol == Protocol::Tcp {
            self.received
                .entry(flow)
                .or_default()
                .push_back(data[..take].to_vec());
        }
        if self.overclaims { take + 1000 } else { take }
    }

    fn flow_new(&mut self, flow: FlowId, tuple: &FiveTuple) -> Verdict {
        self.callbacks += 1;
        let verdict = (self.policy)(tuple);
        if !self.silent {
            let tuple = trace::tuple(tuple);
            self.trace
                .note(format_args!("flow-new {flow:?} {tuple} -> {verdict:?}"));
        }
        match verdict {
            Verdict::Accept(_) | Verdict::Wait => self.born(flow, tuple.protocol),
            Verdict::Refuse(_) | Verdict::Drop => {}
        }
        self.announced.push_back((flow, *tuple));
        verdict
    }

    fn flow_event(&mut self, flow: FlowId, event: Event) {
        self.callbacks += 1;
        if !self.silent {
            self.trace
                .note(format_args!("flow-event {flow:?} {event:?}"));
        }
        self.events.push_back((flow, event));
        let Some(life) = self.living.get_mut(&flow) else {
            return self.rule(false, || {
                format!("{event:?} of {flow:?}, which does not live")
            });
        };
        let fresh = match event {
            Event::Established => !std::mem::replace(&mut life.established, true),
            Event::PeerFinished => !std::mem::replace(&mut life.peer_finished, true),
            // Said of data that the host holds back, and of nothing else.
            Event::PeerReset => {
                !std::mem::replace(&mut life.peer_reset, true) && self.held.contains(&flow)
            }
            Event::Writable => !life.peer_reset && self.full.remove(&flow),
            Event::Closed(reason) => {
                let as_told = !life.peer_reset || ends_a_reset(reason);
                self.living.remove(&flow);
                self.held.remove(&flow);
                self.full.remove(&flow);
                self.ended.insert(flow, reason).is_none() && as_told
            }
        };
        self.rule(fresh, || format!("{event:?} of {flow:?} is out of place"));
    }
}

/// How a flow may end of which it was said that its peer has reset it: so, unless the
/// host took nothing for as long as a flow may idle.
fn ends_a_reset(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::ResetByPeer | CloseReason::TimedOut(Timer::Idle)
    )
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("living", &self.living)
            .finish_non_exhaustive()
    }
}
