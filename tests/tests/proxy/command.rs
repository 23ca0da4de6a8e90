//! The command `l3l4 proxy`.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use l3l4_tests::program::program;
use serde_json::Value;

use crate::runner::Case;
use crate::world::{Family, PATIENCE, World, accept, connect};

pub(crate) const CASES: &[Case] = &[
    (
        "command::a_file_configures_it_and_a_signal_ends_it",
        a_file_configures_it_and_a_signal_ends_it,
    ),
    (
        "command::a_record_that_is_not_whole_is_told",
        a_record_that_is_not_whole_is_told,
    ),
];

/// As `echo` tells it. No byte fits into the file.
fn a_record_that_is_not_whole_is_told(world: &World) {
    let network = world.network();
    let [v4, _] = network.addresses();
    let mut program = Command::new(program())
        .args(["proxy", "--tun", &network.name(), "--address", &v4])
        .args(["--record", "/dev/full"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut said = BufReader::new(program.stderr.take().unwrap()).lines();
    said.by_ref()
        .map_while(Result::ok)
        .find(|it| it.contains("Ctrl-C"))
        .expect("it serves");
    let kill = Command::new("kill").arg(program.id().to_string()).status();
    assert!(kill.expect("kill runs").success());
    let rest: Vec<_> = said.map_while(Result::ok).collect();
    assert_eq!(program.wait().unwrap().code(), Some(1), "{rest:?}");
    let told = rest.last().expect("a last word");
    let expected = "l3l4: the record is not whole: No space left on device";
    assert!(told.starts_with(expected), "{rest:?}");
}

fn a_file_configures_it_and_a_signal_ends_it(world: &World) {
    let network = world.network();
    let [v4, v6] = network.addresses();
    let (name, listener, denied) = (network.name(), Family::V4.listen(), Family::V4.listen());
    let port = listener.local_addr().unwrap().port();
    let denied = denied.local_addr().unwrap().port();
    let metrics = Family::V4.closed_port();
    let file = std::env::temp_dir().join(format!("l3l4-proxy-{}.toml", std::process::id()));
    let text = format!(
        "tun = \"{name}\"\naddress = [\"{v4}\", \"{v6}\"]\nmap = [\"{}=127.0.0.1\"]\n\
         deny = [\"tcp:*:{denied}\"]\nverbose = true\nmetrics = \"127.0.0.1:1\"\n",
        network.at(Family::V4, 7)
    );
    std::fs::write(&file, text).unwrap();
    let mut program = Command::new(program())
        .args([
            "proxy",
            "--json",
            "--metrics",
            &format!("127.0.0.1:{metrics}"),
            "--config",
        ])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = lines(&mut program);
    let started = BufReader::new(program.stderr.take().unwrap()).lines();
    let started: Vec<_> = started
        .map_while(Result::ok)
        .take_while(|it| !it.contains("Ctrl-C"))
        .collect();
    assert!(
        started.iter().any(|it| it.contains("dialled from here")),
        "{started:?}"
    );

    let at = |port| std::net::SocketAddr::new(network.at(Family::V4, 7), port);
    let mut peer = connect(at(port)).unwrap();
    let mut server = accept(&listener);
    peer.write_all(b"hello").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    let error = connect(at(denied)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let counters = scrape(metrics);
    assert!(
        counters.contains("\nl3l4_proxy_dialled_total 1\n"),
        "{counters}"
    );
    assert!(
        counters.contains("\nl3l4_proxy_denied_total 1\n"),
        "{counters}"
    );
    assert!(
        counters.contains("\nl3l4_l4_rx_bytes_total 5\n"),
        "{counters}"
    );
    assert_eq!(counters.matches("# EOF").count(), 1, "{counters}");

    let kill = Command::new("kill").arg(program.id().to_string()).status();
    assert!(kill.expect("kill runs").success());
    for side in [&mut peer, &mut server] {
        let error = side.read(&mut [0; 1]).expect_err("a reset is no end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert!(program.wait().unwrap().success());
    std::fs::remove_file(file).unwrap();
    let told: Vec<Value> = lines.iter().collect();
    let ended = told
        .iter()
        .find(|it| it["event"] == "ended" && it["sent"] == 5);
    assert_eq!(ended.expect("an end")["reason"], "stopped", "{told:?}");
    let totals = told.last().expect("totals");
    assert_eq!(
        (&totals["event"], &totals["flows"]),
        (&"totals".into(), &2.into())
    );
    assert_eq!(totals["denied"], 1, "{totals}");
}

/// The lines of JSON, as they come.
fn lines(program: &mut Child) -> Receiver<Value> {
    let (tell, lines) = channel();
    let output = BufReader::new(program.stdout.take().unwrap());
    thread::spawn(move || {
        for line in output.lines() {
            let value = serde_json::from_str(&line.unwrap()).expect("JSON");
            let _ = tell.send(value);
        }
    });
    lines
}

fn scrape(port: u16) -> String {
    let mut client = connect((Family::V4.loopback(), port).into()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    answer
}
