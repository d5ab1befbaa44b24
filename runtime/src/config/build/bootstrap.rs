//! Section `bootstrap`, with what it proposes as the dynamic configuration of a new cluster.

use serde_json::Value as Json;

use super::Build;
use crate::config::check::{join, whole};
use crate::config::dynamic::{DynamicConfig, without_effect};
use crate::config::ignored;
use crate::config::local::Bootstrap;
use crate::config::parameters::refused;
use crate::config::report::Problem;
use crate::config::schema::INITDB_FORBIDDEN;
use crate::config::yaml::Node;

impl Build<'_, '_> {
    pub(super) fn bootstrap(&mut self) -> Bootstrap {
        if self.at("bootstrap.users").is_some() {
            self.warn("bootstrap.users", "not used: Patroni 4 removed it; create users with `post_bootstrap` or SQL");
        }
        self.bootstrap_dcs();
        self.bootstrap_parameters();
        Bootstrap {
            given: self.at("bootstrap").is_some(),
            dcs: self.at("bootstrap.dcs").map_or_else(|| Json::Object(serde_json::Map::new()), Node::to_json),
            initdb: self.tool_options("bootstrap.initdb", INITDB_FORBIDDEN),
            pg_hba: self.lines("bootstrap.pg_hba").unwrap_or_default(),
        }
    }

    /// What is adjusted is announced while the file's author is still watching.
    fn bootstrap_dcs(&mut self) {
        let Some(dcs) = self.at("bootstrap.dcs") else { return };
        let value = |key: &str, default: i64| dcs.get(key).and_then(|n| whole(&n.value)).unwrap_or(default);
        let (ttl, retry_timeout) = (value("ttl", 30), value("retry_timeout", 10));
        if retry_timeout.saturating_mul(2).saturating_add(1) > ttl {
            let key = if dcs.get("ttl").is_some() { "bootstrap.dcs.ttl" } else { "bootstrap.dcs.retry_timeout" };
            self.suspect(key, impossible_timing(ttl, retry_timeout));
        }
        match DynamicConfig::from_json(&dcs.to_json()) {
            Ok((_, warnings)) => {
                // What another version acts on is no mistake of the operator's.
                let idle = without_effect(&dcs.to_json());
                // Each has been reported with its own line.
                let unknown = ignored::unknown(&dcs.to_json());
                for message in warnings.into_iter().filter(|message| !unknown.contains(message)) {
                    let kind = if idle.contains(&message) { Problem::warning } else { Problem::suspect };
                    self.problems.push(kind(dcs.span, "bootstrap.dcs".to_owned(), message));
                }
            }
            // A wrong type has been reported with its own line; anything else is reported here.
            Err(message) if !self.problems.iter().any(|p| p.path.starts_with("bootstrap.dcs")) => {
                self.refuse("bootstrap.dcs", message);
            }
            Err(_) => {}
        }
    }

    /// What PostgreSQL will be started with in place of a value that is none, while the file's author is still watching.
    fn bootstrap_parameters(&mut self) {
        let path = "bootstrap.dcs.postgresql.parameters";
        for (name, value) in self.at(path).map(Node::entries).unwrap_or_default() {
            let Some(name) = name.as_str() else { continue };
            if let Some(why) = refused(name, &value.to_json()) {
                self.problems.push(Problem::suspect(value.span, join(path, name), why));
            }
        }
    }
}

/// Why no `loop_wait` makes these two fit, and what does.
fn impossible_timing(ttl: i64, retry_timeout: i64) -> String {
    let needed = retry_timeout.saturating_mul(2).saturating_add(1);
    // The longest retry_timeout that such a ttl has room for. Below a ttl of 3 there is none.
    match ttl.saturating_sub(1) / 2 {
        ..1 => format!(
            "impossible timing: ttl={ttl} is below the least that is possible, 3: loop_wait + 2*retry_timeout <= ttl, \
             and both are whole seconds and at least 1; raise ttl to 3 with loop_wait and retry_timeout at 1, or to at \
             least {} as they are",
            needed.max(3)
        ),
        fitting => format!(
            "impossible timing: loop_wait + 2*retry_timeout <= ttl cannot hold for any loop_wait with ttl={ttl} and \
             retry_timeout={retry_timeout}; raise ttl to at least {needed} or lower retry_timeout to {fitting}"
        ),
    }
}
