//! The judge: the ten invariants, from what clients were told and from the durable log.
//!
//! What always holds: nothing that the engine believes is asked for, but for the reading of its
//! lease clock, which tells when (by the monotonic clock of the simulation) an event was decided.
//! An answer is compared with the log at the moment at which it is told.
//!
//! Deliberately absent: predictions of what a command should answer. The core's model has them.

mod events;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat;
use std::time::Duration;

use leasehold_core::ids::{Fence, LockId, Principal, Seq};
use leasehold_core::lock::{Lock, Mode};
use leasehold_core::target::Target;
use leasehold_core::time::LeaseTime;
use leasehold_journal::log::Stored;

use crate::client::request_id;
use crate::geometry::Claim;
use crate::trail::{How, Live, Trail};
pub use verdict::{Invariant, Limits, Verdict, Violation};
use verdict::{broken, index};

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

/// A write that was let through.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Its number at the upstream.
    pub write: u64,
    /// The call it is.
    pub call: u64,
    /// How often the journal had failed when it was sent.
    pub failures: u64,
    /// What it changes.
    pub targets: Vec<Target>,
    /// The locks whose tokens it presented.
    pub tokens: Vec<LockId>,
    /// The position of its `write_admitted`.
    pub admission: Option<Seq>,
    /// Whose it is.
    pub by: Principal,
}

/// A write that was let through and may still land.
#[derive(Clone, Debug)]
struct Underway {
    targets: Vec<Target>,
    tokens: Vec<LockId>,
    shares: bool,
}

/// The judge.
#[derive(Debug)]
pub struct Judge {
    /// The durable log.
    pub trail: Trail,
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
            self.judge_event(&event)?;
        }
        Ok(())
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
        self.sent.clear();
    }

    /// Everything that was decided is durable, and the server has had its turn: locks that are long
    /// over have to be over in the log.
    ///
    /// # Errors
    /// [`Invariant::NotLate`] or [`Invariant::Bounded`].
    pub fn at_rest(&self, waiting: &BTreeSet<u64>) -> Verdict {
        // While nothing becomes durable no end can show.
        let live = self.trail.live.iter().filter(|_| !self.is_harmed);
        for (id, live) in live {
            let due = live.deadline.max(self.stood_still_until);
            if due.0 + LATENESS < self.lease.0 {
                let what = format!("{id} was due at {} and lives on", live.deadline.0);
                return broken(Invariant::NotLate, what);
            }
        }
        self.judge_queues(waiting)
    }

    fn judge_queues(&self, waiting: &BTreeSet<u64>) -> Verdict {
        let waiting: Vec<&Sent> = waiting.iter().filter_map(|call| self.sent.get(call)).collect();
        if self.limits.max_waiters < waiting.len() {
            return broken(Invariant::Bounded, format!("{} waiters", waiting.len()));
        }
        let mut queues: BTreeMap<&str, usize> = BTreeMap::new();
        // One that waits for any of several keeps only one place once it has only writes before it.
        for sent in waiting.into_iter().filter(|sent| !sent.is_any_of) {
            for resource in &sent.resources {
                let queue = queues.entry(resource.as_str()).or_default();
                *queue += 1;
                if self.limits.max_queue < *queue {
                    return broken(Invariant::Bounded, format!("{queue} wait for {resource}"));
                }
            }
        }
        Ok(())
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

    // ---- what clients are told -----------------------------------------------------------------

    /// What is missing in the log although an answer rests on it.
    fn missing(&self, call: u64, failures_before: u64, what: String) -> Verdict {
        let which = if self.trail.requests.contains(&request_id(call)) {
            // The request has its event, and the event says something else.
            Invariant::TrailIsTruth
        } else if self.is_harmed || failures_before != self.failures {
            Invariant::FailStop
        } else {
            Invariant::DurableBeforeSaid
        };
        broken(which, format!("{what}, which is not in the log"))
    }

    /// A client is told of a grant: how long it has it.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn granted(&mut self, call: u64, failures: u64, lock: &Lock, remaining_ms: u64) -> Verdict {
        let grant = &lock.grant;
        if self.trail.grants.get(&grant.lock_id) != Some(&(grant.fence, grant.mode)) {
            return self.missing(call, failures, format!("{} was granted", grant.lock_id));
        }
        if let Some(other) = self.told_fences.insert(grant.fence, grant.lock_id)
            && other != grant.lock_id
        {
            let what = format!("fence {} is of {other} and {}", grant.fence, grant.lock_id);
            return broken(Invariant::FencesGrow, what);
        }
        if let Some(sent) = self.sent.remove(&call)
            && let Some((other, seq, _)) = sent.overtaken_by.first()
        {
            let what = format!(
                "call {call} was granted {} after {other} of a later call, at event {seq}",
                grant.lock_id
            );
            return broken(Invariant::FirstComeFirstServed, what);
        }
        self.promise(call, grant.lock_id, remaining_ms);
        Ok(())
    }

    fn promise(&mut self, call: u64, lock: LockId, remaining_ms: u64) {
        if self.asked_to_end.contains(&lock) || self.trail.ended.contains_key(&lock) {
            return;
        }
        let told = self.mono + Duration::from_millis(remaining_ms);
        // Its holder may have asked for less since.
        let later = self.shortened.get(&lock).into_iter().flatten();
        let later = later.filter(|(other, _)| call < *other).map(|(_, until)| *until);
        self.promises.insert(lock, later.fold(told, Duration::min));
    }

    /// A client is told that its wait is over, and what was in its way.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn refused_locked(
        &mut self,
        call: u64,
        failures: u64,
        lock: Option<&Lock>,
        waited_ms: u64,
    ) -> Verdict {
        let sent = self.sent.remove(&call);
        if let Some(lock) = lock
            && !self.trail.grants.contains_key(&lock.grant.lock_id)
        {
            return self.missing(call, failures, format!("call {call} met {}", lock.grant.lock_id));
        }
        let Some(sent) = sent else { return Ok(()) };
        let Some(until) = sent.until.filter(|_| waited_ms > 0) else { return Ok(()) };
        let overtaken = sent.overtaken_by.iter().find(|(.., lease)| *lease < until);
        if let Some((other, seq, _)) = overtaken {
            let what = format!("call {call} waited in vain while {other} was granted at {seq}");
            return broken(Invariant::FirstComeFirstServed, what);
        }
        Ok(())
    }

    /// A client is told of a renewal.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn renewed(&mut self, call: u64, failures: u64, lock: &Lock, remaining_ms: u64) -> Verdict {
        let id = lock.grant.lock_id;
        if !self.trail.renewed.contains(&(id, lock.deadline)) {
            return self.missing(
                call,
                failures,
                format!("{id} was renewed until {}", lock.deadline.0),
            );
        }
        self.promise(call, id, remaining_ms);
        Ok(())
    }

    /// A client is told that a lock has ended, by its own doing.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn ended(&mut self, call: u64, failures: u64, lock: LockId) -> Verdict {
        if self.trail.ended.contains_key(&lock) {
            return Ok(());
        }
        self.missing(call, failures, format!("{lock} has ended"))
    }

    /// A client is told that it has broken a lock, or will have.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn broke(&mut self, call: u64, failures: u64, lock: LockId) -> Verdict {
        if self.trail.broken.contains(&lock) {
            return Ok(());
        }
        self.missing(call, failures, format!("{lock} was broken"))
    }

    /// A holder is told that it has lost its lock. By its deadline it may not have.
    ///
    /// # Errors
    /// [`Invariant::NeverEarly`].
    pub fn lost(&mut self, lock: LockId) -> Verdict {
        let by_itself = !matches!(
            self.trail.ended.get(&lock),
            Some(How::Released | How::Broken | How::Transferred)
        );
        match self.promises.get(&lock) {
            Some(promise) if by_itself && self.mono < *promise => {
                let what =
                    format!("{lock} was promised until {promise:?} and is lost at {:?}", self.mono);
                broken(Invariant::NeverEarly, what)
            }
            _ => Ok(()),
        }
    }

    // ---- writes --------------------------------------------------------------------------------

    /// A write was let through.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn write_begun(&mut self, begun: Begun) -> Verdict {
        let Begun { write, call, failures, targets, mut tokens, admission, by } = begun;
        let is_own =
            |id: &LockId| self.trail.live.get(id).is_none_or(|live| live.grant.holder == by);
        tokens.retain(is_own);
        if let Some(seq) = admission
            && !self.trail.admitted.contains(&seq)
        {
            return self.missing(call, failures, format!("write {write} was admitted at {seq}"));
        }
        let is_live = |live: &Live| self.lease < live.deadline;
        // It was admitted a while ago: the lock that it had then may have ended since.
        let shares = tokens.iter().any(|token| self.trail.is_shared(*token));
        for (id, live) in &self.trail.live {
            let covers = targets.iter().any(|target| live.claim().stands_before(target));
            let has_token = tokens.contains(id) || (shares && live.grant.mode == Mode::Shared);
            if covers && is_live(live) && !has_token {
                let which = if self.asked_to_end.contains(id) {
                    // It was let through because the lock had ended, and that is not durable.
                    Invariant::DurableBeforeSaid
                } else {
                    Invariant::Exclusion
                };
                return broken(which, format!("write {write} was let through against {id}"));
            }
        }
        self.underway.insert(write, Underway { targets, tokens, shares });
        Ok(())
    }

    /// Nothing of a write can land any more.
    pub fn write_over(&mut self, write: u64) {
        self.underway.remove(&write);
    }

    // ---- the table -----------------------------------------------------------------------------

    /// Compares the live locks that a client was shown with the log.
    ///
    /// # Errors
    /// [`Invariant::TrailIsTruth`] or [`Invariant::FailStop`].
    pub fn listed(&self, locks: &[Lock]) -> Verdict {
        // Where the disk has failed, what is shown was acknowledged and never came to be.
        let which = if self.is_harmed { Invariant::FailStop } else { Invariant::TrailIsTruth };
        let shown: BTreeMap<LockId, &Lock> =
            locks.iter().map(|lock| (lock.grant.lock_id, lock)).collect();
        let live = self.trail.live.iter().filter(|(_, live)| self.lease < live.deadline);
        let live: BTreeMap<LockId, &Live> = live.map(|(id, live)| (*id, live)).collect();
        if let Some(id) = shown.keys().find(|id| !live.contains_key(id)) {
            return broken(which, format!("{id} is shown, but not in the log"));
        }
        for (id, live) in live {
            let Some(shown) = shown.get(&id) else {
                let what = format!("{id} lives in the log, but is not shown");
                return broken(which, what);
            };
            let same = shown.deadline == live.deadline
                && shown.grant == live.grant
                && shown.renewals == live.renewals;
            if !same {
                let what = format!(
                    "{id} is shown until {}, and ends in the log at {}",
                    shown.deadline.0, live.deadline.0
                );
                return broken(which, what);
            }
        }
        Ok(())
    }
}
