//! The table, and whether the bars of TCP hold.

use super::Load;

/// One load in one size of batch. UDP has no baseline.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) load: Load,
    pub(crate) batch: usize,
    /// What came of it for each: a window or a buffer may hold fewer packets.
    pub(crate) at_once: Vec<usize>,
    /// A packet: baseline, native, component.
    pub(crate) nanoseconds: [Option<f64>; 3],
    /// The baseline's time over the native engine's.
    pub(crate) native_gain: Option<f64>,
    /// The baseline's time for the same load one packet a call over the component's.
    pub(crate) component_gain: Option<f64>,
    /// The component's time over the native engine's.
    pub(crate) border: Option<f64>,
}

/// How many times as fast as the baseline the native engine has to be.
const BAR_NATIVE: f64 = 1.5;
/// The component in batches, to the baseline one packet a call.
const BAR_COMPONENT: f64 = 1.0;

pub(crate) fn head() {
    println!("ns a packet, medians; in brackets: packets at once, where a buffer holds fewer\n");
    println!(
        "{:<23} {:<13} {:>9} {:>9} {:>10}   {:>16} {:>24} {:>17}",
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
        let batch = match self.at_once.iter().all(|packets| *packets == self.batch) {
            true => self.batch.to_string(),
            false => format!("{} {:?}", self.batch, self.at_once),
        };
        let [baseline, native, component] = self.nanoseconds.map(|time| number(time, 0));
        println!(
            "{:<23} {batch:<13} {baseline:>9} {native:>9} {component:>10}   {:>16} {:>24} {:>17}",
            self.load.to_string(),
            number(self.native_gain, 2),
            number(self.component_gain, 2),
            number(self.border, 2),
        );
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

pub(crate) fn bars(rows: &[Row]) {
    println!();
    bar(
        &format!("native at least {BAR_NATIVE} times as fast as the baseline"),
        rows.iter().map(|row| (row, row.native_gain)),
        BAR_NATIVE,
    );
    bar(
        "component in batches at least as fast as the baseline one packet a call",
        rows.iter()
            .filter(|row| row.batch > 1)
            .map(|row| (row, row.component_gain)),
        BAR_COMPONENT,
    );
}

fn bar<'a>(what: &str, gains: impl Iterator<Item = (&'a Row, Option<f64>)>, least: f64) {
    let gains: Vec<_> = gains.filter_map(|(row, gain)| Some((row, gain?))).collect();
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
