//! Instructions of one operation, for review: natively as callgrind counts them,
//! and the fuel of the component, of which a wasm instruction takes one. The table
//! is kept in `tests/snapshots/instructions.txt`.
//!
//! ```sh
//! cargo bench -p l3l4-tests --bench instructions                  # compare with the table
//! L3L4_UPDATE=1 cargo bench -p l3l4-tests --bench instructions    # make it anew
//! ```
//!
//! What is counted is the difference between a run of some repetitions and one of
//! twice as many, so that nothing but the repetitions counts. Both kinds are given
//! the same calls, which a rehearsal found ([`script`]), and have to give the same
//! number of packets. Without valgrind the native column stays as it is kept,
//! loudly; where the variable `CI` is set that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench fails by panicking"
)]

mod fuel;
mod native;
mod script;
mod table;

use std::process::ExitCode;

use self::script::{OPERATIONS, Operation};
use self::table::{Row, Table};

/// Repetitions of the shorter run; the longer has twice as many.
const REPETITIONS: usize = 32;

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    match words.as_slice() {
        [] => compare(),
        [run, operation, repetitions] if run == native::RUN => {
            let operation = &OPERATIONS[operation.parse::<usize>().unwrap()];
            native::run(operation, repetitions.parse().unwrap());
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("no arguments are known; got {words:?}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> ExitCode {
    let valgrind = native::valgrind();
    if let Err(error) = &valgrind {
        eprintln!("NO NATIVE COUNTS: {error}; install valgrind");
        if std::env::var_os("CI").is_some() {
            eprintln!("CI is set: a skip is a failure");
            return ExitCode::FAILURE;
        }
    }
    let row = |(index, operation): (usize, &Operation)| Row {
        operation: operation.name.to_owned(),
        native: valgrind.is_ok().then(|| native::count(index)),
        fuel: fuel::count(operation),
    };
    let found = Table {
        made_by: table::compiler(),
        rows: OPERATIONS.iter().enumerate().map(row).collect(),
    };
    print!("{found}");
    if std::env::var_os("L3L4_UPDATE").is_some() {
        return match valgrind {
            Ok(()) => {
                table::keep(&found);
                ExitCode::SUCCESS
            }
            Err(_) => {
                eprintln!("nothing is kept: half of the table is missing");
                ExitCode::FAILURE
            }
        };
    }
    table::judge(&table::kept(), &found)
}
