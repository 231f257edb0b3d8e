//! The JSON API: the lock endpoints of every resource, and `/-/locks`.
//!
//! Modules in reading order: which endpoint a path is ([`endpoint`]), reading a body
//! ([`fields`]), what is asked for by header fields ([`asking`]), and the commands:
//! [`acquire`], [`held`], [`freeze`], [`shown`]; by their ids in [`own_space`].

pub mod acquire;
pub mod asking;
pub mod cursor;
pub mod endpoint;
pub mod fields;
pub mod freeze;
pub mod held;
pub mod own_space;
pub mod shown;

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use leasehold_core::command::{Address, Presented};
use leasehold_core::ids::LockId;
use leasehold_core::lock::Ended;
use leasehold_core::resource::Resource;
use leasehold_engine::Engine;
use leasehold_guard::body::{Body, empty, full};
use leasehold_guard::call::Call;
use leasehold_guard::rules::{Asked, Rules};
use leasehold_guard::shown::Shown;
use leasehold_guard::telling::Telling;
use leasehold_guard::tokens;
use leasehold_guard::upstream::{Answer, BoxFuture, Verifier};
use leasehold_problems::{Name, Problem};
use serde::Serialize;
use serde_json::{Value, json};

use self::endpoint::Action;

/// Looks up in the trail what is no longer kept in memory of a lock that has ended.
pub trait Trail: Send + Sync + 'static {
    /// How a lock ended; none where the trail does not say.
    fn how_ended(&self, lock_id: LockId) -> BoxFuture<'_, Option<Ended>>;
}

/// How the JSON API is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The suffix of lock endpoints, `/lock`.
    pub lock_suffix: String,
    /// The prefix of the server's own space, `/-/`.
    pub prefix: String,
    /// How long an acquire that meets only writes under way is held, in milliseconds.
    pub drain_wait_ms: u64,
}

/// The JSON API. Cheap to clone.
#[derive(Clone)]
pub struct JsonApi {
    pub(crate) engine: Engine,
    pub(crate) rules: Arc<ArcSwap<Rules>>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) trail: Arc<dyn Trail>,
    verifier: Option<Arc<dyn Verifier>>,
}

impl JsonApi {
    /// The JSON API of this engine, where it is known who calls.
    #[must_use]
    pub fn new(
        engine: Engine,
        rules: Arc<ArcSwap<Rules>>,
        settings: Settings,
        trail: Arc<dyn Trail>,
    ) -> Self {
        Self { engine, rules, settings: Arc::new(settings), trail, verifier: None }
    }

    /// The same, where `verifier` is asked about callers whom nobody knows here.
    #[must_use]
    pub fn asking(mut self, verifier: Arc<dyn Verifier>) -> Self {
        self.verifier = Some(verifier);
        self
    }

    /// Answers a request to a lock endpoint of `resource`.
    ///
    /// # Errors
    /// The refusal.
    pub async fn handle(
        &self,
        request: Request<Body>,
        resource: Resource,
        action: Action,
        call: &Call,
    ) -> Answer {
        match (action, request.method().as_str()) {
            // A token is proof enough: its holder was shown the resource when it acquired. So an
            // upstream that is down takes no lock away.
            (_, "OPTIONS") | (Action::Lock, "PATCH" | "PUT" | "DELETE") | (Action::Transfer, _) => {
            }
            _ => self.may_see(call, &resource).await?,
        }
        let mut answer = match (action, request.method().as_str()) {
            (_, "OPTIONS") => Ok(options(action.allowed())),
            (Action::Lock, "POST") => self.acquire(request, resource, call).await,
            // What is rare is boxed: each request has room for the largest of those that are not.
            (Action::Lock, "GET" | "HEAD") => {
                Box::pin(self.inspect(request.method().clone(), &resource, call)).await
            }
            (Action::Lock, "PATCH" | "PUT") => {
                self.renew(request, Address::Resource(resource), call).await
            }
            (Action::Lock, "DELETE") => {
                self.release(request, Address::Resource(resource), call).await
            }
            (Action::Transfer, "POST") => {
                Box::pin(self.transfer(request, Address::Resource(resource), call)).await
            }
            (Action::Request, "POST") => Box::pin(self.request(request, resource, call)).await,
            (Action::Break, "POST") => {
                Box::pin(self.break_lock(request, Address::Resource(resource), call)).await
            }
            (Action::Freeze, "PUT") => Box::pin(self.set_freeze(request, resource, call)).await,
            (Action::Freeze, "DELETE") => Box::pin(self.unfreeze(&resource, call)).await,
            (_, method) => Err(method_not_allowed(method, action.allowed())),
        }?;
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(answer)
    }

    /// Whether the caller may know of `resource`, the one that the request is about.
    ///
    /// # Errors
    /// The refusal of the upstream, where it is the one who knows.
    pub async fn may_see(&self, call: &Call, resource: &Resource) -> Result<(), Box<Problem>> {
        match call.asked.as_deref() {
            Some(asked) => self.is_shown(call, asked).await,
            None => self.is_shown(call, &Asked::by_name(resource)).await,
        }
    }

    /// The same of the resource at the URL `asked`.
    pub(crate) async fn is_shown(&self, call: &Call, asked: &Asked) -> Result<(), Box<Problem>> {
        let Some(credentials) = &call.credentials else { return Ok(()) };
        match &self.verifier {
            Some(verifier) => verifier.may_see(&call.caller.principal, credentials, asked).await,
            // Nobody is named after credentials that nobody knows.
            None => {
                let detail = "Nothing stands behind this server that knows your credentials.";
                Err(Box::new(Problem::new(Name::Forbidden, detail)))
            }
        }
    }

    /// A refusal of what was asked of `resource`, less what the upstream does not show the caller:
    /// who is in the way, and why.
    pub async fn withheld(
        &self,
        mut problem: Box<Problem>,
        resource: &Resource,
        call: &Call,
    ) -> Box<Problem> {
        let member = match problem.name {
            _ if call.credentials.is_none() => return problem,
            Name::Locked => {
                let Some(lock) = &problem.lock else { return problem };
                if !self.is_shown_beside(Some(&lock.resource), resource, call).await {
                    problem.lock = None;
                    problem.detail = format!("{resource} is {} at the moment.", problem.name);
                }
                return problem;
            }
            Name::Frozen => "freeze",
            Name::Deadlock => "circle",
            _ => return problem,
        };
        let Some(told) = problem.members.get(member) else { return problem };
        if told.is_null() {
            return problem;
        }
        let at = told.get("resource").and_then(Value::as_str);
        if !self.is_shown_beside(at, resource, call).await {
            let hidden = if told.is_array() { json!([]) } else { Value::Null };
            problem.members.insert(member.to_owned(), hidden);
            problem.detail = match problem.name {
                Name::Deadlock => "Waiting would close a circle.".to_owned(),
                name => format!("{resource} is {name} at the moment."),
            };
        }
        problem
    }

    /// Whether a caller who asked about `resource` is shown what there is at `at`.
    async fn is_shown_beside(&self, at: Option<&str>, resource: &Resource, call: &Call) -> bool {
        match at.map(Resource::parse) {
            // What covers a resource is a matter of that resource.
            Some(Ok(at)) if at.covers(resource) => self.may_see(call, resource).await.is_ok(),
            Some(Ok(below)) => self.is_shown(call, &Asked::by_name(&below)).await.is_ok(),
            // Several resources, or one by parameters.
            Some(Err(_)) | None => false,
        }
    }

    pub(crate) fn telling<'a>(&'a self, rules: &'a Rules, call: &'a Call) -> Telling<'a> {
        Telling {
            engine: &self.engine,
            rules,
            caller: &call.caller,
            asked: call.asked.as_deref(),
            lock_suffix: &self.settings.lock_suffix,
        }
    }

    /// The tokens of a request that needs one.
    pub(crate) fn tokens(&self, headers: &HeaderMap) -> Result<Vec<Presented>, Box<Problem>> {
        let mut presented = tokens::presented(&self.engine, headers)?;
        // The tokens of an `If` header count as presented (RFC 4918, section 10.4.1).
        for list in leasehold_guard::if_header::parse(headers)? {
            for (_, condition) in list.conditions {
                if let leasehold_guard::if_header::Condition::Token(uri) = condition
                    && uri != "DAV:no-lock"
                {
                    let token = tokens::read(&self.engine, uri);
                    if !presented.contains(&token) {
                        presented.push(token);
                    }
                }
            }
        }
        if presented.is_empty() {
            return Err(Box::new(Problem::new(
                Name::LockTokenRequired,
                "This needs the token of the lock, in X-Lock-Token.",
            )));
        }
        Ok(presented)
    }
}

/// `405` with what is allowed.
#[must_use]
pub fn method_not_allowed(method: &str, allowed: &'static str) -> Box<Problem> {
    Box::new(
        Problem::new(Name::MethodNotAllowed, format!("{method} is not taken here; {allowed} are."))
            .header(ALLOW, HeaderValue::from_static(allowed)),
    )
}

/// `204` with `Allow`.
#[must_use]
pub fn options(allowed: &'static str) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// An answer with a JSON body, and `Cache-Control: no-store`.
#[must_use]
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // What is answered has string keys only and numbers that JSON has: it always can be written.
    written(status, serde_json::to_vec(value).unwrap_or_default())
}

/// As [`json()`], for a lock.
pub(crate) fn json_of_lock(status: StatusCode, lock: &Shown<'_>) -> Response<Body> {
    let mut text = Vec::with_capacity(1024);
    // As above.
    let is_written = lock.write_json(&mut text).is_ok();
    written(status, if is_written { text } else { Vec::new() })
}

fn written(status: StatusCode, text: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
