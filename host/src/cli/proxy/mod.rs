//! `l3l4 proxy`: a transparent proxy on a TUN device.

mod args;
mod metrics;
pub(super) mod options;
mod printer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use l3l4_host::proxy::{Config, IpNet, Proxy};
use l3l4_host::stack::{FdDevice, Stack};
use l3l4_host::tun::{Cidr, Configuration, Tun};
use l3l4_host::{Engine, IcmpEchoPolicy};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) use args::ProxyArgs;

use super::pcap::{Pcap, Polled};
use super::record;
use printer::Printer;

/// The engine's own bound on flows, which flows that wait for their verdict or whose
/// ends are remembered come under too (`wit/types.wit`).
const ENGINE_FLOWS: usize = 65_536;
const MOST_ENGINE_FLOWS: usize = 1_048_576;

pub(crate) fn run(args: &ProxyArgs) -> anyhow::Result<bool> {
    let args = args.with_file()?;
    let config = Config {
        behind: networks(&args.addresses())?,
        ..args.options.config()
    };
    raise_descriptor_limit(config.max_flows);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let served = runtime.block_on(serve(&args, config));
    // A name that the system's resolver still looks up would hold the end up.
    runtime.shutdown_background();
    served
}

async fn serve(args: &ProxyArgs, config: Config) -> anyhow::Result<bool> {
    let stop = Stop::listen()?;
    let max_flows = config.max_flows;
    let proxy = Proxy::new(config.clone())?;
    let metrics = match args.metrics {
        None => None,
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.with_context(|| format!("cannot serve metrics at {address}"))?)
        }
    };
    let stack = start(args, &proxy, max_flows)?;
    let metrics = metrics
        .map(|listener| tokio::spawn(metrics::serve(listener, stack.clone(), proxy.clone())));
    announce(args, &config, &proxy);

    let printer = Arc::new(Printer::new(args.verbose, args.json));
    let served = proxy.serve(&stack, Arc::clone(&printer), stop.wait()).await;
    let counters = stack.counters().await;
    stack.shutdown().await;
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    served.context("the device or the engine failed")?;
    printer.totals(&proxy.totals(), counters.ok());
    Ok(record::is_whole(stack.record_failure()))
}

/// The device, and the engine behind it.
fn start(args: &ProxyArgs, proxy: &Proxy, max_flows: usize) -> anyhow::Result<Stack> {
    let pcap = Pcap::begin(args.pcap.as_deref(), args.tun())?;
    let record = record::begin(args.record.as_deref())?;
    if args.queues() > 1 && (args.pcap.is_some() || record.is_some()) {
        anyhow::bail!("--pcap and --record show one queue: leave out --queues");
    }
    let configuration = Configuration {
        name: args.tun().to_owned(),
        addresses: args.addresses(),
        mtu: args.mtu(),
    };
    let mut queues = Tun::queues(&configuration, args.queues())?;
    let engine = Engine::builder()
        .mtu(args.mtu().into())
        .max_flows(engine_flows(max_flows))
        .icmp_echo(proxy.icmp_echo());
    let builder = Stack::builder().engine(engine);
    let builder = match record {
        None => builder,
        Some(file) => builder.record(file),
    };
    let waited_for = "cannot wait for the device";
    let first = pcap.watch_polled(queues.remove(0));
    let mut devices = vec![FdDevice::new(first).context(waited_for)?];
    for queue in queues {
        let queue: Box<dyn Polled> = Box::new(queue);
        devices.push(FdDevice::new(queue).context(waited_for)?);
    }
    builder
        .start_spread(devices)
        .context("cannot start the engine")
}

/// How many flows the engine may have for so many of the proxy's.
pub(super) fn engine_flows(max_flows: usize) -> u32 {
    let flows = max_flows.saturating_mul(2);
    let flows = flows.clamp(ENGINE_FLOWS, MOST_ENGINE_FLOWS);
    u32::try_from(flows).unwrap_or(u32::MAX)
}

/// What a person should know before the first flow.
fn announce(args: &ProxyArgs, config: &Config, proxy: &Proxy) {
    let tun = args.tun();
    for address in args.addresses() {
        eprintln!("{tun}: {address} is the kernel's");
    }
    eprintln!(
        "{tun}: flows are dialled {}",
        match &config.upstream {
            l3l4_host::proxy::Upstream::Direct => "from here".to_owned(),
            upstream => format!("through {upstream}"),
        }
    );
    if config.ping == l3l4_host::proxy::Ping::Pass && proxy.icmp_echo() == IcmpEchoPolicy::Answer {
        eprintln!(
            "{tun}: pings are answered here: {}",
            match config.upstream {
                l3l4_host::proxy::Upstream::Direct =>
                    "this user may not send any (sysctl net.ipv4.ping_group_range)",
                _ => "the upstream carries none",
            }
        );
    }
    eprintln!("stop with Ctrl-C");
}

fn networks(addresses: &[Cidr]) -> anyhow::Result<Vec<IpNet>> {
    let network = |cidr: &Cidr| {
        let network = IpNet::new(cidr.address, cidr.prefix);
        let network = network.with_context(|| format!("{cidr} is no network"))?;
        Ok(network.trunc())
    };
    addresses.iter().map(network).collect()
}

/// Each flow takes a descriptor, and the usual limit of 1,024 is for `select`.
pub(super) fn raise_descriptor_limit(max_flows: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    if now.is_some_and(|now| now < max_flows as u64) {
        let now = now.unwrap_or_default();
        tracing::warn!(
            "the limit of open files is {now}: less than --max-flows {max_flows} (ulimit -n)"
        );
    }
}

/// Ready when the program is to stop.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        let context = "cannot listen for signals";
        let again = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // A second signal ends the process even when something is stuck.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&again))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&again)))
                .context(context)?;
        }
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context(context)?,
            terminate: signal(SignalKind::terminate()).context(context)?,
        })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
