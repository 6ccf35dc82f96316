//! The way out: a stream of the bytes of a range, window by window, with the next windows read while the current one is
//! being sent.
//!
//! Shell: starts tasks. Not here: how a window is read (`window`).
//!
//! **Invariant:** the stream gives exactly the bytes of the range, in order, or ends with an error; never fewer bytes
//! without one. It waits for buffers only when it holds none.
//!
//! A client that stops reading keeps what its stream holds. So that a few such clients do not keep everybody's buffers,
//! streams hold less the fewer are free: several windows, one, in the end one stripe.

use super::api::{ObjectError, ReadRequest, ReadStream};
use super::budget::Permit;
use super::readers::ReaderGuard;
use super::segment_layout::SegmentLayout;
use super::shared::Shared;
use super::window::{Purpose, WindowRequest, read_window};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use holdfast_codec::SlotSet;
use holdfast_proto::manifest::ObjectVersion;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

/// Object bytes of the first window: the sooner the first byte leaves.
const FIRST_WINDOW_BYTES: u64 = 1 << 20;
/// Object bytes of the windows after it: one call to each of k backends for each, so that a call's overhead (some 20 us)
/// is small beside reading and verifying 2 MiB (some 500 us).
const WINDOW_BYTES: u64 = 2 << 20;
/// Windows read at once: the one to be sent next and those after it. Two are enough for disks of this machine; with half of
/// the shards on other nodes, four give one stream a quarter more.
const WINDOWS_AHEAD: usize = 4;
/// Windows are read ahead while more than one part in so many of all buffers is free: four streams of the default budget
/// may come to a halt with all they can hold before the others stop reading ahead.
const FREE_TO_READ_AHEAD: usize = 2;
/// Full windows are read while more than this is free; then one stripe at a time, of which there is room for a hundred.
const FREE_FOR_WINDOWS: usize = 4;

/// Streams a range of a version.
pub(crate) fn read(shared: &Arc<Shared>, request: ReadRequest) -> ReadStream {
    let ReadRequest { version, range } = request;
    let range = range.start.min(version.object_bytes)..range.end.min(version.object_bytes);
    if range.is_empty() {
        return futures::stream::empty().boxed();
    }
    if version.segments.is_empty() {
        return futures::stream::iter([inline_bytes(&version, range)]).boxed();
    }
    let reader = Reader {
        _entered: shared.readers.enter(version.clone()),
        shared: shared.clone(),
        plan: ReadPlan { version, rest: range, segment: 0, segment_start: 0, layout: None },
        ahead: VecDeque::new(),
        current: VecDeque::new(),
        permit: None,
        has_begun: false,
    };
    let stream = futures::stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    stream.boxed()
}

fn inline_bytes(version: &ObjectVersion, range: Range<u64>) -> Result<Bytes, ObjectError> {
    let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
    match bounds.filter(|(_, end)| *end <= version.inline.len()) {
        Some((start, end)) => Ok(version.inline.slice(start..end)),
        None => Err(short_record(version)),
    }
}

fn short_record(version: &ObjectVersion) -> ObjectError {
    ObjectError::Internal {
        reason: format!("record of version {} holds fewer bytes than it says", version.version_id()),
    }
}

/// What is left to be read of a version.
struct ReadPlan {
    version: Arc<ObjectVersion>,
    /// Object bytes not yet planned.
    rest: Range<u64>,
    /// The segment that `rest` begins in, or one before it, and where that segment begins in the object.
    segment: usize,
    segment_start: u64,
    layout: Option<Arc<SegmentLayout>>,
}

/// Bytes of one segment to be read in one go.
struct Window {
    layout: Arc<SegmentLayout>,
    stripes: Range<u32>,
    /// Bytes wanted, within the segment.
    bytes: Range<u64>,
}

impl ReadPlan {
    /// The next window of at most `bytes_max` bytes of stripes, at least one stripe; `None` at the end.
    fn next(&mut self, shared: &Shared, bytes_max: u64) -> Result<Option<Window>, ObjectError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let layout = self.seek(shared)?;
        let geometry = layout.geometry;
        let bytes = self.rest.start - self.segment_start..self.rest.end - self.segment_start;
        let touched = geometry.stripes_for(bytes.clone());
        let stripes_max = u32::try_from(bytes_max / geometry.stripe_bytes()).unwrap_or(u32::MAX).max(1);
        let stripes = touched.start..touched.end.min(touched.start.saturating_add(stripes_max));
        let end = bytes.end.min(geometry.stripe(stripes.end).offset).min(geometry.segment_bytes());
        if stripes.is_empty() || end <= bytes.start {
            return Err(short_record(&self.version));
        }
        self.rest.start = self.segment_start + end;
        Ok(Some(Window { layout, stripes, bytes: bytes.start..end }))
    }

    /// Goes on to the segment that holds the next byte.
    fn seek(&mut self, shared: &Shared) -> Result<Arc<SegmentLayout>, ObjectError> {
        loop {
            let record = self.version.segments.get(self.segment).ok_or_else(|| short_record(&self.version))?;
            let end = self.segment_start.saturating_add(record.segment_bytes);
            if self.rest.start >= end {
                (self.segment, self.segment_start, self.layout) = (self.segment + 1, end, None);
                continue;
            }
            if let Some(layout) = &self.layout {
                return Ok(layout.clone());
            }
            let layout = Arc::new(SegmentLayout::new(record, &shared.codecs)?);
            self.layout = Some(layout.clone());
            return Ok(layout);
        }
    }

    /// The least that can be read next: the cells of one stripe that hold a wanted byte.
    fn bytes_min(&mut self, shared: &Shared) -> Result<u64, ObjectError> {
        let geometry = self.seek(shared)?.geometry;
        let cell_bytes = u64::from(geometry.cell_bytes());
        let cells = (self.rest.end - self.rest.start) / cell_bytes + 2;
        Ok(geometry.stripe_bytes().min(geometry.segment_bytes()).min(cells.saturating_mul(cell_bytes)))
    }
}

/// A window on its way, with the permit of its buffers.
struct WindowAhead {
    bytes: BoxFuture<'static, Result<VecDeque<Bytes>, ObjectError>>,
    permit: Permit,
}

/// The state of a stream.
struct Reader {
    _entered: ReaderGuard,
    shared: Arc<Shared>,
    plan: ReadPlan,
    ahead: VecDeque<WindowAhead>,
    /// What is being sent, and its permit.
    current: VecDeque<Bytes>,
    permit: Option<Permit>,
    has_begun: bool,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        loop {
            if let Some(bytes) = self.current.pop_front() {
                return Ok(Some(bytes));
            }
            self.permit = None;
            if self.ahead.is_empty() {
                if self.plan.rest.is_empty() {
                    return Ok(None);
                }
                self.begin_or_wait().await?;
            }
            self.read_ahead()?;
            if let Some(WindowAhead { bytes, permit }) = self.ahead.pop_front() {
                self.current = bytes.await?;
                self.permit = Some(permit);
            }
        }
    }

    /// Begins a window as large as the free buffers allow; waits for one stripe's worth if they allow none.
    async fn begin_or_wait(&mut self) -> Result<(), ObjectError> {
        if self.shared.read_budget.has_free(FREE_FOR_WINDOWS) && self.try_begin()? {
            return Ok(());
        }
        let bytes = self.plan.bytes_min(&self.shared)?;
        let permit = self.shared.read_budget.acquire(bytes).await;
        if let Some(window) = self.plan.next(&self.shared, 0)? {
            self.begin(window, permit);
        }
        Ok(())
    }

    /// Begins windows ahead of the client while there are free buffers.
    fn read_ahead(&mut self) -> Result<(), ObjectError> {
        while self.ahead.len() < WINDOWS_AHEAD
            && !self.plan.rest.is_empty()
            && self.shared.read_budget.has_free(FREE_TO_READ_AHEAD)
            && self.try_begin()?
        {}
        Ok(())
    }

    /// Begins a full window if there are free buffers for it.
    fn try_begin(&mut self) -> Result<bool, ObjectError> {
        let window_bytes = if self.has_begun { WINDOW_BYTES } else { FIRST_WINDOW_BYTES };
        let rest = self.plan.rest.end - self.plan.rest.start;
        let bytes = rest.min(window_bytes).max(self.plan.bytes_min(&self.shared)?);
        let Some(permit) = self.shared.read_budget.try_acquire(bytes) else { return Ok(false) };
        if let Some(window) = self.plan.next(&self.shared, bytes)? {
            self.begin(window, permit);
        }
        Ok(true)
    }

    fn begin(&mut self, window: Window, permit: Permit) {
        let is_only = !self.has_begun && self.plan.rest.is_empty();
        self.has_begun = true;
        let shared = self.shared.clone();
        let reading = async move { read_bytes(&shared, &window).await };
        // A window alone is waited for at once; only one of several is worth a task that goes on beside the sending.
        let bytes = if is_only { reading.boxed() } else { in_task(reading).boxed() };
        self.ahead.push_back(WindowAhead { bytes, permit });
    }
}

/// Starts `reading` in a task that ends when the future returned is dropped.
fn in_task(
    reading: impl Future<Output = Result<VecDeque<Bytes>, ObjectError>> + Send + 'static,
) -> impl Future<Output = Result<VecDeque<Bytes>, ObjectError>> + Send + 'static {
    let task = AbortOnDropHandle::new(tokio::spawn(reading));
    let lost = |_| ObjectError::Internal { reason: "a read ended without an answer".to_owned() };
    async move { task.await.map_err(lost)? }
}

/// Reads a window's bytes: slices of what the shards gave, in object order, not copied.
async fn read_bytes(shared: &Arc<Shared>, window: &Window) -> Result<VecDeque<Bytes>, ObjectError> {
    let (layout, k) = (&*window.layout, window.layout.codec.scheme().k());
    let request =
        WindowRequest { layout, stripes: window.stripes.clone(), purpose: Purpose::Serve, last_choice: SlotSet::new() };
    // The part of a cell that is wanted, as object bytes within the segment, and where the cell's own begin.
    let wanted = |slot: usize, index: u32| {
        let cell = layout.geometry.stripe(index).data_range(slot);
        (cell.start.max(window.bytes.start)..cell.end.min(window.bytes.end), cell.start)
    };
    let index = |stripe: usize| window.stripes.start + u32::try_from(stripe).unwrap_or(u32::MAX);
    let gather =
        read_window(shared, &request, |slot, stripe| slot < k && !wanted(slot, index(stripe)).0.is_empty()).await?;
    let mut bytes = VecDeque::with_capacity(k * window.stripes.len());
    for stripe in 0..window.stripes.len() {
        for slot in 0..k {
            let (range, cell_start) = wanted(slot, index(stripe));
            if range.is_empty() {
                continue;
            }
            let within = |at: u64| usize::try_from(at - cell_start).unwrap_or(usize::MAX);
            let cell = gather.present(slot, stripe).filter(|cell| within(range.end) <= cell.len());
            let missing = || ObjectError::Internal { reason: "a window lacks a cell it was read for".to_owned() };
            bytes.push_back(cell.ok_or_else(missing)?.slice(within(range.start)..within(range.end)));
        }
    }
    Ok(bytes)
}
