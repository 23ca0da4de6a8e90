//! Whole transfers against a smoltcp client, every byte checked.

use std::time::Duration;

use l3l4_engine::{CloseReason, Event, FlowOptions, Verdict};
use l3l4_tests::app::App;
use l3l4_tests::craft::{FAMILIES, Peer};
use l3l4_tests::random::Random;
use l3l4_tests::scene::{Scene, config, on_both, on_both_families};
use l3l4_tests::world::World;
use smoltcp::iface::SocketHandle;

const MIB: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_mebibyte_is_echoed_exactly() {
    on_both_families(config(), |scene, family| {
        let mut world = World::new(scene, App::Echo { room: 16_384 });
        let socket = world.client.connect(family.local(7));
        let data = Random::new(1).bytes(MIB);
        exchange(&mut world, socket, &data, MIB, |back| {
            assert_eq!(*back, data)
        });
        clean_end(&mut world, 1);
    });
}

#[test]
fn a_mebibyte_is_received_exactly() {
    on_both_families(config(), |scene, family| {
        let mut world = World::new(scene, App::Discard);
        let socket = world.client.connect(family.local(9));
        let data = Random::new(2).bytes(MIB);
        exchange(&mut world, socket, &data, 0, |_| ());
        clean_end(&mut world, 1);
        let received: Vec<_> = world.app.received.into_values().collect();
        assert!(received == [data], "the bytes sent");
    });
}

#[test]
fn a_mebibyte_is_sent_exactly() {
    on_both_families(config(), |scene, family| {
        let data = Random::new(3).bytes(MIB);
        let mut world = World::new(scene, App::Source(data.clone()));
        let socket = world.client.connect(family.local(19));
        exchange(&mut world, socket, &[], MIB, |back| assert_eq!(*back, data));
        clean_end(&mut world, 1);
    });
}

#[test]
fn a_device_that_takes_one_packet_at_a_time_loses_nothing() {
    on_both(config(), |scene| {
        scene.host().device_gulp = Some(1);
        echo_256_kib(scene);
    });
}

#[test]
fn a_device_that_refuses_every_other_call_loses_nothing() {
    on_both(config(), |scene| {
        scene.host().device_refuses_every_other = true;
        echo_256_kib(scene);
    });
}

#[test]
fn small_buffers_slow_a_transfer_and_change_nothing_else() {
    let mut config = config();
    config.tcp_receive_buffer = 2048;
    config.tcp_send_buffer = 2048;
    on_both(config, echo_256_kib);
}

/// RFC 9293 3.7.4, Nagle's algorithm: as asked for.
#[test]
fn small_pieces_wait_for_an_acknowledgement_only_if_the_host_wants_it() {
    for nagle in [true, false] {
        on_both_families(config(), |scene, family| {
            scene.verdict_on_new(Verdict::Accept(FlowOptions {
                nagle,
                ..FlowOptions::default()
            }));
            let mut peer = Peer::new(family);
            let flow = scene.connect(&mut peer);
            for piece in [b"one", b"two", b"six"] {
                assert_eq!(scene.tx(flow, piece), Ok(3));
            }
            let at_once: Vec<_> = scene.segments();
            let payloads: Vec<_> = at_once.iter().map(|it| it.payload.as_slice()).collect();
            if !nagle {
                assert_eq!(payloads, [b"one", b"two", b"six"]);
                return;
            }
            assert_eq!(payloads, [b"one"]);
            peer.hear(&at_once[0]);
            scene.rx(peer.ack());
            assert_eq!(scene.tcp().payload, b"twosix");
            // A full segment waits for nothing.
            scene.tx(flow, &[7; 2000]).unwrap();
            let full = scene.tcp();
            assert!(full.payload.len() > 1000, "{full}");
        });
    }
}

#[test]
fn eight_conversations_at_once_keep_apart() {
    on_both(config(), |scene| {
        let mut world = World::new(scene, App::Echo { room: 16_384 });
        let sockets: Vec<_> = (0..8u16)
            .map(|i| {
                let family = FAMILIES[usize::from(i % 2)];
                let data = Random::new(u64::from(i)).bytes(50_000);
                (
                    world.client.connect(family.local(7 + i)),
                    data,
                    0,
                    Vec::new(),
                )
            })
            .collect();
        let mut sockets = sockets;
        world.run_until(LIMIT, |world| {
            let mut all = true;
            for (socket, data, sent, back) in &mut sockets {
                *sent += world.client.send(*socket, &data[*sent..]);
                back.extend(world.client.receive(*socket));
                if back.len() == data.len() {
                    world.client.socket(*socket).close();
                }
                all &= back.len() == data.len();
            }
            all
        });
        assert!(
            sockets.iter().all(|(_, data, _, back)| data == back),
            "the bytes sent"
        );
        clean_end(&mut world, 8);
    });
}

fn echo_256_kib(scene: &mut Scene) {
    let mut world = World::new(scene, App::Echo { room: 4096 });
    let socket = world.client.connect(FAMILIES[0].local(7));
    let data = Random::new(4).bytes(MIB / 4);
    exchange(&mut world, socket, &data, data.len(), |back| {
        assert_eq!(*back, data)
    });
    clean_end(&mut world, 1);
}

/// Sends `data`, receives `expected` bytes, and closes the client's side when both
/// are done.
fn exchange(
    world: &mut World<'_>,
    socket: SocketHandle,
    data: &[u8],
    expected: usize,
    check: impl FnOnce(&Vec<u8>),
) {
    let (mut sent, mut back) = (0, Vec::new());
    world.run_until(LIMIT, |world| {
        sent += world.client.send(socket, &data[sent..]);
        back.extend(world.client.receive(socket));
        let queued = world.client.socket(socket).send_queue();
        sent == data.len()
            && queued == 0
            && back.len() >= expected
            && world.client.socket(socket).may_send()
    });
    check(&back);
    world.client.socket(socket).close();
}

/// All flows end as finished, each with the end of the peer's data before.
fn clean_end(world: &mut World<'_>, flows: usize) {
    world.run_until(LIMIT, |world| world.scene.host().living.is_empty());
    let count = |wanted: Event| {
        world
            .app
            .events
            .iter()
            .filter(|(_, event)| *event == wanted)
            .count()
    };
    assert_eq!(count(Event::Established), flows);
    assert_eq!(count(Event::PeerFinished), flows);
    assert_eq!(count(Event::Closed(CloseReason::Finished)), flows);
}
