//! The table, and whether the bars of TCP hold.

use super::{Load, Transport};

/// Nanoseconds a packet. Without a baseline, that is not a number.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) load: Load,
    pub(crate) batch: usize,
    pub(crate) baseline: f64,
    /// The baseline of the same load, one packet a call.
    pub(crate) one_by_one: f64,
    pub(crate) native: f64,
    pub(crate) component: f64,
}

/// How many times as fast as the baseline the native engine has to be.
const BAR_NATIVE: f64 = 1.5;
/// The component in batches, to the baseline one packet a call.
const BAR_COMPONENT: f64 = 1.0;

pub(crate) fn head() {
    println!("ns a packet, medians\n");
    println!(
        "{:<22} {:>5} {:>9} {:>9} {:>10}   {:>16} {:>24} {:>17}",
        "transport MTU way flows",
        "batch",
        "baseline",
        "native",
        "component",
        "baseline/native",
        "baseline of 1/component",
        "component/native"
    );
}

impl Row {
    pub(crate) fn print(&self) {
        println!(
            "{:<23} {:>5} {:>9} {:>9.0} {:>10.0}   {:>16} {:>24} {:>17.2}",
            self.load.to_string(),
            self.batch,
            number(self.baseline, 0),
            self.native,
            self.component,
            number(self.native_gain(), 2),
            number(self.component_gain(), 2),
            self.component / self.native,
        );
    }

    fn native_gain(&self) -> f64 {
        self.baseline / self.native
    }

    fn component_gain(&self) -> f64 {
        self.one_by_one / self.component
    }
}

fn number(value: f64, digits: usize) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    format!("{value:.digits$}")
}

pub(crate) fn bars(rows: &[Row]) {
    let tcp = || {
        rows.iter()
            .filter(|row| row.load.transport == Transport::Tcp)
    };
    println!();
    bar(
        &format!("native at least {BAR_NATIVE} times as fast as the baseline"),
        tcp().map(|row| (row, row.native_gain())),
        BAR_NATIVE,
    );
    bar(
        "component in batches at least as fast as the baseline one packet a call",
        tcp()
            .filter(|row| row.batch > 1)
            .map(|row| (row, row.component_gain())),
        BAR_COMPONENT,
    );
}

fn bar<'a>(what: &str, gains: impl Iterator<Item = (&'a Row, f64)>, least: f64) {
    let gains: Vec<_> = gains.collect();
    let missed: Vec<_> = gains.iter().filter(|(_, gain)| *gain < least).collect();
    let verdict = match (gains.len(), missed.len()) {
        (0, _) => "not measured".to_owned(),
        (all, 0) => format!("HOLDS in all {all} rows"),
        (all, missed) => format!("MISSED in {missed} of {all} rows"),
    };
    println!("{what}: {verdict}");
    for (row, gain) in missed {
        println!("  {gain:.2}: {}, batch {}", row.load, row.batch);
    }
}
