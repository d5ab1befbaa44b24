//! What happened, as text: a line a thing, its node also visible by how far it is set in.

use matriarch_core::decide;
use matriarch_core::view::View;
use matriarch_sim::node::{NodeId, name};
use matriarch_sim::run::run_until;
use matriarch_sim::time::Time;
use matriarch_sim::trace::{Line, Trace};

use super::Which;

/// `12.5s`
pub(super) fn time(text: &str) -> Result<Time, String> {
    let seconds: f64 = text.trim_end_matches('s').parse().map_err(|_| "a time such as 12.5s is expected".to_owned())?;
    if !(0.0..1e9).contains(&seconds) {
        return Err("a time such as 12.5s is expected".into());
    }
    Ok(Time((seconds * 1e9) as u64))
}

/// All lines of a trace from the `from`-th on.
pub(super) fn lines(trace: &Trace, from: usize) -> String {
    trace.lines().iter().skip(from).map(line).collect()
}

/// The last lines of a trace, without what agents do all the time.
pub(super) fn story(trace: &Trace, count: usize) -> String {
    let routine = ["Observe", "KeepSession", "PutMember", "PutStatus", "Store(Read)", "Renew", "Arm "];
    let told: Vec<&Line> = trace
        .lines()
        .iter()
        .filter(|line| line.symbol != '<' && !routine.iter().any(|routine| line.text.contains(routine)))
        .collect();
    told[told.len().saturating_sub(count)..].iter().map(|told| line(told)).collect()
}

fn line(line: &Line) -> String {
    match line.node {
        None => format!("{:>10}  {} {}\n", line.at.to_string(), line.symbol, line.text),
        Some(node) => {
            let indent = " ".repeat(4 * node.0);
            format!("{:>10}    {indent}{} {} {}\n", line.at.to_string(), name(node), line.symbol, line.text)
        }
    }
}

/// What a node decides at an instant.
pub(super) fn explain(which: &Which, at: Time, node: char) -> Result<u8, String> {
    let world = run_until(which.plan()?, which.mutant, at);
    let index = (node as usize).wrapping_sub('a' as usize);
    let Some(host) = world.nodes.get(index) else {
        return Err(format!("there is no node {node}: there are {}", world.nodes.len()));
    };
    let Some(agent) = &host.agent else {
        println!("at {} no agent runs on {node}", world.now);
        return Ok(0);
    };
    println!("at {} {node} ({}):", world.now, if agent.frozen { "frozen" } else { "awake" });
    let view = View { at: world.clock(NodeId(index)), state: &agent.state };
    let (concludes, verdict) = decide::decide(&view);
    for (rung, precondition, reason) in decide::explain(&view) {
        let mark = if rung == concludes { '>' } else { ' ' };
        let told =
            reason.map_or_else(|| format!("- ({precondition})"), |reason| format!("{}: {reason}", reason.code()));
        println!("{mark} {:<12} {told}", rung.name());
    }
    println!("orders: {:?}", verdict.orders);
    println!("tenure: {:?}", agent.state.tenure);
    println!("guard: {:?}", agent.state.guard);
    println!("in flight: {:?}", agent.state.ops.iter().map(|(_, flight)| &flight.action).collect::<Vec<_>>());
    Ok(0)
}
