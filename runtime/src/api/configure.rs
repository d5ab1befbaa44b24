//! `PATCH /config` and `PUT /config`: the operator changes the dynamic configuration in the store. The agents, this one
//! included, take it from there: a change is in force where the watch has brought it, not when this has answered.

use hyper::Method;
use hyper::body::Incoming;
use matriarch_core::op::Outcome;
use serde_json::Value;

use super::reply::Reply;
use super::{Api, Call, cluster};
use crate::config::patch;
use crate::wire::keys;

/// Answers with the configuration as it then is. What it says is not judged, as with Patroni: the agents tell what they
/// make of it.
pub(super) async fn configure(api: &Api, call: &Call, body: Incoming) -> Reply {
    let outcome = if call.method == Method::PATCH { change(api, call, body).await } else { set(api, call, body).await };
    outcome.unwrap_or_else(|refusal| refusal)
}

/// Lays the body over what is there. Read from the store itself, not from the agent's copy: a change just made through
/// another node would pass for absent, and this one, then no change, be lost.
async fn change(api: &Api, call: &Call, body: Incoming) -> Result<Reply, Reply> {
    let changes = call.object(body, false).await?;
    let cluster = cluster::fresh(api).await.map_err(|why| Reply::error_page(503, &why))?;
    let Some(Value::Object(mut config)) = cluster.config else {
        return Err(Reply::error_page(503, "Service Unavailable"));
    };
    if patch::patch(&mut config, &changes) {
        let put = api.settings.borrow().store.put.clone();
        let value = Value::Object(config.clone()).to_string();
        match put(keys::CONFIG, value, Some(cluster.view.config_revision)).await {
            Outcome::Done(()) => {}
            Outcome::Refused(_) => return Err(Reply::error_page(409, "Conflict")),
            Outcome::Unknown(why) => return Err(Reply::error_page(503, &in_doubt(&why))),
        }
    }
    Ok(Reply::json(200, &Value::Object(config)))
}

/// Puts the body in the place of what is there, whatever that is.
async fn set(api: &Api, call: &Call, body: Incoming) -> Result<Reply, Reply> {
    let config = call.object(body, false).await?;
    let cluster = cluster::fresh(api).await.map_err(|why| Reply::error_page(503, &why))?;
    let same = matches!(&cluster.config, Some(Value::Object(current)) if patch::same(&config, current));
    let config = Value::Object(config);
    if !same {
        let put = api.settings.borrow().store.put.clone();
        match put(keys::CONFIG, config.to_string(), None).await {
            Outcome::Done(()) => {}
            Outcome::Refused(_) => return Err(Reply::error_page(502, "Bad Gateway")),
            Outcome::Unknown(why) => return Err(Reply::error_page(502, &in_doubt(&why))),
        }
    }
    Ok(Reply::json(200, &config))
}

fn in_doubt(why: &str) -> String {
    format!("It is not known whether the configuration was written: {why}")
}
