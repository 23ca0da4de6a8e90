//! Transfers between the kernel's sockets and the engine, over devices that may lose
//! and reorder packets: every byte is checked at both ends.

use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use l3l4_host::{CloseReason, tun};

use crate::cases::{Case, Family, PATIENCE};
use crate::client::{Client, Upload, serve};
use crate::impaired::{Faults, Impaired};
use crate::order::Order;
use crate::server::Server;

pub(crate) const CASES: &[Case] = &[
    (
        "sixty_four_mebibytes_each_way_at_mtu_1500",
        sixty_four_mebibytes_each_way_at_mtu_1500,
    ),
    (
        "sixty_four_mebibytes_each_way_at_mtu_65535",
        sixty_four_mebibytes_each_way_at_mtu_65535,
    ),
    (
        "sixty_four_mebibytes_each_way_reordered",
        sixty_four_mebibytes_each_way_reordered,
    ),
    (
        "sixty_four_mebibytes_each_way_at_1_percent_loss",
        sixty_four_mebibytes_each_way_at_1_percent_loss,
    ),
    (
        "sixty_four_mebibytes_each_way_at_5_percent_loss",
        sixty_four_mebibytes_each_way_at_5_percent_loss,
    ),
    (
        "sixty_four_mebibytes_each_way_at_mtu_65535_and_5_percent_loss",
        sixty_four_mebibytes_each_way_at_mtu_65535_and_5_percent_loss,
    ),
    ("half_close_in_both_orders", half_close_in_both_orders),
    (
        "half_close_in_both_orders_at_5_percent_loss",
        half_close_in_both_orders_at_5_percent_loss,
    ),
    ("a_thousand_flows_at_once", a_thousand_flows_at_once),
    (
        "a_thousand_flows_at_once_at_1_percent_loss",
        a_thousand_flows_at_once_at_1_percent_loss,
    ),
];

/// A transfer that takes so long hangs.
const HANGS: Duration = Duration::from_secs(300);

const LENGTH: u64 = 64 << 20;
const CLEAN: Faults = Faults { loss: 0, late: 0 };
const REORDERED: Faults = Faults { loss: 0, late: 20 };
const LOSS_1: Faults = Faults { loss: 10, late: 20 };
const LOSS_5: Faults = Faults { loss: 50, late: 20 };

fn sixty_four_mebibytes_each_way_at_mtu_1500(family: Family) {
    each_way(family, 1500, LENGTH, CLEAN);
}

fn sixty_four_mebibytes_each_way_at_mtu_65535(family: Family) {
    each_way(family, 65_535, LENGTH, CLEAN);
}

fn sixty_four_mebibytes_each_way_reordered(family: Family) {
    each_way(family, 1500, LENGTH, REORDERED);
}

fn sixty_four_mebibytes_each_way_at_1_percent_loss(family: Family) {
    each_way(family, 1500, LENGTH, LOSS_1);
}

fn sixty_four_mebibytes_each_way_at_5_percent_loss(family: Family) {
    each_way(family, 1500, LENGTH, LOSS_5);
}

fn sixty_four_mebibytes_each_way_at_mtu_65535_and_5_percent_loss(family: Family) {
    each_way(family, 65_535, LENGTH, LOSS_5);
}

fn half_close_in_both_orders(family: Family) {
    half_close(family, CLEAN);
}

fn half_close_in_both_orders_at_5_percent_loss(family: Family) {
    half_close(family, LOSS_5);
}

fn a_thousand_flows_at_once(family: Family) {
    thousand_flows(family, CLEAN);
}

fn a_thousand_flows_at_once_at_1_percent_loss(family: Family) {
    thousand_flows(family, LOSS_1);
}

/// One flow, both directions at once.
fn each_way(family: Family, mtu: u16, length: u64, faults: Faults) {
    let order = Order {
        number: 1,
        up: length,
        down: length,
        server_waits: false,
    };
    exchange(family, mtu, faults, &[(order, Upload::Now)]);
}

/// Whoever finishes first goes on receiving, much, little or nothing but the end.
fn half_close(family: Family, faults: Faults) {
    const MUCH: u64 = 4 << 20;
    let lengths = [(MUCH, MUCH), (0, MUCH), (MUCH, 0), (1, 1), (0, 0)];
    let turns = [(true, Upload::Now), (false, Upload::Last)];
    let orders: Vec<_> = turns
        .into_iter()
        .flat_map(|turn| lengths.map(|lengths| (turn, lengths)))
        .zip(1..)
        .map(|(((server_waits, upload), (up, down)), number)| {
            let order = Order {
                number,
                up,
                down,
                server_waits,
            };
            (order, upload)
        })
        .collect();
    exchange(family, 1500, faults, &orders);
}

/// All of them have moved all that they have before the first one ends.
fn thousand_flows(family: Family, faults: Faults) {
    let orders: Vec<_> = (1..=1000)
        .map(|number| {
            let order = Order {
                number,
                up: 100_000 + number,
                down: 101_000 - number,
                server_waits: false,
            };
            (order, Upload::Now)
        })
        .collect();
    let most_flows = exchange(family, 1500, faults, &orders);
    assert_eq!(most_flows, orders.len(), "flows at once");
}

/// Does it all, exactly, and says how many flows lived at once.
fn exchange(family: Family, mtu: u16, faults: Faults, orders: &[(Order, Upload)]) -> usize {
    let (device, tally) = Impaired::new(device(family, mtu), faults, 4);
    let server = Server::start(device);
    let start = Instant::now();
    let until = start + HANGS;
    let mut clients: Vec<_> = orders
        .iter()
        .map(|(order, upload)| {
            let host = u8::try_from(order.number % 200).expect("below 200");
            Client::new(family.beyond(host + 2, 4242), *order, *upload)
        })
        .collect();
    if orders.iter().all(|(order, _)| !order.server_waits) {
        serve(&mut clients, &server, until, false, Client::has_moved_all);
    }
    serve(&mut clients, &server, until, true, Client::is_done);
    let time = start.elapsed();

    let mut most_flows = 0;
    let mut left: Vec<_> = orders.iter().map(|(order, _)| *order).collect();
    while !left.is_empty() {
        let report = server.report(until - Instant::now());
        let report = report.unwrap_or_else(|| panic!("no end of {left:#?}"));
        let at = left.iter().position(|order| Some(*order) == report.order);
        let order = left.swap_remove(at.unwrap_or_else(|| panic!("not ordered: {report:#?}")));
        let good = report.differs_at.is_none()
            && report.received == order.up
            && report.peer_finished
            && report.reason == CloseReason::Finished;
        assert!(good, "{report:#?}");
        most_flows = report.most_flows;
    }
    drop(clients);
    let counters = server.finish();
    let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
    let (packets, lost, late) = (
        count(&tally.packets),
        count(&tally.lost),
        count(&tally.late),
    );
    println!(
        "  {time:.1?}: {packets} packets, {lost} lost, {late} late, {} sent again by the engine",
        counters.retransmits
    );
    assert_eq!(lost > 0, faults.loss > 0, "the faults came to pass");
    assert_eq!(late > 0, faults.late > 0, "the faults came to pass");
    most_flows
}

/// A device of its own, whose network is [`Family::beyond`].
fn device(family: Family, mtu: u16) -> tun::Tun {
    let configuration = tun::Configuration {
        name: "l3l4bulk".into(),
        addresses: vec![match family {
            Family::V4 => "10.79.0.1/24".parse().unwrap(),
            Family::V6 => "fd79::1/64".parse().unwrap(),
        }],
        mtu,
    };
    let device = tun::Tun::new(&configuration).unwrap();
    let start = Instant::now();
    while UdpSocket::bind(family.beyond(1, 0)).is_err() {
        assert!(start.elapsed() < PATIENCE, "the address is not usable");
        std::thread::sleep(Duration::from_millis(20));
    }
    device
}
