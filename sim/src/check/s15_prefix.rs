//! S15: what streams is a prefix of its source. Looked at where WAL arrives (`streams.rs`).

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::node::NodeId;
    use crate::postgres::wal::{Place, Record, Serial};
    use crate::world::World;

    #[test]
    fn wal_that_does_not_continue_what_is_there() {
        let sent = |forked: bool| {
            broken(move |world| {
                let (from, node) = (leader(world), standby(world));
                let pid = |world: &World, node: NodeId| world.nodes[node.0].server.postmaster.as_ref().unwrap().pid;
                let mine = on_disk(world, node).end;
                let at = if forked { Place { depth: mine.depth - 1, ..mine } } else { mine };
                let branch = world.wal.fork(at, matriarch_core::id::Timeline(7));
                let one = world.wal.append(branch, Record::EndOfRecovery);
                let to = world.wal.append(one, Record::Commit(Serial(1_000_000)));
                world.wal_arrives(node, pid(world, node), (from, pid(world, from)), to);
            })
        };
        assert_eq!(sent(true), Some("S15"));
        assert_eq!(sent(false), None, "a standby follows onto a new timeline");
    }
}
