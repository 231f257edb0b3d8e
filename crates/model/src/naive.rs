//! The lock table once more, as plainly as the specification says it: lists, and loops over all of
//! them.
//!
//! It predicts what a command must answer. What it does not predict is the order in which waiters
//! are served by one command: it follows the events, says of each whether it was allowed, and, at
//! the end, whether one is missing.
//!
//! What is on it is here, and what stands in whose way; what covers what is in `geometry`, what a
//! command must be answered in `answers`, how it follows an event in `following`, and what nobody
//! knows of writes in `unknown`.

mod answers;
mod following;
mod geometry;
mod unknown;

use leasehold_core::command::{Acquire, Want};
use leasehold_core::ids::{Fence, LockId, PinId, Principal, WaiterId};
use leasehold_core::lock::{Depth, Idempotency, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_core::time::{LeaseTime, Now, WallTime};

pub(crate) use self::answers::{Acquiring, Token, Writing};
pub(crate) use self::geometry::Claim;
use self::geometry::covers;

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
    /// What writes have changed whose end nobody has seen and no exclusive grant was told of, with
    /// the parts of it that some were told of.
    pub(crate) unknown: Vec<(Target, Vec<Claim>)>,
    /// Until when writes of a process before this one may land; none once a tick has found that
    /// it is over.
    pub(crate) recovery: Option<LeaseTime>,
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
}
