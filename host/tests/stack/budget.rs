//! The memory that all queues of a stack share.

use std::time::Duration;

use l3l4_host::stack::{Stack, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::link::{connected_from, engine, pair_of, pattern, run};

const FLOWS: u16 = 16;
/// Far less than the flows would hold without.
const MEMORY: usize = 64 * 1024;
/// What they hold at most: the memory, and each its 4 KiB.
const MOST: usize = MEMORY + FLOWS as usize * 4096;
const LENGTH: usize = 300_000;

/// A client, and a server whose queues have so little memory.
fn narrow() -> (Stack, Stack) {
    let engine = engine().tcp_buffer_size(65_536);
    pair_of(
        Stack::builder().engine(engine.clone()).receive_queue(4096),
        Stack::builder().engine(engine).queue_memory(MEMORY),
    )
}

/// As many connections: the client's ends and the server's.
async fn connections(client: &Stack, server: &Stack, first: u16) -> Vec<(TcpStream, TcpStream)> {
    let mut pairs = Vec::new();
    for port in first..first + FLOWS {
        pairs.push(connected_from(client, server, port).await);
    }
    pairs
}

fn data(flow: usize) -> Vec<u8> {
    pattern(flow, LENGTH)
}

/// Writes until nothing is taken for a while, and says how much was.
async fn fill(stream: &mut TcpStream, data: &[u8]) -> usize {
    let mut written = 0;
    while written < data.len() {
        let write = stream.write(&data[written..]);
        match timeout(Duration::from_millis(200), write).await {
            Ok(taken) => written += taken.unwrap(),
            Err(_) => break,
        }
    }
    written
}

async fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

async fn finish(stream: &mut TcpStream, rest: &[u8]) {
    stream.write_all(rest).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// All fill up, one after the other; then all go on at once, and none is forgotten.
#[test]
fn received_data_of_all_flows_has_one_memory() {
    run(async {
        let (client, server) = narrow();
        let mut pairs = connections(&client, &server, 20_000).await;
        let mut written = Vec::new();
        for (flow, (near, _)) in pairs.iter_mut().enumerate() {
            written.push(fill(near, &data(flow)).await);
        }
        let mut held = 0;
        for (_, far) in &pairs {
            let received = far.info().await.unwrap().bytes_received;
            assert!(received >= 4096, "a flow has its floor");
            held += usize::try_from(received).unwrap();
        }
        assert!((MEMORY..=MOST).contains(&held), "{held} bytes");

        let mut tasks = Vec::new();
        for (flow, (mut near, mut far)) in pairs.into_iter().enumerate() {
            let rest = data(flow)[written[flow]..].to_vec();
            tasks.push(tokio::spawn(async move {
                let ((), got) = tokio::join!(finish(&mut near, &rest), receive(&mut far));
                assert!(got == data(flow), "the bytes differ");
                far.shutdown().await.unwrap();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        // What they held is free again: one flow has all of it.
        let mut pairs = connections(&client, &server, 30_000).await;
        let (near, far) = &mut pairs[0];
        fill(near, &data(0)).await;
        let held = far.info().await.unwrap().bytes_received;
        assert_eq!(held, MEMORY as u64);
    });
}

#[test]
fn data_to_send_of_all_flows_has_one_memory() {
    run(async {
        let (client, server) = narrow();
        let mut pairs = connections(&client, &server, 20_000).await;
        let (mut written, mut held) = (Vec::new(), 0);
        for (flow, (_, far)) in pairs.iter_mut().enumerate() {
            written.push(fill(far, &data(flow)).await);
        }
        sleep(Duration::from_millis(100)).await;
        for ((_, far), written) in pairs.iter().zip(&written) {
            let sent = far.info().await.unwrap().bytes_sent;
            held += written - usize::try_from(sent).unwrap();
        }
        assert!((MEMORY..=MOST).contains(&held), "{held} bytes");

        let mut tasks = Vec::new();
        for (flow, (mut near, mut far)) in pairs.into_iter().enumerate() {
            let rest = data(flow)[written[flow]..].to_vec();
            tasks.push(tokio::spawn(async move {
                let ((), got) = tokio::join!(finish(&mut far, &rest), receive(&mut near));
                assert!(got == data(flow), "the bytes differ");
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}
