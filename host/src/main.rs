//! The command line tool `l3l4`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
