//! Acquiring: fail fast, wait, or take the place that only writes under way still hold.

use std::sync::Arc;

use crate::command::{Acquire, MIN_TTL_MS, Want};
use crate::event::EventBody;
use crate::ids::{LockId, WaiterId};
use crate::lock::Grant;
use crate::obstacles::{Place, Reach};
use crate::queue::alternatives;
use crate::refusal::{AcquireRefusal, TokenIs};
use crate::resource::Resource;
use crate::sabotage::{self, Mistake};
use crate::table::{DueBelow, Granted, LockTable};
use crate::time::Now;

/// What came of an acquire.
#[derive(Clone, Debug)]
pub enum Acquired {
    /// It was granted.
    Granted(Granted),
    /// It was parked; what comes of it is among [`LockTable::take_wakes`], maybe at once.
    Parked(WaiterId),
}

/// The resources of a set, as they are granted: duplicates and members below another folded, the
/// first asked for first. With depth 0 nothing is below another.
#[must_use]
pub fn fold_set(resources: &[Resource], depth: crate::lock::Depth) -> Arc<[Resource]> {
    let mut kept: Vec<Resource> = Vec::with_capacity(resources.len());
    for (at, resource) in resources.iter().enumerate() {
        let covered = resources.iter().enumerate().any(|(other_at, other)| {
            (other == resource && other_at < at)
                || (depth == crate::lock::Depth::Infinity
                    && other != resource
                    && other.covers(resource))
        });
        if !covered {
            kept.push(resource.clone());
        }
    }
    kept.into()
}

impl LockTable {
    /// `POST {resource}/lock`.
    ///
    /// # Errors
    /// The refusal; nothing has changed.
    pub fn acquire(&mut self, command: Acquire, now: Now) -> Result<Acquired, AcquireRefusal> {
        // The key first: a retry gets its lock also where the rules have changed meanwhile.
        let mut comes_back = None;
        if let Some(answer) = self.by_key(&command, &mut comes_back, now)? {
            return Ok(Acquired::Granted(answer));
        }
        let max = command.limits.max_ttl_ms;
        if command.ttl_ms.is_some_and(|ttl| !(MIN_TTL_MS..=max).contains(&ttl)) {
            return Err(AcquireRefusal::TtlOutOfRange { max_ttl_ms: max });
        }
        let holds = self.holds(&command, now)?;
        let resources = command.want.resources().clone();
        // A live lock refuses it whatever else is due.
        let below = match command.depth {
            crate::lock::Depth::Infinity => DueBelow::UntilLive(command.mode),
            crate::lock::Depth::Zero => DueBelow::None,
        };
        self.expire_due(resources.iter().map(|each| (each, below)), now);
        let places = self.places(resources.iter());
        self.refuse_frozen(&command.want, &places, now)?;
        self.room_for(&command)?;

        let reach =
            Reach { mode: command.mode, depth: command.depth, ticket: comes_back, holds: &holds };
        let may_wait = command.wait_ms > 0;
        let mut free = None;
        for members in alternatives(&command.want) {
            let own = members.iter().map(|&at| &places[at]);
            if self.first_obstacle(own.clone(), reach, now).is_none() {
                if !self.has_pins(own, command.mode, command.depth, may_wait, now) {
                    free = Some(members);
                    break;
                }
                // Only writes are in the way: it is parked and has its place at once, unless
                // another alternative is quite free.
                free.get_or_insert(members);
            }
        }
        match free {
            Some(members)
                if !self.has_pins(
                    members.iter().map(|&at| &places[at]),
                    command.mode,
                    command.depth,
                    may_wait,
                    now,
                ) =>
            {
                let granted = members.iter().map(|&at| resources[at].clone()).collect::<Vec<_>>();
                if let Some(waiter) = comes_back {
                    self.forget_away(waiter);
                }
                Ok(Acquired::Granted(self.grant(&command, granted.into(), 0, now)))
            }
            None if command.wait_ms == 0 => {
                let mut found = self.in_the_way(&command.caller, places.iter(), reach, now);
                found.presented = holds.iter().map(|&id| TokenIs::LiveElsewhere(id)).collect();
                Err(AcquireRefusal::Locked(Box::new(found)))
            }
            _ => self.enqueue(command, comes_back, holds, &places, now),
        }
    }

    fn enqueue(
        &mut self,
        command: Acquire,
        comes_back: Option<WaiterId>,
        holds: Vec<LockId>,
        places: &[Place],
        now: Now,
    ) -> Result<Acquired, AcquireRefusal> {
        // Who comes back has been counted all the time.
        if comes_back.is_none() {
            self.room_in_queue(&command, places)?;
        }
        let waiter = match comes_back {
            Some(waiter) => {
                self.forget_away(waiter);
                waiter
            }
            None => WaiterId(self.fresh_id()),
        };
        // Nobody is behind one who has just come and holds nothing.
        let may_close_circle = !holds.is_empty() || comes_back.is_some();
        self.park(waiter, command, holds, now);
        if may_close_circle
            && self.parked.contains_key(&waiter)
            && let Some(circle) = self.circle(waiter, now)
        {
            self.unpark(waiter, now);
            return Err(AcquireRefusal::Deadlock { circle });
        }
        Ok(Acquired::Parked(waiter))
    }

    fn room_in_queue(&self, command: &Acquire, places: &[Place]) -> Result<(), AcquireRefusal> {
        if self.limits.max_waiters <= self.parked.len() + self.away.len() {
            let limit = u64::try_from(self.limits.max_waiters).unwrap_or(u64::MAX);
            return Err(AcquireRefusal::TooManyWaiters { limit, of_principal: false });
        }
        if let Some(limit) = self.limits.max_waiters_per_principal {
            let waiting = self.waiters_of.get(&command.caller.principal).copied().unwrap_or(0);
            if limit <= waiting {
                return Err(AcquireRefusal::TooManyWaiters { limit, of_principal: true });
            }
        }
        for (place, resource) in places.iter().zip(command.want.resources().iter()) {
            let here = place.path.last().filter(|_| place.exact);
            let parked = here.map_or(0, |&node| self.state.tree.parked(node).len());
            let away = self.away_at.get(resource).copied().unwrap_or(0);
            if command.limits.max_queue <= parked + away {
                return Err(AcquireRefusal::QueueFull { resource: resource.clone() });
            }
        }
        Ok(())
    }

    /// What an earlier request with the same key got.
    fn by_key(
        &mut self,
        command: &Acquire,
        comes_back: &mut Option<WaiterId>,
        now: Now,
    ) -> Result<Option<Granted>, AcquireRefusal> {
        let Some(idempotency) = &command.idempotency else { return Ok(None) };
        let key = (command.caller.principal.clone(), idempotency.key.clone());
        if let Some(&waiter) = self.parked_keys.get(&key) {
            if let Some(parked) = self.parked.get(&waiter) {
                let same = parked.command.idempotency.as_ref() == Some(idempotency);
                return Err(if same {
                    AcquireRefusal::KeyInProgress
                } else {
                    AcquireRefusal::KeyReused
                });
            }
            // Refusals are not remembered: another request may have the key, but not the place.
            let keeps_place = self
                .away
                .get(&waiter)
                .is_some_and(|away| now.lease < away.until && away.digest == idempotency.digest);
            if keeps_place {
                *comes_back = Some(waiter);
            } else {
                self.forget_away(waiter);
            }
            return Ok(None);
        }
        let Some(&lock_id) = self.state.keys.get(&key) else { return Ok(None) };
        if let Some(idx) = self.state.idx(lock_id) {
            let lock = self.state.slot(idx);
            let same = lock.idempotency().is_some_and(|each| each == idempotency);
            if !same {
                return Err(AcquireRefusal::KeyReused);
            }
            if lock.is_live(now.lease) {
                let lock = Box::new(lock.lock());
                if let Some(at) = self.uncollected.remove(&lock_id) {
                    self.uncollected_timers.remove(&(at, lock_id));
                }
                return Ok(Some(Granted { lock, replayed: true }));
            }
            self.expire(idx, now);
        }
        let Some(ended) = self.state.ended(lock_id) else { return Ok(None) };
        if now.lease.since(ended.lease) > crate::state::KEY_KEPT_MS {
            return Ok(None);
        }
        if ended.idempotency.as_ref().is_some_and(|each| **each == *idempotency) {
            Err(AcquireRefusal::Gone(Box::new(ended.clone())))
        } else {
            Err(AcquireRefusal::KeyReused)
        }
    }

    /// The locks that the caller named as held.
    fn holds(&mut self, command: &Acquire, now: Now) -> Result<Vec<LockId>, AcquireRefusal> {
        let mut holds = Vec::with_capacity(command.holds.len());
        for &token in &command.holds {
            match self.judge(&command.caller, token, now) {
                Ok(idx) => holds.push(self.state.slot(idx).lock_id),
                Err(what) => return Err(AcquireRefusal::Token(Box::new(what))),
            }
        }
        holds.sort_unstable();
        holds.dedup();
        Ok(holds)
    }

    pub(crate) fn refuse_frozen(
        &self,
        want: &Want,
        places: &[Place],
        now: Now,
    ) -> Result<(), AcquireRefusal> {
        let frozen = |place: &Place| {
            place
                .path
                .iter()
                .filter_map(|&node| self.state.tree.freeze(node))
                .find(|freeze| now.wall < freeze.until)
                .cloned()
        };
        let refusal = match want {
            Want::All(_) => places.iter().find_map(frozen),
            // One that is not frozen is enough.
            Want::AnyOf(_) if places.iter().all(|place| frozen(place).is_some()) => {
                places.iter().find_map(frozen)
            }
            Want::AnyOf(_) => None,
        };
        refusal.map_or(Ok(()), |freeze| Err(AcquireRefusal::Frozen(Box::new(freeze))))
    }

    /// Whether one more lock of this holder fits.
    pub(crate) fn room_for(&self, command: &Acquire) -> Result<(), AcquireRefusal> {
        if sabotage::is(Mistake::IgnoreLimits) {
            return Ok(());
        }
        if self.limits.max_locks <= self.state.locks.len() {
            let limit = u64::try_from(self.limits.max_locks).unwrap_or(u64::MAX);
            return Err(AcquireRefusal::TooManyLocks { limit, of_holder: false });
        }
        let (rule, server) =
            (command.limits.max_locks_per_holder, self.limits.max_locks_per_holder);
        if let Some(limit) = rule.into_iter().chain(server).min() {
            let held = self.state.per_holder.get(&command.caller.principal).copied().unwrap_or(0);
            if limit <= held {
                return Err(AcquireRefusal::TooManyLocks { limit, of_holder: true });
            }
        }
        Ok(())
    }

    /// Grants: nothing is in the way.
    pub(crate) fn grant(
        &mut self,
        command: &Acquire,
        resources: Arc<[Resource]>,
        waited_ms: u64,
        now: Now,
    ) -> Granted {
        let limits = &command.limits;
        let predecessor_unknown = self.is_unknown_to(&resources, command.mode, command.depth, now);
        let ttl_ms = command.ttl_ms.unwrap_or(limits.default_ttl_ms);
        let max_deadline = limits.max_hold_ms.map(|hold| now.lease + hold);
        let asked = now.lease + ttl_ms;
        let grant = Grant {
            lock_id: command.lock_id,
            fence: self.next_fence(),
            resources,
            dialect: command.origin.dialect,
            mode: command.mode,
            depth: command.depth,
            holder: command.caller.principal.clone(),
            reason: command.reason.clone(),
            metadata: command.metadata.clone(),
            handle: command.handle.clone(),
            ttl_ms,
            deadline: max_deadline.map_or(asked, |max| asked.min(max)),
            granted: now.lease,
            acquired_at: now.wall,
            max_deadline,
            max_ttl_ms: limits.max_ttl_ms,
            waited_ms,
            idempotency: command.idempotency.clone().map(Box::new),
            predecessor_unknown,
        };
        let lock_id = grant.lock_id;
        self.emit(EventBody::Acquired(Box::new(grant.clone())), command.origin.clone(), now);
        let lock = match self.state.idx(lock_id) {
            Some(idx) => self.state.slot(idx).lock(),
            None => crate::lock::Lock::new(grant),
        };
        Granted { lock: Box::new(lock), replayed: false }
    }
}
