//! The readers: a few read-only connections, used off the async threads.
//!
//! A reader sees every write that was acknowledged before it began, because a write is
//! acknowledged only when it is committed. No read transaction outlives the closure that it was
//! begun for: one slow client cannot keep the write-ahead file from shrinking.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::store;
use super::writer::StorageFailure;

#[derive(Clone)]
pub(super) struct Readers {
    pool: Arc<Pool>,
    /// As many reads at a time as there are connections to keep.
    permits: Arc<Semaphore>,
}

struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, connections: usize) -> Self {
        let pool = Arc::new(Pool { path, idle: Mutex::new(Vec::new()) });
        Self { pool, permits: Arc::new(Semaphore::new(connections)) }
    }

    /// Runs `question` in one read transaction, on a thread that may block.
    pub(super) async fn ask<T, F>(&self, question: F) -> Result<T, StorageFailure>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit =
            self.permits.clone().acquire_owned().await.map_err(|_| StorageFailure::NotDone)?;
        let pool = self.pool.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let answer = pool.ask(question);
            drop(permit);
            answer
        });
        match asked.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    path = %self.pool.path.display(),
                    "cannot read the documents"
                );
                Err(StorageFailure::NotDone)
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a read of the documents did not end"
                );
                Err(StorageFailure::NotDone)
            }
        }
    }

    /// Runs `question` in one read transaction, on this thread.
    pub(super) fn ask_blocking<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.pool.ask(question)
    }
}

impl Pool {
    fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => store::open_reader(&self.path)?,
        };
        let transaction = connection.unchecked_transaction()?;
        let answer = question(&transaction)?;
        transaction.finish()?;
        // One that failed is not kept.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(answer)
    }
}
