//! Signals: what is sent to us is meant for the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context;
use l3l4_host::sandbox::SignalSender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;
use tokio::sync::Notify;

/// Job control (SIGTSTP, SIGCONT) is left to the terminal, which stops and continues
/// the program and us together.
const PASSED_ON: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// The thread that passes signals on.
#[derive(Debug)]
pub(super) struct Signals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    program_ended: AtomicBool,
    interrupted: Notify,
}

impl Signals {
    /// Passes signals on from here. A terminal sends its signals to all processes of
    /// the foreground, the program too: those are not sent to it a second time.
    pub(super) fn pass_on(to: SignalSender) -> anyhow::Result<Self> {
        let listen = || -> io::Result<_> { SignalsInfo::<WithOrigin>::new(PASSED_ON) };
        let mut signals = listen().context("cannot listen for signals")?;
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        let pass_on = move || {
            for origin in signals.forever() {
                if ours.program_ended.load(Ordering::Relaxed) {
                    ours.interrupted.notify_one();
                } else if origin.cause != Cause::Kernel
                    && let Err(error) = to.send(origin.signal)
                {
                    tracing::debug!(%error, "the program is gone");
                }
            }
        };
        let named = thread::Builder::new().name("signals".to_owned());
        named.spawn(pass_on).context("cannot start a thread")?;
        Ok(Self(shared))
    }

    /// The program has ended. Resolves when a signal comes: it is for us.
    pub(super) fn end(self) -> impl Future<Output = ()> {
        self.0.program_ended.store(true, Ordering::Relaxed);
        async move { self.0.interrupted.notified().await }
    }
}
