//! Data out: take it for the flow that it belongs to.

use core::net::SocketAddr;

use super::Engine;
use super::flows::is_usable;
use crate::table::{Flow, Kind};
use crate::types::{Callbacks, FlowError, FlowId, Protocol};

impl Engine {
    pub(super) fn take_data(
        &mut self,
        flow: FlowId,
        local: Option<SocketAddr>,
        data: &[u8],
        callbacks: &mut dyn Callbacks,
    ) -> Result<usize, FlowError> {
        let slot = self.decided(flow)?;
        let flow = self.flows.flow_mut(slot).ok_or(FlowError::UnknownFlow)?;
        let taken = match &mut flow.kind {
            Kind::Waiting(_) => return Err(FlowError::Undecided),
            Kind::Tcp(_) if local.is_some() => return Err(FlowError::WrongProtocol),
            Kind::Tcp(tcp) => {
                let taken = tcp.l4_tx(self.common.now, data)?;
                self.touch(slot);
                taken
            }
            Kind::Datagram(datagram) => {
                let tuple = flow.tuple;
                let local = match local {
                    None => (tuple.local, tuple.local_port),
                    Some(_) if tuple.protocol != Protocol::Udp => {
                        return Err(FlowError::WrongProtocol);
                    }
                    Some(local)
                        if !is_usable(&local) || local.is_ipv4() != tuple.peer.is_ipv4() =>
                    {
                        return Err(FlowError::BadAddress);
                    }
                    Some(local) => (local.ip(), local.port()),
                };
                let taken =
                    datagram.l4_tx(&mut self.common.turn(callbacks), &tuple, local, data)?;
                if datagram.is_stalled() {
                    self.stall(slot);
                }
                taken
            }
        };
        self.common.counters.l4_tx_bytes += taken as u64;
        Ok(taken)
    }

    /// The slot of a flow that has its verdict.
    pub(super) fn decided(&self, flow: FlowId) -> Result<u32, FlowError> {
        let slot = self.flows.slot_of(flow).ok_or(FlowError::UnknownFlow)?;
        match self.flows.flow(slot) {
            Some(Flow {
                kind: Kind::Waiting(_),
                ..
            }) => Err(FlowError::Undecided),
            Some(_) => Ok(slot),
            None => Err(FlowError::UnknownFlow),
        }
    }
}
