//! Connections that come and go, as many as there can be.

use std::net::TcpListener;
use std::process::Command;

use crate::client;
use crate::load;
use crate::process::Process;
use crate::runner::{Story, find};
use crate::story;
use crate::world::{Family, World, ip};

pub(crate) const STORIES: &[Story] = &[story!(connections_come_and_go_for_thirty_seconds)];

const SECONDS: u64 = 30;
/// How long what it is compared with runs.
const SECONDS_BESIDE: u64 = 3;
/// Connections that the client has at once.
const AT_ONCE: usize = 64;
/// Destinations enough that no client runs out of ports while TIME-WAIT lasts.
const HOSTS: u16 = 64;
/// What may be left when all is over, beside what one engine needs for that many.
const GROWTH: u64 = 24 << 20;

/// In and out at once: each connection enters the engine and leaves by a socket. What is
/// reached is printed, and depends on the cores: with client, server and both kernels on
/// the same two, a release build carries over 5,000 a second. To set it in proportion the
/// same client and server meet over the kernel alone, and through pasta where there is
/// one.
fn connections_come_and_go_for_thirty_seconds(world: &World) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    load::serve(listener);
    // As long again: a leak grows with the second half, and what is kept for all does not.
    let commands = [
        client_for(port, SECONDS / 2),
        client_for(port, SECONDS / 2),
        vec!["sleep".into(), "2".into()],
    ];
    let run = world.run_all(&["--quiet"], &commands);
    let descriptors = run.descriptors();
    let first = run.wait_until_line(0);
    let half = run.memory();
    let second = run.wait_until_line(1);
    let (whole, left) = (run.memory(), run.descriptors());
    let total: Option<u64> = [first, second].iter().map(|line| all_good(line)).sum();
    let Some(total) = total else {
        panic!("not every connection went well: {}", run.wait());
    };
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

    let kernel = rate_of(&[], port);
    println!("  over the kernel alone, one connection for each instead of two: {kernel}");
    if find("pasta").is_some() {
        println!("  through pasta: {}", rate_through_pasta(port));
    }
}

fn client_for(port: u16, seconds: u64) -> Vec<String> {
    let hosts: Vec<String> = (0..HOSTS)
        .map(|host| Family::V4.at(1000 + host, 0).ip().to_string())
        .collect();
    let hosts = hosts.iter().map(|host| host as &dyn ToString);
    let numbers = [&port as &dyn ToString, &seconds, &AT_ONCE];
    let arguments: Vec<_> = numbers.into_iter().chain(hosts).collect();
    client::command("connect-often", &arguments)
}

/// How many connections went well, if none went otherwise.
fn all_good(line: &str) -> Option<u64> {
    let (good, bad) = line.strip_prefix("good ")?.split_once(" bad ")?;
    (bad == "0").then(|| good.parse().expect("a number"))
}

/// What a client reaches that these words start, in words.
fn rate_of(words: &[&str], port: u16) -> String {
    let client = client_for(port, SECONDS_BESIDE);
    let words = words.iter().map(|word| (*word).to_owned());
    let words: Vec<_> = words.chain(client).collect();
    let ended = Process::start(Command::new(&words[0]).args(&words[1..])).wait();
    match ended.stdout.lines().find_map(all_good) {
        Some(good) => format!("{} a second", good / SECONDS_BESIDE),
        None => format!("failures: {ended}"),
    }
}

/// pasta wants an interface of the outer namespace to begin with.
fn rate_through_pasta(port: u16) -> String {
    for command in [
        "link add outer type veth peer name outer-peer",
        "addr add 10.79.0.2/24 dev outer",
        "link set outer up",
        "link set outer-peer up",
    ] {
        if let Err(reason) = ip(command) {
            return reason;
        }
    }
    let pasta = "pasta --config-net --quiet -4 --interface outer --ns-ifname inner \
                 --address 10.79.0.2 --netmask 24 --gateway 10.79.0.1 --";
    let words: Vec<_> = pasta.split_whitespace().collect();
    let rate = rate_of(&words, port);
    let _ = ip("link del outer");
    rate
}
