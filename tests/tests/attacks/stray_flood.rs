//! Floods of segments that belong to no connection: 100,000 a second.
//!
//! To hold: no state, at most 1,000 answers a second (after a burst of 50), never more
//! out than in, and never an answer to RST (RFC 9293 3.10.7.1).

use std::time::Duration;

use l3l4_tests::scene::{config, on_both};
use l3l4_tests::wire::{ACK, FIN, PSH, RST, SYN};

use crate::spoofed::{Spoofed, flood};

const PACKETS_A_TICK: usize = 100;
const TICKS: usize = 1000;

#[test]
fn an_ack_flood_leaves_no_state() {
    leaves_no_state(ACK, 1050);
}

#[test]
fn a_data_flood_leaves_no_state() {
    leaves_no_state(ACK | PSH, 1050);
}

#[test]
fn a_fin_flood_leaves_no_state() {
    leaves_no_state(FIN | ACK, 1050);
}

#[test]
fn a_bare_fin_flood_leaves_no_state() {
    leaves_no_state(FIN, 1050);
}

#[test]
fn a_syn_ack_flood_leaves_no_state() {
    leaves_no_state(SYN | ACK, 1050);
}

#[test]
fn a_reset_flood_leaves_no_state_and_hears_nothing() {
    leaves_no_state(RST, 0);
    leaves_no_state(RST | ACK, 0);
}

fn leaves_no_state(flags: u8, most_answers: u64) {
    on_both(config(), |scene| {
        let mut spoofed = Spoofed::new(u64::from(flags));
        let before = scene.counters();
        for _ in 0..TICKS {
            flood(scene, &spoofed.segments(PACKETS_A_TICK, flags));
            scene.wait(Duration::from_millis(1));
            scene.host().sent.clear();
        }
        scene.nobody_announced();
        let after = scene.counters();
        let answers = after.l3_tx_packets - before.l3_tx_packets;
        assert!(answers <= most_answers, "{answers} answers in a second");
        assert!(after.l3_tx_bytes <= after.l3_rx_bytes);
        assert_eq!(after.memory_bytes, before.memory_bytes);
        assert_eq!((after.flows, after.time_wait), (0, 0));
        assert_eq!(scene.deadline, None, "nothing is pending");
    });
}
