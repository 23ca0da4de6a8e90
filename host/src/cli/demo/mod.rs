//! `l3l4 demo`: real traffic through the engine, every byte checked.

mod client;
mod engine;
mod icmp;
mod job;
#[cfg(target_os = "linux")]
mod kernel;
mod memory;
mod pattern;
mod report;

use l3l4_host::Engine;
use l3l4_host::device::{self, Device};
use l3l4_host::tun::Tun;

use super::args::DemoArgs;
use super::pcap::Pcap;
use super::progress::Progress;
use super::totals::Totals;
use super::{explain, print};
use client::Network;
use engine::Running;
use job::{Family, Job, NETWORKS, TASKS};
use memory::InMemory;
use report::{Report, Step};

/// Packets in flight each way between the engine and the client in memory.
const MEMORY_QUEUE: usize = 256;

/// Name of the TUN interface, and in captures.
const INTERFACE: &str = "l3l4";

/// The clients, the engine's device, and why they are in memory if they are.
type Joined = (Box<dyn Network>, Box<dyn Device + Send>, Option<String>);

pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<bool> {
    let size = u64::from(args.size) << 20;
    let progress = Progress::new(Job::total(size));
    let pcap = Pcap::begin(args.pcap.as_deref(), INTERFACE)?;
    progress.step("compiling the component".to_owned());
    let (network, device, reason): Joined = match private_network(args) {
        Ok((network, device)) => (network, pcap.watch(device), None),
        Err(reason) => {
            let (near, far) = device::pair(args.mtu.into(), MEMORY_QUEUE);
            let network = InMemory::start(far, &NETWORKS)?;
            (Box::new(network), pcap.watch(near), Some(reason))
        }
    };
    let builder = Engine::builder()
        .mtu(args.mtu.into())
        .congestion_control(args.congestion_control.into());
    let engine = Running::start(device, builder)?;
    let job = Job {
        network: &*network,
        progress: &progress,
        // The kernel fragments and reassembles, the client in memory does not.
        largest_packet: match reason {
            None => u16::MAX,
            Some(_) => args.mtu,
        },
        size,
    };
    let steps = run_job(&job, &engine);
    progress.clear();

    let (engine, engine_error) = match engine.finish() {
        Ok(counters) => (Some(Totals::from(counters)), None),
        Err(error) => (None, Some(explain(&error))),
    };
    // Only here, since an engine whose client is gone has no device left.
    drop(network);
    let report = Report {
        ok: engine_error.is_none() && steps.iter().all(Step::is_exact),
        network: if reason.is_none() { "tun" } else { "memory" },
        reason,
        mtu: args.mtu,
        steps,
        engine,
        engine_error,
    };
    match args.json {
        true => print(serde_json::to_string_pretty(&report)?),
        false => print(&report),
    }
    Ok(report.ok)
}

fn run_job(job: &Job<'_>, engine: &Running) -> Vec<Step> {
    let mut steps = Vec::new();
    for task in TASKS {
        for family in [Family::Ipv4, Family::Ipv6] {
            let what = job.describe(task, family);
            job.progress.step(format!("{what} ({family})"));
            let result = match engine.has_failed() {
                true => Err("not done, the engine had stopped".to_owned()),
                false => job.run(task, family),
            };
            steps.push(Step::new(what, family, result));
        }
    }
    steps
}

/// The kernel's clients and a TUN device for an engine, in a namespace of
/// this process's own; or why not.
#[cfg(target_os = "linux")]
fn private_network(args: &DemoArgs) -> Result<(Box<dyn Network>, Tun), String> {
    use l3l4_host::netns;
    use l3l4_host::tun::{Cidr, Configuration};

    if args.in_memory {
        return Err("as asked for".to_owned());
    }
    netns::enter().map_err(|error| error.to_string())?;
    let device = Tun::new(&Configuration {
        name: INTERFACE.to_owned(),
        addresses: NETWORKS
            .map(|(address, prefix)| Cidr { address, prefix })
            .into(),
        mtu: args.mtu,
    })
    .map_err(|error| error.to_string())?;
    Ok((Box::new(kernel::Kernel), device))
}

#[cfg(not(target_os = "linux"))]
fn private_network(args: &DemoArgs) -> Result<(Box<dyn Network>, Tun), String> {
    Err(match args.in_memory {
        true => "as asked for".to_owned(),
        false => "private namespaces are a thing of Linux".to_owned(),
    })
}
