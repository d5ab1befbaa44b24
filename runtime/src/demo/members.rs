//! What the members say of themselves: `/patroni` for what they are, `/why` for the reason.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use super::cluster::{NODES, Node};
use crate::http;

/// How long a member may take to answer. A frozen agent never does.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// A member as it was heard last.
#[derive(Clone, Default, Debug)]
pub(super) struct Member {
    /// Its agent answers.
    pub(super) answers: bool,
    /// `primary`, `replica`, …
    pub(super) role: String,
    /// `running`, `stopped`, …
    pub(super) state: String,
    /// A standby that receives.
    pub(super) is_streaming: bool,
    /// 0 if it does not say.
    pub(super) timeline: u64,
    /// WAL position: written by a primary, replayed by a standby. Bytes.
    pub(super) position: u64,
    /// Standbys that stream from it.
    pub(super) standbys: usize,
    /// The decision in force, in a sentence.
    pub(super) reason: String,
}

/// Asks all members at once.
pub(super) async fn poll(nodes: &[Node; NODES]) -> [Member; NODES] {
    let [a, b, c] = nodes;
    let (a, b, c) = tokio::join!(ask(a), ask(b), ask(c));
    [a, b, c]
}

async fn ask(node: &Node) -> Member {
    let (status, why) = tokio::join!(document(node.url("patroni")), document(node.url("why")));
    let Some(status) = status else { return Member::default() };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let xlog = |key: &str| status["xlog"][key].as_u64();
    let standbys = status["replication"].as_array();
    Member {
        answers: true,
        role: text(&status["role"]),
        state: text(&status["state"]),
        is_streaming: status["replication_state"] == "streaming",
        timeline: status["timeline"].as_u64().unwrap_or_default(),
        position: xlog("location").or_else(|| xlog("replayed_location")).unwrap_or_default(),
        standbys: standbys.map_or(0, |all| all.iter().filter(|standby| standby["state"] == "streaming").count()),
        reason: why.map(|why| text(&why["decision"]["sentence"])).unwrap_or_default(),
    }
}

async fn document(url: String) -> Option<Value> {
    let (_, body) = http::request(Method::GET, &url, None, None, ANSWER_LIMIT).await.ok()?;
    serde_json::from_str(&body).ok()
}

/// The primary of a cluster that is whole: one primary, and every other member streams from it on its timeline.
///
/// # Errors
/// What is missing, and of which members.
pub(super) fn whole(members: &[Member; NODES]) -> Result<usize, (String, Vec<usize>)> {
    let is_primary = |member: &Member| member.role == "primary" && member.state == "running";
    let primaries: Vec<usize> = (0..NODES).filter(|index| is_primary(&members[*index])).collect();
    let &[primary] = primaries.as_slice() else {
        return Err((format!("{} members are running primaries", primaries.len()), (0..NODES).collect()));
    };
    let timeline = members[primary].timeline;
    let streams = |member: &Member| member.role == "replica" && member.is_streaming && member.timeline == timeline;
    let behind: Vec<usize> = (0..NODES).filter(|index| *index != primary && !streams(&members[*index])).collect();
    if !behind.is_empty() {
        return Err((format!("not every standby streams on timeline {timeline}"), behind));
    }
    if members[primary].standbys + 1 < NODES {
        return Err((format!("the primary sees {} streaming standbys", members[primary].standbys), vec![primary]));
    }
    Ok(primary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(role: &str, timeline: u64, standbys: usize) -> Member {
        let is_streaming = role == "replica";
        let (role, state) = (role.to_owned(), "running".to_owned());
        Member { answers: true, role, state, is_streaming, timeline, standbys, ..Member::default() }
    }

    #[test]
    fn a_whole_cluster_has_one_primary_and_standbys_on_its_timeline() {
        let members = [member("replica", 2, 0), member("primary", 2, 2), member("replica", 2, 0)];
        assert_eq!(whole(&members), Ok(1));
    }

    #[test]
    fn a_standby_on_an_old_timeline_or_a_second_primary_is_named() {
        let behind = [member("replica", 1, 0), member("primary", 2, 2), member("replica", 2, 0)];
        assert_eq!(whole(&behind).unwrap_err().1, [0]);
        let two = [member("primary", 1, 0), member("primary", 2, 2), member("replica", 2, 0)];
        assert!(whole(&two).is_err());
        let silent = [member("replica", 2, 0), Member::default(), member("replica", 2, 0)];
        assert!(whole(&silent).is_err());
    }
}
