//! The flows that want something of their driver, each at most once.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::FlowId;

/// Filled by the applications' tasks and emptied by the driver. A flow is in it at
/// most once ([`Flow`](super::flow::Flow) sees to that), so it is no longer than
/// there are flows.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    flows: Vec<FlowId>,
    driver: Option<Waker>,
}

impl Inbox {
    /// Tells the driver to look at a flow.
    pub(super) fn push(&self, flow: FlowId) {
        let mut state = self.lock();
        state.flows.push(flow);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Whether there is something; otherwise the driver is woken when there is.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.flows.is_empty() {
            return Poll::Ready(());
        }
        match &mut state.driver {
            Some(driver) => driver.clone_from(cx.waker()),
            driver => *driver = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Moves all into `flows`, which is empty, and keeps its memory for the next.
    pub(super) fn take(&self, flows: &mut Vec<FlowId>) {
        mem::swap(&mut self.lock().flows, flows);
    }

    /// The list is whole between any two statements that hold the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
