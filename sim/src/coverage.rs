//! What has been seen to happen: a run in which nothing did is no evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use matriarch_core::action::{Action, Answer, GuardAction, HostAction, PeerAction, PostgresAction, StoreAction};
use matriarch_core::decide::LADDER;
use matriarch_core::effects::{Decision, Order};
use matriarch_core::op::Outcome;
use matriarch_core::reason::Reason;
use matriarch_core::view::postgres::StartAs;

use crate::fault;

/// Of that what each swarm must have seen, however few its seeds, beside acknowledged commits.
pub const BASIC: [&str; 4] =
    ["leader key taken after another", "rewind", "commit without answer", "store request without answer"];

/// What a swarm that proves something has seen.
pub const EVIDENCE: [&str; 15] = [
    "clone",
    "commit without answer",
    "failover with loss",
    "fence",
    "handed over",
    "hold",
    "key expired",
    "leader key taken after another",
    "left out of the network",
    "left out of the store",
    "left out without power",
    "rewind",
    "store request without answer",
    "struck at an effect",
    "struck at an end",
];

/// What can come of an operation.
const OUTCOMES: [&str; 3] = ["done", "refused", "unknown"];

const SCRIPTS: &str = "simulated operators have no scripts of their own";
const PATRONI: &str = "no Patroni went before a simulated agent";
const ANSWERS: &str = "a simulated server that answers does it; of one that does not nothing is known";
const UNGUARDED: &str = "nothing guards it";
const HEARD: &str = "the simulated executor hears how every job ends, or is dead";
const PEERS: &str = "a peer that cannot answer gives no answer";
const FILES: &str = "a file is written, or nobody knows";
const BIRTH: &str = "the store fails, or another is faster, in the second in which a cluster is born";
const KEYS: &str = "`initialize` is deleted while whoever has the data is away, and one that has none is there";
const OPERATOR: &str = "another writes the key that an operator wants written, or removed, in the same moment";
const ASKED: &str = "a question is answered, or is not";
const LOOKED: &str = "a look finds the directory, or finds that it cannot be read";
const STANDS: &str = "a simulated guard that is started comes up";
const ENDS: &str = "nobody hears what becomes of it";
const FALLING: &str = "the fence falls, or the guard dies, between an order to it and its report";

/// What so few seeds reach that a set of two thousand may miss it, and why so few. A long swarm sees it.
pub const RARE: &[(&str, &str)] = &[
    ("reason guard_silent", "an agent goes on between its guard's instant and the fence"),
    ("reason cannot_hold", FALLING),
    ("reason newer_branch", "a branch that began while its leader was away is found by whoever led before"),
    ("reason cluster_known", KEYS),
    ("reason cluster_published", KEYS),
    ("reason member_has_data", KEYS),
    (
        "reason unmanaged_upstream",
        "all keys are deleted, and a standby's agent starts before its primary's tells anything again",
    ),
    ("abandon_initialize refused", BIRTH),
    ("abandon_initialize unknown", BIRTH),
    ("race_initialize unknown", BIRTH),
    ("complete_initialize unknown", BIRTH),
    ("clear_failover refused", OPERATOR),
    ("put_failover refused", OPERATOR),
    ("create_slot unknown", "PostgreSQL goes down between the order and the slot"),
    ("drop_slot unknown", "PostgreSQL goes down between the order and the slot, of the few that are dropped"),
    ("put_status refused", "the leader key goes while what its holder tells is on its way"),
    ("vouch refused", "the cluster is paused, and the leader key changes in that moment"),
    ("vouch unknown", "the cluster is paused, and the store does not answer in that moment"),
    ("follow refused", "PostgreSQL goes down between the order and the reload"),
    ("restart unknown", "a server that is restarted does not come up within a minute"),
    ("hold refused", FALLING),
    ("hold unknown", FALLING),
    ("resume refused", FALLING),
    ("resume unknown", FALLING),
    ("disarm unknown", FALLING),
    ("fire unknown", FALLING),
    ("kill_orphans unknown", FALLING),
];
/// So many seeds must have seen what is rare.
pub const LONG_SWARM: u64 = 50_000;

/// What a swarm does not reach, and why.
pub const UNREACHABLE: &[(&str, &str)] = &[
    ("reason data_dir_vanishing", "simulated directories are removed in one moment"),
    ("reason ttl_too_short", "the store grants 2 s at least, and that is enough"),
    ("reason outgrown", "every simulated server has as much of everything"),
    ("reason promotion_vetoed", SCRIPTS),
    ("reason restoring", SCRIPTS),
    ("restore done", SCRIPTS),
    ("restore refused", SCRIPTS),
    ("restore unknown", SCRIPTS),
    ("reason slot_unusable", "no simulated slot loses its WAL or pins rows"),
    ("create_slot refused", ANSWERS),
    ("drop_slot refused", ANSWERS),
    ("advance_slot refused", ANSWERS),
    ("create_roles refused", ANSWERS),
    ("take_over done", PATRONI),
    ("take_over refused", PATRONI),
    ("take_over unknown", PATRONI),
    ("clone unknown", HEARD),
    ("configure unknown", HEARD),
    ("follow unknown", HEARD),
    ("freeze unknown", HEARD),
    ("initdb unknown", HEARD),
    ("promote unknown", HEARD),
    ("recover_single_user unknown", HEARD),
    ("rewind unknown", HEARD),
    ("stop unknown", HEARD),
    ("compare refused", "a comparison that fails has no answer"),
    ("configure refused", "the simulated server takes every configuration"),
    ("stop refused", "a stop ends when the server is gone"),
    ("grant_session refused", UNGUARDED),
    ("grant_tenure refused", UNGUARDED),
    ("read refused", UNGUARDED),
    ("revoke refused", "a lease that is gone is as good as revoked"),
    ("ask_position refused", PEERS),
    ("ask_status refused", PEERS),
    ("await_replay refused", PEERS),
    ("observe refused", ASKED),
    ("look unknown", LOOKED),
    ("start_guard refused", STANDS),
    ("start_guard unknown", STANDS),
    ("answer refused", ENDS),
    ("answer unknown", ENDS),
    ("exit refused", ENDS),
    ("exit unknown", ENDS),
    ("write_epoch refused", FILES),
    ("write_pledge refused", FILES),
];

/// Counts, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Coverage {
    /// Things that happened.
    pub events: BTreeMap<&'static str, u64>,
    /// Reasons that core gave for decisions, orders and waits, by code.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Rungs that concluded.
    pub rungs: BTreeMap<&'static str, u64>,
    /// For how many milliseconds nobody served, by the kind of the fault that alone brought it about.
    pub outages: BTreeMap<&'static str, Vec<u32>>,
    /// Faults that struck something, by their kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Orders.
    pub orders: BTreeMap<&'static str, u64>,
    /// Orders by what came of them.
    pub outcomes: BTreeMap<(&'static str, &'static str), u64>,
}

impl Coverage {
    /// Something happened.
    pub fn count(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }

    /// A fault struck something.
    pub fn struck(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// How often something happened.
    pub fn of(&self, what: &str) -> u64 {
        self.events.get(what).copied().unwrap_or(0)
    }

    /// Core decided.
    pub fn decided(&mut self, decision: &Decision) {
        self.reason(&decision.reason);
        *self.rungs.entry(decision.rung.name()).or_default() += 1;
    }

    /// Core gave a reason.
    pub fn reason(&mut self, reason: &Reason) {
        *self.reasons.entry(reason.code()).or_default() += 1;
    }

    /// Core ordered.
    pub fn ordered(&mut self, order: &Order) {
        *self.orders.entry(kind(&order.action)).or_default() += 1;
        self.reason(&order.because);
    }

    /// Nobody served for so long.
    pub fn outage(&mut self, kind: &'static str, lasted: Duration) {
        self.outages.entry(kind).or_default().push(lasted.as_millis() as u32);
    }

    /// An operation on the store ended for whoever ordered it.
    pub fn answered<T>(&mut self, action: &StoreAction, outcome: &Outcome<T>) {
        *self.outcomes.entry((store(action), told(outcome))).or_default() += 1;
    }

    /// An order to another agent, to the state directory or to the guard, or a look, ended: by its kind, and in what.
    pub fn came_to(&mut self, kind: &'static str, what: &'static str) {
        *self.outcomes.entry((kind, what)).or_default() += 1;
    }

    /// Work on PostgreSQL ended.
    pub fn ended<T>(&mut self, action: &PostgresAction, outcome: &Outcome<T>) {
        *self.outcomes.entry((postgres(action), told(outcome))).or_default() += 1;
    }

    /// Adds what another run has seen.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.events {
            *self.events.entry(name).or_default() += count;
        }
        for (name, count) in &other.reasons {
            *self.reasons.entry(name).or_default() += count;
        }
        for (name, count) in &other.rungs {
            *self.rungs.entry(name).or_default() += count;
        }
        for (kind, lasted) in &other.outages {
            self.outages.entry(kind).or_default().extend(lasted);
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (name, count) in &other.orders {
            *self.orders.entry(name).or_default() += count;
        }
        for (name, count) in &other.outcomes {
            *self.outcomes.entry(*name).or_default() += count;
        }
    }

    /// What was never seen although it must be, and what was seen although it is listed as out of reach: reasons, rungs,
    /// orders by what came of them, and every kind of fault. What is rare must be there only in a `long` swarm.
    pub fn surprises(&self, long: bool) -> Vec<String> {
        let known: Vec<String> = Reason::CODES
            .iter()
            .map(|code| format!("reason {code}"))
            .chain(LADDER.iter().map(|row| format!("rung {}", row.rung.name())))
            .chain(operations().flat_map(|order| OUTCOMES.map(|outcome| format!("{order} {outcome}"))))
            .chain(fault::KINDS.iter().map(|kind| format!("fault {kind}")))
            .collect();
        let seen = self.seen();
        let is_of = |list: &[(&str, &str)], what: &str| list.iter().any(|(listed, _)| *listed == what);
        let listed = |what: &str| is_of(UNREACHABLE, what) || (!long && is_of(RARE, what));
        let missing = known.iter().filter(|what| !seen.contains(*what) && !listed(what));
        let missing = missing.map(|what| format!("never seen: {what}"));
        let hit = UNREACHABLE.iter().filter(|(what, _)| seen.contains(*what));
        missing.chain(hit.map(|(what, _)| format!("listed as unreachable and seen: {what}"))).collect()
    }

    /// A thing of this name was seen: a "reason CODE", a "rung NAME", an order by what came of it ("promote refused"), a
    /// "fault KIND", or an event by its bare name ("hold").
    pub fn saw(&self, what: &str) -> bool {
        self.of(what) > 0 || self.seen().contains(what)
    }

    fn seen(&self) -> BTreeSet<String> {
        let reasons = self.reasons.keys().map(|code| format!("reason {code}"));
        let rungs = self.rungs.keys().map(|rung| format!("rung {rung}"));
        let outcomes = self.outcomes.keys().map(|(order, outcome)| format!("{order} {outcome}"));
        let faults = self.faults.keys().map(|kind| format!("fault {kind}"));
        reasons.chain(rungs).chain(outcomes).chain(faults).collect()
    }

    /// What must have happened in a swarm, and did not: without it the swarm proves nothing.
    pub fn lacks(&self, acknowledged: u64) -> Vec<&'static str> {
        let missing = EVIDENCE.iter().copied().filter(|what| self.of(what) == 0);
        missing.chain((acknowledged == 0).then_some("acknowledged commits")).collect()
    }
}

/// The name of an outcome.
pub fn told<T>(outcome: &Outcome<T>) -> &'static str {
    match outcome {
        Outcome::Done(_) => "done",
        Outcome::Refused(_) => "refused",
        Outcome::Unknown(_) => "unknown",
    }
}

/// The kinds of the orders of one sort: a name for each, and the list of all names from the same lines. There is no `_`: an
/// order that is new to core has to be named here, and is then one that a swarm must see.
macro_rules! kinds {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($of:ty), $list:ident { $($order:pat => $kind:literal;)+ }) => {
        $(#[$doc])*
        $vis fn $name(action: &$of) -> &'static str {
            match action { $($order => $kind,)+ }
        }

        const $list: &[&str] = &[$($kind),+];
    };
}

/// The orders, and with them all that can come of one.
fn operations() -> impl Iterator<Item = &'static str> {
    [STORE, POSTGRES, HOST, GUARD, PEER, ANSWER].into_iter().flatten().copied()
}

kinds! {
    /// The kind of an answer to whoever asked.
    fn answer(Answer), ANSWER {
        Answer::Text { .. } | Answer::Position(_) => "answer";
    }
}

/// The kind of an order.
pub fn kind(action: &Action) -> &'static str {
    match action {
        Action::Store(action) => store(action),
        Action::Postgres(action) => postgres(action),
        Action::Host(action) => host(action),
        Action::Guard(action) => guard(action),
        Action::Peer(action) => peer(action),
        Action::Answer(_, action) => answer(action),
    }
}

kinds! {
    /// The kind of an order about small files, the guard's process and the agent's end.
    fn host(HostAction), HOST {
        HostAction::WriteEpoch(_) => "write_epoch";
        HostAction::WritePledge(_) => "write_pledge";
        HostAction::StartGuard => "start_guard";
        HostAction::Exit { .. } => "exit";
    }
}

kinds! {
    /// The kind of a question to another agent.
    pub fn peer(PeerAction), PEER {
        PeerAction::AskPosition { .. } => "ask_position";
        PeerAction::AskStatus { .. } => "ask_status";
        PeerAction::AwaitReplay { .. } => "await_replay";
    }
}

kinds! {
    /// The kind of an order to the guard.
    pub fn guard(GuardAction), GUARD {
        GuardAction::Arm { .. } => "arm";
        GuardAction::Disarm => "disarm";
        GuardAction::Hold => "hold";
        GuardAction::Resume => "resume";
        GuardAction::Fire => "fire";
        GuardAction::KillOrphans => "kill_orphans";
    }
}

kinds! {
    /// The kind of an order on the store.
    fn store(StoreAction), STORE {
        StoreAction::Read => "read";
        StoreAction::GrantTenure { .. } => "grant_tenure";
        StoreAction::Acquire(_) => "acquire";
        StoreAction::TakeOver { .. } => "take_over";
        StoreAction::Renew { .. } => "renew";
        StoreAction::Release { .. } => "release";
        StoreAction::Revoke { .. } => "revoke";
        StoreAction::GrantSession { .. } => "grant_session";
        StoreAction::KeepSession { .. } => "keep_session";
        StoreAction::PutMember { .. } => "put_member";
        StoreAction::RaceInitialize { .. } => "race_initialize";
        StoreAction::CompleteInitialize { .. } => "complete_initialize";
        StoreAction::AbandonInitialize { .. } => "abandon_initialize";
        StoreAction::PutStatus { .. } => "put_status";
        StoreAction::Reserve { .. } => "reserve";
        StoreAction::Vouch { .. } => "vouch";
        StoreAction::PutHistory { .. } => "put_history";
        StoreAction::PutFailover { .. } => "put_failover";
        StoreAction::ClearFailover { .. } => "clear_failover";
    }
}

kinds! {
    /// The kind of an order about PostgreSQL.
    fn postgres(PostgresAction), POSTGRES {
        PostgresAction::Observe => "observe";
        PostgresAction::Look => "look";
        PostgresAction::Initdb => "initdb";
        PostgresAction::CreateRoles => "create_roles";
        PostgresAction::Clone(_) => "clone";
        PostgresAction::Start(StartAs::Primary) => "start_primary";
        PostgresAction::Start(StartAs::Standby(_)) => "start_standby";
        PostgresAction::Stop(_) => "stop";
        PostgresAction::Restart => "restart";
        PostgresAction::Promote { .. } => "promote";
        PostgresAction::Follow(_) => "follow";
        PostgresAction::Freeze => "freeze";
        PostgresAction::Checkpoint => "checkpoint";
        PostgresAction::Compare(_) => "compare";
        PostgresAction::RecoverSingleUser => "recover_single_user";
        PostgresAction::Rewind(_) => "rewind";
        PostgresAction::Configure { .. } => "configure";
        PostgresAction::CreateSlot(_) => "create_slot";
        PostgresAction::DropSlot(_) => "drop_slot";
        PostgresAction::AdvanceSlot { .. } => "advance_slot";
        PostgresAction::Restore => "restore";
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::id::RequestId;

    use super::*;

    #[test]
    fn a_swarm_in_which_too_little_happened_is_no_evidence() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.lacks(0).len(), EVIDENCE.len() + 1);
        for what in EVIDENCE {
            coverage.count(what);
        }
        assert_eq!(coverage.lacks(0), ["acknowledged commits"]);
        assert_eq!(coverage.lacks(1), [""; 0]);
        coverage.events.remove("rewind");
        assert_eq!(coverage.lacks(1), ["rewind"]);
    }

    #[test]
    fn every_order_is_expected_once() {
        let all: Vec<&str> = operations().collect();
        let distinct: BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!((all.len(), distinct.len()), (54, 54));
        let named = |what: &str| distinct.contains(what.split(' ').next().unwrap_or_default());
        let of_orders = |list: &[(&'static str, &'static str)]| {
            list.iter().map(|(what, _)| *what).filter(|what| !what.starts_with("reason ")).collect::<Vec<_>>()
        };
        for what in of_orders(UNREACHABLE).into_iter().chain(of_orders(RARE)) {
            assert!(named(what), "{what} is none that can be ordered");
        }
        assert_eq!(
            kind(&Action::Answer(RequestId::default(), Answer::Text { status: 200, body: String::new() })),
            "answer"
        );
    }

    #[test]
    fn what_was_seen_goes_by_its_name() {
        let mut coverage = Coverage::default();
        let names = ["hold", "reason following", "rung race", "promote refused", "fault pause"];
        assert_eq!(names.map(|name| coverage.saw(name)), [false; 5]);
        coverage.count("hold");
        coverage.reasons.insert("following", 1);
        coverage.rungs.insert("race", 1);
        coverage.came_to("promote", "refused");
        coverage.struck("pause");
        assert_eq!(names.map(|name| coverage.saw(name)), [true; 5]);
        let others = ["following", "reason race", "promote done", "promote", "pause", "hold refused"];
        assert_eq!(others.map(|name| coverage.saw(name)), [false; 6], "of another kind, or with another end");
    }

    #[test]
    fn what_is_missing_and_what_is_listed_and_seen_are_surprises() {
        let mut coverage = Coverage::default();
        for code in Reason::CODES {
            *coverage.reasons.entry(code).or_default() += 1;
        }
        coverage.rungs.extend(LADDER.iter().map(|row| (row.rung.name(), 1)));
        let pairs = operations().flat_map(|order| OUTCOMES.map(|outcome| (order, outcome)));
        coverage.outcomes.extend(pairs.map(|pair| (pair, 1)));
        for kind in fault::KINDS {
            coverage.struck(kind);
        }
        let listed = UNREACHABLE.len();
        assert_eq!(coverage.surprises(true).len(), listed, "all that is listed is seen");
        for (what, _) in UNREACHABLE {
            coverage.reasons.remove(what.trim_start_matches("reason "));
            coverage.outcomes.retain(|(order, outcome), _| format!("{order} {outcome}") != *what);
        }
        assert_eq!(coverage.surprises(true), [""; 0]);
        coverage.reasons.remove("following");
        coverage.rungs.remove("race");
        assert_eq!(coverage.surprises(true), ["never seen: reason following", "never seen: rung race"]);
        coverage.faults.remove("pause");
        assert_eq!(coverage.surprises(true).len(), 3, "a kind of fault that strikes nothing any more");
        coverage.struck("pause");
        coverage.outcomes.remove(&("hold", "refused"));
        assert_eq!((coverage.surprises(true).len(), coverage.surprises(false).len()), (3, 2), "it is rare");
    }
}
