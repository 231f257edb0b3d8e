//! Judging a trail: is it the chain that was written, and did it keep its promises?
//!
//! Two judgements in one pass. The chain: positions without a gap, each `prev` the hash of the
//! bytes before it, a beginning that is not event 1 told by a `trimmed` record. The promises, judged by
//! `lease_ms` and deadlines, never by wall time: no two live locks that conflict, fences that
//! grow, every write under a lock that lived, no lock ended early.
//!
//! A chain shows tampering to whoever kept a head: give it to [`verify`]. Without one, a trail
//! that was written anew from some event on looks whole. Memory is bounded by the live locks and
//! [`FINDINGS_MAX`]. Deliberately absent: judging the clean hand-over of writes on their way,
//! since the end of an unlocked write is not in the trail.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use leasehold_core::event::{Event, EventBody, Subject};
use leasehold_core::ids::{Fence, LockId, Principal, Seq};
use leasehold_core::lock::{Depth, Grant, Lock, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::rows::Row;
use leasehold_core::time::LeaseTime;

use crate::log::{Hash, NO_HASH, Stored, Trimmed, from_hex, hash};
use crate::query::{AuditReader, QueryError};

/// The most findings that are kept; the rest is counted.
pub const FINDINGS_MAX: usize = 1000;

/// What [`verify`] found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// The first event looked at; none for an empty trail.
    pub first: Option<Seq>,
    /// The last event looked at, and the hash of its bytes: the head to keep elsewhere.
    pub last: Option<(Seq, Hash)>,
    /// How many events were looked at.
    pub events: u64,
    /// How many locks lived at the end.
    pub live_locks: usize,
    /// What the trail begins after, if something was removed.
    pub trimmed: Option<Trimmed>,
    /// Whether something was removed and the record of it is not in the trail yet: only the log
    /// itself says where the trail begins. A server that trims in steps is briefly between the
    /// two; if it stays so, somebody may have cut the beginning off.
    pub trim_record_owed: bool,
    /// What is wrong, in order; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more findings there were.
    pub findings_left_out: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// At which event.
    pub seq: Seq,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {}: {}", self.seq, self.fault)
    }
}

/// What can be wrong at an event.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Events before this one are missing.
    #[error("it follows event {after}: what is between them is missing")]
    Gap {
        /// The event before it.
        after: Seq,
    },
    /// Its `prev` is not the hash of the event before.
    #[error("its `prev` is not the hash of the event before it: one of the two was changed")]
    ChainBroken,
    /// It cannot be read.
    #[error("it cannot be read: {why}")]
    Unreadable {
        /// Why.
        why: String,
    },
    /// It is not the event of the head that was given.
    #[error("its hash is not that of the head that was kept")]
    HeadDiffers,
    /// The trail does not reach the head that was given.
    #[error("the head that was kept is here, but the trail ends at event {last}")]
    HeadMissing {
        /// Where the trail ends.
        last: Seq,
    },
    /// The head that was given has been removed by retention.
    #[error("the head that was kept is here, but the trail begins after event {through}")]
    HeadTrimmed {
        /// The newest event removed.
        through: Seq,
    },
    /// The lease clock went back.
    #[error("the lease clock went back from {before:?} to {here:?}")]
    LeaseWentBack {
        /// The reading before.
        before: LeaseTime,
        /// The reading here.
        here: LeaseTime,
    },
    /// A lock was granted while one that conflicts with it lived.
    #[error("lock {lock} was granted on {resource} while lock {other} of {holder} lived")]
    Exclusion {
        /// The lock that was granted.
        lock: LockId,
        /// The resource both meet at.
        resource: Resource,
        /// The lock that lived.
        other: LockId,
        /// Its holder.
        holder: Principal,
    },
    /// A fence did not grow.
    #[error("its fence {fence} is not greater than fence {before}")]
    FenceDidNotGrow {
        /// The fence here.
        fence: Fence,
        /// The greatest before.
        before: Fence,
    },
    /// A lock was granted whose name is that of a live one.
    #[error("lock {lock} was granted twice")]
    GrantedTwice {
        /// The lock.
        lock: LockId,
    },
    /// An event about a lock that did not live.
    #[error("lock {lock} did not live at this moment")]
    NotLive {
        /// The lock.
        lock: LockId,
    },
    /// It speaks of a lock otherwise than the grant did.
    #[error("it gives lock {lock} another fence or holder than its grant")]
    OtherLock {
        /// The lock.
        lock: LockId,
    },
    /// A lock expired before its deadline.
    #[error("lock {lock} expired at {here:?}, before its deadline {deadline:?}")]
    ExpiredEarly {
        /// The lock.
        lock: LockId,
        /// The reading here.
        here: LeaseTime,
        /// Its deadline.
        deadline: LeaseTime,
    },
    /// A write ended that was not admitted, or ended twice.
    #[error("it ends the write admitted at event {admitted}, which is not open")]
    NotAdmitted {
        /// The position it gives.
        admitted: Seq,
    },
}

const CHUNK: usize = 1024;

/// Judges the trail from its beginning to the head it has when it gets there. A `head` that was
/// kept elsewhere is compared with.
///
/// # Errors
/// When the store fails. What is wrong with the trail is in the report.
pub fn verify(reader: &AuditReader, head: Option<(Seq, Hash)>) -> Result<Report, QueryError> {
    loop {
        let mut verifier = reader.snapshot(|| Verifier::begin(reader, head))?;
        if verifier.run(reader)? {
            return Ok(verifier.end());
        }
    }
}

/// A lock as far as it matters here.
#[derive(Debug)]
struct Live {
    fence: Fence,
    holder: Principal,
    mode: Mode,
    depth: Depth,
    resources: Arc<[Resource]>,
    deadline: LeaseTime,
    /// Whether its break was announced: then it is broken at its deadline, and does not expire.
    is_breaking: bool,
}

#[derive(Debug)]
struct Verifier {
    report: Report,
    head: Option<(Seq, Hash)>,
    before: (Seq, Hash),
    /// Whether the beginning was vouched for. Only a trail that was trimmed needs it.
    vouched: bool,
    lease: LeaseTime,
    fence: Fence,
    live: HashMap<LockId, Live>,
    /// Which locks are on each resource.
    places: BTreeMap<String, Vec<LockId>>,
    open: HashMap<Seq, ()>,
}

impl Verifier {
    fn begin(reader: &AuditReader, head: Option<(Seq, Hash)>) -> Result<Self, QueryError> {
        let trimmed = reader.trimmed()?;
        let before = trimmed.map_or((Seq(0), NO_HASH), |trimmed| (trimmed.through, trimmed.hash));
        let mut verifier = Self {
            report: Report { trimmed, ..Report::default() },
            head,
            before,
            vouched: trimmed.is_none(),
            lease: LeaseTime(0),
            fence: Fence(0),
            live: HashMap::new(),
            places: BTreeMap::new(),
            open: HashMap::new(),
        };
        reader.base(|row| match row {
            Row::Lock(lock) => verifier.insert_row(*lock),
            Row::Open(open) => {
                verifier.open.insert(open.seq, ());
            }
            Row::Meta(meta) => {
                verifier.fence = meta.fence;
                verifier.lease = meta.lease_ms;
            }
            Row::Ended(_) | Row::Freeze(_) => {}
        })?;
        if let (Some((seq, hash)), Some(trimmed)) = (head, trimmed) {
            if seq == trimmed.through {
                verifier.check_head(seq, hash);
            } else if seq < trimmed.through {
                verifier.find(seq, Fault::HeadTrimmed { through: trimmed.through });
            }
        }
        Ok(verifier)
    }

    /// Looks at every event. `false` if retention removed events before they were looked at: then
    /// the fold of what was removed is another one, and it begins anew.
    fn run(&mut self, reader: &AuditReader) -> Result<bool, QueryError> {
        loop {
            let next = self.before.0.next();
            let events = reader.read(next, CHUNK)?;
            let Some(first) = events.first() else { return Ok(true) };
            if first.seq != next && reader.trimmed()? != self.report.trimmed {
                return Ok(false);
            }
            events.iter().for_each(|stored| self.look_at(stored));
        }
    }

    fn find(&mut self, seq: Seq, fault: Fault) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(Finding { seq, fault });
        } else {
            self.report.findings_left_out += 1;
        }
    }

    /// Compares with the head that was kept, which is at this event.
    fn check_head(&mut self, seq: Seq, kept: Hash) {
        if self.before.1 != kept {
            self.find(seq, Fault::HeadDiffers);
        }
    }

    fn look_at(&mut self, stored: &Stored) {
        let seq = stored.seq;
        let (before, before_hash) = self.before;
        let gap = seq != before.next();
        if gap {
            self.find(seq, Fault::Gap { after: before });
        }
        self.before = (seq, hash(&stored.bytes));
        self.report.first = self.report.first.or(Some(seq));
        self.report.events += 1;
        if let Some((_, kept)) = self.head.filter(|head| head.0 == seq) {
            self.check_head(seq, kept);
        }
        match stored.record() {
            Ok(record) => {
                let prev = record.prev.as_deref().and_then(from_hex);
                if !gap && prev != Some(before_hash) {
                    self.find(seq, Fault::ChainBroken);
                }
                match record.event() {
                    Ok(event) => self.judge(&event),
                    Err(error) => self.find(seq, Fault::Unreadable { why: error.to_string() }),
                }
            }
            Err(error) => self.find(seq, Fault::Unreadable { why: error.to_string() }),
        }
    }

    fn judge(&mut self, event: &Event) {
        let (seq, now) = (event.seq, event.lease);
        if now < self.lease {
            self.find(seq, Fault::LeaseWentBack { before: self.lease, here: now });
        }
        self.lease = now;
        match &event.body {
            EventBody::Acquired(grant) => self.grant(seq, now, grant),
            EventBody::Renewed { lock, deadline, .. }
            | EventBody::BreakAnnounced { lock, deadline, .. } => {
                self.live_now(seq, now, lock);
                if let Some(live) = self.live.get_mut(&lock.lock_id) {
                    live.deadline = *deadline;
                    live.is_breaking |= matches!(event.body, EventBody::BreakAnnounced { .. });
                }
            }
            EventBody::Released { lock, .. } => {
                self.live_now(seq, now, lock);
                self.remove(lock.lock_id);
            }
            EventBody::Broken { lock, .. } => {
                match self.live.get(&lock.lock_id) {
                    // From its deadline on, this is how its end is told.
                    Some(live) if live.is_breaking => self.known(seq, lock),
                    _ => self.live_now(seq, now, lock),
                }
                self.remove(lock.lock_id);
            }
            EventBody::Expired { lock, .. } => self.expire(seq, now, lock),
            EventBody::Transferred { lock, to } => {
                self.live_now(seq, now, lock);
                self.remove(lock.lock_id);
                self.grant(seq, now, to);
            }
            EventBody::Requested { lock, .. } => self.live_now(seq, now, lock),
            EventBody::WriteAdmitted { lock, .. } => {
                self.live_now(seq, now, lock);
                self.open.insert(seq, ());
            }
            EventBody::WriteCompleted { admitted, .. } => {
                if self.open.remove(admitted).is_none() {
                    self.find(seq, Fault::NotAdmitted { admitted: *admitted });
                }
            }
            EventBody::Recovered { fence_floor, .. } => self.fence = self.fence.max(*fence_floor),
            EventBody::Trimmed { through, hash } => self.vouch(*through, hash),
            EventBody::Frozen(_)
            | EventBody::Unfrozen { .. }
            | EventBody::WriteChecked { .. }
            | EventBody::Refused { .. } => {}
        }
    }

    fn vouch(&mut self, through: Seq, hash: &str) {
        let told = from_hex(hash).map(|hash| Trimmed { through, hash });
        self.vouched |= told.is_some() && told == self.report.trimmed;
    }

    fn grant(&mut self, seq: Seq, now: LeaseTime, grant: &Grant) {
        if grant.fence <= self.fence {
            self.find(seq, Fault::FenceDidNotGrow { fence: grant.fence, before: self.fence });
        }
        self.fence = self.fence.max(grant.fence);
        for resource in grant.resources.iter() {
            if let Some((other, holder)) = self.in_the_way(grant, resource, now) {
                let resource = resource.clone();
                self.find(seq, Fault::Exclusion { lock: grant.lock_id, resource, other, holder });
            }
        }
        if self.live.contains_key(&grant.lock_id) {
            self.find(seq, Fault::GrantedTwice { lock: grant.lock_id });
            self.remove(grant.lock_id);
        }
        self.insert(grant, grant.deadline, false);
    }

    /// A live lock that conflicts with `grant` at `resource`, and its holder.
    fn in_the_way(
        &self,
        grant: &Grant,
        resource: &Resource,
        now: LeaseTime,
    ) -> Option<(LockId, Principal)> {
        let conflict = |id: &LockId, above: bool| {
            let live = self.live.get(id)?;
            let conflicts = now < live.deadline
                && (grant.mode == Mode::Exclusive || live.mode == Mode::Exclusive)
                && (!above || live.depth == Depth::Infinity);
            conflicts.then(|| (*id, live.holder.clone()))
        };
        let at = |place: &Resource, above: bool| {
            let here = self.places.get(place.as_str())?;
            here.iter().find_map(|id| conflict(id, above))
        };
        if let Some(found) = at(resource, false) {
            return Some(found);
        }
        let mut up = resource.parent();
        while let Some(place) = up {
            if let Some(found) = at(&place, true) {
                return Some(found);
            }
            up = place.parent();
        }
        if grant.depth == Depth::Zero {
            return None;
        }
        // Below `/a` is everything from `/a/` to before `/a0`, for `0` follows `/`.
        let trunk = if resource.is_root() { "" } else { resource.as_str() };
        let (from, to) = (format!("{trunk}/"), format!("{trunk}0"));
        let below = (Bound::Excluded(from), Bound::Excluded(to));
        let mut below = self.places.range::<String, _>(below).flat_map(|(_, ids)| ids);
        below.find_map(|id| conflict(id, false))
    }

    /// Finds fault with an event about a lock that does not live, or is another one.
    fn live_now(&mut self, seq: Seq, now: LeaseTime, lock: &Subject) {
        if self.live.get(&lock.lock_id).is_some_and(|live| live.deadline <= now) {
            self.find(seq, Fault::NotLive { lock: lock.lock_id });
        } else {
            self.known(seq, lock);
        }
    }

    /// Finds fault with an event about a lock that has ended, or is another one.
    fn known(&mut self, seq: Seq, lock: &Subject) {
        let fault = match self.live.get(&lock.lock_id) {
            None => Fault::NotLive { lock: lock.lock_id },
            Some(live) if live.fence != lock.fence || live.holder != lock.holder => {
                Fault::OtherLock { lock: lock.lock_id }
            }
            Some(_) => return,
        };
        self.find(seq, fault);
    }

    fn expire(&mut self, seq: Seq, now: LeaseTime, lock: &Subject) {
        match self.live.get(&lock.lock_id).map(|live| live.deadline) {
            None => self.find(seq, Fault::NotLive { lock: lock.lock_id }),
            Some(deadline) if now < deadline => {
                self.find(seq, Fault::ExpiredEarly { lock: lock.lock_id, here: now, deadline });
            }
            Some(_) => {}
        }
        self.remove(lock.lock_id);
    }

    fn insert_row(&mut self, lock: Lock) {
        self.insert(&lock.grant, lock.deadline, lock.breaking.is_some());
    }

    fn insert(&mut self, grant: &Grant, deadline: LeaseTime, is_breaking: bool) {
        for resource in grant.resources.iter() {
            self.places.entry(resource.as_str().to_owned()).or_default().push(grant.lock_id);
        }
        let live = Live {
            fence: grant.fence,
            holder: grant.holder.clone(),
            mode: grant.mode,
            depth: grant.depth,
            resources: Arc::clone(&grant.resources),
            deadline,
            is_breaking,
        };
        self.live.insert(grant.lock_id, live);
    }

    fn remove(&mut self, id: LockId) {
        let Some(live) = self.live.remove(&id) else { return };
        for resource in live.resources.iter() {
            if let Some(ids) = self.places.get_mut(resource.as_str()) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.places.remove(resource.as_str());
                }
            }
        }
    }

    fn end(mut self) -> Report {
        let (last, hash) = self.before;
        if let Some((seq, _)) = self.head.filter(|head| head.0 > last) {
            self.find(seq, Fault::HeadMissing { last });
        }
        if !self.vouched {
            // The log says itself that it removed something; the chain was judged from there.
            self.report.trim_record_owed = true;
        }
        self.report.last = (last > Seq(0)).then_some((last, hash));
        let now = self.lease;
        self.report.live_locks = self.live.values().filter(|live| now < live.deadline).count();
        self.report
    }
}

#[cfg(test)]
mod tests;
