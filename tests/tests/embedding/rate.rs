//! Connections that come and go, as many as there can be.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::client;
use crate::runner::Story;
use crate::story;
use crate::world::{Family, World};

pub(crate) const STORIES: &[Story] = &[story!(connections_come_and_go_for_thirty_seconds)];

const SECONDS: u64 = 30;
const THREADS: usize = 16;
/// Destinations enough that no client runs out of ports while TIME-WAIT lasts.
const HOSTS: u16 = 64;
/// What may be left when all is over, beside what one engine needs for that many.
const GROWTH: u64 = 24 << 20;

/// In and out at once: each connection enters the engine and leaves by a socket. The
/// aim is 5,000 a second; what is reached is printed, and depends on the cores.
fn connections_come_and_go_for_thirty_seconds(world: &World) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for _ in 0..THREADS {
        let listener = listener.try_clone().unwrap();
        crate::servers::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    let _ = stream.write_all(&buffer[..length]);
                }
            }
        });
    }
    let hosts: Vec<String> = (0..HOSTS)
        .map(|host| Family::V4.at(1000 + host, 0).ip().to_string())
        .collect();
    let load = |seconds: u64| {
        let hosts = hosts.iter().map(|host| host as &dyn ToString);
        let numbers = [&port as &dyn ToString, &seconds, &THREADS];
        let arguments: Vec<_> = numbers.into_iter().chain(hosts).collect();
        client::command("connect-often", &arguments)
    };
    // As long again: a leak grows with the second half, and what is kept for all does not.
    let commands = [
        load(SECONDS / 2),
        load(SECONDS / 2),
        vec!["sleep".into(), "2".into()],
    ];
    let run = world.run_all(&["--quiet"], &commands);
    let descriptors = run.descriptors();
    let first = run.wait_until_line(0);
    let half = run.memory();
    let second = run.wait_until_line(1);
    let (whole, left) = (run.memory(), run.descriptors());
    let mut total = 0;
    for line in [first, second] {
        let (good, bad) = line
            .strip_prefix("good ")
            .unwrap()
            .split_once(" bad ")
            .unwrap();
        assert_eq!(bad, "0", "{}", run.wait());
        total += good.parse::<u64>().unwrap();
    }
    println!("  {total} connections, {} a second", total / SECONDS);
    println!("  {half} B after half, {whole} B after all, {left} descriptors of {descriptors}");
    assert!(total > 1000);
    let grown = whole.saturating_sub(half);
    assert!(grown < GROWTH, "{grown} bytes in the second half");
    assert!(
        left < descriptors + 64,
        "{descriptors} and then {left} descriptors"
    );
    run.wait().well();
}
