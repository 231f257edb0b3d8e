//! What a command must be answered.

use leasehold_core::command::{Acquire, Presented, Want, Write};
use leasehold_core::ids::{LockId, Principal, WaiterId};
use leasehold_core::lock::{Idempotency, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_core::time::LeaseTime;

use super::geometry::{is_below, shared_regions};
use super::{Asks, Claim, Ended, How, Lock, Naive, Waiter, alternatives};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Token {
    Live(LockId),
    Ended(LockId, How),
    NotYours,
    Unknown,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Acquiring {
    Granted {
        resources: Vec<Resource>,
    },
    Again {
        id: LockId,
    },
    Parked {
        ticket: Option<WaiterId>,
    },
    TtlOutOfRange,
    Frozen,
    Locked {
        locks: usize,
        behind: usize,
        is_pending: bool,
        is_yours: bool,
        ends_last: Option<LeaseTime>,
    },
    QueueFull,
    KeyReused,
    KeyInProgress,
    Gone {
        how: How,
    },
    Token(Token),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Writing {
    Admitted { used: Vec<LockId> },
    Frozen,
    Locked { locks: usize, is_pending: bool },
    LockLost,
    LockMismatch,
    NotTheHolder,
    InvalidToken,
}

impl Naive {
    pub(crate) fn judge(&self, who: &Principal, token: Presented) -> Token {
        let Presented::Token { lock_id, fence } = token else { return Token::Unknown };
        let (holder, its_fence) = match (self.lock(lock_id), self.end_of(lock_id)) {
            (Some(lock), _) => (&lock.holder, lock.fence),
            (None, Some(ended)) => (&ended.lock.holder, ended.lock.fence),
            (None, None) => return Token::Unknown,
        };
        if its_fence != fence {
            return Token::Unknown;
        }
        if holder != who {
            return Token::NotYours;
        }
        match self.lock(lock_id) {
            Some(lock) if self.is_live(lock) => Token::Live(lock_id),
            Some(_) => Token::Ended(lock_id, How::Expired),
            None => Token::Ended(lock_id, self.end_of(lock_id).expect("it has ended").how),
        }
    }

    pub(crate) fn end_of(&self, id: LockId) -> Option<&Ended> {
        self.ended.iter().find(|ended| ended.lock.id == id)
    }

    pub(crate) fn acquire(&mut self, command: &Acquire) -> Acquiring {
        let who = &command.caller.principal;
        let mut comes_back = None;
        if let Some(key) = &command.idempotency {
            let is_it = |other: &Idempotency| other.key == key.key;
            let parked = self.waiters.iter().find(|waiter| {
                waiter.command.caller.principal == *who
                    && waiter.command.idempotency.as_ref().is_some_and(is_it)
            });
            if let Some(parked) = parked {
                return if parked.command.idempotency.as_ref() == Some(key) {
                    Acquiring::KeyInProgress
                } else {
                    Acquiring::KeyReused
                };
            }
            let away = self.away.iter().position(|away| away.principal == *who && is_it(&away.key));
            if let Some(at) = away {
                let away = &self.away[at];
                if self.now.lease < away.until && away.key == *key {
                    comes_back = Some(away.ticket);
                } else {
                    self.away.remove(at);
                }
            } else if let Some(answer) = self.by_key(who, key) {
                return answer;
            }
        }
        let ttl_ms = command.ttl_ms.unwrap_or(command.limits.default_ttl_ms);
        if command.ttl_ms.is_some() && !(1000..=command.limits.max_ttl_ms).contains(&ttl_ms) {
            return Acquiring::TtlOutOfRange;
        }
        let mut holds = Vec::new();
        for &token in &command.holds {
            match self.judge(who, token) {
                Token::Live(id) => holds.push(id),
                other => return Acquiring::Token(other),
            }
        }
        let choices = alternatives(command);
        let is_frozen = |choice: &Claim| choice.resources.iter().any(|each| self.frozen_at(each));
        if choices.iter().all(is_frozen) {
            return Acquiring::Frozen;
        }
        let asks = Asks { ticket: comes_back, holds };
        let open: Vec<&Claim> =
            choices.iter().filter(|it| self.in_the_way(it, &asks).is_nothing()).collect();
        let is_quite_free =
            |it: &&&Claim| self.pins_against(it).is_empty() && !self.awaits_recovery(command);
        if let Some(free) = open.iter().find(is_quite_free) {
            let resources = free.resources.clone();
            self.away.retain(|away| Some(away.ticket) != comes_back);
            return Acquiring::Granted { resources };
        }
        if open.is_empty() && command.wait_ms == 0 {
            let all = Claim {
                resources: command.want.resources().to_vec(),
                mode: command.mode,
                depth: command.depth,
            };
            let found = self.in_the_way(&all, &asks);
            return Acquiring::Locked {
                locks: found.locks.len(),
                behind: found.waiting.len(),
                is_pending: !found.pending.is_empty(),
                is_yours: found
                    .locks
                    .iter()
                    .any(|id| self.lock(*id).is_some_and(|lock| lock.holder == *who)),
                ends_last: found
                    .locks
                    .iter()
                    .filter_map(|id| self.lock(*id))
                    .map(|lock| lock.deadline)
                    .max(),
            };
        }
        if comes_back.is_none() {
            for resource in command.want.resources().iter() {
                let here = self
                    .waiters
                    .iter()
                    .filter(|it| it.claim().resources.contains(resource))
                    .count()
                    + self.away.iter().filter(|it| it.resources.contains(resource)).count();
                if command.limits.max_queue <= here {
                    return Acquiring::QueueFull;
                }
            }
        }
        self.away.retain(|away| Some(away.ticket) != comes_back);
        Acquiring::Parked { ticket: comes_back }
    }

    fn by_key(&self, who: &Principal, key: &Idempotency) -> Option<Acquiring> {
        const TEN_MINUTES_MS: u64 = 600_000;
        let is_it = |lock: &Lock| {
            lock.holder == *who && lock.key.as_ref().is_some_and(|other| other.key == key.key)
        };
        let live = self.locks.iter().find(|lock| is_it(lock));
        let ended = self
            .ended
            .iter()
            .filter(|ended| is_it(&ended.lock))
            .max_by_key(|ended| ended.lock.fence);
        let same = |lock: &Lock| lock.key.as_ref() == Some(key);
        match (live, ended) {
            (Some(lock), _) if !same(lock) => Some(Acquiring::KeyReused),
            (Some(lock), _) if self.is_live(lock) => Some(Acquiring::Again { id: lock.id }),
            // It has ended, but that is not written down yet.
            (Some(lock), _) if self.now.lease.since(lock.deadline) <= TEN_MINUTES_MS => {
                Some(Acquiring::Gone { how: How::Expired })
            }
            (None, Some(ended)) if self.now.lease.since(ended.at) <= TEN_MINUTES_MS => {
                Some(if same(&ended.lock) {
                    Acquiring::Gone { how: ended.how }
                } else {
                    Acquiring::KeyReused
                })
            }
            _ => None,
        }
    }

    /// Whether a waiter waits, by however many steps, for itself.
    pub(crate) fn closes_circle(&self, start: WaiterId) -> bool {
        let mut seen = Vec::new();
        let mut to_see = vec![start];
        while let Some(at) = to_see.pop() {
            let waiter = self.waiters.iter().find(|it| it.ticket == at).expect("it waits");
            let has_way_out = matches!(&waiter.command.want, Want::AnyOf(each) if each.len() > 1);
            if waiter.claimed.is_some() || has_way_out {
                continue;
            }
            let found = self.in_the_way(&waiter.claim(), &self.asks(waiter));
            let mut next: Vec<WaiterId> = found.waiting.into_iter().chain(found.pending).collect();
            for other in &self.waiters {
                if self.held_by(other).iter().any(|held| found.locks.contains(held)) {
                    next.push(other.ticket);
                }
            }
            for other in next {
                if other == start {
                    return true;
                }
                if !seen.contains(&other) {
                    seen.push(other);
                    to_see.push(other);
                }
            }
        }
        false
    }

    fn held_by(&self, waiter: &Waiter) -> Vec<LockId> {
        waiter
            .command
            .holds
            .iter()
            .filter_map(|token| match token {
                Presented::Token { lock_id, .. } => Some(*lock_id),
                Presented::Forged => None,
            })
            .collect()
    }

    pub(crate) fn asks(&self, waiter: &Waiter) -> Asks {
        Asks { ticket: Some(waiter.ticket), holds: self.held_by(waiter) }
    }

    pub(crate) fn write(&self, write: &Write) -> Writing {
        let who = &write.caller.principal;
        let is_frozen = write.targets.iter().any(|target| {
            self.frozen_at(target.resource())
                || (matches!(target, Target::Subtree(_))
                    && self.freezes.iter().any(|it| {
                        self.now.wall < it.until && is_below(target.resource(), &it.resource)
                    }))
        });
        if is_frozen {
            return Writing::Frozen;
        }
        let judged: Vec<Token> = write.tokens.iter().map(|&token| self.judge(who, token)).collect();
        let presented: Vec<&Lock> = judged
            .iter()
            .filter_map(|token| match token {
                Token::Live(id) => self.lock(*id),
                _ => None,
            })
            .collect();
        let is_shared = |lock: &&&Lock| lock.claim.mode == Mode::Shared;
        let mut used = Vec::new();
        let mut missing = Vec::new();
        let mut is_pending = false;
        for target in &write.targets {
            for lock in self.live().filter(|lock| lock.claim.guards(target)) {
                if presented.iter().any(|other| other.id == lock.id) {
                    used.push(lock.id);
                } else if lock.claim.mode == Mode::Exclusive
                    || !shared_regions(&lock.claim, target).iter().all(|region| {
                        presented
                            .iter()
                            .filter(is_shared)
                            .any(|other| other.claim.guards_all(region))
                    })
                {
                    missing.push(lock.id);
                }
            }
            let shares =
                presented.iter().filter(is_shared).any(|lock| lock.claim.guards_all(target));
            is_pending |= self.waiters.iter().any(|waiter| {
                waiter.claimed.is_some()
                    && waiter.claim().guards(target)
                    && !(shares && waiter.command.mode == Mode::Shared)
            });
        }
        used.sort_unstable();
        used.dedup();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() || is_pending {
            return Writing::Locked { locks: missing.len(), is_pending };
        }
        let does_not_fit = |token: &Token| matches!(token, Token::Live(id) if !used.contains(id));
        if judged.iter().any(|token| matches!(token, Token::Ended(..))) {
            return Writing::LockLost;
        }
        if judged.iter().any(does_not_fit) {
            return Writing::LockMismatch;
        }
        if judged.contains(&Token::NotYours) {
            return Writing::NotTheHolder;
        }
        if judged.contains(&Token::Unknown) {
            return Writing::InvalidToken;
        }
        Writing::Admitted { used }
    }

    /// The newest event that had to do with what stands in the way of these targets.
    pub(crate) fn newest_change(&self, targets: &[Target]) -> u64 {
        let concerns = |claim: &Claim| targets.iter().any(|target| claim.guards(target));
        self.changes
            .iter()
            .filter(|(_, claim)| concerns(claim))
            .map(|(seq, _)| *seq)
            .max()
            .unwrap_or(0)
    }
}
