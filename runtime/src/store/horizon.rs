//! How far the store has come, and what to make of an answer from before that.
//!
//! A linearizable answer never lies before one that was here when it was asked for. One that does, or that is of
//! another store, comes from a store that was restored from a backup or replaced: a member of it, or the whole. Whoever
//! leads in the lost future may not have noticed, and perhaps members live that still know of it. So nothing of that
//! past is believed before it was the only thing told for as long as a tenure lasts; after that it is the present,
//! since refusing it for ever would leave the cluster without a primary until every agent is started anew.
//!
//! The time counts only while that one past is really told. A store can be restored once more: to what lies before what
//! it told already, which shows, or during a silence, which does not. Others may have believed the first past and lead in
//! it, and be lost with it. So both begin the time anew.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_client::ResponseHeader;
use matriarch_core::id::StoreId;
use matriarch_core::time::Instant;

use super::member::Fault;

/// How long the past is not believed, unless it is told how long a tenure may last: longer than most do.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a store tells of itself with every answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Standing {
    store_id: StoreId,
    raft_term: u64,
    revision: i64,
}

impl Standing {
    fn is_before(self, floor: Self) -> bool {
        let other = floor.store_id != StoreId(0) && self.store_id != floor.store_id;
        other || (self.raft_term < floor.raft_term || self.revision < floor.revision)
    }

    fn raised_to(self, new: Self) -> Self {
        let (raft_term, revision) = (self.raft_term.max(new.raft_term), self.revision.max(new.revision));
        Self { raft_term, revision, ..new }
    }
}

impl From<&ResponseHeader> for Standing {
    fn from(head: &ResponseHeader) -> Self {
        Self { store_id: StoreId(head.cluster_id()), raft_term: head.raft_term(), revision: head.revision() }
    }
}

/// What was known of the store when a request was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Floor {
    /// The answer may not lie before this.
    standing: Standing,
    /// How far the past had come that is told and not believed. An answer from before this is of yet another past.
    past: Option<Standing>,
    /// How often the store had gone back by then.
    rollbacks: u64,
}

/// The floor, and since when only the past answers.
#[derive(Default)]
pub(super) struct Horizon(Mutex<State>);

#[derive(Default)]
struct State {
    floor: Floor,
    past: Option<Past>,
    /// The longest that a tenure may last, as far as was told.
    tenure_limit: Option<Duration>,
}

/// Every answer comes from before the floor.
struct Past {
    /// Since when this one past is told without a silence.
    since: Instant,
    /// When it was told last.
    heard: Instant,
    /// What is a silence. Half a tenure: an agent asks at least each third, mostly much more often, and no restore that
    /// takes so long passes unnoticed. Each silence doubles it, or a store that answers now and then would never be
    /// believed.
    silence_min: Duration,
    /// The hosts that gave these answers. With a few writes a restored store gets beyond the floor: that makes it no
    /// other one.
    hosts: BTreeSet<String>,
}

impl Past {
    fn new(now: Instant, patience: Duration) -> Self {
        Self { since: now, heard: now, silence_min: patience / 2, hosts: BTreeSet::new() }
    }

    /// It is told by `host`; `again`: the store was restored once more. Why the time begins anew, if it does.
    fn is_told(&mut self, host: &str, again: bool, now: Instant) -> Option<&'static str> {
        let silent = now.since(self.heard) > self.silence_min;
        if silent {
            self.silence_min = self.silence_min.saturating_mul(2);
        }
        if silent || again {
            self.since = now;
        }
        self.heard = now;
        self.hosts.insert(host.to_owned());
        match (again, silent) {
            (true, _) => Some("it went back once more"),
            (false, true) => Some("it was silent, and may have gone back once more"),
            (false, false) => None,
        }
    }
}

impl Horizon {
    /// The floor for a request that is sent now.
    pub(super) fn floor(&self) -> Floor {
        self.state().floor
    }

    /// The store that answered last, 0 if none did yet.
    pub(super) fn store_id(&self) -> StoreId {
        self.floor().standing.store_id
    }

    /// Tenures may last for so long. A longer one that was told of before may be in force yet.
    pub(super) fn allow_tenure(&self, ttl: Duration) {
        let mut state = self.state();
        state.tenure_limit = state.tenure_limit.max(Some(ttl));
    }

    /// Takes in what a linearizable answer of `host` told, to a request that was sent when `sent` was the floor; how often
    /// the store went back until then.
    ///
    /// The race: several requests are in flight when the first answer of the past is believed. The answers to the others
    /// are that same past; by what was known when they were sent they would be a new one, for which the time begins anew,
    /// and at its end a tenure that was won meanwhile would be over. They are measured by what is believed now.
    pub(super) fn admit(&self, sent: Floor, told: Standing, host: &str, now: Instant) -> Result<u64, Fault> {
        let mut state = self.state();
        let believed_since = sent.rollbacks < state.floor.rollbacks;
        let sent = if believed_since { state.floor } else { sent };
        let floor = sent.standing;
        let was = || {
            format!(
                "revision {} in raft term {}, was {} in {}",
                told.revision, told.raft_term, floor.revision, floor.raft_term
            )
        };
        if believed_since && told.is_before(floor) {
            return Err(Fault::Ambiguous(format!("{host}: behind: {}", was())));
        }
        if !told.is_before(floor) && !state.past.as_ref().is_some_and(|past| past.hosts.contains(host)) {
            state.floor.standing = state.floor.standing.raised_to(told);
            (state.past, state.floor.past) = (None, None);
            return Ok(state.floor.rollbacks);
        }
        let patience = state.tenure_limit.unwrap_or(PATIENCE);
        let again = sent.past.is_some_and(|past| told.is_before(past));
        state.floor.past = Some(state.floor.past.filter(|_| !again).map_or(told, |past| past.raised_to(told)));
        let past = state.past.get_or_insert_with(|| {
            let (was, seconds) = (was(), patience.as_secs_f32());
            tracing::warn!(
                host,
                "the store answers from the past ({was}): was it restored from a backup? If nothing else answers, it is \
                 believed in {seconds} s"
            );
            Past::new(now, patience)
        });
        if let Some(why) = past.is_told(host, again, now) {
            tracing::warn!(host, "the time until the store is believed begins anew: {why}");
        }
        if now.since(past.since) < patience {
            return Err(Fault::Ambiguous(format!("{host}: behind: {}", was())));
        }
        tracing::warn!(host, revision = told.revision, "the store went back, and is believed from here on");
        state.floor = Floor { standing: told, past: None, rollbacks: state.floor.rollbacks + 1 };
        state.past = None;
        Ok(state.floor.rollbacks)
    }

    /// A watch that tells this may go on: it is not of an earlier raft term. Its revision may lag.
    pub(super) fn is_current(&self, told: Standing) -> bool {
        let floor = self.floor().standing;
        floor.store_id == StoreId(0) || (told.store_id == floor.store_id && told.raft_term >= floor.raft_term)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(store_id: u64, raft_term: u64, revision: i64) -> Standing {
        Standing { store_id: StoreId(store_id), raft_term, revision }
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn ask(horizon: &Horizon, seconds: u64, answer: Standing) -> Option<u64> {
        horizon.admit(horizon.floor(), answer, "e1", at(seconds)).ok()
    }

    /// Every ten seconds in between the same is told, and not believed.
    fn tells(horizon: &Horizon, seconds: std::ops::Range<u64>, answer: Standing) {
        for seconds in seconds.step_by(10) {
            assert_eq!(ask(horizon, seconds, answer), None, "{seconds}");
        }
    }

    /// Tenures last for 30 seconds, and the store has told how far it is.
    fn informed() -> Horizon {
        let horizon = Horizon::default();
        horizon.allow_tenure(Duration::from_secs(30));
        assert_eq!(ask(&horizon, 0, told(1, 4, 100)), Some(0));
        horizon
    }

    #[test]
    fn the_past_is_believed_when_it_was_all_that_answered_for_as_long_as_a_tenure() {
        let horizon = informed();
        horizon.allow_tenure(Duration::from_secs(3));
        for past in [told(1, 4, 99), told(1, 3, 200)] {
            assert_eq!(ask(&horizon, 1, past), None);
            assert_eq!(horizon.is_current(past), past.raft_term == 4, "a watch may lag in revisions");
        }
        tells(&horizon, 1..31, told(1, 4, 99));
        // A member that knows of the present answers: the other one is wrong, and the time begins anew.
        assert_eq!(horizon.admit(horizon.floor(), told(1, 4, 101), "e2", at(30)).ok(), Some(0));
        tells(&horizon, 59..89, told(1, 2, 50));
        assert_eq!(ask(&horizon, 88, told(1, 2, 50)), None);
        assert_eq!(ask(&horizon, 89, told(1, 2, 50)), Some(1));
        assert_eq!(ask(&horizon, 89, told(1, 2, 51)), Some(1));
        assert!(horizon.is_current(told(1, 2, 51)));
    }

    #[test]
    fn a_silence_of_half_a_tenure_begins_the_time_anew() {
        let horizon = informed();
        let past = told(1, 2, 50);
        for seconds in [1, 16] {
            assert_eq!(ask(&horizon, seconds, past), None);
        }
        assert_eq!(
            ask(&horizon, 32, past),
            None,
            "16 seconds: others may have led in that past, and been lost with it"
        );
        tells(&horizon, 33..62, past);
        assert_eq!(ask(&horizon, 62, past), Some(1));
    }

    #[test]
    fn a_store_that_answers_now_and_then_is_believed_all_the_same() {
        let horizon = informed();
        let past = told(1, 2, 50);
        for seconds in [100, 150, 200] {
            assert_eq!(ask(&horizon, seconds, past), None, "silent for longer than 15 and 30 seconds: {seconds}");
        }
        assert_eq!(ask(&horizon, 250, past), Some(1));
    }

    #[test]
    fn a_store_that_is_restored_once_more_begins_the_time_anew() {
        let horizon = informed();
        tells(&horizon, 1..31, told(1, 2, 50));
        assert_eq!(ask(&horizon, 30, told(1, 2, 40)), None, "another past, in which nobody knows of the first one");
        tells(&horizon, 31..60, told(1, 2, 45));
        assert_eq!(ask(&horizon, 60, told(1, 2, 45)), Some(1));
    }

    #[test]
    fn answers_of_one_past_that_overtake_each_other_are_no_other_past() {
        let horizon = informed();
        tells(&horizon, 1..21, told(1, 2, 50));
        let asked = horizon.floor();
        assert_eq!(ask(&horizon, 25, told(1, 2, 52)), None);
        assert_eq!(horizon.admit(asked, told(1, 2, 51), "e1", at(25)).ok(), None);
        assert_eq!(ask(&horizon, 31, told(1, 2, 52)), Some(1));
    }

    #[test]
    fn answers_that_overtake_each_other_are_no_past() {
        let horizon = Horizon::default();
        let asked = horizon.floor();
        assert_eq!(ask(&horizon, 0, told(1, 4, 100)), Some(0));
        assert_eq!(horizon.admit(asked, told(1, 4, 90), "e1", at(0)).ok(), Some(0));
        assert_eq!(ask(&horizon, 0, told(1, 4, 99)), None, "the floor did not sink");
    }

    #[test]
    fn what_was_asked_before_the_past_was_believed_begins_no_time_anew() {
        let horizon = informed();
        tells(&horizon, 1..31, told(1, 2, 50));
        let sent = horizon.floor();
        assert_eq!(ask(&horizon, 31, told(1, 2, 60)), Some(1));
        assert_eq!(horizon.admit(sent, told(1, 2, 61), "e1", at(32)).ok(), Some(1));
        assert_eq!(horizon.admit(sent, told(1, 2, 59), "e1", at(32)).ok(), None, "older than what is believed");
        assert_eq!(ask(&horizon, 33, told(1, 2, 62)), Some(1), "and nothing is begun by that either");
        assert_eq!(
            horizon.admit(sent, told(1, 5, 101), "e2", at(34)).ok(),
            Some(1),
            "a member that knows of the future"
        );
        assert_eq!(ask(&horizon, 35, told(1, 2, 63)), None);
    }

    #[test]
    fn another_store_is_the_past_and_one_that_passes_the_floor_stays_it() {
        let horizon = Horizon::default();
        horizon.allow_tenure(Duration::from_secs(30));
        assert_eq!(ask(&horizon, 0, told(1, 2, 100)), Some(0));
        tells(&horizon, 1..31, told(2, 2, 300));
        assert!(!horizon.is_current(told(2, 2, 300)));
        assert_eq!(ask(&horizon, 31, told(2, 2, 301)), Some(1));
        assert_eq!(ask(&horizon, 40, told(2, 2, 290)), None, "restored, with the raft term that it had");
        assert_eq!(ask(&horizon, 41, told(2, 2, 310)), None, "and written to since");
        tells(&horizon, 50..70, told(2, 2, 310));
        assert_eq!(ask(&horizon, 70, told(2, 2, 320)), Some(2));
    }
}
