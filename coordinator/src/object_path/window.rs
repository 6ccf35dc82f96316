//! Reads one window: cells of a run of stripes of one segment, from whichever shards answer well, decoded where needed.
//!
//! Shell: waits on the node and on timers. The decisions are in `gather`.
//!
//! **Invariant:** every cell handed out was verified against the root in the manifest (by the node of this process, or here
//! if another sent it), or decoded from k such cells.

use super::api::{DamageHint, ObjectError};
use super::gather::{Ask, DecodeTask, Gather};
use super::hedge::HARD;
use super::segment_layout::{SegmentLayout, slot_id};
use super::shared::Shared;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_codec::SlotSet;
use holdfast_proto::BackendId;
use holdfast_proto::node::{ShardError, ShardRead};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// A read that takes this long counts as failed; the window has worked around it long before, if it could.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What a window is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A client's read: what is found damaged is told to repair.
    Serve,
    /// Repair itself.
    Rebuild,
}

/// A run of stripes of a segment.
pub(crate) struct WindowRequest<'a> {
    pub(crate) layout: &'a SegmentLayout,
    pub(crate) stripes: Range<u32>,
    pub(crate) purpose: Purpose,
    /// Slots to be asked last, besides those of backends that failed lately.
    pub(crate) last_choice: SlotSet,
}

/// The outcome of asking one slot.
struct Answer {
    ask: Ask,
    read: Result<ShardRead, ShardError>,
    /// Where the shard should be; the backend that gave the answer.
    backend: BackendId,
}

impl WindowRequest<'_> {
    fn stripe_count(&self) -> usize {
        self.stripes.len()
    }
    /// Length of the cells of stripe `stripe` of the window.
    fn cell_bytes(&self, stripe: usize) -> usize {
        let index = self.stripes.start + u32::try_from(stripe).unwrap_or(u32::MAX);
        usize::try_from(self.layout.geometry.stripe(index).cell_bytes).unwrap_or(usize::MAX)
    }
}

/// Reads until every cell that `wanted(slot, stripe within the window)` names is present.
///
/// # Errors
/// `Unreadable` when fewer than k cells of a stripe can be had.
pub(crate) async fn read_window(
    shared: &Arc<Shared>,
    request: &WindowRequest<'_>,
    wanted: impl Fn(usize, usize) -> bool,
) -> Result<Gather, ObjectError> {
    let scheme = request.layout.codec.scheme();
    let avoided = avoided_slots(shared, request);
    let gather = Gather::new((scheme.k(), scheme.n()), request.stripe_count(), wanted, avoided);
    let mut gather = gather.with_ranks(ranks(shared, request));
    let started = Instant::now();
    let mut reads: FuturesUnordered<_> =
        gather.start().into_iter().map(|ask| read_slot(shared, request, ask)).collect();
    let mut deadlines = [started + shared.hedge.soft(), started + HARD].into_iter();
    let mut deadline = deadlines.next();
    let mut is_hedged = false;
    while !gather.is_satisfied() {
        tokio::select! {
            biased;
            answer = reads.next() => {
                let Some(answer) = answer else { return Err(unreadable(request, &gather)) };
                take_answer(shared, request, &mut gather, answer);
            }
            () = sleep_until(deadline.unwrap_or(started)), if deadline.is_some() => {
                let is_hard = deadline.is_some_and(|at| at >= started + HARD);
                deadline = deadlines.next();
                if !is_hard && !shared.hedge.try_hedge() {
                    continue;
                }
                metrics::counter!("holdfast_read_hedged_total").increment(1);
                if is_hard {
                    remember_hung(shared, request, &gather);
                }
                is_hedged = true;
                gather.handle_late();
            }
        }
        reads.extend(gather.widen().into_iter().map(|ask| read_slot(shared, request, ask)));
    }
    shared.hedge.record(started.elapsed());
    drop(reads);
    remember_abandoned(shared, request, &gather, (started, is_hedged));
    decode(shared, request, gather).await
}

/// Slots that are less likely to answer, or to do so soon: their backend failed lately or is far slower than the others,
/// or they were never durable.
fn avoided_slots(shared: &Shared, request: &WindowRequest<'_>) -> SlotSet {
    let now = Instant::now();
    let is_doubtful = |slot: usize| {
        let first = first_place(shared, request, slot);
        let is_avoided =
            |backend| shared.backend_memory.avoids(backend) || !shared.slow_reads.lock().takes_turn(backend, now);
        first.is_none_or(is_avoided) || !request.layout.was_durable(slot)
    };
    let doubtful: SlotSet = (0..request.layout.codec.scheme().n()).filter(|&slot| is_doubtful(slot)).collect();
    doubtful.union(&request.last_choice)
}

/// How quick each slot's backend usually is.
fn ranks(shared: &Shared, request: &WindowRequest<'_>) -> impl Fn(usize) -> u32 + use<> {
    let rank = |slot: usize| {
        first_place(shared, request, slot).map_or(u32::MAX, |backend| shared.slow_reads.lock().rank(backend))
    };
    let ranks: Vec<u32> = (0..request.layout.codec.scheme().n()).map(rank).collect();
    move |slot| ranks.get(slot).copied().unwrap_or(u32::MAX)
}

/// What was not waited for took at least so long. If others had to be asked for it and answered, the next reads ask those
/// at once: hedges are rationed, and a node that is cut off would cost one every window.
fn remember_abandoned(
    shared: &Shared,
    request: &WindowRequest<'_>,
    gather: &Gather,
    (started, is_hedged): (Instant, bool),
) {
    let now = Instant::now();
    for slot in gather.outstanding_slots() {
        if let Some(backend) = first_place(shared, request, slot) {
            shared.slow_reads.lock().handle_abandoned(backend, now.saturating_duration_since(started), now);
            if is_hedged {
                shared.backend_memory.record_failure(backend);
            }
        }
    }
}

/// Where a slot's shard may be, best first: where it belongs, where it was before a move, where it was taken in; the last
/// comes first while the first does not answer.
fn places(shared: &Shared, request: &WindowRequest<'_>, slot: usize) -> Vec<BackendId> {
    let mut places = shared.layout.current().table.locations(request.layout.pg, slot_id(slot));
    if let Some(stand_in) = request.layout.stand_in(slot).filter(|stand_in| !places.contains(stand_in)) {
        let is_away = places.first().is_none_or(|home| shared.backend_memory.avoids(*home));
        places.insert(if is_away { 0 } else { places.len() }, stand_in);
    }
    places
}

fn first_place(shared: &Shared, request: &WindowRequest<'_>, slot: usize) -> Option<BackendId> {
    places(shared, request, slot).first().copied()
}

/// Asks for a slot's cells at each place in turn.
async fn read_slot(shared: &Arc<Shared>, request: &WindowRequest<'_>, ask: Ask) -> Answer {
    let shard = request.layout.shard(ask.slot);
    let places = places(shared, request, usize::from(shard.slot.0));
    let home = places.first().copied().unwrap_or_default();
    let mut answer = Answer { ask, read: Err(ShardError::NotFound { shard, backend: home }), backend: home };
    let Some(root) = request.layout.root(answer.ask.slot) else { return answer };
    let first = request.stripes.start + u32::try_from(answer.ask.stripes.start).unwrap_or(u32::MAX);
    let count = u32::try_from(answer.ask.stripes.len()).unwrap_or(u32::MAX);
    for backend in places {
        let asked = Instant::now();
        let read = shared.node.read_shard(backend, shard, first, count, Some(root));
        let slow = || ShardError::Unavailable { backend, reason: "did not answer in time".to_owned() };
        let read = timeout(READ_TIMEOUT, read).await.unwrap_or_else(|_| Err(slow()));
        if let Err(error) = &read {
            note_failure(shared, backend, error);
        }
        let is_found = read.is_ok();
        if is_found {
            let now = Instant::now();
            shared.slow_reads.lock().handle_answer(backend, now.saturating_duration_since(asked), now);
        }
        // The first cause is the one worth telling, unless it was only not there (yet).
        if is_found || matches!(answer.read, Err(ShardError::NotFound { .. })) {
            (answer.read, answer.backend) = (read, backend);
        }
        if is_found {
            break;
        }
    }
    answer
}

/// A failure of the backend as a whole is remembered; a single shard's is not.
fn note_failure(shared: &Shared, backend: BackendId, error: &ShardError) {
    match error {
        ShardError::NotFound { .. }
        | ShardError::Damaged { .. }
        | ShardError::Invalid { .. }
        | ShardError::StaleEpoch { .. } => {}
        _ => shared.backend_memory.record_failure(backend),
    }
}

/// What has not answered by now will not soon: the next reads ask it last.
fn remember_hung(shared: &Shared, request: &WindowRequest<'_>, gather: &Gather) {
    for slot in gather.outstanding_slots() {
        if let Some(backend) = first_place(shared, request, slot) {
            tracing::warn!(%backend, segment = %request.layout.id, "backend hangs in a read");
            shared.backend_memory.record_failure(backend);
        }
    }
}

fn take_answer(shared: &Shared, request: &WindowRequest<'_>, gather: &mut Gather, answer: Answer) {
    let Answer { ask, read, backend } = answer;
    let shard = request.layout.shard(ask.slot);
    let cells = match &read {
        Ok(read) => cut_cells(request, &ask, read),
        Err(_) => vec![None; ask.stripes.len()],
    };
    let is_damaged = match &read {
        Ok(_) => cells.iter().any(Option::is_none),
        // A backend that is away as a whole is the business of its health probe, not a hint for every shard on it.
        Err(error) => matches!(
            error,
            ShardError::NotFound { .. }
                | ShardError::Damaged { .. }
                | ShardError::Io { .. }
                | ShardError::Invalid { .. }
        ),
    };
    if is_damaged && request.purpose == Purpose::Serve {
        if let Err(error) = &read {
            tracing::debug!(%shard, %backend, %error, "read around a shard");
        }
        metrics::counter!("holdfast_read_damaged_shards_total").increment(1);
        shared.hint(DamageHint { shard, backend });
    }
    gather.handle_read(&ask, cells);
}

/// The cells of an answer; one that failed its hash is none. Bytes of another length than the geometry's are no cells.
fn cut_cells(request: &WindowRequest<'_>, ask: &Ask, read: &ShardRead) -> Vec<Option<Bytes>> {
    let expected: usize = ask.stripes.clone().map(|stripe| request.cell_bytes(stripe)).sum();
    if read.bytes.len() != expected || read.header.id != request.layout.shard(ask.slot) {
        return vec![None; ask.stripes.len()];
    }
    let mut at = 0;
    ask.stripes
        .clone()
        .map(|stripe| {
            let index = request.stripes.start + u32::try_from(stripe).unwrap_or(u32::MAX);
            let cell = read.bytes.slice(at..at + request.cell_bytes(stripe));
            at += cell.len();
            (!read.damaged.contains(&index)).then_some(cell)
        })
        .collect()
}

/// Computes the wanted cells that did not come, on the coding threads.
async fn decode(shared: &Arc<Shared>, request: &WindowRequest<'_>, mut gather: Gather) -> Result<Gather, ObjectError> {
    let tasks = gather.decode_tasks();
    if tasks.is_empty() {
        return Ok(gather);
    }
    if request.purpose == Purpose::Serve {
        metrics::counter!("holdfast_read_decoded_stripes_total").increment(u64::try_from(tasks.len()).unwrap_or(0));
    }
    let (codec, pool) = (request.layout.codec.clone(), shared.clone());
    let decoded = shared.cpu.run(move || {
        tasks.iter().map(|task| decode_stripe(&pool, &codec, task)).collect::<Result<Vec<_>, ObjectError>>()
    });
    let decoded = decoded.await.map_err(|lost| ObjectError::Internal { reason: lost.to_string() })??;
    for (slot, stripe, bytes) in decoded.into_iter().flatten() {
        gather.handle_decoded(slot, stripe, bytes);
    }
    Ok(gather)
}

fn decode_stripe(
    shared: &Shared,
    codec: &holdfast_codec::Codec,
    task: &DecodeTask,
) -> Result<Vec<(usize, usize, Bytes)>, ObjectError> {
    let present: Vec<(usize, &[u8])> = task.present.iter().map(|(slot, cell)| (*slot, cell.as_ref())).collect();
    let cell_bytes = present.first().map_or(0, |(_, cell)| cell.len());
    let mut buffers: Vec<_> = task.wanted.iter().map(|&slot| (slot, shared.stock.take(cell_bytes))).collect();
    let mut targets: Vec<(usize, &mut [u8])> = buffers.iter_mut().map(|(slot, cell)| (*slot, &mut cell[..])).collect();
    codec
        .reconstruct(&present, &mut targets)
        .map_err(|error| ObjectError::Internal { reason: format!("decode: {error}") })?;
    Ok(buffers.into_iter().map(|(slot, cell)| (slot, task.stripe, cell.freeze())).collect())
}

fn unreadable(request: &WindowRequest<'_>, gather: &Gather) -> ObjectError {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    ObjectError::Unreadable {
        segment: request.layout.id.to_string(),
        present: count(gather.present_min()),
        needed: count(request.layout.codec.scheme().k()),
    }
}
