//! A flow that a peer opens, before anything was answered.

use std::net::SocketAddr;
use std::sync::Arc;

use super::datagrams::{EchoFlow, UdpFlow};
use super::flow::{Flow, Owner};
use super::tcp::TcpStream;
use crate::{CloseReason, FiveTuple, FlowOptions, Protocol, Refusal, Verdict};

/// A flow that a peer opens. Nothing was answered yet.
///
/// Dropping it refuses it ([`Refusal::Reset`]).
#[derive(Debug)]
pub enum Incoming {
    /// A SYN.
    Tcp(IncomingTcp),
    /// The first datagram from a port to a port.
    Udp(IncomingUdp),
    /// The first ping, when they are delivered
    /// ([`IcmpEchoPolicy::Deliver`](crate::IcmpEchoPolicy::Deliver)).
    IcmpEcho(IncomingEcho),
}

impl Incoming {
    pub(super) fn new(flow: Arc<Flow>) -> Self {
        let protocol = flow.tuple.protocol;
        let asked = Asked {
            flow,
            decided: false,
        };
        match protocol {
            Protocol::Tcp => Self::Tcp(IncomingTcp(asked)),
            Protocol::Udp => Self::Udp(IncomingUdp(asked)),
            Protocol::IcmpEcho => Self::IcmpEcho(IncomingEcho(asked)),
        }
    }

    /// Who wants to speak with whom.
    #[must_use]
    pub fn tuple(&self) -> &FiveTuple {
        &self.asked().flow.tuple
    }

    /// Tells the peer no.
    pub fn refuse(self, refusal: Refusal) {
        match self {
            Self::Tcp(tcp) => tcp.refuse(refusal),
            Self::Udp(udp) => udp.refuse(refusal),
            Self::IcmpEcho(echo) => echo.refuse(refusal),
        }
    }

    /// Says nothing, as if nobody were there.
    pub fn ignore(self) {
        match self {
            Self::Tcp(tcp) => tcp.ignore(),
            Self::Udp(udp) => udp.ignore(),
            Self::IcmpEcho(echo) => echo.ignore(),
        }
    }

    pub(super) fn has_given_up(&self) -> bool {
        self.asked().flow.close_reason().is_some()
    }

    fn asked(&self) -> &Asked {
        match self {
            Self::Tcp(IncomingTcp(asked))
            | Self::Udp(IncomingUdp(asked))
            | Self::IcmpEcho(IncomingEcho(asked)) => asked,
        }
    }
}

/// A flow that has no verdict of the application yet.
#[derive(Debug)]
struct Asked {
    flow: Arc<Flow>,
    decided: bool,
}

impl Asked {
    fn accept(mut self, options: FlowOptions) -> Owner {
        self.decided = true;
        self.flow.accept(options);
        Owner(Arc::clone(&self.flow))
    }

    fn decide(mut self, verdict: Verdict) {
        self.decided = true;
        self.flow.decide(verdict);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.decided {
            self.flow.decide(Verdict::Refuse(Refusal::Reset));
        }
    }
}

macro_rules! incoming {
    ($(#[$doc:meta])* $name:ident => $accepted:ident, $(#[$accept:meta])*) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(Asked);

        impl $name {
            /// Who wants to speak with whom: *local* is where the peer wants to go,
            /// which the engine speaks for.
            #[must_use]
            pub fn tuple(&self) -> &FiveTuple {
                &self.0.flow.tuple
            }

            /// Who asks.
            #[must_use]
            pub fn peer_addr(&self) -> SocketAddr {
                self.0.flow.tuple.peer
            }

            /// Where the peer wants to go.
            #[must_use]
            pub fn local_addr(&self) -> SocketAddr {
                self.0.flow.tuple.local
            }

            $(#[$accept])*
            #[must_use]
            pub fn accept(self, options: FlowOptions) -> $accepted {
                $accepted::new(self.0.accept(options))
            }

            /// Tells the peer no.
            pub fn refuse(self, refusal: Refusal) {
                self.0.decide(Verdict::Refuse(refusal));
            }

            /// Says nothing, as if nobody were there. The peer's next try is a new
            /// flow.
            pub fn ignore(self) {
                self.0.decide(Verdict::Drop);
            }

            /// Waits until the flow has ended without a verdict: the peer has reset it,
            /// or was silent for so long that it has given up (most say nothing).
            /// Cancellation safe: to be selected against whatever the verdict waits for.
            pub async fn gave_up(&self) -> CloseReason {
                self.0.flow.closed().await
            }
        }
    };
}

incoming! {
    /// A SYN that waits for its verdict: at most the configuration's
    /// [`verdict_timeout`](crate::Builder::verdict_timeout) after the peer's last try.
    IncomingTcp => TcpStream,
    /// Answers the SYN. The stream can be written to and read from at once; both wait
    /// for the handshake. Options outside of their bounds are brought to the nearest.
}

incoming! {
    /// The first datagrams of a UDP flow, kept until the verdict.
    IncomingUdp => UdpFlow,
    /// Takes the flow, its first datagrams included. Options outside of their bounds
    /// are brought to the nearest.
}

incoming! {
    /// The first pings of an echo flow, kept until the verdict.
    IncomingEcho => EchoFlow,
    /// Takes the flow, its first pings included. Options outside of their bounds are
    /// brought to the nearest.
}
