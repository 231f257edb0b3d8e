//! The naive table follows an event: whether it was allowed, and what it changes.

use leasehold_core::command::Acquire;
use leasehold_core::event::{Event, EventBody};
use leasehold_core::ids::{Fence, LockId, Principal};
use leasehold_core::lock::{Depth, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::time::LeaseTime;

use super::{Claim, Ended, Frozen, How, Lock, Naive, alternatives};

impl Naive {
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
                assert_eq!(to.predecessor_unknown, self.is_unknown_to(&before.claim));
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
        let goes_ahead = waiter.until <= self.now.lease;
        assert!(
            goes_ahead || !self.awaits_recovery(&waiter.command),
            "granted while writes of the process before may land: {grant:?}"
        );
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
        assert_eq!(grant.predecessor_unknown, self.is_unknown_to(&claim), "{grant:?}");
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
