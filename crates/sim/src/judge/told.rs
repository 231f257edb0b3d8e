//! What clients are told, against the durable log.

use std::time::Duration;

use leasehold_core::ids::LockId;
use leasehold_core::lock::Lock;

use super::{Invariant, Judge, Verdict, broken};
use crate::client::request_id;
use crate::trail::How;

impl Judge {
    /// What is missing in the log although an answer rests on it.
    pub(super) fn missing(&self, call: u64, failures_before: u64, what: String) -> Verdict {
        let which = if self.trail.requests.contains(&request_id(call)) {
            // The request has its event, and the event says something else.
            Invariant::TrailIsTruth
        } else if self.is_harmed || failures_before != self.failures {
            Invariant::FailStop
        } else {
            Invariant::DurableBeforeSaid
        };
        broken(which, format!("{what}, which is not in the log"))
    }

    /// A client is told of a grant: how long it has it.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn granted(&mut self, call: u64, failures: u64, lock: &Lock, remaining_ms: u64) -> Verdict {
        let grant = &lock.grant;
        if self.trail.grants.get(&grant.lock_id) != Some(&(grant.fence, grant.mode)) {
            return self.missing(call, failures, format!("{} was granted", grant.lock_id));
        }
        if let Some(other) = self.told_fences.insert(grant.fence, grant.lock_id)
            && other != grant.lock_id
        {
            let what = format!("fence {} is of {other} and {}", grant.fence, grant.lock_id);
            return broken(Invariant::FencesGrow, what);
        }
        if let Some(sent) = self.sent.remove(&call)
            && let Some((other, seq, _)) = sent.overtaken_by.first()
        {
            let what = format!(
                "call {call} was granted {} after {other} of a later call, at event {seq}",
                grant.lock_id
            );
            return broken(Invariant::FirstComeFirstServed, what);
        }
        self.promise(call, grant.lock_id, remaining_ms);
        Ok(())
    }

    fn promise(&mut self, call: u64, lock: LockId, remaining_ms: u64) {
        if self.asked_to_end.contains(&lock) || self.trail.ended.contains_key(&lock) {
            return;
        }
        let told = self.mono + Duration::from_millis(remaining_ms);
        // Its holder may have asked for less since.
        let later = self.shortened.get(&lock).into_iter().flatten();
        let later = later.filter(|(other, _)| call < *other).map(|(_, until)| *until);
        self.promises.insert(lock, later.fold(told, Duration::min));
    }

    /// A client is told that its wait is over, and what was in its way.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn refused_locked(
        &mut self,
        call: u64,
        failures: u64,
        lock: Option<&Lock>,
        waited_ms: u64,
    ) -> Verdict {
        let sent = self.sent.remove(&call);
        if let Some(lock) = lock
            && !self.trail.grants.contains_key(&lock.grant.lock_id)
        {
            return self.missing(call, failures, format!("call {call} met {}", lock.grant.lock_id));
        }
        let Some(sent) = sent else { return Ok(()) };
        let Some(until) = sent.until.filter(|_| waited_ms > 0) else { return Ok(()) };
        let overtaken = sent.overtaken_by.iter().find(|(.., lease)| *lease < until);
        if let Some((other, seq, _)) = overtaken {
            let what = format!("call {call} waited in vain while {other} was granted at {seq}");
            return broken(Invariant::FirstComeFirstServed, what);
        }
        Ok(())
    }

    /// A client is told of a renewal.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn renewed(&mut self, call: u64, failures: u64, lock: &Lock, remaining_ms: u64) -> Verdict {
        let id = lock.grant.lock_id;
        if !self.trail.renewed.contains(&(id, lock.deadline)) {
            return self.missing(
                call,
                failures,
                format!("{id} was renewed until {}", lock.deadline.0),
            );
        }
        self.promise(call, id, remaining_ms);
        Ok(())
    }

    /// A client is told that a lock has ended, by its own doing.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn ended(&mut self, call: u64, failures: u64, lock: LockId) -> Verdict {
        if self.trail.ended.contains_key(&lock) {
            return Ok(());
        }
        self.missing(call, failures, format!("{lock} has ended"))
    }

    /// A client is told that it has broken a lock, or will have.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn broke(&mut self, call: u64, failures: u64, lock: LockId) -> Verdict {
        if self.trail.broken.contains(&lock) {
            return Ok(());
        }
        self.missing(call, failures, format!("{lock} was broken"))
    }

    /// A holder is told that it has lost its lock. By its deadline it may not have.
    ///
    /// # Errors
    /// [`Invariant::NeverEarly`].
    pub fn lost(&mut self, lock: LockId) -> Verdict {
        let by_itself = !matches!(
            self.trail.ended.get(&lock),
            Some(How::Released | How::Broken | How::Transferred)
        );
        match self.promises.get(&lock) {
            Some(promise) if by_itself && self.mono < *promise => {
                let what =
                    format!("{lock} was promised until {promise:?} and is lost at {:?}", self.mono);
                broken(Invariant::NeverEarly, what)
            }
            _ => Ok(()),
        }
    }
}
