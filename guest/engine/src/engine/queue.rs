//! Flows that wait for the same thing, longest waiting first, each once.

use alloc::collections::VecDeque;
use core::mem;

use crate::table::{Flow, FlowTable};
use crate::types::FlowId;

#[derive(Debug)]
pub(super) struct Queue {
    /// Those that have ended are passed over.
    ids: VecDeque<FlowId>,
    /// Where a flow notes that it is in the queue.
    flag: fn(&mut Flow) -> &mut bool,
}

impl Queue {
    pub(super) fn new(flag: fn(&mut Flow) -> &mut bool) -> Self {
        Self {
            ids: VecDeque::new(),
            flag,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Lets the flow in a slot wait, if it does not.
    pub(super) fn push(&mut self, flows: &mut FlowTable, slot: u32) {
        let id = flows.id_of(slot);
        if let Some(flow) = flows.flow_mut(slot)
            && !mem::replace((self.flag)(flow), true)
        {
            self.ids.push_back(id);
        }
        // Flows may come and go while others wait.
        if self.ids.len() > 2 * flows.len() {
            self.ids.retain(|id| flows.slot_of(*id).is_some());
        }
    }

    /// Takes out the flow that waits longest, and returns its slot.
    pub(super) fn pop(&mut self, flows: &mut FlowTable) -> Option<u32> {
        while let Some(id) = self.ids.pop_front() {
            if let Some(slot) = flows.slot_of(id)
                && let Some(flow) = flows.flow_mut(slot)
            {
                *(self.flag)(flow) = false;
                return Some(slot);
            }
        }
        None
    }
}
