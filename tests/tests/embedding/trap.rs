//! The engine traps under load: its flows are reset, and service goes on.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::basics::Temporary;
use crate::client;
use crate::component::that_traps_at_a_packet_of;
use crate::process::Process;
use crate::runner::Story;
use crate::servers::echo;
use crate::story;
use crate::world::{Family, World};

pub(crate) const STORIES: &[Story] = &[story!(a_trap_resets_all_flows_and_service_goes_on)];

const FLOWS: usize = 50;
/// Bytes of the packet that the engine cannot bear.
const FATAL: u32 = 4242;

fn a_trap_resets_all_flows_and_service_goes_on(world: &World) {
    let component = Temporary::new("fragile.wasm");
    fs::write(&component.0, that_traps_at_a_packet_of(FATAL)).unwrap();
    let server = echo::serve(world, Family::V4);
    let command = client::command("hold-under-load", &[&server, &FLOWS, &(FATAL - 28)]);
    let options = ["--quiet", "--component", component.name()];
    let mut run = world.run_command(&options, &command);
    let mut run = Process::start(run.stdin(Stdio::piped()));
    for number in 1..=FLOWS {
        assert_eq!(run.wait_until_line(number), "ConnectionReset");
    }
    writeln!(run.stdin()).unwrap();
    let ended = run.wait().well();
    assert!(ended.stdout.ends_with("again\n"), "{ended}");
    assert!(ended.stderr.contains("trap"), "{ended}");
}
