//! One look at all backends: those that are open are asked how they are; those that are unreadable are let go; those
//! that are closed are looked for at every configured location and opened where they are found.
//!
//! Touches directories and spawns threads for what blocks. One round at a time; a round waits only a short while for
//! any backend, however stuck.

use crate::attachment::{Asked, Attachment, Opened, State};
use crate::local_node::Inner;
use crate::location::Location;
use crate::matching::{Match, Wanted, match_backends};
use crate::opener::{self, Closed, Found};
use futures::future::join_all;
use holdfast_backends::Backend;
use holdfast_proto::BackendId;
use holdfast_proto::node::BackendStatus;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A round waits so long for an answer; a backend that takes longer is reported as it last was.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Looking at a directory that does not answer (a dead mount) is given up for this round.
const IDENTIFY_WAIT: Duration = Duration::from_secs(2);

/// Work on its way, to be waited for outside of the lock.
enum Pending {
    Status(JoinHandle<BackendStatus>),
    Opening(JoinHandle<Opened>, Location),
    Closing(JoinHandle<()>, Closed),
}

/// One round. `opening_wait`: how long to wait for backends that are being opened. It comes to its end though its caller
/// may be dropped: what a round has taken up to wait for, nobody else puts back.
pub(crate) async fn round(inner: &Arc<Inner>, opening_wait: Duration) {
    let inner = inner.clone();
    let looking = tokio::spawn(async move { look(&inner, opening_wait).await });
    if let Err(error) = looking.await {
        tracing::error!(%error, "look at the backends");
    }
}

async fn look(inner: &Arc<Inner>, opening_wait: Duration) {
    let _one_at_a_time = inner.probing.lock().await;
    settle(inner, Duration::ZERO).await;
    look_for_closed(inner).await;
    settle(inner, opening_wait).await;
    // What was opened just now has not said how it is.
    let is_new = |a: &Attachment| matches!(a.state, State::Open { last: None, asked: None, .. });
    let has_new = inner.attachments.lock().values().any(is_new);
    if has_new {
        settle(inner, Duration::ZERO).await;
    }
}

/// Asks the open, and collects what has been opened or let go.
async fn settle(inner: &Arc<Inner>, opening_wait: Duration) {
    let pending: Vec<(BackendId, Pending)> = {
        let mut attachments = inner.attachments.lock();
        attachments.iter_mut().filter_map(|(id, attachment)| Some((*id, take_pending(attachment)?))).collect()
    };
    let waits = pending.into_iter().map(|(id, pending)| async move { (id, wait(pending, opening_wait).await) });
    for (id, outcome) in join_all(waits).await {
        let mut attachments = inner.attachments.lock();
        match (attachments.get_mut(&id), outcome) {
            (Some(attachment), outcome) => put_back(attachment, outcome),
            // Removed meanwhile, or the node has shut down. Dropping it would close it here, blocking.
            (None, Outcome::Opened(Ok(backend), _)) => drop(tokio::spawn(async move { backend.close().await })),
            (None, _) => {}
        }
    }
}

/// Takes the handle of what is on its way out of the attachment; begins to ask an open one that is not being asked.
fn take_pending(attachment: &mut Attachment) -> Option<Pending> {
    match &mut attachment.state {
        State::Open { backend, asked, .. } => {
            let begin = || Asked { work: Some(ask(backend.clone())), since: Instant::now() };
            Some(Pending::Status(asked.get_or_insert_with(begin).work.take()?))
        }
        State::Opening { work, location } => Some(Pending::Opening(work.take()?, location.clone())),
        State::Closing { work, why, .. } => Some(Pending::Closing(work.take()?, why.clone())),
        State::Closed { .. } => None,
    }
}

fn ask(backend: Arc<dyn Backend>) -> JoinHandle<BackendStatus> {
    tokio::spawn(async move { backend.status().await })
}

/// What came of waiting.
enum Outcome {
    Status(BackendStatus),
    /// The task that asked is gone: a bug in the backend.
    NoStatus,
    StillAsking(JoinHandle<BackendStatus>),
    Opened(Opened, Location),
    StillOpening(JoinHandle<Opened>),
    LetGo(Closed),
    StillClosing(JoinHandle<()>),
}

async fn wait(pending: Pending, opening_wait: Duration) -> Outcome {
    match pending {
        Pending::Status(mut work) => match tokio::time::timeout(ANSWER_WAIT, &mut work).await {
            Ok(Ok(status)) => Outcome::Status(status),
            Ok(Err(_)) => Outcome::NoStatus,
            Err(_) => Outcome::StillAsking(work),
        },
        Pending::Opening(mut work, location) => match tokio::time::timeout(opening_wait, &mut work).await {
            Ok(Ok(opened)) => Outcome::Opened(opened, location),
            Ok(Err(error)) => {
                let reason = format!("opening it ended with a fault of this program: {error}");
                Outcome::Opened(Err(Closed { health: holdfast_proto::node::BackendHealth::Failed, reason }), location)
            }
            Err(_) => Outcome::StillOpening(work),
        },
        Pending::Closing(mut work, why) => match tokio::time::timeout(ANSWER_WAIT, &mut work).await {
            Ok(_) => Outcome::LetGo(why),
            Err(_) => Outcome::StillClosing(work),
        },
    }
}

fn put_back(attachment: &mut Attachment, outcome: Outcome) {
    match outcome {
        Outcome::Status(status) if status.health.can_read() => {
            if let State::Open { last, asked, .. } = &mut attachment.state {
                *last = Some(status);
                *asked = None;
            }
        }
        Outcome::Status(status) => let_go(attachment, Closed { health: status.health, reason: status.reason }),
        Outcome::NoStatus => {
            if let State::Open { asked, .. } = &mut attachment.state {
                *asked = None;
            }
        }
        Outcome::StillAsking(still) => {
            if let State::Open { asked: Some(asked), .. } = &mut attachment.state {
                asked.work = Some(still);
            }
        }
        Outcome::Opened(Ok(backend), location) => attachment.opened(backend, location),
        Outcome::Opened(Err(why), _) | Outcome::LetGo(why) => attachment.close(why),
        Outcome::StillOpening(still) => {
            if let State::Opening { work, .. } = &mut attachment.state {
                *work = Some(still);
            }
        }
        Outcome::StillClosing(still) => {
            if let State::Closing { work, .. } = &mut attachment.state {
                *work = Some(still);
            }
        }
    }
}

/// Lets go of a backend that cannot be read any more; its directory may be opened anew once it has ended.
fn let_go(attachment: &mut Attachment, why: Closed) {
    let State::Open { backend, location, .. } = &attachment.state else { return };
    let (backend, location) = (backend.clone(), location.clone());
    let work = tokio::spawn(async move {
        if let Err(error) = backend.close().await {
            tracing::debug!(id = %backend.id(), %error, "close a backend that was lost");
        }
    });
    attachment.state = State::Closing { work: Some(work), why, location };
}

/// Looks for closed backends at all configured locations that nobody holds, and begins to open those found.
async fn look_for_closed(inner: &Arc<Inner>) {
    let (wanted, free) = {
        let attachments = inner.attachments.lock();
        let now = Instant::now();
        let wanted: Vec<Wanted> = attachments
            .values()
            .filter(|a| a.is_wanted(now))
            .map(|a| Wanted { id: a.spec.id, name: a.spec.name.clone(), location: a.spec.location.parse() })
            .collect();
        let is_held = |location: &Location| attachments.values().any(|a| a.held_location() == Some(location));
        let all = attachments.values().filter_map(|a| a.location.clone());
        (wanted, all.filter(|location| !is_held(location)).collect::<Vec<_>>())
    };
    if wanted.is_empty() {
        return;
    }
    let found = identify_all(inner, free).await;
    let mut attachments = inner.attachments.lock();
    for (id, matched) in match_backends(inner.cluster, &wanted, &found) {
        let Some(attachment) = attachments.get_mut(&id) else { continue };
        match matched {
            Match::Here(location) | Match::Elsewhere(location) => {
                let (at, cluster, name) = (location.clone(), inner.cluster, attachment.spec.name.clone());
                let work = opener::begin(&inner.options.opener, move |opener| opener.open(&at, cluster, id, &name));
                attachment.state = State::Opening { work: Some(work), location };
            }
            Match::Nowhere(why) => attachment.close(why),
        }
    }
}

async fn identify_all(inner: &Inner, locations: Vec<Location>) -> BTreeMap<Location, Result<Found, Closed>> {
    let looks = locations.into_iter().map(|location| async move {
        let at = location.clone();
        let looking = opener::begin(&inner.options.opener, move |opener| opener.identify(&at));
        let look = tokio::time::timeout(IDENTIFY_WAIT, looking).await;
        let found = match look {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => Err(Closed::missing(format!("looking at {location} failed: {error}"))),
            Err(_) => Err(Closed::missing(format!("{location} does not answer"))),
        };
        (location, found)
    });
    join_all(looks).await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::location::Location;
    use crate::opener::{BackendOpener, Closed, Found};
    use crate::{BackendSpec, LocalNode, LocalNodeOptions};
    use async_trait::async_trait;
    use holdfast_backends::{Backend, MemoryBackend};
    use holdfast_proto::node::{
        BackendHealth, BackendStatus, NodeClient, ScrubStep, ShardError, ShardRead, ShardStat, ShardWriter,
    };
    use holdfast_proto::shard_header::ShardHeader;
    use holdfast_proto::{BackendId, ClusterId, PgId, ShardId};
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::{sleep, timeout};

    const CLUSTER: ClusterId = ClusterId([3; 16]);
    const ID: BackendId = BackendId([1; 16]);
    const ANSWER_TAKES: Duration = Duration::from_millis(1500);

    /// A backend that takes its time to say how it is.
    struct Slow(MemoryBackend);

    #[async_trait]
    impl Backend for Slow {
        fn id(&self) -> BackendId {
            self.0.id()
        }
        async fn begin(&self, header: ShardHeader) -> Result<Box<dyn ShardWriter>, ShardError> {
            self.0.begin(header).await
        }
        async fn read(
            &self,
            shard: ShardId,
            first: u32,
            count: u32,
            expected_root: Option<[u8; 32]>,
        ) -> Result<ShardRead, ShardError> {
            self.0.read(shard, first, count, expected_root).await
        }
        async fn stat(&self, shard: ShardId) -> Result<Option<ShardStat>, ShardError> {
            self.0.stat(shard).await
        }
        async fn delete(&self, shards: Vec<ShardId>) -> Result<(), ShardError> {
            self.0.delete(shards).await
        }
        async fn list(&self, pg: PgId, after: Option<ShardId>, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
            self.0.list(pg, after, limit).await
        }
        async fn scrub(&self, after: Option<ShardId>, budget_bytes: u64) -> Result<ScrubStep, ShardError> {
            self.0.scrub(after, budget_bytes).await
        }
        async fn status(&self) -> BackendStatus {
            sleep(ANSWER_TAKES).await;
            self.0.status().await
        }
    }

    #[derive(Debug)]
    struct Opener;

    impl BackendOpener for Opener {
        fn identify(&self, _: &Location) -> Result<Found, Closed> {
            Ok(Found { cluster: CLUSTER, id: ID })
        }
        fn open(&self, _: &Location, cluster: ClusterId, id: BackendId, _: &str) -> Result<Arc<dyn Backend>, Closed> {
            Ok(Arc::new(Slow(MemoryBackend::new(cluster, id, 1 << 20))))
        }
        fn format(&self, _: &Location, _: ClusterId, _: BackendId, _: &str) -> Result<(), ShardError> {
            Ok(())
        }
        fn new_id(&self) -> BackendId {
            ID
        }
        fn is_immediate(&self) -> bool {
            true
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_given_up_midway_leaves_no_backend_silent() {
        let spec = BackendSpec { id: ID, name: "d1".to_owned(), location: "disk:/d1".to_owned() };
        // No look but those asked for.
        let probe_period = Duration::from_secs(86_400);
        let options = LocalNodeOptions { probe_period, opener: Arc::new(Opener), ..LocalNodeOptions::default() };
        let node = LocalNode::open(CLUSTER, vec![spec], options).await;
        assert_eq!(node.backends().await[0].health, BackendHealth::Online);
        assert!(timeout(ANSWER_TAKES / 2, node.backends()).await.is_err(), "its caller gives up");
        sleep(Duration::from_secs(60)).await;
        let status = node.backends().await.remove(0);
        assert_eq!(status.health, BackendHealth::Online, "{}", status.reason);
    }
}
