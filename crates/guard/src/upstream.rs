//! What stands behind the guard, as the guard sees it.

use std::future::Future;
use std::pin::Pin;

use http::request::Parts;
use http::{Request, Response};
use leasehold_core::event::{Subject, WriteResult};
use leasehold_core::ids::{Principal, Seq};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_problems::Problem;

use crate::body::Body;
use crate::call::Credentials;
use crate::rules::Asked;

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What came of a write or a read: the upstream's answer, or a refusal of its own.
pub type Answer = Result<Response<Body>, Box<Problem>>;

/// Says how a write has ended, once nothing of it can land any more.
pub type Ending = BoxFuture<'static, WriteResult>;

/// The proof that a write was let through; only the guard makes it.
#[derive(Debug)]
pub struct Admitted {
    pub(crate) admission: Option<Seq>,
    pub(crate) targets: Vec<Target>,
    pub(crate) lock: Option<Subject>,
}

impl Admitted {
    /// The position of the write's `write_admitted` (the first, where it has several); none for a
    /// write without a lock.
    #[must_use]
    pub fn admission(&self) -> Option<Seq> {
        self.admission
    }

    /// The lock that it was let through under, where there is one: the nearest to its resource.
    #[must_use]
    pub fn lock(&self) -> Option<&Subject> {
        self.lock.as_ref()
    }

    /// Whether the write was let through for `target`.
    #[must_use]
    pub fn covers(&self, target: &Target) -> bool {
        self.targets.contains(target)
    }
}

/// What came of carrying a write out.
pub enum Execution<P> {
    /// It has ended: with an answer, or refused and not applied.
    Ended(Answer),
    /// It is answered, and has not ended: it stays pinned until the second says how it did.
    Answered(Answer, Ending),
    /// It was not applied: what it changes is not what it was let through for. The plan comes
    /// back and names its targets anew.
    Retarget(P),
}

/// Tells what a caller may see whose credentials only the upstream can judge.
pub trait Verifier: Send + Sync + 'static {
    /// Whether whoever shows `credentials`, known here as `principal`, is shown what is at the URL
    /// `asked`.
    ///
    /// # Errors
    /// The upstream's refusal, or why it cannot be had.
    fn may_see<'a>(
        &'a self,
        principal: &'a Principal,
        credentials: &'a Credentials,
        asked: &'a Asked,
    ) -> BoxFuture<'a, Result<(), Box<Problem>>>;
}

/// What the guard asks of what stands behind it, whoever hands the writes over.
pub trait Witness: Send + Sync + 'static {
    /// The current entity tag of a resource, for the conditions of an `If` header; none where there
    /// is nothing.
    ///
    /// # Errors
    /// When it cannot be known.
    fn etag<'a>(
        &'a self,
        resource: &'a Resource,
    ) -> BoxFuture<'a, Result<Option<String>, Box<Problem>>>;

    /// How a write ended that was answered with `storage-failure`, or panicked (or its [`Ending`]):
    /// whether the write of this admission took effect; for a write without one, any result. It is
    /// asked while the write is still pinned, and answers when nothing of the write can land any
    /// more.
    fn outcome(&self, admission: Option<Seq>) -> BoxFuture<'_, WriteResult>;
}

/// What stands behind the guard, where it takes requests as they came.
pub trait Upstream: Witness {
    /// A write that has been read and understood.
    type Plan: Send + 'static;

    /// Answers a request that only reads.
    fn read(
        &self,
        request: Request<Body>,
        resource: Resource,
    ) -> impl Future<Output = Answer> + Send;

    /// Step 0: refuses a write whose header fields or query cannot be read.
    ///
    /// # Errors
    /// The refusal.
    fn check_syntax(&self, head: &Parts) -> Result<(), Box<Problem>>;

    /// Whether a write takes away everything below its resource, whatever is there: then the
    /// caller has to be allowed to write there too.
    fn takes_all_below(&self, head: &Parts) -> bool;

    /// Step 1: refuses a write whose method the resource does not take (405).
    ///
    /// # Errors
    /// The refusal.
    fn allow(&self, head: &Parts, resource: &Resource) -> Result<(), Box<Problem>>;

    /// The targets that the head alone names: what is checked before the body is read.
    fn early_targets(&self, head: &Parts, resource: &Resource) -> Vec<Target>;

    /// Everything that the write changes, as things stand, where its head tells that; none where
    /// its body has to be read.
    fn targets_by_head(
        &self,
        head: &Parts,
        resource: &Resource,
    ) -> impl Future<Output = Option<Vec<Target>>> + Send;

    /// Whether a write's head tells everything that it changes, and its body is not read before it
    /// is let through: then it is judged once, when it is admitted.
    fn is_judged_by_head(&self) -> bool {
        false
    }

    /// Step 6: reads what it needs of the body.
    fn plan(
        &self,
        head: Parts,
        resource: Resource,
        body: Body,
    ) -> impl Future<Output = Result<Self::Plan, Box<Problem>>> + Send;

    /// Everything that the write changes, as things stand.
    fn targets(&self, plan: &Self::Plan) -> impl Future<Output = Vec<Target>> + Send;

    /// Steps 7 and 8, and the write itself.
    fn execute(
        &self,
        plan: Self::Plan,
        admitted: &Admitted,
    ) -> impl Future<Output = Execution<Self::Plan>> + Send;
}
