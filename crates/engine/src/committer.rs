//! The journal's thread: commits what has gathered, and brings the log back when a commit fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use leasehold_core::event::{Event, EventBody, Origin, RecoveryCause, WriteResult};
use leasehold_core::ids::Seq;
use leasehold_core::lock::OpenAdmission;
use leasehold_core::state::State;
use leasehold_core::table::TableLimits;
use leasehold_core::time::LeaseTime;
use leasehold_journal::folder::DataFolder;
use leasehold_journal::follower::{self, FollowerHandle, Loaded};
use leasehold_journal::log::{Group, Log, Retention, hex};

use crate::engine::{EngineError, Serving, Shared};
use crate::start::Observer;

/// What learns how a write under a lock ended that was on its way at a crash.
pub(crate) type Classify = Arc<dyn Fn(&OpenAdmission) -> WriteResult + Send + Sync>;

pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Box<dyn Log>,
    pub(crate) folder: DataFolder,
    pub(crate) follower: FollowerHandle,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) retention: Arc<std::sync::Mutex<Retention>>,
    pub(crate) classify: Classify,
    pub(crate) seed: u64,
    pub(crate) limits: TableLimits,
    pub(crate) trim_at: Instant,
    pub(crate) reading_at: Instant,
}

/// How often the lease clock is made durable while a lock lives.
const READING: Duration = Duration::from_secs(1);
/// How often retention looks whether something is too old.
const TRIM: Duration = Duration::from_secs(10);
/// How long to wait before the log is opened again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

impl Committer {
    /// Runs until the engine stops and everything is committed.
    pub(crate) fn run(mut self) {
        loop {
            let (events, lease, stop) = self.gather();
            if events.is_empty() && stop {
                break;
            }
            if !events.is_empty() || self.reading_at.elapsed() >= READING {
                self.commit(&events, lease);
            }
            if events.is_empty() {
                self.trim();
            }
        }
        let lease = self.shared.now(&self.shared.lock()).lease;
        if let Err(error) = self.log.close_cleanly(lease) {
            tracing::error!(error = chain(&error), "the shutdown could not be marked as clean");
        }
    }

    /// Waits for something to commit, for a second at most, and takes it.
    fn gather(&mut self) -> (Vec<Event>, LeaseTime, bool) {
        let shared = Arc::clone(&self.shared);
        let mut core = shared.lock();
        let stop = || shared.stop.load(Ordering::Acquire);
        if core.group.is_empty() && !stop() {
            let waited = shared.work.wait_timeout(core, READING);
            core = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        let events = std::mem::take(&mut core.group);
        let lease = shared.now(&core).lease;
        if core.table.live() == 0 && events.is_empty() {
            // While nothing lives no deadline depends on the clock.
            self.reading_at = Instant::now();
        }
        (events, lease, stop())
    }

    fn commit(&mut self, events: &[Event], lease: LeaseTime) {
        let began = Instant::now();
        let result = self.log.append(&Group { events, lease });
        match result {
            Ok(()) => {
                self.reading_at = Instant::now();
                if let Some(last) = events.last() {
                    self.committed(last.seq);
                    self.observer.committed(events, began.elapsed(), &self.log.head());
                }
            }
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "a commit failed; nothing is answered until the log has been opened again"
                );
                self.recover();
            }
        }
    }

    fn committed(&self, newest: Seq) {
        self.shared.durable.store(newest.0, Ordering::Release);
        self.shared.settle.notify_one();
        self.follower.notify(newest);
    }

    /// A failed commit is unknown, not undone: everything that waits for it is told so, the table
    /// is dropped, and nothing is answered until the log has been opened again and a `recovered`
    /// of ours is durable in it.
    fn recover(&mut self) {
        self.fail_everything();
        self.observer.recovering(true);
        let mut pause = RETRY_FIRST;
        loop {
            match self.try_recover() {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(error, "the log could not be brought back; trying again");
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_LAST);
            if self.shared.stop.load(Ordering::Acquire) {
                return;
            }
        }
        self.observer.recovering(false);
        tracing::warn!("the log works again");
    }

    fn fail_everything(&self) {
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
            let _ = parked.send(Err(EngineError::StorageFailure));
        }
        for (_, awaiting) in awaiting {
            let _ = awaiting.send(Err(EngineError::StorageFailure));
        }
    }

    fn try_recover(&mut self) -> Result<(), String> {
        let head = self.log.reopen().map_err(|error| chain(&error))?;
        let mut state = State::new(self.seed);
        follower::load(&self.folder, self.log.as_mut(), &mut |loaded| match loaded {
            Loaded::Row(row) => state.load(row),
            Loaded::Event(event) => state.apply(&event),
        })
        .map_err(|error| chain(&error))?;
        let shared = Arc::clone(&self.shared);
        let mut core = shared.lock();
        let empty =
            leasehold_core::table::LockTable::new(State::new(self.seed), self.limits, self.seed);
        let old = std::mem::replace(&mut core.table, empty);
        core.table = old.reloaded(state, head.seq, self.seed);
        let now = shared.now(&core);
        let body = EventBody::Recovered {
            cause: RecoveryCause::FailedCommit,
            incarnation: shared.incarnation.clone(),
            fence_floor: core.table.state().fence(),
        };
        core.table.record(body, Origin::default(), now);
        for open in core.table.orphaned_admissions() {
            let result = (self.classify)(&open);
            core.table.close_open(&open, result, now);
        }
        let events = core.table.take_events();
        core.table.take_wakes();
        drop(core);
        // Ours alone: commands are still refused.
        self.log
            .append(&Group { events: &events, lease: now.lease })
            .map_err(|error| chain(&error))?;
        self.reading_at = Instant::now();
        let mut core = shared.lock();
        shared.durable.store(self.log.head().seq.0, Ordering::Release);
        core.lease.run(shared.clock.monotonic());
        if !shared.stop.load(Ordering::Acquire) {
            core.serving = Serving::Yes;
        }
        // Writes that ended while the log was brought back.
        let now = shared.now(&core);
        for (pin, result) in std::mem::take(&mut core.ended_meanwhile) {
            core.table.complete(pin, result, now);
        }
        shared.after(&mut core);
        drop(core);
        shared.settle.notify_one();
        shared.timer.notify_one();
        self.follower.notify(self.log.head().seq);
        Ok(())
    }

    /// Removes what retention does not keep, a chunk at a time, while there is nothing to commit.
    fn trim(&mut self) {
        if Instant::now() < self.trim_at {
            return;
        }
        let retention = *self.retention.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match self.log.trim(&retention, self.shared.clock.wall()) {
            Ok(step) => {
                if step.more {
                    return;
                }
                self.trim_at = Instant::now() + TRIM;
                self.record_trim();
            }
            Err(error) => {
                self.trim_at = Instant::now() + TRIM;
                tracing::error!(error = chain(&error), "the trail could not be trimmed");
                self.recover();
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
