//! Data out: take it for the flow that it belongs to.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::Engine;
use super::flows::is_usable;
use crate::datagram::DatagramFlow;
use crate::table::Kind;
use crate::types::{Callbacks, FlowError, FlowId, Portion, Protocol};

/// Flows of a batch that are fetched together: the slot and the connection are some 14
/// lines of the cache, and a processor waits for a dozen or more lines at a time.
const FETCHED: usize = 8;

impl Engine {
    /// The slot of the flow that may be given this data, from `local` if that is
    /// not the flow's own address.
    pub(super) fn may_take_data(
        &self,
        flow: FlowId,
        local: Option<SocketAddr>,
        data: &[u8],
    ) -> Result<u32, FlowError> {
        let slot = self.decided(flow)?;
        let flow = self.flows.flow(slot).ok_or(FlowError::UnknownFlow)?;
        match (&flow.kind, local) {
            (Kind::Waiting(_), _) => return Err(FlowError::Undecided),
            (Kind::Tcp(_), Some(_)) => return Err(FlowError::WrongProtocol),
            (Kind::Tcp(tcp), None) => tcp.may_take()?,
            (Kind::Datagram(_), Some(_)) if flow.tuple.protocol != Protocol::Udp => {
                return Err(FlowError::WrongProtocol);
            }
            (Kind::Datagram(_), Some(local))
                if !is_usable(&local) || local.is_ipv4() != flow.tuple.peer.is_ipv4() =>
            {
                return Err(FlowError::BadAddress);
            }
            (Kind::Datagram(_), _) => {
                DatagramFlow::may_take(&flow.tuple, data)?;
            }
        }
        Ok(slot)
    }

    /// Whether what is taken may go before the flow is settled: unless others wait for
    /// the device, which come first.
    pub(super) fn may_send_at_once(&self) -> bool {
        self.touched.is_empty()
    }

    /// Takes the data of each portion, end to end in `bytes`, if it may be taken.
    pub(super) fn take_batch(
        &mut self,
        bytes: &[u8],
        portions: &[Portion],
        callbacks: &mut dyn Callbacks,
    ) -> Vec<Result<usize, FlowError>> {
        let at_once = self.may_send_at_once();
        let mut taken = Vec::with_capacity(portions.len());
        let mut rest = bytes;
        for group in portions.chunks(FETCHED) {
            self.flows.fetch(group.iter().map(|portion| portion.flow));
            for portion in group {
                let (data, after) = rest.split_at(portion.length as usize);
                rest = after;
                let slot = self.may_take_data(portion.flow, None, data);
                taken.push(slot.map(|slot| self.take_data(slot, None, data, at_once, callbacks)));
            }
        }
        taken
    }

    /// Takes data that may be taken. Returns how many bytes. Of a stream they go
    /// `at_once`, or when the flow is settled.
    pub(super) fn take_data(
        &mut self,
        slot: u32,
        local: Option<SocketAddr>,
        data: &[u8],
        at_once: bool,
        callbacks: &mut dyn Callbacks,
    ) -> usize {
        let Some(flow) = self.flows.flow_mut(slot) else {
            return 0;
        };
        let taken = match &mut flow.kind {
            Kind::Waiting(_) => 0,
            Kind::Tcp(tcp) => {
                let mut turn = self.common.turn(callbacks);
                let taken = tcp.l4_tx(&mut turn, &flow.tuple, data, at_once);
                self.touch(slot);
                taken
            }
            Kind::Datagram(datagram) => {
                let tuple = flow.tuple;
                let local = local.map_or((tuple.local, tuple.local_port), |local| {
                    (local.ip(), local.port())
                });
                let taken = datagram.l4_tx(&mut self.common.turn(callbacks), &tuple, local, data);
                if datagram.is_stalled() {
                    self.stall(slot);
                }
                taken
            }
        };
        self.common.counters.l4_tx_bytes += taken as u64;
        taken
    }
}
