//! Ends without FIN: reset, abort, refusal, silence.

use std::time::Duration;

use l3l4_engine::{
    CloseReason, DropReason, Event, FiveTuple, FlowError, Protocol, Refusal, Timer, Verdict,
};
use l3l4_tests::craft::{Family, Peer, udp, unreachable};
use l3l4_tests::scene::{Scene, config, on_both_families};
use l3l4_tests::wire::{ACK, RST, Seen};

#[test]
fn a_reset_closes_after_all_data_before_it() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.rx_batch(&[peer.data(b"last").into(), peer.rst().into()]);
        assert_eq!(scene.stream(flow), b"last");
        scene.expect_closed(flow, CloseReason::ResetByPeer);
        assert!(scene.segments().iter().all(|segment| !segment.has(RST)));
        assert_eq!(scene.tx(flow, b"too late"), Err(FlowError::UnknownFlow));
    });
}

#[test]
fn a_reset_waits_for_data_that_the_host_has_not_taken() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.host().appetite.insert(flow, 0);
        scene.rx(peer.data(b"held back"));
        scene.rx(peer.rst());
        scene.expect_events(flow, &[Event::PeerReset]);
        assert_eq!(scene.tx(flow, b"too late"), Err(FlowError::Closing));

        // Of two halves of what waits: it is said once.
        scene.host().appetite.insert(flow, 4);
        scene.resume(flow).unwrap();
        scene.rx(peer.rst());
        scene.expect_events(flow, &[]);

        scene.host().appetite.remove(&flow);
        scene.resume(flow).unwrap();
        assert_eq!(scene.stream(flow), b"held back");
        scene.expect_closed(flow, CloseReason::ResetByPeer);
    });
}

/// The batch brings the data that the host does not take, and the reset.
#[test]
fn a_reset_is_told_at_once_though_a_write_waits_for_room() {
    let mut config = config();
    config.tcp_send_buffer = 2048;
    on_both_families(config, |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        let data = vec![7; 1 << 20];
        assert!(scene.tx(flow, &data).unwrap() < data.len());
        peer.hear(&scene.segments().pop().expect("what the window takes"));
        scene.host().appetite.insert(flow, 2);
        scene.rx_batch(&[peer.data(b"held back").into(), peer.rst().into()]);
        // No room follows: the write is void.
        scene.expect_events(flow, &[Event::PeerReset]);
        scene.host().appetite.remove(&flow);
        scene.resume(flow).unwrap();
        assert_eq!(scene.stream(flow), b"held back");
        scene.expect_closed(flow, CloseReason::ResetByPeer);
    });
}

#[test]
fn an_abort_after_a_reset_gives_up_what_waits_and_says_who_reset() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.host().appetite.insert(flow, 0);
        scene.rx(peer.data(b"never taken"));
        scene.rx(peer.rst());
        scene.expect_events(flow, &[Event::PeerReset]);
        scene.sent_packets();

        scene.abort(flow).unwrap();
        scene.expect_closed(flow, CloseReason::ResetByPeer);
        scene.silence();
        assert!(scene.stream(flow).is_empty());
    });
}

/// The end of the data came before the reset, and is told where it is.
#[test]
fn a_reset_after_a_fin_leaves_the_end_of_the_data() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.host().appetite.insert(flow, 0);
        scene.rx(peer.data(b"all"));
        scene.rx(peer.fin());
        scene.rx(peer.rst());
        scene.expect_events(flow, &[Event::PeerReset]);

        scene.host().appetite.remove(&flow);
        scene.resume(flow).unwrap();
        assert_eq!(scene.stream(flow), b"all");
        let closed = Event::Closed(CloseReason::ResetByPeer);
        scene.expect_events(flow, &[Event::PeerFinished, closed]);
    });
}

#[test]
fn a_reset_flow_whose_data_nobody_takes_idles_out() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.host().appetite.insert(flow, 0);
        scene.rx(peer.data(b"never taken"));
        scene.rx(peer.rst());
        scene.expect_events(flow, &[Event::PeerReset]);
        scene.wait(Duration::from_secs(7_440));
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::Idle));
    });
}

#[test]
fn a_reset_outside_of_the_window_is_ignored() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        for seq in [peer.next.wrapping_sub(1), peer.next.wrapping_add(1 << 20)] {
            scene.rx(peer.rst().seq(seq));
        }
        scene.silence();
        scene.expect_events(flow, &[]);
        scene.rx(peer.data(b"alive"));
        assert_eq!(scene.stream(flow), b"alive");
    });
}

#[test]
fn a_reset_in_the_handshake_ends_it() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        let (flow, _) = scene.announced();
        scene.tcp();
        scene.rx(peer.rst());
        scene.expect_closed(flow, CloseReason::ResetByPeer);
        scene.silence();
    });
}

#[test]
fn an_abort_resets_the_peer() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.tx(flow, b"unheard").unwrap();
        peer.hear(&scene.tcp());

        scene.abort(flow).unwrap();
        let reset = scene.tcp();
        assert!(reset.has(RST), "{reset}");
        assert_eq!(reset.seq, peer.expected, "acceptable to the peer");
        scene.expect_closed(flow, CloseReason::Aborted);
        assert_eq!(scene.abort(flow), Err(FlowError::UnknownFlow));
    });
}

#[test]
fn an_abort_in_the_handshake_resets_the_peer() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        let (flow, _) = scene.announced();
        let syn_ack = scene.tcp();
        scene.abort(flow).unwrap();
        let reset = scene.tcp();
        assert!(reset.has(RST), "{reset}");
        assert_eq!(reset.seq, syn_ack.end());
        scene.expect_closed(flow, CloseReason::Aborted);
    });
}

#[test]
fn a_refused_syn_is_answered_with_rst() {
    on_both_families(config(), |scene, family| {
        scene.verdict_on_new(Verdict::Refuse(Refusal::Reset));
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        let reset = scene.tcp();
        assert_eq!(
            (reset.flags, reset.seq, reset.ack),
            (RST | ACK, 0, peer.next)
        );
        forgotten(scene, DropReason::Refused);
    });
}

/// The refusals that are ICMP errors: type and code of ICMPv4, code of ICMPv6.
const REFUSALS: [(Refusal, u8, u8); 4] = [
    (Refusal::NetworkUnreachable, 0, 0),
    (Refusal::HostUnreachable, 1, 3),
    (Refusal::PortUnreachable, 3, 4),
    (Refusal::Prohibited, 13, 1),
];

#[test]
fn a_refused_syn_is_answered_with_each_icmp_unreachable() {
    for refusal in REFUSALS {
        on_both_families(config(), |scene, family| {
            scene.verdict_on_new(Verdict::Refuse(refusal.0));
            let syn: Vec<u8> = Peer::new(family).syn().mss(1400).into();
            scene.rx(syn.clone());
            quotes(family, &scene.packet(), refusal, &syn);
            forgotten(scene, DropReason::Refused);
        });
    }
}

#[test]
fn a_refused_datagram_is_answered_with_each_icmp_unreachable() {
    for size in [0, 100, 1400] {
        for refusal in REFUSALS {
            on_both_families(config(), |scene, family| {
                scene.verdict_on_new(Verdict::Refuse(refusal.0));
                let datagram = udp(family.peer(5000), family.local(53), &vec![1; size]);
                scene.rx(datagram.clone());
                quotes(family, &scene.packet(), refusal, &datagram);
                forgotten(scene, DropReason::Refused);
            });
        }
    }
}

#[test]
fn a_datagram_refused_with_reset_gets_port_unreachable() {
    on_both_families(config(), |scene, family| {
        scene.verdict_on_new(Verdict::Refuse(Refusal::Reset));
        let datagram = udp(family.peer(5000), family.local(53), b"query");
        scene.rx(datagram.clone());
        quotes(family, &scene.packet(), REFUSALS[2], &datagram);
    });
}

#[test]
fn a_dropped_flow_hears_nothing_and_its_next_try_is_a_new_flow() {
    on_both_families(config(), |scene, family| {
        scene.verdict_on_new(Verdict::Drop);
        let syn = Peer::new(family).syn().mss(1400);
        scene.rx(syn.clone());
        let (first, _) = scene.announced();
        scene.silence();
        scene.rx(udp(family.peer(5000), family.local(53), b"query"));
        let (_, tuple) = scene.announced();
        let udp_tuple = FiveTuple {
            protocol: Protocol::Udp,
            local: family.local(53),
            peer: family.peer(5000),
        };
        assert_eq!(tuple, udp_tuple);
        scene.silence();
        assert_eq!(scene.drops(DropReason::Dropped), 2);
        assert!(
            scene.events().is_empty(),
            "no event of a flow dropped on the spot"
        );
        assert_eq!(scene.info(first).err(), Some(FlowError::UnknownFlow));

        scene.rx(syn);
        let (second, _) = scene.announced();
        assert_ne!(first, second);
        scene.silence();
    });
}

#[test]
fn icmp_does_not_abort_a_connection() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.tx(flow, b"outstanding").unwrap();
        let packet = scene.host().sent.pop_back().expect("the segment");
        for code in 0..16 {
            scene.rx(unreachable(
                family.peer(0).ip(),
                family.local(0).ip(),
                code,
                &packet,
            ));
        }
        scene.expect_events(flow, &[]);
        scene.rx(peer.data(b"alive"));
        assert_eq!(scene.stream(flow), b"alive");
    });
}

#[test]
fn established_comes_once_and_closed_is_the_last_word() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.rx(peer.fin());
        scene.expect_events(flow, &[Event::PeerFinished]);
        scene.rx(peer.rst());
        scene.expect_closed(flow, CloseReason::ResetByPeer);
        scene.rx(peer.rst());
        assert!(scene.events().is_empty());
    });
}

/// An unreachable of the right type and code, from the address that the peer
/// meant, quoting the packet from its start, as far as the RFCs allow.
fn quotes(family: Family, answer: &Seen, (_, code_v4, code_v6): (Refusal, u8, u8), packet: &[u8]) {
    assert_eq!(answer.from, family.local(0).ip());
    assert_eq!(answer.to, family.peer(0).ip());
    let message = answer.clone().icmp();
    let (kind, code, most, least) = match family {
        Family::V4 => (3, code_v4, 576, packet.len().min(28)),
        Family::V6 => (1, code_v6, 1280, packet.len().min(1280 - 48)),
    };
    assert_eq!((message.kind, message.code), (kind, code));
    assert!(
        answer.length <= most,
        "{} bytes (RFC 1812 4.3.2.3, RFC 4443 2.4)",
        answer.length
    );
    assert!(packet.starts_with(&message.payload), "quotes the packet");
    assert!(
        message.payload.len() >= least,
        "quotes {} bytes",
        message.payload.len()
    );
}

/// Nothing is left of a flow that was refused on the spot.
fn forgotten(scene: &mut Scene, reason: DropReason) {
    scene.announced();
    assert_eq!(scene.drops(reason), 1);
    assert!(
        scene.events().is_empty(),
        "no event of a flow refused on the spot"
    );
    assert!(scene.flows().is_empty());
}
