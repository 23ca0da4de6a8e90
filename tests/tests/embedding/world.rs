//! The network that the stories happen in: this process's own namespace, in which
//! whole networks are local, so that servers can be at any of their addresses.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::Command;

use l3l4_host::{netns, tun};
use l3l4_tests::program::program;

use crate::process::Process;
use crate::servers;
use crate::way::{Way, script};

/// Where a story happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    /// An address at which servers can listen.
    pub(crate) fn at(self, host: u16, port: u16) -> SocketAddr {
        self.within(80, host, port)
    }

    /// An address behind a device that nobody reads: no answer ever comes.
    pub(crate) fn silent(self, port: u16) -> SocketAddr {
        self.within(98, 9, port)
    }

    /// An address to which there is no route.
    pub(crate) fn unreachable(self, port: u16) -> SocketAddr {
        self.within(97, 9, port)
    }

    fn within(self, network: u8, host: u16, port: u16) -> SocketAddr {
        let [high, low] = host.to_be_bytes();
        let address: IpAddr = match self {
            Self::V4 => [10, network, high, low].into(),
            Self::V6 => [0xfd00 + u16::from(network), 0, 0, 0, 0, 0, 0, host].into(),
        };
        SocketAddr::new(address, port)
    }

    /// For options such as curl's -4.
    pub(crate) fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }
}

/// The name server's host; the name `www.l3l4.test` has the addresses of host 2.
pub(crate) const DNS: u16 = 53;
pub(crate) const NAME: &str = "www.l3l4.test";

/// The namespace, and what is in it for all stories.
pub(crate) struct World {
    proxy: OnceCell<Way>,
    _silence: tun::Tun,
}

impl World {
    pub(crate) fn make() -> Result<Self, String> {
        netns::enter().map_err(|error| error.to_string())?;
        for command in [
            "link set lo up",
            "addr add 10.80.0.1/32 dev lo",
            "addr add fd50::1/128 dev lo nodad",
            "route add local 10.80.0.0/16 dev lo",
            "-6 route add local fd50::/64 dev lo",
            "route add unreachable 10.97.0.0/16",
            "-6 route add unreachable fd61::/64",
        ] {
            ip(command)?;
        }
        // Servers bind to addresses of fd50::/64 that no interface has.
        let path = "/proc/sys/net/ipv6/ip_nonlocal_bind";
        std::fs::write(path, "1").map_err(|error| format!("cannot write {path}: {error}"))?;
        let silence = tun::Tun::new(&tun::Configuration {
            name: "silence".into(),
            addresses: vec!["10.98.0.1/24".parse()?, "fd62::1/64".parse()?],
            mtu: 1500,
        });
        let world = Self {
            proxy: OnceCell::new(),
            _silence: silence.map_err(|error| error.to_string())?,
        };
        servers::dns::serve();
        Ok(world)
    }

    /// `l3l4 run OPTIONS -- COMMAND`, with the name server of this world unless the
    /// options say another.
    pub(crate) fn run_command<O, C>(&self, options: &[O], command: &[C]) -> Command
    where
        O: AsRef<OsStr>,
        C: AsRef<OsStr>,
    {
        let mut run = Command::new(program());
        run.arg("run");
        if !options.iter().any(|it| it.as_ref() == "--dns") {
            run.args(["--dns", &Family::V4.at(DNS, 53).to_string()]);
        }
        run.args(options).arg("--").args(command);
        run.stdin(std::process::Stdio::null());
        run
    }

    /// The same, started.
    pub(crate) fn run<O, C>(&self, options: &[O], command: &[C]) -> Process
    where
        O: AsRef<OsStr>,
        C: AsRef<OsStr>,
    {
        Process::start(&mut self.run_command(options, command))
    }

    /// Several programs, one after the other, in one namespace: to start an engine
    /// takes seconds in a development build. They end at the first that fails.
    pub(crate) fn run_all(&self, options: &[&str], commands: &[Vec<String>]) -> Process {
        self.run(options, &["sh", "-ec", &script(commands)])
    }

    /// A proxy, the same for all stories.
    pub(crate) fn proxy(&self) -> &Way {
        self.proxy.get_or_init(|| Way::proxy(1, &[]))
    }

    /// A listener at a server's address, with a port that is free.
    pub(crate) fn listen(&self, family: Family) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(family.at(2, 0)).expect("listens");
        let address = listener.local_addr().unwrap();
        (listener, address)
    }
}

/// `ip` of iproute2, in this namespace.
pub(crate) fn ip(command: &str) -> Result<(), String> {
    let words = command.split_whitespace();
    let output = Command::new("ip").args(words).output();
    let output = output.map_err(|error| format!("cannot run ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(format!("ip {command}: {why}"))
        }
    }
}
