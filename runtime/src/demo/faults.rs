//! The faults: how each is made and how it is healed.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::bail;
use rustix::process::Signal;

use super::cluster::Cluster;
use crate::processes::Process;

/// How long an agent may take to hand over and end, once it is asked to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What is done to the primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// SIGKILL to the postmaster alone.
    KillPostmaster,
    /// An operator's request.
    Switchover,
    /// SIGTERM to the agent.
    StopAgent,
    /// SIGSTOP to the agent; PostgreSQL and guard run.
    FreezeAgent,
    /// SIGKILL to the agent; PostgreSQL and guard run.
    KillAgent,
    /// SIGKILL to every process of the node.
    KillNode,
}

impl Fault {
    /// The tour, in its order.
    pub(super) const TOUR: [Self; 6] =
        [Self::KillPostmaster, Self::Switchover, Self::StopAgent, Self::FreezeAgent, Self::KillAgent, Self::KillNode];
    /// The short one.
    pub(super) const QUICK: [Self; 2] = [Self::KillPostmaster, Self::Switchover];

    /// For people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::KillPostmaster => "kill the postmaster",
            Self::Switchover => "switchover",
            Self::StopAgent => "stop the agent (SIGTERM)",
            Self::FreezeAgent => "freeze the agent (SIGSTOP)",
            Self::KillAgent => "kill the agent (SIGKILL)",
            Self::KillNode => "kill the whole node",
        }
    }

    /// For machines.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::KillPostmaster => "kill_postmaster",
            Self::Switchover => "switchover",
            Self::StopAgent => "stop_agent",
            Self::FreezeAgent => "freeze_agent",
            Self::KillAgent => "kill_agent",
            Self::KillNode => "kill_node",
        }
    }

    /// Asynchronous replication does not promise to keep the last rows: PostgreSQL has no chance to hand them on.
    pub(super) fn may_lose_rows(self) -> bool {
        match self {
            Self::KillPostmaster | Self::Switchover | Self::StopAgent => false,
            Self::FreezeAgent | Self::KillAgent | Self::KillNode => true,
        }
    }

    /// Another node must be primary afterwards. A dead postmaster may be started again in place.
    pub(super) fn moves_the_primary(self) -> bool {
        self != Self::KillPostmaster
    }

    /// How long service is watched before healing: a frozen agent's PostgreSQL must not be heard of again.
    pub(super) fn watched_for(self) -> Duration {
        if self == Self::FreezeAgent { Duration::from_secs(3) } else { Duration::from_secs(1) }
    }
}

/// A fault that was made, and what healing it needs.
pub(super) struct Made {
    fault: Fault,
    struck: usize,
    dying: Option<Process>,
}

/// Does it to the primary. A switchover is over when this returns, anything else has just begun.
pub(super) async fn strike(fault: Fault, cluster: &RefCell<Cluster>, primary: usize) -> anyhow::Result<Made> {
    if fault == Fault::Switchover {
        let node = cluster.borrow().nodes[primary].clone();
        node.switchover().await?;
        return Ok(Made { fault, struck: primary, dying: None });
    }
    let mut cluster = cluster.borrow_mut();
    let mut dying = None;
    match fault {
        Fault::Switchover => {}
        Fault::KillPostmaster => cluster.kill_postmaster(primary)?,
        Fault::StopAgent => dying = Some(cluster.end_agent(primary, Signal::TERM)?),
        Fault::FreezeAgent => cluster.signal_agent(primary, Signal::STOP)?,
        Fault::KillAgent => dying = Some(cluster.end_agent(primary, Signal::KILL)?),
        Fault::KillNode => cluster.kill_node(primary)?,
    }
    Ok(Made { fault, struck: primary, dying })
}

/// Makes it good: what was killed is started again, what was stopped goes on.
pub(super) async fn heal(made: &Made, cluster: &RefCell<Cluster>) -> anyhow::Result<()> {
    match made.fault {
        Fault::KillPostmaster | Fault::Switchover => Ok(()),
        Fault::FreezeAgent => cluster.borrow().signal_agent(made.struck, Signal::CONT),
        Fault::StopAgent | Fault::KillAgent | Fault::KillNode => {
            let end = tokio::time::Instant::now() + STOP_LIMIT;
            while made.dying.is_some_and(Process::is_alive) {
                if tokio::time::Instant::now() >= end {
                    let name = cluster.borrow().nodes[made.struck].name.clone();
                    bail!("the agent of {name} was asked to stop and still runs");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            cluster.borrow_mut().start_agent(made.struck)
        }
    }
}
