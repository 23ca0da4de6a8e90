//! Panics, stalls and broken rules that were found once, by review and by random runs.

use std::time::Duration;

use l3l4_engine::{
    CloseReason, Config, Event, FiveTuple, FlowError, FlowId, FlowOptions, OpenError, Protocol,
    Verdict,
};
use l3l4_tests::craft::{Family, Peer, ping, udp};
use l3l4_tests::scene::{Scene, config, on_both_families};
use l3l4_tests::wire::{ACK, FIN, RST};

const WHILE: Duration = Duration::from_millis(500);
const FINISHED: Event = Event::Closed(CloseReason::Finished);

// Packets on their way out.

/// `Egress::space` is also asked for space when the full batch was refused.
#[test]
fn an_answer_that_a_full_refused_batch_has_no_room_for_is_lost_and_counted() {
    let config = Config {
        mtu: 65_535,
        ..config()
    };
    on_both_families(config, |scene, family| {
        let mut peer = Peer::new(family);
        scene.connect(&mut peer);
        scene.host().device_room = Some(0);
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        let data = vec![1; 65_535 - family.ip_header() - 8];
        let big = ping(from, to, 1, 1, &data);
        let beyond = peer
            .segment(ACK)
            .seq(peer.next.wrapping_add(1_000_000))
            .payload(b"x");
        let stray = Peer::new(family).from_port(9).ack();
        scene.rx_batch(&[big.clone(), big.clone()]);
        assert_eq!(scene.counters().replies_lost, 0);
        scene.rx_batch(&[big, stray.into(), beyond.into()]);
        assert_eq!(
            scene.counters().replies_lost,
            2,
            "the third's and the stray's"
        );

        // What a flow has to say waits in it.
        scene.host().device_room = None;
        scene.poll();
        let last = scene.sent_packets().pop().expect("an answer");
        assert_eq!(last.tcp().ack, peer.next);
    });
}

/// "The engine keeps the rest and offers it again at the start of the next
/// export": not for every further packet of this one (the harness watches).
#[test]
fn a_refused_batch_is_offered_once_an_export() {
    on_both_families(config(), |scene, family| {
        scene.host().device_room = Some(0);
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        let batch: Vec<_> = (0..100).map(|i| ping(from, to, 1, i, b"")).collect();
        scene.rx_batch(&batch);
        assert_eq!(scene.counters().replies_lost, 36);
    });
}

/// A datagram flow that is woken, and finds the device full again, is woken again.
#[test]
fn a_datagram_flow_hears_of_room_although_the_device_filled_up_meanwhile() {
    on_both_families(config(), |scene, family| {
        scene.rx(udp(family.peer(5000), family.local(53), b"query"));
        let (flow, _) = scene.announced();
        scene.host().device_room = Some(0);
        assert_eq!(scene.tx(flow, b"kept"), Ok(4));
        assert_eq!(scene.tx(flow, b"not taken"), Ok(0));

        // The kept packet goes; replies in the same call fill the device again.
        scene.host().device_room = Some(1);
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        let batch: Vec<_> = (0..65).map(|i| ping(from, to, 1, i, b"")).collect();
        scene.rx_batch(&batch);
        scene.host().device_room = None;
        scene.poll();
        scene.expect_events(flow, &[Event::Writable]);
    });
}

/// "Data and FINs wait in their flows; replies are given up and counted".
#[test]
fn the_reset_of_an_abort_that_the_device_has_no_room_for_is_counted() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.host().device_room = Some(0);
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        scene.rx(ping(from, to, 1, 1, b""));
        scene.abort(flow).unwrap();
        scene.host().device_room = None;
        scene.poll();
        let resets = scene
            .sent_packets()
            .into_iter()
            .filter(|seen| matches!(&seen.body, l3l4_tests::wire::Body::Tcp(s) if s.has(RST)))
            .count();
        let lost = usize::try_from(scene.counters().replies_lost).unwrap();
        assert_eq!(resets + lost, 1, "sent or counted");
    });
}

/// smoltcp panics when a SYN comes before its own SYN has gone out: the window that
/// it believes to have offered ends before the SYN's own sequence number.
#[test]
fn a_syn_that_meets_a_flow_whose_own_syn_is_still_stalled_breaks_nothing() {
    on_both_families(config(), |scene, family| {
        scene.host().device_room = Some(0);
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        scene.rx(ping(from, to, 1, 1, b""));
        let mut peer = Peer::new(family);
        scene.open(&peer.tuple(), FlowOptions::default()).unwrap();
        scene.rx(peer.syn().mss(1400));
        scene.host().device_room = None;
        scene.poll();
    });
}

// Retransmission.

/// smoltcp forgets a fast retransmission, and its timer, when it is asked to
/// transmit and there is no room.
#[test]
fn a_fast_retransmission_is_not_forgotten_while_the_device_refuses() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.tx(flow, &[7; 2000]).unwrap();
        assert!(scene.segments().len() >= 2);

        scene.host().device_room = Some(0);
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        scene.rx(ping(from, to, 1, 1, b""));
        for _ in 0..5 {
            scene.rx(peer.ack());
        }
        scene.host().device_room = None;
        scene.poll();
        scene.sent_packets();
        let watched = scene.watch(Duration::from_secs(60));
        let resent: Vec<_> = watched
            .into_iter()
            .map(|(_, seen)| seen.tcp())
            .filter(|segment| segment.seq == peer.expected && !segment.payload.is_empty())
            .collect();
        assert!(!resent.is_empty(), "the first segment was lost for good");
    });
}

/// smoltcp drops the retransmission timer for a FIN on three duplicate ACKs.
#[test]
fn a_fin_is_resent_although_duplicate_acks_came() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.finish(flow).unwrap();
        let fin = scene.tcp();
        assert!(fin.has(FIN));
        for _ in 0..5 {
            scene.rx(peer.ack());
        }
        let resent = scene.sent_packets().len() + scene.watch(Duration::from_secs(60)).len();
        assert!(resent > 0, "FIN was lost for good");
    });
}

/// RFC 6298 3 (Karn): a segment that was sent again is not timed, also when more waits
/// behind it that may go along.
#[test]
fn a_segment_sent_again_is_a_retransmission_and_no_sample() {
    on_both_families(config(), |scene, family| {
        scene.verdict_on_new(Verdict::Accept(FlowOptions {
            nagle: true,
            ..FlowOptions::default()
        }));
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        let before = scene.info(flow).unwrap().round_trip_time;
        assert!(before.is_some(), "the handshake's");
        scene.tx(flow, &[1; 100]).unwrap();
        scene.tx(flow, &[2; 100]).unwrap();
        let first = scene.tcp();
        assert_eq!(first.payload.len(), 100, "Nagle holds the second back");
        let resent = scene.watch(Duration::from_secs(2));
        let resent = resent[0].1.clone().tcp();
        assert_eq!(resent.seq, first.seq);
        assert!(resent.payload.starts_with(&first.payload));
        peer.hear(&resent);
        scene.rx(peer.ack());
        let info = scene.info(flow).unwrap();
        assert!(info.retransmits >= 1, "{}", info.retransmits);
        assert_eq!(info.round_trip_time, before);
    });
}

/// Any instant is a valid one. (In a build with overflow checks smoltcp's
/// estimator overflows.)
#[test]
fn an_acknowledgement_after_a_very_long_time_breaks_nothing() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        peer.hear(&scene.tcp());
        scene.skip(Duration::from_secs(30 * 24 * 3600));
        scene.rx(peer.ack());
        scene.events();
    });
}

// One batch or two.

/// A flow whose handshake completed earlier in the batch is not half-open.
#[test]
fn a_flow_established_in_the_same_batch_is_not_evicted() {
    let config = Config {
        max_half_open: 1,
        ..config()
    };
    on_both_families(config, |scene, family| {
        let mut first = Peer::new(family);
        scene.rx(first.syn().mss(1400));
        let (flow, _) = scene.announced();
        first.hear(&scene.tcp());
        let mut second = Peer::new(family).from_port(40_001);
        scene.rx_batch(&[first.ack().into(), second.syn().mss(1400).into()]);
        scene.expect_events(flow, &[Event::Established]);
        assert_eq!(scene.counters().flows_evicted, 0);
    });
}

/// RST and the SYN of the next try do what they do in two batches.
#[test]
fn a_syn_after_a_reset_in_the_same_batch_opens_a_new_flow() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        let mut again = Peer::new(family);
        again.next = peer.next.wrapping_add(100_000);
        scene.rx_batch(&[peer.rst().into(), again.syn().mss(1400).into()]);
        scene.expect_closed(flow, CloseReason::ResetByPeer);
        let answer = scene.tcp();
        assert!(!answer.has(RST), "the new connection was refused: {answer}");
        scene.announced();
    });
}

// Ends.

/// The connection is in TIME-WAIT while the host has not taken all.
#[test]
fn a_repeated_fin_is_acknowledged_while_the_host_holds_back() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.finish(flow).unwrap();
        peer.hear(&scene.tcp());
        scene.rx(peer.ack());
        scene.host().appetite.insert(flow, 0);
        scene.rx(peer.data(b"the rest").with(FIN));
        peer.next = peer.next.wrapping_add(1);
        scene.wait(WHILE);
        scene.sent_packets();

        // The ACK was lost in the network.
        scene.rx(peer.segment(FIN | ACK).seq(peer.next.wrapping_sub(1)));
        let answer = scene.tcp();
        assert_eq!((answer.flags, answer.ack), (ACK, peer.next));

        scene.host().appetite.remove(&flow);
        scene.resume(flow).unwrap();
        assert_eq!(scene.stream(flow), b"the rest");
        scene.expect_events(flow, &[Event::PeerFinished, FINISHED]);
    });
}

/// smoltcp's TIME-WAIT of 10 s ends when it is next asked to transmit, and drops
/// what the host has not taken: also when its ACK of the FIN had to wait so long.
#[test]
fn data_before_a_fin_outlives_a_device_that_refuses_its_ack() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.finish(flow).unwrap();
        peer.hear(&scene.tcp());
        scene.rx(peer.ack());
        scene.host().appetite.insert(flow, 0);
        scene.host().device_room = Some(0);
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        scene.rx(ping(from, to, 1, 1, b""));
        scene.rx(peer.data(b"the rest").with(FIN));
        peer.next = peer.next.wrapping_add(1);
        scene.skip(Duration::from_secs(30));
        scene.host().device_room = None;
        scene.poll();
        scene.host().appetite.remove(&flow);
        scene.resume(flow).unwrap();
        assert_eq!(scene.stream(flow), b"the rest");
        scene.expect_events(flow, &[Event::PeerFinished, FINISHED]);
        let answers = scene.sent_packets();
        let ack = answers.last().cloned().map(|seen| seen.tcp().ack);
        assert_eq!(ack, Some(peer.next));
    });
}

/// The same while the device has no room for the first ACK.
#[test]
fn a_repeated_fin_is_not_reset_while_the_device_refuses() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.finish(flow).unwrap();
        peer.hear(&scene.tcp());
        scene.rx(peer.ack());
        scene.host().device_room = Some(0);
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        scene.rx(ping(from, to, 1, 1, b""));
        scene.rx(peer.fin());
        // Room for the reply to the ping and one more in one call.
        scene.skip(Duration::from_millis(200));
        scene.host().device_room = None;
        scene.rx(peer.segment(FIN | ACK).seq(peer.next.wrapping_sub(1)));
        for seen in scene.sent_packets() {
            if let l3l4_tests::wire::Body::Tcp(segment) = seen.body {
                assert!(!segment.has(RST), "{segment}");
            }
        }
        scene.expect_events(flow, &[Event::PeerFinished, FINISHED]);
    });
}

/// Simulation, engine against smoltcp, loss, seed 1847: both ends had lost an ACK, each
/// dropped what the other repeated, and neither heard that it had arrived.
#[test]
fn what_a_repeated_segment_acknowledges_counts() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.tx(flow, b"0123456789").unwrap();
        let sent = scene.tcp();
        let first = peer.next;
        scene.rx(peer.data(b"abc"));
        scene.segments();
        // The peer's ACK was lost, and so was ours: it sends the same again.
        peer.hear(&sent);
        scene.rx(peer.segment(ACK).seq(first).payload(b"abc"));
        assert_eq!(scene.info(flow).unwrap().send_queue, 0);
        assert_eq!(scene.stream(flow), b"abc");
        // Not from far away, and not of what was never sent.
        scene.tx(flow, b"again").unwrap();
        scene.segments();
        let all = peer.expected.wrapping_add(5);
        let (far, beyond) = (first.wrapping_sub(1 << 24), all.wrapping_add(1));
        for (seq, ack) in [(far, all), (first, beyond)] {
            scene.rx(peer.segment(ACK).seq(seq).acking(ack).payload(b"abc"));
            assert_eq!(scene.info(flow).unwrap().send_queue, 5);
        }
    });
}

/// RFC 9293 3.10.7.4: data after FIN is ignored; above all it keeps no flow alive.
#[test]
fn data_after_the_peers_fin_does_not_keep_the_flow_from_ending() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.rx(peer.fin());
        scene.expect_events(flow, &[Event::PeerFinished]);
        scene.rx(peer.data(b"more"));
        scene.finish(flow).unwrap();
        let fin = scene.segments().pop().expect("FIN");
        assert!(fin.has(FIN), "{fin}");
        peer.hear(&fin);
        scene.rx(peer.ack());
        scene.expect_events(flow, &[FINISHED]);
    });
}

/// Whatever becomes of bytes beyond the window, the flow ends when both have
/// finished, or by its `fin-wait-timeout`; not two hours later.
#[test]
fn a_fin_beyond_the_window_does_not_keep_the_flow_from_ending() {
    let config = Config {
        tcp_receive_buffer: 2048,
        ..config()
    };
    on_both_families(config, |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.finish(flow).unwrap();
        peer.hear(&scene.tcp());
        scene.rx(peer.ack());
        scene.rx(peer.segment(FIN | ACK).payload(&[3; 3000]));
        scene.wait(Duration::from_secs(600));
        assert!(
            scene
                .events()
                .iter()
                .any(|(_, event)| matches!(event, Event::Closed(_))),
            "flow {flow:?} lives after ten minutes: {:?}",
            scene.info(flow)
        );
    });
}

/// smoltcp accepts a FIN into a closed window, and then takes the other half of the
/// sequence space for the window. (In a build with debug assertions it panics.)
#[test]
fn data_half_the_sequence_space_away_after_a_fin_in_a_closed_window_breaks_nothing() {
    let config = Config {
        tcp_receive_buffer: 2048,
        ..config()
    };
    on_both_families(config, |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.host().appetite.insert(flow, 0);
        scene.rx(peer.data(&[1; 1024]));
        scene.rx(peer.data(&[2; 1024]));
        scene.wait(WHILE);
        let fin = peer.segment(FIN | ACK);
        let far = peer
            .segment(ACK)
            .seq(peer.next.wrapping_add(1 << 31))
            .payload(&[9; 100]);
        scene.rx_batch(&[fin.into(), far.into()]);
        scene.host().appetite.remove(&flow);
        scene.resume(flow).unwrap();
        assert_eq!(scene.stream(flow), [[1; 1024], [2; 1024]].concat());
        scene.expect_events(flow, &[Event::PeerFinished]);
    });
}

/// A peer that acknowledges our last byte and our FIN with its window closed is not
/// probed any more. (smoltcp did so in a loop that never ended.)
#[test]
fn a_window_that_stays_closed_after_our_fin_is_not_probed() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.tx(flow, &[7; 2000]).unwrap();
        scene.finish(flow).unwrap();
        let sent = scene.segments();
        peer.hear(&sent[0]);
        scene.rx(peer.ack().window(0));
        let mut sent = sent;
        sent.extend(scene.segments());
        let end = sent.iter().map(l3l4_tests::wire::Tcp::end).max();
        peer.expected = end.expect("all was sent");
        scene.rx(peer.ack().window(0));
        scene.sent_packets();
        let seen = scene.watch(Duration::from_secs(50));
        assert!(seen.len() <= 1, "{seen:?}");
        scene.expect_events(flow, &[]);
    });
}

// Wake-ups.

/// "When it takes fewer than given, the event `writable` follows".
#[test]
fn an_empty_write_does_not_cancel_the_promise_of_room() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        assert_eq!(scene.tx(flow, &[0; 70_000]), Ok(65_535));
        assert_eq!(scene.tx(flow, b""), Ok(0));
        for _ in 0..200 {
            for segment in scene.segments() {
                peer.hear(&segment);
            }
            scene.rx(peer.ack());
        }
        assert_eq!(scene.info(flow).unwrap().send_queue, 0);
        scene.expect_events(flow, &[Event::Writable]);
    });
}

/// "On return nothing is pending but deadlines": an error must not swallow one.
#[test]
fn a_call_that_fails_leaves_no_deadline_untold() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.wait(Duration::from_secs(5));
        scene.host().device_room = Some(0);
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        scene.rx(ping(from, to, 1, 1, b""));
        scene.tx(flow, b"data").unwrap();
        scene.silence();
        scene.host().device_room = None;
        assert_eq!(scene.resume(FlowId(0)), Err(FlowError::UnknownFlow));
        let sent = scene.sent_packets().len();
        // Either the call did nothing, or the data it sent is resent in time.
        let resent = scene.watch(Duration::from_secs(5)).len();
        assert!(sent == 0 || resent > 0, "{sent} sent, {resent} resent");
    });
}

// TIME-WAIT records.

/// A connection that we closed first: the peer as it stands afterwards.
fn closed_by_us(scene: &mut Scene, mut peer: Peer) -> Peer {
    let flow = scene.connect(&mut peer);
    scene.finish(flow).unwrap();
    peer.hear(&scene.tcp());
    scene.rx(peer.fin());
    scene.expect_events(flow, &[Event::PeerFinished, FINISHED]);
    scene.tcp();
    peer
}

fn again(old: &Peer, family: Family) -> Peer {
    let mut peer = Peer::new(family).from_port(old.peer.port());
    peer.next = old.next.wrapping_add(10_000);
    peer
}

#[test]
fn a_record_that_a_new_syn_ended_leaves_no_deadline_behind() {
    on_both_families(config(), |scene, family| {
        let old = closed_by_us(scene, Peer::new(family));
        let flow = scene.connect(&mut again(&old, family));
        scene.abort(flow).unwrap();
        assert_eq!(scene.counters().time_wait, 0);
        assert_eq!(scene.deadline, None, "nothing is pending");
    });
}

#[test]
fn the_oldest_record_is_forgotten_first_although_a_tuple_was_used_twice() {
    let config = Config {
        max_flows: 2,
        ..config()
    };
    on_both_families(config, |scene, family| {
        let a = closed_by_us(scene, Peer::new(family).from_port(2000));
        scene.wait(Duration::from_secs(1));
        let b = closed_by_us(scene, Peer::new(family).from_port(2001));
        scene.wait(Duration::from_secs(1));
        let a = closed_by_us(scene, again(&a, family));
        scene.wait(Duration::from_secs(1));
        closed_by_us(scene, Peer::new(family).from_port(2002));
        for (peer, expected) in [(a, ACK), (b, RST)] {
            scene.rx(peer.segment(FIN | ACK).seq(peer.next.wrapping_sub(1)));
            assert_eq!(scene.tcp().flags, expected, "{}", peer.peer);
        }
    });
}

#[test]
fn a_record_renewed_by_a_fin_ends_in_time() {
    on_both_families(config(), |scene, family| {
        let a = closed_by_us(scene, Peer::new(family).from_port(2000));
        scene.wait(Duration::from_secs(30));
        scene.rx(a.segment(FIN | ACK).seq(a.next.wrapping_sub(1)));
        assert_eq!(scene.tcp().flags, ACK);
        scene.wait(Duration::from_secs(29));
        closed_by_us(scene, Peer::new(family).from_port(2001));
        scene.wait(Duration::from_secs(32));
        assert_eq!(scene.counters().time_wait, 1, "60 s after the FIN");
    });
}

// Counters.

/// `flows-out-of-memory`: "accepted or opened flows refused for want of memory".
#[test]
fn an_opened_flow_refused_for_want_of_memory_is_counted() {
    let config = Config {
        memory_limit: 1 << 20,
        ..config()
    };
    on_both_families(config, |scene, family| {
        let mut open = (1..=u16::MAX).map(|port| {
            let tuple = FiveTuple {
                protocol: Protocol::Tcp,
                local: family.local(port),
                peer: family.peer(2),
            };
            scene.open(&tuple, FlowOptions::default())
        });
        let refused = open.find_map(Result::err);
        assert_eq!(refused, Some(OpenError::OutOfMemory));
        drop(open);
        assert_eq!(scene.counters().flows_out_of_memory, 1);
    });
}

/// `martian`: "… or both ends the same".
#[test]
fn an_echo_request_from_its_own_destination_is_not_answered() {
    on_both_families(config(), |scene, family| {
        let address = family.local(0).ip();
        scene.rx(ping(address, address, 1, 1, b""));
        scene.silence();
    });
}

/// RFC 9293 SHLD-16: what was in flight when the window shrank to nothing is sent
/// again when it opens.
#[test]
fn a_flight_that_met_a_closed_window_is_resent_when_it_opens() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.tx(flow, &[7; 2000]).unwrap();
        let flight = scene.segments();
        assert!(flight.len() >= 2, "{flight:?}");
        peer.hear(&flight[0]);
        scene.rx(peer.ack().window(0));
        scene.wait(Duration::from_millis(100));
        scene.rx(peer.ack().window(60_000));
        let mut resent = scene.segments();
        let watched = scene.watch(Duration::from_secs(30));
        resent.extend(watched.into_iter().map(|(_, seen)| seen.tcp()));
        assert!(
            resent
                .iter()
                .any(|segment| segment.seq == peer.expected && segment.payload.len() > 1),
            "the rest was lost for good: {resent:?}"
        );
    });
}

/// RFC 9293 MUST-36: the window that closed while data was in flight is probed, also
/// after the retransmission timer fired.
#[test]
fn a_window_that_closed_on_data_in_flight_is_probed() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.tx(flow, &[7; 1000]).unwrap();
        assert_eq!(scene.segments().len(), 1);
        scene.rx(peer.ack().window(0));
        let probes = scene.watch(Duration::from_secs(60));
        assert!(probes.len() >= 4, "{} probes in a minute", probes.len());
        scene.rx(peer.ack().window(60_000));
        let mut resent = scene.segments();
        let watched = scene.watch(Duration::from_secs(90));
        resent.extend(watched.into_iter().map(|(_, seen)| seen.tcp()));
        assert!(
            resent
                .iter()
                .any(|segment| segment.seq == peer.expected && segment.payload.len() == 1000),
            "{resent:?}"
        );
    });
}

// SYN cookies.

/// A cookie that leaves the peer's number open is good for another number with
/// another segment size too, and the bytes between would never be asked for.
#[test]
fn a_cookie_is_of_no_use_beyond_the_bytes_that_were_lost() {
    let config = Config {
        max_half_open: 1,
        ..config()
    };
    on_both_families(config, |scene, family| {
        scene.rx(Peer::new(family).from_port(39_999).syn());
        scene.announced();
        scene.sent_packets();
        for mss in [536, 1460, 8940, 65_475] {
            let mut peer = Peer::new(family).from_port(mss);
            scene.rx(peer.syn().mss(mss));
            peer.hear(&scene.tcp());
            for lost in 1..=8 {
                let seq = peer.next.wrapping_add(lost);
                scene.rx(peer.ack().seq(seq).payload(b"later"));
                scene.nobody_announced();
                assert!(scene.tcp().has(RST), "{mss}: {lost} bytes were lost");
            }
            scene.rx(peer.data(b"first"));
            let (flow, _) = scene.announced();
            assert_eq!(scene.stream(flow), b"first");
            scene.sent_packets();
        }
    });
}
