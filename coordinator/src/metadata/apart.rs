//! Keeps the ranges of a node apart. On one machine the rows of all its ranges lie side by side, so a copy that is still
//! where its range was before a split would, catching up, write over what the split-off range has written since.
//!
//! **Invariant:** the bounds of the ranges that have begun here never overlap. Bounds only ever shrink, so it is enough to
//! look when a range is opened, when its log begins at its very start, and when a snapshot replaces its rows. Whoever is
//! refused is sent the same again by the leader, until the range that is behind has applied its splits.

use super::api::{MetadataError, MetadataResult};
use super::bounds::Bounds;
use super::group::Group;
use super::groups::Groups;
use super::keys;
use super::kv::{Family, KvResult, KvView};
use super::raft_machine::state_error;
use super::state::decode;
use super::store::{FIRST_RANGE, ROOT};
use super::wire::WireGroup;
use tokio::sync::MutexGuard;

impl Groups {
    /// Refuses to open a range whose first key another range here still holds: that one has not applied all the splits by
    /// which the first came to be.
    pub(super) fn check_first_key(&self, wire: &WireGroup) -> MetadataResult<()> {
        self.check_others(wire.group, |bounds| bounds.contains(&wire.start))
    }

    /// Before entries are taken that begin at the very start of a log, where a range held every key: nothing else may have
    /// begun here. A leader that has applied a split keeps no such entries for long ([`Group::drop_first_entry`]) and sends a
    /// snapshot instead. What is returned is held until they are in the log.
    pub(super) async fn admit_first_entries(&self, group: &Group) -> MetadataResult<Option<MutexGuard<'_, ()>>> {
        if group.number() == ROOT || group.has_begun() {
            return Ok(None);
        }
        let beginning = self.beginning.lock().await;
        self.check_others(group.number(), |_| true)?;
        group.claim(Some(Bounds::everything()));
        Ok(Some(beginning))
    }

    /// Before a snapshot with these bounds replaces the rows of a range. What is returned is held until it is installed.
    pub(super) async fn admit_snapshot(&self, group: &Group, bounds: Bounds) -> MetadataResult<MutexGuard<'_, ()>> {
        let beginning = self.beginning.lock().await;
        if group.number() != ROOT {
            self.check_free(group.number(), &bounds)?;
            group.claim(Some(bounds));
        }
        Ok(beginning)
    }

    /// Refuses bounds that another range here holds in part.
    pub(super) fn check_free(&self, group: u32, bounds: &Bounds) -> MetadataResult<()> {
        self.check_others(group, |other| other.overlaps(bounds))
    }

    fn check_others(&self, group: u32, is_in_the_way: impl Fn(&Bounds) -> bool) -> MetadataResult<()> {
        if group == ROOT {
            return Ok(());
        }
        let mut others = self.closed();
        for other in self.all() {
            others.extend(other.claimed().map(|bounds| (other.number(), bounds)));
            let held = held(self.state.as_ref(), other.number(), other.has_begun()).map_err(state_error)?;
            others.extend(held.map(|bounds| (other.number(), bounds)));
        }
        match others.iter().find(|(number, bounds)| ![ROOT, group].contains(number) && is_in_the_way(bounds)) {
            None => Ok(()),
            Some((number, _)) => {
                let reason = format!("range {number} here still holds keys of range {group}");
                Err(MetadataError::Unavailable { reason })
            }
        }
    }
}

/// The keys that a range's copy takes up here, by what is stored: the row of a child is there before its group has begun. The
/// first range needs no row for holding everything.
pub(super) fn held<V: KvView>(view: &V, range: u32, has_begun: bool) -> KvResult<Option<Bounds>> {
    let row = view.get(Family::Groups, &keys::group_row(range, keys::RANGE_ROW))?;
    match row {
        Some(row) => Ok(Some(decode(Family::Groups, &row)?)),
        None => Ok((range == FIRST_RANGE && has_begun).then(Bounds::everything)),
    }
}
