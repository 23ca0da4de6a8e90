//! The life of a flow of pings (RFC 792, RFC 4443 4.1).

use std::net::SocketAddr;

use tokio::net::UdpSocket;

use super::copy::Carried;
use super::error::DialError;
use super::udp::{Ended, is_lost, reason_of_peer, receive};
use super::watch::{Reason, Watch};
use super::{Context, Outcome};
use crate::Refusal;
use crate::stack::{EchoFlow, IncomingEcho};

/// Type, code, checksum, identifier; the sequence number follows.
const HEADER: usize = 6;

/// The types of request and reply.
#[derive(Clone, Copy, Debug)]
struct Types {
    request: u8,
    reply: u8,
}

const IPV4: Types = Types {
    request: 8,
    reply: 0,
};
const IPV6: Types = Types {
    request: 128,
    reply: 129,
};

/// Sends each request on, and each reply back.
pub(super) async fn carry<W: Watch>(incoming: IncomingEcho, context: &Context<W>) -> Outcome {
    let nothing = Carried::default();
    let opened = tokio::select! {
        opened = context.shared.dialer.ping(&context.flow.target) => opened,
        () = context.stopped() => return (nothing, Reason::Stopped),
    };
    let datagrams = match opened {
        Ok(datagrams) => datagrams,
        Err(error) => {
            match error.refusal() {
                Some(refusal) => incoming.refuse(refusal),
                None => incoming.ignore(),
            }
            return (nothing, Reason::Failed(error));
        }
    };
    let flow = incoming.accept(crate::FlowOptions::default());
    context.dialled();

    let socket = &datagrams.socket;
    // A peer without a port is none to getpeername(2).
    let types = match socket.local_addr() {
        Ok(SocketAddr::V6(_)) => IPV6,
        Ok(SocketAddr::V4(_)) | Err(_) => IPV4,
    };
    let Carried {
        mut sent,
        mut received,
    } = nothing;
    let ended = tokio::select! {
        ended = send_all(&flow, socket, types, &mut sent) => ended,
        ended = receive_all(&flow, socket, types, &mut received) => ended,
        () = context.stopped() => return (Carried { sent, received }, Reason::Stopped),
    };
    let reason = match ended {
        Ended::Peer(error) => reason_of_peer(&error),
        Ended::Way(error) => {
            let error = DialError::from(error);
            match error.refusal() {
                Some(Refusal::Reset) | None => {}
                Some(refusal) => flow.refuse(refusal),
            }
            Reason::Destination(error.to_string())
        }
    };
    (Carried { sent, received }, reason)
}

/// The kernel writes identifier and checksum (icmp(7)).
async fn send_all(flow: &EchoFlow, socket: &UdpSocket, types: Types, sent: &mut u64) -> Ended {
    loop {
        let data = match flow.recv_vec().await {
            Ok(data) => data,
            Err(error) => return Ended::Peer(error),
        };
        let header = [types.request, 0, 0, 0, 0, 0];
        match socket.send(&[&header, &data[..]].concat()).await {
            Ok(_) => *sent += data.len() as u64,
            Err(error) if is_lost(&error) => {}
            Err(error) => return Ended::Way(error),
        }
    }
}

async fn receive_all(
    flow: &EchoFlow,
    socket: &UdpSocket,
    types: Types,
    received: &mut u64,
) -> Ended {
    loop {
        let message = match receive(socket).await {
            Ok(message) => message,
            Err(error) => return Ended::Way(error),
        };
        let data = match (message.first(), message.get(HEADER..)) {
            (Some(kind), Some(data)) if *kind == types.reply => data,
            _ => continue,
        };
        if let Err(error) = flow.send(data).await {
            return Ended::Peer(error);
        }
        *received += data.len() as u64;
    }
}
