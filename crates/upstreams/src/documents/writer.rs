//! The writer: one thread, one connection, one transaction for all the jobs that have gathered.
//!
//! What always holds:
//! - A job is answered only when the transaction that it ran in is durable, also when it changed
//!   nothing: what it saw may have been another job's change of the same group.
//! - When a group fails, at whatever point, every job of it is told that its outcome is unknown,
//!   and no job runs until the connection has been closed, opened again, and what it finds has
//!   been brought to stable storage.
//! - While that cannot be done, jobs are refused without being run; each group tries again.
//! - A checkpoint comes behind the answers of a group: they do not wait for it.
//!
//! Deliberately absent: a savepoint for each job. A job looks first and changes last; one that
//! cannot keep to that (a batch) takes a savepoint of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use leasehold_core::ids::Seq;
use leasehold_core::time::WallTime;
use leasehold_journal::files;
use leasehold_journal::gathered::Gathered;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::store::{self, Counters, OpenError};

/// The most jobs that wait for the writer; who comes later waits for a place.
const QUEUE: usize = 1024;
/// The most jobs of one group, so that the first of them is not kept waiting for long.
const GROUP: usize = 256;
/// The pages that gather in the write-ahead file before a checkpoint moves them: about 4 MB.
const CHECKPOINT_PAGES: u32 = 1000;
/// The pages that have to come before one that failed is tried again.
const AGAIN_PAGES: u32 = 50;

/// Why there is no answer from storage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StorageFailure {
    /// The write may or may not have taken effect.
    Unknown,
    /// It was not carried out.
    NotDone,
}

/// What a job works on: the group's transaction, and what is used up in it.
pub(super) struct Txn<'a> {
    pub(super) connection: &'a Connection,
    counters: &'a mut Counters,
}

impl Txn<'_> {
    /// A version that was never given out before, and its time of change: `now`, but never
    /// earlier than one that was given out before.
    pub(super) fn stamp(&mut self, now: WallTime) -> (i64, WallTime) {
        self.counters.version = self.counters.version.saturating_add(1);
        self.counters.modified = self.counters.modified.max(now);
        (self.counters.version, self.counters.modified)
    }

    /// Notes that the write of this admission took effect.
    pub(super) fn note_applied(&mut self, admission: Option<Seq>) -> rusqlite::Result<()> {
        match admission {
            Some(admission) => store::note_applied(self.connection, admission),
            None => Ok(()),
        }
    }
}

/// The handle on the writer's thread. Dropped, it waits until what was queued has been written.
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    #[cfg(test)]
    pub(super) max_pages: Arc<std::sync::atomic::AtomicU32>,
    #[cfg(test)]
    pub(super) commits: Arc<std::sync::atomic::AtomicUsize>,
}

impl Writer {
    pub(super) fn start(path: PathBuf) -> Result<Self, OpenError> {
        files::write_wal_again(&path)?;
        let gathered = Arc::new(Gathered::default());
        let connection = open(&path, &gathered)?;
        let keeper = store::open_keeper(&path)
            .map_err(|source| OpenError::Storage { path: path.clone(), source })?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        #[cfg(test)]
        let max_pages = Arc::new(std::sync::atomic::AtomicU32::new(u32::MAX - 1));
        #[cfg(test)]
        let commits = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut desk = Desk {
            path,
            _keeper: keeper,
            open: Some(connection),
            gathered,
            rest: 1,
            #[cfg(test)]
            max_pages: max_pages.clone(),
            #[cfg(test)]
            commits: commits.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("documents-writer".into())
            .spawn(move || desk.work(queue))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            #[cfg(test)]
            max_pages,
            #[cfg(test)]
            commits,
        })
    }

    /// Runs `work` in the writer's next transaction and gives its result once that is durable.
    /// The work is done even when nobody waits for the result any more.
    pub(super) async fn submit<T, F>(&self, work: F) -> Result<T, StorageFailure>
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let Some(jobs) = &self.jobs else { return Err(StorageFailure::NotDone) };
        let (answer, answered) = oneshot::channel();
        let task: Task<T, F> = Task { work: Some(work), result: None, answer };
        jobs.send(Box::new(task)).await.map_err(|_| StorageFailure::NotDone)?;
        answered.await.unwrap_or(Err(StorageFailure::Unknown))
    }

    /// How many jobs are in the queue.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.jobs.as_ref().map_or(0, |jobs| jobs.max_capacity() - jobs.capacity())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes documents had panicked");
        }
    }
}

trait Job: Send {
    fn run(&mut self, txn: &mut Txn<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, end: Result<(), StorageFailure>);
}

struct Task<T, F> {
    work: Option<F>,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, StorageFailure>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&mut Txn<'_>) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, txn: &mut Txn<'_>) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.result = Some(work(txn)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, end: Result<(), StorageFailure>) {
        let answer = match (end, self.result) {
            (Ok(()), Some(result)) => Ok(result),
            (Ok(()), None) => Err(StorageFailure::Unknown),
            (Err(failure), _) => Err(failure),
        };
        // Whoever asked may have gone.
        let _ = self.answer.send(answer);
    }
}

/// Why a group was not committed.
#[derive(Debug, thiserror::Error)]
enum GroupError {
    #[error("cannot commit to the documents")]
    Storage(#[from] rusqlite::Error),
    #[error("a write to the documents panicked")]
    Panic,
}

/// What the writer's thread owns.
struct Desk {
    path: PathBuf,
    /// Keeps the memory that connections share (`-shm`) in place while the one that writes is
    /// closed. Made anew on a full disk, its pages may be without a place there, and touching one
    /// ends the process (SIGBUS).
    _keeper: Connection,
    /// None after a failure, until it could be opened again.
    open: Option<Connection>,
    gathered: Arc<Gathered>,
    /// The pages that have to come behind a checkpoint before the next.
    rest: u32,
    #[cfg(test)]
    max_pages: Arc<std::sync::atomic::AtomicU32>,
    #[cfg(test)]
    commits: Arc<std::sync::atomic::AtomicUsize>,
}

impl Desk {
    fn work(&mut self, mut queue: mpsc::Receiver<Box<dyn Job>>) {
        let mut group = Vec::new();
        while let Some(first) = queue.blocking_recv() {
            group.push(first);
            while group.len() < GROUP
                && let Ok(job) = queue.try_recv()
            {
                group.push(job);
            }
            let end = self.settle(&mut group);
            for job in group.drain(..) {
                job.answer(end);
            }
            self.checkpoint();
            self.reopen();
        }
    }

    fn settle(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), StorageFailure> {
        self.reopen();
        #[cfg(test)]
        self.prepare_test();
        let Some(connection) = &mut self.open else {
            return Err(StorageFailure::NotDone);
        };
        if let Err(error) = commit(connection, group) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                path = %self.path.display(),
                jobs = group.len(),
                "the outcome of a group of document writes is unknown"
            );
            self.open = None;
            return Err(StorageFailure::Unknown);
        }
        Ok(())
    }

    /// Moves what has gathered into the main file, if that is due.
    fn checkpoint(&mut self) {
        let Some(connection) = &self.open else { return };
        // Behind each group as long as a reader keeps the write-ahead file from beginning anew: it
        // grows meanwhile, and a disk that is full has no room for that.
        if self.gathered.pages() < CHECKPOINT_PAGES || self.gathered.since_moved() < self.rest {
            return;
        }
        // What no reader stands in the way of, and nobody is waited for.
        let moved = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        self.rest = if moved.is_ok() { 1 } else { AGAIN_PAGES };
        self.gathered.moved();
        if let Err(error) = moved {
            // What was committed is durable where it is, and is moved as a whole the next time.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                path = %self.path.display(),
                "cannot move what was written to the documents into their file"
            );
        }
    }

    fn reopen(&mut self) {
        if self.open.is_some() {
            return;
        }
        match open(&self.path, &self.gathered) {
            Ok(connection) => {
                tracing::info!(path = %self.path.display(), "the documents are open again");
                self.open = Some(connection);
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "the documents take no writes"
            ),
        }
    }

    #[cfg(test)]
    fn prepare_test(&self) {
        self.commits.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let pages = self.max_pages.load(std::sync::atomic::Ordering::SeqCst);
        if let Some(connection) = &self.open {
            connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
        }
    }
}

/// The connection that writes, whose write-ahead file is empty.
fn open(path: &Path, gathered: &Arc<Gathered>) -> Result<Connection, OpenError> {
    let mut connection = store::open_writer(path)?;
    gathered
        .count(&mut connection)
        .map_err(|source| OpenError::Storage { path: path.to_owned(), source })?;
    gathered.restarted();
    Ok(connection)
}

fn commit(connection: &mut Connection, group: &mut [Box<dyn Job>]) -> Result<(), GroupError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read anew each time, so that nothing is remembered here that a failed group made up.
    let before = store::counters(&transaction)?;
    let mut counters = before;
    for job in group {
        let mut txn = Txn { connection: &transaction, counters: &mut counters };
        // A panic is our bug. It must not take the thread, and all later writes, with it; the
        // whole group fails, because how far the job came is not known.
        catch_unwind(AssertUnwindSafe(|| job.run(&mut txn))).map_err(|_| GroupError::Panic)??;
    }
    if counters != before {
        store::save_counters(&transaction, counters)?;
    }
    transaction.commit()?;
    Ok(())
}
