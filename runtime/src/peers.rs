//! What this agent asks others, and how both kinds of answer are read: those of Matriarch and those of Patroni, whose
//! status document is its protocol of the race.

use std::time::Duration;

use hyper::Method;
use matriarch_core::id::{Lsn, Revision, Timeline};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::timeline::{Ancestor, History};
use matriarch_core::view::peers::PeerAnswer;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::http::{self, Client, HttpError};
use crate::wire::keys::is_same_scope;
use crate::wire::lenient::{percent_encoded, truthy};

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;

/// How often a Patroni member is asked whether it has replayed far enough; it cannot wait for us.
const PATRONI_PAUSE: Duration = Duration::from_millis(10);

/// How long beyond the wait that a long poll asks for its answer may take to arrive.
const TRANSIT: Duration = Duration::from_millis(250);

/// How much of an answer that is no position is told: whatever listens at a member's address may send megabytes.
const TOLD_CHARS: usize = 300;

/// Who asks the members of a cluster.
#[derive(Clone)]
pub struct Peers {
    client: Client,
    scope: String,
}

impl Peers {
    /// To ask the members of `scope`. What listens at a member's old address by now may be of another cluster.
    pub fn new(client: Client, scope: &str) -> Self {
        Self { client, scope: scope.to_owned() }
    }

    /// Asks how a member is: `GET api_url`, Matriarch or Patroni. Only the lease protects from a member asked this way: the
    /// answer carries no pledge, and the history of a Patroni member is the bare timeline.
    pub async fn ask_status(&self, api_url: &str, deadline: Duration) -> Outcome<PeerAnswer> {
        match self.client.request(Method::GET, api_url, None, None, deadline).await {
            Ok((_, body)) => understood(api_url, &body, |document| from_status(document, &self.scope)),
            Err(error) => unanswered(&error),
        }
    }

    /// Asks a member for its position and, if it can (`pledges`), to stop receiving WAL first because the leader key is
    /// absent at `absent_at`. A Patroni member only tells its status.
    pub async fn ask_position(
        &self,
        api_url: &str,
        pledges: bool,
        absent_at: Revision,
        deadline: Duration,
    ) -> Outcome<PeerAnswer> {
        if !pledges {
            return self.ask_status(api_url, deadline).await;
        }
        let Some(base) = http::base_url(api_url) else { return unusable(api_url) };
        let body = json!({ "absent_at": absent_at.0, "scope": self.scope }).to_string();
        let url = format!("{base}/matriarch/position");
        match self.client.request(Method::POST, &url, None, Some(body), deadline).await {
            Ok((200, body)) => understood(api_url, &body, from_position),
            Ok((status, body)) => no_position(&url, status, &body),
            Err(error) => unanswered(&error),
        }
    }

    /// Waits until a member has replayed beyond a position, or `deadline` is over; the answer is the last that it told, so
    /// the caller compares. A Patroni member is asked again and again, ours waits itself and answers at once then.
    pub async fn await_replay(
        &self,
        api_url: &str,
        pledges: bool,
        beyond: Lsn,
        deadline: Duration,
    ) -> Outcome<PeerAnswer> {
        if !pledges {
            return self.ask_until_replayed(api_url, beyond, deadline).await;
        }
        let Some(base) = http::base_url(api_url) else { return unusable(api_url) };
        let (scope, deadline_ms) = (percent_encoded(&self.scope), deadline.as_millis());
        let url = format!("{base}/matriarch/replayed?beyond={beyond}&deadline_ms={deadline_ms}&scope={scope}");
        match self.client.request(Method::GET, &url, None, None, deadline + TRANSIT).await {
            Ok((200, body)) => understood(api_url, &body, from_position),
            Ok((status, body)) => no_position(&url, status, &body),
            Err(error) => unanswered(&error),
        }
    }

    async fn ask_until_replayed(&self, api_url: &str, beyond: Lsn, deadline: Duration) -> Outcome<PeerAnswer> {
        let end = Instant::now() + deadline;
        let mut last = Outcome::Unknown(format!("{api_url} was not asked"));
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return last;
            }
            last = self.ask_status(api_url, left).await;
            if matches!(&last, Outcome::Done(answer) if answer.replayed > beyond) {
                return last;
            }
            tokio::time::sleep(PATRONI_PAUSE.min(left)).await;
        }
    }
}

/// Our own position as JSON, as `/matriarch/position` and `/matriarch/replayed` answer it.
pub fn position_document(answer: &PeerAnswer) -> Value {
    let ancestors = answer.history.ancestors.iter();
    let history: Vec<Value> = ancestors.map(|a| json!([a.timeline.0, a.end.to_string()])).collect();
    json!({
        "primary": answer.primary,
        "barred": answer.barred,
        "timeline": answer.history.timeline.0,
        "history": history,
        "receives": answer.receives,
        "flushed": answer.flushed.to_string(),
        "replayed": answer.replayed.to_string(),
        "replay_paused": answer.replay_paused,
        "pledge": answer.pledge.map(|revision| revision.0),
        "leader_epoch": answer.leader_epoch.0,
        "keys_at": answer.keys_at.0,
        "tenure_ttl_ms": answer.tenure_ttl.as_millis(),
    })
}

/// `None` where something is missing or no such value, or where the lines of the history are in no order: positions
/// are compared along it.
fn from_position(document: &Map<String, Value>) -> Option<PeerAnswer> {
    let lsn = |key: &str| Lsn::parse(document.get(key)?.as_str()?);
    let ancestor = |line: &Value| {
        let timeline = Timeline(u32::try_from(line.get(0)?.as_u64()?).ok()?);
        Some(Ancestor { timeline, end: Lsn::parse(line.get(1)?.as_str()?)?, reason: String::new() })
    };
    let ancestors: Option<Vec<Ancestor>> = document.get("history")?.as_array()?.iter().map(ancestor).collect();
    let timeline = Timeline(u32::try_from(document.get("timeline")?.as_u64()?).ok()?);
    Some(PeerAnswer {
        primary: document.get("primary")?.as_bool()?,
        barred: document.get("barred")?.as_bool()?,
        history: in_order(History { ancestors: ancestors?, timeline })?,
        receives: document.get("receives")?.as_bool()?,
        flushed: lsn("flushed")?,
        replayed: lsn("replayed")?,
        // An agent of before this was told says nothing of it.
        replay_paused: document.get("replay_paused").and_then(Value::as_bool).unwrap_or(false),
        pledge: document.get("pledge").and_then(Value::as_i64).map(Revision),
        leader_epoch: Revision(document.get("leader_epoch").and_then(Value::as_i64).unwrap_or(0)),
        keys_at: Revision(document.get("keys_at").and_then(Value::as_i64).unwrap_or(0)),
        tenure_ttl: Duration::from_millis(document.get("tenure_ttl_ms").and_then(Value::as_u64).unwrap_or(0)),
    })
}

/// As [`History::parse`] leaves it: timelines grow up to the last, and none ends before the one above it.
fn in_order(history: History) -> Option<History> {
    let numbers = history.ancestors.iter().map(|ancestor| ancestor.timeline).chain([history.timeline]);
    let ends = history.ancestors.iter().map(|ancestor| ancestor.end);
    (numbers.is_sorted_by(|one, next| one < next) && ends.is_sorted()).then_some(history)
}

/// Patroni's `_MemberStatus.from_api_response`: without `xlog` (or `wal`) a member counts as unreachable; a primary is
/// known by a position that is not 0, or by its role. One of ours that says that it leads is heard without any.
///
/// `None` as well where it is of another cluster: an address is given to somebody else.
fn from_status(document: &Map<String, Value>, scope: &str) -> Option<PeerAnswer> {
    let told = document.get("patroni").and_then(|patroni| patroni.get("scope")).and_then(Value::as_str);
    if told.is_some_and(|told| !is_same_scope(told, scope)) {
        return None;
    }
    let xlog = document.get("wal").or_else(|| document.get("xlog")).and_then(Value::as_object);
    // What ours tell each other says more than a role: whoever is about to be promoted has none of a primary yet. One whose
    // PostgreSQL says nothing may lead all the same, and is no candidate otherwise.
    if let Some(own) = document.get("matriarch") {
        let answer = own.as_object().and_then(from_position).filter(|answer| answer.primary || xlog.is_some());
        return answer.map(|answer| PeerAnswer { pledge: None, ..answer });
    }
    let xlog = xlog?;
    let lsn = |key: &str| Lsn(xlog.get(key).and_then(Value::as_u64).unwrap_or(0));
    let location = lsn("location");
    let role = document.get("role").and_then(Value::as_str).unwrap_or_default();
    let primary = location > Lsn(0) || matches!(role, "primary" | "master");
    let nofailover = document.get("tags").and_then(|tags| tags.get("nofailover")).is_some_and(truthy);
    let timeline = document.get("timeline").and_then(Value::as_u64).and_then(|t| u32::try_from(t).ok());
    let replayed = lsn("replayed_location");
    Some(PeerAnswer {
        primary,
        barred: nofailover || document.get("watchdog_failed").is_some_and(truthy),
        history: History::first(Timeline(timeline.unwrap_or(0))),
        receives: !primary,
        flushed: if primary { location } else { lsn("received_location").max(replayed) },
        replayed,
        replay_paused: xlog.get("paused").is_some_and(truthy),
        pledge: None,
        leader_epoch: Revision(0),
        keys_at: Revision(0),
        tenure_ttl: Duration::ZERO,
    })
}

fn understood(
    api_url: &str,
    body: &str,
    read: impl FnOnce(&Map<String, Value>) -> Option<PeerAnswer>,
) -> Outcome<PeerAnswer> {
    let document: Option<Value> = serde_json::from_str(body).ok();
    let answer = document.as_ref().and_then(Value::as_object).and_then(read);
    answer.map_or_else(|| refused(format!("{api_url} told no position")), Outcome::Done)
}

/// An answer that says no, or comes from something else than an agent.
fn no_position(url: &str, status: u16, body: &str) -> Outcome<PeerAnswer> {
    let body = body.trim();
    let told = body.char_indices().nth(TOLD_CHARS).map_or(body, |(end, _)| &body[..end]);
    refused(format!("{url} answered {status}: {told}"))
}

fn unanswered(error: &HttpError) -> Outcome<PeerAnswer> {
    if error.is_ambiguous() { Outcome::Unknown(error.to_string()) } else { refused(error.to_string()) }
}

fn unusable(api_url: &str) -> Outcome<PeerAnswer> {
    refused(format!("{api_url} is not a URL of a REST API"))
}

fn refused(why: String) -> Outcome<PeerAnswer> {
    Outcome::Refused(Refusal::Failed(why))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(text: &str) -> Option<PeerAnswer> {
        understood("http://n/patroni", text, |document| from_status(document, "demo")).done()
    }

    #[test]
    fn documents_of_patroni_are_read_as_its_race_reads_them() {
        let primary =
            status(r#"{"state": "running", "role": "primary", "xlog": {"location": 67416760}, "timeline": 1}"#);
        assert!(primary.is_some_and(|p| p.primary && !p.barred && p.flushed == Lsn(67_416_760)));
        // The role is cached: a position of a primary says more.
        let promoted = status(r#"{"role": "replica", "xlog": {"location": 5}, "timeline": 2}"#);
        assert!(promoted.is_some_and(|p| p.primary));
        let replica = status(
            r#"{"role": "replica", "timeline": null, "wal": {"received_location": 7, "replayed_location": 9},
                "tags": {"nofailover": true}}"#,
        );
        let replica = replica.unwrap();
        assert!(!replica.primary && replica.barred);
        assert_eq!((replica.flushed, &replica.history), (Lsn(9), &History::first(Timeline(0))));
        let failed = status(r#"{"role": "replica", "xlog": {"replayed_location": 9}, "watchdog_failed": true}"#);
        assert!(failed.is_some_and(|p| p.barred));
        let of = |scope: &str| {
            status(&format!(r#"{{"role": "primary", "xlog": {{"location": 5}}, "patroni": {{"scope": "{scope}"}}}}"#))
        };
        assert!(of("demo").is_some() && of("another").is_none());
        // Ours says what it holds, whatever its role: a standby that is to be promoted may write any moment.
        let own = PeerAnswer { primary: true, pledge: Some(Revision(7)), keys_at: Revision(9), ..replica };
        let document =
            json!({"role": "replica", "xlog": {"received_location": 7}, "matriarch": position_document(&own)});
        assert_eq!(status(&document.to_string()), Some(PeerAnswer { pledge: None, ..own.clone() }));
        let silent = json!({"state": "starting", "role": "replica", "matriarch": position_document(&own)});
        assert_eq!(status(&silent.to_string()), Some(PeerAnswer { pledge: None, ..own.clone() }));
        let standby = PeerAnswer { primary: false, ..own };
        let silent = json!({"state": "running", "role": "replica", "matriarch": position_document(&standby)});
        assert_eq!(status(&silent.to_string()), None, "nothing is handed over to it");
        for silent in [r#"{"state": "stopped", "role": "demoted"}"#, "[]", "x", r#"{"xlog": 1}"#] {
            assert_eq!(status(silent), None, "{silent}");
        }
    }

    #[test]
    fn a_history_in_no_order_is_no_position() {
        let told = |history: Value, timeline: u32| {
            let document = json!({
                "primary": false, "barred": false, "timeline": timeline, "history": history, "receives": true,
                "flushed": "0/7", "replayed": "0/7",
            });
            understood("http://n", &document.to_string(), from_position).done().is_some()
        };
        assert!(told(json!([[1, "0/5"], [2, "0/5"]]), 3));
        assert!(!told(json!([[2, "0/5"], [1, "0/6"]]), 3), "timelines");
        assert!(!told(json!([[1, "0/5"], [2, "0/5"]]), 2), "an ancestor of itself");
        assert!(!told(json!([[1, "0/6"], [2, "0/5"]]), 3), "ends");
    }

    #[test]
    fn of_an_answer_that_is_no_position_only_the_beginning_is_told() {
        let page = "\u{e9}".repeat(1 << 20);
        let Outcome::Refused(why) = no_position("http://n", 404, &page) else { panic!("it is refused") };
        assert_eq!(why.to_string().matches('\u{e9}').count(), TOLD_CHARS);
    }

    fn any_answer() -> impl Strategy<Value = PeerAnswer> {
        let ancestors = proptest::collection::btree_map(any::<u32>(), any::<u64>(), 0..4);
        let history = (ancestors, any::<u32>()).prop_map(|(ancestors, timeline)| {
            let mut ends: Vec<u64> = ancestors.values().copied().collect();
            ends.sort_unstable();
            let below = ancestors.into_keys().filter(|ancestor| *ancestor < timeline);
            let ancestors = below.zip(ends).map(|(ancestor, end)| Ancestor {
                timeline: Timeline(ancestor),
                end: Lsn(end),
                reason: String::new(),
            });
            History { ancestors: ancestors.collect(), timeline: Timeline(timeline) }
        });
        let pledge = proptest::option::of(any::<i64>().prop_map(Revision));
        (any::<(bool, bool, bool, bool, u64, u64, u32)>(), history, pledge).prop_map(|(told, history, pledge)| {
            let (primary, barred, receives, replay_paused, flushed, replayed, epoch) = told;
            let (flushed, replayed) = (Lsn(flushed), Lsn(replayed));
            let leader_epoch = Revision(i64::from(epoch));
            PeerAnswer {
                primary,
                barred,
                history,
                receives,
                flushed,
                replayed,
                replay_paused,
                pledge,
                leader_epoch,
                keys_at: Revision(i64::from(!epoch)),
                tenure_ttl: Duration::from_millis(u64::from(epoch / 2)),
            }
        })
    }

    proptest! {
        #[test]
        fn positions_are_read_as_they_were_written(answer in any_answer()) {
            let text = position_document(&answer).to_string();
            prop_assert_eq!(understood("http://n", &text, from_position), Outcome::Done(answer));
        }
    }
}
