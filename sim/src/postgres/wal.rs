//! The write-ahead logs of all servers as one tree: a timeline is a branch, and what a server holds is a place on one.
//! "Is a prefix of" is a walk over the few branches between two places.

use matriarch_core::id::{Lsn, SystemId, Timeline};
use matriarch_core::timeline::{Ancestor, History};

/// The number of a commit that a client asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Serial(pub u64);

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// A client's commit.
    Commit(Serial),
    /// A checkpoint, of a shutdown or not.
    Checkpoint,
    /// The first record of a timeline: its promotion.
    EndOfRecovery,
}

impl Record {
    /// Bytes that it takes.
    fn length(self) -> u64 {
        match self {
            Self::Commit(_) => 0x60,
            Self::Checkpoint => 0x70,
            Self::EndOfRecovery => 0x38,
        }
    }
}

/// A branch of the tree: one timeline that one server began. Two servers can begin two of one number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BranchId(u32);

/// A place: everything on a branch, and on the way to it, up to `depth` records from the very beginning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// The branch.
    pub branch: BranchId,
    /// How many records lie before it.
    pub depth: u64,
}

#[derive(Clone, Debug)]
struct Branch {
    system: SystemId,
    timeline: Timeline,
    /// The branch that it left, and where.
    parent: Option<BranchId>,
    base: u64,
    /// What each record ends at and says, from `base` on.
    records: Vec<(Lsn, Record)>,
    begin: Lsn,
}

/// All logs.
#[derive(Clone, Debug, Default)]
pub struct Wal {
    branches: Vec<Branch>,
}

/// Where a new cluster's log begins.
const FIRST: Lsn = Lsn(0x0100_0028);

impl Wal {
    /// A new cluster's log with its first checkpoint.
    pub fn begin(&mut self, system: SystemId) -> Place {
        let branch = self.add(Branch {
            system,
            timeline: Timeline(1),
            parent: None,
            base: 0,
            records: Vec::new(),
            begin: FIRST,
        });
        self.append(Place { branch, depth: 0 }, Record::Checkpoint)
    }

    /// Another branch from `at`.
    pub fn fork(&mut self, at: Place, timeline: Timeline) -> Place {
        let (system, begin) = (self.system(at), self.lsn(at));
        let parent = Some(self.plain(at).branch);
        let branch = self.add(Branch { system, timeline, parent, base: at.depth, records: Vec::new(), begin });
        Place { branch, depth: at.depth }
    }

    fn add(&mut self, branch: Branch) -> BranchId {
        self.branches.push(branch);
        BranchId(self.branches.len() as u32 - 1)
    }

    /// Writes a record behind `at`. Where another server has written there already, this is another history from here on,
    /// under the number of the same timeline: what happens when a standby's directory is recovered as if it were a
    /// primary's.
    pub fn append(&mut self, at: Place, record: Record) -> Place {
        let branch = &self.branches[at.branch.0 as usize];
        let at =
            if branch.base + branch.records.len() as u64 == at.depth { at } else { self.fork(at, branch.timeline) };
        let end = Lsn(self.lsn(at).0 + record.length());
        let branch = &mut self.branches[at.branch.0 as usize];
        assert_eq!(branch.base + branch.records.len() as u64, at.depth, "a log is written at its end only");
        branch.records.push((end, record));
        Place { branch: at.branch, depth: at.depth + 1 }
    }

    /// Loses what lies behind `at` on its branch: it was never on disk, and nobody else has it.
    pub fn lose_behind(&mut self, at: Place) {
        let branch = &mut self.branches[at.branch.0 as usize];
        branch.records.truncate((at.depth - branch.base) as usize);
    }

    /// The end position of a place.
    pub fn lsn(&self, at: Place) -> Lsn {
        let at = self.plain(at);
        let branch = &self.branches[at.branch.0 as usize];
        match at.depth - branch.base {
            0 => branch.begin,
            count => branch.records[count as usize - 1].0,
        }
    }

    /// What the last record before a place says.
    pub fn last(&self, at: Place) -> Option<Record> {
        let at = self.plain(at);
        let branch = &self.branches[at.branch.0 as usize];
        branch.records.get((at.depth - branch.base).checked_sub(1)? as usize).map(|(_, record)| *record)
    }

    /// The system identifier.
    pub fn system(&self, at: Place) -> SystemId {
        self.branches[at.branch.0 as usize].system
    }

    /// The timeline.
    pub fn timeline(&self, at: Place) -> Timeline {
        self.branches[at.branch.0 as usize].timeline
    }

    /// Where the timeline of a place began: the place, on the branch that it left.
    pub fn origin(&self, at: Place) -> Option<Place> {
        let branch = &self.branches[at.branch.0 as usize];
        branch.parent.map(|parent| Place { branch: parent, depth: branch.base })
    }

    /// The same place by the branch that its last record is on.
    fn plain(&self, mut at: Place) -> Place {
        while let Some(origin) = self.origin(at).filter(|origin| origin.depth == at.depth) {
            at = origin;
        }
        at
    }

    /// `part` is a prefix of `whole`.
    pub fn contains(&self, whole: Place, part: Place) -> bool {
        self.shared(whole, part).depth == part.depth
    }

    /// The last place that both hold.
    pub fn shared(&self, one: Place, other: Place) -> Place {
        let other = self.plain(other);
        let (mut a, mut b) = (self.plain(one), other);
        // The branch that was added later is the one to leave: a parent is older than its children.
        while a.branch != b.branch {
            let later = if a.branch > b.branch { &mut a } else { &mut b };
            match self.origin(*later) {
                Some(origin) => *later = Place { branch: origin.branch, depth: origin.depth.min(later.depth) },
                None => return Place { branch: later.branch, depth: 0 },
            }
        }
        self.plain(Place { branch: a.branch, depth: a.depth.min(b.depth) })
    }

    /// Two places whose ways hold different timelines of one number: nobody who sees numbers and positions alone can tell
    /// which of the two he looks at.
    pub fn are_twins(&self, one: Place, other: Place) -> bool {
        let way = |at: Place| {
            let mut way = vec![at.branch];
            let mut place = at;
            while let Some(origin) = self.origin(place) {
                place = origin;
                way.push(place.branch);
            }
            way
        };
        let (mine, theirs) = (way(one), way(other));
        let number = |branch: BranchId| self.branches[branch.0 as usize].timeline;
        mine.iter().any(|a| theirs.iter().any(|b| a != b && number(*a) == number(*b)))
    }

    /// The place `depth` records deep on the way to `goal`.
    pub fn on_the_way(&self, goal: Place, depth: u64) -> Place {
        let mut at = goal;
        while let Some(origin) = self.origin(at).filter(|origin| origin.depth >= depth) {
            at = origin;
        }
        Place { branch: at.branch, depth: depth.min(goal.depth) }
    }

    /// The last place on the way to `goal` that is not beyond a position.
    pub fn back_to(&self, goal: Place, position: Lsn) -> Place {
        let mut place = goal;
        while self.lsn(place) > position && place.depth > 0 {
            place = self.on_the_way(goal, place.depth - 1);
        }
        place
    }

    /// All records on the way to a place, from its end to the first, and how deep each is.
    pub fn records(&self, end: Place) -> impl Iterator<Item = (Record, u64)> {
        let mut at = self.plain(end);
        std::iter::from_fn(move || {
            let record = self.last(at)?;
            let depth = at.depth;
            at = self.plain(Place { depth: depth - 1, ..at });
            Some((record, depth))
        })
    }

    /// The history as core reads it from a server's files.
    pub fn history(&self, at: Place) -> History {
        let mut ancestors = Vec::new();
        let mut place = at;
        while let Some(origin) = self.origin(place) {
            let (timeline, end) = (self.timeline(origin), self.lsn(origin));
            // Where two logs of one number parted there is no file that tells of it.
            if timeline != self.timeline(place) {
                ancestors.push(Ancestor { timeline, end, reason: "no recovery target specified".into() });
            }
            place = origin;
        }
        ancestors.reverse();
        History { ancestors, timeline: self.timeline(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use matriarch_core::timeline::Relation;

    fn commits(wal: &mut Wal, mut at: Place, count: u64) -> Place {
        for n in 0..count {
            at = wal.append(at, Record::Commit(Serial(n)));
        }
        at
    }

    #[test]
    fn a_standby_that_stopped_where_another_was_promoted_is_a_prefix() {
        let mut wal = Wal::default();
        let first = wal.begin(SystemId(1));
        let old = commits(&mut wal, first, 5);
        let middle = Place { depth: 4, ..old };
        let promoted = wal.fork(middle, Timeline(2));
        let new = wal.append(promoted, Record::EndOfRecovery);
        assert!(wal.contains(new, middle) && wal.contains(new, promoted) && wal.contains(old, middle));
        assert!(!wal.contains(new, old) && !wal.contains(old, new));
        assert_eq!(wal.shared(new, old), middle);
        assert_eq!(wal.on_the_way(new, 4), Place { branch: old.branch, depth: 4 });
        assert_eq!(wal.on_the_way(new, 5), new);
        let history = wal.history(new);
        assert_eq!(
            history.relation(wal.lsn(new), &wal.history(old), wal.lsn(old)),
            Relation::Diverged { at: wal.lsn(middle) }
        );
    }

    #[test]
    fn two_branches_of_one_number_are_not_one() {
        let mut wal = Wal::default();
        let first = wal.begin(SystemId(1));
        let end = commits(&mut wal, first, 3);
        let (left, right) = (wal.fork(end, Timeline(2)), wal.fork(Place { depth: 2, ..end }, Timeline(2)));
        let (left, right) = (wal.append(left, Record::EndOfRecovery), wal.append(right, Record::EndOfRecovery));
        assert_eq!(wal.shared(left, right).depth, 2);
        assert_ne!(wal.history(left), wal.history(right));
        assert!(wal.are_twins(left, right) && !wal.are_twins(left, end));
    }

    #[test]
    fn a_log_that_parts_under_one_number_leaves_no_trace_in_the_history() {
        let mut wal = Wal::default();
        let first = wal.begin(SystemId(1));
        let end = commits(&mut wal, first, 3);
        let other = wal.append(Place { depth: end.depth - 1, ..end }, Record::Commit(Serial(9)));
        assert!(other.branch != end.branch && !wal.contains(end, other));
        assert_eq!(wal.history(other), wal.history(end));
    }

    #[test]
    fn what_was_never_on_disk_is_lost_and_written_anew() {
        let mut wal = Wal::default();
        let first = wal.begin(SystemId(1));
        commits(&mut wal, first, 2);
        wal.lose_behind(first);
        assert_eq!(commits(&mut wal, first, 1).depth, first.depth + 1);
    }
}
