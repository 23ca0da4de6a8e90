//! `l3l4 replay` of a record, as a user runs it.

use std::path::PathBuf;
use std::process::{Command, Output};

use l3l4_host::record::{Callback, Frame};
use l3l4_tests::program::program;
use serde_json::Value;

use crate::exchange::small;
use crate::file;

/// A record in a file that goes away.
struct Saved(PathBuf);

impl Saved {
    fn new(name: &str, record: &[u8]) -> Self {
        let name = format!("l3l4-{name}-{}.l3l4", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, record).unwrap();
        Self(path)
    }

    fn replay(&self, options: &[&str]) -> Output {
        Command::new(program())
            .arg("replay")
            .arg(&self.0)
            .args(options)
            .output()
            .unwrap()
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_identical_replay_is_status_0_and_says_so() {
    let saved = Saved::new("same", &small());
    let output = saved.replay(&[]);
    let printed = text(output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(printed.contains("every output is identical"), "{printed}");
    assert!(printed.contains("whole"), "{printed}");

    let output = saved.replay(&["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true);
    assert_eq!(report["calls"]["l3_rx"], 4);
    assert_eq!(report["difference"], Value::Null);
}

/// A record has its application, its time and its expectation in it.
#[test]
fn an_option_of_captures_is_refused_and_not_passed_over() {
    let saved = Saved::new("options", &small());
    for options in [
        ["--expect", "no-such-file.txt"],
        ["--write", "none.pcapng"],
        ["--streams", "none"],
        ["--peer", "10.0.0.1"],
        ["--app", "echo"],
        ["--checksums", "ignore"],
        ["--mtu", "9000"],
        ["--congestion-control", "reno"],
        ["--seed", "7"],
        ["--linger", "5"],
    ] {
        let output = saved.replay(&options);
        assert_eq!(output.status.code(), Some(1), "{options:?}: {output:?}");
        let error = text(output.stderr);
        assert!(error.contains(options[0]), "{error}");
    }
}

#[test]
fn a_transcript_does_not_take_the_place_of_its_record() {
    let record = small();
    let saved = Saved::new("overwrite", &record);
    let path = saved.0.to_str().unwrap();
    let output = saved.replay(&["--transcript", path]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(output.stderr).contains("would overwrite"));
    assert!(std::fs::read(&saved.0).unwrap() == record);
}

#[test]
fn a_transcript_has_every_packet_in_a_line() {
    let output = Saved::new("transcript", &small()).replay(&["--transcript", "-"]);
    let printed = text(output.stdout);
    assert!(output.status.success(), "{printed}");
    for words in [
        "    > 198.51.100.2:40000 > 192.0.2.1:7 tcp S ",
        "    < 192.0.2.1:7 > 198.51.100.2:40000 tcp S. ",
        "l4_tx(",
        "flow_event(",
        "returned ",
    ] {
        assert!(printed.contains(words), "{words:?} is not in\n{printed}");
    }
}

#[test]
fn a_difference_is_status_1_and_shows_the_packet() {
    let record = small();
    let mut frames = file::frames(&record);
    let packets = frames.iter_mut().find_map(|frame| match frame {
        Frame::Callback(Callback::L3Tx { packets, .. }) => Some(packets),
        _ => None,
    });
    packets.unwrap()[0].digest.0 ^= 1;
    let output = Saved::new("differs", &file::record(&frames)).replay(&[]);
    let printed = text(output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    for words in [
        "NOT IDENTICAL: call 1 at 0.001000000 s, l3_rx(1 packets",
        "recorded: l3_tx, packet 1 of 1",
        "replayed: l3_tx, packet 1 of 1",
        "192.0.2.1:7 > 198.51.100.2:40000 tcp S.",
    ] {
        assert!(printed.contains(words), "{words:?} is not in\n{printed}");
    }
}

#[test]
fn a_cut_record_is_status_0_and_a_damaged_one_is_1() {
    let mut record = small();
    record.pop();
    let output = Saved::new("cut", &record).replay(&[]);
    let printed = text(output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(printed.contains("cut off after"), "{printed}");

    let at = record.len() - 20;
    record[at] ^= 1;
    let output = Saved::new("damaged", &record).replay(&[]);
    let printed = text(output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("damaged at offset"), "{printed}");
}

#[test]
fn a_record_of_another_component_is_refused_unless_it_is_asked_for() {
    let record = small();
    let mut frames = file::frames(&record);
    if let Frame::Header(header) = &mut frames[0] {
        header.component = [0xab; 32];
    }
    let saved = Saved::new("other", &file::record(&frames));
    let output = saved.replay(&[]);
    let printed = text(output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains(&"ab".repeat(32)), "{printed}");
    assert!(printed.contains("--component FILE"), "{printed}");
    assert!(saved.replay(&["--any-component"]).status.success());
}
