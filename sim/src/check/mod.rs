//! What must hold, and when it is looked at: one file for each invariant, by its id in `docs/invariants.md`, each with a
//! bad history that somebody made by hand and that must fire it, and a legal one that only looks bad and must not.

mod l01_serves;
mod l02_follows;
mod l04_ends;
mod l05_calm;
mod l06_needless;
mod l08_silent_watches;
mod l09_resumed;
mod l10_outages;
mod l11_gives_up;
mod m02_alive;
mod m03_settled;
mod m04_pledge;
mod m05_of_that_leader;
mod m06_observes;
mod m07_foreign_data;
mod s02_bounded_loss;
mod s03_no_phantom;
mod s05_single_writer;
mod s06_belief;
mod s07_silent_in_time;
mod s08_writes_under_a_key;
mod s09_key_on_a_lease;
mod s12_eligible;
mod s13_timelines;
mod s14_history_grows;
mod s15_prefix;
mod s16_nothing_destroyed;
mod s17_last_copy;
mod s18_one_birth;
mod s19_pause;
mod s20_lossless_switchover;
mod s22_slots;
mod s24_stale_authority;
mod s25_views_go_forward;
mod s26_one_order_a_lane;
mod s27_one_primary;
mod s28_stable;
mod s30_standing_fence;
mod s31_isolated;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet};

use matriarch_core::action::{Action, StoreAction};
use matriarch_core::effects::{Effects, Order};
use matriarch_core::id::{LeaseId, Lsn, RequestId, Revision, SystemId, Timeline};
use matriarch_core::reason::Reason;
use matriarch_core::time::Instant;
use matriarch_core::view::store::Initialize;

use crate::node::NodeId;
use crate::postgres::wal::Place;
use crate::run::CRASH;
use crate::store::{Change, Gone};
use crate::time::Time;
use crate::world::World;

pub use l01_serves::Outage;
pub use l06_needless::Errands;
pub use l09_resumed::Resumed;
pub use m05_of_that_leader::Found;
pub(crate) use s06_belief::gives_back;
pub use s12_eligible::Told;
use s16_nothing_destroyed::Elected;
pub use s16_nothing_destroyed::Tool;
pub use s19_pause::Pauses;
pub(crate) use s24_stale_authority::without_authority;
pub use s26_one_order_a_lane::Lanes;
pub use s31_isolated::Isolation;

/// Every invariant that is looked at, and what a failed assertion is told as.
pub const INVARIANTS: [&str; 40] = [
    "S2", "S3", "S5", "S6", "S7", "S8", "S9", "S12", "S13", "S14", "S15", "S16", "S17", "S18", "S19", "S20", "S22",
    "S24", "S25", "S26", "S27", "S28", "S30", "S31", "M2", "M3", "M4", "M5", "M6", "M7", "L1", "L2", "L4", "L5", "L6",
    "L8", "L9", "L10", "L11", CRASH,
];

/// An invariant did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// When.
    pub at: Time,
    /// What was seen.
    pub what: String,
}

/// The most nodes that a world has.
pub const NODES_MAX: usize = 7;

/// What the checkers remember.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// How often each node concluded something else in the last minute.
    pub calm_decisions: [u32; NODES_MAX],
    /// When a stop last began, or ceased, to wait for a session that takes no notice.
    pub waited_for_session: Option<Time>,
    /// When a fault last struck each node, or ended there.
    pub quiet_since: [Time; NODES_MAX],
    /// Since when its server answers that was started last, if it does.
    pub ready_since: [Time; NODES_MAX],
    /// Faults that go on, and where.
    pub struck: BTreeMap<usize, NodeId>,
    /// Nodes whose watches tell nothing.
    pub silent: [bool; NODES_MAX],
    /// When the network was slow last.
    pub slow_at: Option<Time>,
    /// Nodes that nobody answers.
    isolated: [Option<Isolation>; NODES_MAX],
    /// The node that did not heal with the others.
    pub left_out: Option<NodeId>,
    /// Since when a server runs as primary because an operator made it one behind its agent's back.
    pub by_hand: [Option<Time>; NODES_MAX],
    /// It has held the leader key since, under a guard that was armed for it: it is judged like any other.
    pub taken_up: [bool; NODES_MAX],
    /// When an operator last stopped its server behind its agent's back.
    pub stopped_by_hand: [Option<Time>; NODES_MAX],
    /// When an operator last started its server behind its agent's back.
    pub started_by_hand: [Option<Time>; NODES_MAX],
    /// When a guard last stopped a server whose agent was away.
    pub wound_down: [Option<Time>; NODES_MAX],
    /// What each agent has found out of leaders.
    found: [Found; NODES_MAX],
    /// The pause that ended last, until it was seen what came of its end.
    resumed: Option<Resumed>,
    /// Where branches begin that an operator began by hand.
    pub hand_made: Vec<Place>,
    /// What each standby has pledged, and told somebody of.
    pledged: [Option<Revision>; NODES_MAX],
    /// When the agent was started that has told so, and how often the store had gone back for it.
    pledged_in: [(Time, u64); NODES_MAX],
    /// `create_revision` of the leader key that was taken last, in the store as it is.
    led_since: Revision,
    /// Leases that ended before their time, and when.
    early: BTreeMap<LeaseId, Time>,
    /// The lease that each agent was last told to be lost.
    refused: [Option<LeaseId>; NODES_MAX],
    /// What each agent was truly told by the others.
    told: [BTreeMap<NodeId, Told>; NODES_MAX],
    /// Since when there is no leader key.
    leaderless: Option<Time>,
    /// Who took the leader key last.
    last_leader: Option<NodeId>,
    /// Whose key went last: a restored store brings keys back that nobody takes.
    last_holder: Option<NodeId>,
    /// Who had it before, and may write on: nobody could tell him, and he could tell nobody.
    overtaken_unheard: Option<NodeId>,
    /// What it held when it was elected.
    elected: Option<Elected>,
    /// The lease of the leader key that each node took last.
    last_lease: [Option<LeaseId>; NODES_MAX],
    /// When each node decided to release its key to somebody, if that was its last release.
    hands_over: [Option<Time>; NODES_MAX],
    /// What a leader that handed over had, and when it decided to, until another serves.
    handed_over: Option<(Time, Place)>,
    /// Whoever took the leader key last was named by the operator while nobody led.
    by_word: bool,
    /// What operators have changed `maximum_lag_on_failover` to, and when.
    lag_limits: Vec<(Time, u64)>,
    /// The configuration that said so is gone.
    limit_lost: bool,
    /// What a leader last published of its position.
    published: Option<Place>,
    /// `status` is gone, and no leader has published anything since.
    pub status_lost: bool,
    /// The last position that each agent has seen in `status`, by its boot.
    told_status: [(u32, Lsn); NODES_MAX],
    /// `history` is gone, and no leader has published anything since: nobody can know which branch that was on.
    branches_untold: bool,
    /// When the store lost a tenure of which not all had heard: whoever had not may begin another beside it.
    pub unaware: Option<Time>,
    /// When the store was restored from a backup last.
    restored: Option<Time>,
    /// The system identifier of the cluster.
    system: Option<SystemId>,
    /// The system identifier that each agent was told last, by its boot.
    told_system: [(u32, Option<SystemId>); NODES_MAX],
    /// The right to initialise, or that it was used.
    initialize: Option<Initialize>,
    /// The newest revision that each agent has decided on, by its boot.
    revisions: [(u32, u64, Revision); NODES_MAX],
    /// The revision of `history` that was looked at last.
    history: Revision,
    /// Where the timelines began.
    begun: BTreeMap<Timeline, Place>,
    /// The same, of those whose numbers were reserved in a record that is lost.
    forgotten: BTreeMap<Timeline, Place>,
    /// Where branches begin under a number that was forgotten so.
    reused: Vec<Place>,
    /// When the members' records were last deleted.
    pub keys_gone: Option<Time>,
    /// Where a leader ended that stopped cleanly and released its key.
    released: Option<Place>,
    /// Since when a primary has no guard, beside an agent that is awake.
    guardless: [Option<Time>; NODES_MAX],
    /// Promotions that were under way when what was reserved for them was lost.
    unreserved: BTreeSet<NodeId>,
    /// Requests of operators that are not answered yet, by node, agent and number, and when they were made.
    asked: BTreeMap<(NodeId, u32, RequestId), Time>,
    /// What operators have paused, and what agents have seen of that.
    pub pauses: Pauses,
    /// Who served when, and for how long nobody did.
    outage: Outage,
    /// When a fault struck last, or ended, or an outage did.
    unrest: Option<Time>,
    /// The fault that struck alone: its kind, when, and how long nobody may serve for it.
    lone: Option<(&'static str, Time, std::time::Duration)>,
    /// What operators have asked for that stops a leader.
    errands: Errands,
    /// The leader key whose holder does not serve, and since when.
    idle: Option<(Revision, Time)>,
    /// When each agent last was the leader, for whoever remembers it.
    led: [Option<Time>; NODES_MAX],
    /// How often the leader key was taken.
    pub taken: u64,
    /// What each agent has under way.
    lanes: [Lanes; NODES_MAX],
    /// Orders that core gave since the world was calm.
    calm_orders: u64,
    /// Orders of each kind, by node, in the second that began then.
    busy: [(Time, BTreeMap<&'static str, u32>); NODES_MAX],
}

impl Checks {
    /// A fault strikes a node, or all of them, or ends there.
    pub fn disturbed(&mut self, node: Option<NodeId>, now: Time) {
        match node {
            Some(node) => self.quiet_since[node.0] = now,
            None => self.quiet_since = [now; NODES_MAX],
        }
    }

    /// What was published is not there any more: nobody can go by it.
    pub fn forget_published(&mut self) {
        self.published = None;
    }

    /// The store went back: what was published, pledged and given away since then never happened.
    pub fn restored(&mut self, now: Time) {
        (self.restored, self.published) = (Some(now), None);
        (self.handed_over, self.released) = (None, None);
        (self.pledged, self.led_since) = ([None; NODES_MAX], Revision(0));
        self.disturbed(None, now);
    }

    /// How long nobody served, by time since the faults ended.
    pub fn outage(&self) -> &Outage {
        &self.outage
    }
}

impl World {
    /// After everything that happens.
    pub fn check_after_event(&mut self) {
        self.note_taken_up();
        self.check_writers();
        self.check_isolated();
        self.check_fences();
        self.check_keys_of_writers();
        self.note_service();
        self.check_resumed();
        self.check_gives_up();
    }

    /// When all is over.
    pub fn check_at_the_end(&mut self) {
        self.check_service();
        self.check_members();
        self.check_slots();
        self.check_ends();
        self.check_rows();
        self.check_calm();
    }

    /// After a step of core.
    pub fn check_step(&mut self, node: NodeId, at: Instant, effects: &Effects) {
        self.count_orders(node, effects);
        self.check_belief(node, at);
        self.check_health(node);
        self.check_revision(node);
        self.check_lanes(node, at, effects);
        self.check_repetition(node, at, effects);
        self.check_let_go(node);
    }

    /// An order is about to be carried out.
    pub fn check_order(&mut self, node: NodeId, order: &Order) {
        self.check_paused_order(node, order);
        self.check_left_alone(node, order);
        self.check_hold(node, order);
        self.check_observer(node, order);
        self.check_foreign(node, order);
        self.check_last_copy(node, order);
        self.check_beside_living(node, order);
        self.check_settled(node, order);
        self.check_found(node, order);
        match &order.action {
            Action::Store(StoreAction::Release { .. }) => {
                let to = if let Reason::HandingOver { to } = &order.because { Some(to) } else { None };
                self.checks.hands_over[node.0] = to.map(|_| self.now);
                if let Some(to) = to.and_then(|to| self.named(to)) {
                    self.check_vouched(node, to);
                }
            }
            Action::Store(StoreAction::Acquire(_)) if matches!(order.because, Reason::Campaigning { .. }) => {
                self.check_campaign(node);
            }
            _ => {}
        }
    }

    /// The leader key was taken, or went.
    pub fn check_store_change(&mut self, change: &Change) {
        let now = self.now;
        match change {
            Change::Taken(leader) => {
                self.checks.taken += 1;
                self.coverage.count("leader key taken");
                let who = leader.member.clone();
                self.trace.world(now, 'L', || format!("{who} takes the leader key, lease {}", leader.lease));
                self.check_key(leader);
                self.check_winner(leader);
                self.end_pledges(leader.created);
                if let Some(holder) = self.named(&leader.member) {
                    self.note_overtaken(holder);
                    self.note_taken_by_hand(holder);
                    self.accept_loss_by_hand(holder);
                    self.checks.last_lease[holder.0] = Some(leader.lease);
                    self.checks.pauses.taken = now;
                }
                self.checks.leaderless = None;
                let taker = self.named(&leader.member);
                if self.checks.last_leader.is_some_and(|last| Some(last) != taker) {
                    self.coverage.count("leader key taken after another");
                }
                self.note_elected(taker);
                self.checks.last_leader = taker;
            }
            Change::Gone(leader, how, by) => {
                let who = leader.member.clone();
                self.trace.world(now, 'L', || format!("the leader key of {who} is gone: {how:?}"));
                self.coverage.count(match how {
                    Gone::Expired => "key expired",
                    Gone::Early => "key lost early",
                    Gone::Released => "key released",
                    Gone::Revoked => "key revoked",
                });
                self.checks.leaderless = Some(now);
                self.checks.last_holder = self.named(&leader.member);
                self.check_deletion(leader, *how, by.as_ref());
                self.check_key_stays(&leader.member, *how);
                if let Some(holder) = self.named(&leader.member) {
                    self.check_holder(holder, leader.lease, *how);
                    self.note_handover(holder, *how);
                }
            }
        }
    }

    /// The keys have changed, whichever of them.
    pub fn check_keys(&mut self) {
        self.note_lag_limit_back();
        self.check_birth();
        self.check_history();
    }

    /// The node of a name.
    fn named(&self, name: &matriarch_core::id::Member) -> Option<NodeId> {
        self.names.iter().position(|known| known == name).map(NodeId)
    }

    /// A node that nothing has happened to for a while.
    pub fn is_quiet(&self, node: NodeId, for_ms: u64) -> bool {
        self.now.since(self.checks.quiet_since[node.0]) >= crate::time::ms(for_ms)
    }

    /// The network is not slow, and nothing is under way that was sent when it was.
    fn was_prompt(&self) -> bool {
        let long_ago = |slow| self.now.since(slow) > crate::time::ms(15_000);
        self.net.slowness == 1 && self.net.loss_percent == 0 && self.checks.slow_at.is_none_or(long_ago)
    }
}
