//! Which backends may take in the shards of a segment whose own backends do not answer, and what is rebuilt on them when
//! those fail in its middle.
//!
//! Not here: beginning shards on them (`segment_begin`), finding those again (the segment's record names them).
//!
//! **Invariant:** a stand-in is wanted and answers as far as known, belongs to no slot of the segment's PG, and is offered
//! once for a segment.

use super::rebuild::rebuild;
use super::segment_layout::slot_id;
use super::segment_writer::SegmentPlan;
use super::shared::Shared;
use super::uncommitted::SegmentLife;
use crate::metadata::ClusterMap;
use crate::repair::topology;
use holdfast_placement::{Topology, choose_stand_in};
use holdfast_proto::BackendId;
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::cluster::NodeIntent;
use holdfast_proto::manifest::{Segment, StandIn};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Stand-ins tried for one shard.
pub(super) const TRIES_MAX: usize = 3;

/// The backends that may stand in for others of one segment.
pub(super) struct StandIns {
    map: Arc<ClusterMap>,
    /// Made when it is first needed.
    topology: Option<Topology>,
    free: BTreeSet<BackendId>,
    seed: u64,
}

impl StandIns {
    /// Those of `map` that are not of the segment's PG.
    pub(super) fn new(shared: &Shared, map: &Arc<ClusterMap>, life: &SegmentLife) -> Self {
        let committed = map.table.pg(life.pg).map(|pg| pg.committed.clone()).unwrap_or_default();
        let is_node_wanted = |number| {
            let node = map.nodes.iter().find(|node| node.id == number);
            node.is_none_or(|node| node.intent == NodeIntent::Active)
        };
        let is_free = |id| !life.targets.contains(&id) && !committed.contains(&id);
        let wanted = map.backends.iter().filter(|record| {
            record.intent == BackendIntent::Active && is_node_wanted(record.node) && is_free(record.id)
        });
        let is_answering = |id: &BackendId| !shared.hung_writes.avoids(*id) && !shared.backend_memory.avoids(*id);
        let free: BTreeSet<BackendId> = wanted.map(|record| record.id).filter(is_answering).collect();
        let seed = life.id.as_bytes().iter().rev().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        Self { map: map.clone(), topology: None, free, seed }
    }

    /// Whether nobody is left.
    pub(super) fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// The best one beside `holders`, which have the segment's other shards; not offered again.
    pub(super) fn take(&mut self, holders: &[BackendId]) -> Option<BackendId> {
        if self.free.is_empty() {
            return None;
        }
        // A map that contradicts itself is refused before it is stored; should one come by, nobody stands in.
        let known = self.topology.get_or_insert_with(|| topology(&self.map, &[]).unwrap_or_default());
        let taken = choose_stand_in(known, holders, |id| self.free.contains(&id), self.seed)?;
        self.free.remove(&taken);
        Some(taken)
    }
}

/// Rebuilds the shards that are not durable, from k that are, on backends that stand in, and notes in the record those
/// that became durable. `places`: where each slot's shard was written.
pub(super) async fn rebuild_missing(
    shared: &Arc<Shared>,
    plan: &SegmentPlan,
    segment: &mut Segment,
    mut stand_ins: StandIns,
    places: &[BackendId],
) {
    let is_durable = |segment: &Segment, slot: usize| segment.durable_slots & (1 << slot) != 0;
    for _ in 0..TRIES_MAX {
        let (held, missing): (Vec<usize>, Vec<usize>) = (0..places.len()).partition(|&slot| is_durable(segment, slot));
        let place = |slot: usize| segment.stand_in(slot_id(slot)).unwrap_or(places[slot]);
        let mut holders: Vec<BackendId> = held.into_iter().map(place).collect();
        let mut seats = Vec::new();
        for slot in missing {
            let Some(backend) = stand_ins.take(&holders) else { break };
            plan.life.note_stand_in(slot, backend);
            holders.push(backend);
            seats.push((slot, backend));
        }
        if seats.is_empty() {
            return;
        }
        let known = segment.clone();
        let rebuilds = seats.iter().map(|&(slot, backend)| {
            let wanted = [(slot_id(slot), backend)];
            let known = &known;
            async move { (slot, backend, rebuild(shared, known, plan.owner, &wanted).await) }
        });
        for (slot, backend, rebuilt) in futures::future::join_all(rebuilds).await {
            match rebuilt {
                Ok(_) => {
                    segment.stand_ins.retain(|s| usize::try_from(s.slot) != Ok(slot));
                    segment.stand_ins.push(StandIn::new(slot_id(slot), backend));
                    segment.durable_slots |= 1 << slot;
                }
                Err(error) => tracing::warn!(segment = %plan.life.id, slot, %backend, %error, "no stand-in"),
            }
        }
    }
}
