//! The launcher's part: it makes the namespace around itself, and becomes the
//! program.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Signal, getegid, set_parent_process_death_signal};
use rustix::stdio::dup2_stdin;

use super::channel::{Channel, Message};
use super::{Error, INTERFACE, Plan, names, network};
use crate::netns;
use crate::tun::{Configuration, Tun};

/// Why the launcher did not become the program.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The other process was told why, or is gone.
    #[error("the namespace cannot be made")]
    NoNamespace,
    /// There is no such program.
    #[error("cannot run {0}: no such program")]
    NotFound(String),
    /// It is there, and the system does not run it.
    #[error("cannot run {0}: {1}")]
    NotRunnable(String, io::Error),
}

/// Makes the namespace that the process at the other end of standard input wants,
/// and becomes `command` when it says so. Returns only on failure.
pub fn launch(command: &[OsString]) -> Failure {
    match prepare() {
        Ok(()) => become_program(command),
        Err(failure) => failure,
    }
}

fn prepare() -> Result<(), Failure> {
    let gone = |_: io::Error| Failure::NoNamespace;
    // What would end the other process by chance ends the program too: its network
    // is gone.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| gone(error.into()))?;
    let end = io::stdin().as_fd().try_clone_to_owned().map_err(gone)?;
    let channel = Channel::from_end(end);
    let (Message::Plan(plan), Some(stdin)) = channel.receive().map_err(gone)? else {
        return Err(Failure::NoNamespace);
    };
    dup2_stdin(&stdin).map_err(|error| gone(error.into()))?;
    let sent = match set_up(&plan) {
        Ok(device) => channel.send(&Message::Device { mtu: plan.mtu }, Some(&device)),
        Err(error) => channel.send(&Message::Failed(error.to_string()), None::<File>),
    };
    sent.map_err(gone)?;
    match channel.receive().map_err(gone)? {
        (Message::Go, _) => Ok(()),
        _ => Err(Failure::NoNamespace),
    }
}

fn set_up(plan: &Plan) -> Result<Tun, Error> {
    let told = |error: &dyn std::fmt::Display| Error::Launcher(error.to_string());
    netns::enter_as_self().map_err(|error| told(&error))?;
    // What is mounted here stays here; what the system mounts is seen.
    let ours = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", ours)
        .map_err(|error| told(&format_args!("cannot keep mounts to ourselves: {error}")))?;
    let device = Tun::new(&Configuration {
        name: INTERFACE.to_owned(),
        addresses: Vec::new(),
        mtu: plan.mtu,
    })?;
    network::set_up(INTERFACE, &Plan::addresses())?;
    allow_ping();
    if let Some(text) = &plan.resolv_conf {
        names::put_in_place(text)?;
    }
    Ok(device)
}

/// Lets this group ping without rights (icmp(7)): nobody has any after the exec. A
/// system without that switch has no such ping either.
fn allow_ping() {
    let group = getegid().as_raw();
    let range = format!("{group} {group}");
    if let Err(error) = fs::write("/proc/sys/net/ipv4/ping_group_range", range) {
        tracing::debug!(%error, "ping needs rights in the namespace");
    }
}

fn become_program(command: &[OsString]) -> Failure {
    let Some((program, arguments)) = command.split_first() else {
        return Failure::NotFound(String::new());
    };
    let error = Command::new(program).args(arguments).exec();
    let name = program.to_string_lossy().into_owned();
    match error.kind() {
        io::ErrorKind::NotFound => Failure::NotFound(name),
        _ => Failure::NotRunnable(name, error),
    }
}
