//! Acquires, beside what the naive table answers.

use std::sync::Arc;

use leasehold_core::acquire::{Acquired, fold_set};
use leasehold_core::command::{Acquire, AcquireLimits, Want};
use leasehold_core::event::EventBody;
use leasehold_core::ids::WaiterId;
use leasehold_core::lock::{Depth, Idempotency, Mode};
use leasehold_core::refusal::{AcquireRefusal, TokenIs};
use leasehold_core::resource::Resource;

use super::Bench;
use super::DRAIN_WAIT_MS;
use super::holders::how;
use super::picking::{caller, origin, principal, resource};
use crate::naive::{Acquiring, Token, Waiter};
use crate::steps::What;

const MAX_TTL_MS: u64 = 60_000;

impl Bench {
    pub(super) fn acquire(&mut self, what: &What) {
        let What::Acquire {
            who,
            resources,
            any_of,
            shared,
            depth_0,
            ttl_ms,
            wait_ms,
            key,
            holds,
            hold_ms,
        } = what
        else {
            return;
        };
        let who = principal(*who);
        let depth = if *depth_0 { Depth::Zero } else { Depth::Infinity };
        let resources: Vec<Resource> = resources.iter().map(|&at| resource(at)).collect();
        let want = if *any_of {
            // Disjoint ones, so that it can be seen which of them it has its place on.
            let mut apart: Vec<Resource> = Vec::new();
            for each in resources {
                if apart.iter().all(|other| !other.covers(&each) && !each.covers(other)) {
                    apart.push(each);
                }
            }
            Want::AnyOf(apart.into())
        } else {
            Want::All(fold_set(&resources, depth))
        };
        let mode = if *shared { Mode::Shared } else { Mode::Exclusive };
        let command = Acquire {
            caller: caller(&who),
            origin: origin(&who),
            lock_id: self.fresh_id(),
            mode,
            depth,
            ttl_ms: *ttl_ms,
            reason: None,
            metadata: None,
            handle: None,
            idempotency: key.map(|key| Idempotency {
                key: Arc::from(format!("k{key}")),
                digest: Arc::from(format!("{want:?} {mode:?} {depth:?}")),
            }),
            want,
            holds: holds.iter().filter_map(|&pick| self.own_token(&who, pick)).collect(),
            wait_ms: *wait_ms,
            limits: AcquireLimits {
                default_ttl_ms: 10_000,
                max_ttl_ms: MAX_TTL_MS,
                max_hold_ms: *hold_ms,
                max_queue: 3,
                max_locks_per_holder: None,
                drain_wait_ms: DRAIN_WAIT_MS,
            },
        };
        if command.idempotency.is_some() {
            self.keyed.push(command.clone());
        }
        self.acquires(&command);
    }

    pub(super) fn acquires(&mut self, command: &Acquire) {
        let done = self.both(|table, now| table.acquire(command.clone(), now));
        let is_own = |body: &EventBody| matches!(body, EventBody::Acquired(grant) if grant.lock_id == command.lock_id);
        let rest = self.follow_until(&done.events, is_own);
        let stale_away = self.naive.away.iter().any(|away| away.until <= self.naive.now.lease);
        let expected = self.naive.acquire(command);
        match (&done.outcome, expected) {
            (Ok(Acquired::Granted(granted)), Acquiring::Granted { resources }) => {
                assert!(!granted.replayed);
                let [own] = rest else { panic!("one event: {rest:?}") };
                assert_eq!(granted.lock.grant.resources.to_vec(), resources);
                assert_eq!(granted.lock.grant.waited_ms, 0);
                self.naive.grant(own.seq.0, command, &granted.lock.grant);
                self.finish_step(&[], &done.wakes);
                return;
            }
            (Ok(Acquired::Granted(granted)), Acquiring::Again { id }) => {
                assert!(granted.replayed);
                let at = self.naive.locks.iter().position(|lock| lock.id == id).unwrap();
                let lock = &mut self.naive.locks[at];
                lock.uncollected = None;
                assert_eq!(granted.lock.grant.lock_id, id);
                assert_eq!(granted.lock.deadline, lock.deadline);
            }
            (Ok(Acquired::Parked(ticket)), Acquiring::Parked { ticket: kept }) => {
                if let Some(kept) = kept {
                    assert_eq!(*ticket, kept, "who comes back keeps its place");
                }
                self.add_waiter(*ticket, command);
                self.observe(&[]);
                assert!(!self.naive.closes_circle(*ticket), "a circle was not seen");
            }
            (Err(AcquireRefusal::Deadlock { circle }), Acquiring::Parked { ticket }) => {
                assert!(!circle.is_empty());
                // It would have been this one.
                let ticket = ticket.unwrap_or(WaiterId(u64::MAX));
                self.add_waiter(ticket, command);
                assert!(self.naive.closes_circle(ticket), "no circle is closed: {circle:?}");
                self.naive.waiters.retain(|waiter| waiter.ticket != ticket);
            }
            (
                Err(AcquireRefusal::Locked(found)),
                Acquiring::Locked { locks, behind, is_pending, is_yours, ends_last },
            ) => {
                assert_eq!(found.locks, locks);
                assert_eq!(found.queue_ahead, behind);
                assert_eq!(found.pending.is_some(), is_pending);
                assert_eq!(found.held_by_you, is_yours);
                assert_eq!(found.lock.as_ref().map(|lock| lock.deadline), ends_last);
            }
            (Err(AcquireRefusal::TtlOutOfRange { .. }), Acquiring::TtlOutOfRange)
            | (Err(AcquireRefusal::Frozen(_)), Acquiring::Frozen)
            | (Err(AcquireRefusal::QueueFull { .. }), Acquiring::QueueFull)
            | (Err(AcquireRefusal::KeyReused), Acquiring::KeyReused)
            | (Err(AcquireRefusal::KeyInProgress), Acquiring::KeyInProgress) => {}
            (Err(AcquireRefusal::Gone(ended)), Acquiring::Gone { how: expected }) => {
                assert_eq!(how(ended), expected);
            }
            (Err(AcquireRefusal::Token(token)), Acquiring::Token(expected)) => {
                assert_eq!(token_of(token), expected);
            }
            // Whose time away is over stands in the queue until a tick.
            (Ok(Acquired::Parked(ticket)), Acquiring::QueueFull) if stale_away => {
                self.add_waiter(*ticket, command);
            }
            (Err(AcquireRefusal::Deadlock { circle }), Acquiring::QueueFull) if stale_away => {
                let ticket = WaiterId(u64::MAX);
                self.add_waiter(ticket, command);
                assert!(self.naive.closes_circle(ticket), "no circle is closed: {circle:?}");
                self.naive.waiters.retain(|waiter| waiter.ticket != ticket);
            }
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
        self.finish_step(rest, &done.wakes);
    }

    pub(super) fn add_waiter(&mut self, ticket: WaiterId, command: &Acquire) {
        let now = self.naive.now;
        let wait_ms = if command.wait_ms == 0 { DRAIN_WAIT_MS } else { command.wait_ms };
        self.naive.waiters.push(Waiter {
            ticket,
            command: command.clone(),
            since: now.lease,
            until: now.lease + wait_ms,
            claimed: None,
        });
    }
}

fn token_of(token: &TokenIs) -> Token {
    match token {
        TokenIs::Fits(id) | TokenIs::LiveElsewhere(id) => Token::Live(*id),
        TokenIs::Ended(id, ended) => Token::Ended(*id, how(ended.as_ref().unwrap())),
        TokenIs::NotYours => Token::NotYours,
        TokenIs::Unknown => Token::Unknown,
    }
}
