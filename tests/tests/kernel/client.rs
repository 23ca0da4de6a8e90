//! The kernel's side of transfers: sockets that do not block, all served by one
//! thread, however many they are.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::order::Order;
use crate::pattern::Pattern;
use crate::server::Server;

const PIECE: usize = 64 << 10;
/// The connection goes on being made (Linux).
const EINPROGRESS: i32 = 115;
/// How long it sleeps when nothing moves.
const PAUSE: Duration = Duration::from_micros(200);

/// When the client sends what comes after its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// At once.
    Now,
    /// At the end of the server's data.
    Last,
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    order: Order,
    upload: Upload,
    up: Pattern,
    /// Bytes to make.
    left: u64,
    /// Bytes made that the kernel did not take.
    piece: Vec<u8>,
    down: Pattern,
    received: u64,
    /// All was sent, and the kernel knows.
    shut: bool,
    /// The server's end of data came.
    ended: bool,
}

impl Client {
    /// Begins to connect.
    pub(crate) fn new(to: SocketAddr, order: Order, upload: Upload) -> Self {
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP)).unwrap();
        // Every kernel has it. BBR, where it is the default, may go on with 512 bytes
        // a second for minutes after the device's queue overflowed.
        socket.set_tcp_congestion(b"reno").unwrap();
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
            Err(error) => panic!("{to}: {error}"),
        }
        Self {
            stream: socket.into(),
            order,
            upload,
            up: order.up_pattern(),
            left: order.up,
            piece: order.bytes(),
            down: order.down_pattern(),
            received: 0,
            shut: false,
            ended: false,
        }
    }

    /// All went both ways, but for the ends.
    pub(crate) fn has_moved_all(&self) -> bool {
        self.has_sent_all() && self.received == self.order.down
    }

    /// Both ends of data came through.
    pub(crate) fn is_done(&self) -> bool {
        self.shut && self.ended
    }

    fn has_sent_all(&self) -> bool {
        self.left == 0 && self.piece.is_empty()
    }

    /// Sends and receives what it can; whether anything moved.
    fn step(&mut self, finish: bool, buffer: &mut [u8]) -> io::Result<bool> {
        Ok(self.send(finish)? | self.receive(buffer)?)
    }

    fn send(&mut self, finish: bool) -> io::Result<bool> {
        let mut moved = false;
        while !self.shut {
            if self.piece.is_empty() {
                if self.upload == Upload::Last && !self.ended {
                    return Ok(moved);
                }
                self.refill();
            }
            if self.piece.is_empty() {
                if finish {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.shut = true;
                }
                return Ok(moved);
            }
            match self.stream.write(&self.piece) {
                Ok(sent) => drop(self.piece.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(moved),
                Err(error) => return Err(error),
            }
            moved = true;
        }
        Ok(moved)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        match self.stream.read(buffer) {
            Ok(0) => {
                assert_eq!(self.received, self.order.down, "an early end of data");
                self.ended = true;
            }
            Ok(length) => {
                if let Err(at) = self.down.check(&buffer[..length]) {
                    panic!(
                        "{:?}: byte {} differs",
                        self.order,
                        self.received + at as u64
                    );
                }
                self.received += length as u64;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn refill(&mut self) {
        let length = usize::try_from(self.left).map_or(PIECE, |left| left.min(PIECE));
        self.piece.resize(length, 0);
        self.up.fill(&mut self.piece);
        self.left -= length as u64;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("order", &self.order)
            .field("upload", &self.upload)
            .field("unsent", &(self.left + self.piece.len() as u64))
            .field("received", &self.received)
            .field("shut", &self.shut)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// Serves all clients until `done` of each. `finish` lets them end their data.
pub(crate) fn serve(
    clients: &mut [Client],
    server: &Server,
    until: Instant,
    finish: bool,
    done: impl Fn(&Client) -> bool,
) {
    let mut buffer = vec![0; PIECE];
    while !clients.iter().all(&done) {
        let mut moved = false;
        for client in &mut *clients {
            match client.step(finish, &mut buffer) {
                Ok(any) => moved |= any,
                Err(error) => panic!("{error}: {client:?}"),
            }
        }
        if !moved {
            assert!(server.lives(), "the server has panicked");
            let waiting = clients.iter().find(|client| !done(client));
            assert!(Instant::now() < until, "hangs: {waiting:?}");
            std::thread::sleep(PAUSE);
        }
    }
}
