//! The `keyledger` binary: it only wires.

use std::process::ExitCode;

/// The system's allocator costs a fifth more CPU time per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keyledger::cli::main()
}
