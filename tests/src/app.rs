//! Applications on the engine's side of a [`World`](crate::world::World).

use std::collections::BTreeMap;

use l3l4_engine::{Event, FlowError, FlowId};

use crate::scene::Scene;

/// What the application does with each flow.
#[derive(Clone, Debug)]
pub enum App {
    /// Sends back what it receives, holds at most `room` bytes, and finishes when
    /// the peer has.
    Echo {
        /// Bytes it holds at most: what does not fit is left with the engine.
        room: usize,
    },
    /// Takes all, and finishes when the peer has.
    Discard,
    /// Sends these bytes, finishes, and takes all.
    Source(Vec<u8>),
}

/// The application's side of the flows of one engine.
#[derive(Debug)]
pub struct Application {
    app: App,
    conversations: BTreeMap<FlowId, Conversation>,
    /// All that was received of each flow.
    pub received: BTreeMap<FlowId, Vec<u8>>,
    /// All events, in order.
    pub events: Vec<(FlowId, Event)>,
}

#[derive(Debug, Default)]
struct Conversation {
    outgoing: Vec<u8>,
    finish_when_sent: bool,
    finished: bool,
    full: bool,
    /// The peer has reset it: nothing can be sent any more.
    lost: bool,
}

impl Application {
    /// An application without flows.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self {
            app,
            conversations: BTreeMap::new(),
            received: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// Joins a flow that the host opened.
    pub fn join(&mut self, flow: FlowId) {
        let conversation = match &self.app {
            App::Echo { .. } | App::Discard => Conversation::default(),
            App::Source(data) => Conversation {
                outgoing: data.clone(),
                finish_when_sent: true,
                ..Conversation::default()
            },
        };
        self.conversations.insert(flow, conversation);
    }

    /// Reacts to what the last export called back, until nothing more happens.
    pub fn react(&mut self, scene: &mut Scene) {
        while self.take_note(scene) | self.send(scene) {}
    }

    /// Whether there was anything to take note of.
    fn take_note(&mut self, scene: &mut Scene) -> bool {
        let announced = std::mem::take(&mut scene.host().announced);
        let events = scene.events();
        let flows: Vec<_> = scene.host().received.keys().copied().collect();
        let any = !(announced.is_empty() && events.is_empty() && flows.is_empty());
        for (flow, _) in announced {
            self.join(flow);
            if let App::Echo { room } = self.app {
                scene.host().appetite.insert(flow, room);
            }
        }
        for flow in flows {
            let data = scene.stream(flow);
            if let (App::Echo { .. }, Some(talk)) = (&self.app, self.conversations.get_mut(&flow)) {
                talk.outgoing.extend_from_slice(&data);
            }
            self.received.entry(flow).or_default().extend(data);
        }
        for (flow, event) in events {
            self.events.push((flow, event));
            let Some(talk) = self.conversations.get_mut(&flow) else {
                continue;
            };
            match event {
                Event::Established => {}
                Event::Writable => talk.full = false,
                Event::PeerFinished => talk.finish_when_sent = true,
                Event::PeerReset => talk.lost = true,
                Event::Closed(_) => drop(self.conversations.remove(&flow)),
            }
        }
        any
    }

    /// Whether a call was made.
    fn send(&mut self, scene: &mut Scene) -> bool {
        let ready = |talk: &Conversation| {
            let has_data = !talk.outgoing.is_empty() && !talk.full;
            let may_finish = talk.outgoing.is_empty() && talk.finish_when_sent && !talk.finished;
            has_data || may_finish || talk.lost
        };
        let Some((&flow, talk)) = self.conversations.iter_mut().find(|(_, talk)| ready(talk))
        else {
            return false;
        };
        if std::mem::take(&mut talk.lost) {
            scene.abort(flow).expect("it lives until its data is taken");
            return true;
        }
        if talk.outgoing.is_empty() {
            talk.finished = true;
            match scene.finish(flow) {
                Ok(()) | Err(FlowError::Closing) => {}
                Err(other) => panic!("finish: {other:?}"),
            }
            return true;
        }
        let given = talk.outgoing.len();
        match scene.tx(flow, &talk.outgoing) {
            Ok(taken) => {
                drop(talk.outgoing.drain(..taken));
                talk.full = taken < given;
            }
            Err(FlowError::Closing) => talk.outgoing.clear(),
            Err(other) => panic!("l4-tx: {other:?}"),
        }
        if let App::Echo { room } = self.app {
            let appetite = room - talk.outgoing.len().min(room);
            scene.host().appetite.insert(flow, appetite);
            if appetite > 0 && scene.host().held.contains(&flow) {
                let _ = scene.resume(flow);
            }
        }
        true
    }
}
