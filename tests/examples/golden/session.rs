//! One capture: a TUN device, the engine with the echo application behind a link,
//! and a tap where the engine is, so that what the link loses on the way in is not
//! in the capture and what it loses on the way out is.

use std::io::{self, Write};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use l3l4_host::Engine;
use l3l4_host::capture::{Content, Direction, Reader, Tap, Writer};
use l3l4_host::echo::{Echo, Server};
use l3l4_host::tun::{Configuration, Tun};

use crate::link::{Faults, Link};

/// A packet as the engine's side saw it.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Nanoseconds since 1970.
    pub(crate) at: u64,
    pub(crate) direction: Direction,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Session {
    mtu: u16,
    faults: Faults,
    others: Vec<Vec<u8>>,
}

impl Session {
    pub(crate) fn new(mtu: u16, faults: Faults) -> Self {
        Self {
            mtu,
            faults,
            others: Vec::new(),
        }
    }

    /// With packets that others send on the link.
    pub(crate) fn with(mut self, others: Vec<Vec<u8>>) -> Self {
        self.others = others;
        self
    }

    /// All packets while the clients ran.
    pub(crate) fn run(self, clients: &dyn Fn()) -> Vec<Packet> {
        let device = Tun::new(&Configuration {
            name: "l3l4".to_owned(),
            addresses: vec![
                "10.9.0.1/24".parse().unwrap(),
                "fd09::1/64".parse().unwrap(),
            ],
            mtu: self.mtu,
        })
        .expect("a TUN device");
        // The address is usable once the kernel has found nobody else to have it.
        while UdpSocket::bind("[fd09::1]:0").is_err() {
            thread::sleep(Duration::from_millis(20));
        }
        let sink = Sink::default();
        let writer = Writer::new(sink.clone(), "l3l4").unwrap();
        let link = Link::new(device, self.faults, self.others);
        let tap = Tap::new(link, writer);
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let engine = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let engine = Engine::builder()
                    .seed([0; 32])
                    .mtu(self.mtu.into())
                    .build(Echo::new(tap, ()))
                    .expect("an engine");
                ready.send(()).unwrap();
                Server::new(engine).run(&stop).expect("serves");
            }
        });
        is_ready.recv().unwrap();
        clients();
        // What the last close still brings.
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        engine.join().unwrap();
        sink.packets()
    }
}

/// A file in memory.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn packets(&self) -> Vec<Packet> {
        let file = self.0.lock().unwrap();
        let mut reader = Reader::new(&file[..]).unwrap();
        let mut packets = Vec::new();
        while let Some(captured) = reader.next().unwrap() {
            let Content::Ip(bytes) = captured.content else {
                panic!("{captured:?}");
            };
            packets.push(Packet {
                at: captured.at,
                direction: captured.direction.unwrap(),
                bytes: bytes.to_vec(),
            });
        }
        packets
    }
}
