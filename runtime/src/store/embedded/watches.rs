//! Who is told of which changes.

use std::collections::BTreeMap;

use etcd_client::proto::{PbEvent, PbWatchResponse};
use tokio::sync::mpsc;
use tonic::Status;

use super::history::{History, concerns, revision};
use super::query::KeyRange;
use super::state::State;

/// Responses that wait for a slow watcher before its stream is closed; it can go on from its last revision.
pub(super) const RESPONSES_WAITING_MAX: usize = 1024;

pub(super) type Response = Result<PbWatchResponse, Status>;

/// A request of a watch stream; `stream` is the stream's number.
pub(super) enum WatchCommand {
    Open {
        stream: u64,
        out: mpsc::Sender<Response>,
    },
    Create {
        stream: u64,
        wanted: Wanted,
    },
    Cancel {
        stream: u64,
        watch_id: i64,
    },
    Progress {
        stream: u64,
    },
    Close {
        stream: u64,
    },
    /// Forget the history before a revision: it decides where watches can start.
    Compact {
        revision: i64,
    },
}

/// What a watch wants to hear.
pub(super) struct Wanted {
    pub(super) range: KeyRange,
    /// The first revision; 0 for the next.
    pub(super) from: i64,
    /// The id that the client chose; 0 for any.
    pub(super) watch_id: i64,
    pub(super) prev_kv: bool,
    pub(super) no_puts: bool,
    pub(super) no_deletes: bool,
}

struct Stream {
    out: mpsc::Sender<Response>,
    next_id: i64,
    watches: BTreeMap<i64, Wanted>,
}

/// All watch streams.
#[derive(Default)]
pub(super) struct Watches(BTreeMap<u64, Stream>);

impl Watches {
    pub(super) fn command(&mut self, command: WatchCommand, state: &State, history: &mut History) {
        match command {
            WatchCommand::Open { stream, out } => {
                self.0.insert(stream, Stream { out, next_id: 0, watches: BTreeMap::new() });
            }
            WatchCommand::Create { stream, wanted } => {
                self.with(stream, |stream| stream.create(wanted, state, history));
            }
            WatchCommand::Cancel { stream, watch_id } => self.with(stream, |stream| {
                let known = stream.watches.remove(&watch_id).is_some();
                !known || stream.send(PbWatchResponse { watch_id, canceled: true, ..response(state) })
            }),
            WatchCommand::Progress { stream } => {
                // etcd's id for "all watches of the stream".
                self.with(stream, |stream| stream.send(PbWatchResponse { watch_id: -1, ..response(state) }));
            }
            WatchCommand::Close { stream } => drop(self.0.remove(&stream)),
            WatchCommand::Compact { revision } => history.forget_before(revision),
        }
    }

    /// Tells everyone concerned of changes that are durable now.
    pub(super) fn publish(&mut self, events: &[PbEvent], state: &State) {
        if events.is_empty() {
            return;
        }
        self.0.retain(|_, stream| {
            let told = |(id, wanted): (&i64, &Wanted)| {
                let concerned = events.iter().filter(|event| concerns(event, &wanted.range)).cloned();
                stream.tell(*id, wanted, concerned.collect(), state)
            };
            stream.watches.iter().all(told)
        });
    }

    /// Runs `action` on a stream, and closes it if that says that it cannot keep up.
    fn with(&mut self, stream: u64, action: impl FnOnce(&mut Stream) -> bool) {
        if self.0.get_mut(&stream).is_some_and(|stream| !action(stream)) {
            self.0.remove(&stream);
        }
    }
}

impl Stream {
    fn create(&mut self, wanted: Wanted, state: &State, history: &History) -> bool {
        let id = if wanted.watch_id == 0 { self.unused_id() } else { wanted.watch_id };
        let created = PbWatchResponse { watch_id: id, created: true, ..response(state) };
        if self.watches.contains_key(&id) {
            let cancel_reason = "etcdserver: mvcc: watch ID is a duplicate".to_owned();
            return self.send(PbWatchResponse { watch_id: -1, canceled: true, cancel_reason, ..created });
        }
        if !self.send(created) {
            return false;
        }
        if wanted.from > 0 && wanted.from < history.oldest() {
            let compact_revision = history.oldest();
            let cancel_reason = "etcdserver: mvcc: required revision has been compacted".to_owned();
            let canceled =
                PbWatchResponse { watch_id: id, canceled: true, compact_revision, cancel_reason, ..response(state) };
            return self.send(canceled);
        }
        let past = if wanted.from > 0 { history.select(&wanted.range, wanted.from) } else { Vec::new() };
        let from = if wanted.from == 0 { state.revision + 1 } else { wanted.from };
        let wanted = Wanted { from, ..wanted };
        let told = self.tell(id, &wanted, past, state);
        self.watches.insert(id, wanted);
        told
    }

    fn tell(&self, id: i64, wanted: &Wanted, events: Vec<PbEvent>, state: &State) -> bool {
        let filtered = |event: &PbEvent| if event.r#type == 0 { wanted.no_puts } else { wanted.no_deletes };
        let events: Vec<PbEvent> = events
            .into_iter()
            .filter(|event| revision(event) >= wanted.from && !filtered(event))
            .map(|event| PbEvent { prev_kv: event.prev_kv.filter(|_| wanted.prev_kv), ..event })
            .collect();
        events.is_empty() || self.send(PbWatchResponse { watch_id: id, events, ..response(state) })
    }

    fn send(&self, response: PbWatchResponse) -> bool {
        self.out.try_send(Ok(response)).is_ok()
    }

    fn unused_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }
}

fn response(state: &State) -> PbWatchResponse {
    PbWatchResponse { header: Some(state.header()), ..PbWatchResponse::default() }
}
