//! The ways from a program to a server: `l3l4 run`, which the program is inside of, and
//! `l3l4 proxy`, whose device it is routed to.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use l3l4_tests::program::program;

use crate::process::{Ended, Process};
use crate::world::{DNS, FAMILIES, Family, World};

/// A way to servers.
pub(crate) enum Way {
    /// Each program has an engine of its own.
    Run,
    /// All programs share one, which dials at host 2 what is sent to host 2 of its own
    /// network.
    Proxy(u8, Process),
}

/// The hosts that a proxy leads to.
const HOSTS: [u16; 2] = [2, DNS];

impl Way {
    /// Starts a proxy with a device of its own, number 1 or 2, which lives as long as
    /// this.
    pub(crate) fn proxy(number: u8, options: &[&str]) -> Self {
        let mut proxy = Command::new(program());
        proxy.args(["proxy", "--tun", &format!("way{number}")]);
        for family in FAMILIES {
            let prefix = if family == Family::V4 { 24 } else { 64 };
            let address = format!("{}/{prefix}", behind(number, family, 1));
            proxy.args(["--address", &address]);
            for host in HOSTS {
                let (from, to) = (behind(number, family, host), family.at(host, 0).ip());
                proxy.args(["--map", &format!("{from}={to}")]);
            }
        }
        let proxy = Process::start(proxy.args(options).stdin(Stdio::null()));
        proxy.wait_until_it_warns("stop with Ctrl-C");
        Self::Proxy(number, proxy)
    }

    /// Stops the proxy as its user does.
    pub(crate) fn stop(self) -> Ended {
        let Self::Proxy(_, proxy) = self else {
            panic!("there is no proxy");
        };
        proxy.signal(15);
        proxy.wait()
    }

    /// Where a program finds this server.
    pub(crate) fn to(&self, server: SocketAddr) -> SocketAddr {
        let family = if server.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        match self {
            Self::Run => server,
            Self::Proxy(number, _) => {
                let hosts = HOSTS.into_iter();
                let mut hosts = hosts.filter(|host| family.at(*host, 0).ip() == server.ip());
                let host = hosts.next().expect("a host that is led to");
                SocketAddr::new(behind(*number, family, host), server.port())
            }
        }
    }

    /// Programs, one after the other, that go this way. They end at the first that
    /// fails.
    pub(crate) fn command(&self, world: &World, commands: &[Vec<String>]) -> Command {
        let script = script(commands);
        match self {
            Self::Run => world.run_command(&["--quiet"], &["sh", "-ec", &script]),
            Self::Proxy(..) => {
                let mut sh = Command::new("sh");
                sh.args(["-ec", &script]).stdin(Stdio::null());
                sh
            }
        }
    }

    /// The same, started.
    pub(crate) fn start(&self, world: &World, commands: &[Vec<String>]) -> Process {
        Process::start(&mut self.command(world, commands))
    }

    /// The memory of the process with the engine, when `programs` go this way.
    pub(crate) fn memory(&self, programs: &Process) -> u64 {
        match self {
            Self::Run => programs.memory(),
            Self::Proxy(_, proxy) => proxy.memory(),
        }
    }
}

/// An address of the network of the device with this number.
fn behind(number: u8, family: Family, host: u16) -> IpAddr {
    let [_, low] = host.to_be_bytes();
    match family {
        Family::V4 => [10, 80 + number, 0, low].into(),
        Family::V6 => [0xfd50 + u16::from(number), 0, 0, 0, 0, 0, 0, host].into(),
    }
}

/// Command lines for a shell.
pub(crate) fn script(commands: &[Vec<String>]) -> String {
    let quote = |word: &String| format!("'{word}'");
    let line = |words: &Vec<String>| words.iter().map(quote).collect::<Vec<_>>().join(" ");
    commands.iter().map(line).collect::<Vec<_>>().join("\n")
}
