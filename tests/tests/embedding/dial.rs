//! A connection is accepted when the destination accepted it, and not before.

use std::net::SocketAddr;

use l3l4_host::capture::{Content, Direction, Reader};
use l3l4_tests::wire::{ACK, Body, RST, SYN, read};

use crate::basics::Temporary;
use crate::client;
use crate::runner::Story;
use crate::story;
use crate::world::{FAMILIES, World};

pub(crate) const STORIES: &[Story] = &[
    story!(a_closed_port_is_refused_and_never_accepted),
    story!(a_silent_destination_is_never_answered),
    story!(no_route_is_told_as_no_route),
    story!(a_denied_destination_is_refused),
];

/// Connects to each, and gives how that ended, and what segments the program got: from
/// where, with which flags.
fn connect(
    world: &World,
    options: &[&str],
    to: &[SocketAddr],
    millis: u32,
) -> (Vec<String>, Vec<(SocketAddr, u8)>) {
    let pcap = Temporary::new("dial.pcapng");
    let options = [&["--quiet", "--pcap", pcap.name()], options].concat();
    let to = to.iter().map(|it| it as &dyn ToString);
    let arguments: Vec<_> = [&millis as &dyn ToString].into_iter().chain(to).collect();
    let run = world.run(&options, &client::command("connect", &arguments));
    let said = run.wait().well().stdout;
    let mut reader = Reader::open(&pcap.0).unwrap();
    let mut segments = Vec::new();
    while let Some(packet) = reader.next().unwrap() {
        if let (Some(Direction::Outbound), Content::Ip(bytes)) = (packet.direction, packet.content)
            && let Body::Tcp(tcp) = read(bytes).unwrap().body
        {
            segments.push((tcp.from, tcp.flags));
        }
    }
    (said.lines().map(str::to_owned).collect(), segments)
}

fn is_accepted(by: SocketAddr, segments: &[(SocketAddr, u8)]) -> bool {
    let mut segments = segments.iter();
    segments.any(|(from, flags)| *from == by && flags & (SYN | ACK) == SYN | ACK)
}

fn a_closed_port_is_refused_and_never_accepted(world: &World) {
    let open = FAMILIES.map(|family| world.listen(family));
    let closed = FAMILIES.map(|family| world.listen(family).1);
    let to = [open[0].1, closed[0], open[1].1, closed[1]];
    let (said, segments) = connect(world, &[], &to, 60_000);
    let expected = ["connected", "ConnectionRefused"];
    assert_eq!(said, [expected, expected].concat());
    assert_eq!(
        to.map(|it| is_accepted(it, &segments)),
        [true, false, true, false]
    );
}

/// Nothing comes while the program waits. At its end every flow is reset.
fn a_silent_destination_is_never_answered(world: &World) {
    let to = FAMILIES.map(|family| family.silent(80));
    let (said, segments) = connect(world, &[], &to, 2500);
    assert_eq!(said, ["TimedOut", "TimedOut"]);
    assert!(
        segments.iter().all(|(_, flags)| *flags == RST | ACK),
        "{segments:?}"
    );
}

fn no_route_is_told_as_no_route(world: &World) {
    let to = FAMILIES.map(|family| family.unreachable(80));
    let (said, segments) = connect(world, &[], &to, 60_000);
    assert_eq!(said, ["HostUnreachable", "HostUnreachable"]);
    assert_eq!(segments, []);
}

fn a_denied_destination_is_refused(world: &World) {
    let open = FAMILIES.map(|family| world.listen(family));
    let to = [open[0].1, open[1].1];
    let (refused, connected) = ("ConnectionRefused", "connected");
    for (options, expected) in [
        (&["--deny", "10.80.0.0/16"], [refused, connected]),
        (&["--allow", "[fd50::/64]"], [refused, connected]),
    ] {
        assert_eq!(connect(world, options, &to, 60_000).0, expected);
    }
}
