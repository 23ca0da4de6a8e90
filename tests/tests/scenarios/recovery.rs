//! Losses on the way to a peer that tells what it has (RFC 2018, RFC 6675, RFC 8985),
//! and what they do to the congestion window.

use std::collections::BTreeSet;
use std::time::Duration;

use l3l4_engine::{Config, CongestionControl, FlowId};
use l3l4_tests::craft::{Family, Peer};
use l3l4_tests::scene::{Scene, config, on_both_families};
use l3l4_tests::wire::{SYN, Tcp};

const MSS: u32 = 1000;
const FLIGHT: u32 = 10;
const ROUND_TRIP: Duration = Duration::from_millis(20);

fn with(congestion_control: CongestionControl) -> Config {
    Config {
        congestion_control,
        ..config()
    }
}

/// Whatever is lost of a flight that the peer has the end of.
#[test]
fn each_lost_segment_is_sent_again_once_in_the_next_round_trip() {
    for lost in [
        &[0][..],
        &[0, 1, 2],
        &[3, 4],
        &[0, 2, 4, 6],
        &[1, 3, 5],
        &[0, 1, 2, 3, 4, 5, 6],
    ] {
        on_both_families(config(), |scene, family| {
            let (flow, mut peer, flight) = in_flight(scene, family);
            let isn = flight[0].seq;
            let lost: BTreeSet<u32> = lost.iter().map(|at| isn.wrapping_add(at * MSS)).collect();
            let mut have: BTreeSet<u32> = BTreeSet::new();
            let mut arriving: Vec<_> = flight
                .into_iter()
                .filter(|segment| !lost.contains(&segment.seq))
                .collect();
            let mut resent = Vec::new();
            let mut trips = 0;
            while have.len() < FLIGHT as usize {
                scene.skip(ROUND_TRIP);
                trips += 1;
                assert!(
                    trips <= 5,
                    "{resent:?} of {lost:?} after {trips} round trips"
                );
                let mut next = Vec::new();
                for segment in arriving {
                    have.insert(segment.seq);
                    scene.rx(answer(&mut peer, isn, &have, segment.seq));
                    next.extend(scene.segments());
                }
                resent.extend(next.iter().map(|segment| segment.seq));
                arriving = next;
            }
            let once: BTreeSet<_> = resent.iter().copied().collect();
            assert_eq!(once, lost, "what was lost and nothing else");
            assert_eq!(resent.len(), lost.len(), "once: {resent:?}");
            let info = scene.info(flow).unwrap();
            assert_eq!(info.send_queue, 0);
            assert_eq!(info.retransmits, lost.len() as u64);
        });
    }
}

/// RFC 5681 3.2: half; RFC 9438 4.6: 0.7 of what was in flight.
#[test]
fn a_loss_takes_from_the_congestion_window_what_the_algorithm_says() {
    for (algorithm, after) in [
        (CongestionControl::Cubic, Some(FLIGHT * MSS / 10 * 7)),
        (CongestionControl::Reno, Some(FLIGHT * MSS / 2)),
        (CongestionControl::None, None),
    ] {
        on_both_families(with(algorithm), |scene, family| {
            let (flow, mut peer, flight) = in_flight(scene, family);
            let before = scene.info(flow).unwrap().congestion_window;
            scene.skip(ROUND_TRIP);
            let (start, end) = (flight[1].seq, flight[3].end());
            scene.rx(peer.ack().acking(flight[0].seq).sack(&[(start, end)]));
            let resent = scene.tcp();
            assert_eq!(resent.seq, flight[0].seq);
            scene.skip(ROUND_TRIP);
            peer.hear(&flight[9]);
            scene.rx(peer.ack());
            let window = scene.info(flow).unwrap().congestion_window;
            assert_eq!(window, after.unwrap_or(before), "{algorithm:?}");
        });
    }
}

/// RFC 6928 2: ten segments; without congestion control the peer's window.
#[test]
fn the_first_flight_is_what_the_algorithm_says() {
    for (algorithm, most) in [
        (CongestionControl::Cubic, 10 * MSS),
        (CongestionControl::Reno, 10 * MSS),
        (CongestionControl::None, 50 * MSS),
    ] {
        on_both_families(with(algorithm), |scene, family| {
            let (flow, _) = connected(scene, family);
            scene.tx(flow, &[7; 60 * MSS as usize]).unwrap();
            let sent: usize = scene.segments().iter().map(|it| it.payload.len()).sum();
            assert_eq!(sent, most as usize, "{algorithm:?}");
        });
    }
}

/// RFC 5681 3.1: after the timer one segment goes out, whatever the algorithm; without
/// one all that was lost.
#[test]
fn the_timer_starts_over_with_one_segment() {
    for (algorithm, count) in [
        (CongestionControl::Cubic, 1),
        (CongestionControl::Reno, 1),
        (CongestionControl::None, FLIGHT as usize),
    ] {
        on_both_families(with(algorithm), |scene, family| {
            let (_, _, flight) = in_flight(scene, family);
            // The probe of the tail (RFC 8985 7) goes first, and is the last segment.
            let sent = scene.watch(Duration::from_millis(900));
            let sent: Vec<_> = sent.into_iter().map(|(at, it)| (at, it.tcp())).collect();
            let first = sent.iter().position(|(_, it)| it.seq == flight[0].seq);
            let first = first.expect("the timer");
            assert!(first <= 1, "{sent:?}");
            assert!(sent[..first].iter().all(|(_, it)| it.seq == flight[9].seq));
            let at = sent[first].0;
            let burst = sent.iter().filter(|(when, _)| *when == at);
            assert_eq!(burst.count(), count, "{algorithm:?}: {sent:?}");
        });
    }
}

/// A flow of a peer that agreed on SACK, a round trip away.
fn connected(scene: &mut Scene, family: Family) -> (FlowId, Peer) {
    let mut peer = Peer::new(family);
    peer.window = u16::try_from(50 * MSS).expect("a window");
    let mss = u16::try_from(MSS).expect("a segment size");
    scene.rx(peer.syn().mss(mss).sack_permitted());
    let (flow, _) = scene.announced();
    let syn_ack = scene.tcp();
    assert!(syn_ack.has(SYN) && syn_ack.sack_permitted, "{syn_ack}");
    peer.hear(&syn_ack);
    scene.skip(ROUND_TRIP);
    scene.rx(peer.ack());
    scene.events();
    (flow, peer)
}

/// The same with a flight of ten segments, which is all that there is to send.
fn in_flight(scene: &mut Scene, family: Family) -> (FlowId, Peer, Vec<Tcp>) {
    let (flow, peer) = connected(scene, family);
    scene.tx(flow, &[7; (FLIGHT * MSS) as usize]).unwrap();
    let flight = scene.segments();
    assert_eq!(flight.len(), FLIGHT as usize);
    (flow, peer, flight)
}

/// What a receiver that has these segments says when `last` came (RFC 2018 4: the
/// block of it first).
fn answer(peer: &mut Peer, isn: u32, have: &BTreeSet<u32>, last: u32) -> Vec<u8> {
    let mut blocks: Vec<(u32, u32)> = Vec::new();
    let mut next = isn;
    for seq in have {
        let end = seq.wrapping_add(MSS);
        if *seq == next {
            next = end;
        } else if let Some(block) = blocks.last_mut().filter(|block| block.1 == *seq) {
            block.1 = end;
        } else {
            blocks.push((*seq, end));
        }
    }
    let newest = blocks
        .iter()
        .position(|(from, to)| (*from..*to).contains(&last));
    blocks.rotate_left(newest.unwrap_or(0));
    blocks.truncate(3);
    peer.expected = next;
    let ack = peer.ack();
    match blocks.is_empty() {
        true => ack.into(),
        false => ack.sack(&blocks).into(),
    }
}
