//! What stands behind the guard in the simulation: it takes as long as the scheduler likes, fails,
//! panics, and says later how a write ended.
//!
//! What it has applied survives every crash, as the documents' own store does; which writes that
//! were on their way are among them, the seed says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use leasehold_core::event::WriteResult;
use leasehold_core::ids::Seq;
use leasehold_core::lock::OpenAdmission;
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_guard::body::{Body, empty};
use leasehold_guard::upstream::{Admitted, Answer, BoxFuture, Execution, Upstream, Witness};
use leasehold_problems::{Name, Problem};
use tokio::sync::oneshot;

/// The field that says which call of the simulation a write is.
pub const CALL: &str = "x-sim-call";

/// What comes of a write at the upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Act {
    /// It lands, and is answered.
    Apply,
    /// It does not land, and is answered so.
    Refuse,
    /// Its answer says that nobody knows whether it landed.
    FailUnknown,
    /// What carries it out panics.
    Panic,
}

/// A write that is being carried out.
#[derive(Debug)]
pub struct Underway {
    /// The call it is.
    pub call: u64,
    /// What it changes.
    pub targets: Vec<Target>,
    /// The position of its `write_admitted`.
    pub admission: Option<Seq>,
    /// Whether its client has an answer, and the guard asks how it ended.
    pub is_asked_for: bool,
}

/// The upstream.
#[derive(Debug, Default)]
pub struct SimUpstream {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    underway: BTreeMap<u64, Underway>,
    acts: BTreeMap<u64, oneshot::Sender<Act>>,
    /// Who asks how a write under a lock ended.
    outcomes: BTreeMap<u64, oneshot::Sender<WriteResult>>,
    /// Who asks of a write without one: nothing tells these apart, so all of them have to end.
    nameless: Vec<oneshot::Sender<WriteResult>>,
    /// Writes that have begun since the scheduler looked last.
    begun: Vec<u64>,
    applied: BTreeSet<Seq>,
}

/// A write that was read.
pub struct Plan {
    call: u64,
    targets: Vec<Target>,
}

impl SimUpstream {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writes that have begun since this was asked last.
    pub fn take_begun(&self) -> Vec<u64> {
        std::mem::take(&mut self.state().begun)
    }

    /// Looks at the writes that are under way.
    pub fn underway<T>(&self, look: impl FnOnce(&BTreeMap<u64, Underway>) -> T) -> T {
        look(&self.state().underway)
    }

    /// Lets a write that waits come to this end.
    pub fn act(&self, write: u64, act: Act) {
        let mut state = self.state();
        let Some(reply) = state.acts.remove(&write) else { return };
        match act {
            Act::Apply => state.apply(write),
            Act::Refuse => {
                state.underway.remove(&write);
            }
            // Still under way: it may land until the guard has learnt how it ended.
            Act::FailUnknown | Act::Panic => {}
        }
        // Nobody listens any more when the process has died.
        let _ = reply.send(act);
    }

    /// Decides how a write ended that the guard asks for.
    pub fn tell(&self, write: u64, landed: bool) {
        let mut state = self.state();
        if landed {
            state.apply(write);
        }
        state.underway.remove(&write);
        let result = if landed { WriteResult::Applied } else { WriteResult::NotApplied };
        // Nobody listens any more when the process has died.
        if let Some(reply) = state.outcomes.remove(&write) {
            let _ = reply.send(result);
        } else if state.unknown(None).next().is_none() {
            for reply in std::mem::take(&mut state.nameless) {
                let _ = reply.send(result);
            }
        }
    }

    /// The process has died: each write that was under way landed, or never will.
    pub fn crash(&self, mut lands: impl FnMut() -> bool) {
        let mut state = self.state();
        for write in state.underway.keys().copied().collect::<Vec<_>>() {
            if lands() {
                state.apply(write);
            }
        }
        let State { underway, acts, outcomes, nameless, begun, .. } = &mut *state;
        nameless.clear();
        underway.clear();
        acts.clear();
        outcomes.clear();
        begun.clear();
    }

    /// Whether a write that a crash has cut off took effect.
    #[must_use]
    pub fn classify(&self, open: &OpenAdmission) -> WriteResult {
        if self.state().applied.contains(&open.admission) {
            WriteResult::Applied
        } else {
            WriteResult::NotApplied
        }
    }
}

impl State {
    /// Writes of this admission that were answered, and may land all the same.
    fn unknown(&self, admission: Option<Seq>) -> impl Iterator<Item = u64> + '_ {
        self.underway
            .iter()
            .filter(move |(id, each)| each.admission == admission && !self.acts.contains_key(id))
            .map(|(id, _)| *id)
    }

    fn apply(&mut self, write: u64) {
        if let Some(Underway { admission: Some(admission), .. }) = self.underway.remove(&write) {
            self.applied.insert(admission);
        }
    }
}

/// What a method changes at a resource.
#[must_use]
pub fn targets_of(method: &Method, resource: &Resource) -> Vec<Target> {
    match *method {
        Method::DELETE => {
            let parent = resource.parent().map(Target::Members);
            std::iter::once(Target::Subtree(resource.clone())).chain(parent).collect()
        }
        Method::POST => vec![Target::Members(resource.clone())],
        _ => vec![Target::Content(resource.clone())],
    }
}

impl Witness for SimUpstream {
    fn etag<'a>(&'a self, _: &'a Resource) -> BoxFuture<'a, Result<Option<String>, Box<Problem>>> {
        Box::pin(async { Ok(None) })
    }

    fn outcome(&self, admission: Option<Seq>) -> BoxFuture<'_, WriteResult> {
        Box::pin(async move {
            let told = {
                let mut state = self.state();
                let unknown: Vec<u64> = state.unknown(admission).collect();
                let Some(first) = unknown.first().copied() else {
                    return WriteResult::NotApplied;
                };
                for write in unknown {
                    if let Some(underway) = state.underway.get_mut(&write) {
                        underway.is_asked_for = true;
                    }
                }
                let (reply, told) = oneshot::channel();
                if admission.is_some() {
                    state.outcomes.insert(first, reply);
                } else {
                    state.nameless.push(reply);
                }
                told
            };
            match told.await {
                Ok(result) => result,
                Err(_) => std::future::pending().await,
            }
        })
    }
}

impl Upstream for SimUpstream {
    type Plan = Plan;

    async fn read(&self, _: Request<Body>, _: Resource) -> Answer {
        Ok(Response::new(empty()))
    }

    fn check_syntax(&self, _: &Parts) -> Result<(), Box<Problem>> {
        Ok(())
    }

    fn takes_all_below(&self, head: &Parts) -> bool {
        head.method == Method::DELETE
    }

    fn allow(&self, _: &Parts, _: &Resource) -> Result<(), Box<Problem>> {
        Ok(())
    }

    fn early_targets(&self, head: &Parts, resource: &Resource) -> Vec<Target> {
        targets_of(&head.method, resource)
    }

    async fn targets_by_head(&self, head: &Parts, resource: &Resource) -> Option<Vec<Target>> {
        Some(targets_of(&head.method, resource))
    }

    async fn plan(&self, head: Parts, resource: Resource, _: Body) -> Result<Plan, Box<Problem>> {
        let call = head.headers.get(CALL).and_then(|value| value.to_str().ok());
        let call = call.and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Plan { call, targets: targets_of(&head.method, &resource) })
    }

    async fn targets(&self, plan: &Plan) -> Vec<Target> {
        plan.targets.clone()
    }

    async fn execute(&self, plan: Plan, admitted: &Admitted) -> Execution<Plan> {
        let act = {
            let mut state = self.state();
            state.next += 1;
            let (write, Plan { call, targets }) = (state.next, plan);
            let admission = admitted.admission();
            let underway = Underway { call, targets, admission, is_asked_for: false };
            state.underway.insert(write, underway);
            state.begun.push(write);
            let (reply, act) = oneshot::channel();
            state.acts.insert(write, reply);
            act
        };
        let answer = |status| {
            let mut response = Response::new(empty());
            *response.status_mut() = status;
            Execution::Ended(Ok(response))
        };
        match act.await {
            Ok(Act::Apply) => answer(StatusCode::NO_CONTENT),
            Ok(Act::Refuse) => answer(StatusCode::PRECONDITION_FAILED),
            Ok(Act::FailUnknown) => {
                let problem = Problem::new(Name::StorageFailure, "Nobody knows.");
                Execution::Ended(Err(Box::new(problem)))
            }
            // Without the hook, so that a history with panics does not fill the terminal.
            Ok(Act::Panic) => std::panic::resume_unwind(Box::new("the upstream panics")),
            Err(_) => std::future::pending().await,
        }
    }
}
