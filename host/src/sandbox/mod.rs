//! A program in a namespace whose only network is a TUN device that we hold,
//! without root.
//!
//! Two processes share the work. The *launcher*, which [`spawn`] starts, enters a
//! user, network and mount namespace of its own, makes the device and the routes
//! that lead all traffic to it, sends the device's descriptor here, waits for
//! [`Waiting::go`] and becomes the program. This process stays in the outer
//! network, where its sockets are.
//!
//! ```text
//! spawn ──▶ launcher: namespaces, lo, device, addresses, routes, resolv.conf
//!       ◀── the device's descriptor
//!   (start whatever reads the device)
//! go    ──▶ exec of the program
//! wait  ◀── its exit status
//! ```
//!
//! What the program sees: itself as the same user and group, the files of the
//! system, a loopback that is its own, and one interface. Sockets of the Unix
//! domain that have a path are files, so that they lead out of the namespace; those
//! of the system's name services are covered.

mod channel;
mod launcher;
mod names;
mod network;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::tun::{self, Cidr, Tun};
use channel::{Channel, Message};

pub use launcher::{Failure, launch};
pub use names::ResolvConf;

/// The interface's name inside.
pub const INTERFACE: &str = "l3l4";
/// The program's IPv4 address: that of a B4 element, which no host on the Internet
/// has (RFC 6333 5.7).
pub const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);
/// The program's IPv6 address: of a unique local prefix (RFC 4193), `fd` and the
/// letters l3l4. To a destination that has both families IPv4 is preferred then (RFC
/// 6724 2.1), which is what the outer network is more likely to have.
pub const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd6c, 0x336c, 0x3400, 1, 0, 0, 0, 2);
/// The name servers that the program can be told of: the AFTR's address and the others
/// beside the program's own in the network of RFC 6333 5.7. Nobody is there; what is
/// sent to them is for whoever holds the device to answer. The C library asks three at
/// most (resolv.conf(5)), others all.
pub const RESOLVERS: [Ipv4Addr; 5] = [
    Ipv4Addr::new(192, 0, 0, 1),
    Ipv4Addr::new(192, 0, 0, 3),
    Ipv4Addr::new(192, 0, 0, 4),
    Ipv4Addr::new(192, 0, 0, 5),
    Ipv4Addr::new(192, 0, 0, 6),
];

/// What the namespace is to look like.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Bytes of the longest packet, at least 1280.
    pub mtu: u16,
    /// The program's `/etc/resolv.conf`; without it the system's is seen.
    pub resolv_conf: Option<String>,
}

impl Plan {
    /// The program's own addresses.
    #[must_use]
    pub fn addresses() -> [Cidr; 2] {
        // Networks of one: nothing but itself is on the link, so that no destination
        // is hidden by it.
        [(IpAddr::V4(ADDRESS_V4), 32), (IpAddr::V6(ADDRESS_V6), 128)]
            .map(|(address, prefix)| Cidr { address, prefix })
    }
}

/// Why there is no program in a namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The launcher did not start.
    #[error("cannot start the launcher: {0}")]
    Start(io::Error),
    /// The launcher and this process cannot talk.
    #[error("cannot talk to the launcher: {0}")]
    Channel(io::Error),
    /// The launcher says why it stopped.
    #[error("{0}")]
    Launcher(String),
    /// The launcher ended without a word.
    #[error("the launcher ended early ({0})")]
    Lost(ExitStatus),
    /// The device came, and is of no use.
    #[error(transparent)]
    Device(#[from] tun::Error),
    /// The program cannot be waited for.
    #[error("cannot wait for the program: {0}")]
    Wait(io::Error),
}

/// A launcher that has made its namespace, and waits for [`Self::go`]. Dropped
/// without, the launcher ends and the program never runs.
#[derive(Debug)]
pub struct Waiting {
    running: Running,
    channel: Channel,
}

/// The program, from the launcher's start on.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

/// Starts `launcher`, which has to call [`launch`] at once, before it has a second
/// thread. Returns when its namespace is complete, with the device in it.
///
/// To be called by a thread that outlives the program: when it ends, the kernel
/// ends the program.
pub fn spawn(mut launcher: Command, plan: &Plan) -> Result<(Waiting, Tun), Error> {
    let (ours, theirs) = Channel::pair().map_err(Error::Channel)?;
    // The channel takes the place of standard input, whose descriptor goes through
    // it: so no number of a descriptor needs to be agreed on.
    let child = launcher
        .stdin(Stdio::from(theirs))
        .spawn()
        .map_err(Error::Start)?;
    let waiting = Waiting {
        running: Running { child },
        channel: ours,
    };
    let plan = Message::Plan(plan.clone());
    let sent = waiting.channel.send(&plan, Some(&io::stdin()));
    let device = match sent.and_then(|()| waiting.channel.receive()) {
        Ok((Message::Device { mtu }, Some(descriptor))) => Tun::from_fd(descriptor, mtu)?,
        Ok((Message::Failed(why), _)) => return Err(Error::Launcher(why)),
        Ok(_) => return Err(Error::Channel(io::ErrorKind::InvalidData.into())),
        Err(error) => return Err(waiting.lost(error)),
    };
    Ok((waiting, device))
}

impl Waiting {
    /// Lets the launcher become the program.
    pub fn go(self) -> Result<Running, Error> {
        match self.channel.send(&Message::Go, None::<io::Stdin>) {
            Ok(()) => Ok(self.running),
            Err(error) => Err(Error::Channel(error)),
        }
    }

    /// Tells the launcher that there will be no program. It ends.
    #[must_use]
    pub fn give_up(self) -> Running {
        self.running
    }

    /// Why nothing came from the launcher.
    fn lost(mut self, error: io::Error) -> Error {
        drop(self.channel);
        match self.running.wait() {
            Ok(status) if !status.success() => Error::Lost(status),
            _ => Error::Channel(error),
        }
    }
}

impl Running {
    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What passes signals on to the program, for other threads. Once the program has
    /// been waited for its signals go nowhere.
    pub fn signals(&self) -> io::Result<SignalSender> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(SignalSender(pidfd_open(id, PidfdFlags::empty())?))
    }

    /// Waits for the program's end.
    pub fn wait(&mut self) -> Result<ExitStatus, Error> {
        self.child.wait().map_err(Error::Wait)
    }
}

/// Sends signals to the program.
#[derive(Debug)]
pub struct SignalSender(std::os::fd::OwnedFd);

impl SignalSender {
    /// Sends a signal by its number.
    pub fn send(&self, number: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(number).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(pidfd_send_signal(&self.0, signal)?)
    }
}
