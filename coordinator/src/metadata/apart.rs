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
use super::raft_machine::state_error;
use super::store::ROOT;
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
    /// snapshot instead.
    pub(super) async fn admit_first_entries(&self, group: &Group) -> MetadataResult<()> {
        if group.number() == ROOT || group.has_begun() {
            return Ok(());
        }
        let _beginning = self.beginning.lock().await;
        self.check_others(group.number(), |_| true)?;
        group.begin_elsewhere();
        Ok(())
    }

    /// Before a snapshot replaces the rows of a range, which then has the bounds of `wire` or narrower ones. What is returned
    /// is held until it is installed.
    pub(super) async fn admit_snapshot(&self, group: &Group, wire: &WireGroup) -> MetadataResult<MutexGuard<'_, ()>> {
        let beginning = self.beginning.lock().await;
        if group.number() != ROOT {
            let bounds = Bounds { start: wire.start.clone(), end: wire.end.clone(), ..Bounds::default() };
            self.check_others(group.number(), |other| other.overlaps(&bounds))?;
            group.begin_elsewhere();
        }
        Ok(beginning)
    }

    fn check_others(&self, group: u32, is_in_the_way: impl Fn(&Bounds) -> bool) -> MetadataResult<()> {
        if group == ROOT {
            return Ok(());
        }
        for other in self.all() {
            let number = other.number();
            if number == ROOT || number == group || !other.has_begun() {
                continue;
            }
            if is_in_the_way(&Bounds::load(self.state.as_ref(), number).map_err(state_error)?) {
                let reason = format!("range {number} here still holds keys of range {group}");
                return Err(MetadataError::Unavailable { reason });
            }
        }
        Ok(())
    }
}
