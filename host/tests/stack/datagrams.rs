//! UDP and ping.

use std::io::ErrorKind;
use std::time::Duration;

use l3l4_host::stack::{EchoFlow, Incoming, Stack, UdpFlow};
use l3l4_host::{CloseReason, FlowOptions, IcmpEchoPolicy, Timer};
use tokio::time::timeout;

use crate::link::{CLIENT, SERVER, address, engine, pair, pair_of, run};

pub(crate) async fn open(client: &Stack) -> UdpFlow {
    let (local, peer) = (address(CLIENT), address(SERVER));
    let opened = client.open_udp(local, peer, FlowOptions::default()).await;
    opened.unwrap()
}

pub(crate) async fn accept(server: &Stack, options: FlowOptions) -> UdpFlow {
    match server.accept().await.unwrap() {
        Incoming::Udp(udp) => udp.accept(options),
        other => panic!("{other:?}"),
    }
}

#[test]
fn datagrams_keep_their_boundaries_from_the_first_on() {
    run(async {
        let (client, server) = pair();
        let near = open(&client).await;
        let sizes = [0, 1, 1400, 65_507, 9000, 0];
        for size in sizes {
            near.send(&vec![7; size]).await.unwrap();
        }
        // The first ones came before the verdict.
        let far = accept(&server, FlowOptions::default()).await;
        for size in sizes {
            assert_eq!(far.recv_vec().await.unwrap(), vec![7; size]);
        }
        far.send(b"answer").await.unwrap();
        let mut short = [0; 3];
        assert_eq!(near.recv(&mut short).await.unwrap(), 3);
        assert_eq!(&short, b"ans");
        let longer = near.send(&[0; 65_508]).await.unwrap_err();
        assert_eq!(longer.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn an_answer_may_come_from_any_address() {
    run(async {
        let (client, server) = pair();
        let near = open(&client).await;
        near.send(b"anyone?").await.unwrap();
        let far = accept(&server, FlowOptions::default()).await;
        let other = address("10.77.0.1:7777");
        far.send_from(other, b"me").await.unwrap();
        // To the client that is a flow of its own.
        match client.accept().await.unwrap() {
            Incoming::Udp(udp) => {
                assert_eq!(udp.peer_addr(), other);
                let flow = udp.accept(FlowOptions::default());
                assert_eq!(flow.recv_vec().await.unwrap(), b"me");
            }
            unexpected => panic!("{unexpected:?}"),
        }
        let wrong = far.send_from(address("[fd00::1]:1"), b"").await;
        assert_eq!(wrong.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn an_idle_flow_times_out_and_says_so() {
    run(async {
        let (client, server) = pair();
        open(&client).await.send(b"once").await.unwrap();
        let short = FlowOptions {
            idle_timeout: Some(Duration::from_millis(200)),
            ..FlowOptions::default()
        };
        let far = accept(&server, short).await;
        far.recv_vec().await.unwrap();
        let error = far.recv_vec().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(far.close_reason(), Some(CloseReason::TimedOut(Timer::Idle)));
        assert_eq!(
            far.send(b"late").await.unwrap_err().kind(),
            ErrorKind::TimedOut
        );
    });
}

#[test]
fn a_reader_that_does_not_come_costs_datagrams_and_not_memory() {
    run(async {
        let server = Stack::builder().receive_queue(4096);
        let (client, server) = pair_of(Stack::builder(), server);
        let near = open(&client).await;
        near.send(b"first").await.unwrap();
        let far = accept(&server, FlowOptions::default()).await;
        for _ in 0..1000 {
            near.send(&[9; 100]).await.unwrap();
        }
        while server.counters().await.unwrap().l3_rx_packets < 1001 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(far.recv_vec().await.unwrap(), b"first");
        let mut kept = 0;
        while let Ok(datagram) = timeout(Duration::from_millis(50), far.recv_vec()).await {
            assert_eq!(datagram.unwrap(), [9; 100]);
            kept += 1;
        }
        assert!((10..=4096 / 164).contains(&kept), "{kept} were kept");
    });
}

#[test]
fn a_dropped_flow_is_gone_and_the_next_datagram_is_a_new_one() {
    run(async {
        let (client, server) = pair();
        let near = open(&client).await;
        near.send(b"one").await.unwrap();
        drop(accept(&server, FlowOptions::default()).await);
        while server.counters().await.unwrap().flows > 0 {
            tokio::task::yield_now().await;
        }
        near.send(b"two").await.unwrap();
        let far = accept(&server, FlowOptions::default()).await;
        assert_eq!(far.recv_vec().await.unwrap(), b"two");
    });
}

#[test]
fn pings_are_flows_when_they_are_asked_for() {
    run(async {
        let deliver = engine().icmp_echo(IcmpEchoPolicy::Deliver);
        let (to_stack, packets_in) = tokio::sync::mpsc::channel(8);
        let (packets_out, mut from_stack) = tokio::sync::mpsc::channel(8);
        let device = l3l4_host::stack::ChannelDevice::new(packets_in, packets_out, 1500);
        let stack = Stack::builder().engine(deliver).start(device).unwrap();
        to_stack.send(ping(b"abcdefgh")).await.unwrap();
        let flow: EchoFlow = match stack.accept().await.unwrap() {
            Incoming::IcmpEcho(echo) => echo.accept(FlowOptions::default()),
            other => panic!("{other:?}"),
        };
        let request = flow.recv_vec().await.unwrap();
        assert_eq!(
            request, b"\x00\x05abcdefgh",
            "the sequence number and the data"
        );
        assert_eq!(flow.peer_addr(), address("10.0.0.1:1234"), "the identifier");
        flow.send(&request).await.unwrap();
        let reply: Vec<u8> = from_stack.recv().await.unwrap();
        assert_eq!((reply[20], &reply[24..28]), (0, &[4, 210, 0, 5][..]));
        assert_eq!(&reply[28..], b"abcdefgh");
    });
}

/// An echo request from 10.0.0.1 to 10.9.9.9 with identifier 1234 and sequence
/// number 5 (RFC 792).
fn ping(data: &[u8]) -> Vec<u8> {
    let mut icmp = [&[8, 0, 0, 0, 4, 210, 0, 5], data].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    let length = u16::try_from(20 + icmp.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 1, 0, 0];
    header.extend([10, 0, 0, 1, 10, 9, 9, 9]);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [header, icmp].concat()
}

/// RFC 1071, over an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}
