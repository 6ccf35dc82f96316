//! To the right group, and within it to the node that can answer: proposals to the leader, reads to a copy that is as
//! new as what was acknowledged before.
//!
//! Both are tried again while they fail in a way that may pass (an election, a split, a lost message), with a backoff, up
//! to a limit. A proposal carries its number over all its tries, so it is applied once (`state/once.rs`).

use super::super::api::{MetadataError, MetadataResult};
use super::super::command::{Command, Kind, Reply};
use super::super::consensus::{Consensus, Ordered};
use super::super::group::Group;
use super::super::query::{Found, Query};
use super::super::query_wire::{WireFound, WireQuery};
use super::super::raft_machine::state_error;
use super::super::sequences::Sequence;
use super::super::wire::head;
use super::super::wire_answer::WireAnswer;
use super::asking::{TRY_LIMIT, Try};
use super::{FIRST_RANGE, Inner, ROOT};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, Shared};
use holdfast_proto::rpc::Rpc;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A call is tried that long: several elections' worth.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// A reader waits that long for this node to catch up; then it asks another.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(2);
/// Each so manyth try goes to another node even if there is a copy here.
const ASK_OTHERS_EACH: u32 = 3;
/// Waits between tries, doubling: short at first, for a new leader is found at once, or a split is nearly done.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(320));

/// A round that tells how far readers must have applied; who comes while one is under way waits for the next.
pub(in super::super) type Round = Shared<BoxFuture<'static, Result<u64, String>>>;

/// The rounds of one group: the one under way and the one that will follow it.
#[derive(Default)]
pub(in super::super) struct Rounds {
    current: Option<Round>,
    next: Option<Round>,
}

impl Inner {
    /// The range that holds a border, by the map as it is known here.
    pub(in super::super) fn range_at(&self, border: &[u8]) -> u32 {
        let cache = self.cache.read();
        let at_or_before = cache.ranges.range(..=border.to_vec()).next_back();
        at_or_before.map_or(FIRST_RANGE, |(_, record)| record.range)
    }

    /// All ranges, as known here.
    pub(in super::super) fn range_numbers(&self) -> Vec<u32> {
        let cache = self.cache.read();
        let numbers: Vec<u32> = cache.ranges.values().map(|record| record.range).collect();
        if numbers.is_empty() { vec![FIRST_RANGE] } else { numbers }
    }

    /// Proposes to the range that holds `border`, finding it again if it was split meanwhile.
    pub(in super::super) async fn propose_at(&self, border: &[u8], kind: Kind) -> MetadataResult<Reply> {
        self.propose_in(None, border, kind).await
    }

    /// The same, but only while `session` lasts.
    pub(in super::super) async fn propose_in(
        &self,
        session: Option<u64>,
        border: &[u8],
        kind: Kind,
    ) -> MetadataResult<Reply> {
        self.admit(Some(&kind))?;
        let sequence = self.sequences.begin(session)?;
        let mut backoff = Backoff::new();
        loop {
            match self.order(self.range_at(border), &kind, &sequence, &mut backoff).await? {
                Reply::WrongRange => self.wait_for_map(&mut backoff).await?,
                reply => return Ok(reply),
            }
        }
    }

    /// Proposes to a group.
    pub(in super::super) async fn propose(&self, group: u32, kind: Kind) -> MetadataResult<Reply> {
        self.admit(Some(&kind))?;
        let sequence = self.sequences.begin(None)?;
        self.order(group, &kind, &sequence, &mut Backoff::new()).await
    }

    async fn order(
        &self,
        group: u32,
        kind: &Kind,
        sequence: &Sequence<'_>,
        backoff: &mut Backoff,
    ) -> MetadataResult<Reply> {
        let mut target = None;
        let mut tries = 0;
        loop {
            // A copy that was moved away knows only its last leader: so now and then somebody else is asked.
            tries += 1;
            let here = self.groups.get(group).filter(|_| target.is_none() && tries % ASK_OTHERS_EACH != 0);
            let tried = match here {
                Some(here) => self.order_here(&here, kind, sequence, tries == 1).await?,
                None => self.order_there(group, target, kind, sequence).await,
            };
            let reason = match tried {
                Try::Answered(Err(MetadataError::Fenced)) => {
                    self.renew_session(sequence.opening()).await?;
                    return Err(MetadataError::Fenced);
                }
                Try::Answered(answer) => return answer,
                Try::Elsewhere(leader) => {
                    target = leader.filter(|leader| *leader != self.me && Some(*leader) != target);
                    if target.is_some() {
                        // Somebody knows: no need to wait before asking there, once.
                        if backoff.may_hurry() {
                            continue;
                        }
                    }
                    format!("group {group} has no leader")
                }
                Try::Failed(reason) => {
                    target = None;
                    reason
                }
            };
            backoff.wait(&reason).await?;
        }
    }

    /// Without a number where nobody else can have ordered it, or ever will: a lone voter knows what became of it. A try
    /// before this one may have been ordered by others, while there were some.
    async fn order_here(
        &self,
        here: &Group,
        kind: &Kind,
        sequence: &Sequence<'_>,
        is_first: bool,
    ) -> MetadataResult<Try<MetadataResult<Reply>>> {
        here.check_lone()?;
        let is_lone = here.is_lone();
        let once = (!is_lone || !is_first).then(|| sequence.once());
        let command = Command { kind: Some(kind.clone()), once };
        let ordered = match is_lone {
            true => here.propose(command).await,
            // A leader that is cut off from the others waits for them without end.
            false => tokio::time::timeout(TRY_LIMIT, here.propose(command))
                .await
                .unwrap_or_else(|_| Ordered::Unknown(format!("group {} does not answer", here.number()))),
        };
        Ok(match ordered {
            Ordered::Answered(answer) => Try::Answered(answer),
            Ordered::NotLeader(leader) => Try::Elsewhere(leader),
            Ordered::Unknown(reason) if is_lone => Try::Answered(Err(MetadataError::Unavailable { reason })),
            Ordered::Unknown(reason) => Try::Failed(reason),
        })
    }

    async fn order_there(
        &self,
        group: u32,
        target: Option<u64>,
        kind: &Kind,
        sequence: &Sequence<'_>,
    ) -> Try<MetadataResult<Reply>> {
        let command = head(&Command { kind: Some(kind.clone()), once: Some(sequence.once()) });
        let tried = match (target, self.some_member(group)) {
            (Some(leader), _) => self.ask_leader(leader, Rpc::Propose, group, command).await,
            (None, Some(member)) => self.ask(member, Rpc::Propose, group, command).await,
            (None, None) => Try::Elsewhere(None),
        };
        match tried {
            Try::Answered(answer) => match WireAnswer::decode(answer) {
                Ok(answer) => Try::Answered(answer.into_result()),
                Err(error) => Try::Failed(error.to_string()),
            },
            Try::Elsewhere(leader) => Try::Elsewhere(leader),
            Try::Failed(reason) => Try::Failed(reason),
        }
    }

    /// Reads from the range that holds the query's border.
    pub(in super::super) async fn query(&self, query: Query) -> MetadataResult<Found> {
        let border = query.border().unwrap_or_default();
        let mut backoff = Backoff::new();
        loop {
            match self.query_group(self.range_at(&border), &query, &mut backoff).await? {
                Found::WrongRange => self.wait_for_map(&mut backoff).await?,
                found => return Ok(found),
            }
        }
    }

    /// Reads from a range.
    pub(in super::super) async fn query_range(&self, group: u32, query: Query) -> MetadataResult<Found> {
        self.query_group(group, &query, &mut Backoff::new()).await
    }

    async fn query_group(&self, group: u32, query: &Query, backoff: &mut Backoff) -> MetadataResult<Found> {
        let mut tries = 0;
        loop {
            tries += 1;
            let here = self.groups.get(group).filter(|here| here.state().has_members());
            let tried = match here.filter(|here| tries % ASK_OTHERS_EACH != 0 || here.is_lone()) {
                Some(here) => match self.read_here(&here, query.clone()).await {
                    Ok(found) => Try::Answered(found),
                    Err(MetadataError::Unavailable { .. }) if here.check_lone()? => Try::Elsewhere(None),
                    Err(error) => Try::Failed(error.to_string()),
                },
                None => self.read_there(group, query).await,
            };
            match tried {
                Try::Answered(found) => return Ok(found),
                Try::Elsewhere(_) => backoff.wait(&format!("group {group} has no leader")).await?,
                Try::Failed(reason) => backoff.wait(&reason).await?,
            }
        }
    }

    async fn read_there(&self, group: u32, query: &Query) -> Try<Found> {
        let Some(target) = self.some_member(group) else { return Try::Elsewhere(None) };
        match self.ask(target, Rpc::MetadataRead, group, head(&WireQuery::of(query))).await {
            Try::Answered(answer) => match WireFound::decode(answer).map(WireFound::into_found) {
                Ok(Some(found)) => Try::Answered(found),
                Ok(None) => Try::Failed(format!("node {target} answers what this build does not know")),
                Err(error) => Try::Failed(error.to_string()),
            },
            Try::Elsewhere(leader) => Try::Elsewhere(leader),
            Try::Failed(reason) => Try::Failed(reason),
        }
    }

    /// Reads from the copy here, once it is as new as what was acknowledged before the call.
    pub(in super::super) async fn read_here(&self, group: &Arc<Group>, query: Query) -> MetadataResult<Found> {
        self.read_barrier(group).await?;
        let number = group.number();
        if query.is_short() {
            if let Some(found) = self.read_one_row(number, &query)? {
                return Ok(found);
            }
            return query.run(&self.state.view(), number).map_err(state_error);
        }
        self.state.off_thread(move |state| query.run(&state.view(), number)).await.map_err(state_error)
    }

    /// Nearly every read is of a current version, and one row tells which that is. Its inline bytes are another row: a
    /// write in between shows as missing bytes, and then all is read again as of one moment.
    fn read_one_row(&self, number: u32, query: &Query) -> MetadataResult<Option<Found>> {
        use super::super::api::VersionSelector;
        use super::super::{bounds::RangeView, query::find_current};
        let Query::Version { bucket, key, selector: VersionSelector::Current } = query else { return Ok(None) };
        let view = RangeView::of_group(self.state.as_ref(), number).map_err(state_error)?;
        if !view.bounds().contains_key(*bucket, key) {
            return Ok(None);
        }
        let found = find_current(&view, *bucket, key).map_err(state_error)?;
        Ok(found.map(|version| Found::Version(Some(Box::new(version)))))
    }

    /// On return, the state here holds everything the group acknowledged before the call.
    pub(in super::super) async fn read_barrier(&self, group: &Arc<Group>) -> MetadataResult<()> {
        if group.check_lone()? {
            return Ok(());
        }
        let round = self.round(group);
        let index = round.await.map_err(|reason| MetadataError::Unavailable { reason })?;
        group.wait_applied(index, CATCH_UP_LIMIT).await
    }

    /// A round that begins after this call. All readers that come during one share the next.
    fn round(&self, group: &Arc<Group>) -> Round {
        let mut rounds = self.rounds.lock();
        let rounds = rounds.entry(group.number()).or_default();
        if rounds.current.as_ref().is_none_or(|round| round.peek().is_some()) {
            // The one that was to follow has begun by being awaited, or nobody waits for it.
            rounds.current = rounds.next.take().filter(|next| next.peek().is_none());
        }
        let begun = rounds.current.clone();
        let next = rounds.next.get_or_insert_with(|| self.new_round(group, begun.clone()));
        if begun.is_none() {
            let first = next.clone();
            rounds.current = rounds.next.take();
            return first;
        }
        next.clone()
    }

    /// Runs in a task of its own, so that a reader who goes away does not take it from the others.
    fn new_round(&self, group: &Arc<Group>, after: Option<Round>) -> Round {
        let (inner, group) = (self.me_weak.clone(), group.clone());
        let running = tokio::spawn(async move {
            if let Some(after) = after {
                let _ = after.await;
            }
            let Some(inner) = inner.upgrade() else { return Err("the metadata has stopped".to_owned()) };
            inner.run_round(&group).await
        });
        async move { running.await.map_err(|e| e.to_string())? }.boxed().shared()
    }

    async fn run_round(&self, group: &Group) -> Result<u64, String> {
        let leader = match group.read_index().await {
            Ok(index) => return Ok(index),
            Err(leader) => leader.or(group.members().leader),
        };
        let number = group.number();
        let Some(leader) = leader.filter(|leader| *leader != self.me) else {
            return Err(format!("group {number} has no leader"));
        };
        match self.ask_leader(leader, Rpc::ReadIndex, number, Bytes::new()).await {
            Try::Answered(index) => match <[u8; 8]>::try_from(index.as_ref()) {
                Ok(index) => Ok(u64::from_be_bytes(index)),
                Err(_) => Err(format!("node {leader} answers what this build does not know")),
            },
            Try::Elsewhere(_) => Err(format!("group {number} has no leader")),
            Try::Failed(reason) => Err(reason),
        }
    }

    /// The map here shows a range that is no more as it was: waits a little for the map to follow.
    async fn wait_for_map(&self, backoff: &mut Backoff) -> MetadataResult<()> {
        backoff.wait("a range is being split").await?;
        if let Some(root) = self.groups.get(ROOT) {
            // Not needed for what follows to be right, only to see the new map soon.
            let _ = self.read_barrier(&root).await;
        }
        Ok(())
    }
}

/// The rounds of all groups.
pub(in super::super) type AllRounds = parking_lot::Mutex<BTreeMap<u32, Rounds>>;

/// How long to go on trying.
pub(in super::super) struct Backoff {
    until: Instant,
    pause: Duration,
    hurries_left: u32,
}

impl Backoff {
    pub(in super::super) fn new() -> Self {
        Self { until: Instant::now() + CALL_LIMIT, pause: BACKOFF.0, hurries_left: 3 }
    }

    /// Whether the next try may come without a pause.
    fn may_hurry(&mut self) -> bool {
        self.hurries_left = self.hurries_left.saturating_sub(1);
        self.hurries_left > 0
    }

    /// Waits before the next try, or fails for good with the reason of the last.
    pub(in super::super) async fn wait(&mut self, reason: &str) -> MetadataResult<()> {
        if Instant::now() + self.pause > self.until {
            return Err(MetadataError::Unavailable { reason: reason.to_owned() });
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(BACKOFF.1);
        self.hurries_left = 3;
        Ok(())
    }
}
