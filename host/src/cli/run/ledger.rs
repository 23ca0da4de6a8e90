//! Whom the program talked to, as it happens.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use l3l4_host::Protocol;
use l3l4_host::proxy::{End, Flow, Reason, Target, Watch};

use super::names::Names;
use crate::cli::units::{bytes, time};

/// Most destinations that are told apart; those beyond are counted as one.
const MOST: usize = 4096;

/// What of the flows is kept: sums for each destination.
#[derive(Debug)]
pub(super) struct Ledger {
    names: Arc<Names>,
    verbose: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    accounts: HashMap<Destination, Account>,
    open_streams: u64,
}

/// To whom flows went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Destination {
    /// `None` for all those beyond [`MOST`].
    pub(super) protocol: Option<Protocol>,
    /// What DNS called the address, or what was dialled.
    pub(super) name: Option<Arc<str>>,
    pub(super) address: Option<IpAddr>,
    pub(super) port: Option<u16>,
}

/// What became of the flows to one destination.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// Which destination was the first, and so on.
    pub(super) number: usize,
    pub(super) flows: u64,
    /// Bytes from the program.
    pub(super) sent: u64,
    /// Bytes to the program.
    pub(super) received: u64,
    pub(super) denied: u64,
    /// Those that ended otherwise than they should, by why.
    pub(super) failed: BTreeMap<String, u64>,
}

impl Ledger {
    pub(super) fn new(names: Arc<Names>, verbose: bool) -> Self {
        Self {
            names,
            verbose,
            state: Mutex::default(),
        }
    }

    /// TCP flows that are not over.
    pub(super) fn open_streams(&self) -> u64 {
        self.lock().open_streams
    }

    /// All accounts, in the order of their first flows.
    pub(super) fn accounts(&self) -> Vec<(Destination, Account)> {
        let accounts = self.lock().accounts.clone();
        let mut accounts: Vec<_> = accounts.into_iter().collect();
        accounts.sort_by_key(|(_, account)| account.number);
        accounts
    }

    /// No statement that holds the lock leaves the sums half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn destination(&self, flow: &Flow) -> Destination {
        let protocol = flow.tuple.protocol;
        let (name, address, port) = match &flow.target {
            Target::Address(to) => (self.names.of(to.ip()), Some(to.ip()), to.port()),
            Target::Name(name, port) => (Some(Arc::clone(name)), None, *port),
            Target::Here => (None, None, flow.tuple.local.port()),
        };
        Destination {
            protocol: Some(protocol),
            name,
            address,
            port: (protocol != Protocol::IcmpEcho).then_some(port),
        }
    }
}

impl State {
    fn account(&mut self, destination: Destination) -> &mut Account {
        let number = self.accounts.len();
        let is_known = self.accounts.contains_key(&destination);
        let destination = match is_known || number < MOST {
            true => destination,
            false => Destination::others(),
        };
        let fresh = || Account {
            number,
            ..Account::default()
        };
        self.accounts.entry(destination).or_insert_with(fresh)
    }
}

impl Destination {
    fn others() -> Self {
        Self {
            protocol: None,
            name: None,
            address: None,
            port: None,
        }
    }
}

/// `example.org:443`, `[2001:db8::7]:443`, `192.0.2.7` for a ping.
impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.name, self.address, self.protocol) {
            (Some(name), ..) => f.write_str(name)?,
            (None, Some(IpAddr::V6(address)), _) if self.port.is_some() => {
                write!(f, "[{address}]")?
            }
            (None, Some(address), _) => write!(f, "{address}")?,
            (None, None, Some(_)) => f.write_str("l3l4 itself")?,
            (None, None, None) => f.write_str("others")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl Watch for Ledger {
    fn opened(&self, flow: &Flow) {
        let destination = self.destination(flow);
        if self.verbose {
            let (protocol, number) = (flow.tuple.protocol.name(), flow.number);
            eprintln!("l3l4: +{number} {protocol} {destination}");
        }
        let mut state = self.lock();
        state.open_streams += u64::from(flow.tuple.protocol == Protocol::Tcp);
        state.account(destination).flows += 1;
    }

    fn dialled(&self, flow: &Flow) {
        if self.verbose {
            eprintln!("l3l4: ={} answered", flow.number);
        }
    }

    fn ended(&self, flow: &Flow, end: &End) {
        if self.verbose {
            let (sent, received) = (bytes(end.sent), bytes(end.received));
            let (reason, lasted) = (&end.reason, time(end.lasted));
            let number = flow.number;
            eprintln!("l3l4: -{number} {reason}, {sent} sent, {received} received, {lasted}");
        }
        let is_stream = flow.tuple.protocol == Protocol::Tcp;
        let destination = self.destination(flow);
        let mut state = self.lock();
        state.open_streams -= u64::from(is_stream);
        let account = state.account(destination);
        account.sent += end.sent;
        account.received += end.received;
        match &end.reason {
            Reason::Finished | Reason::Idle => {}
            // Only streams have an end that can be missed.
            Reason::Stopped if !is_stream => {}
            Reason::Denied => account.denied += 1,
            other => *account.failed.entry(other.to_string()).or_default() += 1,
        }
    }
}
