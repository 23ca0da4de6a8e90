//! Programs that run inside, where one of the system cannot be told what a story
//! needs: this test itself, with `--client NAME ARGUMENTS…`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use crate::load;
use crate::servers::{http, upstream};
use crate::stream::{self, ANSWER, QUESTION};

/// How long anything of a healthy network may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// This program.
pub(crate) fn program() -> String {
    let path = std::env::current_exe().unwrap();
    path.to_str().expect("UTF-8").to_owned()
}

/// The command line of a client.
pub(crate) fn command(name: &str, arguments: &[&dyn ToString]) -> Vec<String> {
    let mut words = vec![program(), "--client".to_owned(), name.to_owned()];
    words.extend(arguments.iter().map(|it| it.to_string()));
    words
}

/// What this process is to be, unless it is the test.
pub(crate) fn asked_for() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ["--client", name, arguments @ ..] = words.as_slice() else {
        return None;
    };
    match (*name, arguments) {
        ("send", [to, text]) => send(to, text),
        ("connect", [millis, to @ ..]) => try_to_connect(millis, to),
        ("finish-first", [to, length]) => finish_first(to, length),
        ("finish-second", [to, length]) => finish_second(to, length),
        ("both-ways", [to, length]) => both_ways(to, length),
        ("stuff", [to, most]) => stuff(to, most),
        ("sleep-then-read", [to]) => sleep_then_read(to),
        ("send-and-exit", [to, length]) => send_and_exit(to, length),
        ("keep-alive", [to, connections, rounds, length]) => {
            keep_alive(to, connections, rounds, length);
        }
        ("connect-often", [port, seconds, at_once, to @ ..]) => {
            let port = u16::try_from(number(port)).unwrap();
            let seconds = Duration::from_secs(number(seconds));
            load::connect_often(port, seconds, number(at_once), to);
        }
        ("hold", [to, flows]) => hold(to, flows, b"", || {}),
        ("hold-under-load", [to, flows, length]) => hold_under_load(to, flows, length),
        ("socks5" | "http", [at]) => upstream::serve(name, at),
        other => panic!("no such client: {other:?}"),
    }
    Some(ExitCode::SUCCESS)
}

fn connect(to: &str) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn wait_for_a_line() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn send(to: &str, text: &str) {
    let to: SocketAddr = to.parse().unwrap();
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.send_to(text.as_bytes(), to).unwrap();
}

/// Says how each attempt to connect ends.
fn try_to_connect(millis: &str, to: &[&str]) {
    let patience = Duration::from_millis(number(millis));
    for to in to {
        match TcpStream::connect_timeout(&to.parse().unwrap(), patience) {
            Ok(_) => println!("connected"),
            Err(error) => println!("{:?}", error.kind()),
        }
    }
}

/// Sends all, finishes, and receives all after that.
fn finish_first(to: &str, length: &str) {
    let mut stream = connect(to);
    stream::send(&mut stream, QUESTION, number(length));
    stream.shutdown(Shutdown::Write).unwrap();
    stream::receive_to_end(&mut stream, ANSWER, number(length));
}

/// Receives all and the end of data, and sends all after that.
fn finish_second(to: &str, length: &str) {
    let mut stream = connect(to);
    stream::receive_to_end(&mut stream, ANSWER, number(length));
    stream::send(&mut stream, QUESTION, number(length));
}

/// Sends and receives at once.
fn both_ways(to: &str, length: &str) {
    let length = number(length);
    let mut stream = connect(to);
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        println!(
            "received {}",
            stream::receive_to_end(&mut reader, ANSWER, length)
        );
    });
    println!("sent {}", stream::send(&mut stream, QUESTION, length));
    stream.shutdown(Shutdown::Write).unwrap();
    reading.join().unwrap();
}

/// Sends until nothing has been taken for a second, but at most so much, and says
/// how much that was. Finishes when it reads a line.
fn stuff(to: &str, most: &str) {
    let mut stream = connect(to);
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let sent = stream::send_what_is_taken(&mut stream, QUESTION, number(most));
    println!("sent {sent}");
    wait_for_a_line();
}

/// Reads nothing before it reads a line.
fn sleep_then_read(to: &str) {
    let mut stream = connect(to);
    wait_for_a_line();
    let (length, hash) = stream::receive_all(&mut stream);
    println!("received {length} {hash}");
}

/// Leaves to the system what it has sent.
fn send_and_exit(to: &str, length: &str) {
    stream::send(&mut connect(to), QUESTION, number(length));
}

/// An HTTP client with many connections: in each round every one of them has a
/// request on its way before the first answer is read.
fn keep_alive(to: &str, connections: &str, rounds: &str, length: &str) {
    let length = usize::try_from(number(length)).unwrap();
    let body = http::body(length);
    let mut streams: Vec<TcpStream> = (0..number(connections)).map(|_| connect(to)).collect();
    for _ in 0..number(rounds) {
        for stream in &mut streams {
            let request = format!("GET /bytes/{length} HTTP/1.1\r\nHost: {to}\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
        }
        for stream in &mut streams {
            assert!(read_answer(stream, length) == body, "a body");
        }
    }
    println!("answered {}", streams.len());
}

fn read_answer(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    body
}

fn ask_once(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"hello")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    stream.shutdown(Shutdown::Write)?;
    match (answer == *b"hello", stream.read(&mut answer)?) {
        (true, 0) => Ok(()),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

/// Opens flows, says so, and tells how each of them answers the question. A last one,
/// opened after that, is echoed.
fn hold(to: &str, flows: &str, question: &[u8], meanwhile: impl FnOnce()) {
    let mut streams: Vec<TcpStream> = (0..number(flows)).map(|_| connect(to)).collect();
    for stream in &mut streams {
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
    }
    println!("ready");
    meanwhile();
    for stream in &mut streams {
        // A reset is told once: to the write when it is there already.
        let asked = stream.write_all(question);
        match asked.and_then(|()| stream.read(&mut [0; 5])) {
            Ok(length) => println!("read {length}"),
            Err(error) => println!("{:?}", error.kind()),
        }
    }
    wait_for_a_line();
    match ask_once(to.parse().unwrap()) {
        Ok(()) => println!("again"),
        Err(error) => println!("not again: {error}"),
    }
}

/// The same beside a stream that never stops by itself, with a datagram of so many
/// bytes once that runs. When it stops the others are asked whether they are there.
fn hold_under_load(to: &str, flows: &str, length: &str) {
    let mut load = connect(to);
    let mut echo = load.try_clone().unwrap();
    std::thread::spawn(move || std::io::copy(&mut echo, &mut std::io::sink()));
    let (under_way, begun) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let piece = [0x5a; 65_536];
        for number in 0.. {
            if load.write_all(&piece).is_err() {
                let _ = stop.send(());
                return;
            }
            if number == 100 {
                let _ = under_way.send(());
            }
        }
    });
    // An engine that has lost a flow answers its next segment (RFC 9293 3.5.1).
    hold(to, flows, b"still there?", || {
        begun.recv().unwrap();
        send(to, &"x".repeat(usize::try_from(number(length)).unwrap()));
        stopped.recv().unwrap();
    });
}
