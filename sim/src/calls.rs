//! Requests of agents to the store and to each other: what is sent, what comes back, and what does not.

use std::rc::Rc;
use std::time::Duration;

use matriarch_core::action::{Lane, PeerAction, StoreAction};
use matriarch_core::event::{PeerEvent, StoreDone, StoreEvent};
use matriarch_core::horizon::Standing;
use matriarch_core::id::{Member, OpId, RequestId, Revision};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::time::Seen;
use matriarch_core::view::View;
use matriarch_core::view::peers::PeerAnswer;
use matriarch_core::view::store::ClusterView;

use crate::coverage;
use crate::fault::{Given, Phase};
use crate::mutant::Mutant;
use crate::net::{End, Link, Plane};
use crate::node::{Asker, Call, Message, NodeId, PeerQuestion, Question, Watch};
use crate::store::hands::Key;
use crate::store::{Gone, Known, Reply, Request};
use crate::time::{Time, ms};
use crate::world::{Due, World};

/// No single request waits longer (`ATTEMPT_MAX` of the runtime).
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
/// The pause before a read of the feed is tried again.
const FEED_PAUSE: Duration = Duration::from_millis(250);

fn to_store(node: NodeId, member: usize) -> Link {
    (Plane::Store, End::Node(node), End::Store(member))
}

fn from_store(node: NodeId, member: usize) -> Link {
    (Plane::Store, End::Store(member), End::Node(node))
}

impl World {
    // --- the store --------------------------------------------------------------------------------------------------

    /// Sends core's order to the store.
    pub fn call(&mut self, node: NodeId, op: OpId, mut action: StoreAction) {
        if let (StoreAction::PutHistory { lines, .. }, Some(Mutant::HistoryForgets)) = (&mut action, self.mutant) {
            lines.drain(..lines.len().saturating_sub(1));
        }
        let retry = self.nodes[node.0].config.retry_timeout;
        let deadline = match &action {
            StoreAction::Renew { deadline, .. } => *deadline,
            other => matriarch_core::action::Action::Store(other.clone()).deadline(retry).min(ATTEMPT_MAX),
        };
        self.begin_call(node, Some(op), action, deadline);
    }

    fn begin_call(&mut self, node: NodeId, op: Option<OpId>, action: StoreAction, deadline: Duration) {
        let asked = self.clock(node);
        self.calls += 1;
        let number = self.calls;
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        let (member, floor) = (agent.member, agent.horizon.floor());
        agent.calls.insert(number, Call { op, action, asked, member, floor, kept: None });
        if self.mutant != Some(Mutant::DeadlineDropped) {
            self.tell(node, deadline, Message::TimedOut { call: number });
        }
        self.send_call(node, number);
    }

    /// Sends the half of a request that is due.
    fn send_call(&mut self, node: NodeId, number: u64) {
        let from = self.names[node.0].clone();
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        let Some(call) = agent.calls.get_mut(&number) else { return };
        call.floor = agent.horizon.floor();
        let known = Known {
            member: agent.mirror.members.get(&from).map_or(Revision(0), |key| key.revision),
            config: agent.mirror.config_revision,
            status: agent.mirror.status.as_ref().map_or(Revision(0), |status| status.revision),
        };
        let request = match &call.action {
            StoreAction::Renew { lease, .. } if call.kept.is_none() => Request::KeepAlive(*lease),
            StoreAction::Renew { lease, epoch, .. } => Request::Proof { lease: *lease, epoch: *epoch },
            StoreAction::KeepSession { lease } => Request::KeepAlive(*lease),
            action => Request::Order { action: Box::new(action.clone()), from, known },
        };
        let (boot, member) = (agent.boot, call.member);
        self.send(to_store(node, member), Due::Store { node, boot, call: number, member, request });
    }

    /// A request reaches a member of the store.
    pub fn reaches_store(&mut self, what: Due) {
        let Due::Store { node, boot, call, member, ref request } = what else { unreachable!("a request") };
        let state = self.members[member];
        if !state.up {
            let message = Message::Unreachable { call };
            self.send(from_store(node, member), Due::agent(node, boot, message));
            return;
        }
        let serves = self.store_leader.is_some() && self.sees_leader(member);
        if state.frozen || !(serves || self.keeps_alone(member, request)) {
            self.store_waiting.push(what);
            return;
        }
        // etcd keeps no lease alive whose time is over: whoever asks waits until it has come to ending it.
        if let Request::KeepAlive(lease) = request
            && self.store.is_over(*lease, self.now)
        {
            self.later(ms(10), what);
            return;
        }
        let before = self.keys();
        let reply = self.store.apply(self.now, request);
        if let (Request::Order { action, from, .. }, Reply::Done(_)) = (request, &reply) {
            self.check_writer(action, from, before.leader.as_ref());
            match &**action {
                StoreAction::AbandonInitialize { .. } => self.note_initialize_abandoned(node),
                StoreAction::Release { position, timeline, .. } => self.note_last_words(node, *position, *timeline),
                StoreAction::PutStatus { status, .. } | StoreAction::PutHistory { status, .. } => {
                    self.note_published(node, status.position, status.timeline);
                }
                _ => {}
            }
        }
        self.store_changed();
        if !matches!(reply, Reply::Refused(_) | Reply::Instead(_))
            && let Some(op) = self.operation(node, boot, call)
        {
            self.takes_effect(node, op);
        }
        let told = self.standing();
        let message = Message::Reply { call, reply, told };
        self.send(from_store(node, member), Due::agent(node, boot, message));
    }

    /// The operation that a request is for, while its agent waits for it.
    fn operation(&self, node: NodeId, boot: u32, call: u64) -> Option<OpId> {
        let agent = self.nodes[node.0].agent.as_ref().filter(|agent| agent.boot == boot)?;
        agent.calls.get(&call)?.op
    }

    /// A leader keeps leases alive without asking the others, as long as it does not know that they do not hear it. The
    /// next one gives every lease its time again.
    fn keeps_alone(&self, member: usize, request: &Request) -> bool {
        let keeps = matches!(request, Request::KeepAlive(lease) if !self.store.is_over(*lease, self.now));
        keeps && self.lonely.is_some_and(|(lonely, until)| lonely == member && self.now < until)
    }

    /// What the store tells of itself.
    fn standing(&self) -> Standing {
        let keys = self.store.keys();
        Standing { store_id: keys.store, raft_term: self.term, revision: keys.revision }
    }

    /// A member serves only what the leading one agrees to.
    fn sees_leader(&self, member: usize) -> bool {
        self.store_leader.is_some_and(|leader| self.see_each_other(leader, member))
    }

    fn see_each_other(&self, one: usize, other: usize) -> bool {
        let (a, b) = (End::Store(one), End::Store(other));
        one == other || !(self.net.is_cut((Plane::Store, a, b)) || self.net.is_cut((Plane::Store, b, a)))
    }

    /// A member that works and sees most of those that do: it can lead, and be elected.
    pub fn sees_most(&self, member: usize) -> bool {
        let able = |index: &usize| self.members[*index].up && !self.members[*index].frozen;
        let seen = (0..self.members.len()).filter(|other| able(other) && self.see_each_other(member, *other)).count();
        able(&member) && seen * 2 > self.members.len()
    }

    /// What waited for the store to answer again is asked again; whoever asked may have given up.
    pub fn store_answers_again(&mut self) {
        self.wait_for_the_next_end();
        for what in std::mem::take(&mut self.store_waiting) {
            self.later(Duration::from_millis(1), what);
        }
    }

    /// The keys may have changed: watches tell, checks judge, the next end of a lease is waited for.
    pub fn store_changed(&mut self) {
        let changes = self.store.changes();
        for change in &changes {
            self.check_store_change(change);
        }
        self.wait_for_the_next_end();
        let view = self.keys();
        if view.revision == self.told {
            return;
        }
        self.told = view.revision;
        self.check_keys();
        for node in 0..self.nodes.len() {
            for watch in 0..2 {
                self.watch_sends(NodeId(node), watch, &view);
            }
        }
    }

    /// A lease that is over goes 40 to 520 ms later, as etcd's does.
    fn wait_for_the_next_end(&mut self) {
        let Some((_, until)) = self.store.next_end() else { return };
        if self.lease_check.is_none_or(|check| check > until + ms(520)) {
            let check = until + Duration::from_millis(self.store_random.between(40, 520));
            self.lease_check = Some(check);
            self.at(check, Due::LeaseEnds);
        }
    }

    fn watch_sends(&mut self, node: NodeId, watch: usize, view: &Rc<ClusterView>) {
        let Some(agent) = &self.nodes[node.0].agent else { return };
        let (boot, state) = (agent.boot, agent.watches[watch]);
        let Some(member) = state.member.filter(|member| self.members[*member].up) else { return };
        if agent.mirror.revision >= view.revision || self.plan_silences(node) {
            return;
        }
        let what = Due::agent(node, boot, Message::Watched { watch, view: Rc::clone(view) });
        let link = from_store(node, member);
        if self.net.is_cut(link) {
            self.send(link, what);
            return;
        }
        if self.net.loses() {
            self.connection_lost(what);
            return;
        }
        // One connection: what was sent first comes first.
        let time = (self.now + self.net.delay()).max(Time(state.last.0 + 1));
        if let Some(agent) = &mut self.nodes[node.0].agent {
            agent.watches[watch].last = time;
        }
        self.at(time, what);
    }

    /// The store gets to expiring: whatever is over by now.
    pub fn leases_end(&mut self) {
        self.lease_check = None;
        // Without a leader nothing expires, and the next one gives every lease its time again.
        if self.store_leader.is_none_or(|leader| !self.members[leader].up || self.members[leader].frozen) {
            return;
        }
        while let Some((lease, _)) = self.store.next_end().filter(|(_, until)| *until < self.now) {
            self.store.end(lease, Gone::Expired);
        }
        self.store_changed();
    }

    /// A leader of the store was elected.
    pub fn store_elected(&mut self) {
        let candidates: Vec<usize> = (0..self.members.len()).filter(|member| self.sees_most(*member)).collect();
        if self.store_leader.is_some() || candidates.is_empty() {
            return;
        }
        self.store_leader = Some(*self.store_random.pick(&candidates));
        self.lonely = None;
        self.term += 1;
        self.checks.disturbed(None, self.now);
        self.store.refresh_leases(self.now);
        self.store_changed();
        self.store_answers_again();
    }

    /// The store answered a request.
    pub fn call_answered(&mut self, node: NodeId, number: u64, reply: Reply, told: Standing) {
        let heard = self.clock(node);
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        let Some(call) = agent.calls.get_mut(&number) else { return };
        let admitted = match (&call.action, &reply) {
            // Leases are asked for and kept alive without a look at the keys.
            (
                StoreAction::GrantTenure { .. }
                | StoreAction::GrantSession { .. }
                | StoreAction::Revoke { .. }
                | StoreAction::KeepSession { .. },
                _,
            )
            | (_, Reply::Kept(_)) => Some(0),
            (StoreAction::Renew { .. }, _) if call.kept.is_none() => Some(0),
            _ => agent.horizon.admit(call.floor, told, call.member, heard).believed.ok(),
        };
        let outcome = match reply {
            _ if admitted.is_none() => Outcome::Unknown("the store answers from the past".into()),
            Reply::Kept(ttl) if matches!(call.action, StoreAction::Renew { .. }) => {
                call.kept = Some(ttl);
                self.send_call(node, number);
                return;
            }
            Reply::Kept(_) => Outcome::Done(StoreDone::SessionKept),
            Reply::Done(done) => Outcome::Done(*done),
            Reply::Refused(refusal) => Outcome::Refused(refusal),
            Reply::Instead(view) => {
                agent.mirrors(ClusterView::clone(&view), admitted.unwrap_or_default());
                Outcome::Refused(Refusal::Conflict)
            }
        };
        let Some(call) = agent.calls.remove(&number) else { return };
        // One that core gave up on while its host stood still tells it nothing any more.
        let awaited = agent.state.ops.in_lane(&Lane::Renew).is_some_and(|in_flight| Some(in_flight.op) == call.op);
        if let (StoreAction::Renew { lease, .. }, Outcome::Refused(_)) = (&call.action, &outcome)
            && awaited
        {
            self.note_refused(node, *lease);
        }
        let outcome = self.mirrored(node, outcome, admitted.unwrap_or_default());
        self.coverage.answered(&call.action, &outcome);
        let lost_the_race =
            matches!((&call.action, &outcome), (StoreAction::RaceInitialize { .. }, Outcome::Refused(_)));
        if lost_the_race && self.mutant == Some(Mutant::InitializeRemoved) {
            self.store.delete(Key::Initialize);
            self.store_changed();
        }
        match call.op {
            Some(op) => self.store_event(node, StoreEvent::Completed { op, outcome, asked: call.asked }),
            None => {
                if let Outcome::Done(StoreDone::Read(view)) = outcome {
                    self.watch_from(node, call.member);
                    self.store_event(node, StoreEvent::Watched(Seen::new(view, call.asked.min(heard), heard)));
                } else {
                    self.tell(node, FEED_PAUSE, Message::Feed);
                }
            }
        }
        self.follow_configuration(node);
    }

    /// What was read is laid over what is known: the newest counts.
    fn mirrored(&mut self, node: NodeId, outcome: Outcome<StoreDone>, rollbacks: u64) -> Outcome<StoreDone> {
        let Some(agent) = &mut self.nodes[node.0].agent else { return outcome };
        let mut newest = |view| agent.mirrors(view, rollbacks);
        match outcome {
            Outcome::Done(StoreDone::Read(view)) => Outcome::Done(StoreDone::Read(newest(view))),
            Outcome::Done(StoreDone::Acquired(view)) => Outcome::Done(StoreDone::Acquired(newest(view))),
            other => other,
        }
    }

    /// A member refuses the connection: nothing was sent. Another is tried.
    pub fn call_refused(&mut self, node: NodeId, number: u64) {
        let members = self.members.len();
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        let Some(call) = agent.calls.get_mut(&number) else { return };
        let next = (call.member + 1) % members;
        if next == agent.member {
            self.call_timed_out(node, number);
            return;
        }
        call.member = next;
        call.kept = None;
        self.send_call(node, number);
    }

    /// No answer in time: it may have happened, may happen yet, or never will.
    pub fn call_timed_out(&mut self, node: NodeId, number: u64) {
        let members = self.members.len();
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        let Some(call) = agent.calls.remove(&number) else { return };
        agent.member = (call.member + 1) % members;
        self.coverage.count("store request without answer");
        match call.op {
            Some(op) => {
                let outcome = Outcome::Unknown("no answer in time".into());
                self.coverage.answered(&call.action, &outcome);
                self.store_event(node, StoreEvent::Completed { op, outcome, asked: call.asked });
            }
            None => self.tell(node, FEED_PAUSE, Message::Feed),
        }
    }

    // --- watches ----------------------------------------------------------------------------------------------------

    /// The feed reads the keys, to watch them from there.
    pub fn feed(&mut self, node: NodeId) {
        let Some(agent) = &self.nodes[node.0].agent else { return };
        let reading = agent.calls.values().any(|call| call.op.is_none());
        if !reading {
            self.begin_call(node, None, StoreAction::Read, ATTEMPT_MAX);
        }
    }

    fn watch_from(&mut self, node: NodeId, member: usize) {
        let members = self.members.len();
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        for (index, watch) in agent.watches.iter_mut().enumerate() {
            *watch = Watch { member: Some((member + index) % members), last: watch.last };
        }
        // What came between the read and the watch is told at once.
        let view = self.keys();
        for watch in 0..2 {
            self.watch_sends(node, watch, &view);
        }
    }

    /// A watch tells of the keys.
    pub fn watch_tells(&mut self, node: NodeId, watch: usize, view: Rc<ClusterView>) {
        let heard = self.clock(node);
        let told = Standing { revision: view.revision, ..self.standing() };
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        if agent.watches[watch].member.is_none() {
            return;
        }
        if !agent.horizon.admit_watch(told) {
            self.watch_lost(node, watch);
            return;
        }
        if view.revision <= agent.mirror.revision {
            return;
        }
        // A watch continues the copy that it began with.
        let rollbacks = agent.mirror.rollbacks;
        agent.mirror =
            if rollbacks == 0 { view } else { Rc::new(ClusterView { rollbacks, ..ClusterView::clone(&view) }) };
        let view = ClusterView::clone(&agent.mirror);
        self.store_event(node, StoreEvent::Watched(Seen::new(view, heard, heard)));
        self.follow_configuration(node);
    }

    /// A watch is broken; the other may go on, but everything is read and watched anew.
    pub fn watch_lost(&mut self, node: NodeId, watch: usize) {
        if let Some(agent) = &mut self.nodes[node.0].agent {
            agent.watches[watch].member = None;
        }
        self.tell(node, FEED_PAUSE, Message::Feed);
    }

    // --- other agents -----------------------------------------------------------------------------------------------

    /// Asks another agent.
    pub fn ask_peer(&mut self, node: NodeId, op: OpId, action: PeerAction) {
        let asked = self.clock(node);
        let kind = coverage::peer(&action);
        let (member, question, deadline) = match action {
            PeerAction::AskPosition { member, absent_at, .. } => {
                (member, PeerQuestion::Position { absent_at }, ms(1000))
            }
            PeerAction::AskStatus { member, .. } => (member, PeerQuestion::Status, ms(2000)),
            PeerAction::AwaitReplay { member, beyond, deadline, .. } => {
                (member, PeerQuestion::Replayed { beyond, limit: deadline }, deadline + ms(250))
            }
        };
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        let boot = agent.boot;
        agent.questions.insert(op, Question { kind, member: member.clone(), asked });
        let outcome = Outcome::Unknown("no answer in time".into());
        self.tell(node, deadline, Message::Answered { op, outcome });
        let Some(to) = self.node_of(&member) else { return };
        let asker = Asker { node, boot, op };
        let link = (Plane::Agents, End::Node(node), End::Node(to));
        self.send(link, Due::agent(to, 0, Message::Asked { asker, question }));
    }

    fn node_of(&self, member: &Member) -> Option<NodeId> {
        self.names.iter().position(|name| name == member).map(NodeId)
    }

    /// Another agent asks.
    pub fn peer_asks(&mut self, node: NodeId, asker: Asker, question: PeerQuestion) {
        match question {
            PeerQuestion::Position { absent_at } => {
                let Some(agent) = &mut self.nodes[node.0].agent else { return };
                if self.mutant == Some(Mutant::EveryAnswerIsPledged) {
                    let answer = PeerAnswer { pledge: Some(absent_at), ..self.own_answer(node) };
                    self.note_pledge(node, answer.pledge);
                    self.answer_peer(node, asker, Outcome::Done(answer));
                    return;
                }
                if !agent.state.admits_question() {
                    self.answer_peer(node, asker, Outcome::Unknown("too many questions".into()));
                    return;
                }
                agent.requests += 1;
                let request = RequestId(agent.requests);
                agent.asked.insert(request, asker);
                self.peer_event(node, PeerEvent::PositionAsked { request, absent_at });
            }
            PeerQuestion::Status => {
                let answer = self.own_answer(node);
                self.answer_peer(node, asker, Outcome::Done(PeerAnswer { pledge: None, ..answer }));
            }
            PeerQuestion::Replayed { beyond, limit } => {
                self.peer_event(node, PeerEvent::HandoverAnnounced);
                if let Some(agent) = &mut self.nodes[node.0].agent {
                    agent.waiters.push((asker, beyond));
                }
                self.tell(node, limit, Message::WaitedLongEnough(asker));
                self.tell_waiters(node);
            }
        }
    }

    fn own_answer(&self, node: NodeId) -> PeerAnswer {
        let at = self.clock(node);
        let agent = self.nodes[node.0].agent.as_ref().expect("only a running agent answers");
        View { at, state: &agent.state }.own_answer()
    }

    /// Those whose position is reached are told.
    pub fn tell_waiters(&mut self, node: NodeId) {
        if self.nodes[node.0].awake().is_none_or(|agent| agent.waiters.is_empty()) {
            return;
        }
        self.freshen(node);
        if self.nodes[node.0].agent.is_none() {
            return;
        }
        let answer = self.own_answer(node);
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        let ready = |(_, beyond): &mut (Asker, matriarch_core::id::Lsn)| answer.replayed > *beyond;
        let served: Vec<_> = agent.waiters.extract_if(.., ready).collect();
        for (asker, _) in served {
            self.answer_peer(node, asker, Outcome::Done(answer.clone()));
        }
    }

    /// Whoever waited is told how far it came.
    pub fn peer_waited(&mut self, node: NodeId, asker: Asker) {
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        let before = agent.waiters.len();
        agent.waiters.retain(|(waiting, _)| *waiting != asker);
        if agent.waiters.len() < before {
            let answer = self.own_answer(node);
            self.answer_peer(node, asker, Outcome::Done(answer));
        }
    }

    /// Sends an answer to whoever asked.
    pub fn answer_peer(&mut self, node: NodeId, asker: Asker, outcome: Outcome<PeerAnswer>) {
        if matches!(outcome, Outcome::Done(_)) {
            self.order_is(Phase::Applied, Given::Operation(asker.node, asker.boot, asker.op));
        }
        let link = (Plane::Agents, End::Node(node), End::Node(asker.node));
        let message = Message::Answered { op: asker.op, outcome };
        self.send(link, Due::agent(asker.node, asker.boot, message));
    }

    /// The answer is here, or the question too old; what comes second finds no question.
    pub fn peer_answered(&mut self, node: NodeId, op: OpId, outcome: Outcome<PeerAnswer>) {
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        let Some(Question { kind, member, asked }) = agent.questions.remove(&op) else { return };
        self.coverage.came_to(kind, coverage::told(&outcome));
        if let Some(from) = self.node_of(&member) {
            self.note_told(node, from, asked, &outcome);
        }
        self.peer_event(node, PeerEvent::Answered { op, member, outcome, asked });
    }
}
