//! M4, a pledge is kept; L6, no needless fence; S5, single writer; S8, nobody writes without the leader key; S30, the standing fence; S31,
//! isolated writing has a bound.

use matriarch_core::id::{LeaseId, Revision};
use matriarch_core::reason::Reason;
use matriarch_core::view::View;

use crate::net::{End, Plane};
use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

impl World {
    /// S5: at no instant could two servers acknowledge a commit, whoever reaches them.
    pub(super) fn check_writers(&mut self) {
        let mut writers = self.nodes.iter().filter(|node| self.writes_by_rule(node.id));
        if let (Some(one), Some(other)) = (writers.next(), writers.next()) {
            let what = format!("{} and {} can both acknowledge commits", self.names[one.id.0], self.names[other.id.0]);
            self.violated("S5", what);
        }
    }

    /// A commit can be acknowledged there, and Matriarch answers for it: not in the moment that a guard needs to wake
    /// after a suspend, nor where an operator has just made a primary of a server by hand.
    pub(super) fn writes_by_rule(&self, node: NodeId) -> bool {
        self.nodes[node.0].server.can_acknowledge() && !self.is_waking(node) && !self.is_by_hand(node)
    }

    /// What an operator did by hand is the agent's to undo, as soon as it sees it, if it is there.
    fn is_by_hand(&self, node: NodeId) -> bool {
        let Some(since) = self.checks.by_hand[node.0] else { return false };
        let since = since.max(self.checks.quiet_since[node.0]);
        // An agent that was only just started looks for its tenure first.
        let booted = self.nodes[node.0].booted + ms(self.settings.retry_timeout_ms + 2000);
        self.nodes[node.0].awake().is_none() || self.now < booted || self.now.since(since) < ms(1000)
    }

    /// A server accepts writes from now on: S8, and what its coming means for what others hold.
    pub fn became_writable(&mut self, node: NodeId) {
        self.coverage.count("serves");
        if self.checks.by_hand[node.0].is_some() || self.is_waking(node) {
            return;
        }
        let holds = self.store.keys().leader.as_ref().is_some_and(|leader| leader.member == self.names[node.0]);
        // A key that went early, and a held postmaster that could not be reached: within the time in which its holder
        // may take it back, it is nobody's.
        let lost_early = !self.checks.early.is_empty();
        if !holds && !lost_early {
            let what = format!("{} accepts writes and does not hold the leader key", self.names[node.0]);
            self.violated("S8", what);
        }
        self.check_loss(node);
    }

    /// S31: a primary that hears nobody acknowledges nothing that its isolation would lose, but for `isolation_timeout`
    /// and what it takes to hold: if another could take over, and if its agent lives to see it.
    pub(super) fn check_isolated(&mut self) {
        for index in 0..self.nodes.len() {
            let Some(since) = self.checks.isolated[index] else { continue };
            let limit = ms(self.settings.isolation_timeout_ms + 600);
            let node = &self.nodes[index];
            let alone = self.now.since(since) > limit && self.now.since(self.checks.quiet_since[index]) > limit;
            let Some(agent) = node.agent.as_ref().filter(|agent| alone && !agent.frozen) else { continue };
            let view = View { at: node.clock.read(self.now), state: &agent.state };
            let heirs = !view.electable_others().is_empty() && self.was_prompt();
            // Backends without a postmaster cannot be held by core's order: the guard kills them instead.
            if heirs && self.writes_by_rule(node.id) && node.server.orphans.is_none() {
                let what = format!("{} hears nobody since {since} and acknowledges commits", self.names[index]);
                self.violated("S31", what);
                return;
            }
        }
    }

    /// The network is not slow, and nothing is under way that was sent when it was.
    fn was_prompt(&self) -> bool {
        self.net.slowness == 1 && self.checks.slow_at.is_none_or(|slow| self.now.since(slow) > ms(15_000))
    }

    /// A standby has told its position, and that it is pledged.
    pub fn note_pledge(&mut self, node: NodeId, pledge: Option<Revision>) {
        if pledge.is_some() {
            self.checks.pledged[node.0] = pledge;
        }
    }

    /// M4: what a pledged standby has told is all that it will have, until there is a newer leader or its pledge is over.
    pub fn check_pledge(&mut self, node: NodeId) {
        let Some(told) = self.checks.pledged[node.0] else { return };
        let newer = self.store.keys().leader.as_ref().is_some_and(|leader| leader.created > told);
        let over = self.nodes[node.0].agent.as_ref().is_none_or(|agent| agent.state.pledge.is_none());
        if newer || over {
            self.checks.pledged[node.0] = None;
        } else {
            self.violated("M4", format!("{} has pledged at {told} and receives WAL", self.names[node.0]));
        }
    }

    /// L6: PostgreSQL is not killed for a key that is there. A key that was heard to be gone is gone; an agent that looks
    /// for its tenure finds it, if the store answers.
    pub fn check_fire(&mut self, node: NodeId, because: &Reason) {
        let key = self.store.keys().leader.as_ref();
        let Some(key) = key.filter(|key| key.member == self.names[node.0]) else { return };
        // It was gone, and a store that went back once more has brought it back.
        if let (Reason::KeyNotRegained { after_ms }, Some(at)) = (because, self.checks.restored)
            && self.now.since(at) < ms(*after_ms)
        {
            return;
        }
        let alive = self.store.lease_until(key.lease).is_some_and(|until| until.since(self.now) > ms(1000));
        let needless = match because {
            Reason::KeyVanished { .. } | Reason::KeyNotRegained { .. } | Reason::LeaderIsOther { .. } => true,
            Reason::NoTenure => self.hears_the_store(node),
            _ => false,
        };
        let armed = self.nodes[node.0].guard.as_ref().and_then(|guard| guard.armed);
        let fits = armed.is_some_and(|armed| armed.tenure == key.lease);
        if alive && needless && fits && self.nodes[node.0].server.is_primary() {
            let what = format!("{} is fenced ({}) and its key is there", self.names[node.0], because.code());
            self.violated("L6", what);
        }
    }

    /// The store has answered the node for a while, at once. One that takes its time is no key that is there.
    fn hears_the_store(&self, node: NodeId) -> bool {
        let (here, members) = (End::Node(node), 0..self.members.len());
        let whole = members.map(End::Store).all(|store| {
            !self.net.is_cut((Plane::Store, here, store)) && !self.net.is_cut((Plane::Store, store, here))
        });
        let quiet = self.is_quiet(node, self.settings.retry_timeout_ms + 2000);
        whole && quiet && self.was_prompt() && self.store_leader.is_some()
    }

    /// S30: whoever can acknowledge has a fence that falls before its lease can end. A guard that was killed is the
    /// agent's to replace within a second, or to do without PostgreSQL.
    pub(super) fn check_fences(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let Some(guard) = &node.guard else { continue };
            if !self.writes_by_rule(node.id) || guard.firing {
                continue;
            }
            let Some(armed) = guard.armed else {
                // Backends of a dead postmaster are killed before anything else; nothing can be armed for them.
                let recent = self.now.since(self.checks.quiet_since[index]) < ms(2000);
                if node.server.orphans.is_none() && !recent {
                    let what = format!("{} accepts writes and nothing is armed", self.names[index]);
                    self.violated("S30", what);
                    return;
                }
                continue;
            };
            if armed.tenure == LeaseId(0) || self.checks.early.contains_key(&armed.tenure) {
                continue;
            }
            let falls = node.clock.when(armed.at);
            let until = self.store.lease_until(armed.tenure);
            if until.is_some_and(|until| falls > until) {
                let what = format!(
                    "the fence of {} falls at {falls}, its lease may end at {}",
                    self.names[index],
                    until.unwrap_or_default()
                );
                self.violated("S30", what);
                return;
            }
        }
    }
}
