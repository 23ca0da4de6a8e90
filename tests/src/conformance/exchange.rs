//! One exchange with the engine, as a case tells it: inject packets, expect packets
//! and events, let time pass. It keeps a transcript in the manner of packetdrill
//! (`<` into the engine, `>` out of it, times in seconds, sequence numbers relative
//! to the first of each side), which every failed expectation shows.
//!
//! ```text
//! x.handshake();
//! x.inject(data(b"last").with(FIN));
//! x.expect_delivered(b"last");
//! x.expect_within(ms(500), ack().ack(6));
//! x.expect_events(&[Event::PeerFinished]);
//! x.silence_for(secs(1));
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use l3l4_engine::{CloseReason, Event, FiveTuple, FlowId, Instant, Verdict};

use crate::conformance::segment::{Segment, ack, brief, syn};
use crate::craft::{Family, Peer};
use crate::scene::Scene;
use crate::wire::{self, ACK, Body, Icmp, RST, SYN, Seen, Tcp};

/// Milliseconds.
#[must_use]
pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Seconds.
#[must_use]
pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Bytes of a stream from this offset on: any piece tells where it belongs.
#[must_use]
pub fn stream(from: u32, length: u32) -> Vec<u8> {
    let byte = |at: u32| at.wrapping_mul(0x9e37_79b9).to_be_bytes()[0];
    (from..from + length).map(byte).collect()
}

/// Why a case failed. It is thrown by `resume_unwind`, past every panic hook: see
/// [`crate::conformance::case`].
#[derive(Clone, Debug)]
pub struct Failure(pub String);

/// An exchange over one scene.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The device, its clock and its host, for what the words here do not say.
    pub scene: &'a mut Scene,
    /// Which IP.
    pub family: Family,
    /// The conversation that segments without addresses belong to.
    pub talk: Talk,
    start: Instant,
    unread: VecDeque<(Duration, Seen)>,
    delivered: BTreeMap<FlowId, Vec<Vec<u8>>>,
    events: VecDeque<(FlowId, Event)>,
    announced: VecDeque<(FlowId, FiveTuple)>,
    transcript: Vec<String>,
}

/// Two ends of one TCP conversation and where their sequences stand.
#[derive(Clone, Debug)]
pub struct Talk {
    /// Who the engine speaks for.
    pub local: SocketAddr,
    /// The far end.
    pub peer: SocketAddr,
    /// The peer's first sequence number.
    pub isn: u32,
    /// The engine's, once it was heard.
    pub irs: Option<u32>,
    /// The peer's next sequence number, relative.
    pub next: u32,
    /// The end of what the engine sent, relative.
    pub heard: u32,
    /// The window the peer offers in a segment that names none.
    pub window: u16,
    /// The engine's window scale, if both sides have sent one.
    pub scale: u8,
    /// The flow, once announced.
    pub flow: Option<FlowId>,
    offered_scale: bool,
}

impl Talk {
    /// From this port of the peer to port 7, first sequence number 1000.
    #[must_use]
    pub fn new(family: Family, port: u16) -> Self {
        Self {
            local: family.local(7),
            peer: family.peer(port),
            isn: 1000,
            irs: None,
            next: 0,
            heard: 0,
            window: 64_000,
            scale: 0,
            flow: None,
            offered_scale: false,
        }
    }

    /// With another first sequence number.
    #[must_use]
    pub fn isn(mut self, isn: u32) -> Self {
        self.isn = isn;
        self
    }
}

/// What can be injected: a [`Segment`] of the conversation, or the bytes of a packet.
pub trait Packet {
    /// The bytes, in this conversation; takes note of what was said.
    fn bytes(self, talk: &mut Talk) -> Vec<u8>;
}

impl Packet for Vec<u8> {
    fn bytes(self, _: &mut Talk) -> Vec<u8> {
        self
    }
}

impl Packet for Segment {
    fn bytes(self, talk: &mut Talk) -> Vec<u8> {
        let peer = Peer {
            local: talk.local,
            peer: talk.peer,
            next: 0,
            expected: 0,
            window: talk.window,
        };
        let irs = talk.irs.unwrap_or(0);
        let packet = self.packet(peer.segment(0), (talk.isn, talk.next), (irs, talk.heard));
        if self.is_next() {
            talk.next = talk.next.wrapping_add(self.sequence_length());
        }
        if let Ok(Body::Tcp(sent)) = wire::read(&packet).map(|seen| seen.body)
            && sent.has(SYN)
        {
            talk.offered_scale = sent.window_scale.is_some();
        }
        packet
    }
}

impl<'a> Exchange<'a> {
    /// Begins with a peer at port 40,000.
    pub fn new(scene: &'a mut Scene, family: Family) -> Self {
        let start = scene.now;
        Self {
            scene,
            family,
            talk: Talk::new(family, 40_000),
            start,
            unread: VecDeque::new(),
            delivered: BTreeMap::new(),
            events: VecDeque::new(),
            announced: VecDeque::new(),
            transcript: Vec::new(),
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn into_transcript(self) -> Vec<String> {
        self.transcript
    }

    // The wire.

    /// A packet arrives at the engine.
    pub fn inject(&mut self, packet: impl Packet) {
        let bytes = packet.bytes(&mut self.talk);
        self.note_in(&bytes);
        self.scene.rx(bytes);
        self.settle();
    }

    /// Packets arrive in one batch.
    pub fn inject_all(&mut self, packets: Vec<Vec<u8>>) {
        for packet in &packets {
            self.note_in(packet);
        }
        self.scene.rx_batch(&packets);
        self.settle();
    }

    /// The bytes of a segment of this conversation, to cut up or to break.
    pub fn packet(&mut self, segment: Segment) -> Vec<u8> {
        segment.bytes(&mut self.talk)
    }

    /// The next packet, which is here already, is this segment.
    #[track_caller]
    pub fn expect(&mut self, segment: Segment) -> Tcp {
        self.expect_within(Duration::ZERO, segment)
    }

    /// The next packet, within this time, is this segment.
    #[track_caller]
    pub fn expect_within(&mut self, time: Duration, segment: Segment) -> Tcp {
        let Some(seen) = self.next_within(time) else {
            let limit = limit(time);
            self.fail(format!("expected {segment}{limit}; nothing came"));
        };
        let Body::Tcp(tcp) = &seen.body else {
            self.fail(format!("expected {segment}; {seen} came"));
        };
        let tcp = self.relative(tcp);
        let differences = segment.differences(&tcp);
        if !differences.is_empty() {
            let differences = differences.join(", ");
            self.fail(format!(
                "expected {segment}; {} came: {differences}",
                brief(&tcp)
            ));
        }
        tcp
    }

    /// The first segment within this time that is like this one, whatever comes
    /// before.
    #[track_caller]
    pub fn expect_among(&mut self, time: Duration, segment: Segment) -> Tcp {
        let end = self.scene.now + time;
        while let Some(seen) = self.next_within(end - self.scene.now) {
            let Body::Tcp(tcp) = &seen.body else { continue };
            let tcp = self.relative(tcp);
            if segment.differences(&tcp).is_empty() {
                return tcp;
            }
        }
        let limit = limit(time);
        self.fail(format!("expected {segment}{limit}; it did not come"));
    }

    /// The next packet, which is here already, is an ICMP message of this type and
    /// code.
    #[track_caller]
    pub fn expect_icmp(&mut self, kind: u8, code: u8) -> Icmp {
        let Some((_, seen)) = self.unread.pop_front() else {
            self.fail(format!("expected ICMP {kind}/{code}; nothing came"));
        };
        match &seen.body {
            Body::Icmp(message) if (message.kind, message.code) == (kind, code) => message.clone(),
            Body::Icmp(_) | Body::Tcp(_) | Body::Udp(_) | Body::Fragment(_) => {
                self.fail(format!("expected ICMP {kind}/{code}; {seen} came"))
            }
        }
    }

    /// Nothing was emitted that no expectation has taken.
    #[track_caller]
    pub fn silence(&mut self) {
        self.silence_for(Duration::ZERO);
    }

    /// Nothing is emitted in this time.
    #[track_caller]
    pub fn silence_for(&mut self, time: Duration) {
        if let Some(seen) = self.next_within(time) {
            let came = self.describe(&seen);
            self.fail(format!("expected silence; {came} came"));
        }
    }

    /// All segments that were emitted and not taken yet, then those of this time,
    /// with the time from the start of the exchange.
    pub fn segments_for(&mut self, time: Duration) -> Vec<(Duration, Tcp)> {
        let seen = self.packets_for(time);
        seen.iter()
            .filter_map(|(at, seen)| match &seen.body {
                Body::Tcp(tcp) => Some((*at, self.relative(tcp))),
                Body::Udp(_) | Body::Icmp(_) | Body::Fragment(_) => None,
            })
            .collect()
    }

    /// All segments that were emitted and not taken yet.
    pub fn segments(&mut self) -> Vec<Tcp> {
        let segments = self.segments_for(Duration::ZERO);
        segments.into_iter().map(|(_, tcp)| tcp).collect()
    }

    /// The same for packets of every kind.
    pub fn packets_for(&mut self, time: Duration) -> Vec<(Duration, Seen)> {
        self.pass(time);
        std::mem::take(&mut self.unread).into()
    }

    /// Forgets what was emitted and not taken.
    pub fn ignore_sent(&mut self) {
        self.unread.clear();
    }

    /// A peer that acknowledges all it receives, a millisecond after, until the
    /// engine's sequence has come to `end`; the segments.
    #[track_caller]
    pub fn receive_until(&mut self, end: u32) -> Vec<Tcp> {
        let limit = self.elapsed() + secs(60);
        let (mut all, mut come) = (Vec::<Tcp>::new(), false);
        while !come {
            let segments = self.segments();
            come = self.talk.heard >= end;
            let some = !segments.is_empty();
            all.extend(segments);
            self.pass(ms(1));
            if some || come {
                self.inject(ack());
            }
            if self.elapsed() > limit {
                let heard = self.talk.heard;
                self.fail(format!("expected the stream to {end}; it ends at {heard}"));
            }
        }
        all
    }

    // Time.

    /// Lets time pass; the engine is polled whenever it wants to be.
    pub fn pass(&mut self, time: Duration) {
        let end = self.scene.now + time;
        while self.poll_before(end) {}
    }

    /// Time since the start of the exchange.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.scene.now - self.start
    }

    // The application.

    /// The flow of this conversation.
    #[track_caller]
    pub fn flow(&mut self) -> FlowId {
        match self.talk.flow {
            Some(flow) => flow,
            None => self.fail("expected a flow; none was announced"),
        }
    }

    /// The application sends; all has to be taken.
    #[track_caller]
    pub fn app_sends(&mut self, bytes: &[u8]) {
        let flow = self.flow();
        self.note(format!("l4-tx {} bytes", bytes.len()));
        let taken = self.scene.tx(flow, bytes);
        self.settle();
        if taken != Ok(bytes.len()) {
            self.fail(format!("l4-tx of {} bytes: {taken:?}", bytes.len()));
        }
    }

    /// The application has sent all.
    #[track_caller]
    pub fn app_finishes(&mut self) {
        let flow = self.flow();
        self.note("flow-finish");
        let result = self.scene.finish(flow);
        self.settle();
        if let Err(error) = result {
            self.fail(format!("flow-finish: {error:?}"));
        }
    }

    /// The application takes no more than this from here on.
    pub fn app_takes(&mut self, bytes: usize) {
        let flow = self.flow();
        self.scene.host().appetite.insert(flow, bytes);
    }

    /// The application takes so many bytes of what was held back.
    #[track_caller]
    pub fn app_reads(&mut self, bytes: usize) {
        let flow = self.flow();
        self.note(format!("the application reads {bytes} bytes"));
        self.scene.host().appetite.insert(flow, bytes);
        self.resume(flow);
    }

    /// The application takes all from here on.
    #[track_caller]
    pub fn app_reads_all(&mut self) {
        let flow = self.flow();
        self.note("the application reads all");
        self.scene.host().appetite.remove(&flow);
        self.resume(flow);
    }

    #[track_caller]
    fn resume(&mut self, flow: FlowId) {
        let result = self.scene.resume(flow);
        self.settle();
        if let Err(error) = result {
            self.fail(format!("flow-resume: {error:?}"));
        }
    }

    /// What was delivered of this conversation and not taken yet.
    pub fn delivered(&mut self) -> Vec<u8> {
        let Some(flow) = self.talk.flow else {
            return Vec::new();
        };
        self.delivered.remove(&flow).unwrap_or_default().concat()
    }

    /// The datagrams of a flow that were delivered and not taken yet.
    pub fn datagrams(&mut self, flow: FlowId) -> Vec<Vec<u8>> {
        self.delivered.remove(&flow).unwrap_or_default()
    }

    /// Exactly these bytes were delivered since the last look.
    #[track_caller]
    pub fn expect_delivered(&mut self, bytes: &[u8]) {
        let delivered = self.delivered();
        if delivered != bytes {
            let same = delivered
                .iter()
                .zip(bytes)
                .take_while(|(a, b)| a == b)
                .count();
            self.fail(format!(
                "expected {} bytes delivered; {} were, {same} of them as expected",
                bytes.len(),
                delivered.len()
            ));
        }
    }

    /// Events of this conversation since the last look.
    pub fn events(&mut self) -> Vec<Event> {
        let flow = self.talk.flow;
        let mut events = Vec::new();
        self.events.retain(|(of, event)| {
            let ours = Some(*of) == flow;
            if ours {
                events.push(*event);
            }
            !ours
        });
        events
    }

    /// Exactly these events happened to this conversation since the last look.
    #[track_caller]
    pub fn expect_events(&mut self, expected: &[Event]) {
        let events = self.events();
        if events != expected {
            self.fail(format!("expected events {expected:?}; {events:?} happened"));
        }
    }

    /// This conversation has ended, for this reason, and nothing else was said.
    #[track_caller]
    pub fn expect_closed(&mut self, reason: CloseReason) {
        self.expect_events(&[Event::Closed(reason)]);
    }

    /// The one flow announced since the last look.
    #[track_caller]
    pub fn expect_flow(&mut self) -> (FlowId, FiveTuple) {
        if self.announced.len() != 1 {
            let announced = self.announced.len();
            self.fail(format!("expected one flow announced; {announced} were"));
        }
        self.announced.pop_front().expect("one")
    }

    /// No flow was announced since the last look.
    #[track_caller]
    pub fn expect_no_flow(&mut self) {
        if let Some((_, tuple)) = self.announced.pop_front() {
            let tuple = crate::trace::tuple(&tuple);
            self.fail(format!("expected no flow; {tuple} was announced"));
        }
    }

    /// Anything else that has to hold, in words that follow "expected".
    #[track_caller]
    pub fn require(&mut self, holds: bool, expected: impl Display) {
        if !holds {
            self.fail(format!("expected {expected}"));
        }
    }

    // Conversations.

    /// Goes over to a conversation; gives back the last one.
    pub fn turn_to(&mut self, talk: Talk) -> Talk {
        self.note(format!("{} to {}", talk.peer, talk.local));
        std::mem::replace(&mut self.talk, talk)
    }

    /// What the host says to new flows from here on.
    pub fn verdict_on_new(&mut self, verdict: Verdict) {
        self.scene.verdict_on_new(verdict);
    }

    /// The largest segment of an Ethernet packet.
    #[must_use]
    pub fn usual_mss(&self) -> u16 {
        u16::try_from(1500 - self.family.ip_header() - 20).expect("a segment")
    }

    /// A handshake with nothing but an MSS of Ethernet.
    #[track_caller]
    pub fn handshake(&mut self) -> Tcp {
        let mss = self.usual_mss();
        self.handshake_with(syn().mss(mss))
    }

    /// A handshake with this SYN; the SYN-ACK. If it carries timestamps, the ACK
    /// does too, with the value after the SYN's.
    #[track_caller]
    pub fn handshake_with(&mut self, syn: Segment) -> Tcp {
        let offered = self.packet(syn);
        let value = match wire::read(&offered).map(|seen| seen.body) {
            Ok(Body::Tcp(syn)) => syn.timestamps.map(|(value, _)| value),
            Ok(Body::Udp(_) | Body::Icmp(_) | Body::Fragment(_)) | Err(_) => None,
        };
        self.inject(offered);
        let syn_ack = self.expect(crate::conformance::segment::syn_ack().ack(1));
        match (value, syn_ack.timestamps) {
            (Some(value), Some((theirs, _))) => self.inject(ack().ts(value + 1, theirs)),
            (Some(_) | None, Some(_) | None) => self.inject(ack()),
        }
        self.expect_events(&[Event::Established]);
        self.announced.clear();
        self.silence();
        syn_ack
    }

    /// The right edge of the window that a segment of the engine offers, relative.
    #[must_use]
    pub fn right_edge(&self, segment: &Tcp) -> u32 {
        segment.ack.wrapping_add(self.window_of(segment))
    }

    /// The window that a segment of the engine offers.
    #[must_use]
    pub fn window_of(&self, segment: &Tcp) -> u32 {
        let scale = if segment.has(SYN) { 0 } else { self.talk.scale };
        u32::from(segment.window) << scale
    }

    // The record.

    /// A line in the transcript.
    pub fn note(&mut self, what: impl Display) {
        let at = self.elapsed().as_secs_f64();
        self.transcript.push(format!("{at:>10.3}   {what}"));
    }

    /// Fails the case.
    #[track_caller]
    pub fn fail(&mut self, what: impl Display) -> ! {
        let at = std::panic::Location::caller();
        let file = at.file().rsplit('/').next().unwrap_or_default();
        self.note(format!("FAILED at {file}:{}: {what}", at.line()));
        std::panic::resume_unwind(Box::new(Failure(what.to_string())))
    }

    fn note_in(&mut self, packet: &[u8]) {
        let what = match wire::read(packet) {
            Ok(seen) => self.describe(&seen),
            Err(error) => format!("{} bytes ({error})", packet.len()),
        };
        let at = self.elapsed().as_secs_f64();
        self.transcript.push(format!("{at:>10.3} < {what}"));
    }

    fn describe(&self, seen: &Seen) -> String {
        match &seen.body {
            Body::Tcp(tcp) if self.is_ours(tcp) => brief(&self.relative(tcp)),
            Body::Tcp(_) | Body::Udp(_) | Body::Icmp(_) | Body::Fragment(_) => seen.to_string(),
        }
    }

    /// Both ends of this conversation, in either direction.
    fn is_ours(&self, tcp: &Tcp) -> bool {
        let ends = (self.talk.local, self.talk.peer);
        (tcp.from, tcp.to) == ends || (tcp.to, tcp.from) == ends
    }

    /// A segment with its numbers relative to the first of each side.
    fn relative(&self, tcp: &Tcp) -> Tcp {
        let (isn, irs) = (self.talk.isn, self.talk.irs.unwrap_or(0));
        let outgoing = tcp.from == self.talk.local;
        let (of_seq, of_ack) = if outgoing { (irs, isn) } else { (isn, irs) };
        let edge = |edge: u32| edge.wrapping_sub(of_ack);
        Tcp {
            seq: tcp.seq.wrapping_sub(of_seq),
            ack: if tcp.has(ACK) { edge(tcp.ack) } else { tcp.ack },
            sack: tcp.sack.iter().map(|(l, r)| (edge(*l), edge(*r))).collect(),
            ..tcp.clone()
        }
    }

    fn next_within(&mut self, time: Duration) -> Option<Seen> {
        let end = self.scene.now + time;
        while self.unread.is_empty() && !time.is_zero() && self.poll_before(end) {}
        self.unread.pop_front().map(|(_, seen)| seen)
    }

    /// Serves the next deadline, if it is not after `end`, or else goes there.
    fn poll_before(&mut self, end: Instant) -> bool {
        let due = self.scene.deadline.filter(|deadline| *deadline <= end);
        match due {
            Some(deadline) => {
                self.scene.now = self.scene.now.max(deadline);
                self.scene.poll();
                self.settle();
            }
            None => self.scene.now = self.scene.now.max(end),
        }
        due.is_some()
    }

    /// Takes note of all that the last call called back. Every word of this type
    /// does so; a story that calls the scene itself does it after.
    pub fn settle(&mut self) {
        for (flow, tuple) in std::mem::take(&mut self.scene.host().announced) {
            if (tuple.local, tuple.peer) == (self.talk.local, self.talk.peer) {
                self.talk.flow = Some(flow);
            }
            self.announced.push_back((flow, tuple));
        }
        for (flow, pieces) in std::mem::take(&mut self.scene.host().received) {
            let bytes: usize = pieces.iter().map(Vec::len).sum();
            self.note(format!("l4-rx took {bytes} bytes"));
            self.delivered.entry(flow).or_default().extend(pieces);
        }
        for (flow, event) in self.scene.events() {
            self.note(format!("{event:?}"));
            self.events.push_back((flow, event));
        }
        for seen in self.scene.sent_packets() {
            self.hear(&seen);
            let (elapsed, what) = (self.elapsed(), self.describe(&seen));
            let at = elapsed.as_secs_f64();
            self.transcript.push(format!("{at:>10.3} > {what}"));
            self.unread.push_back((elapsed, seen));
        }
    }

    fn hear(&mut self, seen: &Seen) {
        let Body::Tcp(tcp) = &seen.body else { return };
        if !self.is_ours(tcp) || tcp.has(RST) {
            return;
        }
        if tcp.has(SYN) {
            self.talk.scale = match tcp.window_scale {
                Some(shift) if self.talk.offered_scale => shift.min(14),
                Some(_) | None => 0,
            };
        }
        let irs = *self.talk.irs.get_or_insert(tcp.seq);
        let end = tcp.end().wrapping_sub(irs);
        let ahead = end.wrapping_sub(self.talk.heard);
        if ahead < 1 << 31 {
            self.talk.heard = end;
        }
    }
}

/// In the words of a failure.
fn limit(time: Duration) -> String {
    match time.is_zero() {
        true => " at once".into(),
        false => format!(" within {time:?}"),
    }
}
