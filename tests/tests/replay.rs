//! Captures replayed: conversations with a server whose sequence numbers are not
//! ours go through to the last byte, whatever the application does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use l3l4_host::capture::{Direction, Reader, Writer};
use l3l4_host::replay::{Application, Checksums, Mapping, Options, Replay, Report, Sink};
use l3l4_host::{DropReason, Engine, FiveTuple, FlowId};
use l3l4_tests::craft::{self, Family, Peer, Segment};
use l3l4_tests::program::program;
use l3l4_tests::random::Random;
use l3l4_tests::wire::{self, ACK, Body, RST, SYN};
use serde_json::Value;

const MILLISECOND: u64 = 1_000_000;
/// 2026-11-22, so that nothing works only near 1970.
const START: u64 = 1_795_305_600_000_000_000;

/// A conversation as it was captured between a client and a server of old.
struct Story {
    client: Peer,
    server: Peer,
    at: u64,
    packets: Vec<(u64, Vec<u8>)>,
    asked: Vec<u8>,
    answered: Vec<u8>,
    random: Random,
}

impl Story {
    fn new(family: Family) -> Self {
        let mut client = Peer::new(family);
        client.next = 1000;
        let mut server = client.clone();
        (server.local, server.peer) = (client.peer, client.local);
        server.next = 0x1234_5678;
        Self {
            client,
            server,
            at: START,
            packets: Vec::new(),
            asked: Vec::new(),
            answered: Vec::new(),
            random: Random::new(7),
        }
    }

    fn isns(mut self, client: u32, server: u32) -> Self {
        (self.client.next, self.server.next) = (client, server);
        self
    }

    fn capture(&mut self, packet: impl Into<Vec<u8>>) -> usize {
        self.at += MILLISECOND;
        self.packets.push((self.at, packet.into()));
        self.packets.len() - 1
    }

    fn open(&mut self) {
        self.open_with(|syn| syn.mss(1460), |syn_ack| syn_ack.mss(1460));
    }

    fn open_with(
        &mut self,
        syn: impl FnOnce(Segment) -> Segment,
        syn_ack: impl FnOnce(Segment) -> Segment,
    ) {
        let segment = syn(self.client.syn());
        self.capture(segment);
        self.server.expected = self.client.next;
        let segment = syn_ack(self.server.syn_ack());
        self.capture(segment);
        self.client_acks();
    }

    fn client_acks(&mut self) -> usize {
        self.client.expected = self.server.next;
        let ack = self.client.ack();
        self.capture(ack)
    }

    fn server_acks(&mut self) -> usize {
        self.server.expected = self.client.next;
        let ack = self.server.ack();
        self.capture(ack)
    }

    /// The client sends so much; every second segment is acknowledged.
    fn asks(&mut self, bytes: usize) {
        let data = self.random.bytes(bytes);
        for (index, piece) in data.chunks(1400).enumerate() {
            let segment = self.client.data(piece);
            self.capture(segment);
            if index % 2 == 1 {
                self.server_acks();
            }
        }
        self.server_acks();
        self.asked.extend(data);
    }

    fn answers(&mut self, bytes: usize) {
        let data = self.random.bytes(bytes);
        for (index, piece) in data.chunks(1400).enumerate() {
            let segment = self.server.data(piece);
            self.capture(segment);
            if index % 2 == 1 {
                self.client_acks();
            }
        }
        self.client_acks();
        self.answered.extend(data);
    }

    /// The client closes, then the server does.
    fn closes(&mut self) {
        let segment = self.client.fin();
        self.capture(segment);
        self.server_acks();
        let segment = self.server.fin();
        self.capture(segment);
        self.client_acks();
    }

    /// Only what one side sent.
    fn one_sided(&self, from_client: bool) -> Vec<(u64, Vec<u8>)> {
        let wanted = match from_client {
            true => self.client.peer,
            false => self.server.peer,
        };
        let mut packets = self.packets.clone();
        packets.retain(|(_, packet)| wire::read(packet).unwrap().tcp().from == wanted);
        packets
    }
}

/// A whole conversation: both sides speak, both close.
fn conversation(family: Family) -> Story {
    let mut story = Story::new(family);
    whole(&mut story);
    story
}

fn whole(story: &mut Story) {
    story.open();
    story.asks(20_000);
    story.answers(30_000);
    story.asks(100);
    story.answers(1);
    story.closes();
}

/// What came of a replay.
#[derive(Debug, Default)]
struct Heard {
    /// What the application received.
    received: BTreeMap<String, Vec<u8>>,
    /// The engine's stream, put together from its segments.
    sent: BTreeMap<u32, Vec<u8>>,
    isn: Option<u32>,
    lines: Vec<String>,
}

impl Heard {
    /// All that the engine sent on its (only) TCP flow.
    fn stream(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        let first = self.isn.expect("a SYN of ours").wrapping_add(1);
        let mut segments: Vec<_> = self
            .sent
            .iter()
            .map(|(seq, data)| (seq.wrapping_sub(first) as usize, data))
            .collect();
        segments.sort();
        for (start, data) in segments {
            assert!(start <= stream.len(), "a gap in what the engine sent");
            let known = (stream.len() - start).min(data.len());
            stream.extend_from_slice(&data[known..]);
        }
        stream
    }

    fn only(&self) -> &[u8] {
        assert!(self.received.len() <= 1, "{:?}", self.received.keys());
        self.received.values().next().map_or(&[], Vec::as_slice)
    }
}

impl Sink for Heard {
    fn wants_lines(&self) -> bool {
        true
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        self.lines.push(line.to_owned());
        Ok(())
    }

    fn packet(&mut self, _at: u64, sent: bool, packet: &[u8]) -> io::Result<()> {
        if !sent {
            return Ok(());
        }
        let seen = wire::read(packet).expect("the engine sends good packets");
        if let Body::Tcp(segment) = seen.body {
            if segment.has(SYN) {
                self.isn = Some(segment.seq);
            } else if !segment.payload.is_empty() {
                let known = self.sent.entry(segment.seq).or_default();
                if known.len() < segment.payload.len() {
                    *known = segment.payload;
                }
            }
        }
        Ok(())
    }

    fn received(&mut self, flow: FlowId, tuple: &FiveTuple, data: &[u8]) -> io::Result<()> {
        let name = format!("{flow} {}", tuple.peer);
        self.received
            .entry(name)
            .or_default()
            .extend_from_slice(data);
        Ok(())
    }
}

fn replay(packets: &[(u64, Vec<u8>)], options: Options) -> (Report, Heard) {
    let engine = Engine::builder().mtu(1500).seed([3; 32]);
    let mut replay = Replay::new(engine, options, Heard::default()).unwrap();
    for (at, packet) in packets {
        replay.packet(*at, packet, false).unwrap();
    }
    replay.finish(Duration::from_secs(120)).unwrap()
}

fn with(application: Application) -> Options {
    Options {
        application,
        ..Options::default()
    }
}

fn captured() -> Options {
    with(Application::Captured)
}

fn script(text: &str) -> Options {
    with(Application::Script(text.parse().unwrap()))
}

/// All was understood, nothing twice, and the flow ended well.
#[track_caller]
fn assert_clean(report: &Report, heard: &Heard) {
    assert_ended(report, heard, "finished");
    assert_eq!(report.counters.retransmits, 0, "{}", heard.lines.join("\n"));
    assert_eq!(report.counters.drops.iter().sum::<u64>(), 0, "{report:?}");
    assert_eq!(report.incomplete, 0);
}

#[track_caller]
fn assert_ended(report: &Report, heard: &Heard, ending: &str) {
    let lines = || heard.lines.join("\n");
    let ended: Vec<_> = report.ended.iter().collect();
    assert_eq!(ended, [(&("tcp", ending.to_owned()), &1)], "{}", lines());
    // What the capture has twice, the connection takes once.
    let twice = report.counters.dropped(DropReason::Unacceptable);
    let drops = report.counters.drops.iter().sum::<u64>();
    assert_eq!(drops - twice, 0, "{report:?}");
    assert!(report.open.is_empty(), "{:?}\n{}", report.open, lines());
}

#[test]
fn a_captured_conversation_goes_through_both_ways() {
    for family in craft::FAMILIES {
        let story = conversation(family);
        let (report, heard) = replay(&story.packets, captured());
        assert_clean(&report, &heard);
        assert!(heard.only() == story.asked, "what the client sent");
        assert!(heard.stream() == story.answered, "what the server sent");
        assert_eq!(report.mapping, Mapping::Shifted);
        assert!(report.mapped.acknowledgements > 10, "{:?}", report.mapped);
        let (fed, other) = (report.fed, report.not_fed.other_side);
        assert_eq!(fed + other, story.packets.len() as u64);
        assert_ne!(heard.isn, Some(0x1234_5678), "our own sequence");
    }
}

#[test]
fn every_other_application_hears_all_and_ends() {
    for family in craft::FAMILIES {
        let story = conversation(family);
        for (options, sent) in [
            (with(Application::Echo), story.asked.clone()),
            (with(Application::Discard), Vec::new()),
            (
                script(
                    "tcp 7\n  after 100\n  send \"hi\"\n  wait 50ms\n  send 1000000\n  after end\n  finish",
                ),
                Vec::new(),
            ),
        ] {
            let scripted = matches!(options.application, Application::Script(_));
            let (report, heard) = replay(&story.packets, options);
            assert_clean(&report, &heard);
            assert!(heard.only() == story.asked);
            assert_eq!(report.mapping, Mapping::Everything);
            let stream = heard.stream();
            match scripted {
                true => assert_eq!((&stream[..2], stream.len()), (&b"hi"[..], 1_000_002)),
                false => assert!(stream == sent, "{} bytes", stream.len()),
            }
            let added = report.mapped.added;
            assert_eq!(added > 0, scripted, "the capture acknowledges the others");
        }
    }
}

#[test]
fn sequence_numbers_wrap() {
    for (client, server) in [
        (u32::MAX - 5000, 17),
        (9, u32::MAX - 9000),
        (u32::MAX, u32::MAX),
    ] {
        let mut story = Story::new(Family::V4).isns(client, server);
        whole(&mut story);
        let (report, heard) = replay(&story.packets, captured());
        assert_clean(&report, &heard);
        assert!(heard.only() == story.asked && heard.stream() == story.answered);
    }
}

#[test]
fn one_side_of_a_capture_is_enough() {
    let story = conversation(Family::V4);
    let (report, heard) = replay(&story.one_sided(true), captured());
    assert!(heard.only() == story.asked, "the client's side");
    assert_ended(&report, &heard, "finished");
    // Our FIN is acknowledged as soon as it is sent: the peer has said so before.
    assert_eq!((report.not_fed.total(), report.not_fed.after_end), (1, 1));

    let (report, heard) = replay(&story.one_sided(false), with(Application::Discard));
    assert!(
        heard.only() == story.answered,
        "the server's side, which we open"
    );
    assert_eq!(report.counters.flows_opened, 1);
    assert_ended(&report, &heard, "finished");
}

#[test]
fn the_responder_can_be_the_peer() {
    for family in craft::FAMILIES {
        let story = conversation(family);
        for side in [
            story.server.peer.to_string(),
            story.server.peer.ip().to_string(),
        ] {
            let options = Options {
                peers: vec![side.parse().unwrap()],
                ..captured()
            };
            let (report, heard) = replay(&story.packets, options);
            assert_clean(&report, &heard);
            assert_eq!(report.counters.flows_opened, 1);
            assert!(heard.only() == story.answered, "what the server sent");
            assert!(heard.stream() == story.asked, "what the client sent");
        }
    }
    let story = conversation(Family::V4);
    let options = Options {
        peers: vec!["10.0.0.0/8".parse().unwrap()],
        ..captured()
    };
    let (report, _) = replay(&story.packets, options);
    assert_eq!((report.fed, report.counters.l3_rx_packets), (0, 0));
}

#[test]
fn a_flow_without_its_start_is_counted_and_not_guessed() {
    let mut story = conversation(Family::V4);
    let rest = story.packets.split_off(3);
    let number = rest.len() as u64;
    let (report, heard) = replay(&rest, captured());
    assert_eq!(report.start_missing.flows, 1);
    assert_eq!(report.start_missing.listed[0].2, number);
    assert_eq!(report.not_fed.start_missing, number);
    assert_eq!((report.fed, heard.lines.len()), (0, 0));
}

#[test]
fn reordered_and_repeated_segments_arrive_once() {
    let mut story = conversation(Family::V4);
    // Every data packet but the handshake: neighbours change places, some come twice.
    let times: Vec<u64> = story.packets.iter().map(|(at, _)| *at).collect();
    let last = story.packets.len() - 6;
    for at in (4..last).step_by(5) {
        story.packets.swap(at, at + 3);
    }
    for (packet, at) in story.packets.iter_mut().zip(times) {
        packet.0 = at;
    }
    for at in (8..last).step_by(7) {
        let (time, packet) = story.packets[at].clone();
        story
            .packets
            .insert(at + 2, (time + 2 * MILLISECOND, packet));
    }
    for options in [
        captured(),
        with(Application::Echo),
        with(Application::Discard),
    ] {
        let is_captured = matches!(options.application, Application::Captured);
        let (report, heard) = replay(&story.packets, options);
        assert_ended(&report, &heard, "finished");
        assert!(heard.only() == story.asked);
        if is_captured {
            assert!(heard.stream() == story.answered);
        }
    }
}

/// The captured server had a window of megabytes and remembered every segment
/// behind a gap, so its client sent the missing one again and no other.
#[test]
fn what_a_larger_window_took_is_fed_again() {
    let mut story = Story::new(Family::V4);
    story.open_with(
        |syn| syn.mss(1460).scale(7).sack_permitted(),
        |syn_ack| syn_ack.mss(1460).scale(7).sack_permitted(),
    );
    let data = story.random.bytes(300_000);
    let pieces: Vec<Vec<u8>> = data
        .chunks(1400)
        .map(|piece| story.client.data(piece).into())
        .collect();
    // The first, and some more, are lost; SACK asks for them one by one.
    let lost = [0, 20, 21, 90];
    for (index, piece) in pieces.iter().enumerate() {
        if !lost.contains(&index) {
            story.capture(piece.clone());
        }
    }
    for index in lost {
        story.capture(pieces[index].clone());
        story.server_acks();
    }
    story.asked = data;
    story.closes();
    let (report, heard) = replay(&story.packets, captured());
    assert_ended(&report, &heard, "finished");
    assert_eq!(heard.only().len(), story.asked.len());
    assert!(heard.only() == story.asked, "to the last byte");
    assert!(report.mapped.repeated > 0, "{:?}", report.mapped);
    assert_eq!(report.incomplete, 0);
}

#[test]
fn data_that_was_not_captured_is_missed_and_said() {
    let mut story = conversation(Family::V4);
    let at = (0..story.packets.len())
        .filter(|&at| {
            let segment = wire::read(&story.packets[at].1).unwrap().tcp();
            segment.from == story.client.peer && segment.payload.len() == 1400
        })
        .nth(3)
        .unwrap();
    story.packets.remove(at);
    let (report, heard) = replay(&story.packets, captured());
    assert!(heard.only() == &story.asked[..3 * 1400], "up to the gap");
    assert_eq!(report.incomplete, 1);
}

/// What the server sent and the capture lacks was sent all the same: its length
/// is known from the acknowledgement, its bytes are not.
#[test]
fn zeros_stand_for_what_the_server_sent_and_nobody_captured() {
    let mut story = conversation(Family::V4);
    let at = (0..story.packets.len())
        .filter(|&at| {
            let segment = wire::read(&story.packets[at].1).unwrap().tcp();
            segment.from == story.server.peer && segment.payload.len() == 1400
        })
        .nth(3)
        .unwrap();
    story.packets.remove(at);
    let (report, heard) = replay(&story.packets, captured());
    assert_eq!(report.gaps.zeros, 1400);
    story.answered[3 * 1400..4 * 1400].fill(0);
    assert!(heard.stream() == story.answered);
    assert!(heard.only() == story.asked);
    assert_ended(&report, &heard, "finished");
}

/// The captured server sent more at once than our engine does: it grows its
/// congestion window from less. What the client acknowledged is acknowledged as
/// soon as it is sent.
#[test]
fn an_early_acknowledgement_is_made_up_for() {
    let mut story = Story::new(Family::V4);
    story.open();
    let data = story.random.bytes(60_000);
    for piece in data.chunks(1400) {
        let segment = story.server.data(piece);
        story.capture(segment);
    }
    story.answered = data;
    story.client_acks();
    story.closes();
    let (report, heard) = replay(&story.packets, captured());
    assert_clean(&report, &heard);
    assert!(heard.stream() == story.answered);
    let mapped = report.mapped;
    assert!(mapped.clamped > 0 && mapped.added > 0, "{mapped:?}");
}

/// A snap length of 60 bytes leaves the headers: what the server sent has its
/// length still. What the client sent cannot be fed.
#[test]
fn packets_captured_in_part_are_counted() {
    let story = conversation(Family::V4);
    let cut = |side| {
        let engine = Engine::builder().seed([3; 32]);
        let mut replay = Replay::new(engine, captured(), Heard::default()).unwrap();
        for (at, packet) in &story.packets {
            let segment = wire::read(packet).unwrap().tcp();
            let is_cut = segment.from == side && packet.len() > 60;
            let bytes = if is_cut { &packet[..60] } else { packet };
            replay.packet(*at, bytes, is_cut).unwrap();
        }
        replay.finish(Duration::from_secs(120)).unwrap()
    };
    let (report, heard) = cut(story.server.peer);
    assert_ended(&report, &heard, "finished");
    assert!(heard.only() == story.asked);
    assert_eq!(heard.stream().len(), story.answered.len());
    assert_eq!(
        heard.stream()[..20],
        story.answered[..20],
        "what there is of it"
    );
    assert!(heard.stream()[20..1400].iter().all(|byte| *byte == 0));

    let (report, heard) = cut(story.client.peer);
    assert_eq!(
        report.not_fed.cut, 16,
        "15 segments of 20,000 bytes, and one of 100"
    );
    assert!(heard.received.is_empty());
    assert_eq!(report.incomplete, 1, "its FIN came");
}

#[test]
fn sack_blocks_are_moved_with_the_acknowledgements() {
    let mut story = Story::new(Family::V4);
    story.open_with(
        |syn| syn.mss(1460).sack_permitted(),
        |syn_ack| syn_ack.mss(1460).sack_permitted(),
    );
    let first = story.server.next;
    story.answers(1400);
    story.client.expected = first;
    let edges = [
        first.wrapping_add(700).to_be_bytes(),
        first.wrapping_add(1400).to_be_bytes(),
    ];
    let mut option = vec![1, 1, 5, 10];
    option.extend(edges.concat());
    let beyond = [
        first.wrapping_add(5000).to_be_bytes(),
        first.wrapping_add(6000).to_be_bytes(),
    ];
    let mut both = vec![1, 1, 5, 18];
    both.extend(edges.concat());
    both.extend(beyond.concat());
    let (one, two) = (
        story.client.ack().option(&option),
        story.client.ack().option(&both),
    );
    story.capture(one);
    story.capture(two);
    story.client_acks();
    story.closes();
    let (report, heard) = replay(&story.packets, captured());
    assert_ended(&report, &heard, "finished");
    assert_eq!(report.mapped.sack_blocks, 2, "the same twice");
    assert_eq!(report.mapped.sack_removed, 1, "of data that was never sent");
    let isn = heard.isn.unwrap();
    let moved = format!("sack {}-{}", isn.wrapping_add(701), isn.wrapping_add(1401));
    let found = heard
        .lines
        .iter()
        .filter(|line| line.contains(&moved))
        .count();
    assert_eq!(found, 2, "{moved} in\n{}", heard.lines.join("\n"));

    let (report, _) = replay(&story.packets, with(Application::Echo));
    assert_eq!(
        (report.mapped.sack_blocks, report.mapped.sack_removed),
        (0, 3)
    );
}

#[test]
fn what_the_captured_server_declined_is_not_offered() {
    let mut story = Story::new(Family::V4);
    story.client.window = 30_000;
    story.open_with(
        |syn| syn.mss(1460).scale(7).sack_permitted(),
        |syn_ack| syn_ack.mss(1460),
    );
    story.asks(5_000);
    story.answers(50_000);
    story.closes();
    for options in [captured(), with(Application::Echo)] {
        let (report, heard) = replay(&story.packets, options);
        assert_clean(&report, &heard);
        assert_eq!(report.mapped.options_removed, 2);
        let syn = heard
            .lines
            .iter()
            .find(|line| line.contains("tcp S "))
            .unwrap();
        assert!(!syn.contains("scale") && !syn.contains("sack"), "{syn}");
        assert!(heard.only() == story.asked);
    }
}

#[test]
fn timestamps_echo_what_was_sent_if_anything_was() {
    let stamp = |value: u32| {
        let mut option = vec![1, 1, 8, 10];
        option.extend(value.to_be_bytes());
        option.extend(77_u32.to_be_bytes());
        option
    };
    let mut story = Story::new(Family::V6);
    story.open_with(
        |syn| syn.mss(1440).option(&stamp(1000)),
        |syn_ack| syn_ack.mss(1440).option(&stamp(5)),
    );
    let segment = story.client.data(b"stamped").option(&stamp(1001));
    story.capture(segment);
    story.asked = b"stamped".to_vec();
    story.server_acks();
    // RFC 7323 3.2: from here on every segment has one.
    let fin = story.client.fin().option(&stamp(1002));
    story.capture(fin);
    story.server_acks();
    let fin = story.server.fin();
    story.capture(fin);
    story.client.expected = story.server.next;
    let ack = story.client.ack().option(&stamp(1003));
    story.capture(ack);
    let (report, heard) = replay(&story.packets, captured());
    assert_clean(&report, &heard);
    assert!(heard.only() == story.asked);
}

/// TCP Fast Open (RFC 7413): the captured server took data with the SYN. The
/// engine does not, and its client will not send it again.
#[test]
fn data_of_a_syn_is_fed_again() {
    for options in [captured(), with(Application::Echo)] {
        let mut story = Story::new(Family::V4);
        let syn = story.client.syn().mss(1460).payload(b"early ");
        story.client.next += 6;
        story.capture(syn);
        story.server.expected = story.client.next;
        let syn_ack = story.server.syn_ack().mss(1460);
        story.capture(syn_ack);
        story.client_acks();
        story.asked = b"early ".to_vec();
        story.asks(2000);
        story.closes();
        let (report, heard) = replay(&story.packets, options);
        assert_ended(&report, &heard, "finished");
        assert!(heard.only() == story.asked, "{}", heard.lines.join("\n"));
    }
}

/// Two network cards, two clocks: a capture need not be in order.
#[test]
fn an_answer_captured_before_its_question_is_an_answer() {
    let mut story = conversation(Family::V4);
    let (first, second) = (story.packets[0].1.clone(), story.packets[1].1.clone());
    (story.packets[0].1, story.packets[1].1) = (second, first);
    for options in [captured(), with(Application::Discard)] {
        let (report, heard) = replay(&story.packets, options);
        assert_eq!(report.counters.flows_opened, 0);
        assert_ended(&report, &heard, "finished");
        assert!(heard.only() == story.asked);
    }
    let options = Options {
        peers: vec![story.server.peer.to_string().parse().unwrap()],
        ..captured()
    };
    let (report, heard) = replay(&story.packets, options);
    assert_eq!(report.counters.flows_opened, 1);
    assert_ended(&report, &heard, "finished");
    assert!(heard.only() == story.answered && heard.stream() == story.asked);
}

/// A capture stops somewhere; the flow is as open as it was then.
#[test]
fn a_capture_that_ends_early_leaves_its_flow_open() {
    let mut story = Story::new(Family::V4);
    story.open();
    story.asks(5000);
    story.answers(5000);
    let (report, heard) = replay(&story.packets, captured());
    assert_eq!(report.open.get("tcp"), Some(&1), "{:?}", report.ended);
    assert!(heard.only() == story.asked && heard.stream() == story.answered);
    assert_eq!(report.counters.retransmits, 0, "all was acknowledged");
}

#[test]
fn a_reset_ends_as_it_did() {
    let mut story = Story::new(Family::V4);
    story.open();
    story.asks(3000);
    let reset = story.client.rst();
    story.capture(reset);
    let (report, heard) = replay(&story.packets, captured());
    assert_ended(&report, &heard, "reset-by-peer");
    assert!(heard.only() == story.asked);

    let mut story = Story::new(Family::V4);
    story.open();
    story.asks(3000);
    let reset = story.server.segment(RST | ACK);
    story.capture(reset);
    let (report, heard) = replay(&story.packets, captured());
    assert_ended(&report, &heard, "aborted");
    let resets = heard
        .lines
        .iter()
        .filter(|line| line.contains("l3-tx") && line.contains("tcp R"));
    assert_eq!(resets.count(), 1, "{}", heard.lines.join("\n"));

    // Refused then, refused again.
    let mut story = Story::new(Family::V4);
    let syn = story.client.syn();
    story.capture(syn);
    story.server.expected = story.client.next;
    let reset = story.server.segment(RST | ACK).seq(0);
    story.capture(reset);
    let (report, heard) = replay(&story.packets, captured());
    assert_ended(&report, &heard, "aborted");
    assert!(heard.lines.iter().any(|line| line.contains("flow-verdict")));
    let (report, _) = replay(&story.packets, script("any\n  refuse reset"));
    assert_eq!(report.counters.l3_tx_packets, 1);
}

#[test]
fn the_same_ends_speak_again() {
    let mut story = conversation(Family::V4);
    let mut again = Story::new(Family::V4).isns(900_000_000, 1);
    again.at = story.at + 300_000 * MILLISECOND;
    again.random = Random::new(99);
    whole(&mut again);
    story.packets.append(&mut again.packets);
    let (report, heard) = replay(&story.packets, captured());
    assert_eq!(report.ended.values().sum::<u64>(), 2, "{:?}", report.ended);
    let streams: Vec<_> = heard.received.values().collect();
    assert!(streams == [&story.asked, &again.asked]);
}

#[test]
fn offloaded_checksums_are_noticed_and_damage_stays_damage() {
    let mut story = conversation(Family::V4);
    for (_, packet) in &mut story.packets {
        let seen = wire::read(packet).unwrap();
        let length = packet.len() - 20;
        let pseudo = wire::pseudo_header(seen.from, seen.to, wire::TCP, length);
        let partial = !wire::checksum(&[&pseudo]);
        packet[36..38].copy_from_slice(&partial.to_be_bytes());
    }
    let (report, heard) = replay(&story.packets, captured());
    assert_clean(&report, &heard);
    assert_eq!(report.offloaded, report.fed);
    assert!(heard.only() == story.asked && heard.stream() == story.answered);

    let verify = Options {
        checksums: Checksums::Verify,
        ..captured()
    };
    let (report, _) = replay(&story.packets, verify);
    let bad = DropReason::TransportChecksum;
    assert_eq!(report.counters.dropped(bad), report.fed);

    let mut story = conversation(Family::V4);
    let at = (0..story.packets.len())
        .find(|&at| {
            let segment = wire::read(&story.packets[at].1).unwrap().tcp();
            segment.from == story.client.peer && segment.payload.len() == 1400
        })
        .unwrap();
    let (time, good) = story.packets[at].clone();
    *story.packets[at].1.last_mut().unwrap() ^= 1;
    story.packets.insert(at + 1, (time + 1, good));
    let (report, heard) = replay(&story.packets, captured());
    assert_eq!(report.counters.dropped(bad), 1);
    assert!(heard.only() == story.asked, "the good one came later");
}

/// The engine drops it, so what it says of sequence numbers must not count either.
#[test]
fn a_damaged_acknowledgement_is_not_believed() {
    let mut story = conversation(Family::V4);
    let (undamaged, _) = replay(&story.packets, captured());
    let (time, mut damaged) = story.packets[2].clone();
    let acknowledged = wire::read(&damaged).unwrap().tcp().ack;
    let beyond = acknowledged.wrapping_add(1_000_000);
    damaged[28..32].copy_from_slice(&beyond.to_be_bytes());
    story.packets.insert(3, (time + 1, damaged));
    let (report, heard) = replay(&story.packets, captured());
    let bad = DropReason::TransportChecksum;
    assert_eq!(report.counters.dropped(bad), 1);
    assert_eq!(report.mapped, undamaged.mapped);
    assert_eq!(report.gaps, undamaged.gaps);
    assert!(heard.only() == story.asked && heard.stream() == story.answered);
}

#[test]
fn a_damaged_syn_begins_no_other_connection() {
    let mut story = conversation(Family::V4);
    let (mut syn, time) = (story.packets[0].1.clone(), story.packets[4].0);
    syn[24] ^= 0x40;
    story.packets.insert(5, (time + 1, syn));
    let (report, heard) = replay(&story.packets, captured());
    let bad = DropReason::TransportChecksum;
    assert_eq!(report.counters.dropped(bad), 1);
    assert!(heard.only() == story.asked && heard.stream() == story.answered);
    assert!(report.open.is_empty(), "{:?}", report.open);
}

#[test]
fn datagrams_of_a_flow_that_cannot_be_opened_are_counted_and_let_go() {
    let server = Family::V4.local(53);
    let mut packets = Vec::new();
    for port in [5000, 5001] {
        let client = Family::V4.peer(port);
        packets.push((START, craft::udp(client, server, b"who?")));
        for _ in 0..3 {
            packets.push((START, craft::udp(server, client, b"I")));
        }
    }
    let engine = Engine::builder().max_flows(1).seed([3; 32]);
    let mut replay = Replay::new(engine, captured(), Heard::default()).unwrap();
    for (at, packet) in &packets {
        replay.packet(*at, packet, false).unwrap();
    }
    let (report, _) = replay.finish(Duration::from_secs(1)).unwrap();
    assert_eq!(report.counters.l4_tx_bytes, 3);
    assert_eq!(report.unsent, 3, "those of the second flow");
}

#[test]
fn datagrams_are_sent_when_they_were() {
    for family in craft::FAMILIES {
        let (client, server) = (family.peer(5000), family.local(53));
        let packets = [
            (START, craft::udp(client, server, b"who?")),
            (START + 20 * MILLISECOND, craft::udp(server, client, b"I")),
            (START + 30 * MILLISECOND, craft::udp(client, server, b"")),
            (START + 30 * MILLISECOND, craft::udp(server, client, b"")),
        ];
        let (report, heard) = replay(&packets, captured());
        assert_eq!((report.fed, report.not_fed.other_side), (2, 2));
        assert_eq!(heard.only(), b"who?");
        assert_eq!(report.counters.l4_tx_bytes, 1);
        assert_eq!(report.counters.l3_tx_packets, 2);
        assert!(
            heard
                .lines
                .iter()
                .any(|line| line.starts_with("1.020000000 l4-tx"))
        );

        let options = Options {
            peers: vec![server.to_string().parse().unwrap()],
            ..captured()
        };
        let (report, heard) = replay(&packets, options);
        assert_eq!(report.counters.flows_opened, 1);
        assert_eq!(heard.only(), b"I");
        assert_eq!(report.counters.l4_tx_bytes, 4);
    }
}

#[test]
fn an_icmp_error_quotes_our_sequence_number() {
    let mut story = Story::new(Family::V4);
    let packets = {
        story.open();
        story.answers(1400);
        let quoted = story.packets[3].1.clone();
        let (from, to) = (story.client.peer.ip(), story.client.local.ip());
        let error = craft::unreachable(from, to, 1, &quoted[..60]);
        story.capture(error);
        story.packets
    };
    let engine = Engine::builder().seed([3; 32]);
    let mut replay = Replay::new(engine, captured(), Quotes::default()).unwrap();
    for (at, packet) in &packets {
        replay.packet(*at, packet, false).unwrap();
    }
    let (report, quotes) = replay.finish(Duration::ZERO).unwrap();
    let bad = DropReason::TransportChecksum;
    assert_eq!(report.counters.dropped(bad), 0, "its checksum is right");
    assert_eq!(quotes.quoted, Some(quotes.isn.unwrap().wrapping_add(1)));
}

#[derive(Debug, Default)]
struct Quotes {
    isn: Option<u32>,
    quoted: Option<u32>,
}

impl Sink for Quotes {
    fn packet(&mut self, _at: u64, sent: bool, packet: &[u8]) -> io::Result<()> {
        match wire::read(packet).unwrap().body {
            Body::Tcp(segment) if sent && segment.has(SYN) => self.isn = Some(segment.seq),
            Body::Icmp(message) => {
                let seq = &message.payload[24..28];
                self.quoted = Some(u32::from_be_bytes(seq.try_into().unwrap()));
            }
            Body::Tcp(_) | Body::Udp(_) | Body::Fragment(_) => {}
        }
        Ok(())
    }
}

/// Nothing in a capture can be trusted: lengths, flags, options, times.
#[test]
fn hostile_packets_do_no_harm() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut story = conversation(if seed % 2 == 0 {
            Family::V4
        } else {
            Family::V6
        });
        for (at, packet) in &mut story.packets {
            if random.below(4) == 0 {
                *at = at.wrapping_add(random.word() >> 24).wrapping_sub(1 << 39);
            }
            for _ in 0..random.below(6) {
                let place = random.below(packet.len().min(100));
                packet[place] = random.byte();
            }
            if random.below(5) == 0 {
                packet.truncate(random.below(packet.len()));
            }
        }
        for _ in 0..50 {
            let length = random.below(200);
            let mut packet = random.bytes(length);
            if let Some(first) = packet.first_mut() {
                *first = if *first % 2 == 0 { 0x45 } else { 0x60 };
            }
            let at = random.below(story.packets.len());
            let time = story.packets[at].0;
            story.packets.insert(at, (time, packet));
        }
        for options in [captured(), with(Application::Echo)] {
            let total = story.packets.len() as u64;
            let engine = Engine::builder().seed([3; 32]);
            let options = Options {
                checksums: Checksums::Ignore,
                ..options
            };
            let mut replay = Replay::new(engine, options, ()).unwrap();
            for (at, packet) in &story.packets {
                replay.packet(*at, packet, random.below(20) == 0).unwrap();
            }
            let (report, ()) = replay.finish(Duration::from_secs(120)).unwrap();
            assert_eq!(report.packets, total, "seed {seed}");
            assert_eq!(report.fed + report.not_fed.total(), total, "seed {seed}");
            assert_eq!(report.traps, 0, "seed {seed}");
        }
    }
}

// The command.

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("l3l4-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(path: &Path, packets: &[(u64, Vec<u8>)]) {
    let mut writer = Writer::new(File::create(path).unwrap(), "test").unwrap();
    for (at, packet) in packets {
        writer.packet(*at, Direction::Inbound, packet).unwrap();
    }
}

fn l3l4(arguments: &[&str], paths: &[(&str, &Path)], capture: &Path) -> Output {
    let mut command = Command::new(program());
    command.arg("replay").arg(capture).args(arguments);
    for (option, path) in paths {
        command.arg(option).arg(path);
    }
    command.output().unwrap()
}

#[test]
fn the_command_writes_what_it_was_asked_for() {
    let directory = Directory::new("replay");
    let story = conversation(Family::V4);
    let capture = directory.file("capture.pcapng");
    write(&capture, &story.packets);
    let (golden, written) = (
        directory.file("golden.txt"),
        directory.file("written.pcapng"),
    );
    let streams = directory.file("streams");
    let paths: [(&str, &Path); 3] = [
        ("--transcript", &golden),
        ("--write", &written),
        ("--streams", &streams),
    ];
    let output = l3l4(&["--json"], &paths, &capture);
    assert!(output.status.success(), "{output:?}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["ok"], true, "{summary}");
    assert_eq!(summary["flows"][0]["ending"], "finished", "{summary}");
    assert_eq!(summary["mapping"]["acknowledgements_are"], "shifted");

    let stream = streams.join("tcp-198.51.100.2.40000-192.0.2.1.7.peer");
    assert!(fs::read(stream).unwrap() == story.asked);

    let (mut inbound, mut outbound) = (0, 0);
    let mut reader = Reader::open(&written).unwrap();
    while let Some(captured) = reader.next().unwrap() {
        assert!((START..=story.at + 1_000 * MILLISECOND).contains(&captured.at));
        match captured.direction.expect("a direction") {
            Direction::Inbound => inbound += 1,
            Direction::Outbound => outbound += 1,
        }
    }
    assert_eq!(summary["engine"]["packets_in"], inbound);
    assert_eq!(summary["engine"]["packets_out"], outbound);

    // What was written is a capture of a conversation, and goes through again.
    let output = l3l4(&["--json"], &[], &written);
    let again: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(again["flows"], summary["flows"], "{again}");

    let output = l3l4(&[], &[("--expect", &golden)], &capture);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("1 tcp finished"), "{text}");
}

#[test]
fn a_difference_is_shown_and_is_status_1() {
    let directory = Directory::new("expect");
    let story = conversation(Family::V4);
    let (capture, golden) = (
        directory.file("capture.pcapng"),
        directory.file("golden.txt"),
    );
    write(&capture, &story.packets);
    let output = l3l4(&[], &[("--transcript", &golden)], &capture);
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(&golden).unwrap();
    let changed = text.replacen("flow-event", "flow-omen", 1);
    let cut: String = text
        .lines()
        .take(20)
        .map(|line| format!("{line}\n"))
        .collect();
    let longer = format!("{text}more\n");
    for (golden_text, minus, plus) in [
        (&changed, Some("-    flow-omen"), Some("+    flow-event")),
        (&cut, None, Some("+")),
        (&longer, Some("-more"), None),
    ] {
        fs::write(&golden, golden_text).unwrap();
        let output = l3l4(&[], &[("--expect", &golden)], &capture);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let shown = String::from_utf8(output.stderr).unwrap();
        let has = |start: &str| {
            let header = |line: &str| line.starts_with("---") || line.starts_with("+++");
            shown
                .lines()
                .any(|line| line.starts_with(start) && !header(line))
        };
        assert_eq!(has("-"), minus.is_some(), "{shown}");
        assert_eq!(has("+"), plus.is_some(), "{shown}");
        assert!(minus.is_none_or(has) && plus.is_none_or(has), "{shown}");
    }
}

#[test]
fn a_damaged_capture_is_replayed_up_to_the_damage() {
    let directory = Directory::new("damaged");
    let story = conversation(Family::V4);
    let capture = directory.file("capture.pcapng");
    write(&capture, &story.packets);
    let whole = fs::read(&capture).unwrap();
    fs::write(&capture, &whole[..whole.len() - 10]).unwrap();
    let output = l3l4(&["--json"], &[], &capture);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["capture"]["packets"], story.packets.len() - 1);
    assert_eq!(summary["ok"], false, "{summary}");
    let fault = summary["fault"].as_str().unwrap();
    assert!(fault.contains("offset"), "{fault}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(fault), "{error}");

    fs::write(&capture, b"no capture at all, not even nearly").unwrap();
    let output = l3l4(&[], &[], &capture);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("capture.pcapng")
    );
    let output = l3l4(&[], &[], &directory.file("absent"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");

    let script = directory.file("script");
    fs::write(&script, "tcp 7\n    dance\n").unwrap();
    let app = format!("script:{}", script.display());
    write(&capture, &story.packets);
    let output = l3l4(&["--app", &app], &[], &capture);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("line 2, column 5"), "{error}");
}

#[test]
fn no_output_takes_the_place_of_an_input() {
    let directory = Directory::new("inputs");
    let story = conversation(Family::V4);
    let capture = directory.file("capture.pcapng");
    write(&capture, &story.packets);
    let golden = directory.file("golden.txt");
    let made = l3l4(&[], &[("--transcript", &golden)], &capture);
    assert!(made.status.success(), "{made:?}");
    let (packets, lines) = (fs::read(&capture).unwrap(), fs::read(&golden).unwrap());
    for paths in [
        &[("--write", capture.as_path())][..],
        &[("--transcript", &capture)],
        &[("--expect", &golden), ("--transcript", &golden)],
    ] {
        let output = l3l4(&[], paths, &capture);
        assert_eq!(output.status.code(), Some(1), "{paths:?}: {output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("would overwrite"), "{error}");
        assert!(fs::read(&capture).unwrap() == packets, "{paths:?}");
        assert!(fs::read(&golden).unwrap() == lines, "{paths:?}");
    }
}

#[test]
fn an_output_that_fails_is_named() {
    let directory = Directory::new("outputs");
    let capture = directory.file("capture.pcapng");
    write(&capture, &conversation(Family::V4).packets);
    let golden = directory.file("golden.txt");
    fs::write(&golden, [0xff, 0xfe, b'\n']).unwrap();
    let streams = directory.file("streams");
    let in_the_way = "tcp-198.51.100.2.40000-192.0.2.1.7.peer";
    fs::create_dir_all(streams.join(in_the_way)).unwrap();
    for (option, path, name) in [
        ("--expect", &golden, "golden.txt"),
        ("--streams", &streams, in_the_way),
    ] {
        let output = l3l4(&[], &[(option, path)], &capture);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn an_option_of_records_is_refused() {
    let directory = Directory::new("options");
    let capture = directory.file("capture.pcapng");
    write(&capture, &conversation(Family::V4).packets);
    let output = l3l4(&["--any-component"], &[], &capture);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("--any-component"), "{error}");
}
