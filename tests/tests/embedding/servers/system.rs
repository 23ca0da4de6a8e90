//! Servers of the system, in directories of their own: openssl, iperf3, sshd.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{PATIENCE, Process};
use crate::runner::find;
use crate::world::{Family, World};

/// A server, with a directory for its keys, both of which go with this.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) directory: PathBuf,
    _process: Process,
}

impl Server {
    /// Starts `command`, which has to listen at `address`, and waits until it does.
    fn start(command: &mut Command, address: SocketAddr, directory: PathBuf) -> Self {
        let process = Process::start(command.stdin(Stdio::null()));
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(start.elapsed() < PATIENCE, "{command:?} does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Self {
            address,
            directory,
            _process: process,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// `openssl s_server -rev`: each line comes back reversed. Its certificate is
/// `certificate` in its directory, and for [`NAME`](crate::world::NAME).
pub(crate) fn tls(world: &World, family: Family) -> Server {
    let directory = directory("tls", family);
    let (key, certificate) = (directory.join("key"), directory.join("certificate"));
    let mut request = Command::new("openssl");
    request.args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
    request.args(["ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    request.args(["-subj", "/CN=www.l3l4.test"]);
    request.args(["-addext", "subjectAltName=DNS:www.l3l4.test"]);
    request
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    succeed(&mut request);
    let address = free(world, family);
    let mut server = Command::new("openssl");
    server.args(["s_server", "-accept", &address.to_string(), "-rev"]);
    server.arg("-key").arg(&key).arg("-cert").arg(&certificate);
    Server::start(&mut server, address, directory)
}

/// `iperf3 --server`.
pub(crate) fn iperf3(world: &World, family: Family) -> Server {
    let address = free(world, family);
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut server = Command::new("iperf3");
    server.args(["--server", "--bind", &host, "--port", &port]);
    Server::start(&mut server, address, directory("iperf3", family))
}

/// The user whom [`sshd`] lets in.
pub(crate) const USER: &str = "tester";

/// `sshd` for one key, `user` in its directory, and one user, [`USER`].
///
/// As root it would become other users, of whom this namespace has none. So it has a
/// namespace of its own, in which it is that user, and the user is in `/etc/passwd`.
pub(crate) fn sshd(world: &World, family: Family) -> Server {
    let directory = directory("sshd", family);
    for name in ["host", "user"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        succeed(keygen.arg(directory.join(name)));
    }
    let address = free(world, family);
    let path = |name: &str| directory.join(name).display().to_string();
    let configuration = format!(
        "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\n",
        path("host"),
        path("user.pub"),
    );
    fs::write(path("configuration"), configuration).unwrap();
    let user = format!("{USER}:x:1000:1000::/tmp:/bin/sh\n");
    fs::write(path("passwd"), user).unwrap();
    let script = "mount --bind \"$1\" /etc/passwd && \
                  exec unshare --user --map-user=1000 --map-group=1000 \"$2\" -D -e -f \"$3\"";
    let mut server = Command::new("unshare");
    server.args(["--mount", "sh", "-c", script, "sh", &path("passwd")]);
    // It insists on the path of itself.
    server
        .arg(find("sshd").expect("sshd"))
        .arg(path("configuration"));
    Server::start(&mut server, address, directory)
}

/// The command line of a shell at `sshd`, which is found at `address`.
pub(crate) fn ssh(sshd: &Server, address: SocketAddr) -> Vec<String> {
    let path = |name: &str| sshd.directory.join(name).display().to_string();
    let (host, port) = (address.ip(), address.port());
    let (key, known) = (path("user"), path("known"));
    let line = format!(
        "ssh -F none -T -p {port} -i {key} -o UserKnownHostsFile={known} \
         -o StrictHostKeyChecking=accept-new -o BatchMode=yes {USER}@{host} sh"
    );
    line.split_whitespace().map(str::to_owned).collect()
}

/// Line by line, each answered before the next, until the shell ends with 5.
pub(crate) fn talk(shell: &mut Process) {
    let mut keys = shell.stdin();
    for number in 1..=20 {
        writeln!(keys, "echo =$(({number} * 1000))=").unwrap();
        shell.wait_until_it_says(&format!("={}=", number * 1000));
    }
    writeln!(keys, "exit 5").unwrap();
}

/// An address that was free a moment ago.
fn free(world: &World, family: Family) -> SocketAddr {
    world.listen(family).1
}

fn directory(name: &str, family: Family) -> PathBuf {
    let name = format!("l3l4-{name}{}-{}", family.digit(), std::process::id());
    let path = std::env::temp_dir().join(name);
    fs::create_dir_all(&path).unwrap();
    Path::new(&path).to_owned()
}

fn succeed(command: &mut Command) {
    Process::start(command.stdin(Stdio::null())).wait().well();
}
