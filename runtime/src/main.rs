//! The `matriarch` command.

use clap::Parser;
use matriarch::guard::GuardArgs;

#[derive(Parser)]
enum Command {
    /// Guard one PostgreSQL for an agent; started by the agent itself.
    Guard(GuardArgs),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Guard(args) => matriarch::guard::run(args),
    }
}
