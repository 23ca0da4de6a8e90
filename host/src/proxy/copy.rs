//! Carries the bytes of two streams to each other.
//!
//! tokio's `copy_bidirectional` does not say which side failed, and then forgets how
//! much was carried; here both are known, for a reset is passed on to the other side
//! and never taken for an end of data.
//!
//! A side is heard of while something is read from it. While nothing is, since the
//! other side does not take what was read or its data has ended, it is asked whether
//! it is lost.
//!
//! Memory: bytes are read into one buffer of the thread and written from it at once.
//! What the other side does not take is kept, at most one buffer a direction, and
//! nothing more is read in that direction until it is gone. A flow that is idle or
//! flows freely owns no buffer.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// Bytes read at once.
const CHUNK: usize = 128 * 1024;
/// Chunks of one direction before others get their turn.
const CHUNKS_A_TURN: usize = 8;
/// How long one side may take nothing of the last words of the other that is lost: it is
/// to hear of the end too.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Bytes carried so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// From the peer to the destination.
    pub(super) sent: u64,
    /// From the destination to the peer.
    pub(super) received: u64,
}

/// Which side failed, and how.
#[derive(Debug)]
pub(super) enum Failure {
    Peer(io::Error),
    Destination(io::Error),
}

/// Carries both directions until both have ended: an end of data is passed on alone,
/// the other direction goes on. The first failure ends it, after all that the side
/// that failed had said, as far as the other takes it in time; the caller then resets
/// both.
///
/// `early` is what the destination said before all else. `carried` is exact whenever
/// this future is not running, also when it is dropped before its end.
pub(super) async fn copy<P, D>(
    peer: Side<P, impl Future<Output = io::Error>>,
    destination: Side<D, impl Future<Output = io::Error>>,
    early: Vec<u8>,
    carried: &mut Carried,
) -> Result<(), Failure>
where
    P: AsyncRead + AsyncWrite + Unpin,
    D: AsyncRead + AsyncWrite + Unpin,
{
    let (mut peer, mut peer_lost) = (peer.stream, pin!(peer.lost));
    let (mut destination, mut destination_lost) = (destination.stream, pin!(destination.lost));
    let mut up = Direction::default();
    let mut down = Direction {
        waiting: early,
        ..Direction::default()
    };
    let both = poll_fn(|cx| {
        let sent = up.poll(cx, &mut peer, &mut destination, &mut carried.sent);
        let sent = sent.map_err(|failed| (Way::Up, failed))?;
        let received = down.poll(cx, &mut destination, &mut peer, &mut carried.received);
        let received = received.map_err(|failed| (Way::Down, failed))?;
        if sent.is_ready() && received.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !up.reads()
            && let Poll::Ready(error) = peer_lost.as_mut().poll(cx)
        {
            return Poll::Ready(Err((Way::Up, Failed::Lost(error))));
        }
        if !down.reads()
            && let Poll::Ready(error) = destination_lost.as_mut().poll(cx)
        {
            return Poll::Ready(Err((Way::Down, Failed::Lost(error))));
        }
        Poll::Pending
    });
    let Err(failed) = both.await else {
        return Ok(());
    };
    Err(match failed {
        (Way::Up, Failed::Source(error)) => Failure::Peer(error),
        (Way::Down, Failed::Source(error)) => Failure::Destination(error),
        (Way::Up, Failed::Lost(error)) | (Way::Down, Failed::Sink(error)) => {
            up.rest(&mut peer, &mut destination, &mut carried.sent)
                .await;
            Failure::Peer(error)
        }
        (Way::Down, Failed::Lost(error)) | (Way::Up, Failed::Sink(error)) => {
            down.rest(&mut destination, &mut peer, &mut carried.received)
                .await;
            Failure::Destination(error)
        }
    })
}

/// One side: its bytes, and how it says that it is lost though nobody reads or writes.
#[derive(Debug)]
pub(super) struct Side<S, L> {
    pub(super) stream: S,
    /// Ready, once, when the side has failed; what it said before may yet be read.
    pub(super) lost: L,
}

/// From the peer, or to it.
#[derive(Clone, Copy, Debug)]
enum Way {
    Up,
    Down,
}

/// What of one direction failed.
#[derive(Debug)]
enum Failed {
    /// Reading, after all that there was to read.
    Source(io::Error),
    /// The source, of which nothing is being read.
    Lost(io::Error),
    /// Writing.
    Sink(io::Error),
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    /// Read and not yet taken by the sink, from `taken` on.
    waiting: Vec<u8>,
    taken: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// All is read; the end of the data is to be told.
    Ending,
    Ended,
}

impl Direction {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        carried: &mut u64,
    ) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..CHUNKS_A_TURN {
            ready!(self.write_waiting(cx, sink, carried)).map_err(Failed::Sink)?;
            match self.stage {
                Stage::Open => {
                    if let Poll::Ready(result) = self.carry_chunk(cx, source, sink, carried) {
                        result?;
                        continue;
                    }
                    let flushed = Pin::new(&mut *sink).poll_flush(cx);
                    let Poll::Ready(Err(error)) = flushed else {
                        return Poll::Pending;
                    };
                    return Poll::Ready(Err(Failed::Sink(error)));
                }
                Stage::Ending => {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(Failed::Sink)?;
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether something is being read from the source, which then says itself when it
    /// fails.
    fn reads(&self) -> bool {
        self.stage == Stage::Open && self.waiting.is_empty()
    }

    /// Ready when the sink has all that a source said before it was lost, which the
    /// source then says: no end is told, for it has none.
    fn poll_rest<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        carried: &mut u64,
    ) -> Poll<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while self.stage == Stage::Open {
            if ready!(self.write_waiting(cx, sink, carried)).is_err() {
                break;
            }
            if ready!(self.carry_chunk(cx, source, sink, carried)).is_err() {
                break;
            }
        }
        Poll::Ready(())
    }

    /// Carries what a source said before it was lost, as long as the sink takes of it.
    async fn rest<R, W>(&mut self, source: &mut R, sink: &mut W, carried: &mut u64)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            let before = *carried;
            let rest = poll_fn(|cx| self.poll_rest(cx, source, sink, carried));
            if timeout(PATIENCE, rest).await.is_ok() || *carried == before {
                return;
            }
        }
    }

    /// Reads once, and writes what the sink takes; the rest waits.
    fn carry_chunk<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        carried: &mut u64,
    ) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(source).poll_read(cx, &mut read)).map_err(Failed::Source)?;
            let data = read.filled();
            if data.is_empty() {
                self.stage = Stage::Ending;
                return Poll::Ready(Ok(()));
            }
            let mut at = 0;
            let written = write(cx, sink, data, &mut at, carried);
            if written.is_pending() {
                self.waiting.extend_from_slice(&data[at..]);
            }
            match written {
                Poll::Ready(Err(error)) => Poll::Ready(Err(Failed::Sink(error))),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
            }
        })
    }

    fn write_waiting<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut W,
        carried: &mut u64,
    ) -> Poll<io::Result<()>> {
        if self.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(write(cx, sink, &self.waiting, &mut self.taken, carried))?;
        self.waiting = Vec::new();
        self.taken = 0;
        Poll::Ready(Ok(()))
    }
}

/// Writes `data` from `at` on, and moves `at` and `carried` with what is taken.
fn write<W: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    sink: &mut W,
    data: &[u8],
    at: &mut usize,
    carried: &mut u64,
) -> Poll<io::Result<()>> {
    while *at < data.len() {
        let taken = ready!(Pin::new(&mut *sink).poll_write(cx, &data[*at..]))?;
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        *at += taken;
        *carried += taken as u64;
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use std::future::{Pending, Ready, pending, ready};
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
    };

    use super::{CHUNK, Carried, Failure, PATIENCE, Side, copy};

    /// A side that says of its loss only to who reads or writes.
    fn silent<S>(stream: S) -> Side<S, Pending<io::Error>> {
        Side {
            stream,
            lost: pending(),
        }
    }

    fn run<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.unwrap().block_on(future)
    }

    fn data(length: usize, seed: usize) -> Vec<u8> {
        (0..length)
            .map(|at| ((at * 31 + seed) % 251).to_le_bytes()[0])
            .collect()
    }

    /// Gives all, ends, then takes all.
    async fn exchange(stream: DuplexStream, give: Vec<u8>) -> Vec<u8> {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut got = Vec::new();
        let give = async {
            write.write_all(&give).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let take = read.read_to_end(&mut got);
        let ((), taken) = tokio::join!(give, take);
        taken.unwrap();
        got
    }

    /// Room for less and for more than a chunk on either side.
    #[test]
    fn both_directions_arrive_whole_with_any_room() {
        for (room_near, room_far) in [(7, CHUNK * 3), (CHUNK * 3, 1000), (4096, 4096)] {
            let (near, mut peer) = duplex(room_near);
            let (far, mut destination) = duplex(room_far);
            let (up, down) = (data(700_000, 1), data(500_000, 2));
            let mut carried = Carried::default();
            let early = b"early".to_vec();
            let copied = copy(
                silent(&mut peer),
                silent(&mut destination),
                early,
                &mut carried,
            );
            let (at_peer, at_destination, result) = run(async {
                tokio::join!(
                    exchange(near, up.clone()),
                    exchange(far, down.clone()),
                    copied
                )
            });
            assert!(result.is_ok());
            assert!(at_destination == up && at_peer == [&b"early"[..], &down].concat());
            assert_eq!((carried.sent, carried.received), (700_000, 500_005));
        }
    }

    #[test]
    fn an_end_of_data_is_passed_on_and_the_other_direction_goes_on() {
        run(async {
            let (mut near, mut peer) = duplex(64);
            let (mut far, mut destination) = duplex(64);
            let mut carried = Carried::default();
            let copied = copy(
                silent(&mut peer),
                silent(&mut destination),
                Vec::new(),
                &mut carried,
            );
            let story = async {
                near.write_all(b"question").await.unwrap();
                near.shutdown().await.unwrap();
                let mut question = Vec::new();
                far.read_to_end(&mut question).await.unwrap();
                assert_eq!(question, b"question");
                far.write_all(b"answer").await.unwrap();
                let mut answer = [0; 6];
                near.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer, b"answer");
                far.shutdown().await.unwrap();
                assert_eq!(near.read(&mut answer).await.unwrap(), 0);
            };
            let (result, ()) = tokio::join!(copied, story);
            assert!(result.is_ok());
        });
    }

    #[test]
    fn while_a_side_takes_nothing_little_is_read_for_it() {
        run(async {
            let (mut near, mut peer) = duplex(64);
            let (_far, mut destination) = duplex(64);
            let mut carried = Carried::default();
            let copied = copy(
                silent(&mut peer),
                silent(&mut destination),
                Vec::new(),
                &mut carried,
            );
            let flood = async {
                let mut given = 0;
                while given < 10 * CHUNK {
                    let block = vec![0; 64];
                    let write = near.write(&block);
                    let quick = tokio::time::timeout(std::time::Duration::from_millis(200), write);
                    match quick.await {
                        Ok(taken) => given += taken.unwrap(),
                        Err(_) => return given,
                    }
                }
                given
            };
            tokio::select! {
                _ = copied => panic!("it has no end"),
                given = flood => assert!(given <= CHUNK + 3 * 64, "{given} bytes"),
            }
        });
    }

    /// A destination that was reset with data on the way: writing fails, and then
    /// reading gives the data and an end.
    struct Dead(&'static [u8]);

    impl AsyncRead for Dead {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buffer.put_slice(std::mem::take(&mut self.0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Dead {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_a_side_said_before_it_was_lost_arrives_without_an_end() {
        run(async {
            let (mut near, mut peer) = duplex(64);
            near.write_all(b"too late").await.unwrap();
            let mut carried = Carried::default();
            let mut dead = Dead(b"the reason");
            let result = copy(
                silent(&mut peer),
                silent(&mut dead),
                Vec::new(),
                &mut carried,
            )
            .await;
            assert!(matches!(result, Err(Failure::Destination(_))));
            let mut reason = [0; 10];
            near.read_exact(&mut reason).await.unwrap();
            assert_eq!(&reason, b"the reason");
            let more = near.read(&mut reason);
            let waited = tokio::time::timeout(std::time::Duration::from_millis(50), more);
            assert!(waited.await.is_err(), "the peer saw an end");
        });
    }

    #[test]
    fn a_side_that_takes_nothing_does_not_keep_one_that_was_lost() {
        run(async {
            let (mut near, mut peer) = duplex(4);
            near.write_all(b"more").await.unwrap();
            let mut carried = Carried::default();
            let mut dead = Dead(b"longer than there is room");
            let result = copy(
                silent(&mut peer),
                silent(&mut dead),
                Vec::new(),
                &mut carried,
            )
            .await;
            assert!(matches!(result, Err(Failure::Destination(_))));
            assert_eq!(carried.received, 4);
        });
    }

    /// Gives some bytes, then an error in place of an end.
    struct Reset(Option<&'static [u8]>);

    impl AsyncRead for Reset {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.0.take() {
                Some(data) => buffer.put_slice(data),
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Reset {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_reset_says_whose_it_was_and_is_no_end_of_data() {
        run(async {
            let mut carried = Carried::default();
            let (mut far, mut destination) = duplex(64);
            let mut broken = Reset(Some(b"last"));
            let result = copy(
                silent(&mut broken),
                silent(&mut destination),
                Vec::new(),
                &mut carried,
            )
            .await;
            assert!(matches!(result, Err(Failure::Peer(_))));
            assert_eq!(carried.sent, 4);
            let mut last = [0; 4];
            far.read_exact(&mut last).await.unwrap();
            let more = far.read(&mut last);
            let waited = tokio::time::timeout(std::time::Duration::from_millis(50), more);
            assert!(waited.await.is_err(), "the destination saw an end");

            let (_near, mut peer) = duplex(64);
            let result = copy(
                silent(&mut peer),
                silent(Reset(None)),
                Vec::new(),
                &mut carried,
            )
            .await;
            assert!(matches!(result, Err(Failure::Destination(_))));
        });
    }

    /// A side that was reset while data of it waits.
    fn lost<S>(stream: S) -> Side<S, Ready<io::Error>> {
        Side {
            stream,
            lost: ready(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// Neither takes a byte of what the other says: nothing is read from either.
    #[test]
    fn a_side_that_is_lost_is_heard_of_while_nothing_is_read_from_it() {
        for peer_is_lost in [true, false] {
            run(async {
                let (mut near, peer) = duplex(64);
                let (mut far, destination) = duplex(64);
                let mut carried = Carried::default();
                near.write_all(&[1; 64]).await.unwrap();
                far.write_all(&[2; 64]).await.unwrap();
                let start = std::time::Instant::now();
                let (peer, destination) = (Shut(peer), Shut(destination));
                let early = Vec::new();
                let ended = match peer_is_lost {
                    true => copy(lost(peer), silent(destination), early, &mut carried).await,
                    false => copy(silent(peer), lost(destination), early, &mut carried).await,
                };
                match ended.unwrap_err() {
                    Failure::Peer(error) if peer_is_lost => {
                        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                    }
                    Failure::Destination(_) if !peer_is_lost => {}
                    other => panic!("{other:?}"),
                }
                assert!(start.elapsed() >= PATIENCE);
                assert_eq!(carried, Carried::default());
            });
        }
    }

    /// What the lost side said arrives as long as the other takes some of it, however
    /// slowly: this one takes longer than the patience with one that takes nothing.
    #[test]
    fn what_waits_when_a_side_is_lost_arrives_however_slowly() {
        run(async {
            let mut carried = Carried::default();
            let (mut far, destination) = duplex(4);
            let broken = Reset(Some(b"the last words"));
            let (copied, heard) = tokio::join!(
                copy(lost(broken), silent(destination), Vec::new(), &mut carried),
                async {
                    let mut heard = [0; 14];
                    for two in heard.chunks_mut(2) {
                        tokio::time::sleep(PATIENCE / 3).await;
                        far.read_exact(two).await.unwrap();
                    }
                    heard
                },
            );
            assert!(matches!(copied, Err(Failure::Peer(_))));
            assert_eq!((&heard[..], carried.sent), (&b"the last words"[..], 14));
        });
    }

    /// Gives, and takes nothing.
    struct Shut(DuplexStream);

    impl AsyncRead for Shut {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Shut {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
