//! The `mesh` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    sovereign_mesh::cli::run()
}
