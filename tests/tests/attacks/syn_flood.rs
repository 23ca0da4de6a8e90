//! SYN floods: 50,000 a second from addresses that do not exist.
//!
//! To hold: every good client connects and has all its data back, half-open flows are
//! bounded, memory grows by at most 16 MiB, and all is as before after 75 s.

use std::time::Duration;

use l3l4_engine::Config;
use l3l4_tests::app::App;
use l3l4_tests::scene::{config, on_both};
use l3l4_tests::world::World;

use crate::crowd::Crowd;
use crate::spoofed::{Spoofed, flood};

const SYNS_A_TICK: usize = 50;
const TICKS: usize = 2000;
const MOST_GROWTH: u64 = 16 << 20;

#[test]
fn good_clients_pass_through_a_syn_flood() {
    good_clients_pass(config());
}

/// The flood replaces all that is half-open in 1.3 ms, and a good client's round trip
/// takes 20 ms: without cookies none would connect.
#[test]
fn good_clients_pass_though_the_flood_fills_all_half_open_flows_at_once() {
    good_clients_pass(Config {
        max_half_open: 64,
        ..config()
    });
}

fn good_clients_pass(config: Config) {
    on_both(config, |scene| {
        let mut world = World::new(scene, App::Echo { room: 65_535 });
        let mut good = Crowd::new(20_000);
        let mut spoofed = Spoofed::new(1);
        let baseline = world.scene.counters();
        for tick in 0..TICKS {
            flood(world.scene, &spoofed.syns(SYNS_A_TICK));
            if tick % 100 == 0 {
                good.join(&mut world);
            }
            good.tick(&mut world);
            if tick % 50 == 0 {
                let counters = world.scene.counters();
                assert!(counters.half_open <= config.max_half_open);
                let grown = counters.memory_bytes.saturating_sub(baseline.memory_bytes);
                assert!(grown <= MOST_GROWTH, "grew by {grown}");
            }
        }
        good.finish(&mut world, Duration::from_secs(5));

        world.run_for(Duration::from_secs(75));
        let after = world.scene.counters();
        assert_eq!((after.flows, after.half_open), (0, 0), "flows left");
        let grown = after.memory_bytes.saturating_sub(baseline.memory_bytes);
        assert!(grown <= 64 << 10, "{grown} bytes stay behind");
    });
}
