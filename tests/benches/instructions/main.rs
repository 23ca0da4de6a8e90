//! Instructions of one operation, for review: natively as callgrind counts them,
//! and the fuel of the component, of which a wasm instruction takes one. The table
//! is kept in `tests/snapshots/instructions.txt`.
//!
//! ```sh
//! cargo bench -p l3l4-tests --bench instructions                  # compare with the table
//! cargo test -p l3l4-tests --bench instructions                   # the fuel only
//! L3L4_UPDATE=1 cargo bench -p l3l4-tests --bench instructions    # make it anew
//! ```
//!
//! What is counted is the difference between a run of some repetitions and one of
//! twice as many, so that nothing but the repetitions counts. Both kinds are given
//! the same calls, which a rehearsal found ([`script`]), and have to give the same
//! number of packets. The component is the same in every profile, so its fuel is a
//! test; native code is counted as the bench builds it. Without valgrind there is no
//! native column, loudly; where the variable `CI` is set that is a failure.
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
const REPETITIONS: usize = 16;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flags, words): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|word| word.starts_with('-'));
    if let [run, operation, repetitions] = words[..]
        && run == native::RUN
    {
        let operation = &OPERATIONS[operation.parse::<usize>().unwrap()];
        native::run(operation, repetitions.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    // A word in no name asks for none, so that `cargo test word` can pass here.
    let is_chosen = |operation: &Operation| {
        let mut words = words.iter();
        words.all(|word| operation.name.contains(word.as_str()))
    };
    let operations = OPERATIONS.iter().enumerate();
    let chosen: Vec<_> = operations
        .filter(|(_, operation)| is_chosen(operation))
        .collect();
    if flags.iter().any(|flag| *flag == "--list") {
        for (_, operation) in chosen {
            println!("{}: test", operation.name);
        }
        return ExitCode::SUCCESS;
    }
    // That is what `cargo bench` says, and `cargo test` does not.
    let is_bench = flags.iter().any(|flag| *flag == "--bench");
    compare(&chosen, is_bench)
}

fn compare(chosen: &[(usize, &Operation)], is_bench: bool) -> ExitCode {
    let counts_native = is_bench && has_valgrind();
    if is_bench && !counts_native && std::env::var_os("CI").is_some() {
        eprintln!("CI is set: a skip is a failure");
        return ExitCode::FAILURE;
    }
    let row = |(index, operation): &(usize, &Operation)| Row {
        operation: operation.name.to_owned(),
        native: counts_native.then(|| native::count(*index)),
        fuel: fuel::count(operation),
    };
    let found = Table {
        made_by: table::compiler(),
        rows: chosen.iter().map(row).collect(),
    };
    print!("{found}");
    let is_whole = chosen.len() == OPERATIONS.len();
    if std::env::var_os("L3L4_UPDATE").is_some() && counts_native && is_whole {
        table::keep(&found);
    }
    table::judge(&table::kept(), &found, is_whole)
}

fn has_valgrind() -> bool {
    let valgrind = native::valgrind();
    if let Err(error) = &valgrind {
        eprintln!("NO NATIVE COUNTS: {error}; install valgrind");
    }
    valgrind.is_ok()
}
