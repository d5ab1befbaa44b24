//! SQL to the local server: one lasting connection for the monitoring query and small orders, others for slow ones.

use std::sync::Arc;
use std::time::Duration;

use matriarch_core::time::Seen;
use matriarch_core::view::postgres::Sql;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, Connection, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::control_data;
use super::encryption::{Mode, encrypt};
use super::maxima;
use super::monitoring;
use super::proc::PidFile;
use super::replies::Replies;
use super::settings::{LocalConnection, Settings};
use super::tools;
use crate::aside::look;
use crate::clock;

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Why SQL was not answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SqlFailure {
    /// 57P03, 57P01: starting up, shutting down, or in recovery without hot standby.
    #[error("PostgreSQL does not accept connections: {0}")]
    NotAccepting(String),
    /// No connection, a broken one, or no answer in time.
    #[error("PostgreSQL cannot be reached: {0}")]
    Unreachable(String),
    /// The server's refusal: an SQLSTATE and its words.
    #[error("PostgreSQL refused: {message} (SQLSTATE {code})")]
    Failed {
        /// SQLSTATE; empty if the answer was not understood.
        code: String,
        /// Its words.
        message: String,
    },
}

impl SqlFailure {
    fn of(error: &tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else { return Self::Unreachable(with_sources(error)) };
        let (code, message) = (db.code().code().to_owned(), db.message().to_owned());
        if [SqlState::CANNOT_CONNECT_NOW, SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN].contains(db.code()) {
            Self::NotAccepting(message)
        } else {
            Self::Failed { code, message }
        }
    }
}

/// The library's own text often stops at "error connecting to server".
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// The lasting connection. A failure of any kind but a plain refusal closes it; the next question opens another.
#[derive(Debug, Default)]
pub(super) struct Monitor {
    client: Mutex<Option<Arc<Client>>>,
    /// The refusal that the log has. It repeats with every question, and is told once.
    told: std::sync::Mutex<Option<SqlFailure>>,
    replies: Replies,
}

impl Monitor {
    /// Asks the monitoring query, within `deadline`. A lasting connection that turns out to be broken says nothing
    /// about the server of now, so the question is asked once more on a new one.
    ///
    /// # Errors
    /// Classified as [`SqlFailure`].
    pub(super) async fn observe(&self, settings: &Settings, deadline: Duration) -> Result<Seen<Sql>, SqlFailure> {
        let until = Instant::now() + deadline;
        let lasting = self.client.try_lock().is_ok_and(|c| c.is_some());
        let answer = match self.observe_once(settings, deadline).await {
            Err(SqlFailure::Unreachable(_)) if lasting && Instant::now() < until => {
                self.observe_once(settings, until - Instant::now()).await
            }
            answer => answer,
        };
        self.tell(settings, answer.as_ref().err());
        answer
    }

    /// A server that runs and refuses its own agent stays so until somebody corrects something: a warning, once.
    fn tell(&self, settings: &Settings, failure: Option<&SqlFailure>) {
        let refusal = failure.filter(|failure| matches!(failure, SqlFailure::Failed { .. }));
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(refusal) = refusal
            && told.as_ref() != Some(refusal)
        {
            let way_out = tools::way_out(&refusal.to_string(), settings);
            let user = &settings.superuser.user;
            tracing::warn!("the agent cannot ask its own server as {user:?}: {refusal}{way_out}");
        }
        if refusal.is_some() || failure.is_none() {
            *told = refusal.cloned();
        }
    }

    async fn observe_once(&self, settings: &Settings, deadline: Duration) -> Result<Seen<Sql>, SqlFailure> {
        let asked = clock::now();
        let rows = self.rows(settings, monitoring::QUERY, deadline).await?;
        let heard = clock::now();
        let row = rows.first().ok_or_else(|| bad_answer("no row"))?;
        let column = |name: &str| row.try_get(name).ok();
        let ages = |told: &[(i64, i64)]| self.replies.ages(asked, told);
        let mut sql = monitoring::parse(column, ages).map_err(|why| bad_answer(&why))?;
        let running = column(maxima::COLUMN).flatten().unwrap_or_default();
        maxima::pending(settings, running, &mut sql.pending_restart);
        if sql.in_recovery && sql.replay_paused {
            let data_dir = settings.data_dir.clone();
            let control = look(move || control_data::read(&data_dir)).await.ok().flatten();
            sql.outgrown = control.is_some_and(|control| maxima::outgrown(running, control.maxima));
        }
        Ok(Seen::new(sql, asked, heard))
    }

    /// Sends SQL as a simple query and returns its rows, within `deadline`.
    ///
    /// # Errors
    /// Classified as [`SqlFailure`]. After `Unreachable` it may have happened.
    pub(super) async fn rows(
        &self,
        settings: &Settings,
        sql: &str,
        deadline: Duration,
    ) -> Result<Vec<SimpleQueryRow>, SqlFailure> {
        let answer = timeout(deadline, async {
            let client = self.client(settings).await?;
            client.simple_query(sql).await.map_err(|e| SqlFailure::of(&e))
        })
        .await
        .unwrap_or_else(|_| Err(SqlFailure::Unreachable(format!("no answer within {} ms", deadline.as_millis()))));
        match answer {
            Ok(messages) => Ok(only_rows(messages)),
            Err(failure) => {
                if !matches!(failure, SqlFailure::Failed { .. }) {
                    self.close();
                }
                Err(failure)
            }
        }
    }

    /// Closes the connection.
    pub(super) fn close(&self) {
        // A connect in progress holds the lock and is about to find out for itself.
        if let Ok(mut client) = self.client.try_lock() {
            *client = None;
        }
    }

    async fn client(&self, settings: &Settings) -> Result<Arc<Client>, SqlFailure> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|c| !c.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let options = "-c search_path=pg_catalog -c statement_timeout=2000";
        let client = Arc::new(connect(settings, "Patroni heartbeat", options).await?);
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }
}

/// Runs SQL on a connection of its own with no limit but `deadline`: for what is slow by nature.
///
/// # Errors
/// Classified as [`SqlFailure`]. After `Unreachable` it may have happened, or go on.
pub(super) async fn alone(
    settings: &Settings,
    sql: &str,
    deadline: Duration,
) -> Result<Vec<SimpleQueryRow>, SqlFailure> {
    timeout(deadline, async {
        let client = connect(settings, "Patroni", "-c search_path=pg_catalog -c statement_timeout=0").await?;
        client.simple_query(sql).await.map(only_rows).map_err(|e| SqlFailure::of(&e))
    })
    .await
    .unwrap_or_else(|_| Err(SqlFailure::Unreachable(format!("no answer within {} s", deadline.as_secs()))))
}

fn only_rows(messages: Vec<SimpleQueryMessage>) -> Vec<SimpleQueryRow> {
    let row = |m| if let SimpleQueryMessage::Row(row) = m { Some(row) } else { None };
    messages.into_iter().filter_map(row).collect()
}

fn bad_answer(why: &str) -> SqlFailure {
    SqlFailure::Failed { code: String::new(), message: format!("the monitoring query's answer has {why}") }
}

async fn connect(settings: &Settings, name: &str, options: &str) -> Result<Client, SqlFailure> {
    let mut config = Config::new();
    match &settings.local {
        LocalConnection::Socket(directory) => config.host_path(directory),
        LocalConnection::Host(host) => config.host(host),
    };
    // A port that was changed in the file is the server's only after its restart.
    let data_dir = settings.data_dir.clone();
    let running = look(move || PidFile::read(&data_dir)).await.map(|file| file.port).filter(|port| *port > 0);
    config.port(running.unwrap_or(settings.port)).dbname(&settings.database).user(&settings.superuser.user);
    config.application_name(name).options(options).connect_timeout(CONNECT_MAX);
    if let Some(password) = &settings.superuser.password {
        config.password(&password.0);
    }
    let keywords = &settings.superuser.keywords;
    let mode = Mode::of(keywords).map_err(SqlFailure::Unreachable)?;
    // Within the host nothing is gained by TLS: it is used where it has to be, as `pg_hba` may demand it.
    let LocalConnection::Host(host) = settings.local.clone() else { return plain(&config).await };
    if !mode.demands_tls() {
        return plain(&config).await;
    }
    let port = running.unwrap_or(settings.port);
    let encrypted = async {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        encrypt(Box::new(stream), &host, mode, keywords).await
    };
    let encrypted = timeout(CONNECT_MAX, encrypted).await;
    let encrypted = encrypted.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let encrypted = encrypted.map_err(|error| SqlFailure::Unreachable(format!("{host}:{port}: {error}")))?;
    config.ssl_mode(SslMode::Disable);
    let (client, connection) = config.connect_raw(encrypted.stream, NoTls).await.map_err(|e| SqlFailure::of(&e))?;
    drive(connection);
    Ok(client)
}

async fn plain(config: &Config) -> Result<Client, SqlFailure> {
    let (client, connection) = config.connect(NoTls).await.map_err(|e| SqlFailure::of(&e))?;
    drive(connection);
    Ok(client)
}

/// Ends when the client is dropped; its error reaches whoever asks the client next.
fn drive<S>(connection: Connection<S, NoTlsStream>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the local server ended");
        }
    });
}
