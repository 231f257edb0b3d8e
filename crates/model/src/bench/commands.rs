//! What a step asks for, and the commands that are neither an acquire, nor a holder's, nor a write.

use std::sync::Arc;

use leasehold_core::command::{Acquire, Address, BreakLock, Presented, Request, SetFreeze};
use leasehold_core::event::{EventBody, WriteResult};
use leasehold_core::ids::{LockId, Principal, WaiterId};
use leasehold_core::lock::{Depth, Mode};
use leasehold_core::refusal::BreakRefusal;
use leasehold_core::resource::Resource;
use leasehold_core::state::State;
use leasehold_core::table::{LockTable, TableLimits};

use super::Bench;
use super::picking::{caller, origin, principal, resource};
use super::{DRAIN_WAIT_MS, SEED};
use crate::naive::{Claim, Drain, Draining};
use crate::steps::What;

impl Bench {
    pub(super) fn command(&mut self, what: &What) {
        match what {
            What::Nothing => {}
            What::Acquire { .. } => self.acquire(what),
            What::Renew { who, token, ttl_ms, elsewhere } => {
                let token = self.token(*token);
                let who = self.who(*who, Some(token));
                self.renew(&who, token, *ttl_ms, elsewhere.map(resource));
            }
            What::Release { who, token } => {
                let token = self.token(*token);
                let who = self.who(*who, Some(token));
                self.release(&who, token);
            }
            What::Transfer { who, token, to } => {
                let token = self.token(*token);
                let who = self.who(*who, Some(token));
                self.transfer(&who, token, &principal(*to));
            }
            What::Request { who, resource: at } => self.request(&principal(*who), &resource(*at)),
            What::Break { resource: at, named, grace_ms } => {
                let named = named.and_then(|pick| match self.token(pick) {
                    Presented::Token { lock_id, .. } => Some(lock_id),
                    Presented::Forged => None,
                });
                self.break_lock(&resource(*at), named, *grace_ms);
            }
            What::Freeze { resource: at, for_ms } => self.freeze(&resource(*at), *for_ms),
            What::Unfreeze { resource: at } => {
                let at = resource(*at);
                let was = self.naive.freezes.iter().any(|freeze| freeze.resource == at);
                let done = self.both(|table, now| table.unfreeze(&at, origin(&principal(0)), now));
                assert_eq!(done.outcome, was);
                self.finish_step(&done.events, &done.wakes);
            }
            What::Write { .. } => self.write(what),
            What::Complete { pick, sent: true } => {
                self.complete(*pick, WriteResult::Answered(204));
            }
            What::Complete { pick, sent: false } => self.complete(*pick, WriteResult::NotSent),
            What::Vanish { pick } => self.complete(*pick, WriteResult::Unknown),
            What::Again { pick, wait_ms } => {
                if let Some(before) = self.keyed.iter().rev().nth(*pick).cloned() {
                    let lock_id = self.fresh_id();
                    let wait_ms = *wait_ms;
                    self.acquires(&Acquire { lock_id, wait_ms, ..before });
                }
            }
            What::Leave { pick } => self.leave(*pick),
            What::Undelivered { pick } => self.undelivered(*pick),
            What::Reload => self.reload(),
            What::Crash { recovers_ms } => self.crash(*recovers_ms),
        }
    }

    pub(super) fn covering(&self, at: &Resource) -> Vec<LockId> {
        let mut covering: Vec<LockId> =
            self.naive.live().filter(|lock| lock.claim.covers(at)).map(|lock| lock.id).collect();
        covering.sort_unstable();
        covering
    }

    pub(super) fn request(&mut self, who: &Principal, at: &Resource) {
        let command = Request {
            caller: caller(who),
            origin: origin(who),
            resource: at.clone(),
            message: None,
        };
        let done = self.both(|table, now| table.request(&command, now));
        let rest =
            self.follow_until(&done.events, |body| matches!(body, EventBody::Requested { .. }));
        let expected = self.covering(at);
        let mut asked = done.outcome.unwrap_or_default();
        asked.sort_unstable();
        assert_eq!(asked, expected);
        self.finish_step(rest, &done.wakes);
    }

    pub(super) fn break_lock(&mut self, at: &Resource, named: Option<LockId>, grace_ms: u64) {
        let who = Principal::new("root");
        let command = BreakLock {
            caller: caller(&who),
            origin: origin(&who),
            address: Address::Resource(at.clone()),
            lock_id: named,
            reason: Arc::from("why not"),
            grace_ms,
        };
        let preview = self.both(|table, now| table.preview_break(&command, now));
        self.finish_step(&preview.events, &preview.wakes);
        let done = self.both(|table, now| table.break_lock(&command, now));
        let covering = self.covering(at);
        let expected = match named {
            Some(named) => covering.contains(&named).then_some(named).ok_or(0),
            None if covering.len() == 1 => Ok(covering[0]),
            None => Err(covering.len()),
        };
        match (&done.outcome, expected) {
            (Ok(broken), Ok(id)) => {
                assert_eq!(broken.lock.grant.lock_id, id);
                let lock = self.naive.lock(id).unwrap();
                let ends_at = (self.naive.now.lease + grace_ms).min(lock.deadline);
                assert_eq!(broken.ends_at, ends_at);
                let previewed = preview.outcome.expect("the preview tells the same");
                assert_eq!(previewed.lock.grant.lock_id, id);
                assert_eq!(previewed.writes_in_flight, self.naive.pins_under(id).len());
            }
            (Err(BreakRefusal::Changed), Err(0)) => assert!(preview.outcome.is_err()),
            (Err(BreakRefusal::Ambiguous(locks)), Err(count)) => assert_eq!(locks.len(), count),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
        self.finish_step(&done.events, &done.wakes);
    }

    pub(super) fn freeze(&mut self, at: &Resource, for_ms: u64) {
        let who = Principal::new("root");
        let until = self.naive.now.wall + for_ms;
        let command = SetFreeze {
            caller: caller(&who),
            origin: origin(&who),
            resource: at.clone(),
            reason: Arc::from("audit"),
            until,
            drain_wait_ms: DRAIN_WAIT_MS,
        };
        let done = self.both(|table, now| table.freeze(&command, now));
        self.follow(&done.events);
        let claim =
            Claim { resources: vec![at.clone()], mode: Mode::Exclusive, depth: Depth::Infinity };
        let pins = self.naive.writes_before(&claim);
        assert_eq!(done.outcome.1.is_none(), pins.is_empty());
        if let Some(waiter) = done.outcome.1 {
            let until = self.naive.now.lease + DRAIN_WAIT_MS;
            self.naive.drains.push(Drain { waiter, pins, until, what: Draining::Freeze });
        }
        self.finish_step(&[], &done.wakes);
    }

    pub(super) fn leave(&mut self, pick: usize) {
        let tickets: Vec<WaiterId> = self
            .naive
            .waiters
            .iter()
            .map(|waiter| waiter.ticket)
            .chain(self.naive.drains.iter().map(|drain| drain.waiter))
            .collect();
        if tickets.is_empty() {
            return;
        }
        let ticket = tickets[pick % tickets.len()];
        self.naive.waiters.retain(|waiter| waiter.ticket != ticket);
        self.naive.drains.retain(|drain| drain.waiter != ticket);
        let done = self.both(|table, now| table.leave(ticket, now));
        self.finish_step(&done.events, &done.wakes);
    }

    pub(super) fn undelivered(&mut self, pick: usize) {
        if self.naive.locks.is_empty() {
            return;
        }
        let at = pick % self.naive.locks.len();
        let now = self.naive.now.lease;
        let lock = &mut self.naive.locks[at];
        let (id, has_key) = (lock.id, lock.key.is_some());
        if !lock.used {
            lock.uncollected = Some(if has_key { now + 10_000_u64 } else { now });
        }
        let goes = !lock.used && !has_key;
        let done = self.both(|table, now| table.undelivered(id, now));
        self.finish_step(&done.events, &done.wakes);
        assert!(!goes || self.naive.lock(id).is_none(), "it is released at once");
    }

    /// The log failed and was read again: what is parked is gone, what is on its way is not.
    pub(super) fn reload(&mut self) {
        let newest = self.tables[0].state().seq();
        for table in &mut self.tables {
            let mut state = State::new(SEED);
            for event in &self.trail {
                state.apply(event);
            }
            let empty = LockTable::new(State::new(SEED), TableLimits::default(), SEED);
            let before = std::mem::replace(table, empty);
            *table = before.reloaded(state, newest, SEED);
            table.settled(newest);
        }
        self.durable = newest.0;
        let naive = &mut self.naive;
        naive.waiters.clear();
        naive.away.clear();
        naive.drains.clear();
        naive.locks.iter_mut().for_each(|lock| lock.uncollected = None);
        self.tables[0].assert_invariants(self.naive.now);
        self.observe_end();
    }
}
