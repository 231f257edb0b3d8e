//! What the judge sees in one event, beside what [`crate::fold`] sees in it.

use leasehold_core::event::{Event, EventBody};
use leasehold_core::ids::LockId;
use leasehold_core::lock::Grant;
use leasehold_core::time::LeaseTime;

use super::{Invariant, Judge, LATENESS, Verdict, broken};
use crate::fold::claim;

impl Judge {
    /// Judges an event that was decided, durable or not.
    pub(super) fn judge_decided(&mut self, event: &Event) -> Verdict {
        match &event.body {
            EventBody::Acquired(grant) => {
                self.judge_order(event, grant);
                self.judge_writes(event, grant, None)
            }
            EventBody::Transferred { lock, to } => {
                self.promises.remove(&lock.lock_id);
                self.judge_writes(event, to, Some(lock.lock_id))
            }
            EventBody::Expired { lock, deadline } => {
                self.judge_promise(event, lock.lock_id, "expired")?;
                self.judge_lateness(event, *deadline)
            }
            EventBody::Released { lock, .. } => {
                if !self.asked_to_end.contains(&lock.lock_id) {
                    self.judge_promise(event, lock.lock_id, "was given back")?;
                }
                self.promises.remove(&lock.lock_id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Judges an event that has become durable: by then a write may be on its way that was let
    /// through too early for it.
    pub(super) fn judge_durable(&self, event: &Event) -> Verdict {
        match &event.body {
            EventBody::Acquired(grant) => self.judge_writes(event, grant, None),
            EventBody::Transferred { lock, to } => self.judge_writes(event, to, Some(lock.lock_id)),
            _ => Ok(()),
        }
    }

    fn judge_promise(&mut self, event: &Event, lock: LockId, how: &str) -> Verdict {
        let Some(promise) = self.promises.remove(&lock) else { return Ok(()) };
        let at = self.decided_at(event.lease);
        if at < promise {
            let what = format!(
                "event {}: {lock} {how} at {at:?}, but was promised until {promise:?}",
                event.seq
            );
            return broken(Invariant::NeverEarly, what);
        }
        Ok(())
    }

    fn judge_lateness(&self, event: &Event, deadline: LeaseTime) -> Verdict {
        let due = deadline.max(self.stood_still_until);
        if due.0 + LATENESS < event.lease.0 {
            let what = format!(
                "event {}: a lock that ended at {} was ended at {}",
                event.seq, deadline.0, event.lease.0
            );
            return broken(Invariant::NotLate, what);
        }
        Ok(())
    }

    /// Notes whom a grant has overtaken. Whether they were still waiting, their answers will tell.
    fn judge_order(&mut self, event: &Event, grant: &Grant) {
        let Some(call) = self.calls_of_locks.get(&grant.lock_id) else { return };
        let Some(granted) = self.sent.get(call) else { return };
        if granted.has_holds {
            return;
        }
        let order = granted.order;
        for (other, sent) in &mut self.sent {
            // One that has come back may have lost its place, or kept it: neither is held against
            // anybody.
            if other != call
                && *other < order
                && !sent.is_any_of
                && sent.claim().conflicts(&claim(grant))
            {
                sent.overtaken_by.push((grant.lock_id, event.seq, event.lease));
            }
        }
    }
}
