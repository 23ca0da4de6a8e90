//! The job: what is done over a network, and checked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::client::{Network, PATIENCE, Stream, read_exact, write_all};
use super::pattern::{BLOCK, Checker, Pattern, hex, noise};
use crate::cli::progress::Progress;
use crate::cli::units::{bytes, grouped, time};

/// The network that the client is in, by family; every other address is the engine's.
pub(super) const NETWORKS: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(10, 89, 0, 1)), 16),
    (
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x89, 0, 0, 0, 0, 0, 1)),
        64,
    ),
];

const PORTS: [u16; 8] = [1, 7, 80, 443, 4_242, 8_080, 50_000, 65_535];
const ADDRESSES: u16 = 8;
const PINGS: u16 = 25;
const REQUESTS: u16 = 1_000;
const REQUEST: usize = 64;
const FLOWS: u16 = 16;
/// Fits into the buffers on the way, so that it can be written, and the sending
/// side closed, before the first byte is read.
const HALF_CLOSE: u64 = 64 * 1024;
const HALF_CLOSES: u16 = 4;
const DATAGRAM_ROUNDS: u16 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Task {
    Ping,
    Connect,
    Requests,
    HalfClose,
    Transfer,
    Parallel,
    Datagrams,
}

/// What came of a task.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) flows: u16,
    /// Payload bytes that went there, and came back.
    pub(super) bytes: u64,
    pub(super) elapsed: Duration,
    /// Whether `bytes` a second say something: the task moved as many as it could.
    pub(super) is_bulk: bool,
    pub(super) round_trips: Vec<Duration>,
    /// Of what came back, equal to that of what was sent.
    pub(super) sha256: Option<String>,
}

/// Every task, in order.
pub(super) const TASKS: [Task; 7] = [
    Task::Ping,
    Task::Datagrams,
    Task::Connect,
    Task::Requests,
    Task::HalfClose,
    Task::Transfer,
    Task::Parallel,
];

/// The job over one network.
pub(super) struct Job<'a> {
    pub(super) network: &'a dyn Network,
    pub(super) progress: &'a Progress,
    /// The largest that the network's clients send, in fragments if need be.
    pub(super) largest_packet: u16,
    /// Bytes of the largest transfer.
    pub(super) size: u64,
}

/// What was done, or what was wrong.
type Checked<T> = Result<T, String>;

impl Job<'_> {
    /// What the progress bar ends at.
    pub(super) fn total(size: u64) -> u64 {
        2 * (2 * size + u64::from(HALF_CLOSES) * HALF_CLOSE)
    }

    /// What a task is called.
    pub(super) fn describe(&self, task: Task, family: Family) -> String {
        match task {
            Task::Ping => format!("ping, {}", range(&ping_sizes(self.largest_packet, family))),
            Task::Datagrams => format!(
                "udp, {}",
                range(&datagram_sizes(self.largest_packet, family))
            ),
            Task::Connect => format!("tcp, {ADDRESSES} addresses, {} ports each", PORTS.len()),
            Task::Requests => format!("tcp, {} requests of {REQUEST} B", grouped(REQUESTS.into())),
            Task::HalfClose => "tcp, send all, close, then read".to_owned(),
            Task::Transfer => format!("tcp, {} on one flow", bytes(self.size)),
            Task::Parallel => format!("tcp, {FLOWS} flows at once"),
        }
    }

    /// Does it. `Err` says what was wrong.
    pub(super) fn run(&self, task: Task, family: Family) -> Checked<Outcome> {
        let start = Instant::now();
        let mut outcome = match task {
            Task::Ping => self.ping(family),
            Task::Datagrams => self.datagrams(family),
            Task::Connect => self.connect(family),
            Task::Requests => self.requests(family),
            Task::HalfClose => self.half_close(family),
            Task::Transfer => self.transfer(family),
            Task::Parallel => self.parallel(family),
        }?;
        outcome.elapsed = start.elapsed();
        Ok(outcome)
    }

    fn ping(&self, family: Family) -> Checked<Outcome> {
        let mut outcome = Outcome {
            flows: 1,
            ..Outcome::default()
        };
        let to = address(family, 0);
        let pinger = self
            .network
            .ping(to)
            .map_err(|e| failed("no ping socket", &e))?;
        let mut sequence = 0;
        for size in ping_sizes(self.largest_packet, family) {
            let data = noise(size, sequence.into());
            for _ in 0..PINGS {
                sequence += 1;
                let start = Instant::now();
                let reply = pinger
                    .ping(sequence, &data)
                    .map_err(|e| failed(&format!("ping {to} with {size} bytes"), &e))?;
                outcome.round_trips.push(start.elapsed());
                if reply != data {
                    return Err(format!("ping {to} with {size} bytes: the reply differs"));
                }
                outcome.bytes += size as u64;
            }
        }
        Ok(outcome)
    }

    fn datagrams(&self, family: Family) -> Checked<Outcome> {
        let mut outcome = Outcome::default();
        let mut buffer = vec![0; 65_536];
        for (index, port) in PORTS.into_iter().enumerate() {
            let to = SocketAddr::new(address(family, index), port);
            let socket = self
                .network
                .udp(to)
                .map_err(|e| failed(&format!("udp to {to}"), &e))?;
            outcome.flows += 1;
            for round in 0..DATAGRAM_ROUNDS {
                for size in datagram_sizes(self.largest_packet, family) {
                    let what = || format!("{size} bytes by udp to {to}");
                    let data = noise(size, round.into());
                    let start = Instant::now();
                    socket.send(&data).map_err(|e| failed(&what(), &e))?;
                    let length = socket
                        .receive(&mut buffer)
                        .map_err(|e| failed(&what(), &e))?;
                    outcome.round_trips.push(start.elapsed());
                    if buffer[..length] != data {
                        return Err(format!("{}: {length} others came back", what()));
                    }
                    outcome.bytes += size as u64;
                }
            }
        }
        Ok(outcome)
    }

    /// Round trips are those of the handshakes.
    fn connect(&self, family: Family) -> Checked<Outcome> {
        let mut outcome = Outcome::default();
        for index in 0..ADDRESSES {
            for port in PORTS {
                let to = SocketAddr::new(address(family, index.into()), port);
                let start = Instant::now();
                let stream = self.open(to)?;
                outcome.round_trips.push(start.elapsed());
                exchange(&*stream, &noise(1_000, port.into()))
                    .and_then(|()| end(&*stream))
                    .map_err(|why| format!("{to}: {why}"))?;
                outcome.flows += 1;
                outcome.bytes += 1_000;
            }
        }
        Ok(outcome)
    }

    fn requests(&self, family: Family) -> Checked<Outcome> {
        let mut outcome = Outcome {
            flows: 1,
            ..Outcome::default()
        };
        let to = SocketAddr::new(address(family, 1), 7);
        let stream = self.open(to)?;
        for number in 0..REQUESTS {
            let data = noise(REQUEST, number.into());
            let start = Instant::now();
            exchange(&*stream, &data).map_err(|why| format!("request {number} to {to}: {why}"))?;
            outcome.round_trips.push(start.elapsed());
            outcome.bytes += REQUEST as u64;
        }
        end(&*stream).map_err(|why| format!("{to}: {why}"))?;
        Ok(outcome)
    }

    fn half_close(&self, family: Family) -> Checked<Outcome> {
        let mut outcome = Outcome::default();
        for index in 0..HALF_CLOSES {
            let to = SocketAddr::new(address(family, index.into()), 9);
            let stream = self.open(to)?;
            let seed = u64::from(index);
            send(&*stream, seed, HALF_CLOSE, &AtomicBool::new(false))
                .map_err(|e| failed(&format!("sending to {to}"), &e))?;
            self.receive(&*stream, seed, HALF_CLOSE)
                .map_err(|why| format!("{to}, after our side was closed: {why}"))?;
            outcome.flows += 1;
            outcome.bytes += HALF_CLOSE;
        }
        Ok(outcome)
    }

    fn transfer(&self, family: Family) -> Checked<Outcome> {
        let to = SocketAddr::new(address(family, 2), 8_080);
        let sha256 = self.round_trip(to, 1, self.size)?;
        Ok(Outcome {
            flows: 1,
            bytes: self.size,
            is_bulk: true,
            sha256: Some(sha256),
            ..Outcome::default()
        })
    }

    fn parallel(&self, family: Family) -> Checked<Outcome> {
        let each = self.size / u64::from(FLOWS);
        let results: Vec<Checked<String>> = thread::scope(|scope| {
            let flows: Vec<_> = (0..FLOWS)
                .map(|flow| {
                    let to = SocketAddr::new(address(family, flow.into()), 1_000 + flow);
                    scope.spawn(move || self.round_trip(to, 100 + u64::from(flow), each))
                })
                .collect();
            let joined = flows.into_iter().map(|flow| {
                flow.join()
                    .unwrap_or_else(|_| Err("a client thread panicked".to_owned()))
            });
            joined.collect()
        });
        let wrong: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        if let Some(first) = wrong.first() {
            return Err(format!("{} of {FLOWS} flows: {first}", wrong.len()));
        }
        Ok(Outcome {
            flows: FLOWS,
            bytes: each * u64::from(FLOWS),
            is_bulk: true,
            ..Outcome::default()
        })
    }

    fn open(&self, to: SocketAddr) -> Checked<Box<dyn Stream>> {
        self.network
            .tcp(to)
            .map_err(|e| failed(&format!("connecting to {to}"), &e))
    }

    /// Sends and receives at once, and returns the hash that both sides agree on.
    fn round_trip(&self, to: SocketAddr, seed: u64, size: u64) -> Checked<String> {
        let stream = self.open(to)?;
        let stream = &*stream;
        let give_up = AtomicBool::new(false);
        thread::scope(|scope| {
            let sender = scope.spawn(|| send(stream, seed, size, &give_up));
            let received = self.receive(stream, seed, size);
            give_up.store(received.is_err(), Ordering::Relaxed);
            let received = received.map_err(|why| format!("{to}: {why}"))?;
            let sent = match sender.join() {
                Ok(sent) => sent.map_err(|e| failed(&format!("sending to {to}"), &e))?,
                Err(_) => return Err("a client thread panicked".to_owned()),
            };
            match sent == received {
                true => Ok(sent),
                false => Err(format!("{to}: sent sha256 {sent}, received {received}")),
            }
        })
    }

    /// Receives until the end of the data, checks each byte, and returns the hash.
    fn receive(&self, stream: &dyn Stream, seed: u64, size: u64) -> Checked<String> {
        let mut checker = Checker::new(seed);
        let mut buffer = vec![0; 4 * BLOCK];
        loop {
            let after = || format!("receiving, after {} bytes", grouped(checker.received()));
            let length = stream.read(&mut buffer).map_err(|e| failed(&after(), &e))?;
            if length == 0 {
                break;
            }
            self.progress.add(length);
            checker.check(&buffer[..length])?;
            if checker.received() > size {
                return Err(format!("more than the {} bytes sent", grouped(size)));
            }
        }
        match checker.received() {
            received if received < size => Err(format!(
                "end of data after {} of {} bytes",
                grouped(received),
                grouped(size)
            )),
            _ => Ok(checker.hash()),
        }
    }
}

/// Sends the pattern, closes the sending side, and returns the hash.
fn send(stream: &dyn Stream, seed: u64, size: u64, give_up: &AtomicBool) -> io::Result<String> {
    let mut pattern = Pattern::new(seed);
    let mut hash = Sha256::new();
    let mut left = size;
    while left > 0 && !give_up.load(Ordering::Relaxed) {
        let block = pattern.next_block();
        let length = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        hash.update(&block[..length]);
        write_all(stream, &block[..length])?;
        left -= length as u64;
    }
    stream.finish()?;
    Ok(hex(hash))
}

/// Sends a request and waits for the same bytes.
fn exchange(stream: &dyn Stream, data: &[u8]) -> Checked<()> {
    let mut reply = vec![0; data.len()];
    write_all(stream, data).map_err(|e| failed("sending", &e))?;
    read_exact(stream, &mut reply).map_err(|e| failed("receiving", &e))?;
    match reply == data {
        true => Ok(()),
        false => Err("the reply differs".to_owned()),
    }
}

/// Closes our side and waits for the peer's.
fn end(stream: &dyn Stream) -> Checked<()> {
    stream.finish().map_err(|e| failed("closing", &e))?;
    match stream
        .read(&mut [0])
        .map_err(|e| failed("waiting for the end of the data", &e))?
    {
        0 => Ok(()),
        _ => Err("more came back than was sent".to_owned()),
    }
}

fn failed(what: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => format!("{what}: nothing for {}", time(PATIENCE)),
        _ => format!("{what}: {error}"),
    }
}

/// The `index`th address of the engine's, spread over the network.
fn address(family: Family, index: usize) -> IpAddr {
    // Far fewer than 250 are used.
    let index = u8::try_from(index % 250).unwrap_or(0);
    match family {
        Family::Ipv4 => Ipv4Addr::new(10, 89, index.wrapping_mul(37) % 255, 2 + index).into(),
        Family::Ipv6 => {
            let high = 0x1000_u16.wrapping_mul(index.into());
            Ipv6Addr::new(0xfd00, 0x89, 0, 0, high, 0, 0xbeef, 2 + u16::from(index)).into()
        }
    }
}

/// Bytes of the headers before the payload of UDP and of ping, which are as long.
fn headers(family: Family) -> usize {
    match family {
        Family::Ipv4 => 20 + 8,
        Family::Ipv6 => 40 + 8,
    }
}

fn datagram_sizes(largest_packet: u16, family: Family) -> Vec<usize> {
    up_to(&[0, 1, 512, 1_472, 8_000, 60_000], largest_packet, family)
}

fn ping_sizes(largest_packet: u16, family: Family) -> Vec<usize> {
    up_to(&[8, 56, 1_400, 8_000], largest_packet, family)
}

/// These, as far as they fit into the largest packet, and what fills it.
fn up_to(sizes: &[usize], largest_packet: u16, family: Family) -> Vec<usize> {
    let largest = usize::from(largest_packet) - headers(family);
    let smaller = sizes.iter().copied().filter(|size| *size < largest);
    smaller.chain([largest]).collect()
}

fn range(sizes: &[usize]) -> String {
    let ends = sizes.first().zip(sizes.last());
    ends.map_or_else(String::new, |(first, last)| {
        format!("{first} to {} B", grouped(*last as u64))
    })
}
