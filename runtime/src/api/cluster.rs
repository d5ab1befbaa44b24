//! The cluster as a whole: `/cluster`, `/history`, `/config`.

use serde_json::Value;

use super::reply::Reply;
use super::{Api, ClusterRead};
use crate::wire::history_json;

/// `GET /cluster`, freshly read: an operator must not be shown what has been.
pub(super) async fn cluster(api: &Api) -> Reply {
    match fresh(api).await {
        Ok(fresh) => Reply::json(200, &fresh.document),
        Err(why) => Reply::text(503, why),
    }
}

/// `GET /history`: as last seen, or freshly read while the store has not been seen.
pub(super) async fn history(api: &Api) -> Reply {
    let seen = api.with_facts(|facts| facts.view.cluster().map(|cluster| history_json(&cluster.history.lines)));
    let told = match seen {
        Some(history) => Ok(history),
        None => fresh(api).await.map(|fresh| history_json(&fresh.view.history.lines)),
    };
    match told {
        Ok(text) => Reply::json(200, &serde_json::from_str(&text).unwrap_or_else(|_| Value::Array(Vec::new()))),
        Err(why) => Reply::text(503, why),
    }
}

/// `GET /config`: the dynamic configuration as it is in the store.
pub(super) fn config(api: &Api) -> Reply {
    let dynamic: Option<Value> = api.handle.shared().dynamic.clone();
    dynamic.map_or_else(|| Reply::error_page(502, "Bad Gateway"), |dynamic| Reply::json(200, &dynamic))
}

/// The cluster's keys as they are now; the error says what is wrong with the store.
pub(super) async fn fresh(api: &Api) -> Result<ClusterRead, String> {
    let read = api.settings.borrow().store.read.clone();
    read().await
}
