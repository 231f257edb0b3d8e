//! What stands behind the guard of this server: its own documents, or an existing API.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::Request;
use http::request::Parts;
use leasehold_core::event::WriteResult;
use leasehold_core::ids::{Principal, Seq};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_guard::body::Body;
use leasehold_guard::call::Credentials;
use leasehold_guard::rules::{Asked, Rule, Rules};
use leasehold_guard::upstream::{
    Admitted, Answer, BoxFuture, Execution, Upstream, Verifier, Witness,
};
use leasehold_problems::{Name, Problem};
use leasehold_upstreams::documents::Documents;
use leasehold_upstreams::proxy::{Proxy, Route};

/// One of the two.
pub(crate) enum Behind {
    /// The resources that the server keeps itself.
    Documents(Arc<Documents>),
    /// An existing API.
    Proxy(Proxy),
}

/// A write to one of the two.
pub(crate) enum Plan {
    Documents(<Documents as Upstream>::Plan),
    Proxy(<Proxy as Upstream>::Plan),
}

impl Behind {
    /// The documents, where the server keeps some.
    pub(crate) fn documents(&self) -> Option<&Arc<Documents>> {
        match self {
            Self::Documents(documents) => Some(documents),
            Self::Proxy(_) => None,
        }
    }

    /// Answers a request that only reads, and whose URL names nothing here.
    ///
    /// # Errors
    /// `404 not-found` where there are documents, which all have names; else why the API behind has
    /// not answered.
    pub(crate) async fn pass_on(&self, request: Request<Body>) -> Answer {
        match self {
            Self::Documents(_) => {
                let detail = "The URL names no document.";
                Err(Box::new(Problem::new(Name::NotFound, detail)))
            }
            Self::Proxy(proxy) => proxy.pass_on(request).await,
        }
    }

    /// Whether bodies pass through, however long they are, and nothing of them is kept.
    pub(crate) fn streams(&self) -> bool {
        matches!(self, Self::Proxy(_))
    }
}

/// Calls the same method of whichever it is.
macro_rules! either {
    ($behind:expr, $one:ident => $call:expr) => {
        match $behind {
            Behind::Documents($one) => $call,
            Behind::Proxy($one) => $call,
        }
    };
}

impl Witness for Behind {
    fn etag<'a>(
        &'a self,
        resource: &'a Resource,
    ) -> BoxFuture<'a, Result<Option<String>, Box<Problem>>> {
        either!(self, one => one.etag(resource))
    }

    fn outcome(&self, admission: Option<Seq>) -> BoxFuture<'_, WriteResult> {
        either!(self, one => one.outcome(admission))
    }
}

impl Upstream for Behind {
    type Plan = Plan;

    async fn read(&self, request: Request<Body>, resource: Resource) -> Answer {
        either!(self, one => one.read(request, resource).await)
    }

    fn check_syntax(&self, head: &Parts) -> Result<(), Box<Problem>> {
        either!(self, one => one.check_syntax(head))
    }

    fn takes_all_below(&self, head: &Parts) -> bool {
        either!(self, one => one.takes_all_below(head))
    }

    fn allow(&self, head: &Parts, resource: &Resource) -> Result<(), Box<Problem>> {
        either!(self, one => one.allow(head, resource))
    }

    fn early_targets(&self, head: &Parts, resource: &Resource) -> Vec<Target> {
        either!(self, one => one.early_targets(head, resource))
    }

    async fn targets_by_head(&self, head: &Parts, resource: &Resource) -> Option<Vec<Target>> {
        either!(self, one => one.targets_by_head(head, resource).await)
    }

    fn is_judged_by_head(&self) -> bool {
        either!(self, one => one.is_judged_by_head())
    }

    async fn plan(
        &self,
        head: Parts,
        resource: Resource,
        body: Body,
    ) -> Result<Plan, Box<Problem>> {
        match self {
            Self::Documents(one) => one.plan(head, resource, body).await.map(Plan::Documents),
            Self::Proxy(one) => one.plan(head, resource, body).await.map(Plan::Proxy),
        }
    }

    async fn targets(&self, plan: &Plan) -> Vec<Target> {
        match (self, plan) {
            (Self::Documents(one), Plan::Documents(plan)) => one.targets(plan).await,
            (Self::Proxy(one), Plan::Proxy(plan)) => one.targets(plan).await,
            _ => unreachable!("a plan is carried out by whoever made it"),
        }
    }

    async fn execute(&self, plan: Plan, admitted: &Admitted) -> Execution<Plan> {
        match (self, plan) {
            (Self::Documents(one), Plan::Documents(plan)) => {
                again(one.execute(plan, admitted).await, Plan::Documents)
            }
            (Self::Proxy(one), Plan::Proxy(plan)) => {
                again(one.execute(plan, admitted).await, Plan::Proxy)
            }
            _ => unreachable!("a plan is carried out by whoever made it"),
        }
    }
}

/// Where what stands behind is asked whom it shows something to: at the upstream of its rule.
pub(crate) struct Shows {
    pub(crate) behind: Arc<Behind>,
    pub(crate) rules: Arc<ArcSwap<Rules>>,
}

impl Verifier for Shows {
    fn may_see<'a>(
        &'a self,
        principal: &'a Principal,
        credentials: &'a Credentials,
        asked: &'a Asked,
    ) -> BoxFuture<'a, Result<(), Box<Problem>>> {
        match self.behind.as_ref() {
            Behind::Proxy(one) => Box::pin(async move {
                let mut credentials = credentials.clone();
                if let Some(route) = route(self.rules.load().find(asked.path()).1) {
                    credentials.head.extensions.insert(route);
                }
                one.may_see(principal, &credentials, asked).await
            }),
            // Nobody is named after credentials that nobody knows.
            Behind::Documents(_) => Box::pin(async {
                let detail = "Nothing stands behind this server that knows your credentials.";
                Err(Box::new(Problem::new(Name::Forbidden, detail)))
            }),
        }
    }
}

/// Where a rule sends what it matches, if it says.
pub(crate) fn route(rule: &Rule) -> Option<Route> {
    (rule.upstream.is_some() || rule.upstream_timeout.is_some())
        .then(|| Route { upstream: rule.upstream.clone(), timeout: rule.upstream_timeout })
}

fn again<P>(execution: Execution<P>, plan: impl FnOnce(P) -> Plan) -> Execution<Plan> {
    match execution {
        Execution::Ended(answer) => Execution::Ended(answer),
        Execution::Answered(answer, ending) => Execution::Answered(answer, ending),
        Execution::Retarget(again) => Execution::Retarget(plan(again)),
    }
}
