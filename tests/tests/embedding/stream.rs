//! Streams that both ends know: made, sent, received and checked piece by piece.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use l3l4_tests::random::Random;
use sha2::{Digest, Sha256};

/// Seeds of what a client and a server send.
pub(crate) const QUESTION: u64 = 1;
pub(crate) const ANSWER: u64 = 2;

const PIECE: usize = 64 << 10;

/// The stream of a seed, in pieces.
struct Pieces {
    random: Random,
    left: u64,
}

impl Pieces {
    fn new(seed: u64, length: u64) -> Self {
        Self {
            random: Random::new(seed),
            left: length,
        }
    }
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        self.left -= length as u64;
        (length > 0).then(|| self.random.bytes(length))
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The hash of so much of the stream of a seed.
pub(crate) fn hash(seed: u64, length: u64) -> String {
    let mut hash = Sha256::new();
    Pieces::new(seed, length).for_each(|piece| hash.update(piece));
    hex(hash)
}

/// Sends so much of the stream of a seed, and gives its hash.
pub(crate) fn send(stream: &mut TcpStream, seed: u64, length: u64) -> String {
    let mut hash = Sha256::new();
    for piece in Pieces::new(seed, length) {
        stream.write_all(&piece).unwrap();
        hash.update(&piece);
    }
    hex(hash)
}

/// Sends of the stream of a seed until the write timeout comes, and says how many
/// bytes were taken.
pub(crate) fn send_what_is_taken(stream: &mut TcpStream, seed: u64, most: u64) -> u64 {
    let mut taken = 0;
    for piece in Pieces::new(seed, most) {
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(length) => {
                    taken += length as u64;
                    rest = &rest[length..];
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return taken,
                Err(error) => panic!("{error}"),
            }
        }
    }
    taken
}

/// Receives to the end of data: how much, and its hash.
pub(crate) fn receive_all(stream: &mut TcpStream) -> (u64, String) {
    let (mut hash, mut received) = (Sha256::new(), 0);
    let mut buffer = vec![0; PIECE];
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return (received, hex(hash)),
            length => {
                received += length as u64;
                hash.update(&buffer[..length]);
            }
        }
    }
}

/// Receives to the end of data, which has to be the stream of a seed, and gives its
/// hash.
pub(crate) fn receive_to_end(stream: &mut TcpStream, seed: u64, length: u64) -> String {
    let (received, received_hash) = receive_all(stream);
    assert_eq!((received, &received_hash), (length, &hash(seed, length)));
    received_hash
}
