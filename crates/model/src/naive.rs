//! The lock table once more, as plainly as the specification says it: lists, and loops over all of
//! them.
//!
//! It predicts what a command must answer. What it does not predict is the order in which waiters
//! are served by one command: it follows the events, says of each whether it was allowed, and, at
//! the end, whether one is missing.

use leasehold_core::command::{Acquire, Presented, Want, Write};
use leasehold_core::event::{Event, EventBody};
use leasehold_core::ids::{Fence, LockId, PinId, Principal, WaiterId};
use leasehold_core::lock::{Depth, Idempotency, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_core::time::{LeaseTime, Now, WallTime};

#[derive(Clone, Debug)]
pub(crate) struct Lock {
    pub(crate) id: LockId,
    pub(crate) fence: Fence,
    pub(crate) holder: Principal,
    pub(crate) claim: Claim,
    pub(crate) ttl_ms: u64,
    pub(crate) deadline: LeaseTime,
    pub(crate) max_deadline: Option<LeaseTime>,
    pub(crate) max_ttl_ms: u64,
    pub(crate) breaking: bool,
    pub(crate) used: bool,
    pub(crate) key: Option<Idempotency>,
    pub(crate) uncollected: Option<LeaseTime>,
}

/// What a lock covers or an acquire asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub(crate) resources: Vec<Resource>,
    pub(crate) mode: Mode,
    pub(crate) depth: Depth,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum How {
    Expired,
    Released,
    Broken,
    Transferred,
}

#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) lock: Lock,
    pub(crate) how: How,
    pub(crate) at: LeaseTime,
    pub(crate) successor: Option<(LockId, Principal)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) ticket: WaiterId,
    pub(crate) command: Acquire,
    pub(crate) since: LeaseTime,
    pub(crate) until: LeaseTime,
    /// The resources it has its place on, when only writes are before it.
    pub(crate) claimed: Option<Vec<Resource>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Away {
    pub(crate) ticket: WaiterId,
    pub(crate) until: LeaseTime,
    pub(crate) principal: Principal,
    pub(crate) key: Idempotency,
    pub(crate) resources: Vec<Resource>,
}

#[derive(Clone, Debug)]
pub(crate) struct Pin {
    pub(crate) id: PinId,
    pub(crate) targets: Vec<Target>,
    pub(crate) locks: Vec<LockId>,
}

#[derive(Clone, Debug)]
pub(crate) enum Draining {
    Freeze,
    Transfer { lock: LockId },
}

#[derive(Clone, Debug)]
pub(crate) struct Drain {
    pub(crate) waiter: WaiterId,
    pub(crate) pins: Vec<PinId>,
    pub(crate) until: LeaseTime,
    pub(crate) what: Draining,
}

#[derive(Clone, Debug)]
pub(crate) struct Frozen {
    pub(crate) resource: Resource,
    pub(crate) until: WallTime,
}

#[derive(Default)]
pub(crate) struct Naive {
    pub(crate) now: Now,
    pub(crate) fence: Fence,
    pub(crate) locks: Vec<Lock>,
    pub(crate) ended: Vec<Ended>,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) away: Vec<Away>,
    pub(crate) pins: Vec<Pin>,
    pub(crate) drains: Vec<Drain>,
    pub(crate) freezes: Vec<Frozen>,
    /// Every event that changed what stands in the way of a write, with what it was about.
    pub(crate) changes: Vec<(u64, Claim)>,
    /// Waiters whose time was found to be up by the command that is being followed.
    pub(crate) leaving: Vec<WaiterId>,
}

// ---- geometry ------------------------------------------------------------------------------------

fn is_below(above: &Resource, resource: &Resource) -> bool {
    let (above, resource) = (above.as_str(), resource.as_str());
    above != resource && (above == "/" || resource.starts_with(&format!("{above}/")))
}

fn covers(from: &Resource, depth: Depth, to: &Resource) -> bool {
    from == to || (depth == Depth::Infinity && is_below(from, to))
}

impl Claim {
    pub(crate) fn covers(&self, to: &Resource) -> bool {
        self.resources.iter().any(|from| covers(from, self.depth, to))
    }

    fn meets(&self, other: &Self) -> bool {
        self.resources.iter().any(|each| other.covers(each))
            || other.resources.iter().any(|each| self.covers(each))
    }

    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        (self.mode == Mode::Exclusive || other.mode == Mode::Exclusive) && self.meets(other)
    }

    /// Whether something that a target changes is covered.
    fn guards(&self, target: &Target) -> bool {
        match target {
            Target::Content(at) | Target::Members(at) => self.covers(at),
            Target::Subtree(at) => {
                self.covers(at) || self.resources.iter().any(|each| is_below(at, each))
            }
        }
    }

    /// Whether all that a target changes is covered.
    fn guards_all(&self, target: &Target) -> bool {
        match target {
            Target::Content(at) | Target::Members(at) => self.covers(at),
            Target::Subtree(at) => self.depth == Depth::Infinity && self.covers(at),
        }
    }
}

/// What an acquire may be granted, in the order it prefers them.
pub(crate) fn alternatives(command: &Acquire) -> Vec<Claim> {
    let claim =
        |resources: Vec<Resource>| Claim { resources, mode: command.mode, depth: command.depth };
    match &command.want {
        Want::All(all) => vec![claim(all.to_vec())],
        Want::AnyOf(each) => each.iter().map(|one| claim(vec![one.clone()])).collect(),
    }
}

impl Waiter {
    /// What it stands in the way with.
    fn claim(&self) -> Claim {
        Claim {
            resources: match &self.claimed {
                Some(claimed) => claimed.clone(),
                None => self.command.want.resources().to_vec(),
            },
            mode: self.command.mode,
            depth: self.command.depth,
        }
    }
}

// ---- what is in the way --------------------------------------------------------------------------

/// An acquire as the order of the queue sees it.
#[derive(Clone)]
pub(crate) struct Asks {
    pub(crate) ticket: Option<WaiterId>,
    pub(crate) holds: Vec<LockId>,
}

#[derive(Default)]
pub(crate) struct InTheWay {
    pub(crate) locks: Vec<LockId>,
    pub(crate) waiting: Vec<WaiterId>,
    pub(crate) pending: Vec<WaiterId>,
    pub(crate) frozen: bool,
}

impl InTheWay {
    pub(crate) fn is_nothing(&self) -> bool {
        self.locks.is_empty() && self.waiting.is_empty() && self.pending.is_empty() && !self.frozen
    }
}

impl Naive {
    pub(crate) fn is_live(&self, lock: &Lock) -> bool {
        self.now.lease < lock.deadline
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &Lock> {
        self.locks.iter().filter(|lock| self.is_live(lock))
    }

    pub(crate) fn lock(&self, id: LockId) -> Option<&Lock> {
        self.locks.iter().find(|lock| lock.id == id)
    }

    fn lock_mut(&mut self, id: LockId) -> &mut Lock {
        self.locks.iter_mut().find(|lock| lock.id == id).expect("an event about a lock that lives")
    }

    pub(crate) fn frozen_at(&self, resource: &Resource) -> bool {
        self.freezes
            .iter()
            .any(|it| self.now.wall < it.until && covers(&it.resource, Depth::Infinity, resource))
    }

    pub(crate) fn in_the_way(&self, claim: &Claim, asks: &Asks) -> InTheWay {
        let mut found = InTheWay {
            frozen: claim.resources.iter().any(|each| self.frozen_at(each)),
            ..InTheWay::default()
        };
        for lock in self.live() {
            if lock.claim.conflicts(claim) {
                found.locks.push(lock.id);
            }
        }
        for other in &self.waiters {
            if asks.ticket == Some(other.ticket)
                || self.leaving.contains(&other.ticket)
                || !other.claim().conflicts(claim)
            {
                continue;
            }
            if other.claimed.is_some() {
                found.pending.push(other.ticket);
            } else if asks.ticket.is_none_or(|ticket| other.ticket < ticket)
                && !self.has_what_it_needs(&asks.holds, other)
            {
                found.waiting.push(other.ticket);
            }
        }
        found
    }

    /// Whether one of these locks is in the way of a waiter.
    fn has_what_it_needs(&self, holds: &[LockId], waiter: &Waiter) -> bool {
        self.live().any(|lock| holds.contains(&lock.id) && lock.claim.conflicts(&waiter.claim()))
    }

    /// The writes on their way that a claim conflicts with.
    pub(crate) fn pins_against(&self, claim: &Claim) -> Vec<PinId> {
        let meets = |target: &Target| {
            claim.resources.iter().any(|each| match target {
                Target::Content(at) | Target::Members(at) => covers(each, claim.depth, at),
                Target::Subtree(at) => {
                    covers(each, claim.depth, at) || covers(at, Depth::Infinity, each)
                }
            })
        };
        let is_of_sharer = |pin: &Pin, target: &Target| {
            self.live().any(|lock| {
                pin.locks.contains(&lock.id)
                    && lock.claim.mode == Mode::Shared
                    && lock.claim.guards_all(target)
            })
        };
        self.pins
            .iter()
            .filter(|pin| {
                pin.targets.iter().any(|target| {
                    meets(target) && !(claim.mode == Mode::Shared && is_of_sharer(pin, target))
                })
            })
            .map(|pin| pin.id)
            .collect()
    }

    pub(crate) fn pins_under(&self, lock: LockId) -> Vec<PinId> {
        self.pins.iter().filter(|pin| pin.locks.contains(&lock)).map(|pin| pin.id).collect()
    }

    // ---- tokens ----------------------------------------------------------------------------------

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

    // ---- predictions -----------------------------------------------------------------------------

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
        if let Some(free) = open.iter().find(|it| self.pins_against(it).is_empty()) {
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

    // ---- following -------------------------------------------------------------------------------

    /// Follows one event, and panics when it was not allowed.
    pub(crate) fn follow(&mut self, event: &Event) {
        assert_eq!(event.lease, self.now.lease, "an event has the reading of its command");
        match &event.body {
            EventBody::Acquired(grant) => self.follow_grant(event.seq.0, grant),
            EventBody::Renewed { lock, ttl_ms, deadline } => {
                let lock = self.lock_mut(lock.lock_id);
                (lock.ttl_ms, lock.deadline, lock.used) = (*ttl_ms, *deadline, true);
            }
            EventBody::Released { lock, undelivered } => {
                let live = self.lock(lock.lock_id).expect("a released lock lives");
                assert!(self.is_live(live), "only a live lock is released");
                if *undelivered {
                    let due = live.uncollected.expect("it was not delivered");
                    assert!(due <= self.now.lease && !live.used, "collected locks stay");
                }
                self.end(event.seq.0, lock.lock_id, How::Released, self.now.lease, None);
            }
            EventBody::Expired { lock, deadline } => {
                let due = self.lock(lock.lock_id).expect("an expired lock was there");
                assert!(!due.breaking);
                assert_eq!(due.deadline, *deadline);
                assert!(*deadline <= self.now.lease, "never early");
                self.end(event.seq.0, lock.lock_id, How::Expired, *deadline, None);
            }
            EventBody::BreakAnnounced { lock, deadline, .. } => {
                let lock = self.lock_mut(lock.lock_id);
                assert!(*deadline <= lock.deadline, "a grace never lengthens a lock");
                (lock.breaking, lock.deadline) = (true, *deadline);
            }
            EventBody::Broken { lock, .. } => {
                if event.origin.actor.is_none() {
                    let due = self.lock(lock.lock_id).expect("a broken lock was there");
                    assert!(due.breaking && due.deadline <= self.now.lease, "never early");
                }
                self.end(event.seq.0, lock.lock_id, How::Broken, self.now.lease, None);
            }
            EventBody::Transferred { lock, to } => {
                let before = self.lock(lock.lock_id).expect("a transferred lock lives").clone();
                assert!(self.is_live(&before));
                assert!(self.pins_under(lock.lock_id).is_empty(), "a transfer waits for writes");
                let successor = Some((to.lock_id, to.holder.clone()));
                self.end(event.seq.0, lock.lock_id, How::Transferred, self.now.lease, successor);
                self.grow_fence(to.fence);
                assert_eq!(to.deadline, before.deadline);
                assert_eq!(to.max_deadline, before.max_deadline);
                self.locks.push(Lock {
                    id: to.lock_id,
                    fence: to.fence,
                    holder: to.holder.clone(),
                    key: None,
                    used: false,
                    uncollected: None,
                    ..before
                });
            }
            EventBody::Frozen(freeze) => {
                self.freezes.retain(|other| other.resource != freeze.resource);
                self.freezes
                    .push(Frozen { resource: freeze.resource.clone(), until: freeze.until });
                self.note_freeze(event.seq.0, &freeze.resource);
            }
            EventBody::Unfrozen { resource, passed } => {
                let was = self.freezes.iter().find(|it| it.resource == *resource);
                let was = was.expect("an unfrozen resource was frozen");
                assert!(!*passed || was.until <= self.now.wall, "a freeze ends at its time");
                self.freezes.retain(|other| other.resource != *resource);
                self.note_freeze(event.seq.0, resource);
            }
            EventBody::WriteAdmitted { lock, .. } => self.lock_mut(lock.lock_id).used = true,
            EventBody::Requested { .. }
            | EventBody::WriteCompleted { .. }
            | EventBody::WriteChecked { .. }
            | EventBody::Refused { .. }
            | EventBody::Recovered { .. }
            | EventBody::Trimmed { .. } => {}
        }
    }

    fn note_freeze(&mut self, seq: u64, resource: &Resource) {
        let claim = Claim {
            resources: vec![resource.clone()],
            mode: Mode::Exclusive,
            depth: Depth::Infinity,
        };
        self.changes.push((seq, claim));
    }

    fn grow_fence(&mut self, fence: Fence) {
        assert!(self.fence < fence, "fences grow");
        self.fence = fence;
    }

    fn end(
        &mut self,
        seq: u64,
        id: LockId,
        how: How,
        at: LeaseTime,
        successor: Option<(LockId, Principal)>,
    ) {
        let position = self.locks.iter().position(|lock| lock.id == id).expect("it was there");
        let lock = self.locks.remove(position);
        self.changes.push((seq, lock.claim.clone()));
        self.ended.push(Ended { lock, how, at, successor });
    }

    fn follow_grant(&mut self, seq: u64, grant: &leasehold_core::lock::Grant) {
        let position = self.waiters.iter().position(|it| it.command.lock_id == grant.lock_id);
        let waiter = self.waiters.remove(position.expect("a waiter who left is not granted"));
        let claim =
            Claim { resources: grant.resources.to_vec(), mode: grant.mode, depth: grant.depth };
        assert!(alternatives(&waiter.command).contains(&claim), "what was asked for is granted");
        match &waiter.claimed {
            Some(claimed) => assert_eq!(*claimed, claim.resources, "the place it had is granted"),
            None => {
                let found = self.in_the_way(&claim, &self.asks(&waiter));
                assert!(found.waiting.is_empty(), "first come, first served: {grant:?}");
                assert!(found.is_nothing(), "granted with something in the way: {grant:?}");
            }
        }
        assert_eq!(grant.waited_ms, self.now.lease.since(waiter.since));
        self.grant(seq, &waiter.command, grant);
    }

    /// Checks what holds of every grant, and adds the lock.
    pub(crate) fn grant(
        &mut self,
        seq: u64,
        command: &Acquire,
        grant: &leasehold_core::lock::Grant,
    ) {
        let claim =
            Claim { resources: grant.resources.to_vec(), mode: grant.mode, depth: grant.depth };
        let conflicting = self.live().find(|lock| lock.claim.conflicts(&claim));
        assert!(conflicting.is_none(), "exclusion: {grant:?} and {conflicting:?}");
        let pins = self.pins_against(&claim);
        assert!(pins.is_empty(), "clean hand-over: {grant:?} while {pins:?} are on their way");
        self.grow_fence(grant.fence);
        let ttl_ms = command.ttl_ms.unwrap_or(command.limits.default_ttl_ms);
        let max_deadline = command.limits.max_hold_ms.map(|hold| self.now.lease + hold);
        let asked = self.now.lease + ttl_ms;
        let deadline = max_deadline.map_or(asked, |max| max.min(asked));
        assert_eq!((grant.ttl_ms, grant.deadline), (ttl_ms, deadline));
        assert_eq!(grant.holder, command.caller.principal);
        self.changes.push((seq, claim.clone()));
        self.locks.push(Lock {
            id: grant.lock_id,
            fence: grant.fence,
            holder: grant.holder.clone(),
            claim,
            ttl_ms,
            deadline,
            max_deadline,
            max_ttl_ms: command.limits.max_ttl_ms,
            breaking: false,
            used: false,
            key: command.idempotency.clone(),
            uncollected: None,
        });
    }
}

/// The parts of a target that a shared lock covers, each as a target of its own.
fn shared_regions(claim: &Claim, target: &Target) -> Vec<Target> {
    let Target::Subtree(at) = target else { return vec![target.clone()] };
    let part = |from: &Resource| match claim.depth {
        Depth::Infinity => Target::Subtree(from.clone()),
        Depth::Zero => Target::Content(from.clone()),
    };
    let mut parts = Vec::new();
    if claim.covers(at) {
        parts.push(part(at));
    }
    parts.extend(claim.resources.iter().filter(|each| is_below(at, each)).map(part));
    parts
}

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
