//! The engine: one value behind one lock.

use std::sync::Arc;

use leasehold_core::command::Presented;
use leasehold_core::event::{EventBody, Origin, WriteResult};
use leasehold_core::ids::{Fence, LockId, PinId, Principal, Seq};
use leasehold_core::resource::Resource;
use leasehold_core::table::TableLimits;
use leasehold_core::time::{LeaseTime, Now};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::shared::{Core, Serving, Shared};

/// Why the engine gave no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// A commit failed while the answer waited for it: whether it took effect is not known.
    #[error("the journal failed; whether the request took effect is not known")]
    StorageFailure,
    /// The journal does not work: nothing was tried.
    #[error("the journal does not work at the moment")]
    Unavailable,
    /// The engine is shutting down: nothing was tried, or the wait was given up.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The grant's deadline passed before it could be told.
    #[error("the lock expired before its grant could be told")]
    ExpiredBeforeTold,
}

/// The engine. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// Counts of what is going on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stats {
    /// Live locks.
    pub locks: usize,
    /// Parked acquires.
    pub waiters: usize,
    /// Writes that were let through and have not ended.
    pub writes_in_flight: usize,
    /// The newest durable event.
    pub durable: Seq,
    /// Whether commands are taken.
    pub serving: bool,
}

impl Engine {
    /// The clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let core = self.shared.lock();
        self.shared.now(&core)
    }

    /// How long until a deadline, in milliseconds, rounded so that the promise is kept; 0 when it
    /// has passed.
    #[must_use]
    pub fn remaining_ms(&self, deadline: LeaseTime) -> u64 {
        let core = self.shared.lock();
        deadline.since(core.lease.read_up(self.shared.clock.monotonic()))
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// The incarnation that tokens and entity tags are bound to, in hexadecimal.
    #[must_use]
    pub fn incarnation(&self) -> &str {
        &self.shared.incarnation
    }

    /// The newest durable event, as it grows.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<Seq> {
        self.shared.durable_watch.subscribe()
    }

    /// The token of a grant. A secret.
    #[must_use]
    pub fn token(&self, lock_id: LockId, fence: Fence) -> String {
        self.shared.tokens.load().mint(lock_id, fence)
    }

    /// What a presented token claims, if it was issued here.
    #[must_use]
    pub fn read_token(&self, token: &str) -> Presented {
        self.shared.tokens.load().read(token)
    }

    /// Counts of what is going on.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let core = self.shared.lock();
        Stats {
            locks: core.table.live(),
            waiters: core.table.waiters(),
            writes_in_flight: core.table.writes_in_flight(),
            durable: self.shared.durable(),
            serving: core.serving == Serving::Yes,
        }
    }

    /// Whether commands are taken.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.shared.lock().serving == Serving::Yes
    }

    /// Counts a refusal for the trail.
    pub fn count_refusal(
        &self,
        resource: Option<Resource>,
        holder: Option<Principal>,
        name: &'static str,
    ) {
        let wall = self.shared.clock.wall();
        let mut core = self.shared.lock();
        if core.serving == Serving::Yes {
            let finished = core.refusals.flush_before(wall);
            self.record(&mut core, finished);
        }
        core.refusals.count(resource, holder, name, wall);
    }

    pub(crate) fn record(&self, core: &mut Core, events: Vec<EventBody>) {
        if events.is_empty() {
            return;
        }
        self.shared.decide_in(core, |core, now| {
            for body in events {
                core.table.record(body, Origin::default(), now);
            }
        });
    }

    /// Every write whose admission comes before the first is closed in the trail, once the second
    /// is durable.
    #[must_use]
    pub fn closed_admissions(&self) -> (Seq, Seq) {
        let core = self.shared.lock();
        let newest = core.table.state().seq();
        let open = core.table.state().open_admissions().map(|open| open.admission).min();
        // Positions that are not durable may come to be those of other admissions.
        let durable = self.shared.durable().next();
        (open.unwrap_or(newest).min(durable), newest)
    }

    /// Changes the limits of the table.
    pub fn set_limits(&self, limits: TableLimits) {
        let mut core = self.shared.lock();
        core.limits = limits;
        core.table.set_limits(limits);
    }

    /// A pin whose write is over.
    pub(crate) fn unpin(&self, pin: PinId, result: WriteResult) {
        let mut core = self.shared.lock();
        match core.serving {
            Serving::Recovering => core.ended_meanwhile.push((pin, result)),
            Serving::Yes | Serving::Stopping => {
                self.shared.decide_in(&mut core, |core, now| core.table.complete(pin, result, now));
            }
        }
    }

    /// A write that nobody will say the end of. While the engine stops it stays open: the next
    /// start finds out how it ended, and nothing is granted until then.
    pub(crate) fn unpin_unknown(&self, pin: PinId) {
        if !self.shared.lock().stopping {
            self.unpin(pin, WriteResult::Unknown);
        }
    }

    /// An answer that told of a grant is lost.
    pub(crate) fn lost_answer(&self, lock_id: LockId) {
        let mut core = self.shared.lock();
        match core.serving {
            Serving::Recovering => core.undelivered_meanwhile.push(lock_id),
            Serving::Yes | Serving::Stopping => {
                self.shared.decide_in(&mut core, |core, now| core.not_told(lock_id, now));
            }
        }
    }
}
