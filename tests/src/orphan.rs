//! A client whose procedure commits in a loop: the server goes on with it after its postmaster's death, and no client
//! has to say anything for it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};

use matriarch::clock;
use matriarch_core::time::Instant;
use tokio_postgres::{AsyncMessage, Config, NoTls};

/// A procedure that commits and says so after each time, and what was heard of it.
pub struct CommitLoop {
    heard: Arc<Mutex<Vec<Instant>>>,
    task: tokio::task::JoinHandle<()>,
}

impl CommitLoop {
    /// Starts the loop on a server. It never ends by itself and never sleeps, which would let it see its postmaster's
    /// death.
    ///
    /// # Errors
    /// The server refuses or is not there.
    pub async fn start(server: &Config) -> Result<Self, tokio_postgres::Error> {
        let (client, mut connection) = server.connect(NoTls).await?;
        let heard: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let notes = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notice(_) = message {
                    notes.lock().unwrap_or_else(PoisonError::into_inner).push(clock::now());
                }
            }
        });
        client.batch_execute("create table if not exists orphaned (id bigint)").await?;
        let task = tokio::spawn(async move {
            let endless =
                "do $$ begin loop insert into orphaned values (1); commit; raise notice 'committed'; end loop; end $$";
            // It ends with the server.
            client.batch_execute(endless).await.ok();
        });
        Ok(Self { heard, task })
    }

    /// Commits that were heard of.
    pub fn count(&self) -> usize {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// When the last commit was heard of.
    pub fn last(&self) -> Option<Instant> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).last().copied()
    }

    /// Whether the server has ended it.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}
