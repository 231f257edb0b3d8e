//! The durable log, read back and folded with maps and loops: what the judge believes.
//!
//! It is read through a connection of its own, after a commit has succeeded, and never from the
//! engine. It judges what can be seen in the log alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leasehold_core::event::{Event, EventBody, Subject};
use leasehold_core::ids::{Fence, LockId, Seq};
use leasehold_core::lock::{Grant, Mode};
use leasehold_core::time::LeaseTime;
use leasehold_journal::log::{Hash, Stored, hash, hex};

use crate::geometry::Claim;
use crate::judge::{Invariant, Limits};

/// A lock that the log has not ended.
#[derive(Clone, Debug)]
pub struct Live {
    /// The grant.
    pub grant: Grant,
    /// When it ends.
    pub deadline: LeaseTime,
    /// Whether its token was used after the grant.
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

/// How the log says that a lock ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    /// Its deadline passed.
    Expired,
    /// It was released.
    Released,
    /// It was given back, because nobody was told of it.
    GivenBack,
    /// Somebody ended it.
    Broken,
    /// It was handed over.
    Transferred,
}

/// The fold of the log.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// The hash of each event.
    pub hashes: Vec<Hash>,
    /// Locks that live, those that are due included.
    pub live: BTreeMap<LockId, Live>,
    /// Every grant there ever was.
    pub grants: BTreeMap<LockId, (Fence, Mode)>,
    /// Every end of a lock.
    pub ended: BTreeMap<LockId, How>,
    /// Every deadline that a renewal has set.
    pub renewed: BTreeSet<(LockId, LeaseTime)>,
    /// Locks whose break was announced or carried out.
    pub broken: BTreeSet<LockId>,
    /// Every request that has left an event.
    pub requests: BTreeSet<Arc<str>>,
    /// Every `write_admitted`.
    pub admitted: BTreeSet<Seq>,
    fence: Fence,
    lease: LeaseTime,
}

/// Something that the log shows to be broken.
pub type Finding = (Invariant, String);

impl Trail {
    /// The newest event.
    #[must_use]
    pub fn last(&self) -> Seq {
        Seq(self.hashes.len() as u64)
    }

    /// Folds the next event, and says what is wrong with it.
    pub fn fold(&mut self, stored: &Stored, limits: Limits) -> Result<Event, Finding> {
        let truth = |what: String| (Invariant::TrailIsTruth, what);
        let record = stored.record().map_err(|error| truth(error.to_string()))?;
        let before = self.hashes.last().map(hex);
        if stored.seq != self.last().next()
            || (before.is_some() && record.prev.as_deref() != before.as_deref())
        {
            return Err(truth(format!("event {} does not follow {}", stored.seq, self.last())));
        }
        let event = record.event().map_err(|error| truth(error.to_string()))?;
        self.hashes.push(hash(&stored.bytes));
        if event.lease < self.lease {
            return Err(truth(format!("event {}: the lease clock went back", event.seq)));
        }
        self.lease = event.lease;
        self.requests.extend(event.origin.request_id.clone());
        self.apply(&event, limits)?;
        Ok(event)
    }

    fn apply(&mut self, event: &Event, limits: Limits) -> Result<(), Finding> {
        match &event.body {
            EventBody::Acquired(grant) => {
                self.bounds(event, grant, limits)?;
                self.grant(event, grant)?;
            }
            EventBody::Renewed { lock, deadline, .. } => {
                let live = self.live(event, lock)?;
                live.deadline = *deadline;
                live.renewals += 1;
                self.renewed.insert((lock.lock_id, *deadline));
            }
            EventBody::BreakAnnounced { lock, deadline, .. } => {
                self.live(event, lock)?.deadline = *deadline;
                self.broken.insert(lock.lock_id);
            }
            EventBody::Released { lock, undelivered } => {
                let how = if *undelivered { How::GivenBack } else { How::Released };
                self.end(event, lock, how)?;
            }
            EventBody::Broken { lock, .. } => {
                self.broken.insert(lock.lock_id);
                self.end(event, lock, How::Broken)?;
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
                self.end(event, lock, How::Expired)?;
            }
            EventBody::Transferred { lock, to } => {
                self.end(event, lock, How::Transferred)?;
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

    fn end(&mut self, event: &Event, lock: &Subject, how: How) -> Result<(), Finding> {
        self.live(event, lock)?;
        self.live.remove(&lock.lock_id);
        self.ended.insert(lock.lock_id, how);
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
        self.grants.insert(grant.lock_id, (grant.fence, grant.mode));
        Ok(())
    }

    /// Whether a lock of this id is, or was, a shared one.
    #[must_use]
    pub fn is_shared(&self, lock: LockId) -> bool {
        self.grants.get(&lock).is_some_and(|(_, mode)| *mode == Mode::Shared)
    }
}
