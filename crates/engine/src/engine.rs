//! The engine: one value behind one lock.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use leasehold_core::command::Presented;
use leasehold_core::event::{Event, EventBody, Origin, WriteResult};
use leasehold_core::ids::{Fence, LockId, PinId, Principal, Seq, WaiterId};
use leasehold_core::resource::Resource;
use leasehold_core::table::{LockTable, Woken};
use leasehold_core::time::{LeaseTime, Now};
use tokio::sync::{Notify, oneshot, watch};

use crate::clock::{Clock, LeaseClock};
use crate::refusals::Refusals;
use crate::token::TokenKeys;

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

/// What an answer rests on: the newest event in the table when it was decided.
///
/// Positions are used again after a failed commit, for other events; the epoch tells them apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rest {
    pub(crate) epoch: u64,
    pub(crate) seq: Seq,
}

/// What a parked command is answered with, and what the answer rests on.
pub(crate) type ParkedAnswer = Result<(Woken, Rest), EngineError>;

/// The state behind the lock.
pub(crate) struct Core {
    pub(crate) table: LockTable,
    pub(crate) lease: LeaseClock,
    pub(crate) serving: Serving,
    /// How often the table was dropped after a failed commit.
    pub(crate) epoch: u64,
    /// Events that the journal's thread has not taken yet.
    pub(crate) group: Vec<Event>,
    pub(crate) parked: HashMap<WaiterId, oneshot::Sender<ParkedAnswer>>,
    /// Answers that wait for a commit, in the order of what they rest on.
    pub(crate) awaiting: VecDeque<(Seq, oneshot::Sender<Result<(), EngineError>>)>,
    /// Writes that ended while the log was being brought back.
    pub(crate) ended_meanwhile: Vec<(PinId, WriteResult)>,
    pub(crate) refusals: Refusals,
}

/// Whether commands are taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Serving {
    /// Yes.
    Yes,
    /// A commit failed; the log is being brought back.
    Recovering,
    /// The engine is shutting down.
    Stopping,
}

pub(crate) struct Shared {
    pub(crate) core: Mutex<Core>,
    /// Wakes the journal's thread: there is something to commit, or it is to stop.
    pub(crate) work: Condvar,
    pub(crate) durable: AtomicU64,
    /// The core's epoch, to be read after `durable`: a reading of that of the same epoch is good.
    pub(crate) epoch: AtomicU64,
    /// Wakes the task that settles answers.
    pub(crate) settle: Notify,
    /// Wakes the task that fires deadlines: an earlier one may have come.
    pub(crate) timer: Notify,
    pub(crate) next_deadline: AtomicU64,
    pub(crate) durable_watch: watch::Sender<Seq>,
    pub(crate) tokens: TokenKeys,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) incarnation: Arc<str>,
    pub(crate) stop: std::sync::atomic::AtomicBool,
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

/// How many due things a command ends before it runs; the rest counts as ended all the same and
/// is written down by the timer.
const TICK_BUDGET: usize = 64;

/// A panic while the table is being changed leaves it half changed: the process ends, and the
/// next start reads the log.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a panic in the engine: the process ends so that the log is read anew");
            std::process::abort();
        }
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        // A poisoned lock cannot be met: whoever panics under it ends the process.
        self.core.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn durable(&self) -> Seq {
        Seq(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn now(&self, core: &Core) -> Now {
        Now { lease: core.lease.read(self.clock.monotonic()), wall: self.clock.wall() }
    }

    /// Runs one decision: ends what is due, runs `decide`, hands the events to the journal and the
    /// answers of parked commands to whoever waits for them.
    pub(crate) fn decide<T>(
        &self,
        decide: impl FnOnce(&mut Core, Now) -> T,
    ) -> Result<T, EngineError> {
        let mut core = self.lock();
        match core.serving {
            Serving::Yes => {}
            Serving::Recovering => return Err(EngineError::Unavailable),
            Serving::Stopping => return Err(EngineError::ShuttingDown),
        }
        Ok(self.decide_in(&mut core, decide))
    }

    pub(crate) fn decide_in<T>(
        &self,
        core: &mut Core,
        decide: impl FnOnce(&mut Core, Now) -> T,
    ) -> T {
        let _abort = AbortOnPanic;
        let now = self.now(core);
        core.table.tick(now, TICK_BUDGET);
        let answer = decide(core, now);
        self.after(core);
        answer
    }

    /// Hands on what a change of the table has brought.
    pub(crate) fn after(&self, core: &mut Core) {
        if core.table.has_events() {
            let was_empty = core.group.is_empty();
            let mut events = core.table.take_events();
            if was_empty {
                core.group = events;
                self.work.notify_one();
            } else {
                core.group.append(&mut events);
            }
        }
        let rests_on = core.rest();
        for (waiter, woken) in core.table.take_wakes() {
            if let Some(parked) = core.parked.remove(&waiter) {
                let unclaimed = parked.send(Ok((woken, rests_on)));
                if let Err(Ok((Woken::Granted(granted), _))) = unclaimed {
                    // Its client went while it was being granted; the task's own drop could not
                    // know. The grant is given back in a moment of its own.
                    let now = self.now(core);
                    core.table.undelivered(granted.lock.grant.lock_id, now);
                }
            }
        }
        if core.table.has_events() {
            self.after(core);
        }
        let next = core.table.next_deadline().map_or(u64::MAX, |at| at.0);
        if next < self.next_deadline.swap(next, Ordering::AcqRel) {
            self.timer.notify_one();
        }
    }

    /// Whether what an answer rests on is durable; [`EngineError::StorageFailure`] if it was
    /// dropped with the table that a failed commit left.
    fn is_settled(&self, rest: Rest) -> Result<bool, EngineError> {
        let durable = self.durable();
        if self.epoch.load(Ordering::Acquire) == rest.epoch {
            Ok(rest.seq <= durable)
        } else {
            Err(EngineError::StorageFailure)
        }
    }

    /// Waits until what an answer rests on is durable.
    pub(crate) async fn settled(&self, rest: Rest) -> Result<(), EngineError> {
        if self.is_settled(rest)? {
            return Ok(());
        }
        let wait = {
            let mut core = self.lock();
            if self.is_settled(rest)? {
                return Ok(());
            }
            let (done, wait) = oneshot::channel();
            let at = core.awaiting.partition_point(|(other, _)| *other <= rest.seq);
            core.awaiting.insert(at, (rest.seq, done));
            wait
        };
        wait.await.unwrap_or(Err(EngineError::StorageFailure))
    }
}

impl Core {
    /// What an answer that is decided now rests on.
    pub(crate) fn rest(&self) -> Rest {
        Rest { epoch: self.epoch, seq: self.table.state().seq() }
    }
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
        self.shared.tokens.mint(lock_id, fence)
    }

    /// What a presented token claims, if it was issued here.
    #[must_use]
    pub fn read_token(&self, token: &str) -> Presented {
        self.shared.tokens.read(token)
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
        let mut core = self.shared.lock();
        let wall = self.shared.clock.wall();
        let finished = core.refusals.count(resource, holder, name, wall);
        self.record(&mut core, finished);
    }

    fn record(&self, core: &mut Core, events: Vec<EventBody>) {
        if events.is_empty() || core.serving != Serving::Yes {
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
        (open.unwrap_or(newest), newest)
    }

    /// Changes the limits of the table.
    pub fn set_limits(&self, limits: leasehold_core::table::TableLimits) {
        self.shared.lock().table.set_limits(limits);
    }

    /// Runs until [`Engine::stop`]: settles answers after each commit and fires deadlines. One
    /// task of the runtime that serves requests.
    pub async fn run(self) {
        loop {
            let sleep = self.until_next_deadline();
            tokio::select! {
                () = self.shared.settle.notified() => self.settle(),
                () = self.shared.timer.notified() => {}
                () = tokio::time::sleep(sleep) => self.fire(),
            }
            if self.shared.stop.load(Ordering::Acquire) {
                self.settle();
                return;
            }
        }
    }

    fn until_next_deadline(&self) -> Duration {
        let core = self.shared.lock();
        let wall = self.shared.clock.wall();
        let lease = match core.table.next_deadline() {
            Some(at) if core.serving == Serving::Yes => {
                let now = core.lease.read(self.shared.clock.monotonic());
                Duration::from_millis(at.since(now))
            }
            _ => IDLE,
        };
        let thaw = match core.table.next_thaw() {
            Some(at) => {
                Duration::from_millis(u64::try_from(at.0.saturating_sub(wall.0)).unwrap_or(0))
            }
            None => IDLE,
        };
        lease.min(thaw).min(IDLE)
    }

    /// Ends what is due, in chunks, so that requests get their turn in between.
    fn fire(&self) {
        let mut core = self.shared.lock();
        if core.serving != Serving::Yes {
            return;
        }
        let wall = self.shared.clock.wall();
        let finished = core.refusals.flush_before(wall);
        self.record(&mut core, finished);
        let more = {
            let _abort = AbortOnPanic;
            let now = self.shared.now(&core);
            let more = core.table.tick(now, FIRE_BUDGET);
            self.shared.after(&mut core);
            more
        };
        if more {
            self.shared.timer.notify_one();
        }
    }

    /// Answers everything that a commit has made durable.
    fn settle(&self) {
        let durable = self.shared.durable();
        let mut ready = Vec::new();
        {
            let mut core = self.shared.lock();
            core.table.settled(durable);
            let count = core.awaiting.partition_point(|(seq, _)| *seq <= durable);
            ready.extend(core.awaiting.drain(..count).map(|(_, done)| done));
        }
        for done in ready {
            // A receiver that has gone had its client go.
            let _ = done.send(Ok(()));
        }
        self.shared.durable_watch.send_if_modified(|seen| {
            let newer = *seen < durable;
            *seen = durable.max(*seen);
            newer
        });
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
}

const IDLE: Duration = Duration::from_secs(1);

/// How many due things one firing ends at most: about a millisecond's work.
const FIRE_BUDGET: usize = 1000;
