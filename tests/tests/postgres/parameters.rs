//! Parameters: what the server would refuse, what a standby may not go below, and what waits for a restart.

use matriarch::postgres::Settings;
use matriarch_core::view::postgres::StopMode;
use matriarch_tests::single::base;

use super::LONG;
use super::node::{Node, any_time, done, until};

async fn set(node: &Node, change: impl FnOnce(&mut Settings)) {
    let mut settings = (*node.postgres.settings()).clone();
    change(&mut settings);
    node.postgres.apply_settings(settings).await;
}

async fn shown(node: &Node, name: &str) -> String {
    node.run(&format!("SHOW {name}")).await.unwrap()
}

#[tokio::test]
async fn a_promoted_primary_waits_for_no_restart() {
    let base = base();
    let primary = Node::primary(base.path(), "a").await;
    let standby = primary.clone_as(base.path(), "b").await;
    done(primary.postgres.stop(StopMode::Fast, LONG).await);
    done(standby.postgres.promote(&any_time()).await);
    done(standby.postgres.reload_configuration().await);
    set(&standby, |settings| {
        settings.parameters.insert("work_mem".into(), "5MB".into());
    })
    .await;
    done(standby.postgres.reload_configuration().await);
    until(async || shown(&standby, "work_mem").await == "5MB").await;
    assert_eq!(standby.sql().await.pending_restart, []);
}
