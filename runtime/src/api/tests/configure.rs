//! `PATCH` and `PUT /config`, `DELETE /switchover`: through the API to a real store, the embedded one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use matriarch_core::id::Revision;
use matriarch_core::op::Outcome;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::node::*;
use crate::api::{ApiSettings, StoreAccess, put_key, store_access};
use crate::net::Connector;
use crate::store::{EtcdStore, embedded};

struct World {
    node: Node,
    store: EtcdStore,
    _data: TempDir,
}

impl World {
    async fn new(keys: &[(&str, &str)]) -> Self {
        Self::with(keys, |access, _| access).await
    }

    /// What the node is given is what `change` makes of its access to the store.
    async fn with(keys: &[(&str, &str)], change: impl FnOnce(StoreAccess, EtcdStore) -> StoreAccess) -> Self {
        let data = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let directory = data.path().to_path_buf();
        tokio::spawn(async move { embedded::serve(listener, &directory, std::future::pending()).await.unwrap() });
        let store = EtcdStore::new(vec![host], None, Connector::tcp(LIMIT));
        for (key, value) in keys {
            put(&store, key, value).await;
        }
        let access = change(store_access(store.clone(), "service".into(), "demo".into(), LIMIT), store.clone());
        let node = serve_with(node(standby()), ApiSettings { store: access, ..settings() }).await;
        Self { node, store, _data: data }
    }

    async fn key(&self, key: &str) -> (String, Revision) {
        let read = self.store.read_key(&format!("/service/demo/{key}"), LIMIT).await.done().unwrap();
        let entry = read.entry.unwrap();
        (entry.text().to_owned(), entry.mod_revision)
    }

    async fn config(&self, method: Method, body: &str) -> (u16, String) {
        self.node.ask(method, "/config", Some(body)).await
    }
}

async fn put(store: &EtcdStore, key: &str, value: &str) {
    let written = put_key(store, format!("/service/demo/{key}"), value.to_owned(), None, LIMIT).await;
    assert_eq!(written, Outcome::Done(()));
}

const CONFIG: &str = r#"{"ttl":30,"postgresql":{"parameters":{"max_connections":100,"work_mem":"4MB"}}}"#;

#[tokio::test]
async fn a_patch_is_laid_over_and_answered_with_the_whole() {
    let world = World::new(&[("config", CONFIG)]).await;
    let changes =
        r#"{"ttl": null, "loop_wait": 5, "postgresql": {"parameters": {"work_mem": null, "max_connections": "100"}}}"#;
    let whole = r#"{"postgresql": {"parameters": {"max_connections": 100}}, "loop_wait": 5}"#;
    assert_eq!(world.config(Method::PATCH, changes).await, (200, whole.into()));
    let (text, revision) = world.key("config").await;
    assert_eq!(text, r#"{"postgresql":{"parameters":{"max_connections":100}},"loop_wait":5}"#);
    // The same again is no change, and is not written.
    assert_eq!(world.config(Method::PATCH, changes).await, (200, whole.into()));
    assert_eq!(world.key("config").await.1, revision);
    // Nor is it judged.
    assert_eq!(world.config(Method::PATCH, r#"{"ttl": "abc"}"#).await.0, 200);
    for body in ["", "{}", "[]", "{"] {
        assert_eq!(world.config(Method::PATCH, body).await.0, 400, "{body}");
    }
    assert_eq!(world.node.ask(Method::PATCH, "/config", None).await.0, 411);
}

#[tokio::test]
async fn a_put_replaces_whatever_is_there() {
    let world = World::new(&[("config", CONFIG)]).await;
    let revision = world.key("config").await.1;
    let same = r#"{"postgresql": {"parameters": {"work_mem": "4MB", "max_connections": "100"}}, "ttl": 30}"#;
    assert_eq!(world.config(Method::PUT, same).await, (200, same.into()));
    assert_eq!(world.key("config").await.1, revision);
    assert_eq!(world.config(Method::PUT, r#"{"ttl":20,"x":null}"#).await, (200, r#"{"ttl": 20, "x": null}"#.into()));
    assert_eq!(world.key("config").await.0, r#"{"ttl":20,"x":null}"#);

    let world = World::new(&[("config", "no JSON")]).await;
    let (status, page) = world.config(Method::PATCH, r#"{"ttl": 20}"#).await;
    assert!(status == 503 && page.contains("<p>Message: Service Unavailable.</p>"), "{status} {page}");
    assert_eq!(world.key("config").await.0, "no JSON");
    assert_eq!(world.config(Method::PUT, r#"{"ttl": 20}"#).await.0, 200);
    assert_eq!(world.key("config").await.0, r#"{"ttl":20}"#);
}

/// Somebody else writes between the read and the write of a request: nothing of theirs is lost.
#[tokio::test]
async fn whoever_comes_second_is_told_of_the_conflict() {
    const OTHER: &str = r#"{"ttl":60}"#;
    const SOON: &str = r#"{"leader":"n1","member":"n2"}"#;
    let racing = |access: StoreAccess, store: EtcdStore| {
        let read = Arc::clone(&access.read);
        let read = move || -> std::pin::Pin<Box<dyn Future<Output = _> + Send>> {
            let (reading, store) = (read(), store.clone());
            Box::pin(async move {
                let seen = reading.await;
                put(&store, "config", OTHER).await;
                put(&store, "failover", SOON).await;
                seen
            })
        };
        StoreAccess { read: Arc::new(read), ..access }
    };
    let scheduled = r#"{"leader":"n1","member":"n2","scheduled_at":"2199-01-01T00:00:00+00:00"}"#;
    let world = World::with(&[("config", CONFIG), ("failover", scheduled)], racing).await;
    let (status, page) = world.config(Method::PATCH, r#"{"loop_wait": 5}"#).await;
    assert!(status == 409 && page.contains("409 - Request conflict."), "{status} {page}");
    assert_eq!(world.key("config").await.0, OTHER);
    put(&world.store, "failover", scheduled).await;
    assert_eq!(world.node.ask(Method::DELETE, "/switchover", None).await.0, 409);
    assert_eq!(world.key("failover").await.0, SOON);
    // PUT asks nobody.
    assert_eq!(world.config(Method::PUT, r#"{"ttl": 5}"#).await.0, 200);
    assert_eq!(world.key("config").await.0, r#"{"ttl":5}"#);
}

#[tokio::test]
async fn a_scheduled_switchover_is_taken_back_and_a_pending_one_is_not() {
    let scheduled = r#"{"leader":"n1","scheduled_at":"2199-01-01T00:00:00+00:00"}"#;
    let world = World::new(&[("failover", scheduled)]).await;
    let delete = || world.node.ask(Method::DELETE, "/switchover", None);
    assert_eq!(delete().await, (200, "scheduled switchover deleted".into()));
    assert_eq!(world.key("failover").await.0, "{}");
    assert_eq!(delete().await, (404, "no switchover is scheduled".into()));
    put(&world.store, "failover", r#"{"leader":"n1"}"#).await;
    assert_eq!(delete().await, (404, "no switchover is scheduled".into()));
    assert_eq!(world.key("failover").await.0, r#"{"leader":"n1"}"#);
    assert_eq!(world.node.ask(Method::POST, "/sigterm", None).await, (202, "shutdown scheduled".into()));
    assert_eq!(world.node.told(), [""; 0]);
}

#[tokio::test]
async fn a_silent_store_is_a_bounded_answer_and_a_lost_reply_is_no_success() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let store = EtcdStore::new(vec![host], None, Connector::tcp(LIMIT));
    let access = store_access(store, "service".into(), "demo".into(), Duration::from_millis(300));
    let silent = serve_with(node(standby()), ApiSettings { store: access, ..settings() }).await;
    for (method, path) in [(Method::PATCH, "/config"), (Method::PUT, "/config"), (Method::DELETE, "/switchover")] {
        let asked = Instant::now();
        let (status, page) = silent.ask(method, path, Some(r#"{"ttl": 5}"#)).await;
        assert!(status == 503 && page.contains("the store does not answer"), "{path}: {status} {page}");
        assert!(asked.elapsed() < Duration::from_secs(3), "{path}: {:?}", asked.elapsed());
    }
    drop(listener);

    let lost = |access: StoreAccess, _| StoreAccess {
        put: Arc::new(|_, _, _| Box::pin(async { Outcome::Unknown("<the reply was lost>".into()) })),
        ..access
    };
    let scheduled = r#"{"leader":"n1","scheduled_at":"2199-01-01T00:00:00+00:00"}"#;
    let world = World::with(&[("config", CONFIG), ("failover", scheduled)], lost).await;
    let delete = world.node.ask(Method::DELETE, "/switchover", None).await;
    for ((status, page), expected) in [
        (world.config(Method::PATCH, r#"{"ttl": 5}"#).await, 503),
        (world.config(Method::PUT, r#"{"ttl": 5}"#).await, 502),
        (delete, 503),
    ] {
        assert!(status == expected && page.contains("It is not known whether"), "{status} {page}");
        assert!(page.contains("&lt;the reply was lost&gt;"), "{page}");
    }
}
