//! `version`: of this program, and of members. Scripts compare it with what they need: it is Patroni's that is spoken.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use super::format::text_of;
use super::{Ctl, CtlError, members};
use crate::wire::PATRONI_LEVEL;

/// How long a member may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// The version that this program goes by.
pub(super) fn own() -> String {
    format!("patronictl version {PATRONI_LEVEL}")
}

pub(super) async fn of_members(mut ctl: Ctl<'_>, cluster: &str, named: &[String]) -> Result<(), CtlError> {
    ctl.console.line(&own())?;
    ctl.console.line("")?;
    let read = ctl.read(cluster).await?;
    let asked = members::all(&read).filter(|member| !member.api_url().is_empty());
    for member in asked.filter(|member| named.is_empty() || named.iter().any(|name| name == member.name())) {
        let told = ask(&ctl, member.api_url()).await.unwrap_or_else(|why| format!("failed to get version: {why}"));
        ctl.console.line(&format!("{}: {told}", member.name()))?;
    }
    Ok(())
}

async fn ask(ctl: &Ctl<'_>, api_url: &str) -> Result<String, String> {
    let answer = ctl.request(Method::GET, api_url, None, LIMIT).await;
    let (_, body) = answer.map_err(|error| error.to_string())?;
    let status: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    let version = status.pointer("/patroni/version").map_or_else(|| "None".to_owned(), text_of);
    let server = status.get("server_version").and_then(Value::as_u64).filter(|number| *number > 0);
    Ok(format!("Patroni {version}{}", server.map(postgresql).unwrap_or_default()))
}

/// ` PostgreSQL 15.18` of 150018.
fn postgresql(number: u64) -> String {
    match number {
        ..100_000 => format!(" PostgreSQL {}.{}.{}", number / 10_000, number / 100 % 100, number % 100),
        _ => format!(" PostgreSQL {}.{}", number / 10_000, number % 100),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn servers_are_called_as_people_call_them() {
        let called = [90_624, 100_000, 140_008, 150_018].map(super::postgresql);
        assert_eq!(called, [" PostgreSQL 9.6.24", " PostgreSQL 10.0", " PostgreSQL 14.8", " PostgreSQL 15.18"]);
    }
}
