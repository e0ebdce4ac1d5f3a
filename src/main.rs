//! The `keyledger` binary: it only wires.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyledger::cli::main()
}
