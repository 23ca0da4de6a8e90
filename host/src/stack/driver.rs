//! The task that drives one engine: packets in, data out; data in, packets out.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::coop;
use tokio::time::Sleep;

use super::border::Border;
use super::device::PacketDevice;
use super::error::refused;
use super::flow::{Flow, Opened};
use super::gathered::{Gathered, Sending};
use super::inbox::Inbox;
use super::metrics::Metrics;
use super::queue::Queue;
use crate::{
    Batch, Engine, Error, FiveTuple, FlowError, FlowId, FlowOptions, Instant, Protocol, Refusal,
    Sent, Verdict,
};

/// How long the end waits for a device that takes no packets.
const LONGEST_FLUSH: Duration = Duration::from_secs(1);

/// How long a peer has to answer a SYN that tells it of a lost connection: less than
/// the first retransmission takes (RFC 6298 2.1), which would ask for a new one.
const ANSWERED: Duration = Duration::from_millis(900);

/// What a [`Stack`](super::Stack) asks of a driver.
#[derive(Debug)]
pub(super) enum Request {
    Open {
        tuple: FiveTuple,
        options: FlowOptions,
        reply: oneshot::Sender<io::Result<Opened>>,
    },
    Metrics(oneshot::Sender<Metrics>),
    /// Reset all flows and end.
    Shutdown(oneshot::Sender<()>),
}

/// One engine with its device.
pub(super) struct Driver<D: PacketDevice> {
    engine: Engine<Border<D>>,
    inbox: Arc<Inbox>,
    requests: mpsc::Receiver<Request>,
    request: Option<Request>,
    /// Nobody can ask for anything any more.
    orphaned: bool,
    start: tokio::time::Instant,
    /// When the engine wants `l4_poll`.
    deadline: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    batch: Batch,
    /// The flows of this turn, kept for its memory.
    attended: Vec<FlowId>,
    /// What the flows of this turn have to send.
    gathered: Gathered,
    /// The SYNs that told peers of a lost connection, and until when they stand.
    told: VecDeque<(Instant, FlowId)>,
}

impl<D: PacketDevice> Driver<D> {
    /// To be called within a tokio runtime.
    pub(super) fn new(engine: Engine<Border<D>>, requests: mpsc::Receiver<Request>) -> Self {
        let start = tokio::time::Instant::now();
        Self {
            inbox: Arc::clone(&engine.callbacks().inbox),
            engine,
            requests,
            request: None,
            orphaned: false,
            start,
            deadline: None,
            timer: Box::pin(tokio::time::sleep_until(start)),
            batch: Batch::new(),
            attended: Vec::new(),
            gathered: Gathered::default(),
            told: VecDeque::new(),
        }
    }

    /// Drives until asked to end, or until nobody holds the stack nor a flow of it.
    /// A trap of the guest ends the flows that live and not the service.
    ///
    /// # Errors
    ///
    /// The device's, or the engine's beyond what a new instance mends.
    pub(super) async fn run(mut self) -> io::Result<()> {
        loop {
            poll_fn(|cx| self.poll_ready(cx)).await?;
            if let Some(ended) = self.turn().map_err(io::Error::other)? {
                self.flush().await;
                // The engine's record is complete when its end is told.
                drop(self);
                let _ = ended.send(());
                return Ok(());
            }
            let border = self.engine.callbacks();
            if self.orphaned && border.is_idle() && border.device.is_alone() {
                self.flush().await;
                return Ok(());
            }
            coop::consume_budget().await;
        }
    }

    /// The peers may be told as long as the device takes packets at all.
    async fn flush(&mut self) {
        let flushed = poll_fn(|cx| self.poll_flushed(cx));
        let _ = tokio::time::timeout(LONGEST_FLUSH, flushed).await;
    }

    /// Ready when there is something to do.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let border = self.engine.callbacks_mut();
        let mut is_ready = false;
        if border.device_full && border.device.poll_room(cx)?.is_ready() {
            border.device_full = false;
            // What was refused is offered again by the next call: this one.
            self.deadline = Some(Instant(0));
        }
        if let Poll::Ready(result) = border.device.poll_flush(cx) {
            result?;
        }
        if border.device.poll_receive(cx, &mut self.batch)?.is_ready() {
            is_ready = true;
        }
        is_ready |= self.inbox.poll(cx).is_ready();
        is_ready |= self.poll_request(cx);
        is_ready |= self.poll_deadline(cx);
        match is_ready {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    /// Ready when the engine has nothing left to send and the device has sent it.
    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.engine.callbacks().device_full {
            let border = self.engine.callbacks_mut();
            ready!(border.device.poll_room(cx))?;
            border.device_full = false;
            let now = self.now();
            let deadline = self.engine.l4_poll(now);
            self.note(now, deadline).map_err(io::Error::other)?;
        }
        self.engine.callbacks_mut().device.poll_flush(cx)
    }

    fn poll_request(&mut self, cx: &mut Context<'_>) -> bool {
        if self.orphaned {
            return false;
        }
        match self.requests.poll_recv(cx) {
            Poll::Ready(Some(request)) => self.request = Some(request),
            Poll::Ready(None) => self.orphaned = true,
            Poll::Pending => return false,
        }
        true
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let told = self.told.front().map(|(due, _)| *due);
        let Some(deadline) = self.deadline.into_iter().chain(told).min() else {
            return false;
        };
        let due = self.start + (deadline - Instant(0));
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    fn now(&self) -> Instant {
        Instant(0) + self.start.elapsed()
    }

    /// Once around: packets in, data out, housekeeping. Says who asked for the end.
    fn turn(&mut self) -> Result<Option<oneshot::Sender<()>>, Error> {
        let now = self.now();
        if !self.batch.is_empty() {
            let deadline = self.engine.l3_rx(now, &self.batch);
            self.batch.clear();
            self.note(now, deadline)?;
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            let deadline = self.engine.l4_poll(now);
            self.note(now, deadline)?;
        }
        self.attend_all(now)?;
        self.tell_lost(now)?;
        match self.request.take() {
            Some(request) => self.answer(now, request),
            None => Ok(None),
        }
    }

    fn attend_all(&mut self, now: Instant) -> Result<(), Error> {
        let mut attended = mem::take(&mut self.attended);
        self.inbox.take(&mut attended);
        for id in attended.drain(..) {
            if let Some(flow) = self.engine.callbacks().flow(id) {
                self.attend(now, flow)?;
            }
            if self.gathered.batch.is_full() {
                self.send_gathered(now)?;
            }
        }
        self.attended = attended;
        self.send_gathered(now)
    }

    /// Tells the peers of connections that went with their engine, which else would
    /// hear of it when they next say something, and wait until then. To a SYN out of
    /// nowhere a peer answers with what it expects, and the engine answers that with
    /// RST: how a connection of which one side has lost its memory is recovered (RFC
    /// 9293 3.5.1).
    fn tell_lost(&mut self, now: Instant) -> Result<(), Error> {
        let options = FlowOptions::default();
        for tuple in mem::take(&mut self.engine.callbacks_mut().lost) {
            match self.engine.flow_open(now, &tuple, options) {
                Ok((id, deadline)) => {
                    self.deadline = deadline;
                    self.engine.callbacks_mut().add(id, tuple).disown();
                    self.told.push_back((now + ANSWERED, id));
                }
                // The peer has opened it anew.
                Err(Error::Open(_)) => {}
                Err(error) => self.note(now, Err(error))?,
            }
        }
        while let Some((due, id)) = self.told.front().copied()
            && due <= now
        {
            self.told.pop_front();
            let deadline = self.engine.flow_abort(now, id);
            self.note(now, deadline)?;
        }
        Ok(())
    }

    /// Does for one flow what its application wants, but for data that goes with that
    /// of other flows.
    fn attend(&mut self, now: Instant, flow: Arc<Flow>) -> Result<(), Error> {
        let work = flow.take_work();
        if let Some(verdict) = work.verdict {
            self.count(&verdict);
            let deadline = self.engine.flow_verdict(now, flow.id, verdict);
            self.note(now, deadline)?;
        }
        if work.abort {
            // What was to be sent is gone.
            flow.sent(Queue::default());
            let deadline = self.engine.flow_abort(now, flow.id);
            return self.note(now, deadline);
        }
        if work.resume {
            let deadline = self.engine.flow_resume(now, flow.id);
            self.note(now, deadline)?;
        }
        let sending = Sending {
            flow,
            queue: work.outgoing,
            inquiries: work.inquiries,
        };
        match self.gathered.add(sending) {
            Some(sending) => self.send_rest(now, sending),
            None => Ok(()),
        }
    }

    /// Sends what was gathered in one call, and then what those flows have beside it.
    fn send_gathered(&mut self, now: Instant) -> Result<(), Error> {
        let mut gathered = mem::take(&mut self.gathered);
        let mut taken = Vec::new();
        // A single piece goes as well with the rest.
        if gathered.batch.len() > 1 {
            match self.engine.l4_tx_batch(now, &gathered.batch) {
                Ok(sent) => {
                    self.deadline = sent.deadline;
                    taken = sent.taken;
                }
                // A trap: the flows are gone, as those hear that go on below.
                Err(error) => self.note(now, Err(error))?,
            }
        }
        let lengths = gathered.batch.portions().iter();
        let mut pieces = lengths.map(|portion| portion.length as usize).zip(taken);
        for (mut sending, portions) in gathered.flows.drain(..) {
            let mut all = true;
            for (length, taken) in pieces.by_ref().take(portions) {
                if all {
                    let taken = taken.map_err(Error::Flow);
                    let taken = self.note_sent(now, taken)?;
                    all = self.advance(&sending.flow, &mut sending.queue, length, taken);
                }
            }
            match all {
                true => self.send_rest(now, sending)?,
                false => self.give_back(now, sending)?,
            }
        }
        gathered.batch.clear();
        self.gathered = gathered;
        Ok(())
    }

    /// Sends until nothing is left or the engine takes no more.
    fn send_rest(&mut self, now: Instant, mut sending: Sending) -> Result<(), Error> {
        while !sending.queue.is_empty() && self.send_piece(now, &mut sending)? {}
        self.give_back(now, sending)
    }

    /// What was not taken goes back to the flow, and what comes after data follows.
    fn give_back(&mut self, now: Instant, sending: Sending) -> Result<(), Error> {
        let flow = sending.flow;
        if flow.sent(sending.queue) {
            let deadline = self.engine.flow_finish(now, flow.id);
            self.note(now, deadline)?;
        }
        for inquiry in sending.inquiries {
            match self.engine.flow_info(flow.id) {
                Ok(info) => drop(inquiry.send(info)),
                Err(error) => self.note(now, Err(error))?,
            }
        }
        Ok(())
    }

    /// Sends a piece of a stream, or a datagram. Says whether it is done with.
    fn send_piece(&mut self, now: Instant, sending: &mut Sending) -> Result<bool, Error> {
        let Sending { flow, queue, .. } = sending;
        let (length, sent) = match queue.front_datagram() {
            Some((data, datagram)) => {
                let sent = match datagram.source {
                    None => self.engine.l4_tx(now, flow.id, data),
                    Some(source) => self.engine.l4_tx_from(now, flow.id, source, data),
                };
                (data.len(), sent)
            }
            None => {
                let piece = queue.front();
                (piece.len(), self.engine.l4_tx(now, flow.id, piece))
            }
        };
        let taken = sent.map(|Sent { taken, deadline }| {
            self.deadline = deadline;
            taken
        });
        let taken = self.note_sent(now, taken)?;
        Ok(self.advance(flow, queue, length, taken))
    }

    /// How much was taken; `None` when the flow takes nothing any more.
    fn note_sent(
        &mut self,
        now: Instant,
        taken: Result<usize, Error>,
    ) -> Result<Option<usize>, Error> {
        match taken {
            Ok(taken) => Ok(Some(taken)),
            Err(error) => self.note(now, Err(error)).map(|()| None),
        }
    }

    /// Removes what was taken of the piece in front. Says whether it is done with.
    fn advance(
        &mut self,
        flow: &Flow,
        queue: &mut Queue,
        length: usize,
        taken: Option<usize>,
    ) -> bool {
        match (flow.tuple.protocol, taken) {
            (Protocol::Tcp, Some(taken)) => {
                queue.advance(taken);
                taken == length
            }
            // The flow is ending, and the data with it.
            (Protocol::Tcp, None) => {
                queue.clear();
                true
            }
            (Protocol::Udp | Protocol::IcmpEcho, Some(taken)) if taken < length => false,
            (Protocol::Udp | Protocol::IcmpEcho, taken) => {
                if taken.is_none() {
                    self.engine.callbacks_mut().tally.datagrams_refused += 1;
                }
                queue.advance_datagram();
                true
            }
        }
    }

    /// Keeps the deadline of a call. After a trap the new instance is asked for its
    /// own at once. A refusal concerns one flow, not the service: it is ending, and
    /// the event that says so has come or will.
    fn note(&mut self, now: Instant, result: Result<Option<Instant>, Error>) -> Result<(), Error> {
        match result {
            Ok(deadline) => self.deadline = deadline,
            Err(error @ Error::Trap { .. }) => {
                tracing::warn!(%error, "the engine was restarted");
                self.engine.callbacks_mut().tally.restarts += 1;
                self.deadline = Some(now);
            }
            Err(Error::Flow(error)) => {
                tracing::debug!(error = error.name(), "a flow's call was refused");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn count(&mut self, verdict: &Verdict) {
        let tally = &mut self.engine.callbacks_mut().tally;
        match verdict {
            Verdict::Accept(_) => tally.accepted += 1,
            Verdict::Refuse(_) => tally.refused += 1,
            Verdict::Drop => tally.ignored += 1,
            Verdict::Wait => {}
        }
    }

    fn answer(
        &mut self,
        now: Instant,
        request: Request,
    ) -> Result<Option<oneshot::Sender<()>>, Error> {
        match request {
            Request::Open {
                tuple,
                options,
                reply,
            } => self.open(now, tuple, options, reply)?,
            Request::Metrics(reply) => {
                let engine = match self.engine.counters() {
                    Ok(engine) => engine,
                    // A trap, which does not end the service: those of the new engine.
                    Err(error) => {
                        self.note(now, Err(error))?;
                        self.engine.counters()?
                    }
                };
                let border = self.engine.callbacks();
                let mut tally = border.tally;
                tally.packets_not_handed_over = border.device.lost;
                let _ = reply.send(Metrics::of(engine, tally));
            }
            Request::Shutdown(reply) => {
                for id in self.engine.callbacks().ids() {
                    self.turn_away(now, id)?;
                }
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    /// Ends a flow so that its peer is told: by a refusal where one is possible, as a
    /// flow that has no verdict cannot be reset.
    fn turn_away(&mut self, now: Instant, id: FlowId) -> Result<(), Error> {
        let refuse = Verdict::Refuse(Refusal::Reset);
        let deadline = match self.engine.flow_verdict(now, id, refuse) {
            Err(Error::Flow(FlowError::AlreadyDecided)) => self.engine.flow_abort(now, id),
            refused => refused,
        };
        self.note(now, deadline)
    }

    fn open(
        &mut self,
        now: Instant,
        tuple: FiveTuple,
        options: FlowOptions,
        reply: oneshot::Sender<io::Result<Opened>>,
    ) -> Result<(), Error> {
        let result = match self.engine.flow_open(now, &tuple, options) {
            Ok((id, deadline)) => {
                self.deadline = deadline;
                let flow = self.engine.callbacks_mut().add(id, tuple);
                Ok(Opened::new(flow))
            }
            Err(error @ Error::Open(_)) => Err(refused(error)),
            Err(error) => {
                self.note(now, Err(error))?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
        };
        // The task that asked may have gone, before or after: then the flow goes too.
        let _ = reply.send(result);
        Ok(())
    }
}
