//! The language of the scripts: one line, one thing that happens.
//!
//! A line begins with `at TIME` if time passes before it. Lines that begin with white space are what the agent did, and
//! are written by the runner; `#` begins a comment.

use std::time::Duration;

use matriarch_core::event::Request;
use matriarch_core::id::{LeaseId, Lsn, Member, Revision};

use crate::world::{Disk, World};

/// Runs a script and returns it with what the agent did. Panics where it cannot be understood, naming the line.
pub(crate) fn run(name: &str, text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
    let mut world = World::new();
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        out.push_str(line);
        out.push('\n');
        let Some(command) = command(line) else { continue };
        if let Some(time) = command.0 {
            world.sleep_until(time);
        }
        let words: Vec<&str> = command.1.split_whitespace().collect();
        assert!(happens(&mut world, &words), "{name}, line {}: cannot understand \"{line}\"", index + 1);
        // What follows from this line stands below it: until the next one happens.
        let next = lines[index + 1..].iter().find_map(|line| command_time(line));
        if let Some(Some(time)) = next {
            world.run_until(time);
        }
        for told in world.told() {
            out.push_str("    ");
            out.push_str(&told);
            out.push('\n');
        }
    }
    out
}

fn command(line: &str) -> Option<(Option<Duration>, &str)> {
    let line = line.split('#').next().unwrap_or_default().trim();
    if line.is_empty() {
        return None;
    }
    let Some(rest) = line.strip_prefix("at ") else { return Some((None, line)) };
    let (time, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((Some(duration(time)), rest.trim()))
}

fn command_time(line: &str) -> Option<Option<Duration>> {
    command(line).map(|(time, _)| time)
}

/// `12.5s`
fn duration(text: &str) -> Duration {
    let seconds = text.strip_suffix('s').and_then(|number| number.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or_else(|| panic!("\"{text}\" is no time such as 12.5s")))
}

fn lsn(text: &str) -> Lsn {
    Lsn::parse(text).unwrap_or_else(|| panic!("\"{text}\" is no position such as 0/3000060"))
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("\"{text}\" is no number"))
}

/// One thing happens; false if it is not understood.
fn happens(world: &mut World, words: &[&str]) -> bool {
    match words {
        ["end"] => {}
        ["agent", "starts"] => world.start(),
        ["agent", "is", "asked", "to", "stop"] => world.shutdown(),
        ["cluster", "is", "not", "initialised"] => world.uninitialise(),
        ["config", "asks", "for", mode @ ..] => world.unsupported(&mode.join(" ")),
        ["disk", "is", what @ ..] => match what {
            ["empty"] => world.disk(Disk::Empty),
            ["a", "standby"] => world.disk(Disk::Standby),
            ["a", "primary", "shut", "down", "cleanly"] => world.disk(Disk::CleanPrimary),
            ["a", "primary", "that", "crashed"] => world.disk(Disk::CrashedPrimary),
            ["of", "another", "cluster"] => world.disk(Disk::Foreign),
            _ => return false,
        },
        ["epoch", "file", "says", epoch] => world.epoch_file(Revision(number(epoch))),
        ["postgres", "runs", "as", "primary"] => world.postgres_runs(false, None),
        ["postgres", "runs", "as", "standby"] => world.postgres_runs(true, None),
        ["postgres", "runs", "as", "standby", "of", upstream] => world.postgres_runs(true, Some(upstream)),
        ["postgres", "is", "at", position] => world.position(lsn(position)),
        ["postgres", "has", "diverged", "at", position] => world.diverged(lsn(position)),
        ["postgres", "does", "not", "recover:", why @ ..] => world.recovery_fails(Some(why.join(" "))),
        ["postgres", "recovers", "again"] => world.recovery_fails(None),
        ["postmaster", "is", "killed"] => world.postmaster_dies(),
        ["leader", name, "epoch", epoch, "lease", lease] => {
            world.leader(name, Revision(number(epoch)), LeaseId(number(lease)));
        }
        ["leader", "key", "vanishes"] => world.leader_vanishes(),
        ["leader", "releases", "its", "key"] => world.leader_releases(),
        ["member", name, "vanishes"] => world.member_vanishes(name),
        ["member", name, "is", "a", "running", role] => world.member(name, role, false),
        ["member", name, "is", "a", "running", role, "without", "its", "first", "checkpoint"] => {
            world.member(name, role, true);
        }
        ["peer", name, "answers", position] => world.peer(name, lsn(position), false),
        ["peer", name, "answers", position, "pledged"] => world.peer(name, lsn(position), true),
        ["peer", name, "is", "unreachable"] => world.peer_unreachable(name),
        ["store", "is", "frozen"] => world.freeze_store(true),
        ["store", "answers", "again"] => world.freeze_store(false),
        ["guard", "is", "armed", "for", tenure, "until", at] => {
            world.guard_armed(LeaseId(number(tenure)), duration(at));
        }
        ["guard", "dies"] => world.guard_dies(true),
        ["guard", "dies", "and", "cannot", "be", "started"] => world.guard_dies(false),
        ["operator", "writes", "failover", "from", leader, "to", candidate] => {
            world.failover(Some(leader), Some(candidate));
        }
        ["operator", "asks", "for", "a", "restart"] => world.operator(Request::Restart),
        ["operator", "asks", "for", "a", "switchover", "from", leader, "to", candidate] => {
            world.operator(World::switchover(Member::new(leader), Member::new(candidate)));
        }
        _ => return false,
    }
    true
}
