//! The upstream of the tests, and a guard before it.

#![allow(unreachable_pub, reason = "a module of a test program")]

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use leasehold_core::caller::{Caller, Permission, Permissions, Role};
use leasehold_core::event::WriteResult;
use leasehold_core::ids::{Principal, Seq};
use leasehold_core::lock::Lock;
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_guard::body::{Body, BoxError, empty};
use leasehold_guard::call::Call;
use leasehold_guard::guard::Guard;
use leasehold_guard::rules::{Rule, Rules};
use leasehold_guard::upstream::{Admitted, Answer, BoxFuture, Execution, Upstream, Witness};
use leasehold_problems::{Name, Problem};
use tokio::sync::{Semaphore, mpsc};

use super::common::{World, resource, soon};

/// What the upstream does with a write.
pub enum Act {
    Answer(u16),
    /// Answers when the test lets it.
    AnswerLater(u16),
    Panic,
    /// Panics when the test lets it.
    PanicLater,
    StorageFailure,
    /// Turns out to change this.
    Retarget(Vec<Target>),
}

/// A write as the upstream has understood it.
pub struct Plan {
    pub targets: Vec<Target>,
}

#[derive(Default)]
pub struct Script {
    /// What is done with the writes to come; afterwards they are answered with 204.
    pub acts: VecDeque<Act>,
    /// What a write turns out to change once it was read; else its resource.
    pub targets: Option<Vec<Target>>,
    pub etags: HashMap<Resource, String>,
    pub outcome: Option<WriteResult>,
    /// What was carried out, with what it was let through for.
    pub executed: Vec<Option<Seq>>,
    /// The heads of the writes that were read.
    pub heads: Vec<Parts>,
    pub etags_asked: usize,
    pub outcomes_asked: Vec<Option<Seq>>,
}

pub struct Double {
    pub script: Mutex<Script>,
    /// Lets acts and outcomes go on.
    pub go: Semaphore,
    pub know: Semaphore,
}

impl Witness for Double {
    fn etag<'a>(
        &'a self,
        resource: &'a Resource,
    ) -> BoxFuture<'a, Result<Option<String>, Box<Problem>>> {
        let mut script = self.script.lock().unwrap();
        script.etags_asked += 1;
        let etag = script.etags.get(resource).cloned();
        Box::pin(async move { Ok(etag) })
    }

    fn outcome(&self, admission: Option<Seq>) -> BoxFuture<'_, WriteResult> {
        Box::pin(async move {
            self.script.lock().unwrap().outcomes_asked.push(admission);
            self.know.acquire().await.unwrap().forget();
            self.script.lock().unwrap().outcome.unwrap_or(WriteResult::Applied)
        })
    }
}

impl Upstream for Double {
    type Plan = Plan;

    async fn read(&self, _: Request<Body>, _: Resource) -> Answer {
        Ok(Response::new(empty()))
    }

    fn check_syntax(&self, _: &Parts) -> Result<(), Box<Problem>> {
        Ok(())
    }

    fn takes_all_below(&self, head: &Parts) -> bool {
        head.uri.query() == Some("all")
    }

    fn allow(&self, head: &Parts, _: &Resource) -> Result<(), Box<Problem>> {
        if head.method == "TRACE" {
            return Err(Box::new(Problem::new(Name::MethodNotAllowed, "no")));
        }
        Ok(())
    }

    fn early_targets(&self, _: &Parts, resource: &Resource) -> Vec<Target> {
        vec![Target::Content(resource.clone())]
    }

    async fn targets_by_head(&self, _: &Parts, _: &Resource) -> Option<Vec<Target>> {
        None
    }

    async fn plan(
        &self,
        head: Parts,
        resource: Resource,
        body: Body,
    ) -> Result<Plan, Box<Problem>> {
        body.collect().await.unwrap();
        let mut script = self.script.lock().unwrap();
        script.heads.push(head);
        let own = vec![Target::Content(resource)];
        Ok(Plan { targets: script.targets.clone().unwrap_or(own) })
    }

    async fn targets(&self, plan: &Plan) -> Vec<Target> {
        plan.targets.clone()
    }

    async fn execute(&self, _: Plan, admitted: &Admitted) -> Execution<Plan> {
        let act = {
            let mut script = self.script.lock().unwrap();
            script.executed.push(admitted.admission());
            script.acts.pop_front().unwrap_or(Act::Answer(204))
        };
        let answer = |status| {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Execution::Ended(Ok(response))
        };
        match act {
            Act::Answer(status) => answer(status),
            Act::AnswerLater(status) => {
                self.go.acquire().await.unwrap().forget();
                answer(status)
            }
            Act::Panic => panic!("a test"),
            Act::PanicLater => {
                self.go.acquire().await.unwrap().forget();
                panic!("a test")
            }
            Act::StorageFailure => {
                Execution::Ended(Err(Box::new(Problem::new(Name::StorageFailure, "no"))))
            }
            Act::Retarget(targets) => Execution::Retarget(Plan { targets }),
        }
    }
}

pub struct Bench {
    pub world: World,
    pub upstream: Arc<Double>,
    pub guard: Guard<Double>,
}

impl Bench {
    pub fn new() -> Self {
        Self::with_rules(Vec::new())
    }

    pub fn with_rules(rules: Vec<Rule>) -> Self {
        let world = World::new();
        let script = Mutex::default();
        let (go, know) = (Semaphore::new(0), Semaphore::new(0));
        let upstream = Arc::new(Double { script, go, know });
        let rules = Arc::new(ArcSwap::from_pointee(Rules::new(rules)));
        let guard = Guard::new(world.engine.clone(), upstream.clone(), rules, "/lock");
        Self { world, upstream, guard }
    }

    pub fn acts(&self, acts: impl IntoIterator<Item = Act>) {
        self.upstream.script.lock().unwrap().acts.extend(acts);
    }

    pub fn executed(&self) -> usize {
        self.upstream.script.lock().unwrap().executed.len()
    }

    pub fn pins(&self) -> usize {
        self.world.engine.stats().writes_in_flight
    }

    pub async fn until_executed(&self, times: usize) {
        self.world.until(|_| times <= self.executed()).await;
    }

    pub async fn until_unpinned(&self) {
        self.world.until(|engine| engine.stats().writes_in_flight == 0).await;
    }

    /// A `PUT` by alice, and what it is answered.
    pub async fn put(&self, path: &str, fields: &[(&str, &str)]) -> Result<StatusCode, Name> {
        self.put_as(&call("alice"), path, fields).await
    }

    pub async fn put_as(
        &self,
        call: &Call,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Result<StatusCode, Name> {
        told(soon(self.guard.handle(request("PUT", path, fields), resource(path), call)).await)
    }

    pub fn token(&self, lock: &Lock) -> String {
        self.world.engine.token(lock.grant.lock_id, lock.grant.fence)
    }
}

pub fn told(answer: Answer) -> Result<StatusCode, Name> {
    answer.map(|response| response.status()).map_err(|problem| problem.name)
}

pub fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(empty()).unwrap()
}

pub fn call(who: &str) -> Call {
    let caller = super::common::caller(who);
    Call {
        caller,
        request_id: "r".into(),
        remote_addr: None,
        asked: None,
        memory: None,
        credentials: None,
    }
}

/// Somebody who may write where the first pattern matches, and read where the second does.
pub fn narrow_call(who: &str, write: &str, read: &str) -> Call {
    let role = |permission, pattern: &str| Role {
        permissions: Permissions::of(&[permission]),
        patterns: vec![leasehold_core::pattern::Pattern::parse(pattern).unwrap()],
    };
    let roles = [role(Permission::Write, write), role(Permission::Read, read)];
    let caller =
        Caller { principal: Principal::new(who), anonymous: false, roles: Arc::from(roles) };
    Call { caller, ..call(who) }
}

/// A body that comes when the test sends it, and notes whether anybody has looked at it.
pub struct SlowBody {
    frames: mpsc::UnboundedReceiver<Bytes>,
    touched: Arc<AtomicBool>,
}

pub fn slow_body() -> (Body, mpsc::UnboundedSender<Bytes>, impl Fn() -> bool) {
    let (send, frames) = mpsc::unbounded_channel();
    let touched = Arc::new(AtomicBool::new(false));
    let body = SlowBody { frames, touched: touched.clone() };
    (body.boxed_unsync(), send, move || touched.load(Ordering::SeqCst))
}

impl http_body::Body for SlowBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.touched.store(true, Ordering::SeqCst);
        self.frames.poll_recv(context).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}
