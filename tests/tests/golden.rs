//! The captures of `tests/golden`: each is replayed, and what happens is what its
//! transcript says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use l3l4_host::Engine;
use l3l4_host::capture::{Content, Reader};
use l3l4_host::replay::{Application, Options, Replay, Sink};
use l3l4_tests::program::program;

/// A capture, its transcript, and how it is replayed.
struct Golden {
    capture: &'static str,
    transcript: &'static str,
    app: &'static str,
    mtu: u16,
}

const GOLDENS: [Golden; 9] = [
    golden("tcp-ipv4.pcapng", "tcp-ipv4.txt", "echo"),
    golden("tcp-ipv6.pcap", "tcp-ipv6.txt", "captured"),
    golden("loss-ipv4.pcapng", "loss-ipv4.txt", "echo"),
    golden("loss-ipv6.pcap", "loss-ipv6.txt", "captured"),
    golden("reset.pcap", "reset.txt", "captured"),
    Golden {
        mtu: 65_535,
        ..golden("udp.pcap", "udp.txt", "echo")
    },
    golden("fragments.pcap", "fragments.txt", "echo"),
    golden("icmp.pcap", "icmp.txt", "echo"),
    golden("hostile.pcapng", "hostile.txt", "echo"),
];

const fn golden(capture: &'static str, transcript: &'static str, app: &'static str) -> Golden {
    Golden {
        capture,
        transcript,
        app,
        mtu: 1500,
    }
}

/// In this process, where the component is compiled once for all of them.
#[test]
fn every_capture_replays_as_its_transcript_says() {
    let mut failures = String::new();
    for golden in &GOLDENS {
        let found = replay(golden);
        let text = fs::read_to_string(directory().join(golden.transcript)).unwrap_or_default();
        let expected: Vec<&str> = text.lines().collect();
        let same = found
            .iter()
            .zip(&expected)
            .take_while(|(found, expected)| found == *expected)
            .count();
        if same == found.len() && same == expected.len() {
            continue;
        }
        let Golden {
            capture,
            transcript,
            app,
            mtu,
        } = golden;
        let found = found.get(same).map_or("the end", String::as_str);
        let expected = expected.get(same).copied().unwrap_or("the end");
        failures.push_str(&format!(
            "\n{transcript}, line {}:\nexpected {expected}\nfound    {found}\nif that is right: (cd tests/golden; l3l4 replay {capture} --app {app} --mtu {mtu} --transcript {transcript})\n",
            same + 1
        ));
    }
    assert!(failures.is_empty(), "{failures}");
}

/// The same by the program, as a user does it.
#[test]
fn the_program_replays_a_capture_as_its_transcript_says() {
    let golden = &GOLDENS[0];
    let output = Command::new(program())
        .arg("replay")
        .arg(directory().join(golden.capture))
        .args(["--app", golden.app, "--expect"])
        .arg(directory().join(golden.transcript))
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{output:?}");
}

fn replay(golden: &Golden) -> Vec<String> {
    let options = Options {
        application: match golden.app {
            "echo" => Application::Echo,
            "captured" => Application::Captured,
            other => panic!("an application {other}"),
        },
        ..Options::default()
    };
    let engine = Engine::builder().seed([0; 32]).mtu(golden.mtu.into());
    let mut replay = Replay::new(engine, options, Lines::default()).expect("an engine");
    let mut reader = Reader::open(directory().join(golden.capture)).unwrap();
    while let Some(captured) = reader.next().unwrap() {
        let Content::Ip(packet) = captured.content else {
            panic!("{}, packet {}", golden.capture, captured.number);
        };
        replay.packet(captured.at, packet, false).expect("is fed");
    }
    let (report, Lines(lines)) = replay.finish(LINGER).expect("ends");
    assert_eq!(report.traps, 0, "{}", golden.capture);
    lines
}

/// How far the program lets time go on after the last packet.
const LINGER: Duration = Duration::from_secs(120);

/// The transcript.
#[derive(Default)]
struct Lines(Vec<String>);

impl Sink for Lines {
    fn wants_lines(&self) -> bool {
        true
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        self.0.extend(line.lines().map(str::to_owned));
        Ok(())
    }
}

#[test]
fn every_file_belongs_to_a_capture() {
    let mut expected: BTreeSet<String> = ["README.md".to_owned()].into();
    for golden in &GOLDENS {
        expected.insert(golden.capture.to_owned());
        expected.insert(golden.transcript.to_owned());
    }
    let found: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
}

/// The clock of each kind of file, and the frames of each kind of link, as another
/// reader has them.
#[test]
fn every_capture_is_read_as_tshark_reads_it() {
    for golden in &GOLDENS {
        let path = directory().join(golden.capture);
        let ours = by_us(&path);
        assert!(ours.len() >= 10, "{}: {}", golden.capture, ours.len());
        let Some(theirs) = by_tshark(&path) else {
            return;
        };
        assert_eq!(ours, theirs, "{}", golden.capture);
    }
}

/// Nanoseconds since 1970, and the version of IP.
type Line = (u64, u8);

fn by_us(path: &Path) -> Vec<Line> {
    let mut reader = Reader::open(path).unwrap();
    let mut lines = Vec::new();
    while let Some(packet) = reader.next().unwrap() {
        let Content::Ip(bytes) = packet.content else {
            panic!("{}, packet {}", path.display(), packet.number);
        };
        lines.push((packet.at, version(bytes)));
    }
    lines
}

/// 0 for what is neither.
fn version(packet: &[u8]) -> u8 {
    match packet[0] >> 4 {
        version @ (4 | 6) => version,
        _ => 0,
    }
}

fn by_tshark(path: &Path) -> Option<Vec<Line>> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path).args(["-T", "fields"]);
    tshark.args(["-e", "frame.time_epoch", "-e", "frame.protocols"]);
    let Ok(output) = tshark.output() else {
        eprintln!("SKIPPED: tshark is not installed");
        assert!(std::env::var_os("CI").is_none(), "CI is set");
        return None;
    };
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(line).collect())
}

fn line(text: &str) -> Line {
    let (time, protocols) = text.split_once('\t').unwrap();
    let (seconds, fraction) = time.split_once('.').unwrap();
    let at = format!("{seconds}{fraction:0<9}").parse().unwrap();
    let mut layers = protocols.split(':');
    let version = match layers.find(|layer| ["ip", "ipv6"].contains(layer)) {
        Some("ip") => 4,
        Some(_) => 6,
        None => 0,
    };
    (at, version)
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}
