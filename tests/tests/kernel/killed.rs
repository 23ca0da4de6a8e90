//! `l3l4 echo --record`, killed under load.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use l3l4_host::Component;
use l3l4_host::record::{Ending, replay};
use l3l4_tests::program::program;

const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of record after which it is killed.
const ENOUGH: u64 = 3_000_000;

/// Runs the program on a TUN device of its own around `network`, loads it at `to`
/// until the record is long enough, and kills it.
pub(crate) fn leaves_a_record_that_replays_identically(name: &str, network: &str, to: SocketAddr) {
    let path = std::env::temp_dir().join(format!("l3l4-{name}-{}.l3l4", std::process::id()));
    let mut echo = Command::new(program())
        .args(["echo", "--tun", name, "--address", network, "--record"])
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut streams: Vec<TcpStream> = (0..4).map(|_| connect(to, &mut echo)).collect();
    let readers: Vec<_> = streams.iter().map(|it| it.try_clone().unwrap()).collect();
    for mut reader in readers {
        std::thread::spawn(move || while matches!(reader.read(&mut [0; 65_536]), Ok(1..)) {});
    }
    let start = Instant::now();
    while size(&path) < ENOUGH {
        assert!(start.elapsed() < PATIENCE, "{} bytes", size(&path));
        for stream in &mut streams {
            stream.write_all(&[0x5a; 20_000]).unwrap();
        }
    }
    echo.kill().unwrap();
    echo.wait().unwrap();

    let file = BufReader::new(File::open(&path).unwrap());
    let report = replay(file, &Component::embedded()).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(report.is_identical(), "{report:#?}");
    assert!(matches!(report.ending, Some(Ending::Cut(_))), "{report:#?}");
    assert!(report.packets_in > 100, "{report:#?}");
    println!(
        "  killed after {} packets in {:?}: {} calls are identical",
        report.packets_in,
        report.duration(),
        report.all_calls()
    );
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// A connection, when the program has made its device.
fn connect(to: SocketAddr, echo: &mut Child) -> TcpStream {
    let start = Instant::now();
    loop {
        if let Ok(stream) = TcpStream::connect_timeout(&to, Duration::from_secs(1)) {
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            return stream;
        }
        assert_eq!(echo.try_wait().unwrap(), None, "the program runs");
        assert!(start.elapsed() < PATIENCE, "{to} does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
}
