//! What the program talked to, as a table and as JSON.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use serde::Serialize;

use super::ledger::{Account, Destination, Ledger};
use crate::cli::units::{bytes, grouped, time};

#[derive(Debug, Serialize)]
pub(super) struct Summary {
    program: String,
    seconds: f64,
    destinations: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    protocol: Option<&'static str>,
    /// Name or address, and port.
    destination: String,
    name: Option<String>,
    address: Option<String>,
    port: Option<u16>,
    flows: u64,
    bytes_sent: u64,
    bytes_received: u64,
    denied: u64,
    failed: Vec<Failed>,
}

#[derive(Debug, Serialize)]
struct Failed {
    reason: String,
    flows: u64,
}

impl Summary {
    pub(super) fn new(command: &[OsString], lasted: Duration, ledger: &Ledger) -> Self {
        let program = command.first().map(Path::new).and_then(Path::file_name);
        let program = program.unwrap_or_default().to_string_lossy().into_owned();
        Self {
            program,
            seconds: lasted.as_secs_f64(),
            destinations: ledger.accounts().into_iter().map(Line::from).collect(),
        }
    }
}

impl From<(Destination, Account)> for Line {
    fn from((destination, account): (Destination, Account)) -> Self {
        let failed = account.failed.into_iter();
        Self {
            protocol: destination.protocol.map(|protocol| protocol.name()),
            destination: destination.to_string(),
            name: destination.name.map(|name| name.to_string()),
            address: destination.address.map(|address| address.to_string()),
            port: destination.port,
            flows: account.flows,
            bytes_sent: account.sent,
            bytes_received: account.received,
            denied: account.denied,
            failed: failed
                .map(|(reason, flows)| Failed { reason, flows })
                .collect(),
        }
    }
}

impl Line {
    fn cells(&self) -> [String; 7] {
        let address = match &self.name {
            Some(_) => self.address.clone().unwrap_or_default(),
            None => String::new(),
        };
        [
            self.protocol.unwrap_or_default().to_owned(),
            self.destination.clone(),
            address,
            grouped(self.flows),
            bytes(self.bytes_sent),
            bytes(self.bytes_received),
            self.trouble(),
        ]
    }

    /// `2 denied, 1 refused`.
    fn trouble(&self) -> String {
        let denied = (self.denied > 0).then(|| format!("{} denied", grouped(self.denied)));
        let failed = self.failed.iter();
        let failed = failed.map(|it| format!("{} {}", grouped(it.flows), it.reason));
        denied
            .into_iter()
            .chain(failed)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lasted = time(Duration::from_secs_f64(self.seconds));
        if self.destinations.is_empty() {
            return writeln!(f, "l3l4: {} talked to nobody in {lasted}", self.program);
        }
        writeln!(f, "l3l4: {} ran for {lasted} and talked to", self.program)?;
        let line = LineStyle::none().fill('─').junction('─');
        let style = TableStyle::new().header_separator(line).bottom_border(line);
        let mut table = Table::new();
        table.load_style(style).set_header([
            "",
            "destination",
            "address",
            "flows",
            "sent",
            "received",
            "not as it should",
        ]);
        for line in &self.destinations {
            table.add_row(line.cells());
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            if (3..6).contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use l3l4_host::Protocol;

    use super::{Account, Destination, Line, Summary};

    #[test]
    fn a_line_tells_where_how_much_and_what_went_wrong() {
        let destination = Destination {
            protocol: Some(Protocol::Tcp),
            name: Some("example.org".into()),
            address: Some([192, 0, 2, 7].into()),
            port: Some(443),
        };
        let account = Account {
            number: 0,
            flows: 1234,
            sent: 2048,
            received: 3 << 20,
            denied: 2,
            failed: BTreeMap::from([("connection refused".to_owned(), 1)]),
        };
        let summary = Summary {
            program: "curl".to_owned(),
            seconds: Duration::from_millis(1200).as_secs_f64(),
            destinations: vec![Line::from((destination, account))],
        };
        let text = summary.to_string();
        assert!(text.starts_with("l3l4: curl ran for 1.2 s and talked to\n"));
        let line = text.lines().find(|line| line.contains("example.org:443"));
        let cells: Vec<_> = line.unwrap().split("  ").map(str::trim).collect();
        let cells: Vec<_> = cells.into_iter().filter(|it| !it.is_empty()).collect();
        assert_eq!(
            cells,
            [
                "tcp",
                "example.org:443",
                "192.0.2.7",
                "1,234",
                "2.0 KiB",
                "3.0 MiB",
                "2 denied, 1 connection refused"
            ]
        );
    }
}
