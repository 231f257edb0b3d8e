//! The embedded documents: what the server keeps when there is nothing else behind it.
//!
//! A document is bytes and a media type at a path; one whose media type is JSON is valid JSON. A
//! path is a collection by having something below it, with or without a document of its own.
//!
//! What always holds:
//! - an answer to a write leaves when the write is durable, and a read sees every write that was
//!   answered before it;
//! - an entity tag names one version of one document, for ever;
//! - a write is applied only if all that it changes is among what it was let through for;
//! - an admitted write and the note that it was applied are one transaction.
//!
//! Deliberately absent: locks and who asks (the guard's), ranges, JSON Schema and the other rules
//! of a collection, and the backup, which copies the file.

mod answer;
mod apply;
mod batch;
pub mod cursor;
mod key;
mod listing;
mod media;
mod patch;
mod patching;
mod plan;
mod preconditions;
mod query;
mod reader;
mod store;
#[cfg(test)]
mod tests;
mod validators;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use leasehold_core::event::WriteResult;
use leasehold_core::ids::Seq;
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_core::time::WallTime;
use leasehold_guard::body::{Body, full};
use leasehold_guard::upstream::{Admitted, Answer, BoxFuture, Execution, Upstream, Witness};
use leasehold_problems::Problem;
use uuid::Uuid;

use self::answer::Shown;
use self::apply::Applied;
use self::batch::Carried;
use self::key::Key;
use self::listing::Question;
use self::plan::Change;
use self::preconditions::Conditions;
use self::query::Query;
use self::reader::Readers;
use self::store::Meta;
use self::writer::Writer;

pub use self::batch::{BatchEnd, BatchOperation, BatchPlan};
pub use self::plan::Plan;
pub use self::store::OpenError;

/// The name of the file in the data folder.
pub const FILE: &str = "documents.db";

/// The greatest limit of a document that the store can keep to.
const MOST_BYTES: usize = 512 << 20;
/// Bodies from here on are parsed off the async threads.
const LARGE: usize = 64 << 10;
/// How long to wait before storage is asked again how a write ended, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// How many admissions are forgotten in one transaction.
const FORGET: usize = 10_000;

/// What the documents are told from outside.
#[derive(Clone)]
pub struct Options {
    /// The longest body of a document, and of a patch, in bytes: 16 MiB; at most 512 MiB.
    pub max_document: usize,
    /// Reads the wall clock.
    pub clock: Arc<dyn Fn() -> WallTime + Send + Sync>,
    /// Draws the name of a child that was given none.
    pub fresh_id: Arc<dyn Fn() -> Uuid + Send + Sync>,
    /// Whether a resource is not to have a document, because its path means something else.
    /// Without a word: `/-` and all below, and what ends in `/lock` or in `/lock/` and one of
    /// `break`, `transfer`, `request`, `freeze`.
    pub reserved: Arc<dyn Fn(&Resource) -> bool + Send + Sync>,
}

impl Options {
    /// The defaults, with this clock and these names.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Fn() -> WallTime + Send + Sync>,
        fresh_id: Arc<dyn Fn() -> Uuid + Send + Sync>,
    ) -> Self {
        Self { max_document: 16 << 20, clock, fresh_id, reserved: Arc::new(reserved) }
    }
}

/// The paths that are not documents' where nothing is configured otherwise.
fn reserved(resource: &Resource) -> bool {
    if resource.segments().next() == Some("-") {
        return true;
    }
    let mut last = resource.segments().rev();
    match last.next() {
        Some("lock") => true,
        Some("break" | "transfer" | "request" | "freeze") => last.next() == Some("lock"),
        _ => false,
    }
}

/// What every part of the documents knows.
struct Settings {
    incarnation: String,
    max_document: usize,
    clock: Arc<dyn Fn() -> WallTime + Send + Sync>,
    fresh_id: Arc<dyn Fn() -> Uuid + Send + Sync>,
    reserved: Arc<dyn Fn(&Resource) -> bool + Send + Sync>,
}

impl Settings {
    fn etag(&self, version: i64) -> String {
        validators::etag(&self.incarnation, version)
    }

    fn shown(&self, meta: &Meta, now: WallTime) -> Shown {
        self.shown_version(meta.version, meta.modified, now)
    }

    fn shown_version(&self, version: i64, modified: WallTime, now: WallTime) -> Shown {
        Shown { etag: self.etag(version), modified: validators::shown_seconds(modified, now) }
    }
}

/// The embedded documents.
pub struct Documents {
    settings: Arc<Settings>,
    readers: Readers,
    writer: Writer,
}

impl Documents {
    /// Opens the documents in this folder, which exists; makes the file if there is none.
    ///
    /// `incarnation` is eight lower-case hexadecimal digits, another after each restore: it is
    /// what keeps an entity tag of before the restore from meaning something after it.
    ///
    /// # Errors
    /// When the file cannot be opened, is of a later schema, or is something else.
    pub fn open(folder: &Path, incarnation: &str, options: Options) -> Result<Self, OpenError> {
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if incarnation.len() != 8 || !incarnation.bytes().all(hexadecimal) {
            return Err(OpenError::Incarnation(incarnation.to_owned()));
        }
        let path = folder.join(FILE);
        let writer = Writer::start(path.clone())?;
        let Options { max_document, clock, fresh_id, reserved } = options;
        let settings = Arc::new(Settings {
            incarnation: incarnation.to_owned(),
            max_document: max_document.min(MOST_BYTES),
            clock,
            fresh_id,
            reserved,
        });
        Ok(Self { settings, readers: Readers::new(path), writer })
    }

    /// Whether the write of this admission took effect. Blocks on storage.
    ///
    /// # Errors
    /// When storage cannot be read; then it is not known.
    pub fn was_applied(&self, admission: Seq) -> Result<bool, StorageError> {
        self.readers
            .ask_blocking(|connection| store::was_applied(connection, admission))
            .map_err(StorageError::Read)
    }

    /// Forgets which admissions before this one took effect: those that are closed in the trail.
    ///
    /// # Errors
    /// When storage fails; some may be forgotten then.
    pub async fn forget_admissions(&self, before: Seq) -> Result<(), StorageError> {
        loop {
            let forgotten = self
                .writer
                .submit(move |txn| store::forget_applied(txn.connection, before, FORGET))
                .await
                .map_err(|_| StorageError::Write)?;
            if forgotten < FORGET {
                return Ok(());
            }
        }
    }

    /// Reads a batch: steps 0, 1 and 6, each for all operations before the next.
    ///
    /// # Errors
    /// The refusal, and which operation it is about, counted from 0.
    pub fn plan_batch(
        &self,
        operations: Vec<BatchOperation>,
    ) -> Result<BatchPlan, (usize, Box<Problem>)> {
        BatchPlan::read(&self.settings, operations)
    }

    /// Everything that a batch changes, as things stand.
    pub async fn batch_targets(&self, plan: &BatchPlan) -> Vec<Target> {
        let asked = plan.clone();
        match self.readers.ask(move |connection| asked.needed(connection)).await {
            Ok(targets) => targets,
            // Nothing is left out; the batch itself will meet the same failure.
            Err(_) => plan.possible(),
        }
    }

    /// Carries a batch out: all or none.
    ///
    /// # Errors
    /// When none was applied, or when storage failed.
    pub async fn execute_batch(
        &self,
        plan: BatchPlan,
        admitted: &Admitted,
    ) -> Result<Vec<Response<Bytes>>, BatchEnd> {
        self.carry_out(plan, &|target| admitted.covers(target), admitted.admission()).await
    }

    async fn carry_out(
        &self,
        plan: BatchPlan,
        covers: &(dyn Fn(&Target) -> bool + Sync),
        admission: Option<Seq>,
    ) -> Result<Vec<Response<Bytes>>, BatchEnd> {
        // What an earlier operation makes, a later one can need: the union of both is asked.
        let admitted: Vec<_> =
            plan.possible().into_iter().filter(|target| covers(target)).collect();
        let settings = self.settings.clone();
        let job = self
            .writer
            .submit(move |txn| batch::carry_out(txn, &settings, plan, &admitted, admission));
        match job.await {
            Ok(Carried::Done(answers)) => Ok(answers),
            Ok(Carried::Refused(index, problem)) => Err(BatchEnd::Refused(index, problem)),
            Ok(Carried::Retarget(plan)) => Err(BatchEnd::Retarget(plan)),
            Err(failure) => Err(BatchEnd::Failed(answer::storage(failure))),
        }
    }

    /// How a write ended whose group failed. A transaction after the failed one tells: the file was
    /// opened again for it, and what was there then has been brought to stable storage.
    async fn learn(&self, admission: Option<Seq>) -> WriteResult {
        let mut pause = RETRY_FIRST;
        loop {
            let asked = self.writer.submit(move |txn| match admission {
                Some(admission) => store::was_applied(txn.connection, admission),
                None => Ok(false),
            });
            match asked.await {
                Ok(true) => return WriteResult::Applied,
                Ok(false) => return WriteResult::NotApplied,
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    async fn apply(
        &self,
        mut plan: Plan,
        covers: &(dyn Fn(&Target) -> bool + Sync),
        admission: Option<Seq>,
    ) -> Execution<Plan> {
        let admitted: Vec<_> =
            plan.possible().into_iter().filter(|target| covers(target)).collect();
        let settings = self.settings.clone();
        if matches!(plan.change, Change::Patch { .. }) {
            let known = settings.clone();
            plan = match self.readers.ask(move |from| patching::ahead(from, &known, plan)).await {
                Ok(plan) => plan,
                Err(failure) => return Execution::Ended(Err(answer::storage(failure))),
            };
        }
        let job = self.writer.submit(move |txn| {
            // Step 3 comes first: what would be refused by the state may be locked.
            let needed = plan.needed(txn.connection)?;
            if !needed.iter().all(|target| admitted.contains(target)) {
                return Ok(Execution::Retarget(plan));
            }
            Ok(match apply::apply(txn, &settings, &plan, admission)? {
                Applied::Done(answer) => Execution::Ended(Ok(answer.map(full))),
                Applied::Refused(_, problem) => Execution::Ended(Err(problem)),
                Applied::Redrawn(plan) => Execution::Retarget(plan),
            })
        });
        job.await.unwrap_or_else(|failure| Execution::Ended(Err(answer::storage(failure))))
    }

    async fn ask(&self, request: Request<Body>, resource: Resource) -> Answer {
        let head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            Method::OPTIONS => return Ok(answer::options().map(full)),
            _ => return Err(answer::method_not_allowed(request.method())),
        };
        let query = Query::parse(request.uri().query())?;
        let conditions = Conditions::parse(request.headers())?;
        let now = (self.settings.clock)();
        let question = Question { resource, head, query, conditions, now };
        let settings = self.settings.clone();
        let asked =
            self.readers.ask(move |connection| listing::read(connection, &settings, &question));
        match asked.await {
            Ok(answer) => answer.map(|response| response.map(full)),
            Err(failure) => Err(answer::storage(failure)),
        }
    }

    async fn understand(
        &self,
        head: Parts,
        resource: Resource,
        body: Body,
    ) -> Result<Plan, Box<Problem>> {
        plan::check_body_head(&self.settings, &head.method, &head.headers)?;
        let body = match head.method {
            Method::DELETE => Bytes::new(),
            _ => plan::read_body(&self.settings, body).await?,
        };
        if body.len() < LARGE {
            return Plan::read(&self.settings, &head, resource, body);
        }
        let settings = self.settings.clone();
        let read = move || Plan::read(&settings, &head, resource, body);
        // It fails only where the runtime is going down.
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|_| Err(answer::storage(writer::StorageFailure::NotDone)))
    }
}

/// Why the documents could not say or forget something.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Storage cannot be read.
    #[error("cannot read the documents")]
    Read(#[source] rusqlite::Error),
    /// Storage takes no writes; the cause was logged where it happened.
    #[error("cannot write to the documents")]
    Write,
}

impl Witness for Documents {
    fn etag<'a>(
        &'a self,
        resource: &'a Resource,
    ) -> BoxFuture<'a, Result<Option<String>, Box<Problem>>> {
        Box::pin(async move {
            let key = Key::of(resource);
            let meta = self.readers.ask(move |connection| store::meta(connection, &key)).await;
            match meta {
                Ok(meta) => Ok(meta.map(|meta| self.settings.etag(meta.version))),
                Err(failure) => Err(answer::storage(failure)),
            }
        })
    }

    fn outcome(&self, admission: Option<Seq>) -> BoxFuture<'_, WriteResult> {
        Box::pin(self.learn(admission))
    }
}

impl Upstream for Documents {
    type Plan = Plan;

    async fn read(&self, request: Request<Body>, resource: Resource) -> Answer {
        self.ask(request, resource).await
    }

    fn check_syntax(&self, head: &Parts) -> Result<(), Box<Problem>> {
        plan::check_syntax(head)
    }

    fn takes_all_below(&self, head: &Parts) -> bool {
        // A query that cannot be read is refused before anything is asked about it.
        head.method == Method::DELETE
            && Query::parse(head.uri.query()).is_ok_and(|query| query.recursive == Some(true))
    }

    fn allow(&self, head: &Parts, _resource: &Resource) -> Result<(), Box<Problem>> {
        plan::check_head(head)
    }

    fn early_targets(&self, head: &Parts, resource: &Resource) -> Vec<Target> {
        plan::early_targets(&head.method, resource)
    }

    async fn targets_by_head(&self, head: &Parts, resource: &Resource) -> Option<Vec<Target>> {
        let (method, asked) = (head.method.clone(), resource.clone());
        let named = self
            .readers
            .ask(move |connection| plan::needed_by_head(connection, &method, &asked))
            .await;
        // The write itself will meet the same failure.
        named.ok().flatten()
    }

    async fn plan(
        &self,
        head: Parts,
        resource: Resource,
        body: Body,
    ) -> Result<Plan, Box<Problem>> {
        self.understand(head, resource, body).await
    }

    async fn targets(&self, plan: &Plan) -> Vec<Target> {
        // What a patch changes does not depend on what is there.
        if matches!(plan.change, Change::Patch { .. }) {
            return plan.possible();
        }
        // A clone of a plan shares its body.
        let asked = plan.clone();
        match self.readers.ask(move |connection| asked.needed(connection)).await {
            Ok(targets) => targets,
            // Nothing is left out; the write itself will meet the same failure.
            Err(_) => plan.possible(),
        }
    }

    async fn execute(&self, plan: Plan, admitted: &Admitted) -> Execution<Plan> {
        let covers = |target: &Target| admitted.covers(target);
        self.apply(plan, &covers, admitted.admission()).await
    }
}
