//! What the engine's handles, its settler and the journal's thread share: the state behind the lock,
//! and each change of it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use leasehold_core::event::{Event, WriteResult};
use leasehold_core::ids::{LockId, PinId, Seq, WaiterId};
use leasehold_core::sabotage::{self, Mistake};
use leasehold_core::table::{Granted, LockTable, TableLimits, Woken};
use leasehold_core::time::Now;
use tokio::sync::{Notify, oneshot, watch};

use crate::clock::{Clock, LeaseClock};
use crate::committer::Committer;
use crate::engine::EngineError;
use crate::refusals::Refusals;
use crate::start::Observer;
use crate::token::TokenKeys;

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
    /// What an engine begins with whose log is durable up to `durable`.
    pub(crate) fn new(
        core: Core,
        durable: Seq,
        tokens: TokenKeys,
        clock: Arc<dyn Clock>,
        incarnation: Arc<str>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            core: Mutex::new(core),
            work: Condvar::new(),
            durable: AtomicU64::new(durable.0),
            epoch: AtomicU64::new(0),
            settle: Notify::new(),
            timer: Notify::new(),
            next_deadline: AtomicU64::new(u64::MAX),
            durable_watch: watch::Sender::new(durable),
            tokens: ArcSwap::from_pointee(tokens),
            clock,
            incarnation,
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            is_fast: AtomicBool::new(false),
            committer: Mutex::new(None),
            observer,
        }
    }

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
    pub(crate) fn commits_inline(&self) -> bool {
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
    /// A core that serves, and to which nothing has come yet.
    pub(crate) fn new(table: LockTable, lease: LeaseClock, limits: TableLimits) -> Self {
        Self {
            table,
            lease,
            serving: Serving::Yes,
            epoch: 0,
            group: Vec::new(),
            left_to_settler: false,
            parked: HashMap::new(),
            awaiting: VecDeque::new(),
            ended_meanwhile: Vec::new(),
            undelivered_meanwhile: Vec::new(),
            tellings: HashMap::new(),
            refusals: Refusals::default(),
            limits,
            stopping: false,
            ended: false,
        }
    }

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
