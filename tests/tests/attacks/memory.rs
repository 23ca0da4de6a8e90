//! The memory limit, reached by peers whose data the application does not take.
//!
//! To hold: never more than the limit, new flows are refused, old flows are unharmed
//! and complete, and it is all free in the end.

use std::time::Duration;

use l3l4_engine::{Config, FlowOptions, OpenError};
use l3l4_tests::app::App;
use l3l4_tests::craft::{FAMILIES, Peer};
use l3l4_tests::random::Random;
use l3l4_tests::scene::{Scene, config, on_both};
use l3l4_tests::wire::{RST, SYN};
use l3l4_tests::world::World;
use smoltcp::iface::SocketHandle;

use crate::spoofed::Spoofed;

const LIMIT: u64 = 2 << 20;
const CLIENTS: usize = 64;
const LENGTH: usize = 200_000;
/// More than the records of which fit into the limit.
const MOST_NEW_FLOWS: usize = 20_000;

#[test]
fn at_the_memory_limit_windows_close_and_old_flows_complete() {
    let config = Config {
        memory_limit: LIMIT,
        ..config()
    };
    on_both(config, |scene| {
        let baseline = scene.counters().memory_bytes;
        let mut world = World::new(scene, App::Discard);
        let mut clients: Vec<_> = (0..CLIENTS).map(|i| Client::new(&mut world, i)).collect();
        world.run_for(Duration::from_secs(1));
        let flows = world.scene.flows();
        assert_eq!(flows.len(), CLIENTS, "all have room to connect");
        for flow in &flows {
            world.scene.host().appetite.insert(*flow, 0);
        }

        run(&mut world, &mut clients, 5000);
        let full = world.scene.counters();
        assert!(full.memory_bytes > LIMIT / 2, "{full:?}");
        let held: u64 = flows
            .iter()
            .map(|flow| world.scene.info(*flow).unwrap().receive_queue)
            .map(u64::from)
            .sum();
        assert!(held <= LIMIT, "{held} bytes wait for the application");
        refuses_new_flows(&mut world);

        world.scene.host().appetite.clear();
        for flow in &flows {
            world.scene.resume(*flow).unwrap();
        }
        run(&mut world, &mut clients, 120_000);
        for (i, client) in clients.iter().enumerate() {
            assert!(client.is_closed(&mut world), "client {i} does not complete");
        }
        for flow in &flows {
            let received = &world.app.received[flow];
            let whose = clients.iter().position(|client| client.data == *received);
            clients.remove(whose.expect("exact"));
        }

        world.run_for(Duration::from_secs(120));
        assert_eq!(world.scene.flows(), []);
        let left = world.scene.counters().memory_bytes.saturating_sub(baseline);
        assert!(left <= 64 << 10, "{left} bytes stay behind");
    });
}

/// Records may still have room where data has none, but not for ever.
fn refuses_new_flows(world: &mut World<'_>) {
    let scene = &mut *world.scene;
    let old = scene.flows();
    let mut spoofed = Spoofed::new(4);
    let mut refused = 0;
    for _ in 0..MOST_NEW_FLOWS {
        refused += u32::from(!begins(scene, &mut spoofed.peer()));
        assert!(scene.counters().memory_bytes <= LIMIT);
        if refused == 100 {
            break;
        }
    }
    assert_eq!(refused, 100, "no room for new flows");
    let tuple = spoofed.peer().tuple();
    let opened = scene.open(&tuple, FlowOptions::default());
    assert_eq!(opened, Err(OpenError::OutOfMemory));
    for flow in scene.flows() {
        if !old.contains(&flow) {
            scene.abort(flow).unwrap();
        }
    }
}

/// Whether a peer gets through its handshake.
fn begins(scene: &mut Scene, peer: &mut Peer) -> bool {
    scene.sent_packets();
    scene.rx(peer.syn().mss(1400));
    let answers = scene.segments();
    let answer = answers.iter().find(|it| it.to == peer.peer && it.has(SYN));
    let Some(answer) = answer else {
        return false;
    };
    peer.hear(answer);
    scene.rx(peer.ack());
    let answers = scene.segments();
    !answers.iter().any(|it| it.to == peer.peer && it.has(RST))
}

/// So many milliseconds, or until all clients are closed.
fn run(world: &mut World<'_>, clients: &mut [Client], millis: u32) {
    for _ in 0..millis {
        world.run_for(Duration::from_millis(1));
        for client in &mut *clients {
            client.act(world);
        }
        let memory = world.scene.counters().memory_bytes;
        assert!(memory <= LIMIT, "{memory} bytes");
        if clients.iter().all(|client| client.is_closed(world)) {
            return;
        }
    }
}

/// Sends its data as fast as it goes, and closes.
struct Client {
    handle: SocketHandle,
    data: Vec<u8>,
    sent: usize,
}

impl Client {
    fn new(world: &mut World<'_>, number: usize) -> Self {
        Self {
            handle: world.client.connect(FAMILIES[number % 2].local(7)),
            data: Random::new(number as u64).bytes(LENGTH),
            sent: 0,
        }
    }

    fn act(&mut self, world: &mut World<'_>) {
        if self.sent < self.data.len() {
            self.sent += world.client.send(self.handle, &self.data[self.sent..]);
            if self.sent == self.data.len() {
                world.client.socket(self.handle).close();
            }
        }
    }

    fn is_closed(&self, world: &mut World<'_>) -> bool {
        use smoltcp::socket::tcp::State;
        let state = world.client.socket(self.handle).state();
        self.sent == self.data.len() && matches!(state, State::TimeWait | State::Closed)
    }
}
