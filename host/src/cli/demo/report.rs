//! The result, as a table and as JSON.

use std::time::Duration;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use serde::Serialize;

use super::job::{Family, Outcome};
use crate::cli::totals::Totals;
use crate::cli::units::{bytes, grouped, time};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whether all is exact.
    pub(super) ok: bool,
    /// `tun` or `memory`.
    pub(super) network: &'static str,
    /// Why it is not `tun`.
    pub(super) reason: Option<String>,
    pub(super) mtu: u16,
    pub(super) steps: Vec<Step>,
    pub(super) engine: Option<Totals>,
    /// What stopped the engine before its time.
    pub(super) engine_error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Step {
    what: String,
    ip: u8,
    exact: bool,
    error: Option<String>,
    flows: u16,
    bytes: u64,
    seconds: f64,
    bytes_per_second: Option<f64>,
    round_trip_us: Option<RoundTrip>,
    sha256: Option<String>,
}

#[derive(Debug, Serialize)]
struct RoundTrip {
    p50: f64,
    p99: f64,
}

impl Step {
    pub(super) fn new(what: String, family: Family, result: Result<Outcome, String>) -> Self {
        let (mut outcome, error) = match result {
            Ok(outcome) => (outcome, None),
            Err(error) => (Outcome::default(), Some(error)),
        };
        let seconds = outcome.elapsed.as_secs_f64();
        // A rate is read to three digits.
        #[expect(clippy::cast_precision_loss)]
        let rate = outcome.bytes as f64 / seconds;
        outcome.round_trips.sort_unstable();
        let percentile = |percent: usize| {
            let last = outcome.round_trips.len().checked_sub(1)?;
            let time: &Duration = outcome.round_trips.get(last * percent / 100)?;
            Some(time.as_secs_f64() * 1e6)
        };
        let round_trip_us = percentile(50)
            .zip(percentile(99))
            .map(|(p50, p99)| RoundTrip { p50, p99 });
        Self {
            what,
            ip: match family {
                Family::Ipv4 => 4,
                Family::Ipv6 => 6,
            },
            exact: error.is_none(),
            error,
            flows: outcome.flows,
            bytes: outcome.bytes,
            seconds,
            bytes_per_second: outcome.is_bulk.then_some(rate),
            round_trip_us,
            sha256: outcome.sha256,
        }
    }

    pub(super) fn is_exact(&self) -> bool {
        self.exact
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(reason) = &self.reason {
            writeln!(f, "no TUN device: {reason}")?;
        }
        let client = match self.reason {
            None => "kernel clients -> TUN device in a private namespace",
            Some(_) => "client stack in memory",
        };
        writeln!(f, "{client} -> engine, MTU {}\n", self.mtu)?;

        let line = LineStyle::none().fill('─').junction('─');
        let style = TableStyle::new().header_separator(line).bottom_border(line);
        let mut table = Table::new();
        table.load_style(style).set_header([
            "what was done",
            "IP",
            "flows",
            "bytes",
            "exact",
            "rate",
            "round trip p50, p99",
        ]);
        for step in &self.steps {
            table.add_row(step.cells());
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            if index >= 2 {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(f, "{table}")?;
        for step in &self.steps {
            if let Some(error) = &step.error {
                writeln!(f, "NOT EXACT: {} (IPv{}): {error}", step.what, step.ip)?;
            }
            if let Some(sha256) = &step.sha256 {
                writeln!(f, "sha256, sent and received, IPv{}: {sha256}", step.ip)?;
            }
        }
        if let Some(totals) = &self.engine {
            writeln!(f, "{totals}")?;
        }
        if let Some(error) = &self.engine_error {
            writeln!(f, "the engine stopped: {error}")?;
        }
        match self.ok {
            true => write!(f, "every byte came back as it was sent"),
            false => write!(f, "NOT everything came back as it was sent"),
        }
    }
}

impl Step {
    fn cells(&self) -> [String; 7] {
        let none = || "–".to_owned();
        [
            self.what.clone(),
            format!("v{}", self.ip),
            if self.exact {
                self.flows.to_string()
            } else {
                none()
            },
            if self.exact {
                bytes(self.bytes)
            } else {
                none()
            },
            if self.exact { "yes" } else { "NO" }.to_owned(),
            self.bytes_per_second
                .filter(|_| self.exact)
                .map_or_else(none, per_second),
            self.round_trip_us.as_ref().map_or_else(none, |trip| {
                let read = |micros: f64| time(Duration::from_secs_f64(micros / 1e6));
                format!("{}, {}", read(trip.p50), read(trip.p99))
            }),
        ]
    }
}

/// `812 MB/s`: decimal, as rates of networks are.
fn per_second(rate: f64) -> String {
    // Bounded well below 2^53 and never negative.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let megabytes = (rate / 1e6).round() as u64;
    match megabytes {
        0..10 => format!("{:.1} MB/s", rate / 1e6),
        _ => format!("{} MB/s", grouped(megabytes)),
    }
}
