//! The lock table: commands in, outcomes and events out.
//!
//! `now`, ids and limits arrive as arguments, so folding the same events rebuilds the same
//! [`State`]; restart, failover and the simulator rely on that. Beside the state the table keeps
//! what no event tells: acquires that wait, and writes that are on their way.
//!
//! Invariants:
//! - no two live locks conflict;
//! - no lock is granted that conflicts with a write on its way;
//! - each grant's fence is greater than every fence before it;
//! - among waiters that overlap, the earlier is served first.
//!
//! [`LockTable::assert_invariants`] asserts what can be seen of them at one moment, the model
//! tests the rest.
//!
//! Deliberately absent: HTTP, clocks, async, randomness. A face translates; it never decides.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::command::{Address, Presented};
use crate::event::{Event, EventBody, Origin};
use crate::ids::{Fence, LockId, PinId, Principal, Seq, WaiterId};
use crate::lock::{Depth, Lock, Mode};
use crate::obstacles::Place;
use crate::queue::{Blocker, Parked};
use crate::refusal::{AcquireRefusal, HolderRefusal, TokenIs};
use crate::resource::Resource;
use crate::sabotage::{self, Mistake};
use crate::slot::Timer;
use crate::state::State;
use crate::time::{LeaseTime, Now};
use crate::tree::{LockIdx, NodeId};
use crate::writes::Pin;

/// Limits of the whole table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TableLimits {
    /// The most live locks.
    pub max_locks: usize,
    /// The most parked acquires.
    pub max_waiters: usize,
    /// The most live locks of one holder, wherever they are; none: no limit.
    pub max_locks_per_holder: Option<u64>,
    /// The most parked acquires of one principal; none: no limit.
    pub max_waiters_per_principal: Option<u64>,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self {
            max_locks: 10_000_000,
            max_waiters: 100_000,
            max_locks_per_holder: None,
            max_waiters_per_principal: None,
        }
    }
}

/// A lock that was granted, or shown again to a retry.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The lock as it is now.
    pub lock: Box<Lock>,
    /// Whether an earlier request with the same key got it.
    pub replayed: bool,
}

/// What came of a parked command.
#[derive(Clone, Debug)]
pub enum Woken {
    /// An acquire was granted.
    Granted(Granted),
    /// An acquire was refused: its wait is over.
    Refused(Box<AcquireRefusal>),
    /// A transfer was carried out.
    Transferred(Granted),
    /// A transfer was refused.
    NotTransferred(Box<HolderRefusal>),
    /// The writes that a freeze waited for have ended, or its wait is over.
    Frozen {
        /// How many writes are still on their way.
        writes_in_flight: usize,
    },
}

/// The lock table. See the module.
pub struct LockTable {
    pub(crate) state: State,
    pub(crate) limits: TableLimits,
    pub(crate) events: Vec<Event>,
    pub(crate) wakes: Vec<(WaiterId, Woken)>,
    pub(crate) pins: HashMap<PinId, Pin, foldhash::quality::FixedState>,
    pub(crate) next_id: u64,
    pub(crate) parked: BTreeMap<WaiterId, Parked>,
    pub(crate) watchers: HashMap<Blocker, Vec<WaiterId>, foldhash::quality::FixedState>,
    pub(crate) held_by_parked: HashMap<LockId, Vec<WaiterId>, foldhash::quality::FixedState>,
    pub(crate) parked_keys: HashMap<(Principal, Arc<str>), WaiterId, foldhash::quality::FixedState>,
    pub(crate) parked_timers: BTreeSet<(LeaseTime, WaiterId)>,
    pub(crate) drains: BTreeMap<WaiterId, crate::drain::Drain>,
    pub(crate) uncollected: BTreeMap<LockId, LeaseTime>,
    pub(crate) uncollected_timers: BTreeSet<(LeaseTime, LockId)>,
    pub(crate) away: BTreeMap<WaiterId, crate::queue::Away>,
    /// How many that are away have a place in the queue of each resource.
    pub(crate) away_at: HashMap<Resource, usize, foldhash::quality::FixedState>,
    /// How many acquires each principal has parked or away.
    pub(crate) waiters_of: HashMap<Principal, u64, foldhash::quality::FixedState>,
    pub(crate) to_wake: VecDeque<Blocker>,
    pub(crate) waking: bool,
    /// How many parked acquires are claimed.
    pub(crate) claimed: usize,
    pub(crate) unknown: crate::unknown::Unknown,
}

impl LockTable {
    /// A table over `state`, with nothing parked and no write under way.
    #[must_use]
    pub fn new(mut state: State, limits: TableLimits, seed: u64) -> Self {
        if sabotage::is(Mistake::ReuseFence) {
            state.fence = state.by_fence.keys().last().copied().unwrap_or_default();
        }
        let hasher = foldhash::quality::FixedState::with_seed(seed);
        Self {
            state,
            limits,
            events: Vec::new(),
            wakes: Vec::new(),
            pins: HashMap::with_hasher(hasher.clone()),
            next_id: 1,
            parked: BTreeMap::new(),
            watchers: HashMap::with_hasher(hasher.clone()),
            held_by_parked: HashMap::with_hasher(hasher.clone()),
            parked_keys: HashMap::with_hasher(hasher.clone()),
            parked_timers: BTreeSet::new(),
            drains: BTreeMap::new(),
            uncollected: BTreeMap::new(),
            uncollected_timers: BTreeSet::new(),
            away: BTreeMap::new(),
            away_at: HashMap::with_hasher(hasher.clone()),
            waiters_of: HashMap::with_hasher(hasher),
            to_wake: VecDeque::new(),
            waking: false,
            claimed: 0,
            unknown: crate::unknown::Unknown::default(),
        }
    }

    /// The fold of the log.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The limits of the whole table.
    pub fn set_limits(&mut self, limits: TableLimits) {
        self.limits = limits;
    }

    /// Takes the events that have come since the last call, in order. They are folded in already;
    /// nothing that rests on them may be told before they are durable.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Whether there are events to take.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Takes what has come of parked commands since the last call, in order.
    pub fn take_wakes(&mut self) -> Vec<(WaiterId, Woken)> {
        std::mem::take(&mut self.wakes)
    }

    /// Everything up to `durable` is on disk.
    pub fn settled(&mut self, durable: Seq) {
        self.state.tree.settled(durable);
        self.unknown.settled(durable);
    }

    /// How many acquires are parked.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.parked.len()
    }

    /// The parked acquires, in the order of their places.
    pub fn parked(&self) -> impl Iterator<Item = &crate::command::Acquire> {
        self.parked.values().map(|parked| &parked.command)
    }

    /// How many writes are on their way.
    #[must_use]
    pub fn writes_in_flight(&self) -> usize {
        self.pins.len() - usize::from(self.unknown.recovery_pin().is_some())
    }

    /// Whether writes may still land: those on their way, and those of a process before this one.
    #[must_use]
    pub fn may_see_writes(&self) -> bool {
        !self.pins.is_empty()
    }

    /// How many locks live, those that are due and not yet ended included.
    #[must_use]
    pub fn live(&self) -> usize {
        self.state.locks.len()
    }

    /// Records something that has no effect on locks: the engine's own events.
    pub fn record(&mut self, body: EventBody, origin: Origin, now: Now) -> Seq {
        self.emit(body, origin, now)
    }

    pub(crate) fn emit(&mut self, body: EventBody, origin: Origin, now: Now) -> Seq {
        let seq = self.state.seq.next();
        let event = Event { seq, at: now.wall, lease: now.lease, origin, body };
        self.state.apply(&event);
        self.events.push(event);
        seq
    }

    pub(crate) fn fresh_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    pub(crate) fn next_fence(&self) -> Fence {
        Fence(self.state.fence.0 + 1)
    }

    // ---- time --------------------------------------------------------------------------------

    /// When [`LockTable::tick`] has something to do next, by the lease clock.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LeaseTime> {
        [
            self.state.timers.first().map(|timer| timer.at()),
            self.parked_timers.first().map(|&(at, _)| at),
            self.uncollected_timers.first().map(|&(at, _)| at),
            self.unknown.recovery_ends(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When the next freeze ends, by the wall clock.
    #[must_use]
    pub fn next_thaw(&self) -> Option<crate::time::WallTime> {
        self.state.thaw.first().map(|&(at, _)| at)
    }

    /// Ends what is due at `now`: at most `budget` things. Whether more is due.
    ///
    /// A lock counts as ended from its deadline on, ticked or not; this writes it down.
    pub fn tick(&mut self, now: Now, budget: usize) -> bool {
        self.end_recovery(now);
        let mut left = budget;
        let due = now.lease + u64::from(sabotage::is(Mistake::ExpireEarly));
        while let Some(&timer) = self.state.timers.first() {
            if due < timer.at() {
                break;
            }
            if left == 0 {
                return true;
            }
            left -= 1;
            self.expire_or_rearm(timer.lock, due, now);
        }
        while let Some(&(at, waiter)) = self.parked_timers.first() {
            if now.lease < at {
                break;
            }
            if left == 0 {
                return true;
            }
            left -= 1;
            self.parked_timers.remove(&(at, waiter));
            self.time_up(waiter, now);
        }
        while let Some(&(at, lock_id)) = self.uncollected_timers.first() {
            if now.lease < at {
                break;
            }
            if left == 0 {
                return true;
            }
            left -= 1;
            self.uncollected_timers.remove(&(at, lock_id));
            self.uncollected.remove(&lock_id);
            self.release_undelivered(lock_id, now);
        }
        while let Some((until, resource)) = self.state.thaw.first().cloned() {
            if now.wall < until {
                break;
            }
            if left == 0 {
                return true;
            }
            left -= 1;
            self.emit(
                EventBody::Unfrozen { resource: resource.clone(), passed: true },
                Origin::default(),
                now,
            );
            self.wake(Blocker::Freeze(resource), now);
        }
        false
    }

    fn expire_or_rearm(&mut self, idx: LockIdx, due: LeaseTime, now: Now) {
        let slot = &mut self.state.locks[idx];
        if slot.is_live(due) {
            // It was renewed since the timer was set.
            self.state.timers.remove(&Timer::new(slot.timer, idx));
            slot.timer = slot.deadline;
            self.state.timers.insert(Timer::new(slot.timer, idx));
        } else {
            self.expire(idx, now);
        }
    }

    /// Ends a lock whose deadline has passed.
    pub(crate) fn expire(&mut self, idx: LockIdx, now: Now) {
        let lock = self.state.slot(idx);
        let subject = lock.subject();
        let body = match lock.breaking() {
            Some(breaking) => EventBody::Broken {
                lock: subject,
                by: breaking.by.clone(),
                reason: breaking.reason.clone(),
            },
            None => EventBody::Expired { lock: subject, deadline: lock.deadline },
        };
        self.end_lock(idx, body, Origin::default(), now);
    }

    /// Ends a lock by this event and serves whoever waited for it.
    pub(crate) fn end_lock(&mut self, idx: LockIdx, body: EventBody, origin: Origin, now: Now) {
        let lock_id = self.state.slot(idx).lock_id;
        self.emit(body, origin, now);
        if let Some(at) = self.uncollected.remove(&lock_id) {
            self.uncollected_timers.remove(&(at, lock_id));
        }
        self.wake(Blocker::Lock(lock_id), now);
    }

    /// A grant could not be delivered: it is released at once, or, if it has an idempotency key,
    /// in 10 s unless its client comes back for it.
    pub fn undelivered(&mut self, lock_id: LockId, now: Now) {
        let Some(idx) = self.state.idx(lock_id) else { return };
        if self.state.slot(idx).used {
            return;
        }
        if self.state.slot(idx).idempotency().is_some() {
            let at = now.lease + UNCOLLECTED_MS;
            if let Some(before) = self.uncollected.insert(lock_id, at) {
                self.uncollected_timers.remove(&(before, lock_id));
            }
            self.uncollected_timers.insert((at, lock_id));
        } else {
            self.release_undelivered(lock_id, now);
        }
    }

    /// Whether the lock that this key got waits for a retry, because its answer was lost.
    #[must_use]
    pub fn waits_for_retry(&self, principal: &Principal, key: &str) -> bool {
        // Nearly always nothing waits.
        !self.uncollected.is_empty()
            && self
                .state
                .got_by(principal, key)
                .is_some_and(|id| self.uncollected.contains_key(&id))
    }

    fn release_undelivered(&mut self, lock_id: LockId, now: Now) {
        let Some(idx) = self.state.idx(lock_id) else { return };
        let lock = self.state.slot(idx);
        if !lock.is_live(now.lease) {
            self.expire(idx, now);
            return;
        }
        if lock.used {
            return;
        }
        let body = EventBody::Released { lock: lock.subject(), undelivered: true };
        self.end_lock(idx, body, Origin::default(), now);
    }

    // ---- conflicts ---------------------------------------------------------------------------

    /// Ends every due lock that could stand in the way of something at these: there, above, and as
    /// far below as is said.
    pub(crate) fn expire_due<'r>(
        &mut self,
        wanted: impl Iterator<Item = (&'r Resource, DueBelow)>,
        now: Now,
    ) {
        // The timers know whether anything is due at all; nearly always nothing is.
        if self.state.timers.first().is_none_or(|timer| now.lease < timer.at()) {
            return;
        }
        for (resource, below) in wanted {
            // Ending a lock may make and remove nodes: each place is looked for after the one before.
            let place = self.place(resource);
            self.expire_due_at(&place, below, now);
        }
    }

    fn expire_due_at(&mut self, place: &Place, below: DueBelow, now: Now) {
        let mut due = Vec::new();
        for &node in &place.path {
            due.extend(self.due_locks(node, now));
        }
        let until_live = match below {
            DueBelow::None => None,
            DueBelow::UntilLive(mode) => Some((mode, false)),
            DueBelow::All => Some((Mode::Exclusive, true)),
        };
        if let Some((mode, all)) = until_live
            && place.exact
            && let Some(&node) = place.path.last()
        {
            self.visit_locks_below(node, mode, &mut |table, idx| {
                let lock = &table.state.slot(idx);
                let is_live = lock.is_live(now.lease);
                if !is_live {
                    due.push(idx);
                }
                all || !is_live || (mode == Mode::Shared && lock.mode == Mode::Shared)
            });
        }
        due.sort_unstable();
        due.dedup();
        let ids: Vec<LockId> = due.iter().map(|&idx| self.state.slot(idx).lock_id).collect();
        for id in ids {
            // Ending one may grant another in the same place of the slab.
            if let Some(idx) = self.state.idx(id) {
                self.expire(idx, now);
            }
        }
    }

    fn due_locks(&self, node: NodeId, now: Now) -> impl Iterator<Item = LockIdx> + '_ {
        self.state
            .tree
            .locks(node)
            .iter()
            .map(|at| at.lock)
            .filter(move |&idx| !self.state.slot(idx).is_live(now.lease))
    }

    /// Calls `visit` for each lock strictly below `node` that may conflict with a request of this
    /// mode, until it says stop.
    pub(crate) fn visit_locks_below(
        &self,
        node: NodeId,
        mode: Mode,
        visit: &mut impl FnMut(&Self, LockIdx) -> bool,
    ) -> bool {
        let below = self.state.tree.below(node);
        if below.exclusive == 0 && (mode == Mode::Shared || below.shared == 0) {
            return true;
        }
        for child in self.state.tree.children(node) {
            for at in self.state.tree.locks(child) {
                if !visit(self, at.lock) {
                    return false;
                }
            }
            if !self.visit_locks_below(child, mode, visit) {
                return false;
            }
        }
        true
    }

    // ---- tokens ------------------------------------------------------------------------------

    /// Whether `lock` is the caller's, as far as the principal tells.
    pub(crate) fn is_holder(caller: &crate::caller::Caller, holder: &Principal) -> bool {
        caller.anonymous || caller.principal == *holder
    }

    /// What a token is for this caller: live (and which lock), or why not.
    pub(crate) fn judge(
        &mut self,
        caller: &crate::caller::Caller,
        token: Presented,
        now: Now,
    ) -> Result<LockIdx, TokenIs> {
        let Presented::Token { lock_id, fence } = token else { return Err(TokenIs::Unknown) };
        if let Some(idx) = self.state.idx(lock_id) {
            let lock = self.state.slot(idx);
            if lock.fence != fence {
                return Err(TokenIs::Unknown);
            }
            if !Self::is_holder(caller, &lock.holder) {
                return Err(TokenIs::NotYours);
            }
            if lock.is_live(now.lease) {
                return Ok(idx);
            }
            self.expire(idx, now);
        }
        match self.state.ended(lock_id) {
            Some(ended) if ended.fence != fence => Err(TokenIs::Unknown),
            Some(ended) if !Self::is_holder(caller, &ended.holder) => Err(TokenIs::NotYours),
            Some(ended) => Err(TokenIs::Ended(lock_id, Some(Box::new(ended.clone())))),
            // Its seal is right, so it was issued here; how it ended is no longer kept in memory.
            None => Err(TokenIs::Ended(lock_id, None)),
        }
    }

    /// The live lock that a holder's command is about.
    pub(crate) fn addressed(
        &mut self,
        caller: &crate::caller::Caller,
        address: &Address,
        tokens: &[Presented],
        now: Now,
    ) -> Result<LockIdx, HolderRefusal> {
        let fits = |lock_id: LockId, resources: &[Resource]| match address {
            Address::Resource(resource) => resources.contains(resource),
            Address::Id(id) => *id == lock_id,
        };
        let mut refusal = None;
        for &token in tokens {
            let this = match self.judge(caller, token, now) {
                Ok(idx) => {
                    let lock = self.state.slot(idx);
                    if fits(lock.lock_id, lock.resources()) {
                        return Ok(idx);
                    }
                    HolderRefusal::InvalidToken
                }
                Err(TokenIs::Ended(lock_id, Some(ended))) if fits(lock_id, &ended.resources) => {
                    HolderRefusal::Gone(lock_id, Some(ended))
                }
                // For which resources it was issued is in the trail, if anywhere.
                Err(TokenIs::Ended(lock_id, None)) => HolderRefusal::Gone(lock_id, None),
                Err(TokenIs::NotYours) => HolderRefusal::NotTheHolder,
                Err(_) => HolderRefusal::InvalidToken,
            };
            // Of several that do not fit, one that has ended says most.
            if refusal.is_none() || matches!(this, HolderRefusal::Gone(..)) {
                refusal = Some(this);
            }
        }
        Err(refusal.unwrap_or(HolderRefusal::InvalidToken))
    }

    // ---- invariants --------------------------------------------------------------------------

    /// Checks every invariant by looking at everything; for tests.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn assert_invariants(&self, now: Now) {
        self.state.tree.assert_consistent();
        let live: Vec<Lock> =
            self.state.live_locks().filter(|lock| lock.is_live(now.lease)).collect();
        for (at, a) in live.iter().enumerate() {
            for b in &live[at + 1..] {
                assert!(
                    !locks_conflict(a, b),
                    "exclusion: {} and {} conflict",
                    a.grant.lock_id,
                    b.grant.lock_id
                );
            }
        }
        self.state.assert_consistent();
        for (id, pin) in &self.pins {
            for waiter in &pin.awaited_by {
                assert!(self.awaits(*waiter, *id), "{id:?} would tell {waiter:?}, who left");
            }
        }
        for (waiter, away) in &self.away {
            assert!(self.parked_timers.contains(&(away.until, *waiter)), "{waiter:?} stays away");
        }
        assert_eq!(
            self.parked_timers.len(),
            self.parked.len() + self.drains.len() + self.away.len(),
            "a timer for each that is parked, drains or is away"
        );
        self.assert_queue(now);
    }
}

/// Which due locks below a place are ended before something is decided there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DueBelow {
    /// None.
    None,
    /// Those that come before a live lock that a request of this mode conflicts with.
    UntilLive(Mode),
    /// All.
    All,
}

/// How long a grant that could not be delivered waits for its client's retry: 10 s.
pub const UNCOLLECTED_MS: u64 = 10_000;

/// Whether two requests conflict: they meet, and are not both shared.
#[must_use]
pub fn requests_conflict(a: (&Resource, Mode, Depth), b: (&Resource, Mode, Depth)) -> bool {
    if a.1 == Mode::Shared && b.1 == Mode::Shared {
        return false;
    }
    let reaches = |from: (&Resource, Mode, Depth), to| match from.2 {
        Depth::Infinity => from.0.covers(to),
        Depth::Zero => from.0 == to,
    };
    reaches(a, b.0) || reaches(b, a.0)
}

fn locks_conflict(a: &Lock, b: &Lock) -> bool {
    a.grant.resources.iter().any(|x| {
        b.grant.resources.iter().any(|y| {
            requests_conflict((x, a.grant.mode, a.grant.depth), (y, b.grant.mode, b.grant.depth))
        })
    })
}
