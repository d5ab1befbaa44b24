//! S31: isolated writing has a bound. Who is isolated, and who could take over, is seen by the links, the members of the store
//! and the other nodes as they are, whatever fault made them so: core's own belief has no part in it.

use crate::net::{End, Plane};
use crate::node::NodeId;
use crate::time::{Time, ms};
use crate::world::World;

/// That nobody hears a node: since when, and who stood by then, as it knew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Isolation {
    /// Since when.
    since: Time,
    /// Those who stood by.
    heirs: Vec<NodeId>,
}

impl World {
    /// S31: a primary that hears nobody acknowledges nothing that its isolation would lose, but for `isolation_timeout`
    /// and what it takes to hold: if another could take over, and if its agent lives to see it.
    pub(super) fn check_isolated(&mut self) {
        for index in 0..self.nodes.len() {
            self.note_isolated(NodeId(index));
            let Some(isolation) = &self.checks.isolated[index] else { continue };
            let since = isolation.since;
            let limit = ms(self.settings.isolation_timeout_ms + 600);
            let node = &self.nodes[index];
            let alone = self.now.since(since) > limit && self.now.since(self.checks.quiet_since[index]) > limit;
            let Some(agent) = node.agent.as_ref().filter(|agent| alone && !agent.frozen) else { continue };
            // An agent that only observes holds nothing; the guard ends what it observes.
            let observes = agent.state.config.unsupported.is_some() || self.is_let_go(node.id);
            // Backends without a postmaster cannot be held by core's order: the guard kills them instead.
            let writes = !observes && self.writes_by_rule(node.id) && node.server.orphans.is_none();
            // An agent that was started meanwhile knows of nobody: the guard ends what it does not find the tenure of.
            let known = |heir: &&NodeId| node.booted <= since || self.was_told_of(node.id, **heir);
            let mut heirs = isolation.heirs.iter().filter(known);
            if writes && self.was_prompt() && heirs.any(|heir| self.may_take_over(*heir)) {
                let what = format!("{} hears nobody since {since} and acknowledges commits", self.names[index]);
                self.violated("S31", what);
                return;
            }
        }
    }

    fn note_isolated(&mut self, node: NodeId) {
        if !self.hears_nobody(node) {
            self.checks.isolated[node.0] = None;
        } else if self.checks.isolated[node.0].is_none() {
            let known = |heir: &NodeId| self.now.since(self.checks.ready_since[heir.0]) > self.news_take();
            // What it heard of the store last may tell of nobody: then it goes on, as a primary without standbys.
            let told = |heir: &NodeId| self.was_told_of(node, *heir);
            let others = (0..self.nodes.len()).map(NodeId).filter(|other| *other != node);
            let heirs = others.filter(|heir| self.stands_by(*heir).is_some() && known(heir) && told(heir)).collect();
            self.checks.isolated[node.0] = Some(Isolation { since: self.now, heirs });
        }
    }

    /// The keys as they reached this node's agent name that member, and how to ask it.
    fn was_told_of(&self, node: NodeId, heir: NodeId) -> bool {
        let agent = self.nodes[node.0].agent.as_ref();
        agent.is_some_and(|agent| agent.mirror.can_be_asked(&self.names[heir.0]))
    }

    /// How long it takes until everybody knows that a standby has come up: it publishes that, and others read it, once in
    /// `loop_wait` if no watch tells of it.
    fn news_take(&self) -> std::time::Duration {
        ms(2 * self.settings.loop_wait_ms + 2000)
    }

    /// Nobody answers it: no member of the store, no other agent, no standby that streams from it.
    fn hears_nobody(&self, node: NodeId) -> bool {
        let here = End::Node(node);
        let answers =
            |plane: Plane, end: End| !self.net.is_cut((plane, here, end)) && !self.net.is_cut((plane, end, here));
        let mut members = (0..self.members.len()).filter(|member| {
            let state = self.members[*member];
            state.up && !state.frozen
        });
        if members.any(|member| answers(Plane::Store, End::Store(member))) {
            return false;
        }
        let senders = self.nodes[node.0].server.postmaster.as_ref().map(|pm| &pm.senders);
        let mut others = (0..self.nodes.len()).map(NodeId).filter(|other| *other != node);
        !others.any(|other| {
            let (host, end) = (&self.nodes[other.0], End::Node(other));
            let streams = senders.is_some_and(|senders| senders.contains_key(&other));
            // It tells how far it is also where nothing comes any more.
            let tells = streams && host.server.postmaster.is_some() && !host.server.stands_still();
            (host.awake().is_some() && answers(Plane::Agents, end))
                || (tells && !self.net.is_cut((Plane::Replication, end, here)))
        })
    }

    /// It could lead, and whoever leads the store hears it.
    fn may_take_over(&self, heir: NodeId) -> bool {
        let reaches = self.store_leader.is_some_and(|member| {
            let (here, there) = (End::Node(heir), End::Store(member));
            let cut = self.net.is_cut((Plane::Store, here, there)) || self.net.is_cut((Plane::Store, there, here));
            !cut && self.members[member].up && !self.members[member].frozen
        });
        reaches && self.could_lead(heir).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::fault::{What, Where};

    /// Faults of the leader's that come one after the other, and whether it has writes held a while after the last.
    fn alone(faults: &[fn(Where) -> What], held: bool, change: fn(&mut World, NodeId)) -> Option<&'static str> {
        let faults = faults.to_vec();
        broken(move |world| {
            let node = leader(world);
            for fault in faults {
                for link in world.links(fault(Where::Leader), node) {
                    world.net.cut(link);
                }
                world.check_isolated();
            }
            change(world, node);
            world.check_isolated();
            world.now = world.now + ms(world.settings.isolation_timeout_ms + 601);
            world.nodes[node.0].server.held = held;
            world.check_isolated();
        })
    }

    #[test]
    fn isolated_writing_without_end() {
        let cuts: [fn(Where) -> What; 3] = [What::CutStore, What::CutFromAgents, What::CutReplication];
        assert_eq!(alone(&[What::Isolate], false, |_, _| ()), Some("S31"));
        assert_eq!(alone(&[What::Isolate], true, |_, _| ()), None);
        assert_eq!(alone(&cuts, false, |_, _| ()), Some("S31"), "three that overlap");
        assert_eq!(alone(&cuts[..2], false, |_, _| ()), None, "standbys tell how far they are");
        assert_eq!(alone(&cuts[1..], false, |_, _| ()), None, "the store answers");
        let away = |world: &mut World, _: NodeId| world.members[0].up = false;
        assert_eq!(alone(&cuts[1..], false, away), None, "nobody could take over without a store");
    }

    #[test]
    fn isolated_writing_after_the_end_of_one_of_two_faults() {
        let mended = |times: usize| {
            let twice: [fn(Where) -> What; 2] = [What::Isolate, What::Isolate];
            let one = |world: &mut World, node: NodeId| {
                for link in world.links(What::Isolate(Where::Leader), node) {
                    world.net.mend(link);
                }
            };
            alone(&twice[..times], false, one)
        };
        assert_eq!(mended(2), Some("S31"), "its links stay cut");
        assert_eq!(mended(1), None);
    }

    fn others(world: &mut World, change: fn(&mut World, NodeId)) {
        for heir in [standby(world), other_standby(world)] {
            change(world, heir);
        }
    }

    #[test]
    fn isolated_writing_that_nobody_would_lose() {
        let barred =
            |world: &mut World, _: NodeId| others(world, |world, heir| world.nodes[heir.0].config.nofailover = true);
        assert_eq!(alone(&[What::Isolate], false, barred), None, "nobody else may lead");
        let unknown = |world: &mut World, node: NodeId| {
            others(world, |world, heir| world.checks.ready_since[heir.0] = world.now);
            world.checks.isolated[node.0] = None;
        };
        assert_eq!(alone(&[What::Isolate], false, unknown), None, "they came up when it heard of nobody any more");
        let untold = |world: &mut World, node: NodeId| {
            let agent = world.nodes[node.0].agent.as_mut().unwrap();
            std::rc::Rc::make_mut(&mut agent.mirror).members.clear();
            world.checks.isolated[node.0] = None;
        };
        assert_eq!(
            alone(&[What::Isolate], false, untold),
            None,
            "their records had ended when it last heard of the store"
        );
        let forgotten = |world: &mut World, node: NodeId| {
            let agent = world.nodes[node.0].agent.as_mut().unwrap();
            std::rc::Rc::make_mut(&mut agent.mirror).members.clear();
        };
        assert_eq!(alone(&[What::Isolate], false, forgotten), Some("S31"), "it knew of them once");
        let started = |world: &mut World, node: NodeId| {
            let agent = world.nodes[node.0].agent.as_mut().unwrap();
            std::rc::Rc::make_mut(&mut agent.mirror).members.clear();
            world.nodes[node.0].booted = world.now + ms(1);
        };
        assert_eq!(
            alone(&[What::Isolate], false, started),
            None,
            "another agent was started, which has heard of nobody"
        );
    }
}
