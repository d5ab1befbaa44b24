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
        let mut told = Told::default();
        loop {
            tokio::time::sleep(PAUSE).await;
            self.renew(&api, &mut told).await;
        }
    }

    async fn renew(&self, api: &watch::Sender<ApiSettings>, told: &mut Told) {
        if let Some(slot) = &self.store {
            let current = slot.current();
            if let Some(tls) = renewed("etcd3", &current, &mut told.store).await {
                slot.replace_if(&current, tls);
            }
        }
        let current = self.peers.current();
        if let Some(tls) = renewed("ctl", &current, &mut told.peers).await {
            self.peers.replace_if(&current, tls);
        }
        let current = api.borrow().tls.clone();
        if let Some(current) = current
            && let Some(tls) = renewed("restapi", &current, &mut told.api).await
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

/// What was said of files that cannot be used.
#[derive(Default)]
struct Told {
    store: Option<Unusable>,
    peers: Option<Unusable>,
    api: Option<Unusable>,
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
                tracing::warn!(section, "certificates cannot be read again, the old ones stay: {why}");
            }
            *told = Some(why);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::tests::node::settings;
    use crate::tls::testing::Certificates;

    #[tokio::test]
    async fn files_that_change_are_taken_in_without_being_asked_for() {
        let files = Certificates::make();
        let (certificate, key) = (files.path("server.pem"), files.path("server.key"));
        let own = json!({"listen": "h:1", "certfile": certificate, "keyfile": key});
        let etcd3 = json!({
            "host": "h:1", "protocol": "https", "cacert": files.path("ca.pem"), "cert": certificate, "key": key,
        });
        let text = json!({
            "scope": "herd", "name": "a", "restapi": own, "etcd3": etcd3,
            "ctl": {"certfile": certificate, "keyfile": key, "cacert": files.path("ca.pem")},
            "postgresql": {"listen": "h:5432", "data_dir": "/d", "authentication": {"replication": {"username": "r"}}}
        });
        let environment = [("PATRONI_CONFIGURATION".to_owned(), text.to_string())];
        let local = crate::config::load(None, environment).unwrap().config;
        let slots = Slots::new(&local);
        let (api, _seen) = watch::channel(ApiSettings { tls: local.restapi.tls.clone(), ..settings() });
        let store = slots.store.clone().unwrap();
        let is_old = || {
            let api = api
                .borrow()
                .tls
                .as_ref()
                .is_some_and(|tls| local.restapi.tls.as_ref().is_some_and(|old| tls.is_as(old)));
            [store.current().is_as(local.etcd3.tls.as_ref().unwrap()), slots.peers.current().is_as(&local.ctl.tls), api]
        };
        let mut told = Told::default();
        slots.renew(&api, &mut told).await;
        assert_eq!(is_old(), [true; 3]);
        // A certificate without its key changes nothing, and is told of.
        files.copy("renewed.pem", "server.pem");
        slots.renew(&api, &mut told).await;
        assert_eq!(is_old(), [true; 3]);
        assert!(told.store.is_some() && told.peers.is_some() && told.api.is_some());
        files.copy("renewed.key", "server.key");
        slots.renew(&api, &mut told).await;
        assert_eq!(is_old(), [false; 3]);
        assert!(told.store.is_none() && told.peers.is_none() && told.api.is_none());
    }
}
