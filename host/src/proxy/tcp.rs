//! The life of a TCP flow.

use std::future::pending;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::copy::{Carried, Failure, PATIENCE, Side, copy};
use super::destination::Destination;
use super::dial::Dialled;
use super::error::DialError;
use super::socket::disarm;
use super::target::Target;
use super::udp::DNS_TIMEOUT;
use super::watch::{Reason, Watch};
use super::{Context, Outcome};
use crate::stack::{FlowEnded, IncomingTcp, TcpStream};
use crate::{CloseReason, Refusal, Timer};

/// Dials, answers the peer, and carries until the end.
pub(super) async fn carry<W: Watch>(incoming: IncomingTcp, context: &Context<W>) -> Outcome {
    let nothing = Carried::default();
    if context.flow.target == Target::Here {
        return answer_names(incoming, context).await;
    }
    let dialled = tokio::select! {
        dialled = context.shared.dialer.tcp(&context.flow.target) => dialled,
        _ = incoming.gave_up() => return (nothing, Reason::GaveUp),
        () = context.stopped() => {
            incoming.refuse(Refusal::Reset);
            return (nothing, Reason::Stopped);
        }
    };
    let Dialled { stream, early } = match dialled {
        Ok(dialled) => dialled,
        Err(error) => {
            refuse(incoming, &error);
            return (nothing, Reason::Failed(error));
        }
    };
    let options = context.options(context.shared.config.tcp_timeout);
    let peer = Peer::new(incoming.accept(options));
    context.dialled();

    let mut carried = Carried::default();
    let peers = Side {
        stream: &peer.stream,
        lost: lost(&peer.stream),
    };
    let destinations = Side {
        stream: Destination(&stream),
        lost: Destination(&stream).lost(),
    };
    let copied = tokio::select! {
        copied = copy(peers, destinations, early, &mut carried) => copied,
        // Peer and stream are reset when they are dropped.
        () = context.stopped() => return (carried, Reason::Stopped),
    };
    match copied {
        Ok(()) => {
            disarm(&stream);
            peer.finished();
            (carried, Reason::Finished)
        }
        Err(Failure::Peer(error)) => (carried, reason_of_peer(&error)),
        Err(Failure::Destination(error)) => {
            tokio::select! {
                () = settle(&peer.stream, carried.received) => {}
                () = context.stopped() => {}
            }
            (carried, reason_of_destination(&error))
        }
    }
}

/// Waits until the peer has all that the destination said before it failed, which the
/// reset then cannot overtake; or until it takes nothing of it any more.
async fn settle(peer: &TcpStream, received: u64) {
    const LOOK: Duration = Duration::from_millis(10);
    let mut stood = (0, 0);
    let mut since = Instant::now();
    while let Ok(info) = peer.info().await
        && (info.bytes_sent < received || info.send_queue > 0)
    {
        let stands = (info.bytes_sent, info.send_queue);
        if stands != stood {
            (stood, since) = (stands, Instant::now());
        } else if since.elapsed() >= PATIENCE {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the peer's connection has failed, and says how. One that has finished
/// never does.
async fn lost(peer: &TcpStream) -> io::Error {
    match peer.ending().await {
        CloseReason::Finished => pending().await,
        reason => FlowEnded(reason).into(),
    }
}

fn refuse(incoming: IncomingTcp, error: &DialError) {
    match error.refusal() {
        Some(refusal) => incoming.refuse(refusal),
        None => incoming.ignore(),
    }
}

/// The stream of a peer: reset when it is dropped, unless all is said.
struct Peer {
    stream: TcpStream,
    has_finished: bool,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            has_finished: false,
        }
    }

    fn finished(mut self) {
        self.has_finished = true;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if !self.has_finished {
            self.stream.abort();
        }
    }
}

/// Answers DNS over TCP (RFC 7766 8) with addresses of the pool.
async fn answer_names<W: Watch>(incoming: IncomingTcp, context: &Context<W>) -> Outcome {
    let mut peer = Peer::new(incoming.accept(context.options(DNS_TIMEOUT)));
    context.dialled();
    let mut carried = Carried::default();
    let answered = tokio::select! {
        answered = answer_all(&mut peer.stream, context, &mut carried) => answered,
        () = context.stopped() => return (carried, Reason::Stopped),
    };
    match answered {
        Ok(()) => {
            peer.finished();
            (carried, Reason::Finished)
        }
        Err(error) => (carried, reason_of_peer(&error)),
    }
}

async fn answer_all<W: Watch>(
    stream: &mut TcpStream,
    context: &Context<W>,
    carried: &mut Carried,
) -> io::Result<()> {
    let mut length = [0; 2];
    // The end of the data is between two queries.
    while stream.read(&mut length[..1]).await? == 1 {
        stream.read_exact(&mut length[1..]).await?;
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query).await?;
        carried.sent += 2 + query.len() as u64;
        let Some(answer) = context.shared.router.answer(&query) else {
            return Err(ErrorKind::InvalidData.into());
        };
        let answer = framed(&answer)?;
        stream.write_all(&answer).await?;
        carried.received += answer.len() as u64;
    }
    stream.shutdown().await
}

/// A DNS message as it stands in a stream: its length first (RFC 1035 4.2.2).
pub(super) fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(|_| ErrorKind::InvalidData)?;
    Ok([&length.to_be_bytes(), message].concat())
}

fn reason_of_peer(error: &io::Error) -> Reason {
    match FlowEnded::of(error) {
        Some(CloseReason::ResetByPeer) => Reason::ResetByPeer,
        Some(CloseReason::TimedOut(Timer::Idle)) => Reason::Idle,
        Some(reason) => Reason::Peer(reason.to_string()),
        None => Reason::Peer(error.to_string()),
    }
}

fn reason_of_destination(error: &io::Error) -> Reason {
    match error.kind() {
        // The second is what a write says once the reset was read.
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Reason::ResetByDestination,
        _ => Reason::Destination(error.to_string()),
    }
}
