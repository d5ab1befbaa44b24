//! What other agents ask. It needs no password: a position is frozen only because this node itself sees no leader key,
//! and a race must not fail because two files differ in their credentials.

use std::time::Duration;

use hyper::body::Incoming;
use matriarch_core::action::Answer;
use matriarch_core::event::PeerEvent;
use matriarch_core::id::{Lsn, Revision};
use matriarch_core::view::peers::PeerAnswer;
use serde_json::Value;
use tokio::time::Instant;

use super::facts::{COMPARISON_LIMIT, Facts};
use super::reply::Reply;
use super::{Api, Call};
use crate::agent::handle::Message;
use crate::peers::position_document;
use crate::wire::keys::is_same_scope;

/// How long this node may take to freeze and to put its pledge on disk. The asker gives up earlier; it is no vote then.
const PLEDGE_LIMIT: Duration = Duration::from_secs(10);
/// How long an announced hand-over is waited for at most.
const REPLAY_LIMIT: Duration = Duration::from_mins(1);
/// The pause between two looks at what PostgreSQL has replayed: a look costs one short query.
const REPLAY_PAUSE: Duration = Duration::from_millis(3);

/// `POST /matriarch/position`: our position, after this node stopped receiving WAL because the leader key is gone.
pub(super) async fn position(api: &Api, call: &Call, body: Incoming) -> Reply {
    let body = match call.object(body, false).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    if let Some(refusal) = of_another_cluster(api, body.get("scope").and_then(Value::as_str)) {
        return refusal;
    }
    let Some(absent_at) = body.get("absent_at").and_then(Value::as_i64) else {
        return Reply::text(400, "absent_at must be the revision at which the leader key was absent");
    };
    match tokio::time::timeout(PLEDGE_LIMIT, api.handle.position(Revision(absent_at))).await {
        Ok(Some(Answer::Position(answer))) => Reply::json(200, &position_document(&answer)),
        Ok(Some(Answer::Text { status, body })) => Reply::text(status, body),
        Ok(None) => Reply::text(503, "the agent is stopping, or too many questions wait for it already"),
        Err(_) => Reply::text(503, "the WAL receiver could not be stopped in time"),
    }
}

/// `GET /matriarch/replayed?beyond=LSN&deadline_ms=N`: answers as soon as PostgreSQL has replayed beyond the position,
/// or with what it has when the time is over.
pub(super) async fn replayed(api: &Api, call: &Call) -> Reply {
    if let Some(refusal) = of_another_cluster(api, call.query.get("scope")) {
        return refusal;
    }
    let beyond = call.query.get("beyond").and_then(Lsn::parse);
    let limit = call.query.get("deadline_ms").and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    let (Some(beyond), Some(limit)) = (beyond, limit) else {
        return Reply::text(400, "beyond must be a position (X/X) and deadline_ms a number of milliseconds");
    };
    let end = Instant::now() + limit.min(REPLAY_LIMIT);
    api.handle.tell(Message::Peer(PeerEvent::HandoverAnnounced)).await;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let _ = tokio::time::timeout(left.min(COMPARISON_LIMIT), api.handle.observe()).await;
        let answer = api.with_facts(own);
        if answer.replayed > beyond || end <= Instant::now() {
            return Reply::json(200, &position_document(&answer));
        }
        tokio::time::sleep(REPLAY_PAUSE.min(end.saturating_duration_since(Instant::now()))).await;
    }
}

/// Whoever asks means a member of another cluster, which had this address. The race: that one is gone, and what is told here of
/// another cluster's primary would keep the rest of it from leading. An agent of before this was asked says nothing of it.
fn of_another_cluster(api: &Api, scope: Option<&str>) -> Option<Reply> {
    let meant = scope?;
    let ours = api.with_facts(|facts| facts.shared.scope.clone());
    (!is_same_scope(meant, &ours)).then(|| Reply::text(409, format!("this is a member of {ours}, and not of {meant}")))
}

/// Where this node is now, without any promise.
pub(super) fn own(facts: &Facts<'_>) -> PeerAnswer {
    // One that does not answer any more replays nothing either, however much it had.
    let answer = facts.view.own_answer();
    let replayed = facts.sql.map(|_| answer.replayed).unwrap_or_default();
    PeerAnswer { pledge: None, replayed, ..answer }
}
