//! What the judge sees in one event of the durable log, beside what [`crate::trail`] sees in it.

use leasehold_core::event::{Event, EventBody};
use leasehold_core::ids::LockId;
use leasehold_core::lock::{Grant, Mode};
use leasehold_core::time::LeaseTime;

use super::{Invariant, Judge, LATENESS, Verdict, broken};
use crate::trail::claim;

impl Judge {
    pub(super) fn judge_event(&mut self, event: &Event) -> Verdict {
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

    fn judge_writes(&self, event: &Event, grant: &Grant, before: Option<LockId>) -> Verdict {
        for (call, write) in &self.underway {
            let stands_before =
                write.targets.iter().any(|target| claim(grant).stands_before(target));
            let may_pass = match before {
                // Handed over: the writes of the one who had it before have to have ended.
                Some(before) => !write.tokens.contains(&before),
                None => {
                    write.tokens.contains(&grant.lock_id)
                        || (write.shares && grant.mode == Mode::Shared)
                }
            };
            if stands_before && !may_pass {
                let what = format!(
                    "event {}: {} was granted while write {call} was on its way",
                    event.seq, grant.lock_id
                );
                return broken(Invariant::CleanHandOver, what);
            }
        }
        Ok(())
    }
}
