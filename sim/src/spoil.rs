//! Planted bugs of core itself: what it remembers is spoilt before it decides. What reaches it and what becomes of its
//! orders is bent in `mutant.rs`.

use matriarch_core::id::Timeline;
use matriarch_core::state::{Ops, State};
use matriarch_core::time::{Instant, Seen};
use matriarch_core::view::postgres::DataDir;
use matriarch_core::view::store::{ClusterView, LeaderKey};

use crate::mutant::Mutant;

impl Mutant {
    /// What becomes of core's own state, before each step, where a bug of core's is planted; `kept` outlives the step.
    pub fn spoil(self, steps: u64, state: &mut State, kept: &mut Option<Seen<ClusterView>>) {
        match self {
            Self::StaleSnapshotAccepted if steps.is_multiple_of(300) => kept.clone_from(&state.store.cluster),
            Self::StaleSnapshotAccepted if steps.is_multiple_of(50) => {
                let mine = |seen: &Seen<ClusterView>| {
                    let known = state.store.cluster.as_ref();
                    known.is_some_and(|known| known.value.store == seen.value.store)
                };
                if let Some(before) = kept.take_if(|seen| mine(seen)) {
                    state.store.cluster = Some(before);
                }
            }
            Self::PledgeForgotten => {
                let pledged = state.pledge.is_some_and(|pledge| pledge.frozen && pledge.on_disk);
                let told = pledged && state.position_asked.is_empty();
                let Some(known) = &mut state.store.cluster else { return };
                let before = kept.as_ref().and_then(|kept| kept.value.leader.as_ref());
                if known.value.leader.is_some() {
                    if known.value.leader.as_ref() != before {
                        *kept = Some(known.clone());
                    }
                } else if told && before.is_some() {
                    known.value.leader = before.cloned();
                    state.pledge = None;
                }
            }
            Self::ClonedFromTheEmpty => takes_the_empty_for_a_leader(state),
            Self::FoundOfAnother => believes_it_of_the_next(state),
            // What the keys no longer tell is remembered.
            Self::TimelinesIgnored => {
                state.memory.told_history.clear();
                state.memory.told_status.as_mut().into_iter().for_each(|status| status.timeline = Timeline(0));
            }
            Self::HeirsAtOnce => state.memory.heirs_since = Some(Instant::default()),
            Self::SaidSoForgotten => {
                let unreachable = &state.peers.unreachable;
                state.peers.answers.retain(|member, _| !unreachable.contains_key(member));
            }
            Self::OperationsForgotten if steps.is_multiple_of(500) => state.ops = Ops::default(),
            _ => {}
        }
    }
}

/// Where nobody leads a member without data is taken for the one to be cloned from.
fn takes_the_empty_for_a_leader(state: &mut State) {
    let whole = matches!(&state.postgres.data, DataDir::Cluster(on_disk) if on_disk.tainted.is_none());
    let led = state.tenure.held().is_some();
    let Some(known) = state.store.cluster.as_mut().filter(|_| whole && !led) else { return };
    let (revision, members) = (known.value.revision, &mut known.value.members);
    let me = &state.config.me;
    let empty = members.iter_mut().find(|(name, key)| *name != me && !key.record.has_data());
    let Some((member, key)) = empty.filter(|_| known.value.leader.is_none()) else { return };
    (key.record.state, key.record.role) = ("running".into(), "primary".into());
    known.value.leader =
        Some(LeaderKey { member: member.clone(), lease: key.lease, created: revision, modified: revision });
    state.memory.reinit = true;
}

/// What a comparison and a rewind have told of one leader is put down to whoever leads.
fn believes_it_of_the_next(state: &mut State) {
    let leader = state.store.cluster.as_ref().and_then(|known| known.value.leader.as_ref());
    let Some(leads) = leader.map(|leader| leader.created) else { return };
    let memory = &mut state.memory;
    if let Some((of, _)) = &mut memory.rewind_failed {
        *of = leads;
    }
    if let Some((of, _)) = memory.compared.as_mut().filter(|(of, parts)| *of != leads && parts.is_some()) {
        (*of, memory.compared_at) = (leads, Some(state.wall.0));
    }
}
