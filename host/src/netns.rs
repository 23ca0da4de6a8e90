//! A network of this process's own: a user and a network namespace, without root.
//!
//! What is sent in there reaches nobody else: the namespace starts with no
//! interface but a loopback that is down, and it goes when the process does.

use std::fs;
use std::io;

use rustix::process::{getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Why no private network can be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refuses new namespaces.
    #[error("the system refuses a private network namespace ({source}){hint}", hint = hint())]
    Refused {
        /// What the kernel said.
        source: io::Error,
    },
    /// The namespace exists, but this process has no rights in it.
    #[error("cannot write {path} ({source}){hint}", hint = hint())]
    Identity {
        /// The file that maps this user into the namespace.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Moves the calling thread, and every thread that it starts from here on, into
/// a network namespace of its own, with the rights of root inside it.
///
/// To be called while the process has a single thread; the kernel refuses a new
/// user namespace otherwise. Root gets along without one where users may not
/// make any.
pub fn enter() -> Result<(), Error> {
    unshare_as(|_, _| (0, 0), UnshareFlags::NEWNET)
}

/// As [`enter`], with a mount namespace too, and without becoming another: inside,
/// the user and the group are what they were. The rights there last until a program
/// is executed, unless the user is root.
pub fn enter_as_self() -> Result<(), Error> {
    let what = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    unshare_as(|user, group| (user, group), what)
}

/// `inside` says who this user and this group are in the user namespace.
fn unshare_as(inside: impl Fn(u32, u32) -> (u32, u32), what: UnshareFlags) -> Result<(), Error> {
    // Inside the new namespace, before the mapping, these are `nobody`.
    let (user, group) = (geteuid(), getegid());
    match unshare(UnshareFlags::NEWUSER | what) {
        Ok(()) => {
            let outside = (user.as_raw(), group.as_raw());
            map(inside(outside.0, outside.1), outside)
        }
        Err(_) if user.is_root() => unshare(what).map_err(|source| Error::Refused { source }),
        Err(source) => Err(Error::Refused { source }),
    }
}

fn unshare(what: UnshareFlags) -> io::Result<()> {
    // SAFETY: only UnshareFlags::FILES, which is not among the flags, can take
    // file descriptors away from other threads.
    unsafe { unshare_unsafe(what) }.map_err(io::Error::from)
}

/// Says who a user and a group of the outer namespace are in the new one
/// (user_namespaces(7)). The group's mapping is allowed only once `setgroups` is
/// given up.
fn map(inside: (u32, u32), outside: (u32, u32)) -> Result<(), Error> {
    for (path, line) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        (
            "/proc/self/uid_map",
            format!("{} {} 1", inside.0, outside.0),
        ),
        (
            "/proc/self/gid_map",
            format!("{} {} 1", inside.1, outside.1),
        ),
    ] {
        fs::write(path, line).map_err(|source| Error::Identity { path, source })?;
    }
    Ok(())
}

/// The switch that is to blame, when the system has one and it is off.
fn hint() -> String {
    for (path, refusing) in [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/user/max_net_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
        ),
    ] {
        if fs::read_to_string(path).is_ok_and(|value| value.trim() == refusing) {
            return format!("; {path} is {refusing}");
        }
    }
    String::new()
}
