//! A session on a member's PostgreSQL, opened as libpq would: by the environment, and with TLS as `PGSSLMODE` says.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

use super::console::Console;
use super::members::MemberView;
use super::pgpass::{self, Login};
use crate::config::Secret;
use crate::net::BoxStream;
use crate::postgres::encryption::{Mode, encrypt};

/// How long opening a session may take. A server that is stopped accepts connections, and says nothing.
const LIMIT: Duration = Duration::from_secs(5);
/// The name under which the server lists the session.
const APPLICATION: &str = "Patroni ctl";
/// What libpq calls in a connection string what the environment says about TLS.
const TLS: [(&str, &str); 6] = [
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
];

/// What options say of the session.
pub(super) struct Wanted<'a> {
    pub(super) dbname: Option<&'a str>,
    pub(super) user: Option<&'a str>,
    pub(super) password: Option<Secret>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The password that `~/.pgpass` has for a login.
pub(crate) fn kept_password(host: &str, port: u16, dbname: &str, user: &str) -> Option<Secret> {
    pgpass::password(&pgpass::file()?, &Login { host, port, dbname, user })
}

/// Asks the person at the terminal. The question is no part of the output. `None`: no answer.
pub(crate) fn ask_for_password(question: &str) -> Option<Secret> {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stderr());
    Console::new(&mut input, &mut output, true).secret(question).ok().map(Secret::new)
}

/// Opens a session, with what drives it: that ends after the client was dropped.
pub(super) async fn login(member: MemberView<'_>, wanted: &Wanted<'_>) -> Result<(Client, JoinHandle<()>), String> {
    let config = configured(member, wanted)?;
    let said = TLS.iter().filter_map(|(name, keyword)| Some(((*keyword).to_owned(), variable(name)?)));
    let keywords: BTreeMap<String, String> = said.collect();
    let mode = Mode::of(&keywords)?;
    let (host, port) = (member.host(), member.port().unwrap_or(5432));
    let attempts = async {
        let mut failed = Vec::new();
        for with_tls in mode.attempts() {
            let connecting = async {
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                let stream: BoxStream = Box::new(stream);
                if *with_tls { Ok(encrypt(stream, host, mode, &keywords).await?.stream) } else { Ok(stream) }
            };
            let outcome: Result<BoxStream, std::io::Error> = connecting.await;
            let outcome = match outcome {
                Ok(stream) => config.connect_raw(stream, NoTls).await.map_err(|error| told(&error)),
                Err(error) => Err(error.to_string()),
            };
            match outcome {
                Ok((client, connection)) => return Ok((client, tokio::spawn(async { drop(connection.await) }))),
                Err(why) => failed.push(why),
            }
        }
        failed.dedup();
        Err(format!("{host}:{port}: {}", failed.join("; ")))
    };
    let late = |_| Err(format!("no answer of {host}:{port} within {} s", LIMIT.as_secs()));
    tokio::time::timeout(LIMIT, attempts).await.unwrap_or_else(late)
}

fn configured(member: MemberView<'_>, wanted: &Wanted<'_>) -> Result<Config, String> {
    let account = || nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok().flatten().map(|user| user.name);
    let user = wanted.user.map(str::to_owned).or_else(|| variable("PGUSER")).or_else(account);
    let user = user.ok_or("this account has no name: name the user with -U")?;
    let dbname = wanted.dbname.map(str::to_owned).or_else(|| variable("PGDATABASE")).unwrap_or_else(|| user.clone());
    let (host, port) = (member.host(), member.port().unwrap_or(5432));
    let kept = || kept_password(host, port, &dbname, &user);
    let password = wanted.password.clone().or_else(|| variable("PGPASSWORD").map(Secret::new)).or_else(kept);
    let mut config = Config::new();
    // What is under it has TLS already, or shall have none.
    config.host(host).port(port).user(&user).dbname(&dbname).ssl_mode(SslMode::Disable);
    config.application_name(variable("PGAPPNAME").as_deref().unwrap_or(APPLICATION));
    if let Some(options) = variable("PGOPTIONS") {
        config.options(&options);
    }
    if let Some(password) = &password {
        config.password(password.reveal());
    }
    Ok(config)
}

/// An error with what is behind it.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}").replace('\n', " ")
}
