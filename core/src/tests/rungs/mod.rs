//! Every rung, every decision it can come to: verdict, reason, fate and orders.

mod fence;
mod follow;
mod ladder;
mod lead;
mod let_go;
mod pause;
mod race;
mod standing_back;
mod switchover;
mod unguarded;
mod waiting;

use crate::action::{Action, GuardAction, HostAction, PeerAction, PostgresAction, StoreAction};
use crate::decide::{Fate, Rung};
use crate::event::{Event, Request};
use crate::id::{LeaseId, Lsn, Member, RequestId, Revision, SystemId};
use crate::lease::{Held, Tenure};
use crate::state::{Granted, Pledge};
use crate::testing::*;
use crate::time::{Instant, Seen};
use crate::timeline::{Ancestor, History};
use crate::view::guard::Armed;
use crate::view::postgres::{Cluster, ControlState, DataDir, Phase, Process, StartAs, StopMode};
use crate::view::store::{FailoverKey, HistoryKey, HistoryLine, Initialize, StatusKey, Vanished};

/// How that member is, is asked.
fn asks_status(name: &str) -> Action {
    let (member, api_url) = (Member::new(name), format!("http://{name}:8008/patroni"));
    Action::Peer(PeerAction::AskStatus { member, api_url })
}

const FIRE: Action = Action::Guard(GuardAction::Fire);
const HOLD: Action = Action::Guard(GuardAction::Hold);

fn stop(mode: StopMode) -> Action {
    Action::Postgres(PostgresAction::Stop(mode))
}

fn start_standby(of: Option<&str>) -> Action {
    Action::Postgres(PostgresAction::Start(StartAs::Standby(of.map(upstream))))
}

/// One view, and all that is concluded from it.
fn concludes(node: &Node, rung: Rung, code: &str, fate: Fate, orders: &[Action]) {
    let (got, verdict) = node.decide();
    assert_eq!((got, verdict.reason.code(), verdict.fate), (rung, code, fate), "{verdict:?}");
    assert_eq!(verdict.orders, orders);
}

fn suspended(node: Node) -> Node {
    let since = node.now;
    node.cluster(|cluster| cluster.leader = None).with(|state| {
        if let Tenure::Held(was) = state.tenure {
            state.tenure = Tenure::Suspended { was, since };
        }
    })
}

/// A node without data.
fn empty() -> Node {
    Node::stopped().with(|state| state.postgres.data = DataDir::Empty)
}
