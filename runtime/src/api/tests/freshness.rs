//! How long facts are waited for.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use matriarch_core::view::postgres::{Phase, Process};
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::node::{LIMIT, node, standby};
use crate::agent::handle::{Handle, Message, Shared};
use crate::api::facts::{CHECK_LIMIT, COMPARISON_LIMIT, FRESH_FOR, PRESENT_FOR};
use crate::api::freshness::Freshness;
use crate::clock;

/// A PostgreSQL that is asked and answers when the test wants it to. What it told last is a minute old.
struct World {
    freshness: Arc<Freshness>,
    shared: Arc<Mutex<Shared>>,
    inbox: mpsc::Receiver<Message>,
}

impl World {
    fn new() -> Self {
        let shared = Arc::new(Mutex::new(node(standby())));
        let (messages, inbox) = mpsc::channel(16);
        let freshness = Arc::new(Freshness::new(Handle::new(Arc::clone(&shared), messages, clock::host())));
        let keeping = Arc::clone(&freshness);
        tokio::spawn(async move { keeping.keep().await });
        let world = Self { freshness, shared, inbox };
        world.told(Duration::from_mins(1));
        world
    }

    /// PostgreSQL was asked and has answered so long ago.
    fn told(&self, ago: Duration) {
        let at = clock::now().back(ago);
        let seen = &mut self.shared.lock().unwrap().core.postgres.sql;
        let seen = seen.as_mut().unwrap();
        (seen.asked, seen.heard) = (at, at);
    }

    /// The next question.
    async fn question(&mut self) -> oneshot::Sender<()> {
        match timeout(LIMIT, self.inbox.recv()).await {
            Ok(Some(Message::Observe(done))) => done,
            other => panic!("no question: {other:?}"),
        }
    }

    fn check(&self) -> impl Future<Output = ()> + use<'_> {
        self.freshness.wait(FRESH_FOR, CHECK_LIMIT)
    }
}

#[tokio::test]
async fn a_silent_postgresql_keeps_the_first_who_come_and_for_a_moment() {
    let mut world = World::new();
    for _ in 0..2 {
        world.told(Duration::from_mins(1));
        let begin = Instant::now();
        world.check().await;
        assert!(begin.elapsed() >= CHECK_LIMIT, "it might have answered");

        // If each of them waited, they would take four seconds, and ten.
        let begin = Instant::now();
        for _ in 0..100 {
            world.check().await;
        }
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        sleep(COMPARISON_LIMIT).await;
        let begin = Instant::now();
        for _ in 0..20 {
            world.freshness.wait(PRESENT_FOR, COMPARISON_LIMIT).await;
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());

        // All of them waited for one question. Once it is answered, the next silence is a new one.
        let question = world.question().await;
        assert!(world.inbox.try_recv().is_err(), "two questions at a time");
        world.told(Duration::ZERO);
        question.send(()).unwrap();
        yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_ends_the_wait_and_so_does_a_failure() {
    let mut world = World::new();
    for age in [Duration::from_secs(1), Duration::ZERO] {
        let freshness = Arc::clone(&world.freshness);
        let waiting = tokio::spawn(async move { freshness.wait(PRESENT_FOR, 2 * LIMIT).await });
        let question = world.question().await;
        // What was asked before the question does not answer it.
        world.told(age);
        question.send(()).unwrap();
        timeout(LIMIT, waiting).await.expect("nothing more is to be waited for").unwrap();
    }
}

/// Otherwise a check that comes now and then would be answered from facts that are older than a silence.
#[tokio::test]
async fn postgresql_is_asked_on_after_a_check_and_not_before_one() {
    let mut world = World::new();
    sleep(FRESH_FOR + FRESH_FOR / 2).await;
    assert!(world.inbox.try_recv().is_err(), "asked, though nobody asks after this node");
    world.check().await;
    for _ in 0..3 {
        let question = world.question().await;
        world.told(Duration::ZERO);
        question.send(()).unwrap();
    }
}

#[tokio::test]
async fn nothing_is_asked_of_a_postgresql_that_does_not_run() {
    let mut world = World::new();
    let Process::Alive { pid, .. } = world.shared.lock().unwrap().core.postgres.process else { panic!("it runs") };
    for process in [Process::Absent, Process::Alive { pid, phase: Phase::Starting }] {
        world.shared.lock().unwrap().core.postgres.process = process;
        timeout(LIMIT, world.freshness.wait(PRESENT_FOR, 2 * LIMIT)).await.expect("nothing is waited for");
    }
    sleep(FRESH_FOR + FRESH_FOR / 2).await;
    assert!(world.inbox.try_recv().is_err());
}
