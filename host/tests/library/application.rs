//! An application that accepts every flow and remembers what it heard.

use l3l4_host::{Callbacks, Event, FiveTuple, FlowId, Packets, Verdict};

#[derive(Default)]
pub(crate) struct Application {
    pub(crate) flows: Vec<(FlowId, FiveTuple)>,
    pub(crate) events: Vec<(FlowId, Event)>,
    pub(crate) received: Vec<u8>,
    pub(crate) sent: Vec<Vec<u8>>,
}

impl Callbacks for Application {
    fn l3_tx(&mut self, packets: Packets<'_>) -> usize {
        self.sent
            .extend(packets.iter().map(|(_, bytes)| bytes.to_vec()));
        packets.len()
    }

    fn l4_rx(&mut self, _flow: FlowId, data: &[u8]) -> usize {
        self.received.extend_from_slice(data);
        data.len()
    }

    fn flow_new(&mut self, flow: FlowId, tuple: &FiveTuple) -> Verdict {
        self.flows.push((flow, *tuple));
        Verdict::ACCEPT
    }

    fn flow_event(&mut self, flow: FlowId, event: Event) {
        self.events.push((flow, event));
    }
}
