//! The table as text: made, kept, and judged.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Counts of one compiler, on one kind of processor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) made_by: String,
    pub(crate) rows: Vec<Row>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) operation: String,
    /// None without valgrind.
    pub(crate) native: Option<u64>,
    pub(crate) fuel: u64,
}

/// A count may be off by this part of what is kept, to either side: so much comes
/// with a small change of code elsewhere, or with another C library's `memcpy`.
const TOLERANCE: f64 = 0.1;
const MADE_BY: &str = "Made by ";
const REMAKE: &str = "L3L4_UPDATE=1 cargo bench -p l3l4-tests --bench instructions";

/// Counts of different compilers are not comparable.
pub(crate) fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    format!("{} on {}", version.trim(), std::env::consts::ARCH)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Instructions of one operation: native, as callgrind counts them, and fuel of"
        )?;
        writeln!(f, "the component, about one for each wasm instruction.\n")?;
        writeln!(f, "{MADE_BY}{}\n  {REMAKE}\n", self.made_by)?;
        writeln!(f, "{:<50} {:>9} {:>9}", "", "native", "fuel")?;
        for row in &self.rows {
            let native = row.native.map_or("-".to_owned(), |count| count.to_string());
            writeln!(f, "{:<50} {native:>9} {:>9}", row.operation, row.fuel)?;
        }
        Ok(())
    }
}

impl Table {
    fn row(&self, operation: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.operation == operation)
    }
}

impl Row {
    /// Where this row is too far from what is kept.
    fn differences(&self, kept: &Self) -> Vec<String> {
        let native = kept.native.zip(self.native);
        let native = native.map(|(was, is)| ("native", was, is));
        let counts = native.into_iter().chain([("fuel", kept.fuel, self.fuel)]);
        counts
            .filter_map(|(kind, was, is)| {
                let change = is as f64 / was as f64 - 1.0;
                let text = || format!("{kind} {was} -> {is} ({:+.0} %)", change * 100.0);
                (change.abs() > TOLERANCE).then(|| format!("{}: {}", self.operation, text()))
            })
            .collect()
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("snapshots/instructions.txt")
}

pub(crate) fn keep(table: &Table) {
    std::fs::write(path(), table.to_string()).unwrap();
}

/// The table that is kept. One that cannot be read is empty.
pub(crate) fn kept() -> Table {
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    let made_by = text.lines().find_map(|line| line.strip_prefix(MADE_BY));
    Table {
        made_by: made_by.unwrap_or_default().to_owned(),
        rows: text.lines().filter_map(row).collect(),
    }
}

/// A line that ends with two numbers.
fn row(line: &str) -> Option<Row> {
    let (line, fuel) = line.rsplit_once(' ')?;
    let (operation, native) = line.trim_end().rsplit_once(' ')?;
    Some(Row {
        operation: operation.trim_end().to_owned(),
        native: Some(native.parse().ok()?),
        fuel: fuel.parse().ok()?,
    })
}

/// Fails when counts of the same compiler differ by more than the tolerance, or
/// what is found is not kept. Where all was looked at, also when more is kept.
pub(crate) fn judge(kept: &Table, found: &Table, is_whole: bool) -> ExitCode {
    let mut differences = Vec::new();
    for row in &found.rows {
        match kept.row(&row.operation) {
            Some(kept) => differences.extend(row.differences(kept)),
            None => differences.push(format!("{}: not kept", row.operation)),
        }
    }
    let gone = kept
        .rows
        .iter()
        .filter(|row| found.row(&row.operation).is_none());
    if is_whole {
        differences.extend(gone.map(|row| format!("{}: kept, and not there", row.operation)));
    }
    println!();
    for difference in &differences {
        println!("{difference}");
    }
    if differences.is_empty() {
        println!("as kept, within {:.0} %", TOLERANCE * 100.0);
        return ExitCode::SUCCESS;
    }
    if kept.made_by != found.made_by {
        println!(
            "not judged: kept is what {:?} made, and this is {:?}",
            kept.made_by, found.made_by
        );
        return ExitCode::SUCCESS;
    }
    println!("to keep what was found:\n  {REMAKE}");
    ExitCode::FAILURE
}
