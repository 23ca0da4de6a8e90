//! Name resolution: what `/etc/resolv.conf` says outside, and the file that the
//! program sees in its place.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use super::Error;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Sockets of name services that answer from the outer network. Covered by an
/// empty device they refuse, and the C library goes on to DNS.
const SERVICES: [&str; 2] = [
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/nscd/socket",
];

/// What a `resolv.conf` says (resolv.conf(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// The name servers, in order.
    pub servers: Vec<IpAddr>,
    /// The other lines: search lists and options.
    pub others: Vec<String>,
}

impl ResolvConf {
    /// The system's. Without one, or without a server in it, that is the loopback's
    /// server, as the C library has it.
    #[must_use]
    pub fn of_system() -> Self {
        let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        let mut read = Self::parse(&text);
        if read.servers.is_empty() {
            read.servers.push(Ipv4Addr::LOCALHOST.into());
        }
        read
    }

    /// Reads the text of such a file; what is no address is passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut read = Self {
            servers: Vec::new(),
            others: Vec::new(),
        };
        for line in text.lines().map(str::trim) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    read.servers.extend(address);
                }
                Some("search" | "domain" | "options" | "sortlist") => {
                    read.others.push(line.to_owned());
                }
                _ => {}
            }
        }
        read
    }

    /// The same with these servers in place of its own.
    #[must_use]
    pub fn text_with_servers(&self, servers: impl IntoIterator<Item = IpAddr>) -> String {
        let servers = servers.into_iter();
        let mut text: String = servers.map(|it| format!("nameserver {it}\n")).collect();
        for line in &self.others {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// Puts `text` in the place of `/etc/resolv.conf`, in this mount namespace.
///
/// The file lives in a file system in memory, of which nothing but the file is left
/// mounted: nobody has to remove it.
pub(super) fn put_in_place(text: &str) -> Result<(), Error> {
    let failed =
        |doing: String, source: io::Error| Error::Launcher(format!("cannot {doing}: {source}"));
    if !Path::new(RESOLV_CONF).exists() {
        let why = "it does not exist, and there has to be a file to put ours over";
        return Err(Error::Launcher(format!(
            "cannot replace {RESOLV_CONF}: {why}"
        )));
    }
    let memory = std::env::temp_dir();
    let name = memory.display();
    mount(
        "l3l4",
        &memory,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        None,
    )
    .map_err(|error| failed(format!("mount a tmpfs on {name}"), error.into()))?;
    let file: PathBuf = memory.join("resolv.conf");
    fs::write(&file, text)
        .and_then(|()| Ok(mount_bind(&file, RESOLV_CONF)?))
        .map_err(|error| failed(format!("replace {RESOLV_CONF}"), error))?;
    unmount(&memory, UnmountFlags::DETACH)
        .map_err(|error| failed(format!("unmount {name}"), error.into()))?;
    for socket in SERVICES.iter().filter(|path| Path::new(path).exists()) {
        mount_bind("/dev/null", *socket)
            .map_err(|error| failed(format!("cover {socket}"), error.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{IpAddr, ResolvConf};

    #[test]
    fn servers_are_replaced_and_the_rest_is_kept() {
        let text = "# made by hand\nnameserver 192.0.2.1 \n nameserver fe80::1%eth0\n\
                    nameserver 2001:db8::53\nsearch example.org\noptions edns0 trust-ad\n";
        let read = ResolvConf::parse(text);
        let servers: Vec<_> = ["192.0.2.1", "2001:db8::53"]
            .map(|it| it.parse::<IpAddr>().unwrap())
            .into();
        assert_eq!(read.servers, servers);
        assert_eq!(
            read.text_with_servers([[192, 0, 0, 1], [192, 0, 0, 3]].map(IpAddr::from)),
            "nameserver 192.0.0.1\nnameserver 192.0.0.3\nsearch example.org\noptions edns0 trust-ad\n"
        );
    }
}
