//! The durable log, read back: what the judge believes.
//!
//! It is read through a connection of its own, after a commit has succeeded, and never from the
//! engine. Beside what the events come to ([`crate::fold`]) it keeps what answers are compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leasehold_core::event::{Event, EventBody};
use leasehold_core::ids::{Fence, LockId, Seq};
use leasehold_core::lock::{Grant, Mode};
use leasehold_core::time::LeaseTime;
use leasehold_journal::log::{Hash, Stored, hash, hex};

use crate::fold::{Finding, Fold};
use crate::judge::{Invariant, Limits};

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

/// The durable log.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// The hash of each event.
    pub hashes: Vec<Hash>,
    /// What the events come to.
    pub table: Fold,
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
}

impl Trail {
    /// The newest event.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.table.last()
    }

    /// Folds the next event.
    ///
    /// # Errors
    /// What is wrong with it.
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
        self.table.apply(&event, limits)?;
        self.note(&event);
        Ok(event)
    }

    /// Notes what answers may be told of it.
    fn note(&mut self, event: &Event) {
        self.requests.extend(event.origin.request_id.clone());
        match &event.body {
            EventBody::Acquired(grant) => self.granted(grant),
            EventBody::Renewed { lock, deadline, .. } => {
                self.renewed.insert((lock.lock_id, *deadline));
            }
            EventBody::BreakAnnounced { lock, .. } => {
                self.broken.insert(lock.lock_id);
            }
            EventBody::Released { lock, undelivered } => {
                let how = if *undelivered { How::GivenBack } else { How::Released };
                self.ended.insert(lock.lock_id, how);
            }
            EventBody::Broken { lock, .. } => {
                self.broken.insert(lock.lock_id);
                self.ended.insert(lock.lock_id, How::Broken);
            }
            EventBody::Expired { lock, .. } => {
                self.ended.insert(lock.lock_id, How::Expired);
            }
            EventBody::Transferred { lock, to } => {
                self.ended.insert(lock.lock_id, How::Transferred);
                self.granted(to);
            }
            EventBody::Requested { .. }
            | EventBody::Frozen(_)
            | EventBody::Unfrozen { .. }
            | EventBody::WriteAdmitted { .. }
            | EventBody::WriteCompleted { .. }
            | EventBody::WriteChecked { .. }
            | EventBody::Refused { .. }
            | EventBody::Recovered { .. }
            | EventBody::Trimmed { .. } => {}
        }
    }

    fn granted(&mut self, grant: &Grant) {
        self.grants.insert(grant.lock_id, (grant.fence, grant.mode));
    }

    /// Whether a lock of this id is, or was, a shared one.
    #[must_use]
    pub fn is_shared(&self, lock: LockId) -> bool {
        self.grants.get(&lock).is_some_and(|(_, mode)| *mode == Mode::Shared)
    }
}
