//! A flow is announced before it is answered, and the verdict is what the peer sees.

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::task::Poll;
use std::time::Duration;

use l3l4_host::stack::{FlowEnded, Incoming, Stack};
use l3l4_host::{CloseReason, FlowOptions, Refusal, Unreachable};
use tokio::time::timeout;

use crate::link::{CLIENT, SERVER, address, connect, engine, incoming_tcp, pair, pair_of, run};

#[test]
fn nothing_is_answered_before_the_verdict() {
    run(async {
        let (client, server) = pair();
        let mut connecting = Box::pin(connect(&client));
        let incoming = tokio::select! {
            incoming = incoming_tcp(&server) => incoming,
            early = &mut connecting => panic!("{early:?} before it was accepted"),
        };
        assert_eq!(incoming.local_addr(), address(SERVER));
        assert_eq!(incoming.peer_addr(), address(CLIENT));
        let waited = timeout(Duration::from_millis(300), &mut connecting).await;
        assert!(waited.is_err(), "{waited:?} before it was accepted");
        let far = incoming.accept(FlowOptions::default());
        let near = connecting.await.unwrap();
        assert_eq!(near.peer_addr(), far.local_addr());
        far.established().await.unwrap();
    });
}

#[test]
fn a_refusal_reads_as_what_it_is() {
    for (refusal, kind) in [
        (Refusal::Reset, ErrorKind::ConnectionRefused),
        (Refusal::HostUnreachable, ErrorKind::HostUnreachable),
        (Refusal::NetworkUnreachable, ErrorKind::NetworkUnreachable),
        (Refusal::Prohibited, ErrorKind::PermissionDenied),
    ] {
        run(async move {
            let (client, server) = pair();
            let refused = async { incoming_tcp(&server).await.refuse(refusal) };
            let (near, ()) = tokio::join!(connect(&client), refused);
            assert_eq!(near.unwrap_err().kind(), kind);
        });
    }
}

#[test]
fn a_flow_that_is_dropped_is_refused() {
    run(async {
        let (client, server) = pair();
        let dropped = async { drop(server.accept().await) };
        let (near, ()) = tokio::join!(connect(&client), dropped);
        assert_eq!(near.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_flow_that_is_ignored_is_tried_again() {
    run(async {
        let (client, server) = pair();
        let accepted = async {
            incoming_tcp(&server).await.ignore();
            incoming_tcp(&server).await.accept(FlowOptions::default())
        };
        let (near, _far) = tokio::join!(connect(&client), accepted);
        near.unwrap();
    });
}

/// A peer that takes its SYN back says nothing (RFC 9293 3.10.5): its silence tells.
#[test]
fn a_flow_whose_peer_has_given_up_is_left_out() {
    run(async {
        let patient = engine().verdict_timeout(Duration::from_millis(100));
        let (client, server) = pair_of(Stack::builder(), Stack::builder().engine(patient));
        let given_up = timeout(Duration::from_millis(50), connect(&client)).await;
        assert!(given_up.is_err(), "{given_up:?} before it was accepted");
        while client.counters().await.unwrap().flows > 0 {
            tokio::task::yield_now().await;
        }
        while server.counters().await.unwrap().flows_closed == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let accepted = async { incoming_tcp(&server).await.accept(FlowOptions::default()) };
        let (local, peer) = (address("10.0.0.1:40001"), address(SERVER));
        let connecting = client.connect(local, peer, FlowOptions::default());
        let (near, far) = tokio::join!(connecting, accepted);
        near.unwrap();
        assert_eq!(far.peer_addr(), local, "the one that still waits");
    });
}

/// The driver has opened it, and the task that asked went before it looked. On one
/// thread, so that the driver has no turn in between.
#[tokio::test]
async fn a_flow_whose_opener_is_gone_is_given_up() {
    let story = async {
        let (client, _server) = pair();
        let mut tcp = Box::pin(connect(&client));
        let (local, peer) = (address(CLIENT), address(SERVER));
        let mut udp = Box::pin(client.open_udp(local, peer, FlowOptions::default()));
        poll_fn(|cx| {
            assert!(tcp.as_mut().poll(cx).is_pending());
            assert!(udp.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        while client.counters().await.unwrap().flows_opened < 2 {}
        drop((tcp, udp));
        while client.counters().await.unwrap().flows > 0 {}
    };
    let told = timeout(Duration::from_secs(60), story).await;
    assert!(told.is_ok(), "the story hangs");
}

#[test]
fn a_full_backlog_is_silent_and_counted() {
    run(async {
        let (client, server) = pair_of(Stack::builder(), Stack::builder().backlog(1));
        let connects: Vec<_> = (1..=3)
            .map(|port| {
                let client = client.clone();
                tokio::spawn(async move {
                    let local = address(&format!("10.0.0.1:{port}"));
                    let options = FlowOptions::default();
                    client.connect(local, address(SERVER), options).await
                })
            })
            .collect();
        while server.metrics().await.unwrap().host.backlog_full < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Their next SYNs find room.
        let mut accepted = Vec::new();
        for _ in 0..3 {
            accepted.push(incoming_tcp(&server).await.accept(FlowOptions::default()));
        }
        for connect in connects {
            connect.await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_refused_datagram_flow_tells_its_peer() {
    run(async {
        let (client, server) = pair();
        let flow = client
            .open_udp(address(CLIENT), address(SERVER), FlowOptions::default())
            .await
            .unwrap();
        flow.send(b"anyone?").await.unwrap();
        match server.accept().await.unwrap() {
            Incoming::Udp(udp) => udp.refuse(Refusal::PortUnreachable),
            other => panic!("{other:?}"),
        }
        let error = flow.recv(&mut [0; 9]).await.unwrap_err();
        let reason = CloseReason::Unreachable(Unreachable::Port);
        assert_eq!(FlowEnded::of(&error), Some(reason));
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_verdict_that_does_not_come_ends_the_flow() {
    run(async {
        let patient = engine().verdict_timeout(Duration::from_millis(100));
        let (client, server) = pair_of(Stack::builder(), Stack::builder().engine(patient));
        let connecting = tokio::spawn(async move { connect(&client).await.map(drop) });
        let incoming = incoming_tcp(&server).await;
        let reason = incoming.gave_up().await;
        assert_eq!(reason, CloseReason::TimedOut(l3l4_host::Timer::Verdict));
        connecting.abort();
    });
}
