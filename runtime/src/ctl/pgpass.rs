//! The file of passwords that PostgreSQL's own programs read: `~/.pgpass`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::Secret;

/// Whom a password is for.
pub(super) struct Login<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) dbname: &'a str,
    pub(super) user: &'a str,
}

/// The file that the environment names, or the one in the home directory.
pub(super) fn file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("PGPASSFILE").or_else(|| Some(set("HOME")?.join(".pgpass")))
}

/// The password of the first line that fits. A file that others may read is not used, as libpq has it.
pub(super) fn password(file: &Path, login: &Login<'_>) -> Option<Secret> {
    let metadata = file.metadata().ok()?;
    if metadata.mode() & 0o077 != 0 {
        eprintln!(
            "WARNING: password file \"{}\" has group or world access; permissions should be u=rw (0600) or less",
            file.display()
        );
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| fitting(line, login)).map(Secret::new)
}

fn fitting(line: &str, login: &Login<'_>) -> Option<String> {
    let mut fields = fields(line).into_iter();
    let port = login.port.to_string();
    let fits = [login.host, &port, login.dbname, login.user]
        .into_iter()
        .all(|wanted| fields.next().is_some_and(|(field, quoted)| field == wanted || (field == "*" && !quoted)));
    fields.next().filter(|_| fits).map(|(password, _)| password)
}

/// The fields between colons, and whether something in them was quoted: a backslash takes the next character as it is.
pub(crate) fn fields(line: &str) -> Vec<(String, bool)> {
    let mut fields = vec![(String::new(), false)];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let Some((field, quoted)) = fields.last_mut() else { break };
        match character {
            // The password is the last field: what follows it is not looked at.
            ':' => fields.push((String::new(), false)),
            '\\' => {
                field.extend(characters.next());
                *quoted = true;
            }
            other => field.push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pgpass");
        let text = "# h:5432:*:*:comment\nh:5433:*:*:other port\nh:*:db:me\\:too:a\\:b\\\\c\n\\*:5432:*:*:quoted\n*:*:*:you:last\nshort\n";
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let find = |user: &str| {
            let login = Login { host: "h", port: 5432, dbname: "db", user };
            password(&file, &login).map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(find("me:too").as_deref(), Some("a:b\\c"));
        assert_eq!(find("you").as_deref(), Some("last"));
        assert_eq!(find("nobody"), None);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(find("you"), None);
    }
}
