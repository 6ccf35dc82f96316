//! The node of this process: its backends by id, and the task that watches them. It serves whoever calls it; stale
//! epochs are refused by `FencedNode`, which is put in front of it.

use crate::attachment::{Attachment, State};
use crate::location::Location;
use crate::opener::{self, BackendOpener, Closed, DiskOpener};
use crate::probe;
use async_trait::async_trait;
use futures::future::join_all;
use holdfast_backends::Backend;
use holdfast_proto::node::{BackendStatus, NodeClient, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{BackendId, ClusterId, Epoch, NodeId, PgId, ShardId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Probes that errors ask for are at least so far apart.
const PROBE_REST: Duration = Duration::from_millis(100);
/// A backend that is removed or shut down is waited for so long; then it is left to end by itself.
const CLOSE_WAIT: Duration = Duration::from_secs(30);
/// Making a directory and an empty index takes milliseconds, on a busy rotating disk a second.
const ADD_WAIT: Duration = Duration::from_secs(30);

/// A backend as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    /// Which one must be there.
    pub id: BackendId,
    /// Short name for people.
    pub name: String,
    /// `disk:PATH`.
    pub location: String,
}

/// Settings of a node.
#[derive(Clone, Debug)]
pub struct LocalNodeOptions {
    /// How often backends are probed.
    pub probe_period: Duration,
    /// How long `open` waits for backends to be opened; those that take longer join later.
    pub open_wait: Duration,
    /// Opens and makes backends.
    pub opener: Arc<dyn BackendOpener>,
}

impl Default for LocalNodeOptions {
    fn default() -> Self {
        // After a crash a backend reads up to 512 MiB again: seconds, but a slow disk must not hold up the others.
        let opener = Arc::new(DiskOpener::default());
        Self { probe_period: Duration::from_secs(1), open_wait: Duration::from_secs(60), opener }
    }
}

/// The backends of this process. Cheap to clone; `shutdown` ends it.
#[derive(Clone)]
pub struct LocalNode {
    inner: Arc<Inner>,
    watcher: Arc<Mutex<Option<JoinHandle<()>>>>,
    stop: Arc<watch::Sender<bool>>,
}

/// What the watching task shares with callers.
pub(crate) struct Inner {
    pub(crate) cluster: ClusterId,
    pub(crate) options: LocalNodeOptions,
    pub(crate) attachments: Mutex<BTreeMap<BackendId, Attachment>>,
    /// One round of probing at a time.
    pub(crate) probing: tokio::sync::Mutex<()>,
    /// An error made somebody want a probe.
    alarm: Notify,
}

impl LocalNode {
    /// Opens every backend that can be; the others are kept and reported with the reason, and opened when they come.
    pub async fn open(cluster: ClusterId, specs: Vec<BackendSpec>, options: LocalNodeOptions) -> Self {
        let attachments = specs.into_iter().map(|spec| {
            let (location, why) = match spec.location.parse::<Location>() {
                Ok(location) => (Some(location), Closed::missing("not looked at yet")),
                Err(error) => (None, Closed::missing(error.to_string())),
            };
            (spec.id, Attachment::closed(spec, location, why))
        });
        let inner = Arc::new(Inner {
            cluster,
            attachments: Mutex::new(attachments.collect()),
            probing: tokio::sync::Mutex::new(()),
            alarm: Notify::new(),
            options,
        });
        probe::round(&inner, inner.options.open_wait).await;
        // Swapped directories and the like need a second look once the first has let go of locks; and every open one
        // is asked how it is before anybody wants to know.
        probe::round(&inner, Duration::ZERO).await;
        let (stop, stopped) = watch::channel(false);
        let watcher = tokio::spawn(watch_backends(inner.clone(), stopped));
        Self { inner, watcher: Arc::new(Mutex::new(Some(watcher))), stop: Arc::new(stop) }
    }

    /// Stops watching and closes every backend, durably. Later calls answer `Unavailable`.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        let watcher = self.watcher.lock().take();
        if let Some(watcher) = watcher {
            // It ends by itself; only its end matters.
            let _ = watcher.await;
        }
        let _no_more_probes = self.inner.probing.lock().await;
        let mut open = Vec::new();
        for attachment in self.inner.attachments.lock().values_mut() {
            open.extend(attachment.open_backend());
            attachment.close(Closed::missing("this node has shut down"));
        }
        join_all(open.iter().map(|backend| close(backend.clone()))).await;
    }

    /// A backend as it was at the last probe.
    pub fn inspect(&self, backend: BackendId) -> Option<BackendStatus> {
        self.inner.attachments.lock().get(&backend).map(Attachment::status)
    }

    fn backend(&self, backend: BackendId) -> Result<Arc<dyn Backend>, ShardError> {
        let attachments = self.inner.attachments.lock();
        let attachment = attachments.get(&backend).ok_or(ShardError::NoSuchBackend { backend })?;
        attachment.backend().map_err(|reason| ShardError::Unavailable { backend, reason })
    }

    /// Has the backends probed soon if the error may mean that one is gone.
    fn watch_error<T>(&self, result: Result<T, ShardError>) -> Result<T, ShardError> {
        if let Err(ShardError::Io { .. } | ShardError::Unavailable { .. } | ShardError::ReadOnly { .. }) = &result {
            self.inner.alarm.notify_one();
        }
        result
    }

    /// Refuses a place that is taken by, within or around another backend.
    fn check_free(&self, location: &Location) -> Result<(), ShardError> {
        for attachment in self.inner.attachments.lock().values() {
            let taken = match (attachment.held_location(), &attachment.location) {
                (Some(held), _) if held.overlaps(location) => Some(held),
                // One that is gone leaves its own place free to be made anew, but nothing inside or around it.
                (None, Some(own)) if own != location && own.overlaps(location) => Some(own),
                _ => None,
            };
            if let Some(taken) = taken {
                let name = &attachment.spec.name;
                let reason = format!("{location} cannot become a backend: {name} is at {taken}");
                return Err(ShardError::Invalid { reason });
            }
        }
        Ok(())
    }
}

async fn watch_backends(inner: Arc<Inner>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep(inner.options.probe_period) => {}
            () = inner.alarm.notified() => tokio::time::sleep(PROBE_REST.min(inner.options.probe_period)).await,
            _ = stopped.changed() => return,
        }
        probe::round(&inner, Duration::ZERO).await;
    }
}

async fn close(backend: Arc<dyn Backend>) {
    let id = backend.id();
    match tokio::time::timeout(CLOSE_WAIT, backend.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%id, %error, "close backend"),
        Err(_) => tracing::warn!(%id, seconds = CLOSE_WAIT.as_secs(), "backend does not close, left to itself"),
    }
}

#[async_trait]
impl NodeClient for LocalNode {
    async fn begin_shard(
        &self,
        backend: BackendId,
        header: ShardHeader,
        _: Epoch,
    ) -> Result<Box<dyn ShardWriter>, ShardError> {
        self.watch_error(self.backend(backend)?.begin(header).await)
    }

    async fn read_shard(
        &self,
        backend: BackendId,
        shard: ShardId,
        first: u32,
        count: u32,
        expected_root: Option<[u8; 32]>,
    ) -> Result<ShardRead, ShardError> {
        self.watch_error(self.backend(backend)?.read(shard, first, count, expected_root).await)
    }

    async fn stat_shard(&self, backend: BackendId, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
        self.watch_error(self.backend(backend)?.stat(shard).await)
    }

    async fn delete_shards(
        &self,
        backend: BackendId,
        shards: Vec<ShardId>,
        _: Option<Epoch>,
    ) -> Result<(), ShardError> {
        self.watch_error(self.backend(backend)?.delete(shards).await)
    }

    async fn list_shards(
        &self,
        backend: BackendId,
        pg: PgId,
        after: Option<ShardId>,
        limit: usize,
        _: Epoch,
    ) -> Result<Vec<ShardStat>, ShardError> {
        self.watch_error(self.backend(backend)?.list(pg, after, limit).await)
    }

    async fn scrub_shards(
        &self,
        backend: BackendId,
        after: Option<ShardId>,
        budget_bytes: u64,
    ) -> Result<ScrubStep, ShardError> {
        self.watch_error(self.backend(backend)?.scrub(after, budget_bytes).await)
    }

    async fn backends(&self) -> Vec<BackendStatus> {
        probe::round(&self.inner, Duration::ZERO).await;
        self.inner.attachments.lock().values().map(Attachment::status).collect()
    }

    async fn add_backend(&self, _: NodeId, location: &str, name: &str) -> Result<BackendStatus, ShardError> {
        let parsed: Location = location.parse().map_err(|e| ShardError::Invalid { reason: format!("{e}") })?;
        let id = self.inner.options.opener.new_id();
        // With probing held back nobody opens or lets go of anything meanwhile.
        let probing = self.inner.probing.lock().await;
        self.check_free(&parsed)?;
        let (at, cluster, format_name) = (parsed.clone(), self.inner.cluster, name.to_owned());
        let making = opener::begin(&self.inner.options.opener, move |opener| {
            opener.format(&at, cluster, id, &format_name)?;
            opener
                .open(&at, cluster, id, &format_name)
                .map_err(|closed| ShardError::Unavailable { backend: id, reason: closed.reason })
        });
        // A place that does not answer must not keep all the others from being watched.
        let unavailable = |reason: String| ShardError::Unavailable { backend: id, reason };
        let made = tokio::time::timeout(ADD_WAIT, making).await;
        let made = made.map_err(|_| unavailable(format!("{parsed} does not answer")))?;
        let backend = made.map_err(|error| unavailable(error.to_string()))??;
        let spec = BackendSpec { id, name: name.to_owned(), location: parsed.to_string() };
        let status = BackendStatus { name: name.to_owned(), ..backend.status().await };
        let state = State::Open { backend, location: parsed.clone(), asked: None, last: Some(status.clone()) };
        self.inner.attachments.lock().insert(id, Attachment::new(spec, Some(parsed), state));
        drop(probing);
        Ok(status)
    }

    async fn remove_backend(&self, backend: BackendId) -> Result<(), ShardError> {
        let _no_probes = self.inner.probing.lock().await;
        let removed = self.inner.attachments.lock().remove(&backend).ok_or(ShardError::NoSuchBackend { backend })?;
        if let Some(open) = removed.open_backend() {
            close(open).await;
        }
        Ok(())
    }
}
