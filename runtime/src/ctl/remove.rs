//! `remove`: the store forgets a cluster.

use matriarch_core::op::Outcome;

use super::format::Format;
use super::{Ctl, CtlError, STORE_LIMIT, failed, members};
use crate::store::{Guard, Operation, Transaction};
use crate::wire::keys;

/// What is typed to go on.
const AWARE: &str = "Yes I am aware";
/// Keys that are deleted at once: etcd takes 128 operations a transaction unless told otherwise.
const KEYS_MAX: usize = 100;

pub(super) async fn remove(mut ctl: Ctl<'_>, name: &str, format: Format) -> Result<(), CtlError> {
    let cluster = ctl.read(name).await?;
    ctl.console.print(&members::render(name, &cluster, format, false))?;
    if ctl.console.insist("Please confirm the cluster name to remove")? != name {
        return failed("Cluster names specified do not match");
    }
    let question = format!("You are about to remove all information in DCS for {name}, please type: \"{AWARE}\"");
    if ctl.console.insist(&question)? != AWARE {
        return failed(format!("You did not exactly type \"{AWARE}\""));
    }
    let leader = cluster.view.leader.as_ref();
    if let Some(leader) = leader {
        let question = "This cluster currently is healthy. Please specify the leader name to continue";
        if ctl.console.insist(question)? != leader.member.as_str() {
            return failed("You did not specify the current leader of the cluster");
        }
    }
    let base = format!("{}/", keys::base(&ctl.settings.namespace, name));
    // Who confirms takes their time, and what they confirmed is a cluster with this leader, or with none.
    let created = leader.map(|leader| leader.created).unwrap_or_default();
    delete_all(&ctl, &base, Guard::CreateRevision(format!("{base}{}", keys::LEADER), created)).await
}

async fn delete_all(ctl: &Ctl<'_>, base: &str, unchanged: Guard) -> Result<(), CtlError> {
    let read = ctl.store.read_prefix(base, STORE_LIMIT).await;
    let Some(snapshot) = read.done() else { return failed("the store does not answer; nothing was removed") };
    let mut guards = vec![unchanged];
    for keys in snapshot.entries.chunks(KEYS_MAX) {
        let operations = keys.iter().map(|entry| Operation::Delete(entry.key.clone())).collect();
        let transaction = Transaction { guards: std::mem::take(&mut guards), operations, ..Transaction::default() };
        match ctl.store.transact(transaction, STORE_LIMIT).await.outcome {
            Outcome::Done(_) => {}
            Outcome::Refused(_) => return failed("the leader has changed meanwhile; nothing was removed"),
            Outcome::Unknown(why) => {
                return failed(format!("it is not known whether everything was removed: {why}\nremove it again"));
            }
        }
    }
    Ok(())
}
