//! Programs that are waited for, and not for ever.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a program of a story may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A program that runs, killed when this is dropped.
pub(crate) struct Process {
    command: String,
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// What a program says, collected as it comes.
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

/// What became of a program.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) command: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Panics with all that it said unless it ended well.
    #[track_caller]
    pub(crate) fn well(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }

    /// Panics with all that it said unless it ended with this exit status.
    #[track_caller]
    pub(crate) fn with_status(self, status: i32) -> Self {
        assert_eq!(self.status.code(), Some(status), "{self}");
        self
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let signal = self.status.signal();
        writeln!(f, "{}: {} {signal:?}", self.command, self.status)?;
        write!(f, "--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr)
    }
}

impl Process {
    /// Starts it, with an empty standard input unless one was set.
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = Output::collect(child.stdout.take().expect("a pipe"));
        let stderr = Output::collect(child.stderr.take().expect("a pipe"));
        Self {
            command: name,
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("a piped standard input")
    }

    pub(crate) fn signal(&self, number: i32) {
        let id = self.child.id().to_string();
        let kill = Command::new("kill")
            .arg(format!("-{number}"))
            .arg(id)
            .status();
        assert!(kill.expect("kill runs").success());
    }

    pub(crate) fn wait(self) -> Ended {
        self.wait_for(PATIENCE)
    }

    /// Waits for its end; kills it, and fails, when that does not come.
    pub(crate) fn wait_for(mut self, patience: Duration) -> Ended {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break Some(status);
            }
            if start.elapsed() > patience {
                break None;
            }
            thread::sleep(Duration::from_millis(5));
        };
        let is_late = status.is_none();
        let status = status.unwrap_or_else(|| {
            self.child.kill().unwrap();
            self.child.wait().unwrap()
        });
        let ended = Ended {
            command: std::mem::take(&mut self.command),
            status,
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        };
        assert!(!is_late, "killed after {patience:?}: {ended}");
        ended
    }

    /// What it has said on standard output.
    pub(crate) fn said(&self) -> String {
        self.stdout.so_far()
    }

    /// Waits until it has said this on standard output.
    pub(crate) fn wait_until_it_says(&self, text: &str) {
        self.wait_until(text, &self.stdout);
    }

    /// Waits until it has said this on standard error.
    pub(crate) fn wait_until_it_warns(&self, text: &str) {
        self.wait_until(text, &self.stderr);
    }

    fn wait_until(&self, text: &str, output: &Output) {
        let start = Instant::now();
        while !output.so_far().contains(text) {
            let (said, warned) = (self.said(), self.stderr.so_far());
            let late = start.elapsed() > PATIENCE;
            assert!(!late, "never {text:?}: {said:?}, {warned:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The line of its standard output with this number, from 0, when it is there.
    pub(crate) fn wait_until_line(&self, number: usize) -> String {
        let start = Instant::now();
        loop {
            let said = self.said();
            let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(line) = whole.lines().nth(number) {
                return line.to_owned();
            }
            assert!(start.elapsed() < PATIENCE, "no line {number}: {said:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Bytes of memory that are its own at this moment.
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() << 10
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).unwrap().count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    fn collect(mut from: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                shared.lock().unwrap().extend(&buffer[..length]);
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    /// All of it, once nobody can say more.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.so_far()
    }
}
