//! The network of the program: the engine and the proxy behind its device.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::Context;
use l3l4_host::Builder;
use l3l4_host::device::Device;
use l3l4_host::proxy::Proxy;
use l3l4_host::stack::{FdDevice, Stack};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::ledger::Ledger;

/// How long nothing may move, after the program's end, on what it left to be sent.
const SILENCE: Duration = Duration::from_secs(2);
/// How long there may be something to be sent.
const LONGEST: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The engine and the proxy, on threads of their own.
pub(super) struct Service {
    runtime: Runtime,
    stack: Stack,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
}

impl Service {
    pub(super) fn start(
        device: impl Device + AsFd + Send + 'static,
        engine: Builder,
        record: Option<File>,
        proxy: Proxy,
        ledger: Arc<Ledger>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers())
            .enable_all()
            .build();
        let runtime = runtime.context("cannot start threads")?;
        let entered = runtime.enter();
        let mut builder = Stack::builder().engine(engine);
        if let Some(file) = record {
            builder = builder.record(file);
        }
        let device = FdDevice::new(device).context("cannot follow the device")?;
        let stack = builder.start(device).context("cannot start the engine")?;
        let (stop, stopped) = oneshot::channel();
        let served = stack.clone();
        let serving = runtime.spawn(async move {
            let stopped = async { drop(stopped.await) };
            proxy.serve(&served, ledger, stopped).await
        });
        drop(entered);
        Ok(Self {
            runtime,
            stack,
            stop,
            serving,
        })
    }

    /// What it serves; of use beyond its end for what it says of that.
    pub(super) fn stack(&self) -> Stack {
        self.stack.clone()
    }

    /// Carries what the program left to be sent, unless `interrupted`, and ends.
    pub(super) fn finish(
        self,
        ledger: &Ledger,
        interrupted: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let Self {
            runtime,
            stack,
            stop,
            serving,
        } = self;
        let result = runtime.block_on(async {
            tokio::select! {
                () = settle(&stack, ledger) => {}
                () = interrupted => {}
            }
            let _ = stop.send(());
            let served = serving.await.context("the proxy failed")?;
            stack.shutdown().await;
            served.context("the engine failed: the program had no network from then on")
        });
        // A name that is looked up still is nobody's any more.
        runtime.shutdown_background();
        result
    }
}

/// A thread for each core but one, which the program has. Where they have to share it,
/// to hand a flow's every step from one thread to another costs and gains nothing: on
/// two cores one thread carries as many bytes and connections as two, and a connection
/// takes an eighth less of processor time.
fn workers() -> usize {
    let cores = available_parallelism().map_or(1, NonZero::get);
    cores.saturating_sub(1).max(1)
}

/// Waits while streams are open and something moves on them.
async fn settle(stack: &Stack, ledger: &Ledger) {
    let began = Instant::now();
    let (mut moved, mut moved_at) = (None, began);
    while ledger.open_streams() > 0 && began.elapsed() < LONGEST {
        let Ok(counters) = stack.counters().await else {
            return;
        };
        let moves = Some((counters.l4_rx_bytes, counters.l4_tx_bytes));
        if moves != moved {
            (moved, moved_at) = (moves, Instant::now());
        }
        if moved_at.elapsed() > SILENCE {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
