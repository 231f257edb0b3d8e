//! The journal's thread: commits what has gathered, does checkpoints and retention in between, and
//! brings the log back when one of them fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use leasehold_core::event::{Event, EventBody, Origin, RecoveryCause, WriteResult};
use leasehold_core::lock::OpenAdmission;
use leasehold_core::sabotage::{self, Mistake};
use leasehold_core::state::State;
use leasehold_core::table::{LockTable, TableLimits};
use leasehold_core::time::LeaseTime;
use leasehold_journal::folder::DataFolder;
use leasehold_journal::follower::{self, FollowerHandle, Loaded};
use leasehold_journal::log::{Group, Log, Retention, hex};

use crate::engine::EngineError;
use crate::shared::{Serving, Shared};

/// What learns how a write under a lock ended that was on its way at a crash.
pub(crate) type Classify = Arc<dyn Fn(&OpenAdmission) -> WriteResult + Send + Sync>;

pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Box<dyn Log>,
    pub(crate) folder: DataFolder,
    pub(crate) follower: FollowerHandle,
    pub(crate) retention: Arc<std::sync::Mutex<Retention>>,
    pub(crate) classify: Classify,
    /// Whether the next start can learn how the writes ended that are on their way now.
    pub(crate) learns_outcomes: bool,
    pub(crate) seed: u64,
    pub(crate) limits: TableLimits,
    /// When retention looks again, by the monotonic clock.
    pub(crate) trim_at: Duration,
    /// Whether there is more to remove at once.
    pub(crate) trims_on: bool,
    /// When the lease clock was last made durable, by the monotonic clock.
    pub(crate) reading_at: Duration,
    /// How many commits in a row have been fast.
    pub(crate) fast_commits: u32,
    /// Whether a commit failed and the log has not been brought back yet.
    pub(crate) is_broken: bool,
}

/// What came of one step of the journal's thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// What there was to do is done.
    Done,
    /// The log could not be brought back: to be tried again after a pause.
    StillBroken,
    /// Everything is committed, and there will be no more.
    Ended,
}

/// How often the lease clock is made durable while a lock lives.
const READING: Duration = Duration::from_secs(1);
/// How often retention looks whether something is too old.
const TRIM: Duration = Duration::from_secs(10);
/// A commit that takes no longer is a fast one, and after so many in a row the next is expected to
/// be one, too.
const FAST: Duration = Duration::from_millis(1);
pub(crate) const FAST_IN_A_ROW: u32 = 64;
/// How long to wait before the log is opened again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

impl Committer {
    /// The journal's thread: runs until the engine stops and everything is committed. It takes
    /// steps, and waits in between.
    pub(crate) fn run(shared: &Shared) {
        let mut pause = RETRY_FIRST;
        loop {
            let (step, trims_on) = {
                let mut committer = shared.lock_committer();
                let Some(committer) = committer.as_mut() else { return };
                (committer.step(), committer.trims_on)
            };
            match step {
                Step::Done => {
                    pause = RETRY_FIRST;
                    wait(shared, trims_on);
                }
                Step::StillBroken => {
                    rest(shared, pause);
                    pause = (pause * 2).min(RETRY_LAST);
                }
                Step::Ended => {
                    *shared.lock_committer() = None;
                    return;
                }
            }
        }
    }

    /// Commits what has gathered, and nothing else. `false` if the journal's thread has to look.
    pub(crate) fn commit_now(&mut self) -> bool {
        if self.is_broken || self.shared.stop.load(Ordering::Acquire) {
            return false;
        }
        let (events, lease) = self.gather();
        if !events.is_empty() {
            self.commit(events, lease);
        }
        !self.is_broken && !self.log.is_checkpoint_due()
    }

    /// Does what there is to do, and never waits.
    pub(crate) fn step(&mut self) -> Step {
        let stop = self.shared.stop.load(Ordering::Acquire);
        if self.is_broken && !self.recover() && !stop {
            return Step::StillBroken;
        }
        let (events, lease) = self.gather();
        if events.is_empty() && stop {
            self.close(lease);
            return Step::Ended;
        }
        let now = self.shared.clock.monotonic();
        if !events.is_empty() || now.saturating_sub(self.reading_at) >= READING {
            self.commit(events, lease);
        }
        // Between two commits, also when there is always another to come.
        self.checkpoint();
        self.trim();
        Step::Done
    }

    fn close(&mut self, lease: LeaseTime) {
        if !self.learns_outcomes && self.shared.lock().table.may_see_writes() {
            tracing::warn!("writes may still land: the shutdown is not marked as clean");
        } else if let Err(error) = self.log.close_cleanly(lease) {
            tracing::error!(error = chain(&error), "the shutdown could not be marked as clean");
        }
        self.end();
    }

    /// Nothing will be committed any more: whatever still waits for that is told.
    fn end(&self) {
        let durable = self.shared.durable();
        let awaiting = {
            let mut core = self.shared.lock();
            core.ended = true;
            core.serving = Serving::Stopping;
            std::mem::take(&mut core.awaiting)
        };
        for (seq, done) in awaiting {
            let is_durable = seq <= durable;
            let _ = done.send(if is_durable { Ok(()) } else { Err(EngineError::StorageFailure) });
        }
        self.shared.ended.store(true, Ordering::Release);
        self.shared.settle.notify_one();
    }

    /// Takes what has gathered, and reads the lease clock.
    fn gather(&mut self) -> (Vec<Event>, LeaseTime) {
        let mut core = self.shared.lock();
        let events = std::mem::take(&mut core.group);
        let lease = self.shared.now(&core).lease;
        if core.table.live() == 0 && events.is_empty() {
            // While nothing lives no deadline depends on the clock.
            self.reading_at = self.shared.clock.monotonic();
        }
        (events, lease)
    }

    fn commit(&mut self, events: Vec<Event>, lease: LeaseTime) {
        let began = self.shared.clock.monotonic();
        let mut result = self.log.append(&Group { events: &events, lease });
        if sabotage::is(Mistake::AcknowledgeFailedCommit) {
            result = Ok(());
        }
        match result {
            Ok(()) => {
                self.reading_at = self.shared.clock.monotonic();
                if let Some(last) = events.last() {
                    let took = self.reading_at.saturating_sub(began);
                    self.fast_commits =
                        if took <= FAST { self.fast_commits.saturating_add(1) } else { 0 };
                    let is_fast = self.fast_commits >= FAST_IN_A_ROW;
                    self.shared.is_fast.store(is_fast, Ordering::Relaxed);
                    self.shared.durable.store(last.seq.0, Ordering::Release);
                    self.shared.settle.notify_one();
                    let head = self.log.head();
                    self.shared.observer.committed(&events, took, &head);
                    self.follower.committed(events, &head);
                }
            }
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "a commit failed; nothing is answered until the log has been opened again"
                );
                self.break_off();
            }
        }
    }

    /// A failed commit is unknown, not undone: everything that waits for it is told so, the table
    /// is dropped, and nothing is answered until the log has been opened again and a `recovered`
    /// of ours is durable in it.
    fn break_off(&mut self) {
        self.is_broken = true;
        self.fail_everything();
        self.shared.observer.recovering(true);
    }

    /// Tries to bring the log back. Whether it works again.
    fn recover(&mut self) -> bool {
        if let Err(error) = self.try_recover() {
            tracing::error!(error, "the log could not be brought back; trying again");
            return false;
        }
        self.is_broken = false;
        self.shared.observer.recovering(false);
        tracing::warn!("the log works again");
        true
    }

    fn fail_everything(&self) {
        use EngineError::StorageFailure;
        let (parked, awaiting) = {
            let mut core = self.shared.lock();
            core.serving = Serving::Recovering;
            core.epoch += 1;
            self.shared.epoch.store(core.epoch, Ordering::Release);
            core.lease.stop(self.shared.clock.monotonic());
            core.group.clear();
            (std::mem::take(&mut core.parked), std::mem::take(&mut core.awaiting))
        };
        for (_, parked) in parked {
            let _ = parked.send(Err(StorageFailure));
        }
        let durable = self.shared.durable();
        for (seq, awaiting) in awaiting {
            // What was committed before stays, and nobody may have come to answer it.
            let is_durable = seq <= durable;
            let _ = awaiting.send(if is_durable { Ok(()) } else { Err(StorageFailure) });
        }
    }

    fn try_recover(&mut self) -> Result<(), String> {
        let head = self.log.reopen().map_err(|error| chain(&error))?;
        let mut state = State::new(self.seed);
        follower::load(&self.folder, self.log.as_mut(), &mut |loaded| match loaded {
            Loaded::Row(row) => state.load(row),
            Loaded::Event(event) => state.apply(&event),
            Loaded::Void => state = State::new(self.seed),
        })
        .map_err(|error| chain(&error))?;
        let shared = Arc::clone(&self.shared);
        // Commands are refused and what ends is noted, so nobody misses the table meanwhile; and
        // nobody is held up while a large one is put together, and the old one taken down.
        let empty = LockTable::new(State::new(self.seed), self.limits, self.seed);
        let old = std::mem::replace(&mut shared.lock().table, empty);
        let mut table = old.reloaded(state, head.seq, self.seed);
        let written = self.write_recovered(&mut table);
        let mut core = shared.lock();
        // Also if it was not written: the table has the writes that are on their way.
        core.table = table;
        written?;
        let limits = core.limits;
        core.table.set_limits(limits);
        shared.durable.store(self.log.head().seq.0, Ordering::Release);
        core.lease.run(shared.clock.monotonic());
        core.serving = if core.stopping { Serving::Stopping } else { Serving::Yes };
        // What came while the log was brought back.
        let now = shared.now(&core);
        for (pin, result) in std::mem::take(&mut core.ended_meanwhile) {
            core.table.complete(pin, result, now);
        }
        for lock_id in std::mem::take(&mut core.undelivered_meanwhile) {
            core.not_told(lock_id, now);
        }
        shared.after(&mut core);
        drop(core);
        shared.settle.notify_one();
        shared.timer.notify_one();
        self.follower.notify(self.log.head().seq);
        Ok(())
    }

    /// Makes a `recovered` of ours durable, and closes the admissions that nobody will close.
    fn write_recovered(&mut self, table: &mut LockTable) -> Result<(), String> {
        let now = self.shared.now(&self.shared.lock());
        let body = EventBody::Recovered {
            cause: RecoveryCause::FailedCommit,
            incarnation: self.shared.incarnation.clone(),
            fence_floor: table.state().fence(),
        };
        table.record(body, Origin::default(), now);
        for open in table.orphaned_admissions() {
            let result = (self.classify)(&open);
            table.close_open(&open, result, now);
        }
        let events = table.take_events();
        self.log
            .append(&Group { events: &events, lease: now.lease })
            .map_err(|error| chain(&error))?;
        self.reading_at = self.shared.clock.monotonic();
        Ok(())
    }

    /// Keeps what gathers beside the log's main file small.
    fn checkpoint(&mut self) {
        if self.is_broken {
            return;
        }
        if let Err(error) = self.log.checkpoint() {
            tracing::error!(error = chain(&error), "the log could not be moved into its main file");
            self.break_off();
        }
    }

    /// Removes a chunk of what retention does not keep.
    fn trim(&mut self) {
        self.trims_on = false;
        let now = self.shared.clock.monotonic();
        if self.is_broken || now < self.trim_at {
            return;
        }
        let retention = *self.retention.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match self.log.trim(&retention, self.shared.clock.wall()) {
            Ok(step) => {
                if step.more {
                    self.trims_on = true;
                    return;
                }
                self.trim_at = now + TRIM;
                self.record_trim();
            }
            Err(error) => {
                self.trim_at = now + TRIM;
                tracing::error!(error = chain(&error), "the trail could not be trimmed");
                self.break_off();
            }
        }
    }

    fn record_trim(&self) {
        let Some(trimmed) = self.log.owed_trim_record() else { return };
        let body = EventBody::Trimmed { through: trimmed.through, hash: hex(&trimmed.hash).into() };
        // Refused only while stopping; it is still owed at the next start.
        let _ = self.shared.decide(|core, now| {
            core.table.record(body, Origin::default(), now);
        });
    }
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Waits for something to commit, for a second at most.
fn wait(shared: &Shared, trims_on: bool) {
    let core = shared.lock();
    let stop = shared.stop.load(Ordering::Acquire);
    // Another has committed since, and failed.
    let is_broken = core.serving == Serving::Recovering;
    if core.group.is_empty() && !stop && !trims_on && !is_broken {
        drop(shared.work.wait_timeout(core, READING));
    }
}

/// Waits for this long, or until the engine stops.
fn rest(shared: &Shared, span: Duration) {
    let until = Instant::now() + span;
    let mut core = shared.lock();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.stop.load(Ordering::Acquire) {
            return;
        }
        let waited = shared.work.wait_timeout(core, left);
        core = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
    }
}
