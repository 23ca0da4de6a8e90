//! The engine's callbacks, forwarded to the component's imports.

use l3l4_engine::{Callbacks, Event, FiveTuple, FlowId, Packet, Verdict};

use crate::bindings::l3l4::engine::callbacks;
use crate::bindings::l3l4::engine::types as wit;
use crate::convert::from_five_tuple;

/// Lends the engine's slices to the imports; bytes are not copied.
#[derive(Default)]
pub(crate) struct Imports {
    /// The records of one `l3-tx`, kept for their memory.
    packets: Vec<wit::Packet>,
}

impl Callbacks for Imports {
    fn l3_tx(&mut self, bytes: &[u8], packets: &[Packet]) -> usize {
        self.packets.clear();
        self.packets
            .extend(packets.iter().map(|&packet| wit::Packet::from(packet)));
        callbacks::l3_tx(bytes, &self.packets) as usize
    }

    fn l4_rx(&mut self, flow: FlowId, data: &[u8]) -> usize {
        callbacks::l4_rx(flow.0, data) as usize
    }

    fn flow_new(&mut self, flow: FlowId, tuple: &FiveTuple) -> Verdict {
        callbacks::flow_new(flow.0, from_five_tuple(tuple)).into()
    }

    fn flow_event(&mut self, flow: FlowId, event: Event) {
        callbacks::flow_event(flow.0, event.into());
    }
}
