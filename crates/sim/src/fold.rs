//! The fold of events, with maps and loops: which locks live, and what each next event must not do.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::event::{Event, EventBody, Subject};
use leasehold_core::ids::{Fence, LockId, Seq};
use leasehold_core::lock::Grant;
use leasehold_core::time::LeaseTime;

use crate::geometry::Claim;
use crate::judge::{Invariant, Limits};

/// A lock that the log has not ended.
#[derive(Clone, Debug)]
pub struct Live {
    /// The grant.
    pub grant: Grant,
    /// When it ends.
    pub deadline: LeaseTime,
    /// How often it was renewed.
    pub renewals: u32,
}

impl Live {
    /// What it covers.
    #[must_use]
    pub fn claim(&self) -> Claim<'_> {
        claim(&self.grant)
    }
}

/// What a grant covers.
#[must_use]
pub fn claim(grant: &Grant) -> Claim<'_> {
    Claim { resources: &grant.resources, mode: grant.mode, depth: grant.depth }
}

/// Something that events show to be broken.
pub type Finding = (Invariant, String);

/// What some first part of all events comes to.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    /// Locks that live, those that are due included.
    pub live: BTreeMap<LockId, Live>,
    /// Every `write_admitted`.
    pub admitted: BTreeSet<Seq>,
    last: Seq,
    fence: Fence,
    lease: LeaseTime,
}

impl Fold {
    /// The newest event.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.last
    }

    /// Folds the next event.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn apply(&mut self, event: &Event, limits: Limits) -> Result<(), Finding> {
        if event.seq != self.last.next() {
            let what = format!("event {} does not follow {}", event.seq, self.last);
            return Err((Invariant::TrailIsTruth, what));
        }
        if event.lease < self.lease {
            let what = format!("event {}: the lease clock went back", event.seq);
            return Err((Invariant::TrailIsTruth, what));
        }
        (self.last, self.lease) = (event.seq, event.lease);
        self.change(event, limits)
    }

    fn change(&mut self, event: &Event, limits: Limits) -> Result<(), Finding> {
        match &event.body {
            EventBody::Acquired(grant) => {
                self.bounds(event, grant, limits)?;
                self.grant(event, grant)?;
            }
            EventBody::Renewed { lock, deadline, .. } => {
                let live = self.live(event, lock)?;
                live.deadline = *deadline;
                live.renewals += 1;
            }
            EventBody::BreakAnnounced { lock, deadline, .. } => {
                self.live(event, lock)?.deadline = *deadline;
            }
            EventBody::Released { lock, .. } | EventBody::Broken { lock, .. } => {
                self.end(event, lock)?;
            }
            EventBody::Expired { lock, .. } => {
                let deadline = self.live(event, lock).map(|live| live.deadline)?;
                if event.lease < deadline {
                    let what = format!(
                        "event {}: {} expired at {}, before its deadline {}",
                        event.seq, lock.lock_id, event.lease.0, deadline.0
                    );
                    return Err((Invariant::NeverEarly, what));
                }
                self.end(event, lock)?;
            }
            EventBody::Transferred { lock, to } => {
                self.end(event, lock)?;
                self.grant(event, to)?;
            }
            EventBody::Recovered { fence_floor, .. } => self.fence = self.fence.max(*fence_floor),
            EventBody::WriteAdmitted { lock, .. } => {
                self.live(event, lock)?;
                self.admitted.insert(event.seq);
            }
            EventBody::WriteCompleted { admitted, .. } => {
                if !self.admitted.contains(admitted) {
                    let what = format!("event {}: no write was admitted at {admitted}", event.seq);
                    return Err((Invariant::TrailIsTruth, what));
                }
            }
            EventBody::Requested { lock, .. } => {
                self.live(event, lock)?;
            }
            EventBody::Frozen(_)
            | EventBody::Unfrozen { .. }
            | EventBody::WriteChecked { .. }
            | EventBody::Refused { .. }
            | EventBody::Trimmed { .. } => {}
        }
        Ok(())
    }

    fn live(&mut self, event: &Event, lock: &Subject) -> Result<&mut Live, Finding> {
        let missing = || {
            let what = format!("event {}: {} does not live", event.seq, lock.lock_id);
            (Invariant::TrailIsTruth, what)
        };
        self.live.get_mut(&lock.lock_id).ok_or_else(missing)
    }

    fn end(&mut self, event: &Event, lock: &Subject) -> Result<(), Finding> {
        self.live(event, lock)?;
        self.live.remove(&lock.lock_id);
        Ok(())
    }

    fn bounds(&self, event: &Event, grant: &Grant, limits: Limits) -> Result<(), Finding> {
        let live = || self.live.values().filter(|live| event.lease < live.deadline);
        let held = live().filter(|live| live.grant.holder == grant.holder).count();
        let broken = if limits.max_locks <= live().count() {
            format!("more than {} locks", limits.max_locks)
        } else if limits.max_locks_per_holder <= held {
            format!("more than {} locks of {}", limits.max_locks_per_holder, grant.holder)
        } else {
            return Ok(());
        };
        Err((Invariant::Bounded, format!("event {}: {broken}", event.seq)))
    }

    fn grant(&mut self, event: &Event, grant: &Grant) -> Result<(), Finding> {
        if grant.fence <= self.fence {
            let what =
                format!("event {}: fence {} after fence {}", event.seq, grant.fence, self.fence);
            return Err((Invariant::FencesGrow, what));
        }
        self.fence = grant.fence;
        let conflict = self
            .live
            .iter()
            .find(|(_, live)| event.lease < live.deadline && live.claim().conflicts(&claim(grant)));
        if let Some((other, _)) = conflict {
            let what = format!("event {}: {} was granted beside {other}", event.seq, grant.lock_id);
            return Err((Invariant::Exclusion, what));
        }
        let live = Live { grant: grant.clone(), deadline: grant.deadline, renewals: 0 };
        self.live.insert(grant.lock_id, live);
        Ok(())
    }
}
