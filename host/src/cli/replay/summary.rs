//! What a replay did, for people and for programs.

use std::fmt;

use l3l4_host::capture::Counters;
use l3l4_host::replay::{Mapping, Report};
use serde::Serialize;

use crate::cli::totals::Totals;
use crate::cli::units::{bytes, grouped};

#[derive(Debug, Serialize)]
pub(super) struct Summary {
    ok: bool,
    /// What ended the capture early.
    fault: Option<String>,
    capture: Capture,
    fed: Fed,
    not_fed: NotFed,
    flows: Vec<Flows>,
    incomplete_flows: u64,
    start_missing: StartMissing,
    mapping: Mapped,
    application: Application,
    traps: u64,
    engine: Totals,
}

#[derive(Debug, Serialize)]
struct Capture {
    packets: u64,
    bytes: u64,
    other_than_ip: u64,
}

#[derive(Debug, Serialize)]
struct Fed {
    packets: u64,
    bytes: u64,
    checksum_offloaded: u64,
}

#[derive(Debug, Serialize)]
struct NotFed {
    other_side: u64,
    not_selected: u64,
    start_missing: u64,
    cut: u64,
    not_ip: u64,
    after_end: u64,
    unrelated: u64,
}

#[derive(Debug, Serialize)]
struct Flows {
    protocol: &'static str,
    /// `open`: it has not ended.
    ending: String,
    flows: u64,
}

#[derive(Debug, Serialize)]
struct StartMissing {
    flows: u64,
    at_least: bool,
    packets: u64,
    listed: Vec<Stranger>,
}

#[derive(Debug, Serialize)]
struct Stranger {
    ends: [String; 2],
    packets: u64,
}

#[derive(Debug, Serialize)]
struct Mapped {
    acknowledgements_are: &'static str,
    acknowledgements: u64,
    clamped: u64,
    added: u64,
    sack_blocks: u64,
    sack_removed: u64,
    options_removed: u64,
    segments_repeated: u64,
}

#[derive(Debug, Serialize)]
struct Application {
    zeros_for_missing: u64,
    lost_behind_gaps: u64,
    unsent: u64,
}

impl Summary {
    pub(super) fn new(report: &Report, capture: Counters, ok: bool, fault: Option<&str>) -> Self {
        let ended = report
            .ended
            .iter()
            .map(|((protocol, ending), flows)| Flows {
                protocol,
                ending: ending.clone(),
                flows: *flows,
            });
        let open = report.open.iter().map(|(protocol, flows)| Flows {
            protocol,
            ending: "open".into(),
            flows: *flows,
        });
        Self {
            ok,
            fault: fault.map(str::to_owned),
            capture: Capture {
                packets: report.packets,
                bytes: report.bytes,
                other_than_ip: capture.other + capture.unsupported,
            },
            fed: Fed {
                packets: report.fed,
                bytes: report.fed_bytes,
                checksum_offloaded: report.offloaded,
            },
            not_fed: NotFed {
                other_side: report.not_fed.other_side,
                not_selected: report.not_fed.not_selected,
                start_missing: report.not_fed.start_missing,
                cut: report.not_fed.cut,
                not_ip: report.not_fed.not_ip,
                after_end: report.not_fed.after_end,
                unrelated: report.not_fed.unrelated,
            },
            flows: ended.chain(open).collect(),
            incomplete_flows: report.incomplete,
            start_missing: strangers(report),
            mapping: mapped(report),
            application: Application {
                zeros_for_missing: report.gaps.zeros,
                lost_behind_gaps: report.gaps.lost,
                unsent: report.unsent,
            },
            traps: report.traps,
            engine: Totals::from(report.counters),
        }
    }
}

fn strangers(report: &Report) -> StartMissing {
    let listed = report.start_missing.listed.iter();
    let listed = listed.map(|(from, to, packets)| Stranger {
        ends: [from.to_string(), to.to_string()],
        packets: *packets,
    });
    StartMissing {
        flows: report.start_missing.flows,
        at_least: report.start_missing.more,
        packets: report.not_fed.start_missing,
        listed: listed.collect(),
    }
}

fn mapped(report: &Report) -> Mapped {
    let counts = report.mapped;
    Mapped {
        acknowledgements_are: match report.mapping {
            Mapping::Shifted => "shifted",
            Mapping::Everything => "everything",
        },
        acknowledgements: counts.acknowledgements,
        clamped: counts.clamped,
        added: counts.added,
        sack_blocks: counts.sack_blocks,
        sack_removed: counts.sack_removed,
        options_removed: counts.options_removed,
        segments_repeated: counts.repeated,
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Capture {
            packets,
            bytes: size,
            other_than_ip,
        } = self.capture;
        write!(f, "capture: {} packets ({})", grouped(packets), bytes(size))?;
        if other_than_ip > 0 {
            write!(f, ", and {} of other kinds than IP", grouped(other_than_ip))?;
        }
        let fed = (grouped(self.fed.packets), bytes(self.fed.bytes));
        write!(f, "\nfed:     {} packets ({})", fed.0, fed.1)?;
        let offloaded = self.fed.checksum_offloaded;
        some(f, offloaded, "with checksums left to a device")?;
        let not = &self.not_fed;
        write!(
            f,
            "\nnot fed: {} of the other side",
            grouped(not.other_side)
        )?;
        some(f, not.not_selected, "of sides not asked for")?;
        some(
            f,
            not.start_missing,
            "of flows whose start was not captured",
        )?;
        some(f, not.cut, "captured in part")?;
        some(f, not.not_ip, "neither IPv4 nor IPv6")?;
        some(f, not.after_end, "after the end of their flow")?;
        some(f, not.unrelated, "of no known flow")?;
        self.flows(f)?;
        self.acknowledgements(f)?;
        self.application(f)?;
        write!(f, "\n{}", self.engine)
    }
}

impl Summary {
    fn flows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\nflows:   ")?;
        for (index, flows) in self.flows.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let (number, protocol, ending) = (grouped(flows.flows), flows.protocol, &flows.ending);
            write!(f, "{separator}{number} {protocol} {ending}")?;
        }
        if self.flows.is_empty() {
            write!(f, "none")?;
        }
        some(f, self.incomplete_flows, "lack data that was not captured")?;
        let missing = &self.start_missing;
        if missing.flows == 0 {
            return Ok(());
        }
        let at_least = if missing.at_least { "at least " } else { "" };
        let flows = grouped(missing.flows);
        write!(f, "\nstart not captured: {at_least}{flows} flows")?;
        for Stranger { ends, packets } in &missing.listed {
            let packets = grouped(*packets);
            write!(f, "\n         {} - {}: {packets} packets", ends[0], ends[1])?;
        }
        Ok(())
    }

    fn acknowledgements(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapping = &self.mapping;
        let number = grouped(mapping.acknowledgements);
        match mapping.acknowledgements_are {
            "shifted" => write!(
                f,
                "\nmapping: {number} acknowledgements moved to our sequence"
            )?,
            _ => write!(
                f,
                "\nmapping: {number} acknowledgements made to say: all that was sent"
            )?,
        }
        some(f, mapping.clamped, "of them cut to what was sent")?;
        some(f, mapping.added, "added")?;
        some(f, mapping.sack_blocks, "SACK blocks moved")?;
        some(f, mapping.sack_removed, "SACK blocks removed")?;
        some(f, mapping.options_removed, "options removed from SYNs")?;
        some(f, mapping.segments_repeated, "segments fed twice")
    }

    fn application(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Application {
            zeros_for_missing,
            lost_behind_gaps,
            unsent,
        } = self.application;
        let parts = [
            (zeros_for_missing, "zeros for bytes not captured"),
            (
                lost_behind_gaps,
                "bytes given up behind a gap or a closed window",
            ),
            (unsent, "bytes or datagrams too many, too long or too late"),
        ];
        let mut separator = "\nnot sent as wished: ";
        for (number, what) in parts {
            if number > 0 {
                write!(f, "{separator}{} {what}", grouped(number))?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// `, 3 of them`, if there are any.
fn some(f: &mut fmt::Formatter<'_>, number: u64, what: &str) -> fmt::Result {
    match number {
        0 => Ok(()),
        number => write!(f, ", {} {what}", grouped(number)),
    }
}
