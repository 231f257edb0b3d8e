//! One request, where the lock table is inside the service.
//!
//! What always holds:
//! - A read goes to the service at once, whatever is locked and whoever sends it.
//! - A write goes there after the guard has admitted it, goes on to its end whether its client does
//!   or not, and stays pinned until its answer has ended. Its body is not looked at before.
//! - What the service is told of the lock is said by the guard alone.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts as Head;
use http::{Method, Request, Response};
use http_body::Body as HttpBody;
use leasehold_core::caller::{Caller, Permission};
use leasehold_core::event::WriteResult;
use leasehold_core::ids::{Principal, Seq};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_core::time::millis;
use leasehold_engine::Engine;
use leasehold_faces::json_api::own_space::Route;
use leasehold_faces::json_api::{JsonApi, Settings, method_not_allowed, options};
use leasehold_faces::judge::{Judged, Setting, own};
use leasehold_faces::request_id::{RequestId, RequestIds, X_REQUEST_ID};
use leasehold_faces::trail::Readers;
use leasehold_guard::body::{Body, BoxError, empty, full};
use leasehold_guard::call::Call;
use leasehold_guard::fields::drop_claims;
use leasehold_guard::guard::Guard;
use leasehold_guard::rules::{Located, Rule, Rules};
use leasehold_guard::telling::count_refusal;
use leasehold_guard::tokens::malformed;
use leasehold_guard::upstream::{Answer, BoxFuture, Witness};
use leasehold_problems::{Context, Name, Problem};
use tower_service::Service;
use tracing::Span;

use crate::answer::Patience;
use crate::carried::Carried;
use crate::rules::{BadRule, check};
use crate::unread::{Unread, boxed};

/// What a gate is made of.
pub(crate) struct Parts {
    pub(crate) engine: Engine,
    pub(crate) rules: Arc<ArcSwap<Rules>>,
    pub(crate) identify: Box<dyn Fn(&Head) -> Result<Caller, Box<Problem>> + Send + Sync>,
    pub(crate) remote_addr: Box<dyn Fn(&Head) -> Option<IpAddr> + Send + Sync>,
    pub(crate) data: PathBuf,
    pub(crate) prefix: String,
    pub(crate) lock_suffix: String,
    pub(crate) drain_wait: Duration,
    pub(crate) patience: Patience,
}

/// What stands between requests and the service.
pub(crate) struct Gate {
    parts: Parts,
    guard: Guard<Inside>,
    api: JsonApi,
    ids: RequestIds,
}

/// What the guard knows of the service behind the layer.
struct Inside {
    patience: Patience,
}

impl Witness for Inside {
    fn etag<'a>(&'a self, _: &'a Resource) -> BoxFuture<'a, Result<Option<String>, Box<Problem>>> {
        let detail = "Here an If header can name lock tokens, but no entity tags: send those in \
                      If-Match.";
        Box::pin(async move { Err(malformed("If", detail)) })
    }

    fn outcome(&self, _: Option<Seq>) -> BoxFuture<'_, WriteResult> {
        // A handler that has panicked is gone; what it has sent elsewhere may not be.
        Box::pin(self.patience.landed_or_not())
    }
}

/// What a request asks for.
enum Asks {
    /// What is at this path of the own space.
    Own(String),
    Judged(Judged),
}

/// A request, as its refusal speaks of it.
struct Asked {
    method: Method,
    path: String,
    id: RequestId,
}

/// Why a write has no answer of the service's.
enum Failed<E> {
    Refused(Box<Problem>),
    /// The service's own error.
    Service(E),
}

impl<E> From<Box<Problem>> for Failed<E> {
    fn from(problem: Box<Problem>) -> Self {
        Self::Refused(problem)
    }
}

impl Gate {
    pub(crate) fn new(parts: Parts) -> Result<Self, impl std::fmt::Display> {
        let inside = Arc::new(Inside { patience: parts.patience });
        let settings = Settings {
            lock_suffix: parts.lock_suffix.clone(),
            prefix: parts.prefix.clone(),
            drain_wait_ms: millis(parts.drain_wait),
        };
        let trail = Arc::new(Readers::new(parts.data.clone()));
        let api = JsonApi::new(parts.engine.clone(), parts.rules.clone(), settings, trail);
        let (engine, rules) = (parts.engine.clone(), parts.rules.clone());
        let guard = Guard::new(engine, inside, rules, &parts.lock_suffix);
        RequestIds::new().map(|ids| Self { parts, guard, api, ids })
    }

    pub(crate) async fn drained(&self) {
        self.guard.drained().await;
    }

    pub(crate) fn set_rules(&self, rules: Vec<Rule>) -> Result<(), BadRule> {
        check(&rules, &self.parts.prefix, &self.parts.lock_suffix)?;
        let odd_paths = self.parts.rules.load().odd_paths().to_vec();
        self.parts.rules.store(Arc::new(Rules::new(rules).accepting_odd_paths(odd_paths)));
        Ok(())
    }

    pub(crate) async fn answer<S, B, R>(
        &self,
        request: Request<B>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        let asks = self.asks(&head);
        if matches!(asks, Ok(Asks::Judged(Judged::Read(_)))) {
            drop_claims(&mut head.headers);
            if let Ok(caller) = self.caller(&head) {
                head.extensions.insert(caller);
            }
            let answer = inner.call(Request::from_parts(head, body)).await?;
            return Ok(answer.map(boxed));
        }
        let asked = Asked {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            id: self.ids.take_or_make(&head.headers),
        };
        let body = Unread::new(body, head.headers.contains_key(EXPECT));
        let mut resource = None;
        let answered = match asks {
            Err(problem) => Err(Failed::Refused(problem)),
            Ok(Asks::Judged(Judged::Write(located, targets))) => {
                resource = Some(located.resource.clone());
                self.write(head, body, (located, targets), &asked.id, inner).await
            }
            Ok(asks) => {
                // A limit on the service's requests must not count those that wait for a lock, else
                // its holder could not write.
                drop(inner);
                let request = Request::from_parts(head, body.boxed());
                let answer = self.own(request, asks, &asked.id, &mut resource).await;
                answer.map_err(Failed::Refused)
            }
        };
        let mut response = match answered {
            Ok(response) => response,
            Err(Failed::Service(error)) => return Err(error),
            Err(Failed::Refused(problem)) => self.refuse(&problem, &asked, resource.as_ref()),
        };
        if !response.headers().contains_key(X_REQUEST_ID) {
            asked.id.echo(response.headers_mut());
        }
        Ok(response)
    }

    fn asks(&self, head: &Head) -> Result<Asks, Box<Problem>> {
        let rules = self.parts.rules.load();
        let Parts { prefix, lock_suffix, .. } = &self.parts;
        let setting = Setting { rules: &rules, prefix, lock_suffix };
        let path = Resource::parse(head.uri.path());
        let path = path.as_ref().map_err(Clone::clone);
        if let Some(rest) = path.ok().and_then(|path| own(prefix, path)) {
            return Ok(Asks::Own(rest.to_owned()));
        }
        setting.judge(path, &head.method, &head.uri, &head.headers).map(Asks::Judged)
    }

    /// Who sends a request. What a service calls its callers is not always what can be kept.
    fn caller(&self, head: &Head) -> Result<Caller, Box<Problem>> {
        let caller = (self.parts.identify)(head)?;
        let name = caller.principal.as_str();
        if name.is_empty() || Principal::MAX_BYTES < name.len() {
            let detail = "Whoever you are here has a name that is empty, or too long to be kept.";
            return Err(Box::new(
                Problem::new(Name::Forbidden, detail).with("permission", Permission::Lock.as_str()),
            ));
        }
        Ok(caller)
    }

    fn call(
        &self,
        head: &Head,
        id: &RequestId,
        located: Option<&Located>,
    ) -> Result<Call, Box<Problem>> {
        Ok(Call {
            caller: self.caller(head)?,
            request_id: id.shared(),
            remote_addr: (self.parts.remote_addr)(head).map(|peer| Arc::from(peer.to_string())),
            asked: located.map(|located| Arc::new(located.asked.clone())),
            memory: None,
            credentials: None,
        })
    }

    /// Answers what is about locks.
    async fn own(
        &self,
        request: Request<Body>,
        asks: Asks,
        id: &RequestId,
        resource: &mut Option<Resource>,
    ) -> Answer {
        let (head, body) = request.into_parts();
        let rest = match asks {
            Asks::Judged(Judged::Lock(located, action)) => {
                *resource = Some(located.resource.clone());
                let call = self.call(&head, id, Some(&located))?;
                let request = Request::from_parts(head, body);
                return self.api.handle(request, located.resource, action, &call).await;
            }
            Asks::Own(rest) => Some(rest),
            // Those are the service's.
            Asks::Judged(Judged::Read(_) | Judged::Write(..)) => None,
        };
        let Some(route) = rest.as_deref().and_then(Route::parse) else {
            let detail = format!("There is nothing at {}.", head.uri.path());
            return Err(Box::new(Problem::new(Name::NotFound, detail)));
        };
        let method = head.method.clone();
        if method == Method::OPTIONS {
            return Ok(options(route.allowed()));
        }
        if !route.allowed().split(", ").any(|each| each == method.as_str()) {
            return Err(method_not_allowed(method.as_str(), route.allowed()));
        }
        let call = match route.is_public() {
            true => Call {
                caller: Caller::anonymous(),
                request_id: id.shared(),
                remote_addr: None,
                asked: None,
                memory: None,
                credentials: None,
            },
            false => self.call(&head, id, None)?,
        };
        let answer = self.api.own_space(Request::from_parts(head, body), route, &call).await?;
        Ok(if method == Method::HEAD { answer.map(|_| empty()) } else { answer })
    }

    async fn write<S, B, R>(
        &self,
        mut head: Head,
        body: Unread<B>,
        (located, targets): (Located, Vec<Target>),
        id: &RequestId,
        inner: S,
    ) -> Result<Response<Body>, Failed<S::Error>>
    where
        S: Service<Request<B>, Response = Response<R>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.guard.check_claims(&head.headers)?;
        let call = self.call(&head, id, Some(&located))?;
        call.need(Permission::Write, &located.resource)?;
        call.need_to_write(&targets)?;
        let claims = self.guard.claims(&call, &mut head, &located.resource).await?;
        let method = Arc::from(head.method.as_str());
        let write = self.guard.judged(&call, method, located.resource, targets.clone(), &claims)?;
        drop_claims(&mut head.headers);
        head.extensions.insert(call.caller.clone());
        let error = Arc::default();
        let work = Carried {
            sending: Some((head, inner)),
            body,
            targets,
            patience: self.parts.patience,
            error: Arc::clone(&error),
            span: Span::current(),
        };
        let carried = self.guard.carry_out(&call, write, claims.has_precondition, work).await;
        carried.map_err(|problem| {
            let error = error.lock().unwrap_or_else(PoisonError::into_inner).take();
            error.map_or(Failed::Refused(problem), Failed::Service)
        })
    }

    fn refuse(
        &self,
        problem: &Problem,
        asked: &Asked,
        resource: Option<&Resource>,
    ) -> Response<Body> {
        if let Some(resource) = resource {
            count_refusal(&self.parts.engine, resource, problem, &asked.method);
        }
        let told = Context {
            instance: &asked.path,
            request_id: asked.id.as_str(),
            prefix: &self.parts.prefix,
        };
        let response = problem.to_response(&told).map(full);
        if asked.method == Method::HEAD { response.map(|_| empty()) } else { response }
    }
}
