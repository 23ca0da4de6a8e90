//! The native engine: this program again, under callgrind.

use std::process::{Command, Output};

use l3l4_engine::{
    Callbacks, Config, Engine, Event, FiveTuple, FlowId, FlowOptions, Packet, Verdict,
};

use super::REPETITIONS;
use super::script::{Operation, SEED, data, make};

/// The word that makes this program do the repetitions of one operation.
pub(crate) const RUN: &str = "run";

/// Instructions of one repetition.
pub(crate) fn count(operation: usize) -> u64 {
    let [fewer, more] = [1, 2].map(|times| collected(operation, times * REPETITIONS));
    (more - fewer) / REPETITIONS as u64
}

/// Whether there is a valgrind.
pub(crate) fn valgrind() -> Result<(), String> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("valgrind --version: {}", output.status)),
        Err(error) => Err(format!("valgrind: {error}")),
    }
}

fn collected(operation: usize, repetitions: usize) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args([RUN, &operation.to_string(), &repetitions.to_string()])
        .output()
        .unwrap();
    read(&output).unwrap_or_else(|| panic!("callgrind collected nothing: {output:?}"))
}

/// The number in `==1234== Collected : 5678`.
fn read(output: &Output) -> Option<u64> {
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// Prepares the calls of the longer run and makes as many as are asked for.
pub(crate) fn run(operation: &Operation, repetitions: usize) {
    let script = operation.script();
    let data = data();
    let mut engine = Engine::new(Config::new(SEED)).unwrap();
    let mut host = Host::default();
    let repetitions = &script.repetitions[..repetitions];
    for (now, call) in script.setup.iter().chain(repetitions.iter().flatten()) {
        make(&mut engine, &mut host, &data, (*now, call));
    }
    if repetitions.len() == script.repetitions.len() {
        assert_eq!(host.packets, script.packets, "{}", operation.name);
    }
}

/// Takes all.
#[derive(Default)]
struct Host {
    packets: usize,
}

impl Callbacks for Host {
    fn l3_tx(&mut self, _bytes: &[u8], packets: &[Packet]) -> usize {
        self.packets += packets.len();
        packets.len()
    }

    fn l4_rx(&mut self, _flow: FlowId, data: &[u8]) -> usize {
        data.len()
    }

    fn flow_new(&mut self, _flow: FlowId, _tuple: &FiveTuple) -> Verdict {
        Verdict::Accept(FlowOptions::default())
    }

    fn flow_event(&mut self, _flow: FlowId, _event: Event) {}
}
