//! The guard: the one path for every write, whatever is behind it.
//!
//! A write is checked by what its head names before its body is read; then it is read, its targets
//! are named, and it is admitted and pinned in one step. A write that is let through runs in a
//! task of its own once nobody waits for it, and owns the permit: a client that goes away cancels
//! nothing.
//!
//! Deliberately absent: any knowledge of what stands behind it, and any rule about locks.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use arc_swap::ArcSwap;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use leasehold_core::caller::Permission;
use leasehold_core::command::Write;
use leasehold_core::event::WriteResult;
use leasehold_core::lock::{Dialect, LetGo};
use leasehold_core::refusal::WriteRefusal;
use leasehold_core::resource::Resource;
use leasehold_core::sabotage::{self, Mistake};
use leasehold_core::target::Target;
use leasehold_engine::{Engine, Permit, Refused};
use leasehold_problems::{Name, Problem};
use tokio_util::task::TaskTracker;

use crate::body::Body;
use crate::call::Call;
use crate::claims::{Claims, Reading};
use crate::lasting::lasting;
use crate::method::is_safe;
use crate::rules::Rules;
use crate::telling::Telling;
use crate::tokens::malformed;
use crate::upstream::{Admitted, Answer, Ending, Execution, Upstream, Witness};

/// Tells a holder, in the answer to a write, that somebody asks it to let go.
pub const X_LOCK_REQUESTED_BY: HeaderName = HeaderName::from_static("x-lock-requested-by");

/// How often a write may turn out to change something else than it was let through for.
const MAX_RETARGETS: usize = 16;

/// The guard. Cheap to clone.
pub struct Guard<U> {
    shared: Arc<Shared<U>>,
}

struct Shared<U> {
    engine: Engine,
    upstream: Arc<U>,
    rules: Arc<ArcSwap<Rules>>,
    lock_suffix: String,
    writes: TaskTracker,
}

impl<U> Clone for Guard<U> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

/// A write that has been read, whatever it is.
pub trait Work: Send + 'static {
    /// Everything that it changes, as things stand.
    fn targets(&self) -> impl Future<Output = Vec<Target>> + Send;

    /// Carries it out; none where it was not applied because it changes something else than it
    /// was let through for.
    fn execute(&mut self, admitted: &Admitted) -> impl Future<Output = Option<Done>> + Send;
}

/// What came of a write that was carried out.
pub struct Done {
    /// What the client is told.
    pub answer: Answer,
    /// Says how it has ended, where it had not when it was answered.
    pub ending: Option<Ending>,
}

struct Single<U: Upstream> {
    upstream: Arc<U>,
    plan: Option<U::Plan>,
}

impl<U: Upstream> Work for Single<U>
where
    U::Plan: Sync,
{
    async fn targets(&self) -> Vec<Target> {
        match &self.plan {
            Some(plan) => self.upstream.targets(plan).await,
            None => Vec::new(),
        }
    }

    async fn execute(&mut self, admitted: &Admitted) -> Option<Done> {
        match self.upstream.execute(self.plan.take()?, admitted).await {
            Execution::Ended(answer) => Some(Done { answer, ending: None }),
            Execution::Answered(answer, ending) => Some(Done { answer, ending: Some(ending) }),
            Execution::Retarget(plan) => {
                self.plan = Some(plan);
                None
            }
        }
    }
}

impl<U: Witness> Guard<U> {
    /// A guard in front of `upstream`.
    #[must_use]
    pub fn new(
        engine: Engine,
        upstream: Arc<U>,
        rules: Arc<ArcSwap<Rules>>,
        lock_suffix: &str,
    ) -> Self {
        let writes = TaskTracker::new();
        let lock_suffix = lock_suffix.to_owned();
        Self { shared: Arc::new(Shared { engine, upstream, rules, lock_suffix, writes }) }
    }

    /// What stands behind it.
    #[must_use]
    pub fn upstream(&self) -> &Arc<U> {
        &self.shared.upstream
    }

    /// The engine it asks.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// Waits until every write that was let through has ended. No more may come.
    pub async fn drained(&self) {
        self.shared.writes.close();
        self.shared.writes.wait().await;
    }
}

impl<U: Upstream> Guard<U>
where
    U::Plan: Sync,
{
    /// Answers one request to a resource, whose method says whether it reads.
    ///
    /// # Errors
    /// The refusal.
    pub async fn handle(&self, request: Request<Body>, resource: Resource, call: &Call) -> Answer {
        if is_safe(request.method()) {
            return self.read(request, resource, call).await;
        }
        self.write(request, resource, call).await
    }

    /// Answers a request that only reads.
    ///
    /// # Errors
    /// `403 forbidden`, and what stands behind refuses.
    pub async fn read(&self, request: Request<Body>, resource: Resource, call: &Call) -> Answer {
        call.need(Permission::Read, &resource)?;
        self.shared.upstream.read(request, resource).await
    }

    /// Answers a write, whatever its method.
    ///
    /// # Errors
    /// The refusal, of the guard or of what stands behind.
    pub async fn write(&self, request: Request<Body>, resource: Resource, call: &Call) -> Answer {
        let shared = &self.shared;
        let (mut head, body) = request.into_parts();
        self.permitted(call, &head, &resource)?;
        shared.upstream.allow(&head, &resource)?;
        let claims = self.claims(call, &mut head, &resource).await?;
        let is_judged_once = shared.upstream.is_judged_by_head();
        let early = match is_judged_once {
            true => Vec::new(),
            false => shared.upstream.early_targets(&head, &resource),
        };
        let method: Arc<str> = Arc::from(head.method.as_str());
        let mut write = self.judged(call, method, resource.clone(), early, &claims)?;
        if !is_judged_once && let Err(refused) = shared.engine.check(&write).await {
            self.confirm(call, &head, &mut write, claims.has_precondition, refused).await?;
        }
        let plan = shared.upstream.plan(head, resource, body).await?;
        let work = Single { upstream: shared.upstream.clone(), plan: Some(plan) };
        self.carry_out(call, write, claims.has_precondition, work).await
    }

    /// Whether the caller may send a write, as far as its head tells.
    ///
    /// # Errors
    /// `403 forbidden`.
    pub fn permitted(
        &self,
        call: &Call,
        head: &Parts,
        resource: &Resource,
    ) -> Result<(), Box<Problem>> {
        if self.shared.upstream.takes_all_below(head) {
            call.need_below(Permission::Write, resource)
        } else {
            call.need(Permission::Write, resource)
        }
    }

    /// Judges a write again that was refused by the least that it changes, before its body is
    /// read: a token that fits nothing of that may fit the rest, and more may be in the way.
    async fn confirm(
        &self,
        call: &Call,
        head: &Parts,
        write: &mut Write,
        has_precondition: bool,
        refused: Refused<WriteRefusal>,
    ) -> Result<(), Box<Problem>> {
        let shared = &self.shared;
        let refused = match shared.upstream.targets_by_head(head, &write.resource).await {
            Some(targets) => {
                self.aim(call, &shared.rules.load_full(), write, has_precondition, targets)?;
                match shared.engine.check(write).await {
                    Ok(()) => return Ok(()),
                    Err(refused) => refused,
                }
            }
            // What the body names can only put more in the way: steps 2 and 3 stay as they are.
            None if may_be_of_the_rest(&refused) => return Ok(()),
            None => refused,
        };
        Err(self.tell(call, &write.resource, refused))
    }

    /// Step 0 of a write: whether its head can be read.
    ///
    /// # Errors
    /// `400` that names the field.
    pub fn check_syntax(&self, head: &Parts) -> Result<(), Box<Problem>> {
        self.check_claims(&head.headers)?;
        self.shared.upstream.check_syntax(head)
    }
}

impl<U: Witness> Guard<U> {
    /// The part of step 0 that is about what a request says of locks.
    ///
    /// # Errors
    /// `400` that names the field.
    pub fn check_claims(&self, headers: &HeaderMap) -> Result<(), Box<Problem>> {
        self.reading().check(headers)
    }

    /// What a request says of locks and preconditions. Where the `If` header was true by an entity
    /// tag, that tag becomes an `If-Match`, so that it is judged again when the write is applied.
    ///
    /// # Errors
    /// `400` for a field that cannot be read; `403 forbidden` for the entity tag of another
    /// resource that the caller may not read.
    pub async fn claims(
        &self,
        call: &Call,
        head: &mut Parts,
        resource: &Resource,
    ) -> Result<Claims, Box<Problem>> {
        self.reading().claims(call, head, resource).await
    }

    fn reading(&self) -> Reading<'_, U> {
        let Shared { engine, upstream, rules, .. } = self.shared.as_ref();
        Reading { engine, rules, upstream }
    }

    /// A write as the table judges it.
    ///
    /// # Errors
    /// `403 forbidden` for a target that the caller may not write to.
    pub fn judged(
        &self,
        call: &Call,
        method: Arc<str>,
        resource: Resource,
        targets: Vec<Target>,
        claims: &Claims,
    ) -> Result<Write, Box<Problem>> {
        let rules = self.shared.rules.load();
        let mut write = Write {
            caller: call.caller.clone(),
            origin: call.origin(Dialect::Http),
            method,
            targets: Vec::new(),
            tokens: claims.tokens.clone(),
            conditions: claims.conditions.clone(),
            lacks_precondition: false,
            resource,
        };
        self.aim(call, &rules, &mut write, claims.has_precondition, targets)?;
        Ok(write)
    }

    fn aim(
        &self,
        call: &Call,
        rules: &Rules,
        write: &mut Write,
        has_precondition: bool,
        targets: Vec<Target>,
    ) -> Result<(), Box<Problem>> {
        write.targets.clear();
        for target in targets {
            if matches!(target, Target::Content(_) | Target::Subtree(_)) {
                call.need(Permission::Write, target.resource())?;
            }
            // What is created below a URL that is not the name of anything would be reached by no
            // URL, and no lock would cover it.
            if let Target::Content(resource) = &target
                && !rules.is_name(resource)
            {
                let detail = format!("{resource} is a URL of something with another name here.");
                return Err(malformed("path", detail));
            }
            write.targets.push(match target {
                Target::Content(resource) if rules.find(&resource).1.covers_below => {
                    Target::Subtree(resource)
                }
                target => target,
            });
        }
        write.lacks_precondition = !has_precondition
            && write.targets.iter().any(|target| {
                matches!(target, Target::Content(_) | Target::Subtree(_))
                    && rules.find(target.resource()).1.require_precondition
            });
        Ok(())
    }

    fn tell(
        &self,
        call: &Call,
        resource: &Resource,
        refused: Refused<WriteRefusal>,
    ) -> Box<Problem> {
        let rules = self.shared.rules.load();
        let telling = Telling {
            engine: &self.shared.engine,
            rules: &rules,
            caller: &call.caller,
            asked: call.asked.as_deref(),
            lock_suffix: &self.shared.lock_suffix,
        };
        telling.write(resource, refused)
    }

    /// Admits a write and carries it out, to its end even when nobody waits for it any more.
    ///
    /// # Errors
    /// The refusal, or `503` when it panicked.
    pub async fn carry_out(
        &self,
        call: &Call,
        mut write: Write,
        has_precondition: bool,
        mut work: impl Work,
    ) -> Answer {
        let targets = work.targets().await;
        let permit = self.admit(call, &mut write, has_precondition, targets.clone()).await?;
        let guard = self.clone();
        let call = call.clone();
        // From here on nothing that the client does ends the write.
        let carrying = lasting(&self.shared.writes, async move {
            guard.run(&call, write, has_precondition, targets, permit, &mut work).await
        });
        caught(carrying).await.unwrap_or_else(|()| Err(broken_off()))
    }

    async fn admit(
        &self,
        call: &Call,
        write: &mut Write,
        has_precondition: bool,
        targets: Vec<Target>,
    ) -> Result<Permit, Box<Problem>> {
        let rules = self.shared.rules.load_full();
        self.aim(call, &rules, write, has_precondition, targets)?;
        self.shared
            .engine
            .admit(write)
            .await
            .map_err(|refused| self.tell(call, &write.resource, refused))
    }

    async fn run(
        &self,
        call: &Call,
        mut write: Write,
        has_precondition: bool,
        mut targets: Vec<Target>,
        mut permit: Permit,
        work: &mut impl Work,
    ) -> Answer {
        for _ in 0..MAX_RETARGETS {
            let lock = permit.nearest().cloned();
            let admitted = Admitted { admission: permit.admission(), targets, lock };
            let requested = permit.requested().cloned();
            permit.sending();
            let Ok(ended) = caught(pin!(work.execute(&admitted))).await else {
                // How far it came is not known, and it may still land.
                self.learn(permit);
                return Err(broken_off());
            };
            if let Some(Done { answer, ending }) = ended {
                match (ending, result_of(&answer)) {
                    (Some(ending), _) => self.follow(permit, ending),
                    (None, Some(result)) => permit.complete(result),
                    (None, None) => self.learn(permit),
                }
                return answer.map(|response| with_request(response, requested.as_ref()));
            }
            // It was not applied, and it is known that it was not.
            permit.complete(WriteResult::NotSent);
            targets = work.targets().await;
            permit = self.admit(call, &mut write, has_precondition, targets.clone()).await?;
        }
        drop(permit);
        Err(Box::new(
            Problem::new(
                Name::Unavailable,
                "The resource appeared and went again and again meanwhile; nothing was done.",
            )
            .retry_after(1),
        ))
    }

    /// Keeps a write pinned that has been answered, until it has ended. A shutdown waits for that.
    fn follow(&self, permit: Permit, ending: Ending) {
        let guard = self.clone();
        self.shared.writes.spawn(async move {
            match caught(ending).await {
                Ok(result) => permit.complete(result),
                Err(()) => guard.learn(permit),
            }
        });
    }

    /// Keeps a write pinned until it is known how it ended: until then it may still show, and the
    /// lock goes to nobody else. The client has its answer already.
    fn learn(&self, permit: Permit) {
        if sabotage::is(Mistake::DropPinOnError) {
            return drop(permit);
        }
        let upstream = self.shared.upstream.clone();
        // Not among the writes that a shutdown waits for: storage may stay broken. The permit then
        // goes with the runtime, and the next start learns it.
        tokio::spawn(async move {
            let result = upstream.outcome(permit.admission()).await;
            permit.complete(result);
        });
    }
}

/// Whether a refusal of a part of a write may not be that of the whole: steps 4 and 5, which are
/// about what the whole asks for. What refuses a part by steps 2 and 3 refuses the whole.
#[must_use]
pub fn may_be_of_the_rest(refused: &Refused<WriteRefusal>) -> bool {
    match refused {
        Refused::By(
            WriteRefusal::LockLost(..)
            | WriteRefusal::LockMismatch(_)
            | WriteRefusal::NotTheHolder
            | WriteRefusal::InvalidToken
            | WriteRefusal::PreconditionRequired,
        ) => true,
        Refused::By(
            WriteRefusal::Frozen(_) | WriteRefusal::ConditionFailed | WriteRefusal::Locked(_),
        )
        | Refused::Engine(_) => false,
    }
}

/// Nobody can tell the client how its write ended.
fn broken_off() -> Box<Problem> {
    let detail = "The server failed while this was being carried out: whether it took effect is \
                  not known.";
    Box::new(Problem::new(Name::StorageFailure, detail).retry_after(1))
}

/// A future whose panic is an error: what it was about to do goes on to be looked after.
async fn caught<F: Future + Unpin>(mut future: F) -> Result<F::Output, ()> {
    std::future::poll_fn(|context| {
        let step = AssertUnwindSafe(|| Pin::new(&mut future).poll(context));
        match catch_unwind(step) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => {
                tracing::error!("a write has panicked; its outcome is unknown");
                Poll::Ready(Err(()))
            }
        }
    })
    .await
}

/// How a write ended; none while nobody can tell.
fn result_of(answer: &Answer) -> Option<WriteResult> {
    match answer {
        Ok(response) => Some(WriteResult::Answered(response.status().as_u16())),
        // Whether a commit that failed has taken effect shows when the store is open again.
        Err(problem) if problem.name == Name::StorageFailure => None,
        Err(problem) => Some(WriteResult::Answered(problem.status().as_u16())),
    }
}

fn with_request(
    mut response: http::Response<Body>,
    requested: Option<&LetGo>,
) -> http::Response<Body> {
    // A name that a header field cannot carry is told by the next renewal instead.
    if let Some(let_go) = requested
        && let Ok(by) = HeaderValue::from_str(let_go.by.as_str())
    {
        response.headers_mut().insert(X_LOCK_REQUESTED_BY, by);
    }
    response
}
