//! What the runtime sees of the store: the keys of the cluster, parsed.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::event::ScheduledRestart;
use crate::id::{LeaseId, Lsn, Member, Revision, StoreId, SystemId, Timeline};
use crate::time::{Instant, Seen, WallMillis};

/// Everything known of the store.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StoreFacts {
    /// The keys of the cluster as last seen, by a read or by a watch.
    pub cluster: Option<Seen<ClusterView>>,
    /// When the newest question that any member of the store has answered was asked.
    pub answered: Instant,
    /// When the leader key was heard to be gone, and who had held it; cleared when a leader is seen.
    pub vanished: Option<Vanished>,
}

/// The leader key was there and is not any more.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Vanished {
    /// When it was heard.
    pub heard: Instant,
    /// Who had held it.
    pub who: Member,
    /// It had stopped cleanly and released the key: the revision of the status that was written with that.
    pub released: Option<Revision>,
}

/// The keys of the cluster at one revision.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ClusterView {
    /// The identity of the store.
    pub store: StoreId,
    /// How often that store was found to have gone back, restored from a backup, while this agent ran.
    pub rollbacks: u64,
    /// The revision of this view.
    pub revision: Revision,
    /// `initialize`.
    pub initialize: Option<Initialize>,
    /// `leader`.
    pub leader: Option<LeaderKey>,
    /// `members/*`.
    pub members: BTreeMap<Member, MemberKey>,
    /// `failover`, unless it holds no request.
    pub failover: Option<FailoverKey>,
    /// `mod_revision` of `failover`, whatever it holds; 0 if absent.
    pub failover_revision: Revision,
    /// `mod_revision` of `config`; 0 if absent or not an object.
    pub config_revision: Revision,
    /// What `config` says of maintenance mode (`pause`); `None`: it says nothing, being absent or not an object.
    pub paused: Option<bool>,
    /// `mod_revision` of `sync`; 0 if absent.
    pub sync_revision: Revision,
    /// `status`.
    pub status: Option<StatusKey>,
    /// `history`.
    pub history: HistoryKey,
    /// `matriarch`: the record of the last tenure.
    pub epoch: Option<EpochRecord>,
}

/// `initialize`: empty while a node bootstraps, the system identifier afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Initialize {
    /// `mod_revision`.
    pub revision: Revision,
    /// The lease that it is bound to while it is empty: whose record hangs on it initialises. 0: none.
    pub lease: LeaseId,
    /// The system identifier, if it is a valid one.
    pub system_id: Option<SystemId>,
}

/// `leader`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LeaderKey {
    /// The bare member name.
    pub member: Member,
    /// The lease that it is bound to: the tenure.
    pub lease: LeaseId,
    /// `create_revision`: the epoch.
    pub created: Revision,
    /// `mod_revision`.
    pub modified: Revision,
}

/// `members/<name>`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MemberKey {
    /// `mod_revision`.
    pub revision: Revision,
    /// The lease that it is bound to.
    pub lease: LeaseId,
    /// What it says.
    pub record: MemberRecord,
}

/// The JSON object of a member, as far as decisions need it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MemberRecord {
    /// `conn_url`: host.
    pub host: String,
    /// `conn_url`: port.
    pub port: u16,
    /// `api_url`.
    pub api_url: String,
    /// `state`, spec appendix A.1.
    pub state: String,
    /// `role`: `primary`, `replica`, `demoted`, `uninitialized`, ...
    pub role: String,
    /// `timeline`; 0 if absent.
    pub timeline: Timeline,
    /// `xlog_location`; 0 if absent.
    pub position: Lsn,
    /// `receive_lsn`; 0 if absent.
    pub received: Lsn,
    /// `replay_lsn`; 0 if absent.
    pub replayed: Lsn,
    /// `replication_state`: `streaming`, `in archive recovery`, or empty.
    pub replication_state: String,
    /// `checkpoint_after_promote` is there and false.
    pub checkpoint_pending: bool,
    /// The effective tag `nofailover`.
    pub nofailover: bool,
    /// The effective tag `failover_priority`.
    pub failover_priority: i32,
    /// The tag `nostream`.
    pub nostream: bool,
    /// The tag `clonefrom`.
    pub clonefrom: bool,
    /// The tag `replicatefrom`.
    pub replicatefrom: Option<Member>,
    /// It is one of ours: it can pledge. A Patroni member cannot.
    pub pledges: bool,
    /// `pause`: it sees the cluster as paused.
    pub paused: bool,
    /// Parameters waiting for a restart: name, old value, new value.
    pub pending_restart: Vec<(String, String, String)>,
    /// The restart that is scheduled on this node; of others it is not read.
    pub scheduled_restart: Option<Box<ScheduledRestart>>,
}

impl MemberRecord {
    /// It says of itself that it is a running primary.
    pub fn serves(&self) -> bool {
        self.state == "running" && matches!(self.role.as_str(), "primary" | "master")
    }

    /// It tells where its agent answers. What cannot be read tells nothing.
    pub fn can_be_asked(&self) -> bool {
        !self.api_url.is_empty()
    }

    /// It is not barred, and can be asked.
    pub fn may_be_elected(&self) -> bool {
        !self.nofailover && self.can_be_asked()
    }

    /// And it runs.
    pub fn is_electable(&self) -> bool {
        self.may_be_elected() && self.state == "running"
    }

    /// It has a data directory. One whose server is stopped or only starting tells no position.
    pub fn has_data(&self) -> bool {
        // Whose agent has not looked at its directory yet says that it has none.
        self.was_born() || self.state == "unknown" || !matches!(self.role.as_str(), "uninitialized" | "")
    }

    /// Its data are those of a cluster that was completed: nobody has data to run on or to stand by with before.
    pub fn was_born(&self) -> bool {
        self.position > Lsn(0) || self.timeline > Timeline(0) || self.role == "replica"
    }
}

/// `failover`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FailoverKey {
    /// `mod_revision`.
    pub revision: Revision,
    /// `leader`: a switchover away from this member; absent: a manual failover.
    pub leader: Option<Member>,
    /// `member`: the candidate.
    pub candidate: Option<Member>,
    /// `scheduled_at`.
    pub scheduled_at: Option<WallMillis>,
}

/// `status`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StatusKey {
    /// `mod_revision`.
    pub revision: Revision,
    /// `optime`: the leader's last published position.
    pub optime: Lsn,
    /// The timeline of it, whose beginning is the end of the last line before it in the history; 0 if it is not told,
    /// as by Patroni.
    pub timeline: Timeline,
    /// `slots`.
    pub slots: BTreeMap<String, Lsn>,
    /// `retain_slots`.
    pub retain: Vec<String>,
}

impl StatusKey {
    /// One that cannot be understood tells no position.
    pub fn tells(&self) -> bool {
        self.optime > Lsn(0)
    }
}

/// `history`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HistoryKey {
    /// `mod_revision`; 0 if absent.
    pub revision: Revision,
    /// Its lines, ascending.
    pub lines: Vec<HistoryLine>,
    /// It is there and says nothing that can be understood, which is not the same as that no timeline has ended.
    pub unreadable: bool,
}

impl HistoryKey {
    /// A key that is absent or unreadable tells neither which timelines have ended nor that none has.
    pub fn tells(&self) -> bool {
        self.revision != Revision(0) && !self.unreadable
    }
}

/// One line of `history`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HistoryLine {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where it ended.
    pub end: Lsn,
    /// Why, in the words of PostgreSQL's history file.
    pub reason: String,
    /// When (ISO 8601), if recorded.
    pub timestamp: Option<String>,
    /// The new leader, if recorded.
    pub leader: Option<String>,
}

/// `matriarch`: who led last, under which epoch, and where it began. Patroni ignores this key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EpochRecord {
    /// `mod_revision`.
    pub revision: Revision,
    /// The store that it was written to.
    pub store: StoreId,
    /// The `mod_revision` of the transaction that wrote it: equals the `create_revision` of the leader key then.
    pub epoch: Revision,
    /// The member.
    pub member: Member,
    /// The timeline that it was on when it took the key.
    pub timeline: Timeline,
    /// Its position then.
    pub position: Lsn,
    /// The greatest number that a timeline had, or might get under that tenure. 0 if it is not told.
    pub newest_timeline: Timeline,
    /// The cluster is paused, and that primary may write without its tenure, with no guard that ends it: nobody takes its
    /// place on his own before it has said that it writes under a guard again, or not at all.
    pub unguarded: bool,
}

impl ClusterView {
    /// The valid system identifier of the cluster, if it is initialised.
    pub fn system_id(&self) -> Option<SystemId> {
        self.initialize.and_then(|i| i.system_id)
    }

    /// The status that this member wrote, in one transaction with its record, with the release of its key, if it had
    /// stopped cleanly as a primary: what is published then is where its shutdown checkpoint begins. One that crashed, or
    /// could not serve, has published nothing of the kind. Nor does it say anything of a later tenure.
    ///
    /// The race: it has taken the key again, and that is gone before it has written another record.
    pub fn stopped_and_released(&self, member: &Member) -> Option<&StatusKey> {
        let (key, status) = self.members.get(member).zip(self.status.as_ref())?;
        let clean = key.record.state == "stopped" && key.record.role == "primary";
        let led_since = self.epoch.as_ref().filter(|record| record.store == self.store);
        let ended = led_since.is_none_or(|record| status.revision > record.epoch);
        (clean && key.revision == status.revision && ended).then_some(status)
    }

    /// Up to where a cluster that lived here has published its WAL, in `status` or `history`.
    pub fn was_published(&self) -> Option<Lsn> {
        let status = self.status.as_ref().map(|status| status.optime);
        status.into_iter().chain(self.history.lines.iter().map(|line| line.end)).max().filter(|lsn| *lsn > Lsn(0))
    }

    /// Its record tells where.
    pub fn can_be_asked(&self, member: &Member) -> bool {
        self.members.get(member).is_some_and(|key| key.record.can_be_asked())
    }

    /// The record of the member that holds the leader key.
    pub fn leader_record(&self) -> Option<&MemberRecord> {
        let leader = self.leader.as_ref()?;
        self.members.get(&leader.member).map(|m| &m.record)
    }
}
