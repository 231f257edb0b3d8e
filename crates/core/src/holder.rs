//! What holders do with their locks, and what others may do to them: renew, release, transfer,
//! ask for, break.

use std::sync::Arc;

use crate::command::{Address, BreakLock, MIN_TTL_MS, Release, Renew, Request, Transfer};
use crate::drain::{Drain, Drained};
use crate::event::EventBody;
use crate::ids::{LockId, Principal, WaiterId};
use crate::lock::{Break, Ending, Grant, Lock};
use crate::obstacles::Obstacle;
use crate::queue::Blocker;
use crate::refusal::{BreakRefusal, HolderRefusal, Waiting};
use crate::resource::Resource;
use crate::table::{DueBelow, Granted, LockTable};
use crate::time::{LeaseTime, Now};
use crate::tree::LockIdx;

/// What came of a transfer.
#[derive(Clone, Debug)]
pub enum Transferring {
    /// It was carried out.
    Done(Granted),
    /// It waits for the holder's writes under way; what comes of it is among
    /// [`LockTable::take_wakes`].
    Parked(WaiterId),
}

/// What came of a break.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The lock as it was.
    pub lock: Box<Lock>,
    /// When it ends, by the lease clock.
    pub ends_at: LeaseTime,
}

/// What a break would end.
#[derive(Clone, Debug)]
pub struct BreakPreview {
    /// The lock.
    pub lock: Box<Lock>,
    /// How many writes under it are on their way.
    pub writes_in_flight: usize,
    /// Who waits for it, in order; the first is next.
    pub queue: Vec<Waiting>,
}

impl LockTable {
    /// `PATCH {resource}/lock`: the lock as it is then.
    ///
    /// # Errors
    /// The refusal; nothing has changed.
    pub fn renew(&mut self, command: &Renew, now: Now) -> Result<Box<Lock>, HolderRefusal> {
        let idx = self.addressed(&command.caller, &command.address, &command.tokens, now)?;
        let lock = self.state.slot(idx);
        if lock.breaking().is_some() {
            return Err(HolderRefusal::Closing(Box::new(lock.lock())));
        }
        let max_ttl_ms = lock.max_ttl_ms;
        let ttl_ms = match command.ttl_ms {
            Some(ttl) if !(MIN_TTL_MS..=max_ttl_ms).contains(&ttl) => {
                return Err(HolderRefusal::TtlOutOfRange { max_ttl_ms });
            }
            Some(ttl) => ttl,
            None => lock.ttl_ms,
        };
        let mut deadline = now.lease + ttl_ms;
        if command.ttl_ms.is_none() {
            deadline = deadline.max(lock.deadline);
        }
        if let Some(max) = lock.max_deadline()
            && max < deadline
        {
            if lock.deadline == max {
                let max_hold_ms = max.since(lock.granted);
                return Err(HolderRefusal::MaxHoldReached { max_hold_ms });
            }
            deadline = max;
        }
        let body = EventBody::Renewed { lock: lock.subject(), ttl_ms, deadline };
        self.emit(body, command.origin.clone(), now);
        Ok(Box::new(self.state.slot(idx).lock()))
    }

    /// `DELETE {resource}/lock`. Released already by this token: done, and nothing is written.
    ///
    /// # Errors
    /// The refusal; nothing has changed.
    pub fn release(&mut self, command: &Release, now: Now) -> Result<LockId, HolderRefusal> {
        let idx = match self.addressed(&command.caller, &command.address, &command.tokens, now) {
            Ok(idx) => idx,
            Err(HolderRefusal::Gone(lock_id, Some(ended))) if ended.ending == Ending::Released => {
                return Ok(lock_id);
            }
            Err(refusal) => return Err(refusal),
        };
        let lock = self.state.slot(idx);
        let lock_id = lock.lock_id;
        let body = EventBody::Released { lock: lock.subject(), undelivered: false };
        self.end_lock(idx, body, command.origin.clone(), now);
        Ok(lock_id)
    }

    /// `POST {resource}/lock/transfer`.
    ///
    /// # Errors
    /// The refusal; nothing has changed.
    pub fn transfer(&mut self, command: Transfer, now: Now) -> Result<Transferring, HolderRefusal> {
        let idx = match self.addressed(&command.caller, &command.address, &command.tokens, now) {
            Ok(idx) => idx,
            Err(refusal) => {
                return self.transferred_already(refusal, &command.to, now).map(Transferring::Done);
            }
        };
        let lock = self.state.slot(idx);
        if lock.breaking().is_some() {
            return Err(HolderRefusal::Closing(Box::new(lock.lock())));
        }
        let pins = self.await_pins_of(idx, WaiterId(self.next_id), now);
        if pins.is_empty() {
            return Ok(Transferring::Done(self.hand_over(idx, &command, now)));
        }
        let waiter = WaiterId(self.fresh_id());
        let until = now.lease + command.drain_wait_ms;
        let what = Drained::Transfer { command: Box::new(command) };
        self.add_drain(waiter, Drain { pins, until, what });
        Ok(Transferring::Parked(waiter))
    }

    /// The same answer again, until the new token is first used.
    pub(crate) fn transferred_already(
        &self,
        refusal: HolderRefusal,
        to: &Principal,
        now: Now,
    ) -> Result<Granted, HolderRefusal> {
        let granted = match &refusal {
            HolderRefusal::Gone(_, Some(ended)) => self.repeated_transfer(&ended.ending, to, now),
            _ => None,
        };
        granted.ok_or(refusal)
    }

    fn repeated_transfer(&self, ending: &Ending, to: &Principal, now: Now) -> Option<Granted> {
        let Ending::Transferred { successor, to: went_to } = ending else { return None };
        let lock = self.state.slot(self.state.idx(*successor)?);
        (went_to == to && !lock.used && lock.is_live(now.lease))
            .then(|| Granted { lock: Box::new(lock.lock()), replayed: true })
    }

    pub(crate) fn hand_over(&mut self, idx: LockIdx, command: &Transfer, now: Now) -> Granted {
        let slot = self.state.slot(idx);
        let (lock, subject) = (slot.lock(), slot.subject());
        let before = &lock.grant;
        let predecessor_unknown =
            self.is_unknown_to(&before.resources, before.mode, before.depth, now);
        let grant = Grant {
            predecessor_unknown,
            lock_id: command.lock_id,
            fence: self.next_fence(),
            holder: command.to.clone(),
            deadline: lock.deadline,
            ttl_ms: lock.ttl_ms,
            granted: lock.grant.granted,
            acquired_at: now.wall,
            waited_ms: 0,
            idempotency: None,
            ..lock.grant
        };
        let body = EventBody::Transferred { lock: subject, to: Box::new(grant.clone()) };
        self.end_lock(idx, body, command.origin.clone(), now);
        Granted { lock: Box::new(Lock::new(grant)), replayed: false }
    }

    /// `POST {resource}/lock/request`: the locks that were asked for.
    ///
    /// # Errors
    /// [`BreakRefusal::Changed`]: nothing covers the resource.
    pub fn request(&mut self, command: &Request, now: Now) -> Result<Vec<LockId>, BreakRefusal> {
        let covering = self.covering(&command.resource, now);
        if covering.is_empty() {
            return Err(BreakRefusal::Changed);
        }
        let mut asked = Vec::with_capacity(covering.len());
        for idx in covering {
            let lock = self.state.slot(idx);
            asked.push(lock.lock_id);
            let body = EventBody::Requested {
                lock: lock.subject(),
                by: command.caller.principal.clone(),
                message: command.message.clone(),
            };
            self.emit(body, command.origin.clone(), now);
        }
        Ok(asked)
    }

    /// The live locks that cover a resource: on it, and infinite ones above.
    pub(crate) fn covering(&mut self, resource: &Resource, now: Now) -> Vec<LockIdx> {
        self.expire_due(std::iter::once((resource, DueBelow::None)), now);
        let place = self.place(resource);
        let mut covering = Vec::new();
        self.visit_locks(
            &place,
            crate::lock::Mode::Exclusive,
            crate::lock::Depth::Zero,
            now,
            &mut |obstacle| {
                if let Obstacle::Lock(idx) = obstacle {
                    covering.push(idx);
                }
                true
            },
        );
        covering
    }

    fn breakable(&mut self, command: &BreakLock, now: Now) -> Result<LockIdx, BreakRefusal> {
        match &command.address {
            Address::Id(lock_id) => {
                let idx = self.state.idx(*lock_id).ok_or(BreakRefusal::Changed)?;
                if self.state.slot(idx).is_live(now.lease) {
                    Ok(idx)
                } else {
                    Err(BreakRefusal::Changed)
                }
            }
            Address::Resource(resource) => {
                let covering = self.covering(resource, now);
                match (command.lock_id, covering.as_slice()) {
                    (Some(named), all) => all
                        .iter()
                        .copied()
                        .find(|&idx| self.state.slot(idx).lock_id == named)
                        .ok_or(BreakRefusal::Changed),
                    (None, []) => Err(BreakRefusal::Changed),
                    (None, [only]) => Ok(*only),
                    (None, several) => Err(BreakRefusal::Ambiguous(
                        several.iter().map(|&idx| self.state.slot(idx).lock()).collect(),
                    )),
                }
            }
        }
    }

    /// `POST {resource}/lock/break`.
    ///
    /// # Errors
    /// The refusal; nothing has changed.
    pub fn break_lock(&mut self, command: &BreakLock, now: Now) -> Result<Broken, BreakRefusal> {
        let idx = self.breakable(command, now)?;
        let slot = self.state.slot(idx);
        let (lock, subject) = (slot.lock(), slot.subject());
        let by = command.caller.principal.clone();
        let reason: Arc<str> = command.reason.clone();
        let ends_at = (now.lease + command.grace_ms).min(lock.deadline);
        if ends_at <= now.lease {
            self.end_lock(
                idx,
                EventBody::Broken { lock: subject, by, reason },
                command.origin.clone(),
                now,
            );
        } else {
            let body = EventBody::BreakAnnounced { lock: subject, by, reason, deadline: ends_at };
            self.emit(body, command.origin.clone(), now);
        }
        Ok(Broken { lock: Box::new(lock), ends_at })
    }

    /// What [`LockTable::break_lock`] would end. Nothing changes.
    ///
    /// # Errors
    /// The refusal that the break would get.
    pub fn preview_break(
        &mut self,
        command: &BreakLock,
        now: Now,
    ) -> Result<BreakPreview, BreakRefusal> {
        let idx = self.breakable(command, now)?;
        let slot = self.state.slot(idx);
        let mut queue = Vec::new();
        for &node in slot.nodes() {
            queue.extend(self.queue_at(&self.place_of(node), slot.depth));
        }
        queue.sort_by_key(|waiting| waiting.waiter);
        queue.dedup_by_key(|waiting| waiting.waiter);
        Ok(BreakPreview {
            lock: Box::new(slot.lock()),
            writes_in_flight: self.pins_under(idx, now).len(),
            queue,
        })
    }

    /// The break that is running on a lock, if one is.
    #[must_use]
    pub fn breaking(lock: &Lock) -> Option<&Break> {
        lock.breaking.as_deref()
    }

    pub(crate) fn wake_freeze(&mut self, resource: &Resource, now: Now) {
        self.wake(Blocker::Freeze(resource.clone()), now);
    }
}
