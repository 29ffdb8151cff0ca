//! The `mesh` binary.

use std::process::ExitCode;

// The library leaves the choice to the program that embeds it.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sovereign_mesh::cli::run()
}
