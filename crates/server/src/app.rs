//! One request, from its head to the head of its answer.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::header::{ALLOW, CONNECTION, EXPECT, HOST, HeaderValue, ORIGIN, TRANSFER_ENCODING};
use http::header::{CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use leasehold_core::caller::Permission;
use leasehold_core::ids::Principal;
use leasehold_core::resource::{PathError, Resource};
use leasehold_engine::Engine;
use leasehold_faces::json_api::endpoint;
use leasehold_faces::json_api::{JsonApi, options};
use leasehold_faces::judge::{Judged, Setting};
use leasehold_faces::request_id::RequestIds;
use leasehold_faces::trail::Readers;
use leasehold_guard::body::{Body, empty, full};
use leasehold_guard::call::Call;
use leasehold_guard::discard::discarding;
use leasehold_guard::guard::Guard;
use leasehold_guard::kept::kept;
use leasehold_guard::memory::{self, Memory, Share, counted};
use leasehold_guard::method::is_safe;
use leasehold_guard::rules::Rules;
use leasehold_guard::targets::ByRules;
use leasehold_guard::telling::count_refusal;
use leasehold_guard::upstream::Answer;
use leasehold_problems::{Context as Told, Name, Problem};
use leasehold_upstreams::proxy::{Arrival as CameFrom, Route, Streamed};

use crate::behind::{Behind, route};
use crate::browser::Browsers;
use crate::check::{self, Refusing};
use crate::identity::{ClientCertificate, Identity, Peer};
use crate::listener::Connections;
use crate::log::Access;
use crate::metrics::Metrics;
use crate::rate::{RateLimiter, Standing};
use crate::request_body::timed;

/// The longest target, path and query, that is read (RFC 9112, section 3, asks for 8,000 bytes).
const MAX_TARGET: usize = 8192;

/// The methods that the server knows.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What every request needs. One for the process.
pub(crate) struct App {
    pub(crate) engine: Engine,
    pub(crate) guard: Guard<Behind>,
    pub(crate) api: JsonApi,
    pub(crate) rules: Arc<ArcSwap<Rules>>,
    pub(crate) identity: Identity,
    /// None: nobody's requests are counted.
    pub(crate) rate: Option<RateLimiter>,
    pub(crate) started: Instant,
    pub(crate) browsers: Browsers,
    pub(crate) ids: RequestIds,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trail: Readers,
    pub(crate) follower: leasehold_journal::follower::FollowerHandle,
    pub(crate) connections: Connections,
    pub(crate) head: Arc<crate::watch::LatestHead>,
    pub(crate) underway: Arc<crate::watch::Underway>,
    pub(crate) prefix: String,
    pub(crate) lock_suffix: String,
    /// Whether clients reach the server over TLS.
    pub(crate) is_https: bool,
    pub(crate) body_timeout: Duration,
    pub(crate) memory: Arc<Memory>,
    pub(crate) stop: tokio_util::sync::CancellationToken,
}

/// The service of one listener.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) app: Arc<App>,
    /// Whether only operators reach this listener: it serves the server's own space alone, and
    /// metrics to everyone.
    pub(crate) admin: bool,
    /// The address of the peer.
    pub(crate) peer: IpAddr,
    /// The same, as it is told.
    pub(crate) remote_addr: Arc<str>,
}

impl tower_service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let Self { app, admin, peer, remote_addr } = service;
            Ok(app.answer(request, admin, peer, remote_addr).await)
        })
    }
}

/// What is known of a request before it is known who asks.
struct Arrival {
    request_id: Arc<str>,
    peer: Peer,
    remote_addr: Arc<str>,
    memory: Option<Arc<Share>>,
}

/// What is known of a request once it was answered or refused.
#[derive(Default)]
struct Seen {
    resource: Option<Resource>,
    principal: Option<Principal>,
    standing: Option<Standing>,
    refusing: Option<Refusing>,
}

impl App {
    async fn answer(
        &self,
        request: Request<Incoming>,
        admin: bool,
        peer: IpAddr,
        remote_addr: Arc<str>,
    ) -> Response<Body> {
        let began = Instant::now();
        let _underway = self.underway.one();
        let (head, body) = request.into_parts();
        // Boxed, so that not each future it is handed on to has room for it.
        let mut head = Box::new(head);
        let id = self.ids.take_or_make(&head.headers);
        let method = head.method.clone();
        let origin = head.headers.get(ORIGIN).cloned();
        let path = head.uri.path().to_owned();
        let mut seen = Seen::default();
        let mut response = match self.browsers.preflight(&head) {
            Some(response) => response,
            None => {
                let expects = head.headers.contains_key(EXPECT);
                let (body, memory) = if body.is_end_stream() {
                    (empty(), None)
                } else {
                    let body = discarding(timed(body, self.body_timeout), expects);
                    if self.guard.upstream().streams() {
                        (body.boxed_unsync(), None)
                    } else {
                        let share = self.memory.share();
                        (counted(body, share.clone()), Some(share))
                    }
                };
                let upgrade = head.extensions.remove::<OnUpgrade>();
                let certificate = head.extensions.remove::<ClientCertificate>();
                head.extensions.clear();
                if self.guard.upstream().streams() {
                    head.extensions.insert(CameFrom {
                        peer: remote_addr.clone(),
                        is_https: self.is_https,
                        is_trusted: self.identity.trusts(peer),
                    });
                    if let Some(upgrade) = upgrade {
                        head.extensions.insert(upgrade);
                    }
                }
                let peer = Peer { address: peer, certificate };
                let arrival = Arrival { request_id: id.shared(), peer, remote_addr, memory };
                let answered = self.dispatch(head, body, admin, arrival, &mut seen).await;
                let mut response = match answered.and_then(|response| self.fit(&method, response)) {
                    Ok(response) => response,
                    Err(problem) => self.refuse(*problem, &path, id.as_str(), &method, &seen),
                };
                if let Some(standing) = &seen.standing {
                    standing.tell(response.headers_mut());
                }
                self.browsers.decorate(origin.as_ref(), response.headers_mut());
                response
            }
        };
        id.echo(response.headers_mut());
        let duration = began.elapsed();
        self.metrics.request(&method, response.status(), duration);
        Access {
            method: &method,
            path: &path,
            status: response.status(),
            duration,
            request_id: &id,
            principal: seen.principal.as_ref(),
        }
        .log();
        response
    }

    /// Finds room for a large answer, which its client may take long to read.
    fn fit(&self, method: &Method, mut response: Response<Body>) -> Answer {
        if response.extensions().get::<Streamed>().is_some() {
            return Ok(response);
        }
        let length = response.body().size_hint().exact().unwrap_or(0);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // A batch finds room by itself.
        if length <= memory::SMALL || !(is_safe(method) || *method == Method::PATCH) {
            return Ok(response);
        }
        let share = self.memory.share();
        if share.grow(length).is_ok() {
            return Ok(response.map(|body| kept(body, share)));
        }
        if is_safe(method) {
            return Err(memory::no_room());
        }
        // A patch has been carried out, so it must not be refused: it is told without the document.
        *response.status_mut() = StatusCode::NO_CONTENT;
        for field in [CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE] {
            response.headers_mut().remove(field);
        }
        Ok(response.map(|_| empty()))
    }

    async fn dispatch(
        &self,
        mut head: Box<Parts>,
        body: Body,
        admin: bool,
        arrival: Arrival,
        seen: &mut Seen,
    ) -> Answer {
        check_host(&head)?;
        check_transfer_coding(&head)?;
        if matches!(head.method, Method::CONNECT | Method::TRACE) {
            self.identity.authenticate(&head.headers, &arrival.peer)?;
            return Err(Box::new(
                Problem::new(
                    Name::MethodNotAllowed,
                    format!("{} is not taken anywhere here.", head.method),
                )
                .header(ALLOW, HeaderValue::from_static(METHODS)),
            ));
        }
        if head.uri.path_and_query().is_none() {
            let detail = "The target of the request has no path: such a one is for CONNECT alone.";
            return Err(ambiguous("target", detail));
        }
        // What the server takes as a whole (RFC 9110, section 9.3.7).
        let is_of_all = head.method == Method::OPTIONS && head.uri.path() == "*";
        if is_of_all && !self.guard.upstream().streams() {
            return Ok(options(METHODS));
        }
        if head.uri.path_and_query().is_some_and(|target| MAX_TARGET < target.as_str().len()) {
            let detail = format!("The target of the request is longer than {MAX_TARGET} bytes.");
            return Err(Box::new(Problem::new(Name::UriTooLong, detail)));
        }
        let path = Resource::parse(head.uri.path());
        let by_path = check::by_path(&self.prefix, head.uri.path());
        let own = by_path.or_else(|| path.as_ref().ok().and_then(|path| self.own(path)));
        let own = own.map(str::to_owned);
        let by_fields = own.as_deref() == Some("check");
        if by_path.is_some() || by_fields {
            seen.refusing = Some(Refusing::of(&self.prefix, &head));
        }
        let judged = match own {
            None if !admin => Some(self.judge(&path, &head)?),
            _ => None,
        };
        let passes_on = matches!(judged, Some(Ok((Judged::Read(_) | Judged::Write(..), _))));
        // No page can make a browser send the fields of a check, and `Origin` beside them is of
        // the request that is asked about.
        if !by_fields {
            self.browsers.check(&head, passes_on)?;
        }
        let public = own.as_deref().is_some_and(|rest| crate::own_space::is_public(rest, admin));
        let (caller, credentials) = if public {
            (leasehold_core::caller::Caller::anonymous(), None)
        } else {
            self.identity.prepare(&head.headers).await;
            let caller = self.identity.authenticate(&head.headers, &arrival.peer)?;
            let credentials = self.identity.credentials(&head, &caller);
            self.identity.take_out(&mut head.headers);
            seen.principal = Some(caller.principal.clone());
            if let Some(rate) = &self.rate {
                let standing = rate.take(&caller.principal, self.started.elapsed());
                seen.standing = Some(standing);
                standing.check()?;
            }
            (caller, credentials)
        };
        let asked = match &judged {
            Some(Ok((judged, _))) => judged.located().and_then(|located| {
                let is_name = *located.asked.path() == located.resource;
                (!is_name).then(|| Arc::new(located.asked.clone()))
            }),
            Some(Err(_)) | None => None,
        };
        let Arrival { request_id, remote_addr, memory, .. } = arrival;
        let remote_addr = Some(remote_addr);
        let call = Call { caller, request_id, remote_addr, asked, memory, credentials };
        if let Some(rest) = own {
            let request = Request::from_parts(*head, body);
            return Box::pin(self.own_space(request, &rest, admin, &call)).await;
        }
        let Some(judged) = judged else {
            return Err(Box::new(Problem::new(
                Name::NotFound,
                "This address serves the server's own space only.",
            )));
        };
        seen.resource = path.ok();
        let (judged, route) = judged?;
        if let Some(located) = judged.located() {
            seen.resource = Some(located.resource.clone());
        }
        self.carry_out(head, body, judged, route, &call).await
    }

    /// Answers a request that is not to the server's own space.
    async fn carry_out(
        &self,
        mut head: Box<Parts>,
        body: Body,
        judged: Judged,
        route: Option<Route>,
        call: &Call,
    ) -> Answer {
        if let Some(route) = route {
            head.extensions.insert(route);
        }
        let request = |head: Box<Parts>| Request::from_parts(*head, body);
        match judged {
            // Boxed: each request has room for the largest of those that are not, and what many
            // at once have room for falls out of the processor's caches.
            Judged::Lock(located, action) => {
                Box::pin(self.api.handle(request(head), located.resource, action, call)).await
            }
            Judged::Read(Some(located)) => {
                let resource = located.resource.clone();
                match Box::pin(self.guard.read(request(head), located.resource, call)).await {
                    Err(problem) => self.told(problem, &resource, call).await,
                    answer => answer,
                }
            }
            Judged::Read(None) => {
                call.need_everywhere(Permission::Read)?;
                Box::pin(self.guard.upstream().pass_on(request(head))).await
            }
            Judged::Write(located, targets) => {
                if self.guard.upstream().streams() {
                    call.need_to_write(&targets)?;
                    head.extensions.insert(ByRules(targets));
                }
                let resource = located.resource.clone();
                match Box::pin(self.guard.write(request(head), located.resource, call)).await {
                    Err(problem) => self.told(problem, &resource, call).await,
                    answer => answer,
                }
            }
        }
    }

    /// A refusal, without what it tells of locks that its caller may not see.
    async fn told(&self, problem: Box<Problem>, resource: &Resource, call: &Call) -> Answer {
        Err(Box::pin(self.api.withheld(problem, resource, call)).await)
    }

    /// What a request is about, and where a rule sends it. A head that cannot be read is refused
    /// before anybody is asked who he is; any other refusal is kept until that is known.
    fn judge(
        &self,
        path: &Result<Resource, PathError>,
        head: &Parts,
    ) -> Result<Result<(Judged, Option<Route>), Box<Problem>>, Box<Problem>> {
        let rules = self.rules.load();
        let setting =
            Setting { rules: &rules, prefix: &self.prefix, lock_suffix: &self.lock_suffix };
        let path = path.as_ref().map_err(Clone::clone);
        let judged = if self.guard.upstream().streams() {
            setting.judge(path, &head.method, &head.uri, &head.headers)
        } else {
            let path = path.map_err(|error| endpoint::no_resource(&error.into()))?;
            setting.by_method(path, head)
        };
        let judged = match judged {
            Err(problem) if problem.name == Name::MalformedRequest => return Err(problem),
            Err(problem) => return Ok(Err(problem)),
            Ok(judged) => judged,
        };
        if matches!(judged, Judged::Write(..)) {
            self.guard.check_syntax(head)?;
        }
        let rule = match (judged.located(), path) {
            (Some(located), _) => rules.rule(located.rule),
            // Its path has a rule, though its query names nothing.
            (None, Ok(path)) => rules.find(path).1,
            (None, Err(_)) => rules.rule(0),
        };
        Ok(Ok((judged, route(rule))))
    }

    /// What follows the prefix, where the path is in the server's own space.
    pub(crate) fn own<'p>(&self, path: &'p Resource) -> Option<&'p str> {
        leasehold_faces::judge::own(&self.prefix, path)
    }

    fn refuse(
        &self,
        mut problem: Problem,
        path: &str,
        request_id: &str,
        method: &Method,
        seen: &Seen,
    ) -> Response<Body> {
        let about = seen.refusing.as_ref().and_then(|refusing| refusing.instance.as_deref());
        let instance = about.unwrap_or(path);
        // A path that was too long to be read is not repeated either.
        let instance = instance.get(..MAX_TARGET).unwrap_or(instance);
        let told = Told { instance, request_id, prefix: &self.prefix };
        if let Some(refusing) = &seen.refusing {
            problem = refusing.tell(problem, &told);
        }
        let mut response = problem.to_response(&told).map(full);
        if *method == Method::HEAD {
            response = response.map(|_| empty());
        }
        // No refusal, and counted by itself.
        if matches!(problem.name, Name::UpstreamUnreachable | Name::UpstreamTimeout) {
            return response;
        }
        let rule = match &seen.resource {
            Some(resource) => {
                count_refusal(&self.engine, resource, &problem, method);
                self.rules.load().find(resource).0
            }
            None => 0,
        };
        self.metrics.refusal(response.status(), problem.name, rule);
        response
    }
}

/// RFC 9112, section 3.2: a request of HTTP/1.1 has one `Host`, else two servers could take it for
/// two different sites.
fn check_host(head: &Parts) -> Result<(), Box<Problem>> {
    let hosts = head.headers.get_all(HOST).iter().count();
    if head.version != Version::HTTP_11 || hosts == 1 {
        return Ok(());
    }
    Err(ambiguous("Host", "A request of HTTP/1.1 has exactly one Host field."))
}

/// RFC 9112, section 6.1: what has a transfer coding that is not known here has a body that nobody
/// behind it would read as it was meant; and two servers could differ on what the last of several
/// is. `chunked`, once, is all that clients send.
fn check_transfer_coding(head: &Parts) -> Result<(), Box<Problem>> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(first) = codings.next() else { return Ok(()) };
    if first.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none() {
        return Ok(());
    }
    Err(ambiguous("Transfer-Encoding", "The only transfer coding that is taken is chunked, once."))
}

/// A request that another server could read differently. Nothing that follows on its connection is
/// read: that server could find it to begin somewhere else.
fn ambiguous(field: &str, detail: &str) -> Box<Problem> {
    let problem = Problem::new(Name::MalformedRequest, detail).with("field", field);
    Box::new(problem.header(CONNECTION, HeaderValue::from_static("close")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of the future that `make` makes. It is not called.
    fn size<A, B, F>(_make: impl Fn(&'static App, A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_carries_no_room_for_what_is_rare() {
        let answer =
            size(|app, request, (peer, remote_addr)| app.answer(request, false, peer, remote_addr));
        // Each request copies it to its place twice.
        assert!(answer <= 2560, "{answer} bytes");
    }
}
