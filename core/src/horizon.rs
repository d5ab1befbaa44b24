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

//! The agent asks and tells; which answers it takes in is decided here.

use alloc::collections::BTreeSet;
use core::time::Duration;

use crate::id::{Revision, StoreId};
use crate::time::Instant;

/// How long the past is not believed, unless it is told how long a tenure may last: longer than most do.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a store tells of itself with every answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// Which store it is; 0: none has answered yet.
    pub store_id: StoreId,
    /// How many elections of its leader it counts.
    pub raft_term: u64,
    /// Its revision.
    pub revision: Revision,
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

/// What was known of the store when a request was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Floor {
    /// The answer may not lie before this.
    pub standing: Standing,
    /// How far the past had come that is told and not believed. An answer from before this is of yet another past.
    past: Option<Standing>,
    /// How often the store had gone back by then.
    rollbacks: u64,
}

/// What an answer is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// How often the store had gone back by then. Of an answer that is not believed: what it lies before.
    pub believed: Result<u64, Standing>,
    /// What an operator is to hear of, if anything changed.
    pub news: Option<News>,
}

/// What changed in what is made of the store's answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// The store answers from the past. It is believed if nothing else answers for so long.
    Past(Duration),
    /// It went back once more: the time begins anew.
    PastAgain,
    /// It was silent, and may have gone back once more: the time begins anew.
    Silence,
    /// It went back, and is believed from here on.
    Believed,
}

/// The floor, and since when only the past answers. `M` tells the store's members apart.
#[derive(Clone, Debug)]
pub struct Horizon<M> {
    floor: Floor,
    past: Option<Past<M>>,
    /// The longest that a tenure may last, as far as was told.
    tenure_limit: Option<Duration>,
}

impl<M> Default for Horizon<M> {
    fn default() -> Self {
        Self { floor: Floor::default(), past: None, tenure_limit: None }
    }
}

/// Every answer comes from before the floor.
#[derive(Clone, Debug)]
struct Past<M> {
    /// Since when this one past is told without a silence.
    since: Instant,
    /// When it was told last.
    heard: Instant,
    /// What is a silence. Half a tenure: an agent asks at least each third, mostly much more often, and no restore that
    /// takes so long passes unnoticed. Each silence doubles it, or a store that answers now and then would never be
    /// believed.
    silence_min: Duration,
    /// The members that gave these answers. With a few writes a restored store gets beyond the floor: that makes it no
    /// other one.
    members: BTreeSet<M>,
}

impl<M: Ord> Past<M> {
    fn new(now: Instant, patience: Duration) -> Self {
        Self { since: now, heard: now, silence_min: patience / 2, members: BTreeSet::new() }
    }

    /// It is told by `member`; `again`: the store was restored once more.
    fn is_told(&mut self, member: M, again: bool, now: Instant) -> Option<News> {
        let silent = now.since(self.heard) > self.silence_min;
        if silent {
            self.silence_min = self.silence_min.saturating_mul(2);
        }
        if silent || again {
            self.since = now;
        }
        self.heard = now;
        self.members.insert(member);
        match (again, silent) {
            (true, _) => Some(News::PastAgain),
            (false, true) => Some(News::Silence),
            (false, false) => None,
        }
    }
}

impl<M: Ord> Horizon<M> {
    /// What a request that is sent now may not be answered from before.
    pub fn floor(&self) -> Floor {
        self.floor
    }

    /// Tenures may last for so long. A longer one that was told of before may be in force yet.
    pub fn allow_tenure(&mut self, ttl: Duration) {
        self.tenure_limit = self.tenure_limit.max(Some(ttl));
    }

    /// Takes in what a linearizable answer of `member` told, to a request that was sent when `sent` was the floor.
    ///
    /// The race: several requests are in flight when the first answer of the past is believed. The answers to the others
    /// are that same past; by what was known when they were sent they would be a new one, for which the time begins anew,
    /// and at its end a tenure that was won meanwhile would be over. They are measured by what is believed now.
    pub fn admit(&mut self, sent: Floor, told: Standing, member: M, now: Instant) -> Judgement {
        let believed_since = sent.rollbacks < self.floor.rollbacks;
        let sent = if believed_since { self.floor } else { sent };
        let before = told.is_before(sent.standing);
        if believed_since && before {
            return Judgement { believed: Err(sent.standing), news: None };
        }
        if !before && !self.past.as_ref().is_some_and(|past| past.members.contains(&member)) {
            self.floor.standing = self.floor.standing.raised_to(told);
            (self.past, self.floor.past) = (None, None);
            return Judgement { believed: Ok(self.floor.rollbacks), news: None };
        }
        let patience = self.tenure_limit.unwrap_or(PATIENCE);
        let again = sent.past.is_some_and(|past| told.is_before(past));
        self.floor.past = Some(self.floor.past.filter(|_| !again).map_or(told, |past| past.raised_to(told)));
        let first = self.past.is_none().then_some(News::Past(patience));
        let past = self.past.get_or_insert_with(|| Past::new(now, patience));
        let anew = past.is_told(member, again, now);
        if now.since(past.since) < patience {
            return Judgement { believed: Err(sent.standing), news: first.or(anew) };
        }
        self.floor = Floor { standing: told, past: None, rollbacks: self.floor.rollbacks + 1 };
        self.past = None;
        Judgement { believed: Ok(self.floor.rollbacks), news: Some(News::Believed) }
    }

    /// A watch that tells this may go on: it is not of an earlier raft term. Its revision may lag.
    ///
    /// The race: the store was restored to a moment ago, and a read was answered when others had written it beyond what
    /// this agent knew: it was of the present, for all that could be told. The answer to what was asked before it tells
    /// better. A watch from there on would tell of the past all the while, and a key that is won there would be void once
    /// it is believed.
    ///
    /// Nor does any answer to what is asked from here on lie before that revision; the term says less, since a member that
    /// is cut off may count elections of its own. The race: a watch tells of what an agent is to know, and the store is
    /// restored to before that, yet not to before its last answer. Its answers would be of the present, for all that could be
    /// told, and its keys older than those that are known: nothing new would be learned until it had come so far again.
    pub fn admit_watch(&mut self, told: Standing) -> bool {
        let floor = self.floor.standing;
        let known = floor.store_id != StoreId(0);
        let of_the_store = told.store_id == floor.store_id && told.raft_term >= floor.raft_term;
        let current = !self.is_told_the_past() && (!known || of_the_store);
        if current && known {
            self.floor.standing.revision = floor.revision.max(told.revision);
        }
        current
    }

    /// Only a past that is not believed answers: everything is to be asked again until it is, or something else answers.
    pub fn is_told_the_past(&self) -> bool {
        self.past.is_some()
    }
}
