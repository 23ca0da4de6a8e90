//! Servers of the system, in directories of their own: openssl, iperf3, sshd.

use std::fs;
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
    process: Process,
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
            process,
        }
    }

    pub(crate) fn signal(&self, number: i32) {
        self.process.signal(number);
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

/// `sshd` for one key, `user` in its directory.
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
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n",
        path("host"),
        path("user.pub"),
    );
    fs::write(directory.join("configuration"), configuration).unwrap();
    // It insists on the path of itself.
    let mut server = Command::new(find("sshd").expect("sshd"));
    server.args(["-D", "-e", "-f", &path("configuration")]);
    Server::start(&mut server, address, directory)
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
