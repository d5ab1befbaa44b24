//! Slots on a primary and on a standby, as core wants to see and to move them.

use matriarch_core::id::Lsn;
use matriarch_core::view::postgres::{Slot, StartAs};
use matriarch_tests::single::base;

use super::node::{Node, any_time, done, until};

async fn slot(node: &Node, name: &str) -> Option<Slot> {
    node.sql().await.slots.into_iter().find(|slot| slot.name == name)
}

#[tokio::test]
async fn a_look_tells_what_kind_of_slot_each_is() {
    let base = base();
    let node = Node::new(base.path(), "node");
    let mut settings = (*node.postgres.settings()).clone();
    let level = settings.command_line.iter_mut().find(|(name, _)| name == "wal_level").unwrap();
    level.1 = "logical".into();
    node.postgres.apply_settings(settings);
    done(node.postgres.initdb(&|_| ()).await);
    done(node.postgres.start(StartAs::Primary, &any_time()).await);
    done(node.postgres.create_slot("physical").await);
    node.run("SELECT pg_create_physical_replication_slot('idle')").await;
    node.run("SELECT pg_create_logical_replication_slot('decodes', 'pgoutput')").await;
    let physical = slot(&node, "physical").await.unwrap();
    assert!(physical.physical && physical.database.is_empty() && physical.plugin.is_empty() && !physical.pins_rows);
    assert!(physical.restart > Lsn(0) && slot(&node, "idle").await.unwrap().restart == Lsn(0));
    let decodes = slot(&node, "decodes").await.unwrap();
    assert_eq!((decodes.physical, decodes.database.as_str(), decodes.plugin.as_str()), (false, "postgres", "pgoutput"));
    // Whoever reads a logical slot gets everything: it is not moved past what was not read.
    node.run("SELECT pg_switch_wal()").await;
    let to = node.sql().await.flushed;
    done(node.postgres.advance_slot("decodes", to).await);
    assert_eq!(slot(&node, "decodes").await, Some(decodes));
}

#[tokio::test]
async fn a_standbys_slot_is_made_and_moved_and_pins_what_its_reader_said() {
    let base = base();
    let primary = Node::primary(base.path(), "primary").await;
    let standby = primary.clone_as(base.path(), "standby").await;
    done(standby.postgres.create_slot("archive").await);
    let made = slot(&standby, "archive").await.unwrap();
    assert!(made.physical && made.restart > Lsn(0) && !made.active);
    primary.run("SELECT pg_switch_wal()").await;
    primary.run("CREATE TABLE more AS SELECT 1 AS n").await;
    let to = primary.sql().await.flushed;
    until(async || standby.sql().await.replayed >= to).await;
    done(standby.postgres.advance_slot("archive", to).await);
    assert_eq!(slot(&standby, "archive").await.unwrap().restart, to);
    done(standby.postgres.advance_slot("archive", made.restart).await);
    assert_eq!(slot(&standby, "archive").await.unwrap().restart, to, "never back");
    let beyond = Lsn(to.0 + (64 << 20));
    done(standby.postgres.advance_slot("archive", beyond).await);
    let here = slot(&standby, "archive").await.unwrap().restart;
    assert!(here >= to && here <= standby.sql().await.replayed, "no further than it has replayed itself");
    // A standby that tells what its queries may still see leaves that behind in its slot.
    standby.run("ALTER SYSTEM SET hot_standby_feedback = on").await;
    standby.run("ALTER SYSTEM SET wal_receiver_status_interval = '1s'").await;
    standby.run("SELECT pg_reload_conf()").await;
    until(async || slot(&primary, "standby").await.is_some_and(|slot| slot.active && slot.pins_rows)).await;
}
