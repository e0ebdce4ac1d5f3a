//! The `keyledger` program.

fn main() {}
