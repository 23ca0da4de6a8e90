//! What everybody does first: curl, TLS, names, and the edges of a process: exit
//! status, signals, standard input and output.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use l3l4_host::sandbox::RESOLVERS;
use l3l4_tests::program::program;

use crate::client;
use crate::process::{PATIENCE, Process};
use crate::runner::Story;
use crate::servers::{http, system};
use crate::story;
use crate::stream;
use crate::world::{DNS, FAMILIES, Family, NAME, World};

pub(crate) const STORIES: &[Story] = &[
    story!(curl_fetches_by_name_and_by_address, "curl"),
    story!(tls_is_a_conversation, "openssl"),
    story!(names_resolve_over_udp_and_tcp, "dig", "getent"),
    story!(the_systems_name_server_is_asked_by_default, "dig"),
    story!(each_of_the_systems_name_servers_is_asked, "getent"),
    story!(the_exit_status_is_the_programs),
    story!(what_cannot_be_run_is_told_as_env_tells_it),
    story!(standard_input_and_output_are_the_programs_alone),
    story!(a_signal_reaches_the_program_once),
    story!(a_terminals_signal_is_not_sent_twice, "script"),
    story!(the_program_ends_with_us),
    story!(what_a_program_left_to_be_sent_arrives),
    story!(a_summary_names_whom_the_program_talked_to, "curl"),
    story!(a_run_is_captured_and_recorded, "curl"),
    story!(a_record_that_is_not_whole_is_told),
    story!(no_device_no_program),
];

/// A file that goes with this.
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Temporary {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("l3l4-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn name(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const QUIET: &[&str] = &["--quiet"];

fn curl_fetches_by_name_and_by_address(world: &World) {
    let (mut commands, mut files) = (Vec::new(), Vec::new());
    for family in FAMILIES {
        let server = http::serve(world, family);
        let digit = format!("-{}", family.digit());
        for host in [server.to_string(), format!("{NAME}:{}", server.port())] {
            let file = Temporary::new(&format!("fetched-{}", files.len()));
            let url = format!("http://{host}/bytes/300000");
            let curl = [
                "curl",
                "-sS",
                "--noproxy",
                "*",
                &digit,
                "-o",
                file.name(),
                &url,
            ];
            commands.push(curl.map(str::to_owned).to_vec());
            files.push(file);
        }
    }
    world.run_all(QUIET, &commands).wait().well();
    for file in files {
        assert!(fs::read(&file.0).unwrap() == http::body(300_000));
    }
}

fn tls_is_a_conversation(world: &World) {
    for family in FAMILIES {
        let server = system::tls(world, family);
        let certificate = server.directory.join("certificate");
        let (certificate, address) = (certificate.to_str().unwrap(), server.address.to_string());
        let mut client = world.run_command(
            QUIET,
            &[
                "openssl",
                "s_client",
                "-quiet",
                "-no_ign_eof",
                "-verify_return_error",
                "-CAfile",
                certificate,
                "-servername",
                NAME,
                "-verify_hostname",
                NAME,
                "-connect",
                &address,
            ],
        );
        let mut client = Process::start(client.stdin(Stdio::piped()));
        let mut stdin = client.stdin();
        for (line, answer) in [("hello", "olleh"), ("to you", "uoy ot")] {
            writeln!(stdin, "{line}").unwrap();
            client.wait_until_it_says(answer);
        }
        drop(stdin);
        client.wait().well();
    }
}

fn names_resolve_over_udp_and_tcp(world: &World) {
    let script = format!(
        "for kind in A AAAA; do
            dig +short +tries=1 {NAME} $kind
            dig +short +tries=1 +tcp {NAME} $kind
        done
        getent ahostsv4 {NAME} | head -n 1
        getent ahostsv6 {NAME} | head -n 1
        getent ahosts unknown.l3l4.test || echo $?"
    );
    let ended = world.run(QUIET, &["sh", "-c", &script]).wait().well();
    let said = ended.stdout.split_whitespace();
    let said: Vec<_> = said.filter(|it| !["STREAM", NAME].contains(it)).collect();
    let [v4, v6] = FAMILIES.map(|family| family.at(2, 0).ip().to_string());
    assert_eq!(said, [&v4, &v4, &v6, &v6, &v4, &v6, "2"]);
}

/// `l3l4 run` in a mount namespace that has another `/etc/resolv.conf` than the system.
fn run_with_resolv_conf(file: &Temporary, command: &[&str]) -> Command {
    let script = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script, "sh", file.name()]);
    unshare.arg(program()).args(["run", "--quiet", "--"]);
    unshare.args(command).stdin(Stdio::null());
    unshare
}

fn the_systems_name_server_is_asked_by_default(_: &World) {
    let file = Temporary::new("resolv.conf");
    let server = Family::V6.at(DNS, 53).ip();
    fs::write(&file.0, format!("nameserver {server}\nsearch l3l4.test\n")).unwrap();
    let ask = "cat /etc/resolv.conf; dig +short +search www";
    let mut run = run_with_resolv_conf(&file, &["sh", "-c", ask]);
    let seen = Process::start(&mut run).wait().well().stdout;
    let address = Family::V4.at(2, 0).ip();
    assert_eq!(
        seen,
        format!("nameserver {}\nsearch l3l4.test\n{address}\n", RESOLVERS[0])
    );
}

/// The first refuses, the second is silent: the program goes on to the third, as its C
/// library does outside.
fn each_of_the_systems_name_servers_is_asked(_: &World) {
    let file = Temporary::new("resolv.conf.of-three");
    let others = "options timeout:1 attempts:1\n";
    let servers = [
        Family::V4.at(9, 53),
        Family::V4.silent(53),
        Family::V6.at(DNS, 53),
    ];
    let lines = servers.map(|server| format!("nameserver {}\n", server.ip()));
    fs::write(&file.0, lines.concat() + others).unwrap();
    let ask = format!("cat /etc/resolv.conf; getent ahostsv4 {NAME} | head -n 1");
    let mut run = run_with_resolv_conf(&file, &["sh", "-c", &ask]);
    let seen = Process::start(&mut run).wait().well().stdout;
    let lines: String = RESOLVERS[..3]
        .iter()
        .map(|it| format!("nameserver {it}\n"))
        .collect();
    let address = Family::V4.at(2, 0).ip();
    let expected = format!("{lines}{others}{address} ");
    assert!(seen.starts_with(&expected), "{seen}");
}

fn the_exit_status_is_the_programs(world: &World) {
    for status in [42, 255] {
        let exit = format!("exit {status}");
        world
            .run(QUIET, &["sh", "-c", &exit])
            .wait()
            .with_status(status);
    }
    for signal in [9, 15] {
        let kill = format!("kill -{signal} $$; sleep 60");
        world
            .run(QUIET, &["sh", "-c", &kill])
            .wait()
            .with_status(128 + signal);
    }
}

fn what_cannot_be_run_is_told_as_env_tells_it(world: &World) {
    let ended = world
        .run(QUIET, &["l3l4-no-such-program"])
        .wait()
        .with_status(127);
    assert!(ended.stderr.contains("l3l4-no-such-program"), "{ended}");
    let ended = world.run(QUIET, &["/etc/passwd"]).wait().with_status(126);
    assert!(ended.stderr.contains("/etc/passwd"), "{ended}");
    let nowhere = ["--pcap", "/l3l4/no/such/directory"];
    world.run(&nowhere, &["true"]).wait().with_status(125);
}

fn standard_input_and_output_are_the_programs_alone(world: &World) {
    let command = ["sh", "-c", "cat; echo to there >&2"];
    let mut run = world.run_command(QUIET, &command);
    let mut run = Process::start(run.stdin(Stdio::piped()));
    let mut stdin = run.stdin();
    stdin.write_all(b"from here\n").unwrap();
    run.wait_until_it_says("from here\n");
    drop(stdin);
    let ended = run.wait().well();
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("from here\n", "to there\n")
    );
}

/// A shell that counts signals, and ends at the third.
fn counting(signals: &str) -> String {
    format!(
        "n=0; for s in {signals}; do trap \"n=\\$((n+1)); echo $s=\\$n\" $s; done; echo ready; \
         while [ $n -lt 3 ]; do sleep 0.05; done; exit 7"
    )
}

fn a_signal_reaches_the_program_once(world: &World) {
    for signals in [
        [("HUP", 1), ("INT", 2), ("QUIT", 3)],
        [("USR1", 10), ("USR2", 12), ("TERM", 15)],
    ] {
        let names = signals.map(|(name, _)| name).join(" ");
        // What the test was started with ignored, as by nohup(1), a shell cannot trap.
        let shell = ["env", "--default-signal", "sh", "-c"];
        let program = world.run(QUIET, &[&shell[..], &[&counting(&names)]].concat());
        program.wait_until_it_says("ready");
        for (count, (name, number)) in (1..).zip(signals) {
            program.signal(number);
            program.wait_until_it_says(&format!("{name}={count}"));
            // A second one would show by now.
            thread::sleep(Duration::from_millis(200));
            assert!(!program.said().contains(&format!("={}", count + 1)));
        }
        program.wait().with_status(7);
    }
}

fn a_terminals_signal_is_not_sent_twice(world: &World) {
    let shell = Temporary::new("counting");
    fs::write(&shell.0, counting("INT")).unwrap();
    let run = world.run_command(QUIET, &["sh", shell.name()]);
    let words = std::iter::once(run.get_program()).chain(run.get_args());
    let words: Vec<_> = words.map(|it| it.to_str().unwrap()).collect();
    // In the shell's place, which the key would end too.
    let line = format!("exec {}", words.join(" "));
    // script(1) gives it a terminal, whose interrupt key is Ctrl-C. A shell in the
    // background ignores that, and so would all that it starts.
    let mut script = Command::new("env");
    script.args(["--default-signal", "script", "--quiet", "--return"]);
    script.args(["--command", &line, "/dev/null"]);
    let mut script = Process::start(script.stdin(Stdio::piped()));
    let mut keys = script.stdin();
    script.wait_until_it_says("ready");
    for count in 1..=3 {
        keys.write_all(b"\x03").unwrap();
        script.wait_until_it_says(&format!("INT={count}"));
        thread::sleep(Duration::from_millis(200));
        assert!(!script.said().contains(&format!("INT={}", count + 1)));
    }
    script.wait().with_status(7);
}

/// Without its network a program is not left behind.
fn the_program_ends_with_us(world: &World) {
    let program = world.run(QUIET, &["sh", "-c", "echo =$$=; exec sleep 600"]);
    program.wait_until_it_says("=\n");
    let said = program.said();
    let id = said.split('=').nth(1).unwrap();
    program.signal(9);
    let start = Instant::now();
    while is_alive(id) {
        assert!(start.elapsed() < PATIENCE, "{id} lives");
        thread::sleep(Duration::from_millis(10));
    }
}

fn is_alive(process: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{process}/stat"));
    state.is_ok_and(|text| !text.contains(") Z "))
}

fn what_a_program_left_to_be_sent_arrives(world: &World) {
    let length = 6 << 20;
    let (listener, address) = world.listen(Family::V4);
    let run = world.run(
        QUIET,
        &client::command("send-and-exit", &[&address, &length]),
    );
    let (mut stream, _) = listener.accept().unwrap();
    // The program has ended by now, and nothing was read yet.
    thread::sleep(Duration::from_millis(500));
    stream::receive_to_end(&mut stream, stream::QUESTION, length);
    drop(stream);
    run.wait().well();
}

fn a_summary_names_whom_the_program_talked_to(world: &World) {
    let server = http::serve(world, Family::V4);
    let closed = world.listen(Family::V4).1;
    let denied = Family::V4.at(9, 1);
    let script = format!(
        "curl -4 -sS --noproxy '*' -o /dev/null http://{NAME}:{}/bytes/1000
         curl -sS --noproxy '*' http://{closed}/; curl -sS --noproxy '*' http://{denied}/; true",
        server.port()
    );
    let options = ["--json", "--deny", "10.80.0.9"];
    let ended = world.run(&options, &["sh", "-c", &script]).wait().well();
    let line = ended.stderr.lines().find(|line| line.starts_with('{'));
    let json: serde_json::Value = serde_json::from_str(line.expect("a line")).unwrap();
    let find = |port: u16| {
        let destinations = json["destinations"].as_array().unwrap();
        let found = destinations.iter().find(|it| it["port"] == port);
        found.unwrap_or_else(|| panic!("{port}: {json}"))
    };
    let fetched = find(server.port());
    assert_eq!(fetched["name"], NAME);
    assert_eq!(fetched["address"], server.ip().to_string());
    assert_eq!(fetched["flows"], 1);
    assert!(fetched["bytes_received"].as_u64().unwrap() > 1000, "{json}");
    assert_eq!(
        find(closed.port())["failed"][0]["reason"],
        "connection refused"
    );
    assert_eq!(find(denied.port())["denied"], 1);
    assert_eq!(find(53)["protocol"], "udp");
}

fn a_run_is_captured_and_recorded(world: &World) {
    let server = http::serve(world, Family::V6);
    let (pcap, record) = (Temporary::new("run.pcapng"), Temporary::new("run.l3l4"));
    let url = format!("http://{server}/bytes/100000");
    let options = ["--quiet", "--pcap", pcap.name(), "--record", record.name()];
    let curl = ["curl", "-sS", "--noproxy", "*", "-o", "/dev/null", &url];
    world.run(&options, &curl).wait().well();
    for file in [&pcap, &record] {
        let mut replay = Command::new(program());
        replay.args(["replay", file.name()]).stdin(Stdio::null());
        Process::start(&mut replay).wait().well();
    }
}

/// No byte fits into the file. It is a failure of ours, not the program's.
fn a_record_that_is_not_whole_is_told(world: &World) {
    let options = ["--quiet", "--record", "/dev/full"];
    let ended = world.run(&options, &["sh", "-c", "exit 3"]).wait();
    let ended = ended.with_status(125);
    let expected = "l3l4: the record is not whole: No space left on device";
    assert!(ended.stderr.contains(expected), "{ended}");
}

/// A namespace in which users may make none.
fn no_device_no_program(_: &World) {
    let script = "echo 0 > /proc/sys/user/max_net_namespaces; exec \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]);
    unshare.arg(program()).args(["run", "--", "echo", "no"]);
    let ended = Process::start(unshare.stdin(Stdio::null()))
        .wait()
        .with_status(125);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("max_net_namespaces is 0"), "{ended}");
}
