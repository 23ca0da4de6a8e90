//! `--pcap`: what the program writes, read again by our own reader and by tshark.
//! Without tshark that part is skipped, loudly; where the variable `CI` is set that
//! is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use l3l4_host::capture::{Content, Direction, ReadError, Reader};
use l3l4_tests::program::program;
use serde_json::Value;

#[test]
fn a_demo_in_memory_is_captured_to_the_last_packet() {
    let file = File::new("memory");
    let report = demo(&file, &["--in-memory"]);
    assert_eq!(report["network"], "memory");
    check(&file, &report);
}

#[test]
fn a_demo_of_the_kernel_is_captured_to_the_last_packet() {
    let file = File::new("kernel");
    let report = demo(&file, &[]);
    if report["network"] != "tun" {
        return skipped(&format!("no TUN device: {}", report["reason"]));
    }
    check(&file, &report);
}

#[test]
fn an_echo_is_captured_while_it_runs_and_whole_when_it_is_ended() {
    let file = File::new("echo");
    let has_namespace = Command::new("unshare").args(["-Urn", "true"]).status();
    if !has_namespace.is_ok_and(|status| status.success()) {
        return skipped("no namespace of our own");
    }
    // In there the kernel sends router solicitations as soon as there is a link.
    let mut echo = Running(
        Command::new("unshare")
            .arg("-Urn")
            .arg(program())
            .args(["echo", "--tun", "l3l4", "--address", "10.9.0.1/24"])
            .args(["--address", "fd09::1/64", "--pcap"])
            .arg(&file.0)
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let until = Instant::now() + Duration::from_secs(60);
    while !packets(&file.0).is_ok_and(|packets| !packets.is_empty()) {
        assert!(Instant::now() < until, "nothing was captured");
        if let Some(status) = echo.0.try_wait().unwrap() {
            return skipped(&format!("no TUN device: {status}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let id = echo.0.id().to_string();
    let kill = Command::new("kill").args(["-TERM", &id]).status().unwrap();
    assert!(kill.success());
    assert!(echo.0.wait().unwrap().success());
    assert!(!packets(&file.0).unwrap().is_empty());
}

#[test]
fn a_capture_that_cannot_be_made_is_one_clear_line_and_status_1() {
    let missing = "/no/such/directory/file.pcapng";
    let echo = ["echo", "--tun", "l3l4", "--address", "10.9.0.1/24"];
    for command in [&["demo", "--in-memory"][..], &echo] {
        let output = Command::new(program())
            .args(command)
            .args(["--pcap", missing])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(missing), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

/// Runs a demo that is captured, and gives its report.
fn demo(file: &File, arguments: &[&str]) -> Value {
    let output = Command::new(program())
        .args(["demo", "--json", "--size", "1", "--pcap"])
        .arg(&file.0)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The file holds what the engine counted, each way.
fn check(file: &File, report: &Value) {
    let engine = &report["engine"];
    let expected = BTreeMap::from([
        (1, engine["packets_in"].as_u64().unwrap()),
        (2, engine["packets_out"].as_u64().unwrap()),
    ]);
    let mut counts = BTreeMap::from([(1, 0), (2, 0)]);
    let mut bytes = 0;
    for (direction, length) in packets(&file.0).unwrap() {
        bytes += length;
        *counts.entry(direction).or_default() += 1;
    }
    assert_eq!(counts, expected);
    let counted = |name: &str| engine[name].as_u64().unwrap();
    assert_eq!(bytes, counted("bytes_in") + counted("bytes_out"));
    if let Some(counts) = by_tshark(&file.0) {
        assert_eq!(counts, expected, "tshark counts otherwise");
    }
}

/// Direction, in the numbers of pcapng, and length of each packet of a capture of
/// nothing but whole IP packets.
fn packets(file: &Path) -> Result<Vec<(u32, u64)>, ReadError> {
    let mut reader = Reader::open(file)?;
    let mut all = Vec::new();
    while let Some(packet) = reader.next()? {
        let Content::Ip(bytes) = packet.content else {
            panic!("packet {} is {:?}", packet.number, packet.content);
        };
        let direction = match packet.direction.expect("a direction") {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        all.push((direction, bytes.len() as u64));
    }
    Ok(all)
}

/// How many packets go which way, when tshark finds nothing malformed up to the
/// transport.
fn by_tshark(file: &Path) -> Option<BTreeMap<u32, u64>> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(file).args(["-T", "fields"]);
    tshark.args(["-e", "frame.packet_flags_direction", "-e", "_ws.malformed"]);
    let Ok(output) = tshark.output() else {
        skipped("tshark is not installed");
        return None;
    };
    assert!(output.status.success(), "{output:?}");
    let mut counts = BTreeMap::from([(1, 0), (2, 0)]);
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (direction, malformed) = line.split_once('\t').unwrap();
        // Not what random bytes look like on the port of a known protocol.
        let ours = ["IPv4", "IPv6", "TCP", "UDP", "ICMP"];
        let named = ours.map(|layer| format!("[Malformed Packet: {layer}"));
        let fault = named.iter().find(|fault| malformed.contains(*fault));
        assert_eq!(fault, None, "tshark finds a malformed packet: {malformed}");
        let direction = direction.trim_start_matches("0x").parse().unwrap();
        *counts.entry(direction).or_default() += 1;
    }
    Some(counts)
}

fn skipped(reason: &str) {
    eprintln!("SKIPPED: a capture's check: {reason}");
    assert!(std::env::var_os("CI").is_none(), "CI is set: {reason}");
}

/// A file that goes when the test ends.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let name = format!("l3l4-{name}-{}.pcapng", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
