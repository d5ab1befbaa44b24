//! The simulator's store against a real etcd: one script drives both, and what can be observed must be the same. The
//! real one is asked as the agent asks it, so the orders of core mean the same to both as well.
//!
//! What the adapter relies on, whichever server speaks the protocol, is in `store_conformance`.

#[path = "conformance_store/etcd.rs"]
mod etcd;
#[path = "conformance_store/members.rs"]
mod members;
#[path = "conformance_store/model.rs"]
mod model;
#[path = "conformance_store/restores.rs"]
mod restores;
#[path = "conformance_store/scripts.rs"]
mod scripts;
#[path = "store_conformance/servers.rs"]
#[expect(dead_code, reason = "the embedded store is started by other tests")]
mod servers;
#[path = "conformance_store/tenures.rs"]
mod tenures;

use std::time::Duration;

use matriarch_core::action::StoreAction;
use matriarch_core::event::StoreDone;
use matriarch_core::op::Outcome;
use matriarch_core::view::store::ClusterView;
use matriarch_tests::conformance::{same, told};

use etcd::Etcd;
use model::ModelStore;
use scripts::Script;

/// Whoever asks gives up after so long.
const GIVE_UP: Duration = Duration::from_millis(1500);
/// How long a tenure may last, as far as they know: a store that went back is believed only after that.
const TENURE: Duration = Duration::from_secs(4);

/// Members of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Members {
    All,
    /// The one that leads first. A asks it first.
    Leader,
    /// The others.
    Followers,
    /// The one that is asked first by someone.
    Of(Who),
}

/// Those who ask: two that write and know of the keys what they have read, and one that watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    A,
    B,
    Watcher,
}

/// A store, and what a script can do to it.
trait Store {
    /// An order of core's, and what came of it within a time.
    async fn order(&mut self, who: Who, action: StoreAction, limit: Duration) -> Outcome<StoreDone>;
    /// Time passes.
    async fn pass(&mut self, time: Duration);
    /// How much of it has passed since some instant.
    fn now(&self) -> Duration;
    /// What the watch has told since it was last asked.
    async fn watched(&mut self) -> Vec<ClusterView>;
    /// An operator deletes a key: `leader` or `matriarch`.
    async fn delete(&mut self, key: &str);
    /// He deletes all of them.
    async fn delete_all(&mut self);
    /// He revokes the lease of the leader key.
    async fn revoke_tenure(&mut self);
    /// SIGSTOP to members.
    async fn freeze(&mut self, which: Members);
    /// SIGCONT to them.
    async fn thaw(&mut self);
    /// SIGKILL.
    async fn kill(&mut self, which: Members);
    /// Those that were killed are started again, and answer.
    async fn start_again(&mut self);
    /// A backup of it is taken.
    async fn backup(&mut self);
    /// It is stopped, restored from the backup, and started again under its old identity.
    async fn restore(&mut self);
}

/// Runs a script on both; what it observed.
macro_rules! on_both {
    ($script:path, $members:expr) => {{
        let mut script = Script::new(ModelStore::new($members));
        $script(&mut script).await;
        let expected = script.told;
        let mut script = Script::new(Etcd::start($members).await);
        $script(&mut script).await;
        same("the real store", &script.told, &expected);
        script.told
    }};
}

#[tokio::test]
async fn keys_are_guarded_and_live_under_leases() {
    let seen = on_both!(scripts::keys, 1);
    told(&seen, "a takes the leader key: @");
    told(&seen, "b takes it too: Conflict");
    told(&seen, "a publishes another and knows nothing of the first: Conflict");
    told(&seen, "a publishes another, and knows it by now: Written");
    told(&seen, "a puts its record under a lease that is gone, knowing the keys: LeaseGone");
}

#[tokio::test]
async fn leases_end_in_their_time() {
    let seen = on_both!(scripts::expiry, 1);
    told(&seen, "its end was not before its ttl: true");
    told(&seen, "a is too late to keep it: LeaseGone");
}

#[tokio::test]
async fn a_store_that_stood_still_has_lost_no_time() {
    let seen = on_both!(members::frozen, 1);
    told(&seen, "b reads in vain: unknown");
    told(&seen, "a keeps a lease whose time is over: LeaseGone");
}

#[tokio::test]
async fn what_was_asked_in_vain_is_done_when_the_quorum_is_back() {
    let seen = on_both!(members::late, 3);
    told(&seen, "a writes in vain: unknown");
    told(&seen, "it was written after all: true");
}

#[tokio::test]
async fn a_store_that_starts_again_gives_leases_their_time_again() {
    let seen = on_both!(members::restart, 1);
    told(&seen, "the key outlived the time of its lease: true");
}

#[tokio::test]
async fn a_store_that_elects_gives_leases_their_time_again() {
    let seen = on_both!(members::election, 3);
    told(&seen, "the key outlived the time of its lease: true");
}

#[tokio::test]
async fn a_record_is_written_anew_by_whom_it_is_of() {
    let seen = on_both!(tenures::reservations, 1);
    told(&seen, "a reserves a number: Written");
    told(&seen, "b reserves one of another tenure: Conflict");
    told(&seen, "a vouches for its record: Written");
}

#[tokio::test]
async fn a_tenure_is_ended_by_hand() {
    let seen = on_both!(tenures::by_hand, 1);
    told(&seen, "a renews by a lease that was revoked: LeaseGone");
    told(&seen, "a renews what was deleted: Conflict");
    told(&seen, "a's lease lives: SessionKept");
    told(&seen, "a takes the leader key again under the lease that it has: @");
}

#[tokio::test]
async fn a_store_of_three_goes_on_without_one_that_does_not_lead() {
    let seen = on_both!(members::follower_dies, 3);
    told(&seen, "b puts its record: Written");
}

#[tokio::test]
async fn a_store_whose_leader_dies_answers_when_another_leads() {
    let seen = on_both!(members::leader_dies, 3);
    told(&seen, "b reads in vain: unknown");
    told(&seen, "the key outlived the time of its lease: true");
}

#[tokio::test]
async fn a_leader_without_most_of_its_members_keeps_leases_and_steps_down() {
    let seen = on_both!(members::lonely, 3);
    told(&seen, "a writes in vain: unknown");
    told(&seen, "the key outlived the time of its lease: true");
}

#[tokio::test]
async fn a_restored_store_has_the_keys_and_leases_of_then_and_is_believed_after_a_tenure() {
    let seen = on_both!(restores::lost_future, 1);
    told(&seen, "a keeps a lease of the lost future: LeaseGone");
    told(&seen, "b keeps one that it revoked there: SessionKept");
    told(&seen, "b puts its record, which is there again: unknown");
    told(&seen, "A believed it not before a tenure was over: true");
    told(&seen, "the tenure of then ended not before its ttl from the start: true");
}

#[tokio::test]
async fn a_restored_store_of_three_is_as_one_is() {
    let seen = on_both!(restores::lost_future, 3);
    told(&seen, "a keeps a lease of the lost future: LeaseGone");
}

#[tokio::test]
async fn the_raft_term_of_a_restored_store_begins_anew() {
    let seen = on_both!(restores::elections, 1);
    told(&seen, "a renews, and an election is undone: unknown");
    told(&seen, "a renews, and believes it: Renewed");
    told(&seen, "a renews, and none is undone: Renewed");
}

#[tokio::test]
async fn a_restored_store_that_lost_nothing_is_as_it_was() {
    let seen = on_both!(restores::nothing, 1);
    told(&seen, "a renews, and nothing is undone: Renewed");
}
