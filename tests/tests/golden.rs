//! The captures of `tests/golden`: each is replayed, and what happens is what its
//! transcript says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use l3l4_host::capture::{Content, Reader};
use l3l4_tests::program::program;

/// A capture, and how it is replayed.
struct Golden {
    capture: &'static str,
    transcript: &'static str,
    arguments: &'static [&'static str],
}

const fn golden(
    capture: &'static str,
    transcript: &'static str,
    arguments: &'static [&'static str],
) -> Golden {
    Golden {
        capture,
        transcript,
        arguments,
    }
}

const ECHO: &[&str] = &["--app", "echo"];
const CAPTURED: &[&str] = &["--app", "captured"];

const GOLDENS: [Golden; 9] = [
    golden("tcp-ipv4.pcapng", "tcp-ipv4.txt", ECHO),
    golden("tcp-ipv6.pcap", "tcp-ipv6.txt", CAPTURED),
    golden("loss-ipv4.pcapng", "loss-ipv4.txt", ECHO),
    golden("loss-ipv6.pcap", "loss-ipv6.txt", CAPTURED),
    golden("reset.pcap", "reset.txt", CAPTURED),
    golden("udp.pcap", "udp.txt", &["--app", "echo", "--mtu", "65535"]),
    golden("fragments.pcap", "fragments.txt", ECHO),
    golden("icmp.pcap", "icmp.txt", ECHO),
    golden("hostile.pcapng", "hostile.txt", ECHO),
];

#[test]
fn every_capture_replays_as_its_transcript_says() {
    let mut failures = String::new();
    for golden in &GOLDENS {
        let output = Command::new(program())
            .arg("replay")
            .arg(directory().join(golden.capture))
            .args(golden.arguments)
            .arg("--expect")
            .arg(directory().join(golden.transcript))
            .output()
            .expect("the program runs");
        if !output.status.success() {
            let told = [output.stdout, output.stderr].concat();
            let told = String::from_utf8_lossy(&told);
            let Golden {
                capture,
                transcript,
                arguments,
            } = golden;
            let arguments = arguments.join(" ");
            write!(
                failures,
                "\n{capture}: {}\n{told}\nIf that is right: (cd tests/golden; l3l4 replay {capture} {arguments} --transcript {transcript})\n",
                output.status
            )
            .unwrap();
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn every_file_belongs_to_a_capture() {
    let mut expected: BTreeSet<String> = ["README.md".to_owned()].into();
    for golden in &GOLDENS {
        expected.insert(golden.capture.to_owned());
        expected.insert(golden.transcript.to_owned());
    }
    let found: BTreeSet<String> = std::fs::read_dir(directory())
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
