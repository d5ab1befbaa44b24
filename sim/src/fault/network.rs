//! Cuts of the network, and members of the store that are down, stand still, or come back.

use super::What;
use crate::net::{End, Link, Plane};
use crate::node::{Message, NodeId};
use crate::time::ms;
use crate::world::{Due, StoreMember, World};

impl World {
    pub(crate) fn links(&self, what: What, node: NodeId) -> Vec<Link> {
        let here = End::Node(node);
        let others: Vec<End> = (0..self.nodes.len()).map(NodeId).filter(|n| *n != node).map(End::Node).collect();
        let stores: Vec<End> = (0..self.members.len()).map(End::Store).collect();
        let both = |plane, a: End, ends: &[End]| -> Vec<Link> {
            ends.iter().flat_map(|b| [(plane, a, *b), (plane, *b, a)]).collect()
        };
        let into = |plane, ends: &[End]| -> Vec<Link> { ends.iter().map(|end| (plane, *end, here)).collect() };
        let out_of = |plane, ends: &[End]| -> Vec<Link> { ends.iter().map(|end| (plane, here, *end)).collect() };
        match what {
            What::Isolate(_) => [
                both(Plane::Store, here, &stores),
                both(Plane::Agents, here, &others),
                both(Plane::Replication, here, &others),
            ]
            .concat(),
            What::CutStore(_) => both(Plane::Store, here, &stores),
            What::CutToStore(_) => out_of(Plane::Store, &stores),
            What::CutFromStore(_) => into(Plane::Store, &stores),
            What::CutAgents(_) => both(Plane::Agents, here, &others),
            What::CutFromAgents(_) => into(Plane::Agents, &others),
            What::CutToAgents(_) => out_of(Plane::Agents, &others),
            What::CutReplication(_) => both(Plane::Replication, here, &others),
            What::CutFromReplication(_) => into(Plane::Replication, &others),
            What::CutToReplication(_) => out_of(Plane::Replication, &others),
            What::CutClients(_) => both(Plane::Clients, here, &[End::Client]),
            What::CutFromClients(_) => into(Plane::Clients, &[End::Client]),
            What::CutToClients(_) => out_of(Plane::Clients, &[End::Client]),
            What::CutPair(_, other) => {
                let other = [End::Node(NodeId(other % self.nodes.len()))];
                [both(Plane::Agents, here, &other), both(Plane::Replication, here, &other)].concat()
            }
            What::CutFromMember(_, member) => both(Plane::Store, here, &[End::Store(member % self.members.len())]),
            What::CutStoreMember(member) => {
                let member = End::Store(member % self.members.len());
                let nodes: Vec<End> = (0..self.nodes.len()).map(NodeId).map(End::Node).collect();
                let rest: Vec<End> = stores.iter().copied().filter(|store| *store != member).collect();
                [both(Plane::Store, member, &nodes), both(Plane::Store, member, &rest)].concat()
            }
            _ => Vec::new(),
        }
    }

    /// A link is whole again: what waited for it comes, or its connection is given up.
    pub(super) fn mend(&mut self, link: Link) {
        if !self.net.mend(link) {
            return;
        }
        let (mine, others) = std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.link == link);
        self.waiting = others;
        let mine: Vec<crate::net::Waiting<Due>> = mine;
        let Some(since) = mine.first().map(|waiting| waiting.since) else { return };
        let survives = self.net.survives(self.now.since(since));
        for waiting in mine {
            if survives {
                self.send(link, waiting.what);
            } else {
                self.connection_lost(waiting.what);
            }
        }
    }

    /// A connection ends with this on its way.
    pub fn connection_lost(&mut self, carried: Due) {
        match carried {
            Due::Agent { node, boot, message } => {
                if let Message::Watched { watch, .. } = *message {
                    self.later(ms(1), Due::agent(node, boot, Message::WatchLost { watch }));
                }
            }
            Due::Wal { node, from, .. } | Due::WalReply { node: from, from: node, .. } => self.stream_dies(node, from),
            // The end of a connection is found out, if not told.
            lost @ (Due::Server { .. } | Due::SenderLost { .. }) => self.later(ms(1), lost),
            _ => {}
        }
    }

    pub(super) fn store_member(&mut self, member: usize, change: impl Fn(&mut StoreMember)) {
        let member = member % self.members.len();
        change(&mut self.members[member]);
        let state = self.members[member];
        if !state.up {
            for node in 0..self.nodes.len() {
                self.watches_break(NodeId(node), member);
            }
        }
        self.store_settles();
    }

    /// A leader of the store that does not see most of its members leads no more, and another is elected where most are.
    pub(super) fn store_settles(&mut self) {
        // One alone that stands still loses its lead to nobody: it goes on as if nothing had been.
        let alone = self.members.len() == 1;
        let leads = |leader: &usize| (alone && self.members[*leader].up) || self.sees_most(*leader);
        let lost = self.store_leader.filter(|leader| !leads(leader));
        self.store_leader = self.store_leader.filter(|_| lost.is_none());
        if self.store_leader.is_none() {
            // One alone is there at once, three take one to two election timeouts.
            let election = if self.members.len() == 1 { (5, 100) } else { (1000, 2000) };
            let takes = self.store_random.between(election.0, election.1);
            // It looks once in an election timeout whether it is heard.
            let lonely = lost.map(|leader| (leader, self.now + ms(takes))).or(self.lonely);
            self.lonely = lonely.filter(|(member, _)| self.members[*member].up);
            self.later(ms(takes), Due::StoreElected);
        } else {
            self.store_answers_again();
        }
    }

    pub(super) fn watches_break(&mut self, node: NodeId, member: usize) {
        let Some(agent) = &self.nodes[node.0].agent else { return };
        let broken: Vec<usize> = (0..2).filter(|watch| agent.watches[*watch].member == Some(member)).collect();
        for watch in broken {
            self.tell(node, ms(1), Message::WatchLost { watch });
        }
    }
}
