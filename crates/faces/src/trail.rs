//! The trail, asked from async code: each question on a thread that may block.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use leasehold_core::ids::LockId;
use leasehold_core::lock::Ended;
use leasehold_guard::upstream::BoxFuture;
use leasehold_journal::query::{AuditReader, QueryError};
use leasehold_problems::{Name, Problem};
use tokio::sync::Semaphore;

use crate::json_api::Trail;

/// How many questions are asked at a time; more wait.
const AT_A_TIME: usize = 4;

/// Readers of the trail of one data folder.
#[derive(Clone)]
pub struct Readers {
    folder: PathBuf,
    idle: Arc<Mutex<Vec<AuditReader>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// Readers of the trail in this data folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, idle: Arc::default(), permits: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Asks the trail.
    ///
    /// # Errors
    /// `503 unavailable` where it cannot be read.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&AuditReader) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, Box<Problem>> {
        let permit = self.permits.clone().acquire_owned().await;
        let (folder, idle) = (self.folder.clone(), self.idle.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let pooled = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let reader = match pooled {
                Some(reader) => reader,
                None => AuditReader::open(&folder)?,
            };
            let answer = question(&reader)?;
            // One that failed is not kept.
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            Ok::<T, QueryError>(answer)
        });
        let answer = asked.await;
        drop(permit);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot read the trail");
                Err(unreadable())
            }
            Err(error) => {
                tracing::error!(%error, "a question to the trail did not end");
                Err(unreadable())
            }
        }
    }
}

fn unreadable() -> Box<Problem> {
    Box::new(Problem::new(Name::Unavailable, "The trail cannot be read now.").retry_after(1))
}

impl Trail for Readers {
    fn how_ended(&self, lock_id: LockId) -> BoxFuture<'_, Option<Ended>> {
        Box::pin(async move {
            let asked = self.ask(move |reader| {
                let Some(end) = reader.how_ended(lock_id)? else { return Ok(None) };
                let stored = reader.read(end.seq, 1)?;
                let subject = stored
                    .first()
                    .and_then(|stored| stored.record().ok())
                    .and_then(|record| record.subject().ok());
                Ok(subject.map(|subject| Ended {
                    lock_id,
                    fence: subject.fence,
                    resources: subject.resources,
                    holder: subject.holder,
                    ending: end.ending,
                    lease: end.lease,
                    at: end.at,
                    idempotency: None,
                }))
            });
            asked.await.ok().flatten()
        })
    }
}
