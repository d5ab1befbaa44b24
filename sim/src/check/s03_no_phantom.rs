//! S3: no phantom. Each row that a server holds was asked for and not refused, and is in its WAL once; each row that was
//! acknowledged is where it was acknowledged. One of which its client heard nothing may be there or not.

use std::collections::BTreeMap;

use crate::postgres::wal::{Place, Record, Serial};
use crate::world::World;

impl World {
    /// When all is over, on the server that serves.
    pub(super) fn check_rows(&mut self) {
        let serving = self.serving().and_then(|node| self.nodes[node.0].place());
        if let Some(what) = serving.and_then(|end| self.phantom(end)) {
            self.violated("S3", what);
        }
    }

    fn phantom(&self, end: Place) -> Option<String> {
        let mut rows: BTreeMap<Serial, u64> = BTreeMap::new();
        for (record, depth) in self.wal.records(end) {
            let Record::Commit(serial) = record else { continue };
            if !self.ledger.may_be(serial) {
                return Some(format!("row {} was refused, or never asked for", serial.0));
            }
            if let Some(before) = rows.insert(serial, depth) {
                return Some(format!("row {} is there twice, at {before} and {depth}", serial.0));
            }
        }
        let held = self.ledger.acknowledged.iter().filter_map(|row| Some((row, *rows.get(&row.serial)?)));
        let moved = held.into_iter().find(|(row, depth)| row.place.depth != *depth);
        moved.map(|(row, depth)| {
            format!("row {} was acknowledged at {} and is at {depth}", row.serial.0, row.place.depth)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn rows_that_nobody_wrote_or_that_are_there_twice() {
        let written = |serial: fn(&World) -> u64| {
            broken(move |world| {
                let (node, serial) = (leader(world), serial(world));
                let server = &mut world.nodes[node.0].server;
                server.write(&mut world.wal, Record::Commit(Serial(serial)));
                world.check_rows();
            })
        };
        assert_eq!(written(|_| 1_000_000), Some("S3"));
        assert_eq!(written(|world| world.ledger.acknowledged[0].serial.0), Some("S3"));
        let kept = |refused: bool| {
            broken(move |world| {
                let node = leader(world);
                let mut rows = world.wal.records(world.nodes[node.0].place().unwrap());
                let serial = rows.find_map(|(record, _)| match record {
                    Record::Commit(serial) => Some(serial),
                    _ => None,
                });
                drop(rows);
                world.ledger.acknowledged.retain(|row| Some(row.serial) != serial);
                world.ledger.refused.extend(serial.filter(|_| refused));
                world.check_rows();
            })
        };
        assert_eq!(kept(true), Some("S3"), "its client was told that it is not there");
        assert_eq!(kept(false), None, "its client was told nothing");
        let lost = broken(|world| {
            let node = leader(world);
            let end = on_disk(world, node).end;
            on_disk(world, node).end = Place { depth: end.depth - 3, ..end };
            world.check_rows();
        });
        assert_eq!(lost, None, "what is lost is no phantom");
    }
}
