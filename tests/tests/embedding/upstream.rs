//! Through an upstream, and what becomes of flows when it dies.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::basics::Temporary;
use crate::client;
use crate::process::Process;
use crate::runner::Story;
use crate::servers::upstream::Upstream;
use crate::servers::{echo, http};
use crate::story;
use crate::world::{FAMILIES, Family, NAME, World};

pub(crate) const STORIES: &[Story] = &[
    story!(an_upstream_dials_and_resolves, "curl"),
    story!(datagrams_go_through_socks5, "dig"),
    story!(an_upstream_that_is_killed_ends_its_flows_and_no_more),
];

/// By address over both families, and by a name that nobody but the upstream resolves.
fn an_upstream_dials_and_resolves(world: &World) {
    for (kind, family) in [("socks5", Family::V4), ("http", Family::V6)] {
        let upstream = Upstream::start(world, family, kind);
        let servers = FAMILIES.map(|family| http::serve(world, family));
        let by_name = format!("{NAME}:{}", servers[0].port());
        let hosts = [servers[0].to_string(), servers[1].to_string(), by_name];
        let files: Vec<_> = (0..3)
            .map(|it| Temporary::new(&format!("up-{it}")))
            .collect();
        let curl = |(host, file): (&String, &Temporary)| {
            let url = format!("http://{host}/bytes/100000");
            ["curl", "-sS", "--noproxy", "*", "-o", file.name(), &url]
                .map(str::to_owned)
                .to_vec()
        };
        let commands: Vec<_> = hosts.iter().zip(&files).map(curl).collect();
        let options = ["--quiet", "--proxy", &upstream.url(), "--dns", "virtual"];
        world.run_all(&options, &commands).wait().well();
        for file in files {
            assert!(fs::read(&file.0).unwrap() == http::body(100_000), "{kind}");
        }
    }
}

fn datagrams_go_through_socks5(world: &World) {
    let upstream = Upstream::start(world, Family::V4, "socks5");
    let dig = ["dig", "+short", "+tries=1", NAME, "AAAA"];
    let options = ["--quiet", "--proxy", &upstream.url()];
    let answer = world.run(&options, &dig).wait().well();
    let expected = Family::V6.at(2, 0).ip().to_string();
    assert_eq!(answer.stdout.trim(), expected);
}

fn an_upstream_that_is_killed_ends_its_flows_and_no_more(world: &World) {
    const FLOWS: usize = 50;
    let upstream = Upstream::start(world, Family::V4, "socks5");
    let server = echo::serve(world, Family::V6);
    let command = client::command("hold", &[&server, &FLOWS]);
    let mut run = world.run_command(&["--quiet", "--proxy", &upstream.url()], &command);
    let mut run = Process::start(run.stdin(Stdio::piped()));
    run.wait_until_it_says("ready");
    let upstream = upstream.kill();
    // Each of them ends: with an end of data or a reset, as the upstream's kernel says.
    let last = run.wait_until_line(FLOWS);
    assert!(
        ["read 0", "ConnectionReset"].contains(&last.as_str()),
        "{last}"
    );
    let upstream = Upstream::start_again(upstream);
    writeln!(run.stdin()).unwrap();
    let said = run.wait().well().stdout;
    assert!(said.ends_with("again\n"), "{said}");
    drop(upstream);
}
