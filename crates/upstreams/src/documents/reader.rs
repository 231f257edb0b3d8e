//! The readers: a few read-only connections, used off the async threads.
//!
//! Questions wait in a queue, and who works it off answers several in one read transaction: many
//! questions at once wake one thread, and begin one transaction. There is one thread at first; more
//! come for a long queue, and for a question that has waited for long.
//!
//! What always holds:
//! - A reader sees every write that was acknowledged before it was asked: a write is acknowledged
//!   only when it is committed, and a question is answered in a transaction that began after it
//!   was asked.
//! - No read transaction outlives the questions that it was begun for: one slow client cannot keep
//!   the write-ahead file from shrinking.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::store;
use super::writer::StorageFailure;

/// How many threads work the queue off at a time.
const READERS: usize = 4;
/// The most questions of one transaction.
const TURN: usize = 16;
/// How long a question waits behind others before another thread comes.
const LONG: Duration = Duration::from_millis(1);

#[derive(Clone)]
pub(super) struct Readers(Arc<Pool>);

struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    desk: Mutex<Desk>,
}

/// What there is to do, and who does it.
#[derive(Default)]
struct Desk {
    queue: VecDeque<Box<dyn Asked>>,
    /// How many threads work the queue off.
    working: usize,
    /// How many questions were ever asked.
    asked: u64,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Arc::new(Pool { path, idle: Mutex::default(), desk: Mutex::default() }))
    }

    /// Runs `question` in a read transaction, on a thread that may block. It is not run where
    /// nobody waits for the answer any more.
    pub(super) async fn ask<T, F>(&self, question: F) -> Result<T, StorageFailure>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, mut answered) = oneshot::channel();
        if self.0.desk().take_in(Box::new(Asking { question, answer })) {
            self.work();
        }
        let in_time = timeout(LONG, &mut answered).await;
        if in_time.is_err() && self.0.desk().hurry() {
            self.work();
        }
        let answer = match in_time {
            Ok(answer) => answer,
            Err(_) => answered.await,
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    path = %self.0.path.display(),
                    "cannot read the documents"
                );
                Err(StorageFailure::NotDone)
            }
            // It panicked, or the runtime is going down.
            Err(_) => {
                tracing::error!("a read of the documents did not end");
                Err(StorageFailure::NotDone)
            }
        }
    }

    fn work(&self) {
        let pool = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || pool.work());
    }

    /// Runs `question` in one read transaction, on this thread.
    pub(super) fn ask_blocking<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let connection = self.0.connection()?;
        let transaction = connection.unchecked_transaction()?;
        let answer = question(&transaction)?;
        transaction.finish()?;
        // One that failed is not kept.
        self.0.keep(connection);
        Ok(answer)
    }
}

impl Desk {
    /// Whether another thread is to work the queue off, which is counted as at work then.
    fn take_in(&mut self, asked: Box<dyn Asked>) -> bool {
        self.queue.push_back(asked);
        self.asked += 1;
        self.working * TURN < self.queue.len() && self.another()
    }

    /// The same, because somebody has waited for long.
    fn hurry(&mut self) -> bool {
        !self.queue.is_empty() && self.another()
    }

    fn another(&mut self) -> bool {
        let comes = self.working < READERS;
        self.working += usize::from(comes);
        comes
    }

    /// How many questions were asked before now. None when nothing is left to do: whoever asks
    /// does not work any more.
    fn turn(&mut self) -> Option<u64> {
        if self.queue.is_empty() {
            self.working -= 1;
            return None;
        }
        Some(self.asked)
    }

    /// The next question, if it is among the first `until` that were ever asked.
    fn next(&mut self, until: u64) -> Option<Box<dyn Asked>> {
        let taken = self.asked - self.queue.len() as u64;
        if taken < until { self.queue.pop_front() } else { None }
    }
}

impl Pool {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing panics while it is held.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what is in the queue, until it is empty.
    fn work(&self) {
        loop {
            // In a statement of its own: the lock is not kept.
            let turn = self.desk().turn();
            let Some(until) = turn else { return };
            if let Err(error) = self.answer(until) {
                let asked = self.desk().next(until);
                if let Some(asked) = asked {
                    asked.fail(error);
                }
            }
        }
    }

    /// Answers some of the first `until` questions in one transaction, and ends behind one that
    /// fails.
    ///
    /// # Errors
    /// When there is no connection, or no transaction can be begun: none was answered then.
    fn answer(&self, until: u64) -> rusqlite::Result<()> {
        let connection = self.connection()?;
        let transaction = connection.unchecked_transaction()?;
        for _ in 0..TURN {
            let asked = self.desk().next(until);
            let Some(asked) = asked else { break };
            // One that failed is not kept, and what a panic left of it is not known.
            if !catch_unwind(AssertUnwindSafe(|| asked.answer(&transaction))).unwrap_or(false) {
                return Ok(());
            }
        }
        if transaction.finish().is_ok() {
            self.keep(connection);
        }
        Ok(())
    }

    fn connection(&self) -> rusqlite::Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => store::open_reader(&self.path),
        }
    }

    fn keep(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

/// A question, and who asked it.
trait Asked: Send {
    /// Whether the connection is as good as before.
    fn answer(self: Box<Self>, connection: &Connection) -> bool;
    fn fail(self: Box<Self>, error: rusqlite::Error);
}

struct Asking<T, F> {
    question: F,
    answer: oneshot::Sender<rusqlite::Result<T>>,
}

impl<T, F> Asked for Asking<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
{
    fn answer(self: Box<Self>, connection: &Connection) -> bool {
        if self.answer.is_closed() {
            return true;
        }
        let answer = (self.question)(connection);
        let is_good = answer.is_ok();
        // Whoever asked may have gone meanwhile.
        let _ = self.answer.send(answer);
        is_good
    }

    fn fail(self: Box<Self>, error: rusqlite::Error) {
        let _ = self.answer.send(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use leasehold_core::time::WallTime;

    use super::super::writer::Writer;
    use super::*;

    fn readers() -> (tempfile::TempDir, Writer, Readers) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("documents.db");
        let writer = Writer::start(path.clone()).unwrap();
        (folder, writer, Readers::new(path))
    }

    fn one(connection: &Connection) -> rusqlite::Result<i64> {
        connection.query_row("SELECT 1", [], |row| row.get(0))
    }

    #[tokio::test]
    async fn a_question_that_fails_or_panics_fails_alone() {
        let (_folder, _writer, readers) = readers();
        let (go, gate) = mpsc::channel::<()>();
        // All others are asked while it is answered, and so in one turn.
        let first = readers.ask(move |_| Ok(gate.recv().is_ok()));
        let all = async {
            tokio::join!(
                first,
                readers.ask(one),
                readers.ask(|from| from.query_row("SELECT x", [], |row| row.get::<_, i64>(0))),
                readers.ask(one),
                readers.ask(|_| -> rusqlite::Result<i64> { panic!("a question") }),
                readers.ask(one),
                async {
                    tokio::task::yield_now().await;
                    go.send(()).unwrap();
                },
            )
        };
        let (first, a, failed, b, panicked, c, ()) = all.await;
        assert_eq!(first, Ok(true));
        assert_eq!([a, b, c], [Ok(1); 3]);
        assert_eq!([failed, panicked], [Err(StorageFailure::NotDone); 2]);
    }

    #[tokio::test]
    async fn nobody_waits_behind_one_that_takes_long() {
        let (_folder, _writer, readers) = readers();
        let (go, gate) = mpsc::channel::<()>();
        let first = readers.ask(move |_| Ok(gate.recv().is_ok()));
        let second = async {
            let answer = readers.ask(one).await;
            go.send(()).unwrap();
            answer
        };
        assert_eq!(tokio::join!(first, second), (Ok(true), Ok(1)));
    }

    #[tokio::test]
    async fn a_question_sees_what_was_acknowledged_before_it_was_asked() {
        let (_folder, writer, readers) = readers();
        let version = |connection: &Connection| Ok(store::counters(connection)?.version);
        let (go, gate) = mpsc::channel::<()>();
        // Its transaction has begun, and looked, before the write.
        let (looked, has_looked) = oneshot::channel();
        let first = readers.ask(move |connection| {
            let version = store::counters(connection)?.version;
            looked.send(()).unwrap();
            gate.recv().unwrap();
            Ok(version)
        });
        let second = async {
            has_looked.await.unwrap();
            writer
                .submit(|txn| {
                    txn.stamp(WallTime(0));
                    Ok(())
                })
                .await
                .unwrap();
            let asked = readers.ask(version);
            let gone_on = async {
                tokio::task::yield_now().await;
                go.send(()).unwrap();
            };
            tokio::join!(asked, gone_on).0
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!(second.unwrap(), first.unwrap() + 1);
    }

    #[test]
    fn threads_come_for_a_long_queue_and_go_with_its_end() {
        let asked = || -> Box<dyn Asked> {
            Box::new(Asking { question: |_: &Connection| Ok(()), answer: oneshot::channel().0 })
        };
        let mut desk = Desk::default();
        let come = (0..200).filter(|_| desk.take_in(asked())).count();
        assert_eq!((come, desk.working), (READERS, READERS));
        let until = desk.turn().unwrap();
        assert!(!desk.take_in(asked()) && !desk.hurry());
        assert_eq!(std::iter::from_fn(|| desk.next(until)).count(), 200);
        let until = desk.turn().unwrap();
        assert!(desk.next(until).is_some() && desk.next(until).is_none());
        for _ in 0..READERS {
            assert_eq!(desk.turn(), None);
        }
        assert_eq!(desk.working, 0);
        assert!(!desk.hurry() && desk.take_in(asked()));
        assert!(!desk.take_in(asked()) && desk.hurry());
    }
}
