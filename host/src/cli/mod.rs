//! The edge of the program: arguments in, exit status out.

mod args;
mod component;
mod demo;
mod echo;
mod logging;
mod pcap;
mod progress;
#[cfg(target_os = "linux")]
mod proxy;
mod record;
mod replay;
#[cfg(target_os = "linux")]
mod run;
mod totals;
mod units;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

/// Runs what the command line asks for. `Ok(false)`: it ran, and the result is bad.
pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    logging::start(args.log);
    let result = match &args.command {
        Command::Demo(options) => demo::run(options),
        Command::Echo(options) => echo::run(options),
        #[cfg(target_os = "linux")]
        Command::Proxy(options) => proxy::run(options),
        Command::Replay(options) => replay::run(options),
        Command::Component(options) => component::run(options),
        #[cfg(target_os = "linux")]
        Command::Run(options) => return run::run(options),
        #[cfg(target_os = "linux")]
        Command::RunInside(options) => return run::inside(options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("l3l4: {}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line of result. A reader that has gone (`| head`) is not an error.
fn print(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The error and its causes in a line. Some errors tell their cause themselves:
/// it is not said twice.
fn explain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
