//! The engine with the echo application, on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, anyhow};
use l3l4_host::device::Device;
use l3l4_host::echo::{Echo, Server};
use l3l4_host::{Builder, CounterSnapshot};

pub(super) struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<CounterSnapshot>>,
}

impl Running {
    /// Returns when the engine is ready for packets.
    pub(super) fn start<D: Device + Send + 'static>(
        device: D,
        builder: Builder,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::Builder::new().name("engine".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                let engine = builder.build(Echo::new(device, ()))?;
                let mut server = Server::new(engine);
                // Nobody listens any more when the program is ending.
                let _ = ready.send(());
                server.run(&stop)?;
                Ok(server.counters()?)
            }
        })?;
        let running = Self { stop, thread };
        match is_ready.recv() {
            Ok(()) => Ok(running),
            Err(_) => Err(running
                .finish()
                .err()
                .unwrap_or_else(|| anyhow!("it ended at once")))
            .context("cannot start the engine"),
        }
    }

    /// Whether it stopped by itself.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops it. `Err`: it had stopped by itself.
    pub(super) fn finish(self) -> anyhow::Result<CounterSnapshot> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("its thread panicked"))?
    }
}
