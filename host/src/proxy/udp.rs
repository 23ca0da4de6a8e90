//! The life of a UDP flow.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UdpSocket;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::copy::Carried;
use super::dial::{Relay, Way};
use super::error::DialError;
use super::route::DNS_PORT;
use super::target::Target;
use super::tcp::framed;
use super::watch::{Reason, Watch};
use super::{Context, Outcome, socks5};
use crate::stack::{FlowEnded, IncomingUdp, UdpFlow};
use crate::{CloseReason, Refusal};

/// How long a flow to port 53 is kept without a datagram. RFC 4787 REQ-5a lets
/// well-known ports have less than the 2 minutes of all others; resolvers give up
/// after 5 to 30 s (resolv.conf(5)).
pub(super) const DNS_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest datagram and the header that a relay puts before it.
const LONGEST: usize = 65_535;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; LONGEST]);
}

/// Why a flow of datagrams ended: on the peer's side, or on the way to the
/// destination.
#[derive(Debug)]
pub(super) enum Ended {
    Peer(io::Error),
    Way(io::Error),
}

/// Opens a way, and carries until the peer is idle or one side fails.
pub(super) async fn carry<W: Watch>(incoming: IncomingUdp, context: &Context<W>) -> Outcome {
    let nothing = Carried::default();
    let config = &context.shared.config;
    let is_dns = context.flow.tuple.local.port() == DNS_PORT;
    let options = context.options(match is_dns {
        true => config.udp_timeout.min(DNS_TIMEOUT),
        false => config.udp_timeout,
    });
    let target = &context.flow.target;
    if *target == Target::Here {
        let flow = incoming.accept(options);
        context.dialled();
        return answer_names(flow, context).await;
    }
    let way = tokio::select! {
        way = context.shared.dialer.udp(target) => way,
        _ = incoming.gave_up() => return (nothing, Reason::GaveUp),
        () = context.stopped() => return (nothing, Reason::Stopped),
    };
    let mut way = match way {
        Ok(way) => way,
        Err(error) => {
            match error.refusal() {
                Some(refusal) => incoming.refuse(refusal),
                None => incoming.ignore(),
            }
            return (nothing, Reason::Failed(error));
        }
    };
    let flow = incoming.accept(options);
    context.dialled();
    let mut carried = Carried::default();
    let ended = tokio::select! {
        ended = exchange(&flow, &mut way, target, &mut carried) => ended,
        () = context.stopped() => {
            flow.refuse(Refusal::PortUnreachable);
            return (carried, Reason::Stopped);
        }
    };
    (
        carried,
        match ended {
            Ended::Peer(error) => reason_of_peer(&error),
            Ended::Way(error) => {
                let error = DialError::from(error);
                match error.refusal() {
                    Some(Refusal::Reset) => flow.refuse(Refusal::PortUnreachable),
                    Some(refusal) => flow.refuse(refusal),
                    None => {}
                }
                Reason::Destination(error.to_string())
            }
        },
    )
}

/// Carries both directions until one fails.
async fn exchange(flow: &UdpFlow, way: &mut Way, target: &Target, carried: &mut Carried) -> Ended {
    let Carried { sent, received } = carried;
    match way {
        Way::Direct(datagrams) => {
            let socket = &datagrams.socket;
            tokio::select! {
                ended = send_all(flow, socket, &[], sent) => ended,
                ended = receive_all(flow, socket, received) => ended,
            }
        }
        Way::Relayed(Relay {
            control,
            datagrams,
            header,
        }) => {
            let socket = &datagrams.socket;
            tokio::select! {
                ended = send_all(flow, socket, header, sent) => ended,
                ended = receive_relayed(flow, socket, target, received) => ended,
                // The server ends the association with its connection (RFC 1928 6).
                _ = control.read_u8() => Ended::Way(Errno::NETUNREACH.into()),
            }
        }
        Way::Framed(stream) => {
            let (mut read, mut write) = stream.split();
            tokio::select! {
                ended = send_framed(flow, &mut write, sent) => ended,
                ended = receive_framed(flow, &mut read, received) => ended,
            }
        }
    }
}

async fn send_all(flow: &UdpFlow, socket: &UdpSocket, header: &[u8], sent: &mut u64) -> Ended {
    loop {
        let data = match flow.recv_vec().await {
            Ok(data) => data,
            Err(error) => return Ended::Peer(error),
        };
        let length = data.len() as u64;
        let result = match header.is_empty() {
            true => socket.send(&data).await,
            false => socket.send(&[header, &data].concat()).await,
        };
        match result {
            Ok(_) => *sent += length,
            Err(error) if is_lost(&error) => {}
            Err(error) => return Ended::Way(error),
        }
    }
}

async fn receive_all(flow: &UdpFlow, socket: &UdpSocket, received: &mut u64) -> Ended {
    loop {
        let data = match receive(socket).await {
            Ok(data) => data,
            Err(error) => return Ended::Way(error),
        };
        if let Err(error) = flow.send(&data).await {
            return Ended::Peer(error);
        }
        *received += data.len() as u64;
    }
}

/// As [`receive_all`], out of the relay's wrapping. Who is not the destination is
/// shown as who he is.
async fn receive_relayed(
    flow: &UdpFlow,
    socket: &UdpSocket,
    target: &Target,
    received: &mut u64,
) -> Ended {
    loop {
        let datagram = match receive(socket).await {
            Ok(datagram) => datagram,
            Err(error) => return Ended::Way(error),
        };
        let Some((from, data)) = socks5::read_datagram(&datagram) else {
            continue;
        };
        let sent = match (from, target) {
            (Some(from), Target::Address(to))
                if from != *to && from.is_ipv4() == to.is_ipv4() && !from.ip().is_unspecified() =>
            {
                flow.send_from(from, data).await
            }
            _ => flow.send(data).await,
        };
        match sent {
            Ok(()) => *received += data.len() as u64,
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            Err(error) => return Ended::Peer(error),
        }
    }
}

async fn send_framed(flow: &UdpFlow, stream: &mut WriteHalf<'_>, sent: &mut u64) -> Ended {
    loop {
        let query = match flow.recv_vec().await {
            Ok(query) => query,
            Err(error) => return Ended::Peer(error),
        };
        let written = match framed(&query) {
            Ok(framed) => stream.write_all(&framed).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            return Ended::Way(error);
        }
        *sent += query.len() as u64;
    }
}

async fn receive_framed(flow: &UdpFlow, stream: &mut ReadHalf<'_>, received: &mut u64) -> Ended {
    loop {
        let answer = match read_framed(stream).await {
            Ok(answer) => answer,
            Err(error) => return Ended::Way(error),
        };
        match flow.send(&answer).await {
            Ok(()) => *received += answer.len() as u64,
            // Longer than a datagram can be.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            Err(error) => return Ended::Peer(error),
        }
    }
}

async fn read_framed(stream: &mut ReadHalf<'_>) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The next datagram of a connected socket, or what the network said of the last one
/// sent.
pub(super) async fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    loop {
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        let received = BUFFER.with_borrow_mut(|buffer| {
            let length = socket.try_recv(buffer)?;
            io::Result::Ok(buffer[..length].to_vec())
        });
        match received {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            received => return received,
        }
        if ready.is_error() {
            take_error(socket)?;
        }
    }
}

/// The error that waits at a socket. An error does not make it readable.
fn take_error(socket: &UdpSocket) -> io::Result<()> {
    let taken = socket.try_io(Interest::ERROR, || match socket.take_error()? {
        Some(error) => Err(error),
        None => Err(ErrorKind::WouldBlock.into()),
    });
    match taken {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        taken => taken,
    }
}

/// Whether only this datagram is lost: it is too long for the path, or there is no
/// memory for it (send(2)). Whoever sent it knows that datagrams are.
pub(super) fn is_lost(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MSGSIZE | Errno::NOBUFS | Errno::NOMEM)
    )
}

pub(super) fn reason_of_peer(error: &io::Error) -> Reason {
    match FlowEnded::of(error) {
        Some(CloseReason::TimedOut(_)) => Reason::Idle,
        Some(reason) => Reason::Peer(reason.to_string()),
        None => Reason::Peer(error.to_string()),
    }
}

/// Answers DNS with addresses of the pool.
async fn answer_names<W: Watch>(flow: UdpFlow, context: &Context<W>) -> Outcome {
    let mut carried = Carried::default();
    let answer_all = async {
        loop {
            let query = flow.recv_vec().await?;
            carried.sent += query.len() as u64;
            let Some(answer) = context.shared.router.answer(&query) else {
                continue;
            };
            flow.send(&answer).await?;
            carried.received += answer.len() as u64;
        }
    };
    let ended: io::Result<std::convert::Infallible> = tokio::select! {
        ended = answer_all => ended,
        () = context.stopped() => return (carried, Reason::Stopped),
    };
    let reason = match ended {
        Ok(never) => match never {},
        Err(error) => reason_of_peer(&error),
    };
    (carried, reason)
}
