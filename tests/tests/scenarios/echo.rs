//! The host's echo application, beside a peer that is crafted: on the host's clock,
//! for it is its loop that is tested.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use l3l4_host::device::{Device, Memory, pair};
use l3l4_host::echo::{Echo, Server, Watch};
use l3l4_host::{CloseReason, Engine, FiveTuple, FlowId};
use l3l4_tests::craft::{Family, Peer, Segment};
use l3l4_tests::wire;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tells how flows end.
struct Ends(Sender<CloseReason>);

impl Watch for Ends {
    fn closed(&mut self, _: FlowId, _: &FiveTuple, _: u64, reason: CloseReason) {
        self.0.send(reason).unwrap();
    }
}

/// The peer takes nothing of what is echoed until all windows are shut, and resets: what
/// it sent last lies in the engine, and nobody will ever have it.
#[test]
fn a_peer_that_resets_with_all_windows_shut_is_gone_at_once() {
    let (device, mut link) = pair(1500, 256);
    let (ends, ended) = channel();
    let stop = Arc::new(AtomicBool::new(false));
    let served = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let engine = Engine::builder().build(Echo::new(device, Ends(ends)));
            Server::new(engine.unwrap()).run(&stop)
        }
    });
    reset_with_windows_shut(&mut link, &ended);
    stop.store(true, Ordering::Relaxed);
    served.join().unwrap().unwrap();
}

fn reset_with_windows_shut(link: &mut Memory, ended: &Receiver<CloseReason>) {
    let mut peer = Peer::new(Family::V4);
    send(link, peer.syn().mss(1460));
    peer.hear(&next(link).expect("a SYN-ACK"));
    send(link, peer.ack());
    // The window that the SYN-ACK offers goes on, and each ACK says what is left of it.
    let mut edge = peer.next.wrapping_add(1460);
    while edge.wrapping_sub(peer.next).cast_signed() >= 1460 {
        send(link, peer.data(&[7; 1460]).window(0));
        while let Some(segment) = next(link) {
            edge = segment.ack.wrapping_add(segment.window.into());
            if segment.ack == peer.next {
                break;
            }
        }
    }
    send(link, peer.rst());
    let reason = ended.recv_timeout(PATIENCE).expect("the end of the flow");
    assert_eq!(reason, CloseReason::ResetByPeer);
}

fn send(link: &mut Memory, segment: Segment) {
    link.send(&Vec::from(segment)).expect("room");
}

/// The next segment; `None` when none comes within a delayed acknowledgement.
fn next(link: &mut Memory) -> Option<wire::Tcp> {
    let start = Instant::now();
    let mut packet = [0; 1500];
    while start.elapsed() < Duration::from_millis(500) {
        match link.receive(&mut packet) {
            Ok(length) => return Some(wire::read(&packet[..length]).unwrap().tcp()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                link.wait(Some(Duration::from_millis(20)), false).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    None
}
