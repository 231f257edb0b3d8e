//! The task that settles answers, fires deadlines, and commits for a lone client.

use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_core::sabotage::{self, Mistake};

use crate::committer::Committer;
use crate::engine::Engine;
use crate::shared::{AbortOnPanic, Serving};

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

impl Engine {
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
    /// else now who would have to stand still meanwhile. A checkpoint is that thread's in any case.
    fn commit_inline(&self) {
        let shared = &self.shared;
        if !std::mem::take(&mut shared.lock().left_to_settler) {
            return;
        }
        if sabotage::is(Mistake::SkipLoneCommit) && shared.commits_inline() {
            let newest = shared.lock().table.state().seq();
            shared.durable.store(newest.0, Ordering::Release);
            return;
        }
        let is_done = shared.commits_inline() && {
            // As a panic in the journal's thread does.
            let _abort = AbortOnPanic::armed();
            // It is locked where the journal's thread trims, or brings the log back.
            let mut committer = shared.committer.try_lock().ok();
            let committer = committer.as_mut().and_then(|committer| committer.as_mut());
            committer.is_some_and(Committer::commit_now)
        };
        if !is_done {
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
}
