//! The built program `l3l4`, as a user runs it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::process::{Command, Output};

use l3l4_host::EMBEDDED;
use l3l4_tests::program::program;
use serde_json::Value;

#[test]
fn the_demo_ends_well_and_every_row_is_exact() {
    let report = demo(&["demo", "--json"]);
    if report["network"] != "tun" {
        let reason = report["reason"].as_str().unwrap_or("no reason given");
        eprintln!("SKIPPED: the kernel's part of the demo: {reason}");
        assert!(
            std::env::var_os("CI").is_none(),
            "no TUN device in CI: {reason}"
        );
    }
}

#[test]
fn the_demo_in_memory_ends_well_and_every_row_is_exact() {
    let report = demo(&["demo", "--json", "--in-memory", "--size", "4"]);
    assert_eq!(report["network"], "memory");
}

#[test]
fn the_demo_prints_a_table_for_people() {
    let output = run(&["demo", "--in-memory", "--size", "1"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for word in ["what was done", "exact", "rate", "IPv6", "sha256"] {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
    assert!(!text.contains("NOT EXACT"), "{text}");
}

#[test]
fn component_writes_the_embedded_bytes() {
    let file = std::env::temp_dir().join(format!("l3l4-{}.wasm", std::process::id()));
    let output = run(&["component", "--output", file.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let written = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(written == EMBEDDED, "the bytes of the library");

    let output = run(&["component", "--output", "-"]);
    assert!(output.stdout == EMBEDDED, "and on standard output");
}

#[test]
fn a_command_line_that_cannot_be_understood_is_status_2() {
    for arguments in [&["demo", "--mtu", "1279"][..], &["nonsense"], &[]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["demo", "--help"], &["echo", "--help"]] {
        let output = run(arguments);
        assert!(output.status.success());
        assert!(
            String::from_utf8(output.stdout)
                .unwrap()
                .contains("Examples"),
            "{arguments:?}"
        );
    }
}

#[test]
fn an_interface_that_cannot_be_made_is_one_clear_line_and_status_1() {
    let output = run(&[
        "echo",
        "--tun",
        "a-name-that-is-far-too-long",
        "--address",
        "10.9.0.1/24",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("a-name-that-is-far-too-long"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

/// Runs a demo and gives its report: status 0, and all of it exact.
fn demo(arguments: &[&str]) -> Value {
    let output = run(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}\n{text}\n{log}", output.status);
    assert!(!log.contains("ERROR"), "{log}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["ok"], true, "{text}");
    let steps = report["steps"].as_array().unwrap();
    assert!(steps.len() >= 8, "{} steps", steps.len());
    for step in steps {
        assert_eq!(step["exact"], true, "{step}");
    }
    for family in [4, 6] {
        assert!(steps.iter().any(|step| step["ip"] == family), "IPv{family}");
    }
    report
}

fn run(arguments: &[&str]) -> Output {
    Command::new(program())
        .args(arguments)
        .output()
        .expect("the program runs")
}
