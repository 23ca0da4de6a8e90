//! The record as the other side of an engine: its callbacks answer from it, its
//! seeds come from it, and all that crosses the border is compared with it.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::format::{Callback, Frame, Outcome, wit};
use super::reader::Reader;
use super::report::{Report, Unfinished};
use super::text::in_words;
use crate::callbacks::{Callbacks, Packets};
use crate::seed::{Seeds, Words};
use crate::types::{Event, FiveTuple, FlowId, FlowOptions, Verdict};
use crate::witness::{Stopped, Witness};

/// Is shown each frame that was found equal, with the bytes that stand as digests
/// in it.
pub(super) type Observer = Box<dyn FnMut(&Frame<'_>, &[u8]) + Send>;

/// A record, read up to where the replay is.
pub(super) struct Script<R> {
    reader: Reader<R>,
    /// Whether the reader's frame is still to come in the replay.
    loaded: bool,
    /// The last call, in words.
    during: String,
    /// A callback panicked when this was recorded, at this point of the call.
    panicking: bool,
    pub(super) observer: Option<Observer>,
    pub(super) report: Report,
}

/// The script, shared by its parts in one engine.
pub(super) struct Shared<R>(Arc<Mutex<Script<R>>>);

impl<R> Clone for Shared<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> Shared<R> {
    pub(super) fn lock(&self) -> MutexGuard<'_, Script<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Read> Shared<R> {
    pub(super) fn new(reader: Reader<R>) -> Self {
        let report = Report::new(reader.header().clone());
        Self(Arc::new(Mutex::new(Script {
            reader,
            loaded: false,
            during: "the start".to_owned(),
            panicking: false,
            observer: None,
            report,
        })))
    }
}

impl<R: Read> Script<R> {
    pub(super) fn offset(&self) -> u64 {
        self.reader.offset()
    }

    /// Whether nothing more is to be compared.
    pub(super) fn is_over(&self) -> bool {
        let Report {
            ending,
            difference,
            damage,
            ..
        } = &self.report;
        ending.is_some() || difference.is_some() || damage.is_some()
    }

    /// The frame that must come next; none when the replay is over.
    pub(super) fn peek(&mut self) -> Option<Frame<'_>> {
        if self.is_over() {
            return None;
        }
        if !self.loaded {
            match self.reader.next_frame() {
                Ok(Some(_)) => self.loaded = true,
                Ok(None) => self.report.ending = self.reader.ending(),
                Err(error) => self.report.damage = Some(error),
            }
        }
        match self.loaded {
            true => self.reader.frame().ok(),
            false => None,
        }
    }

    /// Takes the call that must come next, as its payload.
    pub(super) fn take_call(&mut self, payload: &mut Vec<u8>) {
        let Some(frame @ Frame::Call(_)) = self.peek() else {
            return;
        };
        let during = match &frame {
            Frame::Call(call) => call.to_string(),
            _ => String::new(),
        };
        drop(frame);
        self.during = during;
        self.found_equal(&[]);
        self.reader.take_payload(payload);
    }

    /// The frame cannot stand here, whatever the engine does.
    pub(super) fn out_of_order(&mut self) {
        let damage = self.reader.damaged("a frame out of its order");
        self.report.damage = Some(damage);
    }

    fn found_equal(&mut self, bytes: &[u8]) {
        self.loaded = false;
        if let Ok(frame) = self.reader.frame() {
            self.report.count(&frame);
            if let Some(observer) = &mut self.observer {
                observer(&frame, bytes);
            }
        }
    }

    fn compare(&mut self, replayed: &Frame<'_>, bytes: &[u8]) -> wasmtime::Result<()> {
        let panicking = self.panicking;
        let Some(recorded) = self.peek() else {
            self.beyond(replayed);
            return Err(Stopped.into());
        };
        match (&recorded, replayed) {
            (recorded, replayed) if recorded == replayed => {}
            (Frame::Outcome(Outcome::Panicked), Frame::Callback(_)) => {
                drop(recorded);
                self.panicking = true;
                wasmtime::bail!("a callback panicked here when this was recorded");
            }
            (Frame::Outcome(Outcome::Panicked), Frame::Outcome(Outcome::Trapped(_)))
                if panicking => {}
            (_, _) => {
                drop(recorded);
                return self.differ(replayed, bytes);
            }
        }
        drop(recorded);
        self.panicking = false;
        self.found_equal(bytes);
        Ok(())
    }

    fn differ(&mut self, replayed: &Frame<'_>, bytes: &[u8]) -> wasmtime::Result<()> {
        if let Ok(recorded) = self.reader.frame() {
            self.report.differ(&self.during, &recorded, replayed, bytes);
        }
        Err(Stopped.into())
    }

    /// The replay goes on where the record has ended within a call.
    fn beyond(&mut self, replayed: &Frame<'_>) {
        let Report {
            ending,
            unfinished,
            difference,
            ..
        } = &self.report;
        let first = ending.is_some() && unfinished.is_none() && difference.is_none();
        if first && !matches!(replayed, Frame::Started(_)) {
            self.report.unfinished = Some(Unfinished {
                call: self.report.all_calls(),
                during: self.during.clone(),
                replayed: in_words(replayed),
            });
        }
    }

    fn seed(&mut self) -> io::Result<Words> {
        let seed = match self.peek() {
            Some(Frame::Instance(configuration)) => Some(configuration.seed),
            Some(_) => None,
            None => return Err(io::Error::other("the record has ended")),
        };
        match seed {
            Some(seed) => Ok(seed),
            None => {
                let instance = Frame::Started(Ok(()));
                let _ = self.differ(&instance, &[]);
                Err(io::Error::other("the record has no instance here"))
            }
        }
    }
}

impl<R: Read + Send> Witness for Shared<R> {
    fn crossed(&mut self, frame: &Frame<'_>, bytes: &[u8]) -> wasmtime::Result<()> {
        match frame {
            // It was taken from the record.
            Frame::Call(_) => Ok(()),
            _ => self.lock().compare(frame, bytes),
        }
    }
}

impl<R: Read + Send + 'static> Shared<R> {
    pub(super) fn seeds(&self) -> Seeds {
        let script = self.clone();
        Seeds::Recorded(Box::new(move || script.lock().seed()))
    }
}

/// Where the record has another frame, the comparison that follows says so.
impl<R: Read + Send + 'static> Callbacks for Shared<R> {
    fn l3_tx(&mut self, _packets: Packets<'_>) -> usize {
        match self.lock().peek() {
            Some(Frame::Callback(Callback::L3Tx { taken, .. })) => taken as usize,
            _ => 0,
        }
    }

    fn l4_rx(&mut self, _flow: FlowId, _data: &[u8]) -> usize {
        match self.lock().peek() {
            Some(Frame::Callback(Callback::L4Rx { taken, .. })) => taken as usize,
            _ => 0,
        }
    }

    fn flow_new(&mut self, _flow: FlowId, _tuple: &FiveTuple) -> Verdict {
        match self.lock().peek() {
            Some(Frame::Callback(Callback::FlowNew { verdict, .. })) => recorded(verdict),
            _ => Verdict::Drop,
        }
    }

    fn flow_event(&mut self, _flow: FlowId, _event: Event) {}
}

fn recorded(verdict: wit::Verdict) -> Verdict {
    match verdict {
        wit::Verdict::Accept(options) => Verdict::Accept(FlowOptions {
            nagle: options.nagle.unwrap_or(false),
            keep_alive: options.keep_alive.map(std::time::Duration::from_nanos),
            idle_timeout: options.idle_timeout.map(std::time::Duration::from_nanos),
            user_timeout: options.user_timeout.map(std::time::Duration::from_nanos),
        }),
        wit::Verdict::Refuse(how) => Verdict::Refuse(how),
        wit::Verdict::Drop => Verdict::Drop,
        wit::Verdict::Wait => Verdict::Wait,
    }
}
