//! Programs that measure, and programs that people sit before.

use std::process::Stdio;

use crate::process::Process;
use crate::runner::Story;
use crate::servers::system;
use crate::story;
use crate::world::{FAMILIES, World};

pub(crate) const STORIES: &[Story] = &[
    story!(iperf3_measures_both_ways, "iperf3"),
    story!(ssh_is_interactive, "ssh", "sshd", "ssh-keygen"),
];

fn iperf3_measures_both_ways(world: &World) {
    let servers = FAMILIES.map(|family| system::iperf3(world, family));
    let mut commands = Vec::new();
    for server in &servers {
        let (host, port) = (server.address.ip().to_string(), server.address.port());
        let client = format!("iperf3 --client {host} --port {port} --json");
        for how in [
            "--bytes 48M",
            "--bytes 48M --reverse",
            "--udp --bitrate 20M --time 1",
        ] {
            let words = format!("{client} {how}");
            commands.push(words.split(' ').map(str::to_owned).collect());
        }
    }
    let said = world.run_all(&["--quiet"], &commands).wait().well().stdout;
    let results = serde_json::Deserializer::from_str(&said).into_iter::<serde_json::Value>();
    let results: Vec<_> = results.map(Result::unwrap).collect();
    assert_eq!(results.len(), 6);
    for result in results {
        let end = &result["end"];
        let received = if end["sum_received"].is_null() {
            &end["sum"]
        } else {
            &end["sum_received"]
        };
        let rate = received["bits_per_second"].as_f64().unwrap();
        let start = &result["start"]["test_start"];
        println!(
            "  {} reverse {}: {:.1} MB/s",
            start["protocol"],
            start["reverse"],
            rate / 8e6
        );
        assert!(received["bytes"].as_u64().unwrap() > 1 << 20, "{result}");
    }
}

fn ssh_is_interactive(world: &World) {
    for family in FAMILIES {
        let server = system::sshd(world, family);
        let command = system::ssh(&server, server.address);
        let mut ssh = world.run_command(&["--quiet"], &command);
        let mut ssh = Process::start(ssh.stdin(Stdio::piped()));
        system::talk(&mut ssh);
        ssh.wait().with_status(5);
    }
}
