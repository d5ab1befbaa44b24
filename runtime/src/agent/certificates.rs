//! The agent's own certificates and those that it trusts, which change while it runs: with a reload of the
//! configuration, and with the files that it names.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::api::ApiSettings;
use crate::aside;
use crate::config::LocalConfig;
use crate::net::Connector;
use crate::tls::{ClientSlot, Settings, Tls, Unusable};

/// How often the files are read again. A certificate that nobody reloads is renewed days before it ends.
const PAUSE: Duration = Duration::from_mins(1);

/// The TLS of everything that the agent connects to. Connections that are made after a change have the new one.
#[derive(Clone)]
pub(super) struct Slots {
    store: Option<ClientSlot>,
    /// The other agents.
    pub(super) peers: ClientSlot,
}

impl Slots {
    /// As the configuration says.
    pub(super) fn new(local: &LocalConfig) -> Self {
        Self { store: local.etcd3.tls.clone().map(ClientSlot::new), peers: ClientSlot::new(local.ctl.tls.clone()) }
    }

    /// The way to the store.
    pub(super) fn to_store(&self, connector: Connector) -> Connector {
        match &self.store {
            Some(slot) => connector.over_tls(slot.clone()),
            None => connector,
        }
    }

    /// The configuration was read again.
    pub(super) fn take_in(&self, local: &LocalConfig) {
        self.peers.replace(local.ctl.tls.clone());
        if let (Some(slot), Some(tls)) = (&self.store, &local.etcd3.tls) {
            slot.replace(tls.clone());
        }
    }

    /// Reads the files of what is in force again and again, and takes in what has changed.
    pub(super) async fn renew_again_and_again(self, api: Arc<watch::Sender<ApiSettings>>) {
        let mut told: [Option<Unusable>; 3] = [None, None, None];
        let [store_told, peers_told, api_told] = &mut told;
        loop {
            tokio::time::sleep(PAUSE).await;
            if let Some(slot) = &self.store {
                let current = slot.current();
                if let Some(tls) = renewed("etcd3", &current, store_told).await {
                    slot.replace_if(&current, tls);
                }
            }
            let current = self.peers.current();
            if let Some(tls) = renewed("ctl", &current, peers_told).await {
                self.peers.replace_if(&current, tls);
            }
            let current = api.borrow().tls.clone();
            if let Some(current) = current
                && let Some(tls) = renewed("restapi", &current, api_told).await
            {
                // A reload may have been faster.
                api.send_if_modified(|settings| {
                    let is_same = settings.tls.as_ref().is_some_and(|tls| tls.is_as(&current));
                    if is_same {
                        settings.tls = Some(tls);
                    }
                    is_same
                });
            }
        }
    }
}

/// What the files hold now, if it is something else and can be used. Files that cannot be used are told of once.
async fn renewed<S>(section: &str, current: &Tls<S>, told: &mut Option<Unusable>) -> Option<Tls<S>>
where
    S: Settings<Config: Send + Sync> + Clone + Send + 'static,
{
    let current = current.clone();
    match aside::look(move || current.renewed()).await {
        Ok(found) => {
            *told = None;
            if found.is_some() {
                tracing::info!(section, "certificates that have changed on disk are used from now on");
            }
            found
        }
        Err(why) => {
            if told.as_ref() != Some(&why) {
                tracing::warn!(
                    section,
                    "certificates have changed on disk and cannot be used, the old ones stay: {why}"
                );
            }
            *told = Some(why);
            None
        }
    }
}
