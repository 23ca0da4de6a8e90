//! The simulations as a program: the gate, one run again, the loss table.
#![allow(
    clippy::expect_used,
    reason = "a harness fails by panicking; its results do not"
)]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use l3l4_tests::sim::gate::{self, Compare, Row};
use l3l4_tests::sim::{Device, Ends, Mode, Outcome, Plan, loss, run};

/// Simulate TCP and UDP in virtual time over links where everything goes wrong, and
/// check at every step what has to hold.
#[derive(Debug, Parser)]
#[command(
    name = "simulate",
    after_help = "\
Examples:
  simulate gate                                     our engine at both ends, 2,000 seeds x 8 modes
  simulate gate --ends smoltcp-smoltcp              the baseline
  simulate run --ends engine-engine --mode loss --seed 7
  simulate loss --check tests/snapshots/loss.txt

Exit status:
  0  all went well
  1  a run hung or broke an invariant, or a table is not the one of the file
  2  the command line cannot be understood"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Gate(GateArgs),
    Run(RunArgs),
    Loss(LossArgs),
}

/// Run many seeds of every mode on all cores, and print the table.
#[derive(Debug, clap::Args)]
struct GateArgs {
    /// Who talks to whom.
    #[arg(long, value_enum, default_value_t = Ends::EngineEngine)]
    ends: Ends,
    /// Only these modes; else the eight of the gate.
    #[arg(long = "mode", value_enum, value_name = "MODE")]
    modes: Vec<Mode>,
    /// The five modes that are not of the gate as well.
    #[arg(long, conflicts_with = "modes")]
    all_modes: bool,
    /// How many seeds of each mode.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Run every Nth seed on the component as well, and compare; 0 is none.
    #[arg(long, value_name = "N", default_value_t = 0)]
    compare: u64,
    /// How many failures to list a mode.
    #[arg(long, value_name = "N", default_value_t = 3)]
    list: usize,
}

/// Run one seed again, and print what happened: both ends and the links.
///
/// A line without indent is a packet on a link, with what became of it; `A` is our
/// engine, with its calls and callbacks below.
#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Who talks to whom.
    #[arg(long, value_enum, default_value_t = Ends::EngineEngine)]
    ends: Ends,
    /// What goes wrong.
    #[arg(long, value_enum)]
    mode: Mode,
    /// Which run.
    #[arg(long)]
    seed: u64,
    /// What our engine runs as.
    #[arg(long, value_enum, default_value_t = Dut::Native)]
    dut: Dut,
    /// Write the trace here; else it goes to standard output.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// Print the throughput of one flow by loss: ours as sender and receiver, and
/// smoltcp against smoltcp.
#[derive(Debug, clap::Args)]
struct LossArgs {
    /// Compare with this file.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Write this file.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    update: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dut {
    Native,
    Component,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A run that panics is one that failed; the report says how.
    std::panic::set_hook(Box::new(|_| {}));
    let result = match &args.command {
        Command::Gate(options) => run_gate(options),
        Command::Run(options) => run_one(options),
        Command::Loss(options) => run_loss(options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("simulate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_gate(options: &GateArgs) -> anyhow::Result<bool> {
    let modes = match (&options.modes[..], options.all_modes) {
        ([], false) => Mode::GATE.to_vec(),
        ([], true) => Mode::value_variants().to_vec(),
        (some, _) => some.to_vec(),
    };
    let compare = match options.compare {
        0 => Compare::Never,
        step => Compare::Every(step),
    };
    let seeds = options.from..options.from + options.seeds;
    let bar = ProgressBar::new(options.seeds * modes.len() as u64);
    let template = "{spinner} {msg} [{wide_bar}] {pos:>6} of {len:6} {elapsed}";
    bar.set_style(ProgressStyle::with_template(template)?.progress_chars("=> "));
    bar.set_message(options.ends.to_string());
    let rows = gate::gate(options.ends, &modes, seeds, compare, &|| bar.inc(1));
    let elapsed = bar.elapsed();
    bar.finish_and_clear();
    print(gate::table(&rows));
    for row in &rows {
        list(row, options.list);
    }
    print(format_args!("in {:.1} s\n", elapsed.as_secs_f64()));
    Ok(rows.iter().all(|row| row.failures.is_empty()))
}

fn list(row: &Row, most: usize) {
    // The worst first.
    let mut failures: Vec<_> = row.failures.iter().collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.outcome));
    for failure in failures.into_iter().take(most) {
        let command = failure.command();
        print(format_args!(
            "\n{}, {}: {}\n  {command}\n",
            row.mode, failure.outcome, failure.found
        ));
    }
}

fn run_one(options: &RunArgs) -> anyhow::Result<bool> {
    let plan = Plan::new(options.ends, options.mode, options.seed);
    let device = match options.dut {
        Dut::Native => Device::Native,
        Dut::Component => Device::Component,
    };
    let report = run::run(&plan, device, true);
    let mut text = format!("{plan}\n");
    for line in &report.trace {
        text += line;
        text += "\n";
    }
    match &options.trace {
        Some(path) => {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => print(text),
    }
    print(format_args!(
        "\n{}: {}\n",
        report.outcome,
        gate::summary(&report)
    ));
    for violation in &report.violations {
        print(format_args!("{violation}\n"));
    }
    Ok(report.outcome == Outcome::Good)
}

fn run_loss(options: &LossArgs) -> anyhow::Result<bool> {
    let table = loss::table();
    print(&table);
    if let Some(path) = &options.update {
        fs::write(path, &table).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &options.check {
        let kept =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        if kept != table {
            bail!(
                "{} holds another table; if this one is right: simulate loss --update {}",
                path.display(),
                path.display()
            );
        }
    }
    Ok(true)
}

/// A reader that has gone (`| head`) is not an error.
fn print(text: impl std::fmt::Display) {
    let _ = write!(std::io::stdout(), "{text}");
}
