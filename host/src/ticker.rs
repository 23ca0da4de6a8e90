//! The thread that measures how long a guest's call takes.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Moves the epoch of a runtime on, for as long as an engine holds it.
#[derive(Debug)]
pub(crate) struct Ticker;

impl Ticker {
    /// How far a time limit can be overrun, beside the time of a callback.
    const TICK: Duration = Duration::from_millis(5);

    /// Starts the thread. It ends by itself when the ticker is dropped.
    pub(crate) fn start(runtime: &wasmtime::Engine) -> io::Result<Arc<Self>> {
        let runtime = runtime.clone();
        let ticker = Arc::new(Self);
        let held = Arc::downgrade(&ticker);
        thread::Builder::new()
            .name("l3l4-ticker".to_owned())
            .spawn(move || {
                while held.strong_count() > 0 {
                    thread::sleep(Self::TICK);
                    runtime.increment_epoch();
                }
            })?;
        Ok(ticker)
    }

    /// The ticks that a call may see: at least one more than its limit, since the
    /// first may come at once.
    pub(crate) fn ticks(limit: Duration) -> u64 {
        let ticks = limit.as_nanos().div_ceil(Self::TICK.as_nanos()) + 1;
        u64::try_from(ticks)
            .unwrap_or(u64::MAX / 2)
            .min(u64::MAX / 2)
    }
}
