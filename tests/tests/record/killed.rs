//! A process that is killed while it records.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant as Wall};

use l3l4_host::record::{Ending, replay};
use l3l4_host::{Component, Engine};
use l3l4_tests::craft::{Family, Peer};
use l3l4_tests::random::Random;
use l3l4_tests::wire;

use crate::exchange::Application;

/// Names the file to record to, in the process that is to be killed.
const FILE: &str = "L3L4_TEST_RECORD";
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_killed_process_leaves_a_record_up_to_its_last_moment() {
    let mut random = Random::new(4);
    for round in 0..2 {
        let path = path(round);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "killed::records_until_it_is_killed"])
            .env(FILE, &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let enough = 100_000 + random.below(4_000_000) as u64;
        let start = Wall::now();
        while std::fs::metadata(&path).map_or(0, |file| file.len()) < enough {
            assert!(start.elapsed() < PATIENCE, "nothing is recorded");
            assert_eq!(child.try_wait().unwrap(), None, "it still runs");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let length = std::fs::metadata(&path).unwrap().len();
        let file = BufReader::new(File::open(&path).unwrap());
        let report = replay(file, &Component::embedded()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(report.is_identical(), "{report:#?}");
        let Some(Ending::Cut(offset)) = report.ending else {
            panic!("{report:#?}");
        };
        println!(
            "killed after {length} bytes: {} calls replayed up to offset {offset}, {:?}",
            report.all_calls(),
            report.unfinished
        );
        // One call with its data is under way at most.
        assert!(length - offset < 100_000, "{report:#?}");
        assert!(report.packets_in > 10, "{report:#?}");
    }
}

#[test]
#[ignore = "runs until it is killed, by the test above"]
fn records_until_it_is_killed() {
    let path = PathBuf::from(std::env::var_os(FILE).unwrap());
    let engine = Engine::builder()
        .build_recorded(Application::default(), File::create(path).unwrap())
        .unwrap();
    let mut load = Load {
        story: engine,
        now: l3l4_host::Instant(0),
    };
    load.run();
}

/// Echoes on one connection for ever.
struct Load {
    story: Engine<Application>,
    now: l3l4_host::Instant,
}

impl Load {
    fn run(&mut self) {
        let mut peer = Peer::new(Family::V4);
        self.one(peer.syn().mss(1460));
        self.hear(&mut peer);
        self.one(peer.ack());
        let flow = self.story.callbacks().flows[0];
        loop {
            let batch: Vec<Vec<u8>> = (0..8).map(|_| peer.data(&[9; 1400]).into()).collect();
            self.receive(&batch);
            let received = std::mem::take(&mut self.story.callbacks_mut().received);
            for (_, data) in received {
                let sent = self.story.l4_tx(self.now, flow, &data).unwrap();
                assert_eq!(sent.taken, data.len(), "all is acknowledged");
            }
            self.hear(&mut peer);
            self.one(peer.ack());
        }
    }

    fn one(&mut self, packet: impl Into<Vec<u8>>) {
        self.receive(&[packet.into()]);
    }

    fn receive(&mut self, packets: &[Vec<u8>]) {
        let mut batch = l3l4_host::Batch::new();
        packets.iter().for_each(|packet| batch.push(packet));
        self.now = self.now + Duration::from_micros(100);
        self.story.l3_rx(self.now, &batch).unwrap();
    }

    /// Takes note of all segments, which come in order.
    fn hear(&mut self, peer: &mut Peer) {
        for packet in std::mem::take(&mut self.story.callbacks_mut().sent) {
            peer.hear(&wire::read(&packet).unwrap().tcp());
        }
    }
}

fn path(round: u32) -> PathBuf {
    let name = format!("l3l4-killed-{}-{round}.l3l4", std::process::id());
    std::env::temp_dir().join(name)
}
