//! A TUN device: the kernel's end is a network interface, ours gives and takes
//! its packets (Linux).

use std::io;
use std::net::IpAddr;
use std::str::FromStr;

/// Why there is no TUN device, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This system has no support here.
    #[error("TUN devices are supported on Linux only")]
    System,
    /// The node does not exist.
    #[error(
        "/dev/net/tun is missing: load the driver (modprobe tun), or in a container pass the device in (--device /dev/net/tun)"
    )]
    NoNode,
    /// The node is closed to this user.
    #[error(
        "/dev/net/tun is closed to this user: run as root, or open it (chmod 0666 /dev/net/tun)"
    )]
    Closed,
    /// The user may open the node, and may not make an interface.
    #[error(
        "making an interface takes CAP_NET_ADMIN: run as root (sudo), or in a network namespace of your own (unshare -Urn)"
    )]
    NotPermitted,
    /// Another program holds the interface.
    #[error("interface {0} is in use by another program: choose another name")]
    Busy(String),
    /// The configuration cannot work.
    #[error("{0}")]
    Configuration(String),
    /// Anything else.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

/// An address and the length of its network's prefix, as in `10.9.0.1/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The address, with its host part.
    pub address: IpAddr,
    /// 0 to 32 for IPv4, 0 to 128 for IPv6.
    pub prefix: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not ADDRESS/PREFIX, such as 10.9.0.1/24 or fd00:9::1/64");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            return Err(format!(
                "the prefix of {text:?} is longer than {longest} bits"
            ));
        }
        Ok(Self { address, prefix })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// What the interface is to be.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// The kernel's own addresses on it. It routes the rest of their networks to
    /// us. At most one is of IPv4.
    pub addresses: Vec<Cidr>,
    /// Bytes of the longest packet: at least 68, or 1280 with an IPv6 address.
    pub mtu: u16,
}

#[cfg(target_os = "linux")]
pub use linux::Tun;
#[cfg(not(target_os = "linux"))]
pub use other::Tun;

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{self, ErrorKind};
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
    use std::thread;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::Errno;
    use tun_rs::{DeviceBuilder, SyncDevice};

    use super::{Configuration, Error};
    use crate::device::Device;

    /// A TUN interface that is up. It goes when this is dropped.
    pub struct Tun {
        device: SyncDevice,
        mtu: u16,
        /// The last refusal was for want of memory, which `poll` does not know of.
        out_of_buffers: bool,
    }

    impl Tun {
        /// Makes the interface, or takes an existing one that nobody holds, gives
        /// it its addresses, and brings it up.
        pub fn new(configuration: &Configuration) -> Result<Self, Error> {
            Self::make(configuration, false)
        }

        /// As [`new`](Self::new), with several queues, for an engine each: the kernel
        /// keeps a flow to one of them. At least one, at most 256 (the kernel's bound).
        pub fn queues(configuration: &Configuration, queues: usize) -> Result<Vec<Self>, Error> {
            let first = Self::make(configuration, queues > 1)?;
            let mut all = Vec::new();
            for number in 1..queues {
                let another = first.device.try_clone().and_then(|device| {
                    device.set_nonblocking(true)?;
                    Ok(device)
                });
                let device = another.map_err(|source| Error::Io {
                    doing: format!("make queue {} of {}", number + 1, configuration.name),
                    source,
                })?;
                all.push(Self {
                    device,
                    mtu: configuration.mtu,
                    out_of_buffers: false,
                });
            }
            all.insert(0, first);
            Ok(all)
        }

        fn make(configuration: &Configuration, multi_queue: bool) -> Result<Self, Error> {
            check(configuration)?;
            let Configuration {
                name,
                addresses,
                mtu,
            } = configuration;
            let mut builder = DeviceBuilder::new()
                .name(name.as_str())
                .mtu(*mtu)
                .multi_queue(multi_queue);
            for cidr in addresses {
                builder = match cidr.address {
                    std::net::IpAddr::V4(address) => builder.ipv4(address, cidr.prefix, None),
                    std::net::IpAddr::V6(address) => builder.ipv6(address, cidr.prefix),
                };
            }
            let device = builder
                .build_sync()
                .map_err(|source| explain(name, source))?;
            device.set_nonblocking(true).map_err(|source| Error::Io {
                doing: format!("make {name} non-blocking"),
                source,
            })?;
            Ok(Self {
                device,
                mtu: *mtu,
                out_of_buffers: false,
            })
        }

        /// The device of a descriptor that another process made as [`Tun::new`] does
        /// (a descriptor of /dev/net/tun, with IFF_NO_PI and without IFF_VNET_HDR), and
        /// sent here. The interface may be in another network namespace.
        pub fn from_fd(descriptor: OwnedFd, mtu: u16) -> Result<Self, Error> {
            let wrong = |source| Error::Io {
                doing: "take over a TUN device".to_owned(),
                source,
            };
            // SAFETY: the descriptor is open and given away here. Of another file than a
            // TUN device it would give errors and odd packets, and no more.
            let device = unsafe { SyncDevice::from_fd(descriptor.into_raw_fd()) }.map_err(wrong)?;
            device.set_nonblocking(true).map_err(wrong)?;
            Ok(Self {
                device,
                mtu,
                out_of_buffers: false,
            })
        }
    }

    fn check(configuration: &Configuration) -> Result<(), Error> {
        let wrong = |why: String| Err(Error::Configuration(why));
        let Configuration {
            name,
            addresses,
            mtu,
        } = configuration;
        if name.is_empty() || name.len() > 15 || name.contains(['/', ':', ' ']) {
            return wrong(format!(
                "{name:?} is no name for an interface: 1 to 15 bytes without '/', ':' and spaces"
            ));
        }
        if addresses
            .iter()
            .filter(|cidr| cidr.address.is_ipv4())
            .count()
            > 1
        {
            return wrong(format!(
                "more than one IPv4 address: give one, and add the others with `ip address add ADDRESS/PREFIX dev {name}`"
            ));
        }
        // The kernel's bounds: RFC 791 for the interface, RFC 8200 5 for IPv6 on it.
        let least = match addresses.iter().any(|cidr| cidr.address.is_ipv6()) {
            true => 1280,
            false => 68,
        };
        if *mtu < least {
            return wrong(format!(
                "an MTU of {mtu} is too small: at least {least} with these addresses"
            ));
        }
        Ok(())
    }

    fn explain(name: &str, source: io::Error) -> Error {
        match Errno::from_io_error(&source) {
            Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => Error::NoNode,
            Some(Errno::ACCESS) => Error::Closed,
            Some(Errno::PERM) => Error::NotPermitted,
            Some(Errno::BUSY) => Error::Busy(name.to_owned()),
            _ => Error::Io {
                doing: format!("make the TUN interface {name}"),
                source,
            },
        }
    }

    impl Device for Tun {
        fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.device.recv(buffer)
        }

        fn send(&mut self, packet: &[u8]) -> io::Result<()> {
            let Err(error) = self.device.send(packet) else {
                return Ok(());
            };
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::NOBUFS | Errno::NOMEM)
            ) {
                self.out_of_buffers = true;
                return Err(ErrorKind::WouldBlock.into());
            }
            Err(error)
        }

        fn wait(&mut self, timeout: Option<Duration>, want_room: bool) -> io::Result<()> {
            if std::mem::take(&mut self.out_of_buffers) && want_room {
                thread::sleep(Duration::from_millis(1));
            }
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, want_room);
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            match poll(
                &mut [PollFd::from_borrowed_fd(self.as_fd(), wanted)],
                timeout.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }

        fn mtu(&self) -> usize {
            self.mtu.into()
        }
    }

    impl AsFd for Tun {
        fn as_fd(&self) -> BorrowedFd<'_> {
            // SAFETY: the descriptor lives as long as `self.device`, which this
            // borrow does not outlive.
            unsafe { BorrowedFd::borrow_raw(self.device.as_raw_fd()) }
        }
    }

    impl std::fmt::Debug for Tun {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Tun")
                .field("mtu", &self.mtu)
                .finish_non_exhaustive()
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::io::{self, ErrorKind};
    use std::time::Duration;

    use super::{Configuration, Error};
    use crate::device::Device;

    /// No TUN device: there is none on this system.
    #[derive(Debug)]
    pub struct Tun(std::convert::Infallible);

    impl Tun {
        /// Always [`Error::System`].
        pub fn new(_configuration: &Configuration) -> Result<Self, Error> {
            Err(Error::System)
        }

        /// Always [`Error::System`].
        pub fn queues(_configuration: &Configuration, _queues: usize) -> Result<Vec<Self>, Error> {
            Err(Error::System)
        }
    }

    impl Device for Tun {
        fn receive(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
            Err(ErrorKind::Unsupported.into())
        }

        fn send(&mut self, _packet: &[u8]) -> io::Result<()> {
            Err(ErrorKind::Unsupported.into())
        }

        fn wait(&mut self, _timeout: Option<Duration>, _want_room: bool) -> io::Result<()> {
            Err(ErrorKind::Unsupported.into())
        }

        fn mtu(&self) -> usize {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cidr;

    #[test]
    fn an_address_is_read_with_its_prefix_or_the_error_shows_how() {
        let cidr: Cidr = "fd00:9::1/64".parse().unwrap();
        assert_eq!(cidr.to_string(), "fd00:9::1/64");
        for wrong in ["10.9.0.1", "10.9.0.1/33", "10.9.0/24", "/24", "10.9.0.1/x"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }
}
