//! What many flows have to send in a turn goes to the engine in one call.

use std::fs::{self, File};
use std::io::{BufReader, Seek};
use std::sync::atomic::{AtomicU32, Ordering};

use l3l4_host::record::{Call, Frame, Reader};
use l3l4_host::stack::{Builder, Stack, TcpStream, UdpFlow};
use l3l4_host::{CloseReason, DataBatch, FlowOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::datagrams::{accept, open};
use crate::guest;
use crate::link::{connected_from, engine, link, link_of, pattern, run_on_one_thread};

/// Two stacks with so many packets between them each way.
fn linked(packets: usize, server: Builder) -> (Stack, Stack) {
    let (near, far) = link_of(packets, 1500);
    let client = Stack::builder().engine(engine());
    (client.start(near).unwrap(), server.start(far).unwrap())
}

/// A flow of datagrams, both its ends.
async fn datagrams(client: &Stack, server: &Stack) -> (UdpFlow, UdpFlow) {
    let near = open(client).await;
    near.send(b"hello").await.unwrap();
    let far = accept(server, FlowOptions::default()).await;
    assert_eq!(far.recv_vec().await.unwrap(), b"hello");
    (near, far)
}

/// A file for a record, gone when it is closed.
fn unnamed_file() -> File {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("l3l4-together-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(&path);
    fs::remove_file(path).unwrap();
    file.unwrap()
}

/// How many portions each `l4_tx_batch` of a record has, and the bytes of each `l4_tx`.
fn calls(record: File) -> (Vec<usize>, Vec<usize>) {
    let mut reader = Reader::new(BufReader::new(record)).unwrap();
    let (mut batches, mut alone) = (Vec::new(), Vec::new());
    while let Some(frame) = reader.next_frame().unwrap() {
        match frame {
            Frame::Call(Call::L4TxBatch { portions, .. }) => batches.push(portions.len()),
            Frame::Call(Call::L4Tx { data, .. }) => alone.push(data.0.len()),
            _ => {}
        }
    }
    (batches, alone)
}

#[test]
fn what_many_flows_write_at_once_goes_in_one_call() {
    const FLOWS: u16 = 40;
    let mut record = unnamed_file();
    let server = Stack::builder().engine(engine());
    let server = server.record(record.try_clone().unwrap());
    run_on_one_thread(async {
        let (client, server) = linked(256, server);
        let mut pairs = Vec::new();
        for port in 2000..2000 + FLOWS {
            pairs.push(connected_from(&client, &server, port).await);
        }
        let (near, far) = datagrams(&client, &server).await;

        for (flow, (_, far)) in pairs.iter_mut().enumerate() {
            far.write_all(&pattern(flow, 100 + flow)).await.unwrap();
        }
        for length in 0..20 {
            far.send(&pattern(length, length)).await.unwrap();
        }
        for (flow, (near, _)) in pairs.iter_mut().enumerate() {
            let mut got = vec![0; 100 + flow];
            near.read_exact(&mut got).await.unwrap();
            assert!(got == pattern(flow, 100 + flow), "flow {flow}");
        }
        for length in 0..20 {
            assert_eq!(near.recv_vec().await.unwrap(), pattern(length, length));
        }
        server.shutdown().await;
    });
    record.rewind().unwrap();
    let (batches, _) = calls(record);
    assert!(batches.contains(&(usize::from(FLOWS) + 20)), "{batches:?}");
}

/// What was gathered is gone with its flow, and the next is sent alone.
#[test]
fn a_trap_in_a_batch_ends_its_flows_and_not_the_service() {
    let component = guest::with_export("l4-tx-batch", |code, _| {
        code.unreachable();
    });
    let mut record = unnamed_file();
    let server = Stack::builder().engine(engine().component(&component));
    let server = server.record(record.try_clone().unwrap());
    run_on_one_thread(async {
        let (device, _far) = link(1500);
        let server = server.start(device).unwrap();
        let flow = open(&server).await;
        flow.send(b"two of").await.unwrap();
        flow.send(b"a turn").await.unwrap();
        assert_eq!(flow.closed().await, CloseReason::EngineLost);
        assert_eq!(server.metrics().await.unwrap().host.restarts, 1);

        let next = open(&server).await;
        next.send(b"one").await.unwrap();
        assert_eq!(server.metrics().await.unwrap().host.restarts, 1);
        server.shutdown().await;
    });
    record.rewind().unwrap();
    let (batches, alone) = calls(record);
    assert_eq!(batches, [2]);
    assert!(alone.contains(&3), "{alone:?}");
}

/// Short pieces and long ones, more than the engine takes, to a device that takes
/// little: parts of a batch come back, and nothing is lost or doubled.
#[test]
fn what_is_not_taken_of_a_batch_goes_later_in_order() {
    const FLOWS: u16 = 24;
    const LENGTH: usize = 60_000;
    let mut record = unnamed_file();
    let server = Stack::builder().engine(engine().tcp_send_buffer(4096));
    let server = server
        .send_queue(10_000)
        .record(record.try_clone().unwrap());
    run_on_one_thread(async {
        let (client, server) = linked(4, server);
        let mut pairs = Vec::new();
        for port in 2000..2000 + FLOWS {
            pairs.push(connected_from(&client, &server, port).await);
        }
        let mut tasks = Vec::new();
        for (flow, (near, far)) in pairs.into_iter().enumerate() {
            tasks.push(tokio::spawn(write_in_pieces(flow, far, LENGTH)));
            tasks.push(tokio::spawn(read_all(flow, near, LENGTH)));
        }
        let (near, far) = datagrams(&client, &server).await;
        let sending = tokio::spawn(async move {
            for number in 0..500 {
                let length = number % 7 * 300;
                far.send(&pattern(number, length)).await.unwrap();
                tokio::task::yield_now().await;
            }
            far
        });
        // An empty one that the device does not take is given up, and takes no other
        // with it.
        for number in (0..500).filter(|number| number % 7 > 0) {
            let mut got = near.recv_vec().await.unwrap();
            while got.is_empty() {
                got = near.recv_vec().await.unwrap();
            }
            assert!(got == pattern(number, number % 7 * 300), "{number}");
        }
        drop(sending.await.unwrap());
        for task in tasks {
            task.await.unwrap();
        }
        server.shutdown().await;
    });
    record.rewind().unwrap();
    let (batches, alone) = calls(record);
    assert!(batches.iter().any(|portions| *portions > 2), "{batches:?}");
    let is_long = |length: &usize| *length > DataBatch::SHORT_BYTES;
    assert!(alone.iter().any(is_long), "{alone:?}");
}

async fn write_in_pieces(flow: usize, mut stream: TcpStream, length: usize) {
    let data = pattern(flow, length);
    let lengths = [1, 100, 1460, DataBatch::SHORT_BYTES, 20_000];
    let (mut rest, mut turn) = (&data[..], flow);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(lengths[turn % lengths.len()].min(rest.len()));
        stream.write_all(piece).await.unwrap();
        rest = after;
        turn += 1;
    }
    stream.shutdown().await.unwrap();
}

async fn read_all(flow: usize, mut stream: TcpStream, length: usize) {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert!(got == pattern(flow, length), "flow {flow}: {}", got.len());
}
