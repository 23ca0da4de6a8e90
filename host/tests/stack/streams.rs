//! TCP as a stream: every byte, true half-close, the truth about the end.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use l3l4_host::stack::{ChannelDevice, FlowEnded, Stack};
use l3l4_host::{CloseReason, FlowOptions, Timer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::link::{
    CLIENT, SERVER, address, connect, connected, engine, incoming_tcp, pair, pair_of, run,
};

/// Bytes whose place shows: a lost or doubled piece is noticed.
fn pattern(length: usize) -> Vec<u8> {
    let counted = (0u32..).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes());
    counted.take(length).collect()
}

async fn send(mut to: impl AsyncWrite + Unpin, data: &[u8]) {
    to.write_all(data).await.unwrap();
    to.shutdown().await.unwrap();
}

async fn receive(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).await.unwrap();
    all
}

#[test]
fn both_directions_at_once_arrive_whole_and_the_end_is_clean() {
    run(async {
        let (client, server) = pair_of(Stack::builder().engine(engine()), Stack::builder());
        let (near, far) = connected(&client, &server).await;
        let (up, down) = (pattern(5_000_001), pattern(3_000_003));
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        let (got_down, got_up, (), ()) = tokio::join!(
            receive(near_read),
            receive(far_read),
            async {
                send(near_write, &up).await;
            },
            async {
                send(far_write, &down).await;
            },
        );
        assert!(got_up == up && got_down == down, "the bytes differ");
    });
}

#[test]
fn a_half_closed_stream_goes_on_the_other_way() {
    for client_first in [true, false] {
        run(async move {
            let (client, server) = pair();
            let (near, far) = connected(&client, &server).await;
            let (mut first, mut second) = match client_first {
                true => (near, far),
                false => (far, near),
            };
            first.write_all(b"question").await.unwrap();
            first.shutdown().await.unwrap();
            assert_eq!(receive(&mut second).await, b"question");
            assert_eq!(second.close_reason(), None);
            assert_eq!(
                first.write(b"more").await.unwrap_err().kind(),
                ErrorKind::BrokenPipe
            );

            let answer = pattern(1_000_000);
            let (got, ()) = tokio::join!(receive(&mut first), send(&mut second, &answer));
            assert!(got == answer, "the answer differs");
            assert_eq!(first.closed().await, CloseReason::Finished);
            assert_eq!(second.closed().await, CloseReason::Finished);
            assert_eq!(first.read(&mut [0; 9]).await.unwrap(), 0, "still the end");
        });
    }
}

#[test]
fn a_reset_is_an_error_after_all_that_came_before_it() {
    run(async {
        let (client, server) = pair();
        let (near, mut far) = connected(&client, &server).await;
        let mut writer = near;
        writer.write_all(b"last words").await.unwrap();
        while writer.info().await.unwrap().send_queue > 0 {
            tokio::task::yield_now().await;
        }
        writer.abort();
        assert_eq!(writer.closed().await, CloseReason::Aborted);
        assert_eq!(far.closed().await, CloseReason::ResetByPeer);

        let mut got = [0; 10];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"last words");
        let error = far.read(&mut got).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(FlowEnded::of(&error), Some(CloseReason::ResetByPeer));
        let error = far.write(b"anyone?").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

/// More than its stack holds lies before the peer's reset, and the task that reads takes
/// none of it for the time being: it hears of the reset all the same, nothing more can
/// be sent, and what came before is there when it reads.
#[test]
fn a_reset_is_told_while_what_came_before_it_waits() {
    run(async {
        let (client, server) = pair_of(
            Stack::builder().engine(engine()),
            Stack::builder().receive_queue(4096),
        );
        let (mut near, far) = connected(&client, &server).await;
        let data = pattern(50_000);
        near.write_all(&data).await.unwrap();
        while near.info().await.unwrap().send_queue > 0 {
            tokio::task::yield_now().await;
        }
        // Given up and awaited again: nothing is lost with it.
        let early = timeout(Duration::from_millis(50), far.ending()).await;
        assert!(early.is_err(), "{early:?}");
        near.abort();
        assert_eq!(far.ending().await, CloseReason::ResetByPeer);
        assert_eq!(far.close_reason(), None, "its data waits");

        let (mut read, mut write) = far.into_split();
        assert_eq!(read.ending().await, CloseReason::ResetByPeer);
        for error in [
            write.write(b"anyone?").await.unwrap_err(),
            write.shutdown().await.unwrap_err(),
        ] {
            assert_eq!(FlowEnded::of(&error), Some(CloseReason::ResetByPeer));
        }
        let mut got = vec![0; data.len()];
        read.read_exact(&mut got).await.unwrap();
        assert!(got == data, "the bytes differ");
        let error = read.read(&mut got).await.unwrap_err();
        assert_eq!(FlowEnded::of(&error), Some(CloseReason::ResetByPeer));
        assert_eq!(write.closed().await, CloseReason::ResetByPeer);
    });
}

/// A write that waits for room hears of the reset, though nobody reads.
#[test]
fn a_reset_wakes_a_write_that_waits() {
    run(async {
        let (client, server) = pair_of(
            Stack::builder().engine(engine()),
            Stack::builder().receive_queue(4096),
        );
        let (mut near, mut far) = connected(&client, &server).await;
        near.write_all(&pattern(50_000)).await.unwrap();
        while near.info().await.unwrap().send_queue > 0 {
            tokio::task::yield_now().await;
        }
        let flood = tokio::spawn(async move {
            let error = far.write_all(&vec![7; 64 << 20]).await.unwrap_err();
            (error, far)
        });
        // Until the flood stands still.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!flood.is_finished());
        near.abort();
        let (error, mut far) = flood.await.unwrap();
        assert_eq!(FlowEnded::of(&error), Some(CloseReason::ResetByPeer));
        // Given up, what waits is gone with the flow.
        far.abort();
        assert_eq!(far.closed().await, CloseReason::ResetByPeer);
        let mut kept = Vec::new();
        let error = far.read_to_end(&mut kept).await.unwrap_err();
        assert_eq!(FlowEnded::of(&error), Some(CloseReason::ResetByPeer));
        assert!(pattern(50_000).starts_with(&kept) && kept.len() >= 4096);
    });
}

#[test]
fn a_stream_that_is_dropped_sends_what_was_written_and_then_fin() {
    run(async {
        let (client, server) = pair();
        let (mut near, far) = connected(&client, &server).await;
        let data = pattern(200_000);
        near.write_all(&data).await.unwrap();
        drop(near);
        let mut far = far;
        assert!(receive(&mut far).await == data, "the bytes differ");
        // The dropped end reads no more: what is sent to it resets.
        far.write_all(b"too late").await.unwrap();
        assert_eq!(far.closed().await, CloseReason::ResetByPeer);
    });
}

#[test]
fn received_data_that_nobody_read_is_a_reset_when_the_stream_is_dropped() {
    run(async {
        let (client, server) = pair();
        let (mut near, far) = connected(&client, &server).await;
        near.write_all(b"unread").await.unwrap();
        while far.info().await.unwrap().bytes_received < 6 {
            tokio::task::yield_now().await;
        }
        drop(far);
        assert_eq!(near.closed().await, CloseReason::ResetByPeer);
    });
}

#[test]
fn the_half_that_writes_sends_fin_when_it_is_dropped_and_the_other_reads_on() {
    run(async {
        let (client, server) = pair();
        let (near, mut far) = connected(&client, &server).await;
        let (mut read, write) = near.into_split();
        drop(write);
        assert_eq!(far.read(&mut [0; 9]).await.unwrap(), 0);
        send(&mut far, b"answer").await;
        assert_eq!(receive(&mut read).await, b"answer");
    });
}

#[test]
fn a_slow_reader_holds_the_writer_back_and_nothing_grows() {
    run(async {
        let narrow = engine().tcp_buffer_size(65_536);
        let stack = || {
            let stack = Stack::builder().engine(narrow.clone());
            stack.receive_queue(32 * 1024).send_queue(32 * 1024)
        };
        let (client, server) = pair_of(stack(), stack());
        let (mut near, mut far) = connected(&client, &server).await;
        let data = pattern(1 << 20);
        let mut written = 0;
        while let Ok(taken) =
            timeout(Duration::from_millis(300), near.write(&data[written..])).await
        {
            written += taken.unwrap();
        }
        // Two queues of the host's and two buffers of the engines', some of them
        // counted in blocks.
        let most = 2 * 32 * 1024 + 2 * 65_536 + 16_384;
        assert!(written <= most, "{written} bytes were taken");
        assert!(written >= 2 * 32 * 1024, "{written} bytes were taken");

        let ((), got) = tokio::join!(send(&mut near, &data[written..]), receive(&mut far));
        assert!(got == data, "the bytes differ");
    });
}

#[test]
fn a_cancelled_read_or_write_loses_nothing() {
    run(async {
        let stack = || Stack::builder().engine(engine()).send_queue(4096);
        let (client, server) = pair_of(stack(), stack());
        let (mut near, mut far) = connected(&client, &server).await;
        let data = pattern(300_000);
        let writing = async {
            let mut written = 0;
            while written < data.len() {
                // One write in two is given up before it is polled a second time.
                tokio::select! {
                    biased;
                    taken = near.write(&data[written..]) => written += taken.unwrap(),
                    () = tokio::task::yield_now() => {}
                }
            }
            near.shutdown().await.unwrap();
        };
        let reading = async {
            let mut got = Vec::new();
            let mut buffer = [0; 3000];
            loop {
                tokio::select! {
                    biased;
                    taken = far.read(&mut buffer) => match taken.unwrap() {
                        0 => break got,
                        taken => got.extend_from_slice(&buffer[..taken]),
                    },
                    () = tokio::task::yield_now() => {}
                }
            }
        };
        let ((), got) = tokio::join!(writing, reading);
        assert!(got == data, "the bytes differ");
    });
}

#[test]
fn a_connection_opens_from_either_side_and_not_twice() {
    run(async {
        let (client, server) = pair();
        let (_near, _far) = connected(&client, &server).await;
        let again = connect(&client).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AddrInUse);

        let (local, peer) = (address("[fd00::1]:1"), address("[fd00::2]:2"));
        let open = server.connect(local, peer, FlowOptions::default());
        let accept = async { incoming_tcp(&client).await.accept(FlowOptions::default()) };
        let (far, near) = tokio::join!(open, accept);
        assert_eq!(far.unwrap().local_addr(), near.peer_addr());

        let mixed = client.connect(address("10.0.0.1:9"), peer, FlowOptions::default());
        assert_eq!(mixed.await.unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn a_peer_that_vanishes_is_a_timeout_and_not_an_end_of_the_data() {
    run(async {
        let impatient = FlowOptions {
            user_timeout: Some(Duration::from_millis(300)),
            ..FlowOptions::default()
        };
        let (to_client, packets_in) = mpsc::channel(64);
        let (packets_out, mut from_client) = mpsc::channel(64);
        let near = ChannelDevice::new(packets_in, packets_out, 1500);
        let client = Stack::builder().start(near).unwrap();
        let (to_server, packets_in) = mpsc::channel(64);
        let far = ChannelDevice::new(packets_in, to_client, 1500);
        let server = Stack::builder().start(far).unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Some(packet) = from_client.recv().await {
                if !is_cut.load(Ordering::Relaxed) {
                    let _ = to_server.send(packet).await;
                }
            }
        });
        let connecting = client.connect(address(CLIENT), address(SERVER), impatient);
        let accepted = async { incoming_tcp(&server).await.accept(FlowOptions::default()) };
        let (near, far) = tokio::join!(connecting, accepted);
        let mut near = near.unwrap();
        far.established().await.unwrap();
        cut.store(true, Ordering::Relaxed);
        near.write_all(b"are you there?").await.unwrap();
        let error = near.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        let reason = CloseReason::TimedOut(Timer::User);
        assert_eq!(FlowEnded::of(&error), Some(reason));
    });
}
