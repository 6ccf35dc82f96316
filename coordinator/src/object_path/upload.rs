//! The way in: a body becomes inline bytes or segments, with its checksums, and nothing visible yet.
//!
//! Receiving, coding, writing and hashing overlap, batch by batch: this future fills cells from the network, the coding
//! threads turn batches into cells of all n slots, one task per segment appends them (`segment_writer`), the digest
//! thread follows behind. While a segment's shards become durable the next one is being filled.
//!
//! Shell: starts the tasks, reads the clock, draws ids.
//!
//! **Invariant:** whoever waits for buffers here holds none that waits for them: a batch that cannot grow is handed on
//! first. So every permit in use belongs to work that ends by itself or to a client that is sending, and a slow client
//! holds no more than the batch it is filling.

use super::api::{BodyStream, ChecksumExpectation, DamageHint, DurabilityReceipt, ObjectError};
use super::body::BodyReader;
use super::cell_stock::CellMemory;
use super::checksum::{self, Crc, DEFAULT_ALGORITHM, ShaKind, ShaStream};
use super::coding::{DataStripe, code_batch};
use super::digest_pool::{DigestStream, Keep};
use super::segment_writer::{PendingBatch, SegmentOutcome, SegmentPlan, write_segment};
use super::shared::{RebuildContext, Shared};
use super::uncommitted::{SegmentLife, Uncommitted};
use super::upload_budget::{BatchPermit, StripePermit, UploadBudget};
use crate::metadata::ClusterMap;
use bytes::Bytes;
use holdfast_codec::md5_lanes::Md5State;
use holdfast_codec::{Codec, Geometry, Stripe};
use holdfast_proto::manifest::{Checksum, Segment};
use holdfast_proto::{SegmentId, Slot};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Object bytes coded in one job and appended in one call: enough that a call's overhead (some 20 us over six backends)
/// is small beside its work (some 400 us), little enough that stages overlap within a small object.
const BATCH_BYTES: u64 = 1 << 20;
/// Batches that wait for a segment's writer; what they hold is bounded by the upload's budget anyway.
const BATCHES_WAITING: usize = 4;
/// Segments of one upload that are still becoming durable while the next is written.
const SEGMENTS_OPEN_MAX: usize = 4;
/// A body of unknown length is gathered up to this and then becomes a segment of that size: a shard's header says how
/// long it will be. Only form uploads come so.
const UNKNOWN_WINDOW_BYTES: u64 = 8 << 20;
/// `Segment::durable_slots` has so many bits.
const SLOTS_MAX: usize = 64;

/// What is to be stored.
pub(crate) struct StoreRequest {
    pub(crate) owner: RebuildContext,
    /// Bytes to come, where the client said.
    pub(crate) declared: Option<u64>,
    pub(crate) limit: u64,
    /// Bodies up to this long need no shards; `None` if they always do.
    pub(crate) inline_bytes_max: Option<u64>,
    pub(crate) expect: ChecksumExpectation,
}

/// Where the bytes went.
pub(crate) enum Content {
    /// They are to live in the metadata record.
    Inline(Bytes),
    /// They are in these segments, in order, as durable as the ack rule asks.
    Segments(Vec<Segment>),
}

/// Bytes stored, checked, and not yet referred to.
pub(crate) struct Stored {
    pub(crate) content: Content,
    pub(crate) object_bytes: u64,
    pub(crate) md5: [u8; 16],
    pub(crate) checksum: Checksum,
    pub(crate) receipt: DurabilityReceipt,
    pub(crate) uncommitted: Uncommitted,
    /// Shards that are not durable; to be told once the record is.
    pub(crate) missing: Vec<DamageHint>,
}

/// Stores a body. Dropped midway, or failing, it leaves nothing behind (see `uncommitted`).
pub(crate) async fn store(
    shared: &Arc<Shared>,
    request: StoreRequest,
    body: BodyStream,
) -> Result<Stored, ObjectError> {
    let mut body = BodyReader::new(body, request.declared, request.limit)?;
    let inline_bytes_max = request.inline_bytes_max.filter(|max| request.declared.is_none_or(|bytes| bytes <= *max));
    let short = match inline_bytes_max {
        Some(max) => body.take_short(max).await?,
        None => None,
    };
    if let Some(bytes) = short {
        return store_inline(shared, &request.expect, bytes);
    }
    let mut upload = Upload::new(shared.clone(), request.owner, &request.expect);
    match request.declared {
        Some(total) => upload.take_known(&mut body, total).await?,
        None => upload.take_unknown(&mut body).await?,
    }
    // The end is an answer too: signatures and trailers come with it.
    if !body.is_at_end().await? {
        return Err(ObjectError::Internal { reason: "the body goes on after its end".to_owned() });
    }
    upload.finish(&request.expect).await
}

fn store_inline(shared: &Arc<Shared>, expect: &ChecksumExpectation, bytes: Bytes) -> Result<Stored, ObjectError> {
    let md5 = Md5State::new().finalize(&bytes);
    let value = checksum::checksum_of(expect.algorithm.unwrap_or(DEFAULT_ALGORITHM), &bytes);
    Ok(Stored {
        object_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        content: Content::Inline(bytes),
        md5,
        checksum: checksum::verify(expect, md5, value)?,
        receipt: DurabilityReceipt { shards: 0, shards_total: 0, stand_ins: 0, inline: true },
        uncommitted: Uncommitted::new(shared.node.clone()),
        missing: Vec::new(),
    })
}

/// One body on its way into segments.
struct Upload {
    shared: Arc<Shared>,
    owner: RebuildContext,
    budget: UploadBudget,
    /// Stripes filled and not yet handed on, with their permits.
    stripes: Vec<DataStripe>,
    permits: Vec<StripePermit>,
    object_bytes: u64,
    digests: DigestStream,
    sha: Option<ShaStream>,
    /// Segments still being written or becoming durable, oldest first.
    open: VecDeque<oneshot::Receiver<Result<SegmentOutcome, ObjectError>>>,
    done: Vec<SegmentOutcome>,
    shards_total: u32,
    uncommitted: Uncommitted,
}

/// A segment that has an id, a place and a code, and no size yet.
struct EnteredSegment {
    life: Arc<SegmentLife>,
    map: Arc<ClusterMap>,
    codec: Codec,
    cell_bytes: u32,
}

/// A segment whose writer is at work. Dropping it says that all batches were sent.
struct OpenSegment {
    codec: Codec,
    geometry: Geometry,
    batches: mpsc::Sender<PendingBatch>,
}

impl Upload {
    fn new(shared: Arc<Shared>, owner: RebuildContext, expect: &ChecksumExpectation) -> Self {
        let algorithm = expect.algorithm.unwrap_or(DEFAULT_ALGORITHM);
        Self {
            owner,
            budget: UploadBudget::new(shared.write_budget.clone()),
            stripes: Vec::new(),
            permits: Vec::new(),
            object_bytes: 0,
            digests: shared.digests.stream(Crc::new(algorithm)),
            sha: ShaKind::of(algorithm).map(|kind| ShaStream::new(kind, shared.cpu.clone())),
            open: VecDeque::new(),
            done: Vec::new(),
            shards_total: 0,
            uncommitted: Uncommitted::new(shared.node.clone()),
            shared,
        }
    }

    /// Takes exactly `total` bytes: segments are begun before their bytes arrive.
    async fn take_known(&mut self, body: &mut BodyReader, total: u64) -> Result<(), ObjectError> {
        while self.object_bytes < total {
            let entered = self.enter()?;
            let bytes = self.segment_bytes_max(&entered).min(total - self.object_bytes);
            let segment = self.begin(entered, bytes).await?;
            for stripe in segment.geometry.stripes() {
                self.permit_stripe(&segment, stripe).await?;
                let data = self.fill_stripe(body, &segment.codec, stripe).await?;
                self.push_stripe(&segment, DataStripe { stripe, data }).await?;
            }
            self.flush(&segment).await?;
            self.object_bytes += bytes;
        }
        Ok(())
    }

    /// Takes whatever comes, a window at a time.
    async fn take_unknown(&mut self, body: &mut BodyReader) -> Result<(), ObjectError> {
        while !body.is_at_end().await? {
            let entered = self.enter()?;
            let (window, bytes) = self.gather_window(body, &entered).await?;
            let segment = self.begin(entered, bytes).await?;
            for (stripe, (cells, permit)) in segment.geometry.stripes().zip(window) {
                self.permits.push(permit);
                let data = self.lay_out(stripe, cells);
                self.push_stripe(&segment, DataStripe { stripe, data }).await?;
            }
            self.flush(&segment).await?;
            self.object_bytes += bytes;
        }
        Ok(())
    }

    /// Full stripes (the last may hold fewer bytes) up to the window, the body's end, or the buffers to be had without
    /// waiting: at least one. Returns them and how many object bytes they hold.
    async fn gather_window(
        &self,
        body: &mut BodyReader,
        entered: &EnteredSegment,
    ) -> Result<(Vec<(Vec<CellMemory>, StripePermit)>, u64), ObjectError> {
        let window_bytes = UNKNOWN_WINDOW_BYTES.min(self.segment_bytes_max(entered));
        let (mut window, mut bytes) = (Vec::new(), 0);
        let scheme = entered.codec.scheme();
        let stripe_buffers = u64::from(entered.cell_bytes) * count(scheme.n());
        let full = u64::from(entered.cell_bytes) * count(scheme.k());
        while window.is_empty() || (bytes + full <= window_bytes && !body.is_at_end().await?) {
            let permit = match self.budget.try_acquire(stripe_buffers) {
                Some(permit) => permit,
                None if window.is_empty() => self.budget.acquire(stripe_buffers).await,
                None => break,
            };
            let mut cells = Vec::with_capacity(scheme.k());
            let mut stripe_bytes = 0;
            for _ in 0..scheme.k() {
                let mut cell = self.shared.stock.take(length(u64::from(entered.cell_bytes)));
                let filled = body.fill(&mut cell).await?;
                cell[filled..].fill(0);
                stripe_bytes += count(filled);
                cells.push(cell);
            }
            bytes += stripe_bytes;
            window.push((cells, permit));
        }
        Ok((window, bytes))
    }

    /// Freezes the cells of a stripe that was filled as a full one. If it turned out short, its bytes move into the
    /// shorter cells it is to have: the one case where bytes are copied twice.
    fn lay_out(&self, stripe: Stripe, cells: Vec<CellMemory>) -> Vec<Bytes> {
        let cell_bytes = length(u64::from(stripe.cell_bytes));
        if cells.iter().all(|cell| cell.len() == cell_bytes) {
            return cells.into_iter().map(CellMemory::freeze).collect();
        }
        let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.iter().copied()).take(length(stripe.bytes)).collect();
        let mut rest = &bytes[..];
        let shorter = (0..cells.len()).map(|_| {
            let mut cell = self.shared.stock.take(cell_bytes);
            let piece;
            (piece, rest) = rest.split_at(rest.len().min(cell_bytes));
            cell[..piece.len()].copy_from_slice(piece);
            cell[piece.len()..].fill(0);
            cell.freeze()
        });
        shorter.collect()
    }

    /// Gets the permit of the next stripe. If it has to wait, what is filled already is handed on before.
    async fn permit_stripe(&mut self, segment: &OpenSegment, stripe: Stripe) -> Result<(), ObjectError> {
        let bytes = u64::from(stripe.cell_bytes) * count(segment.codec.scheme().n());
        let permit = match self.budget.try_acquire(bytes) {
            Some(permit) => permit,
            None => {
                self.flush(segment).await?;
                self.budget.acquire(bytes).await
            }
        };
        self.permits.push(permit);
        Ok(())
    }

    /// Copies a stripe's bytes from the network into its cells: the only copy they see.
    async fn fill_stripe(
        &self,
        body: &mut BodyReader,
        codec: &Codec,
        stripe: Stripe,
    ) -> Result<Vec<Bytes>, ObjectError> {
        let mut data = Vec::with_capacity(codec.scheme().k());
        for slot in 0..codec.scheme().k() {
            let range = stripe.data_range(slot);
            let len = length(range.end - range.start);
            let mut cell = self.shared.stock.take(length(u64::from(stripe.cell_bytes)));
            if body.fill(&mut cell[..len]).await? != len {
                return Err(ObjectError::Internal { reason: "the body ended before its declared end".to_owned() });
            }
            cell[len..].fill(0);
            data.push(cell.freeze());
        }
        Ok(data)
    }

    async fn push_stripe(&mut self, segment: &OpenSegment, stripe: DataStripe) -> Result<(), ObjectError> {
        self.stripes.push(stripe);
        let bytes: u64 = self.stripes.iter().map(|filled| filled.stripe.bytes).sum();
        if bytes >= BATCH_BYTES { self.flush(segment).await } else { Ok(()) }
    }

    /// Hands the filled stripes on to coding and hashing at once, and to the segment's writer in order.
    async fn flush(&mut self, segment: &OpenSegment) -> Result<(), ObjectError> {
        if self.stripes.is_empty() {
            return Ok(());
        }
        let stripes = std::mem::take(&mut self.stripes);
        let permit = Arc::new(BatchPermit::new(std::mem::take(&mut self.permits)));
        let keep: Keep = permit.clone();
        let bytes: Vec<Bytes> = stripes.iter().flat_map(DataStripe::object_bytes).collect();
        for piece in &bytes {
            self.digests.push(piece.clone(), &keep);
        }
        if let Some(sha) = &self.sha {
            sha.push(bytes, &keep);
        }
        let (codec, shared) = (segment.codec.clone(), self.shared.clone());
        let coding = self.shared.cpu.run(move || code_batch(&codec, &shared.stock, &stripes));
        let batch = PendingBatch { coding: Box::pin(coding), permit };
        if segment.batches.send(batch).await.is_ok() {
            return Ok(());
        }
        // The writer takes no more: it has failed, and an older segment of ours may have failed first.
        while !self.open.is_empty() {
            self.settle_oldest().await?;
        }
        Err(ObjectError::Internal { reason: "a segment's writer ended early".to_owned() })
    }

    /// Gives the next segment its id and place, by the newest cluster map.
    fn enter(&mut self) -> Result<EnteredSegment, ObjectError> {
        let id = SegmentId::from_parts(self.shared.now_ms(), self.shared.random_id_bytes());
        let (guard, map) = self.shared.in_flight.enter(id, &self.shared.layout);
        let codec = self.shared.codecs.get(map.table.scheme)?;
        let pg = map.table.pg_of(id);
        let targets = map.table.pg(pg).map(|pg| pg.target.clone()).unwrap_or_default();
        let n = codec.scheme().n();
        if targets.len() != n || n > SLOTS_MAX {
            let reason = format!("PG {pg} has {} slots, its scheme {n}, a segment at most {SLOTS_MAX}", targets.len());
            return Err(ObjectError::Internal { reason });
        }
        self.shards_total = u32::try_from(n).unwrap_or(u32::MAX);
        let cell_bytes = self.shared.cell_bytes(codec.scheme().k());
        let life = SegmentLife::new(id, (pg, targets), map.table.epoch, guard);
        Ok(EnteredSegment { life: Arc::new(life), map, codec, cell_bytes })
    }

    /// Object bytes of a full segment: whole stripes, so that only an object's last stripe is short.
    fn segment_bytes_max(&self, entered: &EnteredSegment) -> u64 {
        let stripe = u64::from(entered.cell_bytes) * count(entered.codec.scheme().k());
        let max = self.shared.options.segment_bytes.max(1);
        if max < stripe { max } else { max - max % stripe }
    }

    /// Starts the writer of a segment of `bytes`; waits while too many earlier ones are becoming durable.
    async fn begin(&mut self, entered: EnteredSegment, bytes: u64) -> Result<OpenSegment, ObjectError> {
        while self.open.len() >= SEGMENTS_OPEN_MAX {
            self.settle_oldest().await?;
        }
        let EnteredSegment { life, map, codec, cell_bytes } = entered;
        let geometry = Geometry::new(codec.scheme().k(), cell_bytes, bytes);
        let plan = SegmentPlan {
            life: life.clone(),
            map,
            owner: self.owner,
            scheme: codec.scheme(),
            geometry,
            segment_offset: self.object_bytes,
            created_ms: self.shared.now_ms(),
        };
        let (batches, inbox) = mpsc::channel(BATCHES_WAITING);
        let (answer, outcome) = oneshot::channel();
        let shared = self.shared.clone();
        let writer = tokio::spawn(async move {
            // An upload that is gone has aborted this task.
            let _ = answer.send(write_segment(shared, plan, inbox).await);
        });
        self.uncommitted.add(life, writer);
        self.open.push_back(outcome);
        Ok(OpenSegment { codec, geometry, batches })
    }

    async fn settle_oldest(&mut self) -> Result<(), ObjectError> {
        let Some(outcome) = self.open.pop_front() else { return Ok(()) };
        let lost = |_| ObjectError::Internal { reason: "a segment's writer is gone".to_owned() };
        self.done.push(outcome.await.map_err(lost)??);
        Ok(())
    }

    /// Waits for everything under way and holds the checksums against what the client said.
    async fn finish(mut self, expect: &ChecksumExpectation) -> Result<Stored, ObjectError> {
        while !self.open.is_empty() {
            self.settle_oldest().await?;
        }
        let digests = self.digests.finish().await?;
        let value = match (self.sha.take(), digests.crc) {
            (Some(sha), _) => sha.finish().await?,
            (None, Some(crc)) => crc.value(),
            (None, None) => return Err(ObjectError::Internal { reason: "no checksum was computed".to_owned() }),
        };
        let md5 = digests.md5;
        let checksum = checksum::verify(expect, md5, value)?;
        let shards = self.done.iter().map(|outcome| outcome.durable).min().unwrap_or(self.shards_total);
        let stand_ins = self.done.iter().map(|outcome| outcome.segment.stand_ins.len()).max().unwrap_or(0);
        let missing = self.done.iter().flat_map(|outcome| self.uncommitted.missing(&outcome.segment)).collect();
        Ok(Stored {
            content: Content::Segments(self.done.into_iter().map(|outcome| outcome.segment).collect()),
            object_bytes: self.object_bytes,
            md5,
            checksum,
            receipt: DurabilityReceipt {
                shards,
                shards_total: self.shards_total,
                stand_ins: u32::try_from(stand_ins).unwrap_or(u32::MAX),
                inline: false,
            },
            uncommitted: self.uncommitted,
            missing,
        })
    }
}

impl Uncommitted {
    /// The shards of one of its segments that are not durable at the backends of their slots.
    fn missing(&self, segment: &Segment) -> Vec<DamageHint> {
        let Some(life) = self.life(segment.segment_id()) else { return Vec::new() };
        let slots = (0u8..)
            .zip(&life.targets)
            .filter(|(slot, _)| segment.durable_slots & (1 << slot) == 0 || segment.stand_in(Slot(*slot)).is_some());
        slots.map(|(slot, &backend)| DamageHint { shard: segment.shard(Slot(slot)), backend }).collect()
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn length(bytes: u64) -> usize {
    // Cells and stripes are a few MiB at most.
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
