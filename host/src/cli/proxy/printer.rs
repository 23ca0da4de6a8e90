//! Flows and totals, for people and for programs.

use l3l4_host::CounterSnapshot;
use l3l4_host::proxy::{End, Flow, Target, Watch};
use serde::Serialize;

use super::super::print;
use super::super::totals::Totals;
use super::super::units::{bytes, grouped};

/// Prints flows as they come and go.
#[derive(Debug)]
pub(super) struct Printer {
    verbose: bool,
    json: bool,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    Opened {
        flow: u64,
        protocol: &'static str,
        peer: String,
        local: String,
        target: String,
    },
    Dialled {
        flow: u64,
    },
    Ended {
        flow: u64,
        sent: u64,
        received: u64,
        seconds: f64,
        reason: String,
    },
    Totals {
        flows: u64,
        dialled: u64,
        failed: u64,
        denied: u64,
        limited: u64,
        sent: u64,
        received: u64,
        engine: Option<Totals>,
    },
}

impl Printer {
    pub(super) fn new(verbose: bool, json: bool) -> Self {
        Self { verbose, json }
    }

    pub(super) fn totals(
        &self,
        totals: &l3l4_host::proxy::Totals,
        engine: Option<CounterSnapshot>,
    ) {
        let engine = engine.map(Totals::from);
        let l3l4_host::proxy::Totals {
            flows,
            dialled,
            failed,
            denied,
            limited,
            sent,
            received,
        } = *totals;
        if self.json {
            return print_line(&Line::Totals {
                flows,
                dialled,
                failed,
                denied,
                limited,
                sent,
                received,
                engine,
            });
        }
        let mut text = format!(
            "proxy: {} flows, {} dialled",
            grouped(flows),
            grouped(dialled)
        );
        for (count, what) in [
            (failed, "failed"),
            (denied, "denied"),
            (limited, "too many"),
        ] {
            if count > 0 {
                text = format!("{text}, {} {what}", grouped(count));
            }
        }
        print(format_args!(
            "{text}; {} sent, {} received",
            bytes(sent),
            bytes(received)
        ));
        if let Some(engine) = engine {
            print(engine);
        }
    }
}

fn print_line(line: &Line) {
    if let Ok(text) = serde_json::to_string(line) {
        print(text);
    }
}

/// `tcp 10.9.0.1:4000 -> 192.0.2.7:443`, and where it is dialled if that is another
/// place.
fn names(flow: &Flow) -> String {
    let tuple = &flow.tuple;
    let names = format!("{} {} -> {}", tuple.protocol, tuple.peer, tuple.local);
    match &flow.target {
        Target::Address(address) if *address == tuple.local => names,
        target => format!("{names} ({target})"),
    }
}

impl Watch for Printer {
    fn opened(&self, flow: &Flow) {
        if !self.verbose {
            return;
        }
        if !self.json {
            return print(format_args!("+ {}", names(flow)));
        }
        print_line(&Line::Opened {
            flow: flow.number,
            protocol: flow.tuple.protocol.name(),
            peer: flow.tuple.peer.to_string(),
            local: flow.tuple.local.to_string(),
            target: flow.target.to_string(),
        });
    }

    fn dialled(&self, flow: &Flow) {
        if self.verbose && self.json {
            print_line(&Line::Dialled { flow: flow.number });
        }
    }

    fn ended(&self, flow: &Flow, end: &End) {
        if !self.verbose {
            return;
        }
        let reason = end.reason.to_string();
        if !self.json {
            let (sent, received) = (bytes(end.sent), bytes(end.received));
            return print(format_args!(
                "- {}: {reason}, {sent} sent, {received} received",
                names(flow)
            ));
        }
        print_line(&Line::Ended {
            flow: flow.number,
            sent: end.sent,
            received: end.received,
            seconds: end.lasted.as_secs_f64(),
            reason,
        });
    }
}
