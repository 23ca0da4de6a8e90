//! `l3l4 run`: a program in a namespace whose only network is the engine.

mod ledger;
mod names;
mod service;
mod signals;
mod summary;

use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use l3l4_host::proxy::{Config, Dns, Proxy, Upstream};
use l3l4_host::sandbox::{self, Failure, INTERFACE, Plan, RESOLVERS, ResolvConf};
use l3l4_host::{Component, Engine};

use super::args::{RunArgs, RunInsideArgs};
use super::explain;
use super::pcap::Pcap;
use super::proxy::{engine_flows, raise_descriptor_limit};
use super::record;
use ledger::Ledger;
use names::{Listening, Names};
use service::Service;
use signals::Signals;
use summary::Summary;

/// What env(1), nice(1) and timeout(1) return: a failure of our own, a program that
/// cannot be run, and one that is not there.
const OURS: u8 = 125;
const NOT_RUNNABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// RFC 1035 4.2.
const DNS_PORT: u16 = 53;

/// Runs the program, and ends as it does.
pub(super) fn run(args: &RunArgs) -> ExitCode {
    match run_program(args) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("l3l4: {}", explain(&error));
            ExitCode::from(OURS)
        }
    }
}

fn run_program(args: &RunArgs) -> anyhow::Result<u8> {
    let pcap = Pcap::begin(args.pcap.as_deref(), INTERFACE)?;
    let record = record::begin(args.record.as_deref())?;
    let resolvers = ResolvConf::of_system();
    let config = configuration(args, &resolvers);
    let max_flows = config.max_flows;
    // Whatever answers, the program is told of one server at least.
    let inside = RESOLVERS[..config.resolvers.len().max(1)].iter();
    let resolv_conf = resolvers.text_with_servers(inside.map(|it| IpAddr::V4(*it)));
    let proxy = Proxy::new(config)?;
    let mut engine = Engine::builder()
        .mtu(args.mtu.into())
        .max_flows(engine_flows(max_flows))
        .icmp_echo(proxy.icmp_echo());
    if let Some(file) = &args.component {
        engine = engine.component(&Component::from_file(file)?);
    }
    let plan = Plan {
        mtu: args.mtu,
        resolv_conf: Some(resolv_conf),
    };
    // Nothing before this may start a thread that lives on.
    let (waiting, device) = sandbox::spawn(launcher(args), &plan)?;
    // The program keeps the limit that it would have without us.
    raise_descriptor_limit(max_flows);

    let names = Arc::new(Names::default());
    let ledger = Arc::new(Ledger::new(Arc::clone(&names), args.verbose));
    let device = pcap.watch_polled(Listening::new(device, names));
    let service = Service::start(device, engine, record, proxy, Arc::clone(&ledger))?;
    let began = Instant::now();
    let mut program = waiting.go()?;
    let signals = Signals::pass_on(program.signals().context("cannot follow the program")?)?;
    let status = program.wait()?;
    let lasted = began.elapsed();

    let stack = service.stack();
    let served = service.finish(&ledger, signals.end());
    if !args.quiet {
        let summary = Summary::new(&args.command, lasted, &ledger);
        match args.json {
            true => eprintln!("{}", serde_json::to_string(&summary)?),
            false => eprint!("{summary}"),
        }
    }
    served?;
    Ok(match record::is_whole(stack.record_failure()) {
        true => code(status),
        false => OURS,
    })
}

/// What the options say, and what a namespace of its own makes different.
fn configuration(args: &RunArgs, resolvers: &ResolvConf) -> Config {
    let mut config = args.proxy.config();
    // The program's addresses are of another network than our sockets'.
    config.detect_loops = false;
    if config.dns == Dns::Untouched {
        let servers = resolvers.servers.iter();
        let servers = servers.map(|it| SocketAddr::new(*it, DNS_PORT));
        config.dns = match (&config.upstream, servers.clone().next()) {
            (Upstream::Direct, Some(first)) => {
                // The program tries them in turn, as it does outside.
                let inside = RESOLVERS.iter().map(|it| IpAddr::V4(*it));
                config.resolvers = inside.zip(servers).collect();
                Dns::Redirect(first)
            }
            // Whoever dials resolves.
            _ => Dns::Virtual,
        };
    }
    config
}

/// This program again, as the launcher.
fn launcher(args: &RunArgs) -> Command {
    let mut launcher = Command::new("/proc/self/exe");
    launcher.arg0("l3l4").args(["run-inside", "--"]);
    launcher.args(&args.command);
    launcher
}

/// As a shell tells it: the exit status, or 128 and the signal.
fn code(status: ExitStatus) -> u8 {
    let signal = status.signal().map(|signal| signal + 128);
    let code = status.code().or(signal);
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(OURS)
}

/// The launcher, which `run` starts.
pub(super) fn inside(args: &RunInsideArgs) -> ExitCode {
    let failure = sandbox::launch(&args.command);
    let status = match failure {
        // The other process has heard why, and says so.
        Failure::NoNamespace => return ExitCode::from(OURS),
        Failure::NotFound(_) => NOT_FOUND,
        Failure::NotRunnable(..) => NOT_RUNNABLE,
    };
    eprintln!("l3l4: {failure}");
    ExitCode::from(status)
}
