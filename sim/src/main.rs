//! `matriarch-sim`: runs, hunts, replays, cuts down, explains.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
