//! The simulator's servers.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch_core::action::PostgresAction;
use matriarch_core::event::PostgresDone;
use matriarch_core::op::Outcome;
use matriarch_core::view::postgres::{Cluster, DataDir, Process, Sql, Upstream};
use matriarch_sim::fault::{What, Where};
use matriarch_sim::node::NodeId;
use matriarch_sim::postgres::OnDisk;
use matriarch_sim::postgres::wal::{Record, Serial};
use matriarch_tests::Model;

use crate::{Blow, COMMIT_MAX, Servers};

/// Three servers of the model.
pub(crate) struct ModelServers {
    model: Model,
    /// The row of each commit that was asked for.
    rows: BTreeMap<Serial, u64>,
    paused: Option<usize>,
    /// Commits that backends without a postmaster were asked for.
    orphans: u64,
    /// How deep the WAL is in which another file begins.
    next_file: u64,
}

/// Rows from here on are those of backends without a postmaster.
const ORPHANS: u64 = 1 << 32;

impl ModelServers {
    pub(crate) fn new() -> Self {
        Self { model: Model::new(1, 3, 1, 1000), rows: BTreeMap::new(), paused: None, orphans: 0, next_file: 0 }
    }

    fn on_disk(&mut self, server: usize) -> &mut OnDisk {
        self.model.world.nodes[server].server.cluster_mut().expect("a cluster")
    }

    fn is_acknowledged(&self, row: u64) -> bool {
        let mut acknowledged = self.model.world.ledger.acknowledged.iter();
        acknowledged.any(|told| self.rows.get(&told.serial) == Some(&row))
    }

    fn write(&mut self, server: usize, row: u64) -> bool {
        let serial = self.model.world.client_asks(server);
        self.rows.insert(serial, row);
        self.model.pass(COMMIT_MAX);
        self.is_acknowledged(row)
    }
}

impl Servers for ModelServers {
    async fn order(&mut self, server: usize, what: PostgresAction, limit: Duration) -> Option<Outcome<PostgresDone>> {
        self.model.postgres(server, what, limit)
    }

    fn upstream(&self, server: usize) -> Upstream {
        Upstream { member: self.model.world.names[server].clone(), host: String::new(), port: 0 }
    }

    async fn commit(&mut self, server: usize, row: u64) -> bool {
        self.write(server, row)
    }

    async fn acknowledged_late(&mut self, row: u64) -> bool {
        self.model.pass(COMMIT_MAX);
        self.is_acknowledged(row)
    }

    async fn orphan_commits(&mut self, server: usize) -> bool {
        self.orphans += 1;
        self.write(server, ORPHANS + self.orphans)
    }

    async fn rows(&mut self, server: usize) -> Option<Vec<u64>> {
        let world = &self.model.world;
        let server = &world.nodes[server].server;
        let replayed = server.cluster().filter(|_| server.is_ready())?.replayed;
        let record = |depth| world.wal.last(world.wal.on_the_way(replayed, depth));
        let committed = (1..=replayed.depth).filter_map(|depth| match record(depth) {
            Some(Record::Commit(serial)) => self.rows.get(&serial).copied(),
            _ => None,
        });
        Some(committed.filter(|row| *row < ORPHANS).collect())
    }

    async fn sql(&mut self, server: usize) -> Option<Sql> {
        let world = &self.model.world;
        world.nodes[server].server.sql(&world.wal, world.now, &world.names)
    }

    async fn cluster(&mut self, server: usize) -> Cluster {
        let world = &self.model.world;
        match world.nodes[server].server.data(&world.wal) {
            DataDir::Cluster(cluster) => cluster,
            other => panic!("{other:?}"),
        }
    }

    async fn process(&mut self, server: usize) -> Process {
        self.model.world.nodes[server].server.process()
    }

    async fn befalls(&mut self, server: usize, blow: Blow) {
        let there = Where::Node(server);
        match blow {
            Blow::Kill => drop(self.model.strikes(What::KillPostgres(there))),
            Blow::Behead => drop(self.model.strikes(What::KillPostmaster(there, 1))),
            Blow::KillBackend => drop(self.model.strikes(What::KillBackend(there))),
            Blow::Hold => self.model.world.nodes[server].server.held = true,
            Blow::Resume => self.model.world.goes_on(NodeId(server)),
            Blow::PauseReplay => self.paused = Some(self.model.strikes(What::PauseReplay(there))),
            Blow::ResumeReplay => {
                let paused = self.paused.take().expect("a pause");
                self.model.ends(paused);
            }
            // The model makes none unless it is told to.
            Blow::HoldCheckpoints => {}
            Blow::NextWalFile => self.next_file = self.on_disk(server).end.depth,
            Blow::LoseWalFile => {
                let end = self.on_disk(server).end;
                let kept = self.model.world.wal.on_the_way(end, self.next_file);
                let on_disk = self.on_disk(server);
                (on_disk.end, on_disk.flushed, on_disk.replayed) = (kept, kept, kept);
            }
        }
    }

    async fn pass(&mut self, time: Duration) {
        self.model.pass(time);
    }
}
