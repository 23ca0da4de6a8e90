//! Programs that measure, and programs that people sit before.

use std::io::Write;
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
        let path = |name: &str| server.directory.join(name).display().to_string();
        let (host, port) = (
            server.address.ip().to_string(),
            server.address.port().to_string(),
        );
        let (key, known) = (
            path("user"),
            format!("UserKnownHostsFile={}", path("known")),
        );
        let mut ssh = world.run_command(
            &["--quiet"],
            &[
                "ssh",
                "-F",
                "none",
                "-tt",
                "-p",
                &port,
                "-i",
                &key,
                "-o",
                &known,
                "-o",
                "StrictHostKeyChecking=accept-new",
                "-o",
                "BatchMode=yes",
                &host,
                "sh",
            ],
        );
        let mut ssh = Process::start(ssh.stdin(Stdio::piped()));
        let mut keys = ssh.stdin();
        for number in 1..=20 {
            // What comes back is the terminal's echo of this, and the shell's answer.
            writeln!(keys, "echo =$(({number} * 1000))=").unwrap();
            ssh.wait_until_it_says(&format!("={}=", number * 1000));
        }
        writeln!(keys, "exit 5").unwrap();
        ssh.wait().with_status(5);
    }
}
