//! `matriarch-sim`: runs, hunts, replays, cuts down, explains.

mod cli;

use std::process::ExitCode;

/// The world makes and forgets many small things: a fifth more simulated seconds a second than with glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
