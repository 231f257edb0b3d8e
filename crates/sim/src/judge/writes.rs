//! Writes that were let through, against the locks.

use leasehold_core::event::Event;
use leasehold_core::ids::{LockId, Principal, Seq};
use leasehold_core::lock::{Grant, Lock, Mode};
use leasehold_core::target::Target;

use super::{Invariant, Judge, Verdict, broken};
use crate::fold::{Live, claim};

/// A write that was let through.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Its number at the upstream.
    pub write: u64,
    /// The call it is.
    pub call: u64,
    /// How often the journal had failed when it was sent.
    pub failures: u64,
    /// What it changes.
    pub targets: Vec<Target>,
    /// The locks whose tokens it presented.
    pub tokens: Vec<LockId>,
    /// The position of its `write_admitted`.
    pub admission: Option<Seq>,
    /// Whose it is.
    pub by: Principal,
}

/// A write that was let through and may still land.
#[derive(Clone, Debug)]
pub(super) struct Underway {
    pub(super) targets: Vec<Target>,
    pub(super) tokens: Vec<LockId>,
    /// Whether one of them is a shared one: then it may pass all others that are.
    pub(super) shares: bool,
}

impl Underway {
    fn has_token_for(&self, grant: &Grant) -> bool {
        self.tokens.contains(&grant.lock_id) || (self.shares && grant.mode == Mode::Shared)
    }

    fn changes_what_is_under(&self, grant: &Grant) -> bool {
        self.targets.iter().any(|target| claim(grant).stands_before(target))
    }

    /// Whether it may not be on its way beside a lock.
    fn excludes(&self, grant: &Grant) -> bool {
        self.changes_what_is_under(grant) && !self.has_token_for(grant)
    }
}

impl Judge {
    /// A write was let through.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn write_begun(&mut self, begun: Begun) -> Verdict {
        let Begun { write, call, failures, targets, mut tokens, admission, by } = begun;
        let table = &self.trail.table;
        tokens.retain(|id| table.live.get(id).is_none_or(|live| live.grant.holder == by));
        if let Some(seq) = admission
            && !table.admitted.contains(&seq)
        {
            return self.missing(call, failures, format!("write {write} was admitted at {seq}"));
        }
        let shares = tokens.iter().any(|token| self.trail.is_shared(*token));
        let underway = Underway { targets, tokens, shares };
        // It was admitted a while ago: the lock that it had then may have ended since.
        let is_in_the_way =
            |live: &&Live| self.lease < live.deadline && underway.excludes(&live.grant);
        if let Some(live) = table.live.values().find(is_in_the_way) {
            let id = live.grant.lock_id;
            let which = if self.asked_to_end.contains(&id) {
                // It was let through because the lock had ended, and that is not durable.
                Invariant::DurableBeforeSaid
            } else {
                Invariant::Exclusion
            };
            return broken(which, format!("write {write} was let through against {id}"));
        }
        // Against one that is not durable either.
        if let Some(live) = self.ahead.live.values().find(is_in_the_way) {
            let what = format!("write {write} was let through against {}", live.grant.lock_id);
            return broken(Invariant::Exclusion, what);
        }
        self.underway.insert(write, underway);
        Ok(())
    }

    /// Nothing of a write can land any more.
    pub fn write_over(&mut self, write: u64) {
        self.underway.remove(&write);
    }

    /// Judges a grant, or a lock that was handed over from the one before it.
    pub(super) fn judge_writes(
        &self,
        event: &Event,
        grant: &Grant,
        before: Option<LockId>,
    ) -> Verdict {
        for (write, underway) in &self.underway {
            let is_broken = match before {
                // Handed over: the writes of the one who had it before have to have ended.
                Some(before) => {
                    underway.changes_what_is_under(grant) && underway.tokens.contains(&before)
                }
                None => underway.excludes(grant),
            };
            if is_broken {
                let what = format!(
                    "event {}: {} was granted while write {write} was on its way",
                    event.seq, grant.lock_id
                );
                return broken(Invariant::CleanHandOver, what);
            }
        }
        Ok(())
    }

    /// No lock lives beside a write on its way that has no token for it.
    pub(super) fn judge_live_against_writes(&self, live: &[&Lock]) -> Verdict {
        for (write, underway) in &self.underway {
            if let Some(lock) = live.iter().find(|lock| underway.excludes(&lock.grant)) {
                let what =
                    format!("{} lives while write {write} is on its way", lock.grant.lock_id);
                return broken(Invariant::CleanHandOver, what);
            }
        }
        Ok(())
    }
}
