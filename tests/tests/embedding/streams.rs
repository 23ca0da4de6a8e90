//! Streams of all lengths, in both directions, finished in both orders, and read as
//! slowly as can be.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use crate::client;
use crate::process::{PATIENCE, Process};
use crate::runner::Story;
use crate::servers::http;
use crate::story;
use crate::stream::{self, ANSWER, QUESTION};
use crate::way::Way;
use crate::world::{FAMILIES, World};

pub(crate) const STORIES: &[Story] = &[
    story!(half_close_by_the_client_first),
    story!(half_close_by_the_server_first),
    story!(sixty_four_mebibytes_each_way_at_once),
    story!(a_server_that_does_not_read_holds_the_client_up),
    story!(a_client_that_does_not_read_holds_the_server_up),
    story!(a_thousand_connections_are_kept_alive),
];

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

const LENGTHS: [u64; 3] = [0, 1000, 3_000_000];

/// Tells a story of programs inside, and of programs that share a proxy.
fn both(world: &World, tell: fn(&World, &Way)) {
    tell(world, &Way::Run);
    tell(world, world.proxy());
}

/// Each family with each length, and who listens there.
fn listeners(world: &World) -> Vec<(TcpListener, SocketAddr, u64)> {
    let cases = FAMILIES.into_iter().flat_map(|it| LENGTHS.map(|n| (it, n)));
    let listeners = cases.map(|(family, length)| {
        let (listener, address) = world.listen(family);
        (listener, address, length)
    });
    listeners.collect()
}

fn half_close_by_the_client_first(world: &World) {
    both(world, clients_finish_first);
}

fn clients_finish_first(world: &World, way: &Way) {
    let listeners = listeners(world);
    let commands: Vec<_> = listeners
        .iter()
        .map(|(_, address, length)| client::command("finish-first", &[&way.to(*address), length]))
        .collect();
    let run = way.start(world, &commands);
    for (listener, _, length) in listeners {
        let mut stream = accept(&listener);
        stream::receive_to_end(&mut stream, QUESTION, length);
        stream::send(&mut stream, ANSWER, length);
    }
    run.wait().well();
}

fn half_close_by_the_server_first(world: &World) {
    both(world, servers_finish_first);
}

fn servers_finish_first(world: &World, way: &Way) {
    let listeners = listeners(world);
    let commands: Vec<_> = listeners
        .iter()
        .map(|(_, address, length)| client::command("finish-second", &[&way.to(*address), length]))
        .collect();
    let run = way.start(world, &commands);
    for (listener, _, length) in listeners {
        let mut stream = accept(&listener);
        stream::send(&mut stream, ANSWER, length);
        stream.shutdown(Shutdown::Write).unwrap();
        stream::receive_to_end(&mut stream, QUESTION, length);
    }
    run.wait().well();
}

fn sixty_four_mebibytes_each_way_at_once(world: &World) {
    both(world, both_ways_at_once);
}

fn both_ways_at_once(world: &World, way: &Way) {
    let length = 64 << 20;
    let servers = FAMILIES.map(|family| world.listen(family));
    let commands: Vec<_> = servers
        .iter()
        .map(|(_, address)| client::command("both-ways", &[&way.to(*address), &length]))
        .collect();
    let run = way.start(world, &commands);
    let mut expected = Vec::new();
    for (listener, _) in servers {
        let mut stream = accept(&listener);
        let mut writer = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            let sent = stream::send(&mut writer, ANSWER, length);
            writer.shutdown(Shutdown::Write).unwrap();
            sent
        });
        let received = stream::receive_to_end(&mut stream, QUESTION, length);
        let sent = writing.join().unwrap();
        expected.extend([format!("sent {received}"), format!("received {sent}")]);
    }
    let said = run.wait().well().stdout;
    for line in expected {
        assert_eq!(
            said.lines().filter(|it| **it == line).count(),
            2,
            "{line}: {said}"
        );
    }
}

/// More than all buffers on the way can hold.
const FAR_TOO_MUCH: u64 = 512 << 20;
/// What the buffers of both kernels, the engine and the proxy may hold together.
const HELD: u64 = 64 << 20;
/// What our process may grow by for one flow.
const GROWTH: u64 = 32 << 20;

fn a_server_that_does_not_read_holds_the_client_up(world: &World) {
    both(world, servers_do_not_read);
}

fn servers_do_not_read(world: &World, way: &Way) {
    let servers = FAMILIES.map(|family| world.listen(family));
    let commands: Vec<_> = servers
        .iter()
        .map(|(_, address)| client::command("stuff", &[&way.to(*address), &FAR_TOO_MUCH]))
        .collect();
    let mut run = way.command(world, &commands);
    let mut run = Process::start(run.stdin(Stdio::piped()));
    let mut stdin = run.stdin();
    for (number, (listener, _)) in servers.into_iter().enumerate() {
        let mut stream = accept(&listener);
        let before = way.memory(&run);
        let said = run.wait_until_line(number);
        let sent: u64 = said.strip_prefix("sent ").unwrap().parse().unwrap();
        assert!(sent < HELD, "{sent} bytes were taken and not read");
        let grown = way.memory(&run).saturating_sub(before);
        assert!(
            grown < GROWTH,
            "{grown} bytes for a flow that does not move"
        );
        println!("  {sent} bytes held, {grown} of memory");
        writeln!(stdin).unwrap();
        stream::receive_to_end(&mut stream, QUESTION, sent);
    }
    run.wait().well();
}

fn a_client_that_does_not_read_holds_the_server_up(world: &World) {
    both(world, clients_do_not_read);
}

fn clients_do_not_read(world: &World, way: &Way) {
    let servers = FAMILIES.map(|family| world.listen(family));
    let commands: Vec<_> = servers
        .iter()
        .map(|(_, address)| client::command("sleep-then-read", &[&way.to(*address)]))
        .collect();
    let mut run = way.command(world, &commands);
    let mut run = Process::start(run.stdin(Stdio::piped()));
    let mut stdin = run.stdin();
    let mut expected = String::new();
    for (listener, _) in servers {
        let mut stream = accept(&listener);
        let before = way.memory(&run);
        stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let sent = stream::send_what_is_taken(&mut stream, ANSWER, FAR_TOO_MUCH);
        assert!(sent < HELD, "{sent} bytes were taken and not read");
        let grown = way.memory(&run).saturating_sub(before);
        assert!(
            grown < GROWTH,
            "{grown} bytes for a flow that does not move"
        );
        println!("  {sent} bytes held, {grown} of memory");
        writeln!(stdin).unwrap();
        let hash = stream::hash(ANSWER, sent);
        expected.push_str(&format!("received {sent} {hash}\n"));
    }
    assert_eq!(run.wait().well().stdout, expected);
}

fn a_thousand_connections_are_kept_alive(world: &World) {
    both(world, connections_are_kept_alive);
}

fn connections_are_kept_alive(world: &World, way: &Way) {
    let commands: Vec<_> = FAMILIES
        .iter()
        .map(|family| http::serve(world, *family))
        .map(|server| client::command("keep-alive", &[&way.to(server), &1000, &5, &1000]))
        .collect();
    let said = way.start(world, &commands).wait().well().stdout;
    assert_eq!(said, "answered 1000\nanswered 1000\n");
}
