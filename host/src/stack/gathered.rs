//! What the flows of a turn have to send, gathered for one call of the engine.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::flow::Flow;
use super::queue::Queue;
use crate::{DataBatch, FlowSnapshot};

/// A flow whose data is in the driver's hands.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) flow: Arc<Flow>,
    pub(super) queue: Queue,
    /// Answered when the data is sent.
    pub(super) inquiries: Vec<oneshot::Sender<FlowSnapshot>>,
}

/// The flows of a turn whose data begins with short pieces.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) batch: DataBatch,
    /// Each with how many portions of the batch it has.
    pub(super) flows: Vec<(Sending, usize)>,
}

impl Gathered {
    /// Adds a flow with the short pieces that its data begins with, or gives it back
    /// when there is none.
    pub(super) fn add(&mut self, mut sending: Sending) -> Option<Sending> {
        let portions = sending.queue.gather(sending.flow.id, &mut self.batch);
        if portions == 0 {
            return Some(sending);
        }
        self.flows.push((sending, portions));
        None
    }
}
