//! Watching a prefix through two members, as one stream of changes.
//!
//! A watch through one member is silent for as long as that member is frozen or cut off, and nothing tells that silence
//! from "nothing happened". So two copies run, each ordered and complete from the revision it was started at. Whichever
//! brings a revision first has it delivered; the other's is dropped. Both restart at the first revision that was not
//! delivered yet, so nothing is missed or repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Event, EventType, WatchOptions, WatchResponse};
use matriarch_core::id::Revision;
use matriarch_core::time::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Entry;
use super::etcd::Shared;
use super::horizon::standing;
use super::member::{Fault, Member, entry};

/// Events that wait for a slow reader before the watch itself waits.
const EVENTS_WAITING_MAX: usize = 256;
/// How long a member may take to confirm a new watch.
const CREATE_MAX: Duration = Duration::from_secs(2);
/// The pause before the second try after an error (the first is at once), doubled up to the largest.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Copies of a watch, if there are members enough.
const COPIES: usize = 2;

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The key was written.
    Put(Entry),
    /// The key was deleted: by a request, or with its lease.
    Delete {
        /// The whole key.
        key: String,
        /// The revision that deleted it.
        mod_revision: Revision,
    },
}

impl Change {
    /// The revision of the change.
    pub fn mod_revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.mod_revision,
            Self::Delete { mod_revision, .. } => *mod_revision,
        }
    }
}

/// What a watch tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEvent {
    /// Changes, each once, ordered by revision; those of one revision are never split.
    Changes {
        /// The revision of the last one.
        revision: Revision,
        /// The changes; never empty.
        changes: Vec<Change>,
        /// When they were here.
        heard: Instant,
    },
    /// The watch is over and changes may be missing: read the prefix again and watch from there.
    Lost {
        /// What happened, for the log.
        why: String,
    },
}

/// What the copies of a watch share.
struct Common {
    shared: Arc<Shared>,
    prefix: String,
    /// The first revision that was not delivered yet.
    next: AtomicI64,
    /// The store's id: of the last read, which said where to watch from, or the first one heard; 0 for none yet.
    store_id: AtomicU64,
    /// The index of the member that each copy is at.
    homes: [AtomicUsize; COPIES],
}

enum Ended {
    /// For good: the caller has to read again.
    Lost(String),
    /// The member failed, or ended the watch.
    Failed,
}

pub(super) fn start(shared: Arc<Shared>, prefix: &str, from: Revision) -> mpsc::Receiver<WatchEvent> {
    let (out, events) = mpsc::channel(EVENTS_WAITING_MAX);
    let order = shared.order();
    let home = |nth: usize| AtomicUsize::new(order.get(nth % order.len()).map_or(0, |(index, _)| *index));
    let common = Arc::new(Common {
        prefix: prefix.to_owned(),
        next: AtomicI64::new(from.0),
        store_id: AtomicU64::new(shared.horizon.store_id().0),
        homes: [home(0), home(1)],
        shared,
    });
    tokio::spawn(merge(common, out));
    events
}

/// Runs the copies and delivers what is new, until the reader is gone or changes may be missing.
async fn merge(common: Arc<Common>, out: mpsc::Sender<WatchEvent>) {
    let (copies_out, mut merged) = mpsc::channel::<Result<(Vec<Change>, Instant), String>>(COPIES);
    let mut copies = JoinSet::new();
    for nth in 0..COPIES.min(common.shared.members.len()) {
        copies.spawn(copy(common.clone(), nth, copies_out.clone()));
    }
    drop(copies_out);
    loop {
        let heard = tokio::select! {
            biased;
            () = out.closed() => return,
            heard = merged.recv() => heard,
        };
        let event = match heard {
            None => return,
            Some(Err(why)) => WatchEvent::Lost { why },
            Some(Ok((mut changes, heard))) => {
                let next = common.next.load(Ordering::Relaxed);
                changes.retain(|change| change.mod_revision().0 >= next);
                let Some(revision) = changes.last().map(Change::mod_revision) else { continue };
                common.next.store(revision.0 + 1, Ordering::Relaxed);
                WatchEvent::Changes { revision, changes, heard }
            }
        };
        let last = matches!(event, WatchEvent::Lost { .. });
        if out.send(event).await.is_err() || last {
            return;
        }
    }
}

/// Keeps one copy running, through one member after the other.
async fn copy(common: Arc<Common>, nth: usize, out: mpsc::Sender<Result<(Vec<Change>, Instant), String>>) {
    let members = &common.shared.members;
    let mut pause = Duration::ZERO;
    loop {
        let home = common.homes[nth].load(Ordering::Relaxed) % members.len();
        let member = members[home].clone();
        let started = tokio::time::Instant::now();
        if let Ended::Lost(why) = follow(&common, &member, &out).await {
            // The reader being gone is no loss.
            drop(out.send(Err(why)).await);
            return;
        }
        // One that failed at once, even if it confirmed the watch, is not asked again at once for ever.
        if started.elapsed() > RETRY_PAUSE_MAX {
            pause = Duration::ZERO;
        }
        let others = common.homes[(nth + 1) % COPIES].load(Ordering::Relaxed);
        let next = (1..=members.len()).map(|step| (home + step) % members.len()).find(|index| *index != others);
        common.homes[nth].store(next.unwrap_or(home), Ordering::Relaxed);
        sleep(pause).await;
        pause = (pause * 2).clamp(RETRY_PAUSE, RETRY_PAUSE_MAX);
    }
}

/// Follows the prefix through one member until that fails.
async fn follow(common: &Common, member: &Member, out: &mpsc::Sender<Result<(Vec<Change>, Instant), String>>) -> Ended {
    let from = common.next.load(Ordering::Relaxed);
    let Ok(Ok(mut stream)) = timeout(CREATE_MAX, open(common, member, from)).await else {
        member.mark_failed();
        return Ended::Failed;
    };
    let mut was_up = false;
    loop {
        // Only the confirmation has a deadline; the connection's own probes notice a dead peer.
        let message = if was_up {
            stream.message().await
        } else {
            timeout(CREATE_MAX, stream.message()).await.unwrap_or(Ok(None))
        };
        let Ok(Some(reply)) = message else { return Ended::Failed };
        let heard = member.clock.now();
        match judge(common, member, from, &reply).await {
            Ok(()) => {}
            Err(ended) => return ended,
        }
        was_up |= reply.created();
        member.mark_heard();
        let changes: Vec<Change> = reply.events().iter().filter_map(change).collect();
        if !changes.is_empty() && out.send(Ok((changes, heard))).await.is_err() {
            return Ended::Failed;
        }
    }
}

async fn open(common: &Common, member: &Member, from: i64) -> Result<etcd_client::WatchStream, Fault> {
    let mut client = member.client().await?.watch_client();
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    client.watch(common.prefix.as_str(), Some(options)).await.map_err(|error| member.fault(error))
}

/// Whether the watch goes on after `reply`.
async fn judge(common: &Common, member: &Member, from: i64, reply: &WatchResponse) -> Result<(), Ended> {
    let store_id = reply.header().map_or(0, etcd_client::ResponseHeader::cluster_id);
    let known = common.store_id.compare_exchange(0, store_id, Ordering::Relaxed, Ordering::Relaxed);
    if let Err(known) = known
        && known != store_id
    {
        return Err(Ended::Lost(format!("{} is of another store ({store_id:x}, was {known:x})", member.host)));
    }
    if reply.compact_revision() > 0 {
        let (host, compacted) = (&member.host, reply.compact_revision());
        return Err(Ended::Lost(format!("{host}: revision {from} is compacted, the oldest is {compacted}")));
    }
    // Whoever reads asks again and again until that is believed; a watch that is only begun again asks nothing.
    if common.shared.horizon.is_told_the_past() {
        return Err(Ended::Lost(format!("{}: the store went back, and is not believed yet", member.host)));
    }
    // A member of an earlier raft term lags behind an election, or was restored: another one is asked.
    if reply.canceled() || reply.header().is_some_and(|head| !common.shared.horizon.admit_watch(standing(head))) {
        return Err(Ended::Failed);
    }
    let revision = reply.header().map_or(0, etcd_client::ResponseHeader::revision);
    if reply.created() && revision + 1 < from {
        return ahead_of_store(common, member, from).await;
    }
    Ok(())
}

/// The member's own revision is before the one to watch from. It may lag; or the store went back, and would say nothing
/// until it came there again. A linearizable read tells.
async fn ahead_of_store(common: &Common, member: &Member, from: i64) -> Result<(), Ended> {
    let read = timeout(CREATE_MAX, common.shared.read_key_at(member, &common.prefix)).await;
    let Ok(Ok(read)) = read else { return Err(Ended::Failed) };
    if read.revision.0 + 1 < from {
        let (host, revision) = (&member.host, read.revision);
        return Err(Ended::Lost(format!("{host}: the store is at revision {revision}, before {from}: it went back")));
    }
    Ok(())
}

fn change(event: &Event) -> Option<Change> {
    let kv = event.kv()?;
    Some(match event.event_type() {
        EventType::Put => Change::Put(entry(kv)),
        EventType::Delete => {
            let key = String::from_utf8_lossy(kv.key()).into_owned();
            Change::Delete { key, mod_revision: Revision(kv.mod_revision()) }
        }
    })
}
