//! S5: two servers never acknowledge commits at one instant.

use crate::world::World;

impl World {
    /// S5: at no instant could two servers acknowledge a commit, whoever reaches them.
    pub(super) fn check_writers(&mut self) {
        let mut writers = self.nodes.iter().filter(|node| node.server.can_acknowledge());
        if let (Some(one), Some(other)) = (writers.next(), writers.next()) {
            let what = format!("{} and {} can both acknowledge commits", self.names[one.id.0], self.names[other.id.0]);
            self.violated("S5", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn two_that_can_acknowledge() {
        let second = |held: bool| {
            broken(move |world| {
                let node = standby(world);
                leaves_recovery(world, node);
                world.nodes[node.0].server.held = held;
                world.nodes[node.0].guard = None;
                world.check_after_event();
            })
        };
        assert_eq!(second(false), Some("S5"));
        assert_eq!(second(true), None, "what is held acknowledges nothing");
    }
}
