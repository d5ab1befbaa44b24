//! The roles that a new cluster needs.

use std::collections::BTreeSet;
use std::fmt::Write;

use postgres_protocol::password::scram_sha_256;

use super::settings::{Credential, Settings};

/// No statement of ours with anything secret in it reaches a log, and no role waits for a synchronous standby that
/// cannot exist before it.
const QUIET: &str = "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic'; \
     SET log_min_duration_sample = -1; SET log_transaction_sample_rate = 0; SET log_parser_stats = off; \
     SET \"pg_stat_statements.track_utility\" = off; SET \"pgaudit.log\" = 'none'; SET track_activities = off; \
     SET synchronous_commit = 'local'; ";

/// What `pg_rewind` calls, and a role that is no superuser may not (pg_rewind's documentation, "Notes").
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// The SQL that creates or corrects the superuser alone.
pub(super) fn superuser(settings: &Settings) -> String {
    let mut sql = String::from(QUIET);
    if settings.superuser.password.is_some() {
        role(&mut sql, &settings.superuser, "SUPERUSER LOGIN");
    }
    sql
}

/// The SQL that creates or corrects superuser, replication and rewind role. Passwords are in it as SCRAM verifiers
/// only.
pub(super) fn statements(settings: &Settings) -> String {
    let mut sql = superuser(settings);
    let mut seen = BTreeSet::new();
    seen.insert(&settings.superuser.user);
    if seen.insert(&settings.replication.user) {
        role(&mut sql, &settings.replication, "LOGIN REPLICATION");
    }
    if let Some(rewind) = &settings.rewind
        && rewind.user != settings.superuser.user
    {
        if seen.insert(&rewind.user) {
            role(&mut sql, rewind, "LOGIN");
        }
        for function in REWIND_FUNCTIONS {
            let _ = write!(sql, "GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {}; ", identifier(&rewind.user));
        }
    }
    sql
}

fn role(sql: &mut String, credential: &Credential, attributes: &str) {
    let (name, text) = (identifier(&credential.user), literal(&credential.user));
    let password = credential
        .password
        .as_ref()
        .map_or_else(String::new, |password| format!(" PASSWORD {}", literal(&scram_sha_256(password.0.as_bytes()))));
    let _ = write!(
        sql,
        "DO $matriarch$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {text}) \
         THEN CREATE ROLE {name}; END IF; END $matriarch$; ALTER ROLE {name} WITH {attributes}{password}; "
    );
}

/// Quotes a name.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text, whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_break_out() {
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(literal(r"a'b\"), r" E'a\'b\\'");
    }
}
