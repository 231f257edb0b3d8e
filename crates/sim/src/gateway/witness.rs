//! What lands behind the gateway, beside the locks that the durable log has: clean hand-over as a
//! holder sees it.
//!
//! What always holds: only the log and the API are asked. A write that lands while somebody else
//! has the lock is a breach whatever the grant says, but for those that were sent by a process
//! before this one: of them a grant may know nothing, and then says so.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "helpers of tests may fail them")]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::event::{Event, EventBody, RecoveryCause};
use leasehold_core::ids::{LockId, Seq};
use leasehold_core::lock::{Depth, Grant, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_core::time::LeaseTime;
use leasehold_journal::log::Stored;

use super::api::Exchange;
use crate::client::request_id;
use crate::geometry::Claim;
use crate::judge::{Invariant, Verdict, Violation};

/// Whether a grant has to say that it does not know of a write, or may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Says {
    /// Nobody has seen the end of its answer.
    Must,
    /// It was sent to the gateway, and no more is known of it.
    May,
}

/// What the log has of a lock.
#[derive(Clone, Debug)]
struct Live {
    grant: Grant,
    deadline: LeaseTime,
}

/// Who watches.
#[derive(Debug)]
pub struct Witness {
    recovery_ms: u64,
    last: Seq,
    lease: LeaseTime,
    live: BTreeMap<LockId, Live>,
    shared: BTreeSet<LockId>,
    /// The newest `write_admitted` of each request.
    admitted: BTreeMap<Arc<str>, Seq>,
    recovering_until: LeaseTime,
    doubts: Vec<Doubt>,
}

/// What a write of which nobody knows has changed.
#[derive(Clone, Debug)]
struct Doubt {
    call: u64,
    target: Target,
    says: Says,
    /// The locks whose tokens it presented.
    tokens: Vec<LockId>,
    /// The parts of it that grants have been told of.
    told: Vec<(Resource, Depth)>,
    /// Whether a commit has failed since: then parts may be told again.
    is_loose: bool,
}

impl Doubt {
    /// Whether a grant of one resource meets a part of it that nobody was told of.
    fn is_open_to(&self, part: &Claim<'_>) -> bool {
        let is_told = self.told.iter().any(|(resource, depth)| {
            let told = Claim { resources: std::slice::from_ref(resource), depth: *depth, ..*part };
            told.covers(&part.resources[0])
                && (told.depth, part.depth) != (Depth::Zero, Depth::Infinity)
        });
        part.stands_before(&self.target) && !is_told
    }
}

fn breach(invariant: Invariant, what: String) -> Verdict {
    Err(Violation { invariant, what })
}

fn claim(grant: &Grant) -> Claim<'_> {
    Claim { resources: &grant.resources, mode: grant.mode, depth: grant.depth }
}

impl Witness {
    /// A witness of a new folder.
    #[must_use]
    pub fn new(recovery: Duration) -> Self {
        Self {
            recovery_ms: u64::try_from(recovery.as_millis()).unwrap_or(u64::MAX),
            last: Seq(0),
            lease: LeaseTime(0),
            live: BTreeMap::new(),
            shared: BTreeSet::new(),
            admitted: BTreeMap::new(),
            recovering_until: LeaseTime(0),
            doubts: Vec::new(),
        }
    }

    /// What the lease clock shows from now on.
    pub fn at(&mut self, lease: LeaseTime) {
        self.lease = lease;
    }

    /// Nobody, or perhaps nobody, sees the end of the write that a call is.
    pub fn doubts(&mut self, call: u64, targets: &[Target], tokens: &[LockId], says: Says) {
        self.knows(call);
        let doubt = |target: &Target| Doubt {
            call,
            target: target.clone(),
            says,
            tokens: tokens.to_vec(),
            told: Vec::new(),
            is_loose: false,
        };
        self.doubts.extend(targets.iter().map(doubt));
    }

    /// How the write that a call is has ended is known.
    pub fn knows(&mut self, call: u64) {
        self.doubts.retain(|doubt| doubt.call != call);
    }

    /// The position of the `write_admitted` of a write under a lock. One that is nowhere in the
    /// log is told by a position that no event has.
    #[must_use]
    pub fn admission(&self, exchange: &Exchange) -> Option<Seq> {
        exchange.lock?;
        Some(self.admitted.get(&request_id(exchange.call)).copied().unwrap_or(Seq(u64::MAX)))
    }

    /// Follows what has become durable.
    ///
    /// # Errors
    /// [`Invariant::CleanHandOver`]: a grant does not say what nobody knows, or says it without
    /// need.
    pub fn read(&mut self, events: &[Stored]) -> Verdict {
        let known = self.last;
        for stored in events.iter().filter(|stored| known < stored.seq) {
            let event = match stored.event() {
                Ok(event) => event,
                Err(error) => return breach(Invariant::TrailIsTruth, error.to_string()),
            };
            self.follow(&event)?;
            self.last = stored.seq;
        }
        Ok(())
    }

    fn follow(&mut self, event: &Event) -> Verdict {
        match &event.body {
            EventBody::Recovered { cause, .. } => self.recovered(event.lease, *cause),
            EventBody::Acquired(grant) => {
                self.judge_grant(event, grant)?;
                self.add(grant);
            }
            EventBody::Transferred { lock, to } => {
                self.judge_grant(event, to)?;
                self.live.remove(&lock.lock_id);
                self.add(to);
            }
            EventBody::Renewed { lock, deadline, .. }
            | EventBody::BreakAnnounced { lock, deadline, .. } => {
                if let Some(live) = self.live.get_mut(&lock.lock_id) {
                    live.deadline = *deadline;
                }
            }
            EventBody::Expired { lock, .. }
            | EventBody::Released { lock, .. }
            | EventBody::Broken { lock, .. } => {
                self.live.remove(&lock.lock_id);
            }
            EventBody::WriteAdmitted { .. } => {
                if let Some(request) = &event.origin.request_id {
                    self.admitted.insert(request.clone(), event.seq);
                }
            }
            EventBody::WriteCompleted { .. }
            | EventBody::WriteChecked { .. }
            | EventBody::Requested { .. }
            | EventBody::Refused { .. }
            | EventBody::Frozen(_)
            | EventBody::Unfrozen { .. }
            | EventBody::Trimmed { .. } => {}
        }
        Ok(())
    }

    /// A process has begun: what the one before it did not know of writes is forgotten.
    fn recovered(&mut self, lease: LeaseTime, cause: RecoveryCause) {
        self.recovering_until = match cause {
            RecoveryCause::FailedCommit | RecoveryCause::Created => {
                self.doubts.iter_mut().for_each(|doubt| doubt.is_loose = true);
                return;
            }
            RecoveryCause::Crash | RecoveryCause::Restored => lease + self.recovery_ms,
            RecoveryCause::CleanStart => LeaseTime(0),
        };
        self.doubts.clear();
    }

    fn add(&mut self, grant: &Grant) {
        if grant.mode == Mode::Shared {
            self.shared.insert(grant.lock_id);
        }
        let live = Live { grant: grant.clone(), deadline: grant.deadline };
        self.live.insert(grant.lock_id, live);
    }

    /// A grant says that it knows of the writes before it, or that it does not.
    fn judge_grant(&mut self, event: &Event, grant: &Grant) -> Verdict {
        let part = |resource| Claim { resources: std::slice::from_ref(resource), ..claim(grant) };
        let parts: Vec<Claim<'_>> = grant.resources.iter().map(part).collect();
        let is_open = |doubt: &Doubt| parts.iter().any(|part| doubt.is_open_to(part));
        let recovers = event.lease < self.recovering_until;
        let is_shared = grant.mode == Mode::Shared;
        // Beside the write of a sharer others may share: it may not have ended by then.
        let may_be_beside = |doubt: &Doubt| {
            is_shared && doubt.tokens.iter().any(|token| self.shared.contains(token))
        };
        let must = self
            .doubts
            .iter()
            .any(|doubt| doubt.says == Says::Must && is_open(doubt) && !may_be_beside(doubt));
        let may = self.doubts.iter().any(|doubt| {
            is_open(doubt) || (doubt.is_loose && claim(grant).stands_before(&doubt.target))
        });
        if !is_shared {
            // What is not known to be in doubt may come to be so later.
            self.doubts.retain_mut(|doubt| {
                if doubt.says == Says::May {
                    return true;
                }
                for part in &parts {
                    if part.stands_before(&doubt.target) {
                        doubt.told.push((part.resources[0].clone(), part.depth));
                    }
                }
                !parts.iter().any(|part| part.stands_before_all(&doubt.target))
            });
        }
        let lock = grant.lock_id;
        let what = match (grant.predecessor_unknown, recovers, must, may) {
            (false, true, ..) => "does not say that writes from before the crash may land",
            (false, _, true, _) => "does not say that a write before it was never answered",
            (true, false, _, false) => "says without need that it does not know of writes",
            _ => return Ok(()),
        };
        breach(Invariant::CleanHandOver, format!("event {}: {lock} {what}", event.seq))
    }

    /// A write lands.
    ///
    /// # Errors
    /// [`Invariant::CleanHandOver`]: somebody else has the lock.
    pub fn landed(&self, write: u64, exchange: &Exchange) -> Verdict {
        let shares = exchange.tokens.iter().any(|token| self.shared.contains(token));
        let is_excused = |grant: &Grant| {
            exchange.tokens.contains(&grant.lock_id)
                || (shares && grant.mode == Mode::Shared)
                || (grant.predecessor_unknown
                    && exchange.lost.is_some_and(|lost| lost.has_outlived_its_process))
        };
        let under = self.live.values().find(|live| {
            self.lease < live.deadline
                && exchange.targets.iter().any(|target| claim(&live.grant).stands_before(target))
                && !is_excused(&live.grant)
        });
        let Some(Live { grant, .. }) = under else { return Ok(()) };
        let what = format!(
            "write {write} of call {} landed while {} of {} lived",
            exchange.call, grant.lock_id, grant.holder
        );
        breach(Invariant::CleanHandOver, what)
    }

    /// A write was sent again.
    ///
    /// # Errors
    /// [`Invariant::Exclusion`]: only the first was let through.
    pub fn sent_again(&self, call: u64) -> Verdict {
        breach(Invariant::Exclusion, format!("the write of call {call} was sent twice"))
    }
}
