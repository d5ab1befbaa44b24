//! A path as a person reads it: what happened, what was decided about it, what was ordered.

use std::fmt;

use super::moves::Move;
use super::world::{Broken, Message, ServerStep, World, name};
use crate::run::caught;
use crate::time::Time;

/// A path to a state that must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Story {
    /// What did not hold.
    pub broken: Broken,
    /// Faults on the path.
    pub faults: usize,
    /// What happened.
    pub told: Vec<Told>,
}

/// One move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// When, in milliseconds since the path began.
    pub at_ms: u64,
    /// What happened.
    pub what: String,
    /// It is a fault.
    pub is_fault: bool,
    /// What was decided about it, and what was ordered.
    pub said: Vec<String>,
}

/// Walks a path again and tells it.
pub(super) fn story(root: &World, path: &[Move], broken: Broken) -> Story {
    let mut world = root.clone();
    world.said.aloud = true;
    let began = world.now;
    let mut told = Vec::new();
    for what in path {
        let line = tell(&world, *what, began);
        let Ok(after) = caught(|| world.after(*what)) else {
            told.push(line);
            break;
        };
        world = after;
        let decided = world.said.decisions.iter();
        let decided =
            decided.map(|(node, d)| format!("{}: {}/{}: {}", name(*node), d.rung.name(), d.reason.code(), d.reason));
        let ordered = world.said.orders.iter().map(|(node, order)| format!("{}: -> {order}", name(*node)));
        told.push(Told { said: decided.chain(ordered).collect(), ..line });
    }
    Story { broken, faults: path.iter().filter(|what| !what.is_free()).count(), told }
}

fn tell(world: &World, what: Move, began: Time) -> Told {
    let queued = world.queue.iter().find(|message| world.is_deliverable(message));
    let what_comes = match what {
        Move::Deliver | Move::Delay | Move::Lose | Move::Reset => queued,
        Move::Late(index) => world.late.get(index),
        _ => None,
    };
    let text = match what_comes {
        Some(message) => format!("{} {what}", Named(message)),
        None => what.to_string(),
    };
    Told { at_ms: world.now.since(began).as_millis() as u64, what: text, is_fault: !what.is_free(), said: Vec::new() }
}

struct Named<'a>(&'a Message);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Message::Tick { node } => write!(f, "{}'s timer", name(*node)),
            Message::Request { node, ask, .. } => write!(f, "{}'s request {ask}", name(*node)),
            Message::Reply { node, outcome, .. } => {
                let outcome = match outcome {
                    matriarch_core::op::Outcome::Done(_) => "done",
                    matriarch_core::op::Outcome::Refused(_) => "refused",
                    matriarch_core::op::Outcome::Unknown(_) => "unknown",
                };
                write!(f, "the store's answer to {} ({outcome})", name(*node))
            }
            Message::Watch { node, view } => {
                let leader = view.leader.as_ref().map_or("nobody", |leader| leader.member.as_str());
                write!(f, "{}'s watch (revision {}, {leader} leads)", name(*node), view.revision)
            }
            Message::Execute { node, action, .. } => write!(f, "{}'s turn to {action}", name(*node)),
            Message::Observe { node, .. } => write!(f, "{}'s query", name(*node)),
            Message::Look { node } => write!(f, "{}'s look at PostgreSQL", name(*node)),
            Message::Write { node, file, .. } => write!(f, "{}'s small file ({file:?})", name(*node)),
            Message::Server { node, step, .. } => {
                let step = match step {
                    ServerStep::Recovered => "end of recovery",
                    ServerStep::Promoted => "end of promotion",
                    ServerStep::ShutDown => "end of shutdown",
                };
                write!(f, "{}'s {step}", name(*node))
            }
            Message::Order { node, order, .. } => write!(f, "{}'s order to its guard to {order}", name(*node)),
            Message::Report { node, event } => write!(f, "the report of {}'s guard ({event:?})", name(*node)),
            Message::GuardReached { node } => write!(f, "{}'s guard", name(*node)),
            Message::GuardWakes { node } => write!(f, "the instant of {}'s guard", name(*node)),
            Message::LeasesEnd => f.write_str("the end of a lease"),
            Message::Question { from, question, .. } => write!(f, "{}'s question ({question:?})", name(*from)),
            Message::Answer { node, .. } => write!(f, "the answer to {}'s question", name(*node)),
        }
    }
}

impl fmt::Display for super::world::Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::store::Request;
        match self {
            Self::Renew { lease, .. } => write!(f, "to renew tenure {lease}"),
            Self::One(Request::KeepAlive(lease)) => write!(f, "to keep lease {lease}"),
            Self::One(Request::Proof { .. }) => f.write_str("for proof"),
            Self::One(Request::Order { action, .. }) => write!(f, "to {action}"),
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} after {} moves, {} of them faults: {}",
            self.broken.invariant,
            self.told.len(),
            self.faults,
            self.broken.what
        )?;
        for line in &self.told {
            let mark = if line.is_fault { '!' } else { ' ' };
            writeln!(f, "{:6} ms {mark} {}", line.at_ms, line.what)?;
            for said in &line.said {
                writeln!(f, "              {said}")?;
            }
        }
        Ok(())
    }
}
