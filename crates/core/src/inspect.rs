//! Looking at the table: nothing changes.

use crate::ids::{Fence, LockId};
use crate::lock::{Depth, Freeze, Lock};
use crate::obstacles::Obstacle;
use crate::refusal::Waiting;
use crate::resource::Resource;
use crate::table::LockTable;
use crate::time::Now;

/// What is known of the lock of a resource.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Every live lock that covers it.
    pub locks: Vec<Lock>,
    /// Every parked acquire whose request meets it or something below it, in order.
    pub queue: Vec<Waiting>,
    /// The freeze on it or above it.
    pub freeze: Option<Freeze>,
}

impl LockTable {
    /// `GET {resource}/lock`.
    #[must_use]
    pub fn inspect(&self, resource: &Resource, now: Now) -> Inspection {
        let place = self.place(resource);
        let mut locks = Vec::new();
        self.visit_locks(&place, crate::lock::Mode::Exclusive, Depth::Zero, now, &mut |obstacle| {
            if let Obstacle::Lock(idx) = obstacle {
                locks.push(self.state.slot(idx).lock());
            }
            true
        });
        locks.sort_by_key(|lock| lock.grant.fence);
        let freeze = place
            .path
            .iter()
            .filter_map(|&node| self.state.tree.freeze(node))
            .find(|freeze| now.wall < freeze.until)
            .cloned();
        Inspection { locks, queue: self.queue_at(&place, Depth::Infinity), freeze }
    }

    /// One live lock.
    #[must_use]
    pub fn lock(&self, lock_id: LockId, now: Now) -> Option<Lock> {
        let slot = self.state.slot(self.state.idx(lock_id)?);
        slot.is_live(now.lease).then(|| slot.lock())
    }

    /// Live locks in the order of their fences, from after `after`: those that `matches` lets
    /// through, at most `limit`, looking at no more than `looks`. The fence looked at last, if
    /// there may be more.
    pub fn list(
        &self,
        after: Option<Fence>,
        limit: usize,
        looks: usize,
        now: Now,
        mut matches: impl FnMut(&Lock) -> bool,
    ) -> (Vec<Lock>, Option<Fence>) {
        let from = after.map_or(Fence(0), |fence| Fence(fence.0.saturating_add(1)));
        let mut found = Vec::new();
        let mut looked = 0;
        for (&fence, &idx) in self.state.by_fence.range(from..) {
            looked += 1;
            let slot = self.state.slot(idx);
            if slot.is_live(now.lease) {
                found.extend(Some(slot.lock()).filter(&mut matches));
            }
            if found.len() == limit || looked == looks {
                return (found, Some(fence));
            }
        }
        (found, None)
    }
}
