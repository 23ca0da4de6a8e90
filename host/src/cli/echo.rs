//! `l3l4 echo`: the echo server on a TUN device.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use l3l4_host::echo::{Echo, Server, Watch};
use l3l4_host::tun::{Configuration, Tun};
use l3l4_host::{CloseReason, Engine, FiveTuple, FlowId};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args::EchoArgs;
use super::pcap::Pcap;
use super::print;
use super::record;
use super::totals::Totals;
use super::units::bytes;

pub(crate) fn run(args: &EchoArgs) -> anyhow::Result<bool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // A second signal ends the process even when the loop is stuck.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot listen for signals")?;
    }
    let pcap = Pcap::begin(args.pcap.as_deref(), &args.tun)?;
    let device = Tun::new(&Configuration {
        name: args.tun.clone(),
        addresses: args.addresses.clone(),
        mtu: args.mtu,
    })?;
    let printer = Printer {
        verbose: args.verbose,
        json: args.json,
    };
    let builder = Engine::builder()
        .mtu(args.mtu.into())
        .congestion_control(args.congestion_control.into());
    let echo = Echo::new(pcap.watch(device), printer);
    let engine = match record::begin(args.record.as_deref())? {
        None => builder.build(echo),
        Some(file) => builder.build_recorded(echo, file),
    };
    let engine = engine.context("cannot start the engine")?;
    let mut server = Server::new(engine);

    for address in &args.addresses {
        eprintln!(
            "{}: {address} is the kernel's, the rest of its network echoes",
            args.tun
        );
    }
    eprintln!("stop with Ctrl-C");
    server.run(&stop)?;

    let totals = Totals::from(server.counters()?);
    match args.json {
        true => print_line(&Line::Totals { totals }),
        false => print(totals),
    }
    Ok(record::is_whole(server.engine().record_failure()))
}

/// Prints flows as they come and go.
#[derive(Debug)]
struct Printer {
    verbose: bool,
    json: bool,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    Opened {
        flow: String,
        protocol: &'static str,
        peer: String,
        local: String,
    },
    Closed {
        flow: String,
        echoed: u64,
        reason: String,
    },
    Totals {
        totals: Totals,
    },
}

fn print_line(line: &Line) {
    if let Ok(text) = serde_json::to_string(line) {
        print(text);
    }
}

impl Watch for Printer {
    fn opened(&mut self, flow: FlowId, tuple: &FiveTuple) {
        if !self.verbose {
            return;
        }
        let (protocol, peer, local) = (tuple.protocol.name(), tuple.peer, tuple.local);
        if self.json {
            return print_line(&Line::Opened {
                flow: flow.to_string(),
                protocol,
                peer: peer.to_string(),
                local: local.to_string(),
            });
        }
        print(format_args!("+ {protocol} {peer} -> {local}"));
    }

    fn closed(&mut self, flow: FlowId, tuple: &FiveTuple, echoed: u64, reason: CloseReason) {
        if !self.verbose {
            return;
        }
        let reason = reason.to_string();
        if self.json {
            return print_line(&Line::Closed {
                flow: flow.to_string(),
                echoed,
                reason,
            });
        }
        let (protocol, peer, local) = (tuple.protocol.name(), tuple.peer, tuple.local);
        print(format_args!(
            "- {protocol} {peer} -> {local}: {reason}, {} echoed",
            bytes(echoed)
        ));
    }
}
