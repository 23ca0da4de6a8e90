//! The library's sandbox by itself: nobody serves the device but the story.

use std::process::Command;
use std::time::{Duration, Instant};

use l3l4_host::device::Device;
use l3l4_host::sandbox::{self, ADDRESS_V4, ADDRESS_V6, Plan, RESOLVERS};
use l3l4_tests::program::program;

use crate::client;
use crate::process::PATIENCE;
use crate::runner::Story;
use crate::story;
use crate::world::World;

pub(crate) const STORIES: &[Story] = &[
    story!(the_device_comes_before_the_program_and_has_all_its_packets),
    story!(a_launcher_that_is_dropped_never_runs_the_program),
];

fn launcher(command: &[String]) -> Command {
    let mut launcher = Command::new(program());
    launcher.arg("run-inside").args(command);
    launcher
}

fn plan() -> Plan {
    Plan {
        mtu: 1400,
        resolv_conf: None,
    }
}

fn the_device_comes_before_the_program_and_has_all_its_packets(_: &World) {
    for (to, own) in [
        (format!("{}:53", RESOLVERS[0]), ADDRESS_V4.octets().to_vec()),
        ("[2001:db8::1]:53".to_owned(), ADDRESS_V6.octets().to_vec()),
    ] {
        let launcher = launcher(&client::command("send", &[&to, &"hello"]));
        let (waiting, mut device) = sandbox::spawn(launcher, &plan()).unwrap();
        assert_eq!(device.mtu(), 1400);
        let mut program = waiting.go().unwrap();
        let packet = wait_for(&mut device, b"hello");
        assert!(program.wait().unwrap().success());
        let found = packet.windows(own.len()).any(|it| it == own);
        assert!(found, "{own:?} sends {packet:?}");
    }
}

/// The first packet that ends with this.
fn wait_for(device: &mut impl Device, ending: &[u8]) -> Vec<u8> {
    let start = Instant::now();
    let mut buffer = [0; 1500];
    loop {
        assert!(start.elapsed() < PATIENCE, "no such packet");
        match device.receive(&mut buffer) {
            Ok(length) if buffer[..length].ends_with(ending) => return buffer[..length].to_vec(),
            Ok(_) => {}
            Err(_) => device
                .wait(Some(Duration::from_millis(100)), false)
                .unwrap(),
        }
    }
}

fn a_launcher_that_is_dropped_never_runs_the_program(_: &World) {
    let trace = std::env::temp_dir().join(format!("l3l4-dropped-{}", std::process::id()));
    let name = trace.display().to_string();
    let (waiting, _device) =
        sandbox::spawn(launcher(&["touch".to_owned(), name]), &plan()).unwrap();
    let mut launcher = waiting.give_up();
    assert_eq!(launcher.wait().unwrap().code(), Some(125));
    assert!(!trace.exists());
}
