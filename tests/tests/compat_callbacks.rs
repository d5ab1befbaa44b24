//! Patroni's callbacks and ours: one story, lived by a cluster of each, and what was called on which node held against the
//! other's.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch_tests::scripts::{callbacks, file, lines, shell};
use matriarch_tests::{Agent, Cluster, Ended, Plan, eventually, patroni};
use rustix::process::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);
/// Patroni looks every `loop_wait`, which is a second here: what comes, comes by then.
const QUIET: Duration = Duration::from_secs(3);

/// What was called on whom, by chapter of the story.
type Calls = BTreeMap<String, Vec<String>>;

#[tokio::test]
async fn both_call_the_same() {
    if patroni().is_none() {
        return;
    }
    let theirs = Story::of(Agent::Patroni).await;
    let ours = Story::of(Agent::Matriarch).await;
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    let differing: Vec<_> = theirs.iter().filter(|(place, theirs)| **theirs != ours[*place]).collect();
    assert!(differing.is_empty(), "Patroni called {differing:#?}, and Matriarch {ours:#?}");
}

/// A cluster to which things happen, and what was called.
struct Story {
    cluster: Cluster,
    /// The first primary, who takes over from it, and who never leads while the story goes as it should.
    cast: [usize; 3],
    told: [usize; 3],
    calls: Calls,
}

impl Story {
    async fn of(agent: Agent) -> Calls {
        // The least that Patroni takes.
        let extra = json!({"bootstrap": {"dcs": {"ttl": 20, "retry_timeout": 3}}});
        let mut cluster = Cluster::prepare(Plan { agent, extra, ..Plan::default() }).await;
        for node in &mut cluster.nodes {
            let calls = file(node, "calls").display().to_string();
            node.configure(&callbacks(&shell(&format!("echo \"$1 $2\" >> {calls}"))));
            node.start();
        }
        let first = cluster.healed(LIMIT).await;
        let others = cluster.others(first);
        let mut story = Self { cluster, cast: [first, others[0], others[1]], told: [0; 3], calls: Calls::new() };
        story.chapter("01 the cluster is made").await;
        story.orders().await;
        story.kills().await;
        story.agents().await;
        story.calls
    }

    /// Waits until nothing is called any more, and takes down what was since the chapter before.
    async fn chapter(&mut self, what: &str) {
        self.cluster.healed(LIMIT).await;
        let all = || self.cluster.nodes.iter().map(|node| lines(node, "calls")).collect::<Vec<_>>();
        eventually("nothing is called any more", LIMIT, async || {
            let before = all();
            tokio::time::sleep(QUIET).await;
            if all() == before { Ok(()) } else { Err(format!("{before:?}")) }
        })
        .await;
        for (role, index) in ["first", "second", "third"].into_iter().zip(self.cast) {
            let calls = lines(&self.cluster.nodes[index], "calls");
            let mut new = calls[self.told[index]..].to_vec();
            // It runs beside the others: which of two that are called at once writes its line first is chance.
            new.sort_by_key(|call| call.starts_with("on_reload"));
            self.told[index] = calls.len();
            self.calls.insert(format!("{what}, {role}"), new);
        }
    }

    /// What an operator asks for.
    async fn orders(&mut self) {
        let [first, second, third] = self.cast;
        let names = self.cast.map(|index| self.cluster.nodes[index].name.clone());
        let switchover = json!({"leader": names[0], "candidate": names[1]});
        assert_eq!(self.cluster.nodes[first].post("/switchover", &switchover).await.status, 200);
        assert_eq!(self.cluster.healed(LIMIT).await, second);
        self.chapter("02 a switchover").await;
        for (what, index) in [("03 a restart of a replica", third), ("04 a restart of the primary", second)] {
            assert_eq!(self.cluster.nodes[index].post("/restart", &json!({})).await.status, 200);
            self.chapter(what).await;
        }
        let node = &self.cluster.nodes[third];
        node.configure(&json!({"postgresql": {"parameters": {"work_mem": "5MB"}}}));
        assert_eq!(node.post("/reload", &json!({})).await.status, 202);
        self.chapter("05 a reload that changes something").await;
        assert_eq!(self.cluster.nodes[third].post("/reload", &json!({})).await.status, 202);
        self.chapter("05 a reload that changes nothing").await;
        let reinitialize = json!({"force": true});
        assert_eq!(self.cluster.nodes[third].post("/reinitialize", &reinitialize).await.status, 200);
        self.chapter("06 a replica is cloned again").await;
    }

    /// PostgreSQL dies.
    async fn kills(&mut self) {
        let [_, second, third] = self.cast;
        for (what, index) in [("07 a replica's server is killed", third), ("08 the primary's server is killed", second)]
        {
            let postmaster = self.cluster.nodes[index].postmaster().expect("it runs");
            postmaster.kill();
            eventually("it runs again", LIMIT, async || {
                let again = self.cluster.nodes[index].postmaster().filter(|again| *again != postmaster);
                again.map(drop).ok_or_else(|| "not yet".to_owned())
            })
            .await;
            assert_eq!(self.cluster.healed(LIMIT).await, second);
            self.chapter(what).await;
        }
    }

    /// Agents come and go.
    async fn agents(&mut self) {
        let [_, second, third] = self.cast;
        self.stopped_and_started(third, "09 a replica's agent").await;
        for (what, index) in [("10 a replica's agent is killed", third), ("11 the primary's agent is killed", second)] {
            let node = &mut self.cluster.nodes[index];
            node.agent().kill();
            node.agent_ended(LIMIT);
            node.start();
            assert_eq!(self.cluster.healed(LIMIT).await, second);
            self.chapter(what).await;
        }
        for pause in [true, false] {
            let answer = self.cluster.nodes[second].patch_config(&json!({"pause": pause})).await;
            assert_eq!(answer.status, 200);
            for node in &self.cluster.nodes {
                eventually("everybody knows of the pause", LIMIT, async || {
                    let told = node.get("/patroni").await.body;
                    let status: Value = serde_json::from_str(&told).unwrap_or_default();
                    if (status["pause"] == true) == pause { Ok(()) } else { Err(told) }
                })
                .await;
            }
            self.chapter(if pause { "12 a pause" } else { "14 the end of a pause" }).await;
            if pause {
                self.stopped_and_started(third, "13 in a pause a replica's agent").await;
            }
        }
    }

    async fn stopped_and_started(&mut self, index: usize, whose: &str) {
        let node = &mut self.cluster.nodes[index];
        node.agent().signal(Signal::TERM);
        assert_eq!(node.agent_ended(LIMIT), Ended::Exit(0));
        node.start();
        self.chapter(&format!("{whose} is stopped and started")).await;
    }
}
