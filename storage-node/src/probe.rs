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
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, spawn_blocking};

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

/// One round. `opening_wait`: how long to wait for backends that are being opened.
pub(crate) async fn round(inner: &Arc<Inner>, opening_wait: Duration) {
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
    let found = identify_all(free).await;
    let mut attachments = inner.attachments.lock();
    for (id, matched) in match_backends(inner.cluster, &wanted, &found) {
        let Some(attachment) = attachments.get_mut(&id) else { continue };
        match matched {
            Match::Here(location) | Match::Elsewhere(location) => {
                let (at, cluster, options) = (location.clone(), inner.cluster, inner.options.disk.clone());
                let work = spawn_blocking(move || opener::open(&at, cluster, id, options));
                attachment.state = State::Opening { work: Some(work), location };
            }
            Match::Nowhere(why) => attachment.close(why),
        }
    }
}

async fn identify_all(locations: Vec<Location>) -> BTreeMap<Location, Result<Found, Closed>> {
    let looks = locations.into_iter().map(|location| async move {
        let at = location.clone();
        let look = tokio::time::timeout(IDENTIFY_WAIT, spawn_blocking(move || opener::identify(&at))).await;
        let found = match look {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => Err(Closed::missing(format!("looking at {location} failed: {error}"))),
            Err(_) => Err(Closed::missing(format!("{location} does not answer"))),
        };
        (location, found)
    });
    join_all(looks).await.into_iter().collect()
}
