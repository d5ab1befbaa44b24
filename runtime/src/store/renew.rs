//! Renewing: a keep-alive, and the proof that it kept alive what it was meant to.
//!
//! A keep-alive proves the lease, not the key: an operator may have deleted `/leader`, and another may hold it. And a
//! deposed etcd leader may answer it, since etcd keeps leases outside of raft:
//!
//! ```text
//! us          etcd 1 (leader, then frozen)      etcd 2 (elected)       another node
//! keep-alive ->|                                 lease expires ------> key gone, takes it
//!              | thaws, does not know yet
//!   <- ttl 10 -|
//! ```
//!
//! So the keep-alive is followed by a linearizable read of the key through the same member. It costs a round trip to
//! the quorum, and shows a term above the keep-alive's if there was an election between.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use matriarch_core::id::{LeaseId, Revision};
use matriarch_core::op::{Outcome, Refusal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Renewed;
use super::etcd::{PASS_PAUSE, Shared};
use super::keep_alive;
use super::member::{Fault, Member};

/// What a renewal has to prove.
#[derive(Clone)]
pub(super) struct Proof {
    pub(super) tenure: LeaseId,
    pub(super) key: Arc<str>,
    pub(super) create_revision: Revision,
}

/// One attempt through one member.
async fn attempt(shared: &Shared, member: &Member, proof: &Proof) -> Result<Renewed, Fault> {
    let kept = keep_alive::once(member, proof.tenure).await?;
    let read = shared.read_key_at(member, &proof.key).await?;
    let ours =
        read.entry.is_some_and(|entry| entry.lease == proof.tenure && entry.create_revision == proof.create_revision);
    if !ours {
        return Err(Fault::Refused(Refusal::Conflict));
    }
    if read.raft_term != kept.raft_term {
        let (before, after) = (kept.raft_term, read.raft_term);
        return Err(Fault::Ambiguous(format!("{}: raft term went from {before} to {after}", member.host)));
    }
    assert!(kept.asked <= read.asked && kept.heard <= read.heard, "the proof comes after the keep-alive");
    Ok(Renewed { heard: read.heard, revision: read.revision, ..kept })
}

/// Attempts through one member and, after a third of the deadline or as soon as that failed, the next; and so on, round
/// and round, until the deadline.
pub(super) async fn renew(shared: &Arc<Shared>, proof: Proof, deadline: Duration) -> Outcome<Renewed> {
    let started = Instant::now();
    let end = started + deadline;
    let mut attempts = Attempts { shared, proof, waiting: VecDeque::new(), running: JoinSet::new() };
    let mut last = format!("no answer within {deadline:?}");
    attempts.refill();
    attempts.start();
    let mut next_start = started + deadline / 3;
    loop {
        tokio::select! {
            biased;
            ended = attempts.running.join_next(), if !attempts.running.is_empty() => {
                let (member, outcome) = match ended {
                    Some(Ok((index, outcome))) => ((index, &shared.members[index]), outcome),
                    Some(Err(error)) => return Outcome::Unknown(error.to_string()),
                    None => continue,
                };
                match outcome {
                    Ok(renewed) => {
                        shared.stay_with(member.0, member.1);
                        return Outcome::Done(renewed);
                    }
                    Err(Fault::Refused(refusal)) => return Outcome::Refused(refusal),
                    Err(Fault::NotSent(why) | Fault::Ambiguous(why)) => last = why,
                }
                member.1.mark_failed();
                if !attempts.start() && attempts.running.is_empty() {
                    attempts.refill();
                    next_start = Instant::now() + PASS_PAUSE;
                }
            }
            () = sleep_until(end) => return Outcome::Unknown(last),
            () = sleep_until(next_start) => {
                attempts.start();
                next_start += deadline / 3;
            }
        }
    }
}

/// The attempts of one renewal: at most one at a time through each member.
struct Attempts<'a> {
    shared: &'a Arc<Shared>,
    proof: Proof,
    waiting: VecDeque<(usize, Arc<Member>)>,
    running: JoinSet<(usize, Result<Renewed, Fault>)>,
}

impl Attempts<'_> {
    /// Starts an attempt through the next member; `false` if each has been tried.
    fn start(&mut self) -> bool {
        let Some((index, member)) = self.waiting.pop_front() else { return false };
        let (shared, proof) = (self.shared.clone(), self.proof.clone());
        self.running.spawn(async move { (index, attempt(&shared, &member, &proof).await) });
        true
    }

    /// Makes every member one to be tried again.
    fn refill(&mut self) {
        assert!(self.running.is_empty(), "a member that is being asked is not asked twice");
        self.waiting = self.shared.order().into();
    }
}
