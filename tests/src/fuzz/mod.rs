//! The bodies of the fuzz targets. `tests/fuzz` runs them under libFuzzer,
//! `tests/tests/fuzz.rs` over the committed corpus and over seeded random inputs.
//!
//! A body takes any bytes and panics when a rule is broken. It decides by the bytes
//! alone, so that a finding is one file.

mod choices;
pub mod conversation;
mod far;
pub mod packet;
mod readers;

use crate::dut::Native;
use crate::scene::{on_both, told};

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its corpus, and of the program in `tests/fuzz/fuzz_targets`.
    pub name: &'static str,
    /// What runs on each input.
    pub body: fn(&[u8]),
    /// Bytes of the longest input that is of use.
    pub longest: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "packet",
        body: packet,
        longest: 2048,
    },
    Target {
        name: "conversation",
        body: conversation,
        longest: 4096,
    },
    Target {
        name: "component",
        body: component,
        longest: 1024,
    },
    Target {
        name: "capture",
        body: capture,
        longest: 4096,
    },
    Target {
        name: "record",
        body: record,
        longest: 2048,
    },
];

/// One packet into an engine in several states.
pub fn packet(data: &[u8]) {
    packet::run(data);
}

/// A conversation with hostile segments, on the native engine.
pub fn conversation(data: &[u8]) {
    let story = conversation::Story::new(data);
    let native = Native::new(story.config()).expect("in bounds");
    told(Box::new(native), |scene| {
        scene.host().silent = !conversation::is_traced();
        story.tell(scene);
    });
}

/// The same on the component under the host: no trap, and what the native engine
/// does.
pub fn component(data: &[u8]) {
    let story = conversation::Story::new(data);
    on_both(story.config(), |scene| story.tell(scene));
}

/// The reader of captures.
pub fn capture(data: &[u8]) {
    readers::capture(data);
}

/// The reader of records, and their replay.
pub fn record(data: &[u8]) {
    readers::record(data);
}
