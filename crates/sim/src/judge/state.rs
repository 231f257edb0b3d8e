//! What holds of the engine's table after each step, whatever has brought it about, and what clients
//! see of it when everything is at rest.

use std::collections::BTreeMap;

use leasehold_core::command::Want;
use leasehold_core::ids::LockId;
use leasehold_core::lock::Lock;
use leasehold_engine::start::Look;

use super::{Invariant, Judge, LATENESS, Verdict, broken};
use crate::fold::{Live, claim};

impl Judge {
    /// Judges what a step has left behind.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn after_step(&mut self, look: &Look<'_>) -> Verdict {
        self.decided(look.gathered)?;
        // While the log is brought back nobody is answered from the table, nor can anybody tell what
        // is durable.
        if !look.is_serving {
            return Ok(());
        }
        self.judge_what_counts_as_durable(look)?;
        let locks: Vec<Lock> = look.table.state().live_locks().collect();
        let (live, due): (Vec<&Lock>, Vec<&Lock>) =
            locks.iter().partition(|lock| lock.is_live(look.now.lease));
        judge_pairs(&live)?;
        self.judge_live_against_writes(&live)?;
        self.judge_told_against_live(&live)?;
        self.judge_due(look, &due)?;
        self.judge_bounds(look, live.len())?;
        self.judge_parked(look)?;
        self.judge_fold(&locks)
    }

    /// Nothing counts as durable that the log does not have.
    fn judge_what_counts_as_durable(&self, look: &Look<'_>) -> Verdict {
        if look.durable <= self.trail.last() {
            return Ok(());
        }
        let which = if self.is_harmed { Invariant::FailStop } else { Invariant::DurableBeforeSaid };
        let what = format!(
            "event {} counts as durable, the log ends with {}",
            look.durable,
            self.trail.last()
        );
        broken(which, what)
    }

    /// What was promised lives.
    fn judge_told_against_live(&self, live: &[&Lock]) -> Verdict {
        let promised = self.promises.iter().filter(|(_, until)| self.mono < **until);
        for (id, until) in promised {
            if !live.iter().any(|lock| lock.grant.lock_id == *id) {
                let what = format!("{id} was promised until {until:?}, and has ended");
                return broken(Invariant::NeverEarly, what);
            }
        }
        Ok(())
    }

    /// What is due has not been so for long.
    fn judge_due(&self, look: &Look<'_>, due: &[&Lock]) -> Verdict {
        let late = due
            .iter()
            .find(|lock| lock.deadline.max(self.stood_still_until).0 + LATENESS < look.now.lease.0);
        let Some(lock) = late else { return Ok(()) };
        let what =
            format!("{} was due at {} and is there yet", lock.grant.lock_id, lock.deadline.0);
        broken(Invariant::NotLate, what)
    }

    fn judge_bounds(&self, look: &Look<'_>, live: usize) -> Verdict {
        if self.limits.max_locks < live {
            return broken(Invariant::Bounded, format!("{live} locks"));
        }
        if self.limits.max_waiters < look.table.waiters() {
            return broken(Invariant::Bounded, format!("{} waiters", look.table.waiters()));
        }
        let mut queues: BTreeMap<&str, usize> = BTreeMap::new();
        // One that waits for any of several keeps only one place once it has only writes before it.
        let is_any_of = |want: &Want| matches!(want, Want::AnyOf(each) if each.len() > 1);
        for parked in look.table.parked().filter(|parked| !is_any_of(&parked.want)) {
            for resource in parked.want.resources().iter() {
                let queue = queues.entry(resource.as_str()).or_default();
                *queue += 1;
                if self.limits.max_queue < *queue {
                    return broken(Invariant::Bounded, format!("{queue} wait for {resource}"));
                }
            }
        }
        Ok(())
    }

    /// Nobody waits who should have been served before another was.
    fn judge_parked(&self, look: &Look<'_>) -> Verdict {
        for parked in look.table.parked() {
            let call = self.calls_of_locks.get(&parked.lock_id);
            let Some((call, sent)) = call.and_then(|call| Some((call, self.sent.get(call)?)))
            else {
                continue;
            };
            if let Some((other, seq, _)) = sent.overtaken_by.first() {
                let what = format!("call {call} waits while {other} was granted at {seq}");
                return broken(Invariant::FirstComeFirstServed, what);
            }
        }
        Ok(())
    }

    /// The table is what its events come to.
    fn judge_fold(&self, locks: &[Lock]) -> Verdict {
        for lock in locks {
            let id = lock.grant.lock_id;
            let Some(live) = self.ahead.live.get(&id) else {
                return broken(Invariant::TrailIsTruth, format!("{id} lives by no event"));
            };
            if !is_same(lock, live) {
                let what = format!(
                    "{id} ends at {} in the table, and at {} by its events",
                    lock.deadline.0, live.deadline.0
                );
                return broken(Invariant::TrailIsTruth, what);
            }
        }
        if locks.len() != self.ahead.live.len() {
            let what = format!(
                "{} locks in the table, and {} by their events",
                locks.len(),
                self.ahead.live.len()
            );
            return broken(Invariant::TrailIsTruth, what);
        }
        Ok(())
    }

    // ---- at rest -------------------------------------------------------------------------------

    /// Everything that was decided is durable, and the server has had its turn: locks that are long
    /// over have to be over in the log.
    ///
    /// # Errors
    /// [`Invariant::NotLate`].
    pub fn at_rest(&self) -> Verdict {
        // While nothing becomes durable no end can show.
        let live = self.trail.table.live.iter().filter(|_| !self.is_harmed);
        for (id, live) in live {
            let due = live.deadline.max(self.stood_still_until);
            if due.0 + LATENESS < self.lease.0 {
                let what = format!("{id} was due at {} and lives on", live.deadline.0);
                return broken(Invariant::NotLate, what);
            }
        }
        Ok(())
    }

    /// Compares the live locks that a client was shown with the log.
    ///
    /// # Errors
    /// [`Invariant::TrailIsTruth`] or [`Invariant::FailStop`].
    pub fn listed(&self, locks: &[Lock]) -> Verdict {
        // Where the disk has failed, what is shown was acknowledged and never came to be.
        let which = if self.is_harmed { Invariant::FailStop } else { Invariant::TrailIsTruth };
        let shown: BTreeMap<LockId, &Lock> =
            locks.iter().map(|lock| (lock.grant.lock_id, lock)).collect();
        let live = self.trail.table.live.iter().filter(|(_, live)| self.lease < live.deadline);
        let live: BTreeMap<LockId, &Live> = live.map(|(id, live)| (*id, live)).collect();
        if let Some(id) = shown.keys().find(|id| !live.contains_key(id)) {
            return broken(which, format!("{id} is shown, but not in the log"));
        }
        for (id, live) in live {
            let Some(shown) = shown.get(&id) else {
                let what = format!("{id} lives in the log, but is not shown");
                return broken(which, what);
            };
            if !is_same(shown, live) {
                let what = format!(
                    "{id} is shown until {}, and ends in the log at {}",
                    shown.deadline.0, live.deadline.0
                );
                return broken(which, what);
            }
        }
        Ok(())
    }
}

/// No two of them conflict.
fn judge_pairs(live: &[&Lock]) -> Verdict {
    for (at, one) in live.iter().enumerate() {
        let other =
            live[at + 1..].iter().find(|other| claim(&one.grant).conflicts(&claim(&other.grant)));
        if let Some(other) = other {
            let what = format!("{} lives beside {}", one.grant.lock_id, other.grant.lock_id);
            return broken(Invariant::Exclusion, what);
        }
    }
    Ok(())
}

fn is_same(lock: &Lock, live: &Live) -> bool {
    lock.deadline == live.deadline && lock.grant == live.grant && lock.renewals == live.renewals
}
