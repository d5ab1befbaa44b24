//! Work that may wait for a disk, beside the agent's one thread: a disk that hangs must not hang the agent.

use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore};

/// Looks that may be under way at once: one at a disk that hangs never ends, and each has a thread.
const LOOKS_MAX: usize = 8;
static LOOKS: Semaphore = Semaphore::const_new(LOOKS_MAX);

/// Looks at files. Whoever stops waiting loses the answer and nothing else.
pub(crate) async fn look<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // It is never closed.
    let permit = LOOKS.acquire().await.ok();
    run(move || {
        let seen = work();
        drop(permit);
        seen
    })
    .await
}

async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels such work, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Changes of files, one after the other in the order in which they were asked for.
///
/// What has begun goes on to its end although nobody waits for it any more: an operation can lose its lane while its
/// write hangs. The race that the turn is for: a standby is pointed to an upstream, the next order freezes it, and the
/// write of the first, delayed, undoes the second.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    turn: Arc<Mutex<()>>,
}

impl Changes {
    /// Does `work` when everything that was asked for before is done. It is never begun if its asker is gone by then.
    pub(crate) async fn make<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        run(move || {
            let value = work();
            drop(turn);
            value
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn looks_at_a_disk_that_hangs_keep_no_change_waiting_and_are_bounded() {
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(std::sync::Mutex::new(released));
        let hanging: Vec<_> = (0..LOOKS_MAX)
            .map(|_| {
                let released = Arc::clone(&released);
                tokio::spawn(look(move || released.lock().unwrap().recv().is_ok()))
            })
            .collect();
        while LOOKS.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let mut next = tokio::spawn(look(|| "seen"));
        assert_eq!(Changes::default().make(|| 7).await, 7);
        assert!(!next.is_finished());
        release.send(()).unwrap();
        assert_eq!((&mut next).await.unwrap(), "seen");
        drop(release);
        for look in hanging {
            look.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_change_whose_asker_is_gone_is_finished_before_the_next_begins() {
        let changes = Arc::new(Changes::default());
        let (tell, told) = mpsc::channel();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let (changes, tell) = (Arc::clone(&changes), tell.clone());
            async move {
                let slow = move || {
                    begun.send(()).unwrap();
                    released.recv().unwrap();
                    tell.send("first").unwrap();
                };
                changes.make(slow).await;
            }
        });
        has_begun.await.unwrap();
        // This one gives up before its turn comes.
        let never = tell.clone();
        tokio::select! {
            biased;
            () = changes.make(move || never.send("never").unwrap()) => panic!("it is not its turn"),
            () = tokio::task::yield_now() => {}
        }
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let next = tokio::spawn(async move { changes.make(move || tell.send("next").unwrap()).await });
        release.send(()).unwrap();
        next.await.unwrap();
        assert_eq!(told.iter().collect::<Vec<_>>(), ["first", "next"]);
    }
}
