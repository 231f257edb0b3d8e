//! The judge: the ten invariants, from what clients were told and from the durable log.
//!
//! An answer is compared with the durable log at the moment at which it is told (`told`), a write
//! with the locks when it sets off (`writes`), an event with all before it when it is decided, and
//! once more when it becomes durable (`events`), and the engine's table with the events after each
//! step (`state`).
//!
//! What always holds: what the engine believes is judged, and nothing is judged by it, but for the
//! reading of its lease clock, which tells when (by the monotonic clock of the simulation) an event
//! was decided.
//!
//! Deliberately absent: predictions of what a command should answer. The core's model has them.

mod events;
mod state;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]
mod tests;
mod told;
mod verdict;
mod writes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::iter::repeat;
use std::time::Duration;

use leasehold_core::event::Event;
use leasehold_core::ids::{Fence, LockId, Seq};
use leasehold_core::lock::Mode;
use leasehold_core::time::LeaseTime;
use leasehold_journal::log::Stored;

use crate::fold::Fold;
use crate::geometry::Claim;
use crate::trail::Trail;
pub use verdict::{Invariant, Limits, Verdict, Violation};
use verdict::{broken, index};
pub use writes::Begun;
use writes::Underway;

/// By how much a lock may outlive its deadline on a running server.
const LATENESS: u64 = 50;

/// An acquire that a client has sent.
#[derive(Clone, Debug)]
struct Sent {
    /// Its place by the time it was first sent.
    order: u64,
    resources: Vec<leasehold_core::resource::Resource>,
    is_any_of: bool,
    mode: Mode,
    depth: leasehold_core::lock::Depth,
    has_holds: bool,
    /// Until when it waits, by the lease clock; none where it does not.
    until: Option<LeaseTime>,
    /// Grants of later acquires that it conflicts with.
    overtaken_by: Vec<(LockId, Seq, LeaseTime)>,
}

impl Sent {
    fn claim(&self) -> Claim<'_> {
        Claim { resources: &self.resources, mode: self.mode, depth: self.depth }
    }
}

/// What an acquire looks like to the judge.
#[derive(Clone, Debug)]
pub struct Acquiring {
    /// The lock id that the command chose.
    pub lock_id: LockId,
    /// What it asks for.
    pub resources: Vec<leasehold_core::resource::Resource>,
    /// Whether one of them is enough.
    pub is_any_of: bool,
    /// Whether others may share it.
    pub mode: Mode,
    /// How far down it reaches.
    pub depth: leasehold_core::lock::Depth,
    /// Whether it presents tokens of locks that it holds: then it may go before others.
    pub has_holds: bool,
    /// How long it waits.
    pub wait_ms: u64,
    /// An earlier call of the same request, whose place it may have kept.
    pub repeats: Option<u64>,
}

/// The judge.
#[derive(Debug)]
pub struct Judge {
    /// The durable log.
    pub trail: Trail,
    /// What it comes to with all that is decided and not durable yet.
    ahead: Fold,
    /// Those events.
    not_durable: VecDeque<Event>,
    limits: Limits,
    mono: Duration,
    lease: LeaseTime,
    /// When each reading of the lease clock was first and last shown.
    readings: Vec<(LeaseTime, Duration)>,
    /// Until when a holder was told, at least, that it has a lock.
    promises: BTreeMap<LockId, Duration>,
    /// Locks whose holders, or others, have asked for an end.
    asked_to_end: BTreeSet<LockId>,
    /// Renewals that may have made a lock shorter: the call, and until when.
    shortened: BTreeMap<LockId, Vec<(u64, Duration)>>,
    /// Up to this reading the server did not run: lateness counts from here.
    stood_still_until: LeaseTime,
    /// How often the journal has failed.
    pub failures: u64,
    /// Whether the disk has failed under a commit, and the log has not been brought back since.
    is_harmed: bool,
    sent: BTreeMap<u64, Sent>,
    calls_of_locks: BTreeMap<LockId, u64>,
    orders: BTreeMap<u64, u64>,
    underway: BTreeMap<u64, Underway>,
    told_fences: BTreeMap<Fence, LockId>,
}

impl Judge {
    /// A judge of a new folder.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            trail: Trail::default(),
            ahead: Fold::default(),
            not_durable: VecDeque::new(),
            limits,
            mono: Duration::ZERO,
            lease: LeaseTime(0),
            readings: Vec::new(),
            promises: BTreeMap::new(),
            asked_to_end: BTreeSet::new(),
            shortened: BTreeMap::new(),
            stood_still_until: LeaseTime(0),
            failures: 0,
            is_harmed: false,
            sent: BTreeMap::new(),
            calls_of_locks: BTreeMap::new(),
            orders: BTreeMap::new(),
            underway: BTreeMap::new(),
            told_fences: BTreeMap::new(),
        }
    }

    // ---- time ----------------------------------------------------------------------------------

    /// What the clocks show from now on.
    pub fn at(&mut self, mono: Duration, lease: LeaseTime) {
        (self.mono, self.lease) = (mono, lease);
        match self.readings.last_mut() {
            Some((reading, until)) if *reading == lease => *until = mono,
            _ => self.readings.push((lease, mono)),
        }
    }

    /// The server did not run until now: nobody could have ended a lock.
    pub fn stood_still(&mut self) {
        self.stood_still_until = self.lease;
    }

    /// When an event was decided, at the latest.
    fn decided_at(&self, lease: LeaseTime) -> Duration {
        let at = self.readings.partition_point(|(reading, _)| *reading < lease);
        match self.readings.get(at) {
            Some((reading, until)) if *reading == lease => *until,
            _ => self.mono,
        }
    }

    // ---- the log -------------------------------------------------------------------------------

    /// Folds what a commit has made durable.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn read(&mut self, events: &[Stored]) -> Verdict {
        for stored in events {
            let event = self.trail.fold(stored, self.limits)?;
            self.decided(std::slice::from_ref(&event))?;
            if self.not_durable.pop_front().is_none_or(|decided| decided != event) {
                let what = format!("event {} is not what was decided", event.seq);
                return broken(Invariant::TrailIsTruth, what);
            }
            self.judge_durable(&event)?;
        }
        Ok(())
    }

    /// Folds what was decided, but for what is known already.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn decided(&mut self, events: &[Event]) -> Verdict {
        for event in events {
            if self.ahead.last() < event.seq {
                self.ahead.apply(event, self.limits)?;
                self.not_durable.push_back(event.clone());
                self.judge_decided(event)?;
            }
        }
        Ok(())
    }

    /// What was decided and is not durable is dropped.
    fn forget_undurable(&mut self) {
        self.ahead = self.trail.table.clone();
        self.not_durable.clear();
    }

    /// Compares the log that a start has found with the one that was read before.
    ///
    /// # Errors
    /// [`Invariant::DurableBeforeSaid`] or [`Invariant::FailStop`]: something that was durable is
    /// another thing now, or is not there.
    pub fn restarted(&mut self, events: &[Stored], trimmed: Seq) -> Verdict {
        let known = self.trail.last();
        let kept = self.trail.hashes.iter().enumerate().skip(index(trimmed));
        for ((at, hash), found) in kept.zip(events.iter().map(Some).chain(repeat(None))) {
            if found.map(|stored| leasehold_journal::log::hash(&stored.bytes)) != Some(*hash) {
                let which = if self.failures == 0 {
                    Invariant::DurableBeforeSaid
                } else {
                    Invariant::FailStop
                };
                let what = format!("event {} was durable, and is lost or another one", at + 1);
                return broken(which, what);
            }
        }
        self.is_harmed = false;
        self.forget_undurable();
        self.readings.clear();
        self.sent.clear();
        self.calls_of_locks.clear();
        self.orders.clear();
        self.underway.clear();
        let new = events.iter().position(|stored| known < stored.seq).unwrap_or(events.len());
        self.read(&events[new..])
    }

    /// The disk has failed under a commit, whatever the journal makes of it.
    pub fn disk_failed(&mut self) {
        self.is_harmed = true;
    }

    /// The journal works again.
    pub fn recovered(&mut self) {
        self.is_harmed = false;
    }

    /// A commit has failed: whoever waited is told so, and waits no more.
    pub fn journal_failed(&mut self) {
        self.failures += 1;
        self.forget_undurable();
        self.sent.clear();
    }

    // ---- what clients ask ----------------------------------------------------------------------

    /// A client sends an acquire.
    pub fn acquire_sent(&mut self, call: u64, asked: Acquiring) {
        let order = asked.repeats.and_then(|first| self.orders.get(&first).copied());
        let order = order.unwrap_or(call);
        self.orders.insert(call, order);
        self.calls_of_locks.insert(asked.lock_id, call);
        let until = (asked.wait_ms > 0).then(|| self.lease + asked.wait_ms);
        let sent = Sent {
            order,
            resources: asked.resources,
            is_any_of: asked.is_any_of,
            mode: asked.mode,
            depth: asked.depth,
            has_holds: asked.has_holds,
            until,
            overtaken_by: Vec::new(),
        };
        self.sent.insert(call, sent);
    }

    /// Somebody asks for the end of a lock, or for an earlier one.
    pub fn end_asked(&mut self, lock: LockId) {
        self.asked_to_end.insert(lock);
        self.promises.remove(&lock);
    }

    /// A holder asks for another TTL: its lock may end sooner from now on.
    pub fn renewal_asked(&mut self, call: u64, lock: LockId, ttl_ms: Option<u64>) {
        let Some(ttl_ms) = ttl_ms else { return };
        // Counted from the reading of a clock that shows whole milliseconds.
        let until = self.mono + Duration::from_millis(ttl_ms.saturating_sub(1));
        if let Some(promise) = self.promises.get_mut(&lock) {
            *promise = until.min(*promise);
        }
        self.shortened.entry(lock).or_default().push((call, until));
    }

    /// A client has gone, or its call is over without an answer.
    pub fn left(&mut self, call: u64) {
        self.sent.remove(&call);
    }
}
