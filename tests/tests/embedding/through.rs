//! The programs of the other stories through `l3l4 proxy`, whose device they are
//! routed to.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;

use crate::basics::Temporary;
use crate::client;
use crate::process::Process;
use crate::runner::Story;
use crate::servers::upstream::Upstream;
use crate::servers::{echo, http, system};
use crate::story;
use crate::way::Way;
use crate::world::{DNS, FAMILIES, Family, NAME, World};

pub(crate) const STORIES: &[Story] = &[
    story!(
        everyday_programs_go_through_a_proxy,
        "curl",
        "dig",
        "iperf3",
        "openssl"
    ),
    story!(everyday_programs_go_through_a_proxy_and_an_upstream, "curl"),
    story!(ssh_goes_through_a_proxy, "ssh", "sshd", "ssh-keygen"),
    story!(a_proxy_that_is_stopped_tells_its_flows),
];

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn curl(server: SocketAddr, file: &Temporary) -> Vec<String> {
    let to = file.name();
    words(&format!(
        "curl -sS --noproxy * -o {to} http://{server}/bytes/300000"
    ))
}

fn everyday_programs_go_through_a_proxy(world: &World) {
    let way = world.proxy();
    for family in FAMILIES {
        let (web, tls) = (http::serve(world, family), system::tls(world, family));
        let iperf3 = system::iperf3(world, family);
        let fetched = Temporary::new("through");
        let (host, port) = (way.to(iperf3.address).ip(), iperf3.address.port());
        let measure = format!("iperf3 --client {host} --port {port} --bytes 16M");
        let resolver = way.to(family.at(DNS, 53)).ip();
        let commands = [
            curl(way.to(web), &fetched),
            words(&measure),
            words(&format!("{measure} --reverse")),
            words(&format!("dig @{resolver} +short +tries=1 {NAME} A")),
            words(&format!("dig @{resolver} +short +tries=1 +tcp {NAME} AAAA")),
        ];
        let said = way.start(world, &commands).wait().well().stdout;
        let addresses = FAMILIES.map(|family| family.at(2, 0).ip().to_string());
        assert!(
            said.ends_with(&format!("{}\n", addresses.join("\n"))),
            "{said}"
        );
        assert!(fs::read(&fetched.0).unwrap() == http::body(300_000));
        let certificate = tls.directory.join("certificate");
        let certificate = certificate.to_str().unwrap();
        let client = format!(
            "openssl s_client -quiet -no_ign_eof -verify_return_error -CAfile {certificate} \
             -verify_hostname {NAME} -connect {}",
            way.to(tls.address)
        );
        let mut client = way.command(world, &[words(&client)]);
        let mut client = Process::start(client.stdin(Stdio::piped()));
        let mut stdin = client.stdin();
        writeln!(stdin, "hello").unwrap();
        client.wait_until_it_says("olleh");
        drop(stdin);
        client.wait().well();
    }
}

fn everyday_programs_go_through_a_proxy_and_an_upstream(world: &World) {
    for kind in ["socks5", "http"] {
        let upstream = Upstream::start(world, Family::V4, kind);
        // Beside the proxy of the other stories.
        let way = Way::proxy(2, &["--proxy", &upstream.url()]);
        let mut commands = Vec::new();
        let mut files = Vec::new();
        for family in FAMILIES {
            let file = Temporary::new(&format!("through-{kind}-{}", family.digit()));
            commands.push(curl(way.to(http::serve(world, family)), &file));
            files.push(file);
        }
        way.start(world, &commands).wait().well();
        for file in files {
            assert!(fs::read(&file.0).unwrap() == http::body(300_000), "{kind}");
        }
    }
}

fn ssh_goes_through_a_proxy(world: &World) {
    let way = world.proxy();
    for family in FAMILIES {
        let server = system::sshd(world, family);
        let command = system::ssh(&server, way.to(server.address));
        let mut ssh = way.command(world, &[command]);
        let mut ssh = Process::start(ssh.stdin(Stdio::piped()));
        system::talk(&mut ssh);
        ssh.wait().with_status(5);
    }
}

fn a_proxy_that_is_stopped_tells_its_flows(world: &World) {
    const FLOWS: usize = 20;
    let way = Way::proxy(2, &[]);
    let server = way.to(echo::serve(world, Family::V6));
    let hold = client::command("hold", &[&server, &FLOWS]);
    let mut hold = way.command(world, &[hold]);
    let hold = Process::start(hold.stdin(Stdio::piped()));
    hold.wait_until_it_says("ready");
    way.stop().well();
    for number in 1..=FLOWS {
        assert_eq!(hold.wait_until_line(number), "ConnectionReset");
    }
}
