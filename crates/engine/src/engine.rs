//! The engine: one value behind one lock.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use leasehold_core::command::Presented;
use leasehold_core::event::{Event, EventBody, Origin, WriteResult};
use leasehold_core::ids::{Fence, LockId, PinId, Principal, Seq, WaiterId};
use leasehold_core::resource::Resource;
use leasehold_core::sabotage::{self, Mistake};
use leasehold_core::table::{Granted, LockTable, TableLimits, Woken};
use leasehold_core::time::{LeaseTime, Now};
use tokio::sync::{Notify, oneshot, watch};

use crate::clock::{Clock, LeaseClock};
use crate::committer::Committer;
use crate::refusals::Refusals;
use crate::start::Observer;
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
    /// Events that nobody has taken yet to commit them.
    pub(crate) group: Vec<Event>,
    /// Whether it was left to the task that settles answers to commit the group, or to have it
    /// committed.
    pub(crate) left_to_settler: bool,
    pub(crate) parked: HashMap<WaiterId, oneshot::Sender<ParkedAnswer>>,
    /// Answers that wait for a commit, in the order of what they rest on.
    pub(crate) awaiting: VecDeque<(Seq, oneshot::Sender<Result<(), EngineError>>)>,
    /// Writes that ended while the log was being brought back.
    pub(crate) ended_meanwhile: Vec<(PinId, WriteResult)>,
    /// Grants that could not be delivered while the log was being brought back.
    pub(crate) undelivered_meanwhile: Vec<LockId>,
    /// Grants with a key whose answers are on their way: a retry may be told before the first.
    pub(crate) tellings: HashMap<LockId, Told>,
    pub(crate) refusals: Refusals,
    pub(crate) limits: TableLimits,
    /// Whether the engine is shutting down, whatever else it is doing.
    pub(crate) stopping: bool,
    /// Whether the journal's thread has ended: what is not durable will never be.
    pub(crate) ended: bool,
}

/// Who is being told of a grant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// How many answers are on their way.
    pub(crate) underway: u32,
    /// Whether one has arrived.
    pub(crate) delivered: bool,
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
    pub(crate) tokens: ArcSwap<TokenKeys>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) incarnation: Arc<str>,
    /// The journal's thread is to commit what there is, and end.
    pub(crate) stop: AtomicBool,
    /// It has ended: whoever settles answers does so once more.
    pub(crate) ended: AtomicBool,
    /// Whether commits have been fast for a while.
    pub(crate) is_fast: AtomicBool,
    /// What commits: for the journal's thread, and for the task that settles answers while it
    /// commits. None where somebody else has it, and when it has ended.
    pub(crate) committer: Mutex<Option<Committer>>,
    pub(crate) observer: Arc<dyn Observer>,
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

/// How many events may wait for the journal's thread. Beyond, commands are refused: a store that
/// hangs must not fill the memory.
const MAX_GROUP: usize = 1 << 18;

/// A panic while the table is being changed leaves it half changed: the process ends, and the
/// next start reads the log.
pub(crate) struct AbortOnPanic {
    /// What is dropped by a panic elsewhere comes here as well, and is carried out like anything.
    was_panicking: bool,
}

impl AbortOnPanic {
    pub(crate) fn armed() -> Self {
        Self { was_panicking: std::thread::panicking() }
    }
}

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if !self.was_panicking && std::thread::panicking() {
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

    pub(crate) fn lock_committer(&self) -> MutexGuard<'_, Option<Committer>> {
        // As for the core's.
        self.committer.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
            Serving::Yes if core.group.len() < MAX_GROUP => {}
            Serving::Yes | Serving::Recovering => return Err(EngineError::Unavailable),
            Serving::Stopping => return Err(EngineError::ShuttingDown),
        }
        Ok(self.decide_in(&mut core, decide))
    }

    pub(crate) fn decide_in<T>(
        &self,
        core: &mut Core,
        decide: impl FnOnce(&mut Core, Now) -> T,
    ) -> T {
        let _abort = AbortOnPanic::armed();
        let now = self.now(core);
        core.table.tick(now, TICK_BUDGET);
        let answer = decide(core, now);
        self.after(core);
        answer
    }

    /// Hands on what a change of the table has brought.
    pub(crate) fn after(&self, core: &mut Core) {
        loop {
            self.hand_over_events(core);
            let rests_on = core.rest();
            for (waiter, woken) in core.table.take_wakes() {
                self.wake(core, waiter, woken, rests_on);
            }
            // Giving a grant back may have made another.
            if !core.table.has_events() {
                break;
            }
        }
        let next = core.table.next_deadline().map_or(u64::MAX, |at| at.0);
        if next < self.next_deadline.swap(next, Ordering::AcqRel) {
            self.timer.notify_one();
        }
    }

    fn hand_over_events(&self, core: &mut Core) {
        if !core.table.has_events() {
            return;
        }
        let mut events = core.table.take_events();
        if core.group.is_empty() {
            core.group = events;
            core.left_to_settler = self.commits_inline();
            if core.left_to_settler {
                self.settle.notify_one();
            } else {
                self.work.notify_one();
            }
        } else {
            core.group.append(&mut events);
        }
    }

    fn wake(&self, core: &mut Core, waiter: WaiterId, woken: Woken, rests_on: Rest) {
        let grant = match &woken {
            Woken::Granted(granted) => {
                core.telling(granted, false);
                Some(granted.lock.grant.lock_id)
            }
            _ => None,
        };
        let told = match core.parked.remove(&waiter) {
            Some(parked) => parked.send(Ok((woken, rests_on))).is_ok(),
            None => false,
        };
        // Its client was told that the server stops, or has gone just now.
        if let Some(lock_id) = grant.filter(|_| !told) {
            let now = self.now(core);
            core.not_told(lock_id, now);
        }
    }

    /// Whether what an answer rests on is durable; [`EngineError::StorageFailure`] if it was
    /// dropped with the table that a failed commit left.
    fn is_settled(&self, rest: Rest) -> Result<bool, EngineError> {
        if sabotage::is(Mistake::AnswerBeforeCommit) {
            return Ok(true);
        }
        let durable = self.durable();
        if self.epoch.load(Ordering::Acquire) == rest.epoch {
            Ok(rest.seq <= durable)
        } else {
            Err(EngineError::StorageFailure)
        }
    }

    /// Whether a commit is left to the task that settles answers. Two changes of threads cost a
    /// lone client half as much again as the disk does; but no request that is there already may
    /// have to wait for the disk without having written anything. One that comes during the commit
    /// does: the disk has been fast for a while, so it is likely to be short.
    fn commits_inline(&self) -> bool {
        self.is_fast.load(Ordering::Relaxed) && self.observer.is_alone()
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
            if core.ended {
                return Err(EngineError::StorageFailure);
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

    /// Somebody is going to be told of a grant; `waits` if its first answer was lost. Whether the
    /// grant is given back if this answer is lost too.
    pub(crate) fn telling(&mut self, granted: &Granted, waits: bool) -> bool {
        let grant = &granted.lock.grant;
        if grant.idempotency.is_none() {
            return !granted.replayed;
        }
        if granted.replayed && !waits {
            // Else it was delivered long ago.
            return match self.tellings.get_mut(&grant.lock_id) {
                Some(told) => {
                    told.underway += 1;
                    true
                }
                None => false,
            };
        }
        self.tellings.entry(grant.lock_id).or_default().underway += 1;
        true
    }

    /// The answer has arrived.
    pub(crate) fn told(&mut self, lock_id: LockId) {
        if let Some(told) = self.tellings.get_mut(&lock_id) {
            told.delivered = true;
        }
        self.answer_over(lock_id);
    }

    /// The answer is lost: unless another has arrived or may, the grant is given back.
    pub(crate) fn not_told(&mut self, lock_id: LockId, now: Now) {
        if self.answer_over(lock_id) {
            self.table.undelivered(lock_id, now);
        }
    }

    /// Whether nobody knows of the grant any more.
    pub(crate) fn answer_over(&mut self, lock_id: LockId) -> bool {
        let Some(told) = self.tellings.get_mut(&lock_id) else { return true };
        told.underway = told.underway.saturating_sub(1);
        let Told { underway, delivered } = *told;
        if underway == 0 {
            self.tellings.remove(&lock_id);
        }
        underway == 0 && !delivered
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

    fn record(&self, core: &mut Core, events: Vec<EventBody>) {
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

    /// Runs until the engine has stopped: settles answers after each commit and fires deadlines.
    /// One task of the runtime that serves requests.
    pub async fn run(self) {
        loop {
            // Looked at first: whatever was committed before the end is settled after it.
            let ended = self.shared.ended.load(Ordering::Acquire);
            self.commit_inline();
            self.settle();
            if ended {
                return;
            }
            // An earlier deadline that comes from here on leaves a permit in `timer`.
            match self.fire() {
                Next::MoreIsDue => tokio::select! {
                    biased;
                    () = self.shared.settle.notified() => {}
                    () = tokio::time::sleep(GAP) => {}
                },
                // In this order always: which is looked at first must not be left to chance.
                Next::In(span) => tokio::select! {
                    biased;
                    () = self.shared.settle.notified() => {}
                    () = self.shared.timer.notified() => {}
                    () = self.shared.clock.sleep(span) => {}
                },
            }
        }
    }

    /// Ends what is due, at most a chunk of it, so that requests get their turn in between; and
    /// when there is more to do.
    fn fire(&self) -> Next {
        let mut core = self.shared.lock();
        if core.serving != Serving::Yes {
            return Next::In(IDLE);
        }
        let finished = core.refusals.flush_before(self.shared.clock.wall());
        self.record(&mut core, finished);
        let _abort = AbortOnPanic::armed();
        let now = self.shared.now(&core);
        let more = core.table.tick(now, FIRE_BUDGET);
        self.shared.after(&mut core);
        if more {
            return Next::MoreIsDue;
        }
        let lease = core.table.next_deadline().map(|at| at.since(now.lease));
        let thaw = core.table.next_thaw().map(|at| at.0.saturating_sub(now.wall.0));
        let thaw = thaw.map(|ms| u64::try_from(ms).unwrap_or(0));
        let ms = [lease, thaw].into_iter().flatten().min();
        let late = if sabotage::is(Mistake::ExpireLate) { 500 } else { 0 };
        Next::In(ms.map_or(IDLE, |ms| Duration::from_millis(ms + late).min(IDLE)))
    }

    /// Commits what was left to this task; or has the journal's thread do it, if there is somebody
    /// else now who would have to stand still meanwhile.
    fn commit_inline(&self) {
        let shared = &self.shared;
        if !std::mem::take(&mut shared.lock().left_to_settler) {
            return;
        }
        let is_committed = shared.commits_inline() && {
            // As a panic in the journal's thread does.
            let _abort = AbortOnPanic::armed();
            // It is locked where the journal's thread trims, or brings the log back.
            let mut committer = shared.committer.try_lock().ok();
            let committer = committer.as_mut().and_then(|committer| committer.as_mut());
            committer.is_some_and(Committer::commit_now)
        };
        if !is_committed {
            shared.work.notify_one();
        }
    }

    /// Answers everything that a commit has made durable.
    fn settle(&self) {
        let durable = self.shared.durable();
        let mut ready = Vec::new();
        {
            let mut core = self.shared.lock();
            let _abort = AbortOnPanic::armed();
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

/// When the timer looks again.
enum Next {
    /// Soon: there is more to do now.
    MoreIsDue,
    /// In this time at the latest.
    In(Duration),
}

/// How long requests have the engine to themselves between two chunks of a mass expiry.
const GAP: Duration = Duration::from_millis(1);

/// How long the timer sleeps at most: the wall clock may have been set meanwhile.
const IDLE: Duration = Duration::from_secs(1);

/// How many due things one firing ends at most: about a millisecond's work.
const FIRE_BUDGET: usize = 1000;
