//! Begins the shards of a segment: at the backends of their slots, and where one does not answer at another that stands in.
//!
//! Shell: reads the clock. Not here: the ack rule (`segment_writer`), who may stand in (`stand_ins`).

use super::segment_writer::{Lane, SegmentPlan, too_slow};
use super::shared::Shared;
use super::stand_ins::{StandIns, TRIES_MAX};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_proto::node::{NodeClient, ShardError, ShardWriter};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, Epoch};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Pauses before a backend that is busy is asked again to begin.
const BEGIN_RETRIES: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(40), Duration::from_millis(160)];

/// Begins all shards at once. Backends that hung a moment ago, or do not answer soon, are left out for others that stand in;
/// they are waited for only where too few are left.
pub(super) async fn begin_all(
    shared: &Shared,
    plan: &SegmentPlan,
    stand_ins: &mut StandIns,
    needed: usize,
) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = plan.life.targets.iter().enumerate().map(|(slot, &at)| Lane::new(slot, at)).collect();
    let is_hung = |lane: &Lane| shared.hung_writes.avoids(lane.backend);
    let others: Vec<usize> = (0..lanes.len()).filter(|&slot| !is_hung(&lanes[slot])).collect();
    let patience = &shared.patience;
    let limit = if stand_ins.is_empty() { patience.step } else { patience.stand_in_after };
    begin_some(shared, plan, &mut lanes, &others, (needed, limit)).await;
    for _ in 0..TRIES_MAX {
        let seated = seat_stand_ins(plan, stand_ins, &mut lanes);
        if seated.is_empty() {
            break;
        }
        begin_some(shared, plan, &mut lanes, &seated, (seated.len(), patience.stand_in_after)).await;
    }
    let lacking = without_writer(&lanes);
    for &slot in &lacking {
        lanes[slot].backend = plan.life.targets[slot];
    }
    let begun = lanes.len() - lacking.len();
    if begun < needed {
        begin_some(shared, plan, &mut lanes, &lacking, (needed - begun, patience.step)).await;
    }
    for lane in lanes.iter_mut().filter(|lane| lane.writer.is_none() && lane.failure.is_none()) {
        lane.failure = Some(too_slow(lane.backend));
    }
    lanes
}

fn without_writer(lanes: &[Lane]) -> Vec<usize> {
    lanes.iter().filter(|lane| lane.writer.is_none()).map(|lane| lane.slot).collect()
}

/// Gives each lane without a writer the next backend that may stand in. Returns the slots that got one.
fn seat_stand_ins(plan: &SegmentPlan, stand_ins: &mut StandIns, lanes: &mut [Lane]) -> Vec<usize> {
    let mut seated = Vec::new();
    let mut holders: Vec<BackendId> = lanes.iter().filter(|l| l.writer.is_some()).map(|l| l.backend).collect();
    for slot in without_writer(lanes) {
        let Some(backend) = stand_ins.take(&holders) else { break };
        plan.life.note_stand_in(slot, backend);
        tracing::debug!(segment = %plan.life.id, slot, of = %plan.life.targets[slot], %backend, "stands in");
        holders.push(backend);
        lanes[slot].backend = backend;
        seated.push(slot);
    }
    seated
}

/// Begins the shards of `slots` within `limit`. One that is far slower than `enough` others is not waited for.
async fn begin_some(
    shared: &Shared,
    plan: &SegmentPlan,
    lanes: &mut [Lane],
    slots: &[usize],
    (enough, limit): (usize, Duration),
) {
    let begin = |slot: usize, backend: BackendId| async move {
        (slot, begin(&*shared.node, backend, plan.header(slot), plan.life.epoch).await)
    };
    let mut begins: FuturesUnordered<_> = slots.iter().map(|&slot| begin(slot, lanes[slot].backend)).collect();
    let mut deadline = Instant::now() + limit;
    let mut begun = 0;
    let mut answered = 0u64;
    while let Ok(Some((slot, result))) = timeout_at(deadline, begins.next()).await {
        answered |= 1 << slot;
        match result {
            Ok(writer) => {
                (lanes[slot].writer, lanes[slot].failure) = (Some(writer), None);
                begun += 1;
            }
            Err(error) => lanes[slot].failure = Some(error),
        }
        if begun == enough {
            deadline = deadline.min(Instant::now() + shared.patience.begin_grace);
        }
    }
    for slot in slots.iter().filter(|&&slot| answered & (1 << slot) == 0) {
        shared.hung_writes.record_failure(lanes[*slot].backend);
        lanes[*slot].failure.get_or_insert(too_slow(lanes[*slot].backend));
    }
}

async fn begin(
    node: &dyn NodeClient,
    backend: BackendId,
    header: ShardHeader,
    epoch: Epoch,
) -> Result<Box<dyn ShardWriter>, ShardError> {
    let mut retries = BEGIN_RETRIES.into_iter();
    loop {
        match node.begin_shard(backend, header.clone(), epoch).await {
            // A queue drains; the room of a full backend or its failure does not come back so soon.
            Err(ShardError::Busy { queued, .. }) => match retries.next() {
                Some(pause) => sleep(pause).await,
                None => return Err(ShardError::Busy { backend, queued }),
            },
            other => return other,
        }
    }
}
