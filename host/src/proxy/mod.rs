//! A transparent proxy: the flows that enter a [`Stack`] are dialled with this host's
//! own sockets, or through an upstream.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use l3l4_host::Engine;
//! use l3l4_host::proxy::{Config, Proxy};
//! use l3l4_host::stack::Stack;
//!
//! # async fn example(device: impl l3l4_host::stack::PacketDevice) -> Result<(), Box<dyn std::error::Error>> {
//! let proxy = Proxy::new(Config {
//!     upstream: "socks5://127.0.0.1:1080".parse()?,
//!     deny: vec!["tcp:*:25".parse()?],
//!     ..Config::default()
//! })?;
//! let engine = Engine::builder().icmp_echo(proxy.icmp_echo());
//! let stack = Stack::builder().engine(engine).start(device)?;
//! let stop = tokio::time::sleep(std::time::Duration::from_secs(60));
//! proxy.serve(&stack, Arc::new(()), stop).await?;
//! stack.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What a peer sees
//!
//! What it would see of the destination itself:
//!
//! - A SYN is answered when the destination answered; refused, when it refused;
//!   answered by ICMP, when the network said so ([`DialError::refusal`]); not at all
//!   when nobody answered. A peer that gives up meanwhile ends the dialling.
//! - Each side's end of data is passed on alone, and the other direction goes on. A
//!   reset is passed on as a reset, and never as an end of data; so is every other
//!   failure, and the end of the proxy itself.
//! - A side that takes nothing holds the other up, with at most 128 KiB a direction
//!   here, beside the buffers of the kernel and of the engine. When the other is reset,
//!   it has a second to take what came before; then it is reset too.
//! - UDP flows have a socket each, which hears of its destination alone (address and
//!   port dependent filtering, RFC 4787 5), or of whom a SOCKS5 relay lets through. Its
//!   refusal is passed on by ICMP.
//! - Pings go on to their destination where the system lets us ([`Ping::Pass`]).
//!
//! # A flow's way through the files
//!
//! `mod.rs` (accepted) → `route.rs` (where to, and whether: `rules.rs`, `names.rs`) →
//! `tcp.rs`, `udp.rs`, `ping.rs` (its life) → `dial.rs` (reached: `lookup.rs`,
//! `socket.rs`, `socks5.rs`, `http.rs`) → `copy.rs` (carried: `destination.rs`) →
//! `watch.rs` (told of).

mod config;
mod copy;
mod destination;
mod dial;
mod dns;
mod error;
mod http;
mod lookup;
mod names;
mod ping;
mod route;
mod rules;
mod socket;
mod socks5;
mod target;
mod tcp;
mod udp;
mod upstream;
mod watch;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch as signal;
use tokio::task::JoinSet;

pub use config::{Config, ConfigError, Denial, Dns, Ping};
pub use error::DialError;
pub use ipnet::IpNet;
pub use rules::Rule;
pub use target::{Mapping, Target};
pub use upstream::{Credentials, Server, Upstream};
pub use watch::{End, Flow, Reason, Totals, Watch};

use crate::stack::{Incoming, Stack};
use crate::{FlowOptions, IcmpEchoPolicy, Refusal};
use copy::Carried;
use dial::Dialer;
use route::Router;
use watch::Tally;

/// A transparent proxy. Clones are handles of the same proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    router: Router,
    dialer: Dialer,
    tally: Tally,
}

/// How a flow went: what it carried, and why it ended.
type Outcome = (Carried, Reason);

impl Proxy {
    /// A proxy that does nothing until it is to [`serve`](Self::serve).
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let router = Router::new(&config);
        let dialer = Dialer::new(&config, router.rules());
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                router,
                dialer,
                tally: Tally::default(),
            }),
        })
    }

    /// What the engine is to do with pings, for
    /// [`Builder::icmp_echo`](crate::Builder::icmp_echo): [`Ping::Pass`] is
    /// [`IcmpEchoPolicy::Deliver`] where they can be passed on, else
    /// [`IcmpEchoPolicy::Answer`].
    #[must_use]
    pub fn icmp_echo(&self) -> IcmpEchoPolicy {
        let config = &self.shared.config;
        match config.ping {
            Ping::Pass if config.upstream == Upstream::Direct && socket::may_ping() => {
                IcmpEchoPolicy::Deliver
            }
            Ping::Pass | Ping::Answer => IcmpEchoPolicy::Answer,
            Ping::Drop => IcmpEchoPolicy::Drop,
        }
    }

    /// What became of all flows so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.tally.totals()
    }

    /// Carries the flows of `stack` until `stop` is ready. Then every flow is reset at
    /// both ends, and this returns when `watch` was told of all of them; the stack is
    /// the caller's to shut down. Dropping this future resets the flows too.
    ///
    /// Sockets are opened by the threads of the tokio runtime: in their network
    /// namespace.
    ///
    /// # Errors
    ///
    /// The stack has failed.
    pub async fn serve<W: Watch>(
        &self,
        stack: &Stack,
        watch: Arc<W>,
        stop: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let (stopping, stopped) = signal::channel(false);
        let mut stop = pin!(stop);
        let mut flows = JoinSet::new();
        let result = loop {
            tokio::select! {
                () = &mut stop => break Ok(()),
                Some(_) = flows.join_next() => {}
                incoming = stack.accept() => match incoming {
                    Ok(incoming) => self.enter(incoming, &mut flows, &watch, &stopped),
                    Err(error) => break Err(error),
                },
            }
        };
        // Each flow holds a receiver, if there are any.
        let _ = stopping.send(true);
        while flows.join_next().await.is_some() {}
        result
    }

    /// Decides about a flow, and carries it if it may pass.
    fn enter<W: Watch>(
        &self,
        incoming: Incoming,
        flows: &mut JoinSet<()>,
        watch: &Arc<W>,
        stopped: &signal::Receiver<bool>,
    ) {
        let began = Instant::now();
        let shared = &self.shared;
        let tuple = *incoming.tuple();
        let is_full = flows.len() >= shared.config.max_flows;
        let (target, decided) = shared.router.route(&tuple, &shared.dialer.sockets, is_full);
        let flow = Flow {
            number: shared.tally.opened(),
            tuple,
            target,
        };
        watch.opened(&flow);
        let place = match decided {
            Ok(place) => place,
            Err(reason) => {
                turn_away(incoming, &reason, shared.config.denial);
                let outcome = (Carried::default(), reason);
                return shared.ended(&flow, outcome, began, &**watch);
            }
        };
        let context = Context {
            shared: Arc::clone(shared),
            flow,
            watch: Arc::clone(watch),
            stopped: stopped.clone(),
        };
        flows.spawn(async move {
            let outcome = match incoming {
                Incoming::Tcp(tcp) => tcp::carry(tcp, &context).await,
                Incoming::Udp(udp) => udp::carry(udp, &context).await,
                Incoming::IcmpEcho(echo) => ping::carry(echo, &context).await,
            };
            drop(place);
            let Context {
                shared,
                flow,
                watch,
                ..
            } = context;
            shared.ended(&flow, outcome, began, &*watch);
        });
    }
}

/// Tells the peer of a flow that may not pass.
fn turn_away(incoming: Incoming, reason: &Reason, denial: Denial) {
    let refusal = match reason {
        Reason::Denied => denial.refusal(),
        Reason::Failed(error) => error.refusal(),
        Reason::Looped => Some(Refusal::HostUnreachable),
        // There may be room when it tries again.
        _ => None,
    };
    match refusal {
        Some(refusal) => incoming.refuse(refusal),
        None => incoming.ignore(),
    }
}

impl Shared {
    fn ended(&self, flow: &Flow, outcome: Outcome, began: Instant, watch: &impl Watch) {
        let (carried, reason) = outcome;
        let end = End {
            sent: carried.sent,
            received: carried.received,
            lasted: began.elapsed(),
            reason,
        };
        self.tally.ended(&end);
        watch.ended(flow, &end);
    }
}

/// What the life of one flow needs.
#[derive(Debug)]
struct Context<W> {
    shared: Arc<Shared>,
    flow: Flow,
    watch: Arc<W>,
    stopped: signal::Receiver<bool>,
}

impl<W: Watch> Context<W> {
    /// Ready when the proxy is to stop, or is gone.
    async fn stopped(&self) {
        let _ = self.stopped.clone().wait_for(|stopped| *stopped).await;
    }

    fn dialled(&self) {
        self.shared.tally.dialled();
        self.watch.dialled(&self.flow);
    }

    /// How its flow is accepted: with the timeout of its protocol.
    fn options(&self, idle_timeout: std::time::Duration) -> FlowOptions {
        FlowOptions {
            idle_timeout: Some(idle_timeout),
            ..FlowOptions::default()
        }
    }
}
