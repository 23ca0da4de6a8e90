//! Short connections by the thousand: a client and a server that spend little on each.
//! Either is one thread, which does all that is ready before it sleeps: with a thread
//! for each connection, to wake those threads costs more than what lies between them.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::PATIENCE;

const QUESTION: &[u8] = b"hello";
/// More than any answer, so that a read which fills less of it has taken all there was.
const ROOM: usize = 64;

/// What became of some connections.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    good: u64,
    bad: u64,
}

/// Echoes on every connection until its end of data, and then ends it.
pub(crate) fn serve(listener: std::net::TcpListener) {
    listener.set_nonblocking(true).unwrap();
    crate::servers::spawn(move || {
        on_this_thread(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream));
            }
        });
    });
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; ROOM];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}

/// Connects, asks, hears the answer and closes, again and again, so many at once. Says
/// how often that went well, and how it did not.
pub(crate) fn connect_often(port: u16, lasting: Duration, at_once: u64, hosts: &[&str]) {
    let hosts: Vec<IpAddr> = hosts.iter().map(|host| host.parse().unwrap()).collect();
    let to: Vec<_> = hosts
        .into_iter()
        .map(|host| SocketAddr::new(host, port))
        .collect();
    let end = Instant::now() + lasting;
    let all = on_this_thread(async {
        let mut clients = JoinSet::new();
        for first in 0..usize::try_from(at_once).unwrap() {
            clients.spawn(connect_until(end, to.clone(), first));
        }
        clients.join_all().await
    });
    let good: u64 = all.iter().map(|tally| tally.good).sum();
    let bad: u64 = all.iter().map(|tally| tally.bad).sum();
    println!("good {good} bad {bad}");
}

async fn connect_until(end: Instant, to: Vec<SocketAddr>, first: usize) -> Tally {
    let mut tally = Tally::default();
    for to in to.into_iter().cycle().skip(first) {
        if Instant::now() > end {
            break;
        }
        let asked = timeout(PATIENCE, ask_once(to)).await;
        match asked.unwrap_or_else(|late| Err(late.into())) {
            Ok(()) => tally.good += 1,
            Err(error) => {
                eprintln!("{to}: {error}");
                tally.bad += 1;
            }
        }
    }
    tally
}

/// One whole life: connected, asked, answered, finished by us and then by the server.
async fn ask_once(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(QUESTION).await?;
    let mut buffer = [0; ROOM];
    let mut heard = 0;
    while heard < QUESTION.len() {
        match stream.read(&mut buffer[heard..]).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => heard += length,
        }
    }
    stream.shutdown().await?;
    let is_answer = buffer[..heard] == *QUESTION;
    match stream.read(&mut buffer).await? {
        0 if is_answer => Ok(()),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

fn on_this_thread<R>(work: impl Future<Output = R>) -> R {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(work)
}
