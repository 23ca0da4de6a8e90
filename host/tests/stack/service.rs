//! The stack as a whole: its end, a trap, its numbers, several engines.

use std::io::ErrorKind;
use std::time::Duration;

use l3l4_host::stack::{ChannelDevice, Incoming, Stack, TcpStream};
use l3l4_host::{CloseReason, DropReason, FlowOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::link::{address, connect, connected, engine, incoming_tcp, link, link_of, pair, run};

#[test]
fn shutdown_resets_every_flow_and_ends_the_stack() {
    run(async {
        let (client, server) = pair();
        let (near, far) = connected(&client, &server).await;
        server.shutdown().await;
        assert_eq!(far.closed().await, CloseReason::Aborted);
        assert_eq!(near.closed().await, CloseReason::ResetByPeer, "it was told");
        assert_eq!(
            server.accept().await.unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
        assert!(server.metrics().await.is_err());
        server.shutdown().await;
    });
}

#[test]
fn shutdown_refuses_a_flow_that_waits_for_its_verdict() {
    run(async {
        let (client, server) = pair();
        let near = client.clone();
        let connecting = tokio::spawn(async move { connect(&near).await });
        while server.counters().await.unwrap().flows == 0 {
            tokio::task::yield_now().await;
        }
        server.shutdown().await;
        let error = connecting.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn streams_outlive_the_handles_of_their_stack() {
    run(async {
        let (client, server) = pair();
        let (mut near, mut far) = connected(&client, &server).await;
        drop((client, server));
        near.write_all(b"still here").await.unwrap();
        let mut got = [0; 10];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"still here");
    });
}

#[test]
fn what_was_sent_last_leaves_before_the_stack_ends() {
    run(async {
        let (_to_stack, packets_in) = mpsc::channel(1);
        let (packets_out, mut from_stack) = mpsc::channel(1);
        let device = ChannelDevice::new(packets_in, packets_out, 1500);
        let stack = Stack::builder().start(device).unwrap();
        let (local, peer) = (address("10.0.0.1:1"), address("10.0.0.2:2"));
        let open = stack.open_udp(local, peer, FlowOptions::default());
        let flow = open.await.unwrap();
        for data in [b"1", b"2"] {
            flow.send(data).await.unwrap();
            while flow.info().await.unwrap().bytes_sent < u64::from(data[0] - b'0') {}
        }
        drop((flow, stack));
        // The driver has nothing left to do but this.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for data in [b"1", b"2"] {
            let packet = from_stack.recv().await.unwrap();
            assert!(packet.ends_with(data), "{packet:?}");
        }
        assert_eq!(from_stack.recv().await, None);
    });
}

#[test]
fn a_device_that_fails_ends_the_stack_and_nobody_waits_on() {
    run(async {
        let (near_device, far_device) = link(1500);
        let client = Stack::builder().start(near_device).unwrap();
        let server = Stack::builder().start(far_device).unwrap();
        let (near, mut far) = connected(&client, &server).await;
        // The client's driver ends with its last flow, and its half of the link goes.
        client.shutdown().await;
        drop(near);
        let error = server.accept().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        let error = far.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

/// More beginnings of datagrams than this guest's memory holds.
async fn make_it_trap(to_server: &mpsc::Sender<Vec<u8>>) {
    for id in 0..64u8 {
        to_server.send(first_fragment(id)).await.unwrap();
    }
}

/// The first 60,000 bytes of a datagram that is never completed.
fn first_fragment(id: u8) -> Vec<u8> {
    const LENGTH: u16 = 20 + 60_000;
    let [high, low] = LENGTH.to_be_bytes();
    let header = [
        0x45, 0, high, low, 0, id, 0x20, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    let words = header
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let sum = !u16::try_from((sum >> 16) + (sum & 0xffff)).unwrap();
    let mut packet = vec![0; LENGTH.into()];
    packet[..20].copy_from_slice(&header);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn a_trap_ends_the_flows_and_not_the_service() {
    run(async {
        let (to_server, from_both) = mpsc::channel(256);
        let (to_client, from_server) = mpsc::channel(256);
        let near = ChannelDevice::new(from_server, to_server.clone(), 65_535);
        let far = ChannelDevice::new(from_both, to_client, 65_535);
        let small = engine().guest_memory_limit(3 << 20).memory_limit(1 << 20);
        let client = Stack::builder().start(near).unwrap();
        let server = Stack::builder().engine(small).start(far).unwrap();
        let (near, mut far) = connected(&client, &server).await;

        while server.metrics().await.unwrap().host.restarts == 0 {
            make_it_trap(&to_server).await;
        }
        assert_eq!(far.closed().await, CloseReason::EngineLost);
        let error = far.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        // The peer hears of it, though it says nothing.
        assert_eq!(near.closed().await, CloseReason::ResetByPeer);
        while server.metrics().await.unwrap().engine.flows > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        let open = client.connect(
            address("10.0.0.1:2"),
            address("10.0.0.2:2"),
            FlowOptions::default(),
        );
        let accept = async { incoming_tcp(&server).await.accept(FlowOptions::default()) };
        let (near, _far) = tokio::join!(open, accept);
        near.unwrap();
    });
}

#[test]
fn the_numbers_tell_what_happened() {
    run(async {
        let (client, server) = pair();
        let (mut near, mut far) = connected(&client, &server).await;
        near.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        far.read_exact(&mut got).await.unwrap();
        let metrics = server.metrics().await.unwrap();
        assert_eq!((metrics.host.accepted, metrics.engine.flows), (1, 1));
        assert_eq!(metrics.engine.l4_rx_bytes, 5);
        let info = far.info().await.unwrap();
        assert_eq!((info.tuple.peer, info.bytes_received), (far.peer_addr(), 5));
        let text = server.prometheus().await.unwrap();
        assert!(text.contains("l3l4_l4_rx_bytes_total 5\n"), "{text}");
    });
}

/// A link with several queues: what is sent on any comes out of `from_all`.
struct Queues {
    to_each: Vec<mpsc::Sender<Vec<u8>>>,
    from_all: mpsc::Receiver<Vec<u8>>,
    devices: Vec<ChannelDevice>,
}

fn queues(count: usize) -> Queues {
    let (packets_out, from_all) = mpsc::channel(1024);
    let (to_each, packets_in): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(1024)).unzip();
    let device = |packets_in| ChannelDevice::new(packets_in, packets_out.clone(), 1500);
    Queues {
        to_each,
        from_all,
        devices: packets_in.into_iter().map(device).collect(),
    }
}

/// The link gives every packet to another queue regardless of its flow, the worst
/// that a link can do: most packets are handed over, and some are reordered.
#[test]
fn several_engines_share_a_link_and_each_flow_stays_with_one() {
    run(async {
        let Queues {
            to_each,
            mut from_all,
            devices,
        } = queues(3);
        let server = Stack::builder().start_spread(devices).unwrap();
        let (to_client, packets_in) = mpsc::channel(1024);
        let (packets_out, mut from_client) = mpsc::channel::<Vec<u8>>(1024);
        let near = ChannelDevice::new(packets_in, packets_out, 1500);
        let client = Stack::builder().engine(engine()).start(near).unwrap();
        tokio::spawn(async move {
            let mut next = 0;
            while let Some(packet) = from_client.recv().await {
                next = (next + 1) % to_each.len();
                if to_each[next].send(packet).await.is_err() {
                    break;
                }
            }
        });
        tokio::spawn(async move {
            while let Some(packet) = from_all.recv().await {
                if to_client.send(packet).await.is_err() {
                    break;
                }
            }
        });

        let echo = server.clone();
        tokio::spawn(async move {
            while let Ok(Incoming::Tcp(tcp)) = echo.accept().await {
                tokio::spawn(async move {
                    let stream = tcp.accept(FlowOptions::default());
                    let (mut read, mut write) = stream.into_split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let clients: Vec<_> = (1..=24)
            .map(|port| exchange(client.clone(), port))
            .collect();
        for task in clients.into_iter().map(tokio::spawn).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let metrics = server.metrics().await.unwrap();
        assert_eq!((metrics.instances, metrics.host.accepted), (3, 24));
        let stray = metrics.engine.dropped(DropReason::StraySegment);
        assert_eq!(stray, 0, "packets that found the wrong engine");

        // The other way: the answer finds the engine that asked.
        let open = server.connect(
            address("10.9.9.9:99"),
            address("10.0.0.1:99"),
            FlowOptions::default(),
        );
        let accept = async { incoming_tcp(&client).await.accept(FlowOptions::default()) };
        let (far, _near) = tokio::join!(open, accept);
        far.unwrap();
        server.shutdown().await;
    });
}

async fn exchange(client: Stack, port: u16) {
    let (local, peer) = (format!("10.0.0.1:{port}"), address("10.9.9.9:80"));
    let connecting = client.connect(address(&local), peer, FlowOptions::default());
    let mut stream: TcpStream = connecting.await.unwrap();
    for round in 0..20u8 {
        stream.write_all(&[round; 500]).await.unwrap();
        let mut got = [0; 500];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(got, [round; 500]);
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);
}

#[test]
fn a_link_that_is_full_for_a_while_loses_nothing() {
    run(async {
        let (near, far) = link_of(1, 1500);
        let client = Stack::builder().engine(engine()).start(near).unwrap();
        let server = Stack::builder().engine(engine()).start(far).unwrap();
        let (mut near, mut far) = connected(&client, &server).await;
        let data = vec![5; 1_000_000];
        let writing = async {
            near.write_all(&data).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let ((), read) = tokio::join!(writing, far.read_to_end(&mut got));
        assert_eq!((read.unwrap(), got == data), (data.len(), true));
        let metrics = client.metrics().await.unwrap();
        assert_eq!(metrics.host.packets_lost, 0);
    });
}

#[test]
fn a_stack_is_not_started_without_a_device() {
    run(async {
        let started = Stack::builder().start_spread(Vec::<ChannelDevice>::new());
        let error = started.unwrap_err().to_string();
        assert!(error.contains("at least one device"), "{error}");
        let (near, _far) = link(1500);
        let wrong = Stack::builder().engine(engine().mtu(3)).start(near);
        let error = wrong.unwrap_err().to_string();
        assert!(error.contains("mtu"), "{error}");
    });
}
