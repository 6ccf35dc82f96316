//! The shell that keeps the groups as they should be: each node looks after the groups it leads. Members follow the plans
//! of `voters.rs`; splits and removals that somebody began are carried on by the leader of the root group.
//!
//! Touches the world: tokio's clock.

use super::super::api::ClusterMap;
use super::super::command::{Kind, RangeMembers};
use super::super::consensus::{Consensus, MemberChange};
use super::super::group::Group;
use super::super::state;
use super::super::voters::{Candidate, VOTERS_MAX, Wish, is_deaf, plan, range_voters_max, voter_count};
use super::{FIRST_RANGE, Inner, MetadataStore, ROOT};
use holdfast_placement::Promise;
use holdfast_proto::cluster::{NodeIntent, NodeRecord, Role};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How often groups are looked after.
const PERIOD: Duration = Duration::from_secs(1);
/// A change of members that takes longer is given up here, and planned again as things then stand.
const CHANGE_LIMIT: Duration = Duration::from_secs(20);
/// Pause between two moves of one group's leadership: an unhappy one must not be tried without end.
const TRANSFER_PAUSE: Duration = Duration::from_secs(15);

/// How long a leader that hears nobody is silent: followers elect another after at most 2.4 s (`group.rs`).
const SILENCE: Duration = Duration::from_secs(5);
/// From one silence to the next: in between it speaks, and is answered if it was the network that has healed.
const SILENCE_PAUSE: Duration = Duration::from_secs(10);

/// Looks after the groups until the store is gone.
pub(super) async fn keep(inner: Weak<Inner>) {
    let meaning = "Voters of a metadata group, at the node that leads it; 0 at the others";
    metrics::describe_gauge!("holdfast_metadata_voters", metrics::Unit::Count, meaning);
    let mut transferred: BTreeMap<u32, Instant> = BTreeMap::new();
    let mut silenced: BTreeMap<u32, Instant> = BTreeMap::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(inner) = inner.upgrade() else { return };
        let map = inner.map_here();
        let candidates = inner.candidates(map.as_deref());
        let range_voters = voters_of_ranges(map.as_deref());
        keep_silent_if_deaf(&inner, &mut silenced);
        for group in inner.groups.all() {
            let is_root = group.number() == ROOT;
            let voters_max = if is_root { VOTERS_MAX } else { range_voters };
            let wish = Wish { voters_max, is_everywhere: is_root, group: group.number() };
            look_after(&inner, &group, wish, &candidates, &mut transferred).await;
            let members = group.members();
            let voters = if members.is_leader { members.voters.len() } else { 0 };
            let voters = u32::try_from(voters).unwrap_or(u32::MAX);
            metrics::gauge!("holdfast_metadata_voters", "group" => group.number().to_string()).set(voters);
            if let Err(error) = group.drop_log_if_lone().await {
                tracing::warn!(%error, "drop the log before a flush");
            }
            if group.number() == FIRST_RANGE
                && let Err(error) = group.drop_first_entry().await
            {
                tracing::warn!(%error, "drop the first entry of the log");
            }
        }
        if inner.groups.get(ROOT).is_some_and(|root| root.members().is_leader) {
            carry_on(&inner).await;
        }
    }
}

/// A leader that is heard and hears nobody gives way.
fn keep_silent_if_deaf(inner: &Inner, silenced: &mut BTreeMap<u32, Instant>) {
    for group in inner.groups.all() {
        let number = group.number();
        let was_just_silent = silenced.get(&number).is_some_and(|began| began.elapsed() < SILENCE_PAUSE);
        if !was_just_silent && is_deaf(&group.members(), inner.me) {
            tracing::warn!(
                group = number,
                "leads a metadata group and hears no quorum of it: keeps silent for a while"
            );
            silenced.insert(number, Instant::now());
            group.keep_silent(SILENCE);
        }
    }
}

async fn look_after(
    inner: &Arc<Inner>,
    group: &Arc<Group>,
    wish: Wish,
    candidates: &[Candidate],
    transferred: &mut BTreeMap<u32, Instant>,
) {
    let (number, members) = (group.number(), group.members());
    let Some(change) = plan(candidates, &members, wish, inner.me) else {
        report_members(inner, number, &members).await;
        return;
    };
    if let MemberChange::Transfer(_) = change {
        let is_early = transferred.get(&number).is_some_and(|last| last.elapsed() < TRANSFER_PAUSE);
        if is_early {
            return;
        }
        transferred.insert(number, Instant::now());
    }
    tracing::info!(group = number, ?change, "change the members of a metadata group");
    match tokio::time::timeout(CHANGE_LIMIT, group.change_members(change)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(group = number, %error, "change the members of a metadata group"),
        Err(_) => tracing::warn!(group = number, "a change of members takes long; it is planned again"),
    }
}

/// Tells the root group who keeps a range, for those that do not.
async fn report_members(inner: &Arc<Inner>, range: u32, members: &super::super::consensus::Members) {
    if range == ROOT || !members.is_leader {
        return;
    }
    let now: Vec<u64> = members.voters.iter().copied().collect();
    let told = {
        let cache = inner.cache.read();
        let record = cache.ranges.values().find(|record| record.range == range);
        record.map(|record| record.members.clone())
    };
    // A range the map does not show yet is being split off; one with a single member says nothing that is not known.
    let Some(told) = told else { return };
    if told == now || (told.is_empty() && now.len() == 1) {
        return;
    }
    if let Err(error) = inner.propose(ROOT, Kind::RangeMembers(RangeMembers { range, members: now })).await {
        tracing::warn!(range, %error, "tell who keeps a range");
    }
}

/// Splits and removals that were begun and whose beginner may be gone.
async fn carry_on(inner: &Arc<Inner>) {
    let splits = inner.cache.read().splits.clone();
    for split in splits {
        if let Err(error) = inner.carry_on(&split).await {
            tracing::warn!(range = split.parent, %error, "carry on a split");
        }
    }
    let is_removal_begun = inner.cache.read().buckets.values().any(|bucket| bucket.deleting);
    if is_removal_begun {
        let store = MetadataStore { inner: inner.clone() };
        if let Err(error) = store.finish_removals().await {
            tracing::warn!(%error, "carry on the removal of a bucket");
        }
    }
}

/// Voters of each range, at most.
fn voters_of_ranges(map: Option<&ClusterMap>) -> usize {
    range_voters_max(map.map_or(&Promise::default(), |map| &map.promise))
}

impl Inner {
    /// The coordinators: as told by `set_nodes`, else by the cluster map.
    fn candidates(&self, map: Option<&ClusterMap>) -> Vec<Candidate> {
        let told = self.nodes.read().clone();
        let nodes = if told.is_empty() { map.map(|map| map.nodes.clone()).unwrap_or_default() } else { told };
        let coordinators = nodes.into_iter().filter(|node| node.roles.has(Role::Coordinator));
        let candidate = |node: NodeRecord| Candidate {
            node: node.id.0,
            is_staying: node.intent == NodeIntent::Active,
            is_member: node.intent != NodeIntent::Removed,
            region: node.region,
            zone: node.zone,
        };
        coordinators.map(candidate).collect()
    }

    /// How many nodes can lead a range.
    pub(super) fn coordinators(&self) -> usize {
        let map = self.map_here();
        self.candidates(map.as_deref()).iter().filter(|candidate| candidate.is_staying).count().max(1)
    }

    /// How many voters the root group and each range should have, as many coordinators as there are.
    pub(super) fn wanted_voters(&self) -> (usize, usize) {
        let map = self.map_here();
        let staying = self.candidates(map.as_deref()).iter().filter(|candidate| candidate.is_staying).count();
        let of_range = voters_of_ranges(map.as_deref());
        (voter_count(staying, VOTERS_MAX), voter_count(staying, of_range))
    }

    /// The cluster map as this node's copy of the root group has it; read anew once that has applied more.
    fn map_here(&self) -> Option<Arc<ClusterMap>> {
        let applied = self.groups.get(ROOT)?.state().applied_index();
        let mut known = self.known_map.lock();
        if let Some((_, map)) = known.as_ref().filter(|(at, _)| *at == applied) {
            return Some(map.clone());
        }
        let read = state::cluster_map_row(self.state.as_ref()).unwrap_or_else(|error| {
            tracing::warn!(%error, "read the cluster map");
            None
        });
        let map = Arc::new(read?);
        *known = Some((applied, map.clone()));
        Some(map)
    }
}
