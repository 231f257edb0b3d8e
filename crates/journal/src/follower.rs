//! The follower: keeps the index up with the log, in a thread of its own.
//!
//! What always holds:
//! - it never slows the log down: telling it of a commit is a push to a queue that is left out
//!   where it would have to wait, it reads through a connection of its own, and no read transaction
//!   stays open while it waits;
//! - it takes events from the queue while it keeps up, and what is not there from the log: the queue
//!   is bounded, by its events and by what they take, and what is in it is durable;
//! - it works in batches and rests after each, so that it takes a part of one core only, unless
//!   it has fallen far behind;
//! - rows, blocks and their positions change in one transaction;
//! - whatever is wrong with the index, the answer is to build it again from the base and the
//!   events that are left. A failing follower is logged and tried again; the log goes on.
//!
//! Deliberately absent: any answer that waits for the follower. Queries scan what it has not
//! reached, a start folds it.

mod ahead;
mod load;
mod recent;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use leasehold_core::event::Event;
use leasehold_core::ids::Seq;
use rusqlite::Connection;

use self::recent::Recent;
use self::worker::{BATCH, FollowError, Worker};
use crate::connect::{StoreError, failed};
use crate::folder::DataFolder;
use crate::index;
use crate::log::Head;
pub use load::{LoadError, LoadReport, Loaded, load};

/// How many rows of the base are in memory at once.
const BASE_CHUNK: usize = 64;

/// The thread that keeps the index up with the log. Dropping it stops it.
#[derive(Debug)]
pub struct Follower {
    handle: FollowerHandle,
    thread: Option<JoinHandle<()>>,
}

/// A follower without a thread of its own: whoever has it says when it goes on.
pub struct SteppedFollower {
    handle: FollowerHandle,
    following: Following,
}

impl SteppedFollower {
    /// Follows the log of `folder`, which is durable up to `durable`.
    #[must_use]
    pub fn new(folder: &DataFolder, durable: Seq) -> Self {
        let shared = Arc::new(Shared::default());
        shared.durable.store(durable.0, Ordering::Relaxed);
        let following = Following::new(folder.path(), Arc::clone(&shared));
        Self { handle: FollowerHandle { shared, thread: None }, following }
    }

    /// As [`Follower::handle`].
    #[must_use]
    pub fn handle(&self) -> FollowerHandle {
        self.handle.clone()
    }

    /// Folds one batch, if there is one.
    pub fn step(&mut self) {
        // What went wrong is told in the server's log, and is to be tried again.
        let _ = self.following.step();
    }
}

/// Tells a follower how far the log has come. Cheap to clone and to call.
#[derive(Clone, Debug)]
pub struct FollowerHandle {
    shared: Arc<Shared>,
    /// None where somebody else says when it goes on.
    thread: Option<Thread>,
}

#[derive(Debug, Default)]
struct Shared {
    durable: AtomicU64,
    recent: Recent,
    folded: AtomicU64,
    idle: AtomicBool,
    /// Whether it lets events gather, and is to be woken when there is a batch of them.
    gathers: AtomicBool,
    stop: AtomicBool,
}

/// How far the thread stands back, of 19: it still gets a part of a busy core.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// While events keep coming: how long to let them gather, unless there is a batch of them before.
const GATHER: Duration = Duration::from_millis(100);
/// How long to rest for each unit of work: a quarter of one core is the follower's.
const REST: u32 = 3;
const REST_MAX: Duration = Duration::from_millis(500);
/// From this many events behind on, it does not rest: a start would have to fold them.
const FAR_BEHIND: u64 = 500_000;
/// How long a stopping follower goes on catching up.
const LAST_EFFORT: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

impl Follower {
    /// Starts following the log of `folder`, which is durable up to `durable`. An index that does
    /// not fit the log is built again.
    ///
    /// # Errors
    /// When the thread cannot be started. Trouble with the index is logged and tried again.
    pub fn spawn(folder: &DataFolder, durable: Seq) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        shared.durable.store(durable.0, Ordering::Relaxed);
        let worker = Arc::clone(&shared);
        let path = folder.path().to_owned();
        let thread = std::thread::Builder::new()
            .name("leasehold-index".to_owned())
            .spawn(move || {
                stand_back();
                Following::new(&path, worker).run();
            })
            .map_err(failed("start a thread for", &index::path(folder.path())))?;
        let handle = FollowerHandle { shared, thread: Some(thread.thread().clone()) };
        Ok(Self { handle, thread: Some(thread) })
    }

    /// What tells it how far the log has come.
    #[must_use]
    pub fn handle(&self) -> FollowerHandle {
        self.handle.clone()
    }

    /// As [`FollowerHandle::notify`].
    pub fn notify(&self, durable: Seq) {
        self.handle.notify(durable);
    }

    /// As [`FollowerHandle::folded`].
    #[must_use]
    pub fn folded(&self) -> Seq {
        self.handle.folded()
    }

    /// Lets it catch up for at most 2 s, and waits until its thread has ended.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.handle.shared.stop.store(true, Ordering::Release);
        self.handle.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the index has panicked; the index is left behind");
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.join();
    }
}

impl FollowerHandle {
    /// As [`Self::notify`], with the group of events that `head` now ends.
    pub fn committed(&self, events: Vec<Event>, head: &Head) {
        let waiting = self.shared.recent.push(events, head.hash);
        self.notify(head.seq);
        if waiting >= BATCH && self.shared.gathers.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Tells it that events up to `durable` are durable. Wakes it only if it had nothing to do.
    pub fn notify(&self, durable: Seq) {
        self.shared.durable.fetch_max(durable.0, Ordering::SeqCst);
        if self.shared.idle.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }

    /// The newest event in the rows of the index; for metrics.
    #[must_use]
    pub fn folded(&self) -> Seq {
        Seq(self.shared.folded.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn lag(&self) -> u64 {
        let durable = self.durable.load(Ordering::SeqCst);
        durable.saturating_sub(self.folded.load(Ordering::Relaxed))
    }

    fn rest(&self, span: Duration) {
        let until = Instant::now() + span;
        while !self.stopping() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left);
        }
    }

    /// Lets events gather, until there is a batch of them or for this long.
    fn gather(&self, span: Duration) {
        let until = Instant::now() + span;
        self.gathers.store(true, Ordering::SeqCst);
        while self.gathers.load(Ordering::SeqCst) && !self.stopping() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::park_timeout(left);
        }
        self.gathers.store(false, Ordering::SeqCst);
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        self.idle.store(true, Ordering::SeqCst);
        while self.idle.load(Ordering::SeqCst) && self.lag() == 0 && !self.stopping() {
            std::thread::park();
        }
        self.idle.store(false, Ordering::SeqCst);
    }
}

/// Has the thread that calls run when others do not want to, where threads can be told apart for
/// that.
fn stand_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS)
    {
        tracing::debug!(%error, "the thread of the index runs as any other");
    }
}

/// The work of the follower, step by step.
struct Following {
    folder: PathBuf,
    shared: Arc<Shared>,
    worker: Option<Worker>,
    /// Keeps the index's shared memory in place after a failure: see `SqliteLog`.
    spare: Option<Connection>,
}

/// A batch failed; why has been told.
struct Failed;

impl Following {
    fn new(folder: &Path, shared: Arc<Shared>) -> Self {
        Self { folder: folder.to_owned(), shared, worker: None, spare: None }
    }

    /// Until it is to stop: steps, and rests in between.
    fn run(mut self) {
        let mut retry = RETRY_FIRST;
        while !self.shared.stopping() {
            let began = Instant::now();
            match self.step() {
                Ok(0) if self.shared.lag() == 0 => self.shared.wait(),
                // Told of events that are not there: nothing to do, and nothing to wait for.
                Ok(0) => self.shared.rest(GATHER),
                Ok(events) => {
                    retry = RETRY_FIRST;
                    let rest = began.elapsed().saturating_mul(REST).min(REST_MAX);
                    if events < BATCH {
                        self.shared.rest(rest);
                        self.shared.gather(GATHER.saturating_sub(rest));
                    } else if self.shared.lag() < FAR_BEHIND {
                        self.shared.rest(rest);
                    }
                }
                Err(Failed) => {
                    self.shared.rest(retry);
                    retry = retry.saturating_mul(2).min(RETRY_LAST);
                }
            }
        }
        let began = Instant::now();
        while self.shared.lag() > 0 && began.elapsed() < LAST_EFFORT {
            if !matches!(self.step(), Ok(1..)) {
                break;
            }
        }
    }

    /// Folds one batch, and says how many events it had. After a failure it begins anew.
    fn step(&mut self) -> Result<usize, Failed> {
        match self.fold() {
            Ok(0) => Ok(0),
            Ok(events) => {
                self.spare = None;
                Ok(events)
            }
            Err(error) => {
                let failed = self.worker.take().and_then(Worker::into_idle_index);
                let spare = self.spare.take();
                self.spare = if error.is_damage() { None } else { failed.or(spare) };
                complain(&self.folder, &error);
                Err(Failed)
            }
        }
    }

    fn fold(&mut self) -> Result<usize, FollowError> {
        let worker = match &mut self.worker {
            Some(worker) => worker,
            None => self.worker.insert(Worker::open(&self.folder)?),
        };
        let events = worker.batch(&self.shared.recent)?;
        self.shared.folded.store(worker.reached.rows.0, Ordering::Relaxed);
        Ok(events)
    }
}

fn complain(folder: &Path, error: &FollowError) {
    let error_chain = chain(error);
    tracing::warn!(error = error_chain, "the index has fallen behind");
    if error.is_damage()
        && let Err(error) = index::remove(folder)
    {
        tracing::warn!(error = chain(&error), "the damaged index cannot be removed");
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
