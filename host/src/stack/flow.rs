//! One flow, as the application's tasks and the driver share it.
//!
//! The tasks put in what they want and take out what came; the driver carries it
//! to and from the engine. Neither waits for the other with the lock held.

use std::io;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::{Notify, oneshot};

use super::budget::Budget;
use super::error::FlowEnded;
use super::inbox::Inbox;
use super::queue::Queue;
use crate::{CloseReason, Event, FiveTuple, FlowId, FlowOptions, FlowSnapshot, Protocol, Verdict};

/// Most bytes that wait in a flow, each way, and in all flows together.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) receive_queue: usize,
    pub(super) send_queue: usize,
    pub(super) budget: Arc<Budget>,
}

/// One flow.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) id: FlowId,
    pub(super) tuple: FiveTuple,
    limits: Limits,
    inbox: Arc<Inbox>,
    state: Mutex<State>,
    /// The connection is established, reset by its peer, or the flow has ended.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    received: Queue,
    outgoing: Queue,
    /// Of `outgoing`, what the driver has in its hands.
    under_way: usize,
    /// Of the budget, what both queues have in use.
    charged: usize,
    wanted: Wanted,
    /// It is in the inbox.
    queued: bool,
    established: bool,
    /// The peer's FIN came, and all its data is in `received` or was read.
    peer_finished: bool,
    /// The peer has reset the connection; what it sent before is with the engine, or
    /// the flow has ended.
    peer_reset: bool,
    /// We took less than the engine offered.
    held_back: bool,
    /// The engine took less than it was offered, and will say when there is room.
    blocked: bool,
    /// The application sends no more.
    finishing: bool,
    /// No task has it any more.
    abandoned: bool,
    /// No task ever wants it.
    unwanted: bool,
    closed: Option<CloseReason>,
    readers: Waiters,
    writers: Waiters,
}

impl State {
    /// Tells the budget what the queues hold.
    fn charge(&mut self, budget: &Budget) {
        let held = self.received.weight() + self.outgoing.weight() + self.under_way;
        budget.change(self.charged, held);
        self.charged = held;
    }

    /// How the flow has ended, or will.
    fn ending(&self) -> Option<CloseReason> {
        let reset = self.peer_reset.then_some(CloseReason::ResetByPeer);
        self.closed.or(reset)
    }
}

/// What the driver is to do.
#[derive(Debug, Default)]
struct Wanted {
    verdict: Option<Verdict>,
    abort: bool,
    resume: bool,
    finish: bool,
    /// Who wants a snapshot.
    inquiries: Vec<oneshot::Sender<FlowSnapshot>>,
}

/// What the driver found to do, with the data to send.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) verdict: Option<Verdict>,
    pub(super) abort: bool,
    pub(super) resume: bool,
    pub(super) outgoing: Queue,
    pub(super) inquiries: Vec<oneshot::Sender<FlowSnapshot>>,
}

/// The tasks that wait for one thing, each once.
#[derive(Debug, Default)]
struct Waiters(Vec<Waker>);

/// Some of more may have gone without a word: those that still wait come again.
const MOST_WAITERS: usize = 64;

impl Waiters {
    fn add(&mut self, cx: &Context<'_>) {
        if self.0.iter().any(|waiter| waiter.will_wake(cx.waker())) {
            return;
        }
        if self.0.len() == MOST_WAITERS {
            self.take().wake();
        }
        self.0.push(cx.waker().clone());
    }

    fn take(&mut self) -> Self {
        mem::take(self)
    }

    fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

impl Flow {
    pub(super) fn new(id: FlowId, tuple: FiveTuple, inbox: Arc<Inbox>, limits: Limits) -> Self {
        Self {
            id,
            tuple,
            limits,
            inbox,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// The state is whole between any two statements that hold the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is wanted, and tells the driver.
    fn want<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state);
        let is_news = state.closed.is_none() && !mem::replace(&mut state.queued, true);
        drop(state);
        if is_news {
            self.inbox.push(self.id);
        }
        result
    }
}

/// The application's side.
impl Flow {
    pub(super) fn decide(&self, verdict: Verdict) {
        self.want(|state| state.wanted.verdict = Some(verdict));
    }

    pub(super) fn accept(&self, options: FlowOptions) {
        self.decide(Verdict::Accept(options.clamped()));
    }

    pub(super) fn poll_read(
        &self,
        cx: &Context<'_>,
        read: impl FnOnce(&mut Queue),
    ) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if !state.received.is_empty() {
            read(&mut state.received);
            state.charge(&self.limits.budget);
            let weight = state.received.weight();
            // Half of what it may hold is free.
            let has_room = self.receive_room(weight) >= weight;
            let resume = has_room && mem::take(&mut state.held_back);
            drop(state);
            if resume {
                self.want(|state| state.wanted.resume = true);
            }
            return Poll::Ready(Ok(()));
        }
        match state.closed {
            // A FIN is the end of the data, whatever becomes of our own side.
            _ if state.peer_finished => Poll::Ready(Ok(())),
            Some(CloseReason::Finished) => Poll::Ready(Ok(())),
            Some(reason) => Poll::Ready(Err(FlowEnded(reason).into())),
            None => {
                state.readers.add(cx);
                Poll::Pending
            }
        }
    }

    /// Appends what `push` can of its data to what is sent, given the room; `push`
    /// says `None` when that is nothing.
    pub(super) fn poll_write<R>(
        &self,
        cx: &Context<'_>,
        push: impl FnOnce(&mut Queue, usize) -> Option<R>,
    ) -> Poll<io::Result<R>> {
        let mut state = self.lock();
        if let Some(reason) = state.ending() {
            return Poll::Ready(Err(match reason {
                CloseReason::Finished => io::ErrorKind::BrokenPipe.into(),
                reason => FlowEnded(reason).into(),
            }));
        }
        if state.finishing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let weight = state.outgoing.weight() + state.under_way;
        let room = self.limits.budget.room(weight, self.limits.send_queue);
        // Of a full queue the driver has a part in its hands: what is appended to
        // an empty one must not pass the bound.
        if room == 0 {
            state.writers.add(cx);
            return Poll::Pending;
        }
        let Some(result) = push(&mut state.outgoing, room) else {
            state.writers.add(cx);
            return Poll::Pending;
        };
        state.charge(&self.limits.budget);
        let blocked = state.blocked;
        drop(state);
        if !blocked {
            self.want(|_| ());
        }
        Poll::Ready(Ok(result))
    }

    /// FIN after what was written (TCP), or the end (datagrams).
    pub(super) fn finish(&self) -> io::Result<()> {
        self.want(|state| {
            state.wanted.finish |= !state.finishing;
            state.finishing = true;
            match state.ending() {
                None | Some(CloseReason::Finished) => Ok(()),
                Some(reason) => Err(FlowEnded(reason).into()),
            }
        })
    }

    pub(super) fn abort(&self) {
        self.want(|state| state.wanted.abort = true);
    }

    /// No task has the flow any more. What was written is sent, then FIN; received
    /// data that nobody will read is a reset (RFC 1122 4.2.2.13).
    pub(super) fn abandon(&self) {
        self.want(|state| {
            state.abandoned = true;
            state.wanted.abort |= !state.received.is_empty();
            state.received.clear();
            state.charge(&self.limits.budget);
            state.wanted.finish |= !state.finishing;
            state.finishing = true;
        });
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.lock().closed
    }

    /// Waits until the flow has ended.
    pub(super) async fn closed(&self) -> CloseReason {
        self.until(|state| state.closed).await
    }

    /// Waits until it is known how the flow ends.
    pub(super) async fn ending(&self) -> CloseReason {
        self.until(State::ending).await
    }

    /// Waits until the handshake is complete, or the flow has ended without.
    pub(super) async fn established(&self) -> Result<(), CloseReason> {
        self.until(|state| match (state.established, state.closed) {
            (true, _) => Some(Ok(())),
            (false, Some(reason)) => Some(Err(reason)),
            (false, None) => None,
        })
        .await
    }

    async fn until<R>(&self, is: impl Fn(&State) -> Option<R>) -> R {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(result) = is(&self.lock()) {
                return result;
            }
            changed.await;
        }
    }

    /// The engine's view of the flow.
    pub(super) async fn info(&self) -> io::Result<FlowSnapshot> {
        let (inquiry, answer) = oneshot::channel();
        self.want(|state| match state.closed {
            None => {
                state.wanted.inquiries.push(inquiry);
                Ok(())
            }
            Some(reason) => Err(FlowEnded(reason)),
        })?;
        // The flow may end before its turn.
        match answer.await {
            Ok(info) => Ok(info),
            Err(_) => Err(FlowEnded(self.closed().await).into()),
        }
    }
}

/// The driver's side.
impl Flow {
    /// Received data; how much is taken.
    pub(super) fn deliver(&self, data: &[u8]) -> usize {
        let mut state = self.lock();
        if state.abandoned {
            drop(state);
            if self.tuple.protocol == Protocol::Tcp {
                self.abort();
            }
            return data.len();
        }
        let room = self.receive_room(state.received.weight());
        let taken = match self.tuple.protocol {
            Protocol::Tcp => {
                let taken = state.received.push(data, room);
                state.held_back = taken < data.len();
                taken
            }
            Protocol::Udp | Protocol::IcmpEcho => {
                match state.received.push_datagram(data, None, room) {
                    true => data.len(),
                    false => 0,
                }
            }
        };
        state.charge(&self.limits.budget);
        let readers = state.readers.take();
        drop(state);
        readers.wake();
        taken
    }

    /// What a receive queue that holds so much has room for.
    fn receive_room(&self, weight: usize) -> usize {
        self.limits.budget.room(weight, self.limits.receive_queue)
    }

    /// Nobody wants this connection: should it come to be, it is reset.
    pub(super) fn disown(&self) {
        let mut state = self.lock();
        (state.abandoned, state.unwanted) = (true, true);
    }

    /// Whether it is a connection that the peer knows of.
    pub(super) fn is_connected(&self) -> bool {
        let state = self.lock();
        state.established && !state.unwanted && !state.peer_reset
    }

    pub(super) fn event(&self, event: Event) {
        let mut state = self.lock();
        match event {
            Event::Established => {
                state.established = true;
                state.wanted.abort |= state.unwanted;
            }
            Event::Writable => {
                state.blocked = false;
                drop(state);
                return self.want(|_| ());
            }
            Event::PeerFinished => state.peer_finished = true,
            Event::PeerReset => {
                state.peer_reset = true;
                state.outgoing.clear();
            }
            Event::Closed(reason) => {
                state.closed = Some(reason);
                state.outgoing.clear();
                state.wanted = Wanted::default();
            }
        }
        state.charge(&self.limits.budget);
        let unwanted = state.unwanted;
        let (readers, writers) = (state.readers.take(), state.writers.take());
        drop(state);
        readers.wake();
        writers.wake();
        self.changed.notify_waiters();
        if unwanted {
            self.want(|_| ());
        }
    }

    /// What there is to do. The data comes back by [`sent`](Self::sent).
    pub(super) fn take_work(&self) -> Work {
        let mut state = self.lock();
        state.queued = false;
        let outgoing = match state.blocked {
            true => Queue::default(),
            false => mem::take(&mut state.outgoing),
        };
        state.under_way = outgoing.weight();
        // Said before, so that a `Writable` from within the call is not undone.
        state.blocked |= !outgoing.is_empty();
        Work {
            verdict: state.wanted.verdict.take(),
            abort: mem::take(&mut state.wanted.abort),
            resume: mem::take(&mut state.wanted.resume),
            outgoing,
            inquiries: mem::take(&mut state.wanted.inquiries),
        }
    }

    /// What is left of the data that was taken to be sent. Says whether FIN is due.
    pub(super) fn sent(&self, rest: Queue) -> bool {
        let mut state = self.lock();
        let all = rest.is_empty() || state.ending().is_some();
        let had = mem::take(&mut state.under_way) > 0;
        if had {
            state.blocked &= !all;
        }
        if !all {
            state.outgoing.put_back(rest);
        }
        state.charge(&self.limits.budget);
        let is_done = state.outgoing.is_empty();
        // A verdict that came meanwhile, to refuse datagrams, goes before the end.
        let may_finish = is_done && state.wanted.verdict.is_none();
        let finish = may_finish && mem::take(&mut state.wanted.finish);
        let writers = match all {
            true => state.writers.take(),
            false => Waiters::default(),
        };
        // Written while the data was on its way.
        let again = !state.blocked && !is_done && !mem::replace(&mut state.queued, true);
        drop(state);
        writers.wake();
        if again {
            self.inbox.push(self.id);
        }
        finish
    }
}

/// What it holds yet is free for others.
impl Drop for Flow {
    fn drop(&mut self) {
        let charged = self.lock().charged;
        self.limits.budget.change(charged, 0);
    }
}

/// A flow that was opened for a task, until the task takes it: aborted when it does
/// not.
#[derive(Debug)]
pub(super) struct Opened(Option<Owner>);

impl Opened {
    pub(super) fn new(flow: Arc<Flow>) -> Self {
        Self(Some(Owner(flow)))
    }

    pub(super) fn flow(&self) -> Option<&Flow> {
        self.0.as_ref().map(|owner| &*owner.0)
    }

    pub(super) fn take(mut self) -> Option<Owner> {
        self.0.take()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(flow) = self.flow() {
            flow.abort();
        }
    }
}

/// The ends that an application gave up are told to the driver.
#[derive(Debug)]
pub(super) struct Owner(pub(super) Arc<Flow>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
