//! The server's own space: a fixed set of routes under the prefix.

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use leasehold_core::caller::Permission;
use leasehold_core::command::Address;
use leasehold_core::ids::LockId;
use leasehold_faces::json_api::{json, method_not_allowed, options};
use leasehold_guard::body::{Body, empty, full};
use leasehold_guard::call::Call;
use leasehold_guard::upstream::Answer;
use leasehold_problems::{Name, Problem, page};
use serde_json::{Value, json as value};

use crate::app::App;
use crate::check;
use crate::metrics::OPENMETRICS;

/// One of the routes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Route<'p> {
    Locks,
    Lock(&'p str),
    BreakLock(&'p str),
    TransferLock(&'p str),
    Check,
    Batch,
    Audit,
    Events,
    Live,
    Ready,
    Problems,
    Problem(&'p str),
    OpenApi,
    Metrics,
}

fn route(rest: &str) -> Option<Route<'_>> {
    let mut segments = rest.split('/');
    let route = match (segments.next()?, segments.next(), segments.next()) {
        ("locks", None, None) => Route::Locks,
        ("locks", Some(id), None) => Route::Lock(id),
        ("locks", Some(id), Some("break")) => Route::BreakLock(id),
        ("locks", Some(id), Some("transfer")) => Route::TransferLock(id),
        ("check", None, None) => Route::Check,
        ("batch", None, None) => Route::Batch,
        ("audit", None, None) => Route::Audit,
        ("events", None, None) => Route::Events,
        ("health", Some("live"), None) => Route::Live,
        ("health", Some("ready"), None) => Route::Ready,
        ("problems", None, None) => Route::Problems,
        ("problems", Some(name), None) => Route::Problem(name),
        ("openapi.json", None, None) => Route::OpenApi,
        ("metrics", None, None) => Route::Metrics,
        _ => return None,
    };
    segments.next().is_none().then_some(route)
}

impl Route<'_> {
    fn allowed(self) -> &'static str {
        match self {
            Self::Locks => "GET, HEAD, POST, OPTIONS",
            Self::Lock(_) => "GET, HEAD, PATCH, PUT, DELETE, OPTIONS",
            Self::BreakLock(_) | Self::TransferLock(_) | Self::Batch => "POST, OPTIONS",
            Self::Check => "GET, HEAD, POST, OPTIONS",
            Self::Audit
            | Self::Events
            | Self::Live
            | Self::Ready
            | Self::Problems
            | Self::Problem(_)
            | Self::OpenApi
            | Self::Metrics => "GET, HEAD, OPTIONS",
        }
    }
}

/// Whether a path of the own space is anyone's: health, problem pages, the API description; on
/// the operators' listener metrics as well.
pub(crate) fn is_public(rest: &str, admin: bool) -> bool {
    match route(rest) {
        Some(Route::Live | Route::Ready | Route::Problems | Route::Problem(_) | Route::OpenApi) => {
            true
        }
        Some(Route::Metrics) => admin,
        _ => false,
    }
}

impl App {
    pub(crate) async fn own_space(
        &self,
        request: Request<Body>,
        rest: &str,
        admin: bool,
        call: &Call,
    ) -> Answer {
        // Its method is that of the request that is asked about, and so no route's.
        if check::by_path(&self.prefix, request.uri().path()).is_some() {
            return self.check(request, call).await;
        }
        let Some(route) = route(rest) else {
            let detail = format!("There is nothing at {}{rest}.", self.prefix);
            return Err(Box::new(Problem::new(Name::NotFound, detail)));
        };
        let method = request.method().clone();
        let head_only = method == http::Method::HEAD;
        let allowed = route.allowed();
        if method == http::Method::OPTIONS {
            return Ok(options(allowed));
        }
        if !allowed.split(", ").any(|each| each == method.as_str()) {
            return Err(method_not_allowed(method.as_str(), allowed));
        }
        let query = request.uri().query().map(str::to_owned);
        // What is about no one resource, or one known by the id of its lock, cannot be asked of the
        // upstream. The others ask it, or want a token.
        let by_name;
        let call = match (route, method.as_str()) {
            (Route::Locks, "POST") | (Route::Check, _) => call,
            _ => {
                by_name = call.by_name();
                &by_name
            }
        };
        let response = match (route, method.as_str()) {
            (Route::Locks, "POST") => self.api.acquire_set(request, call).await,
            (Route::Locks, _) => self.api.list_locks(query.as_deref(), call).await,
            (Route::Lock(id), "PATCH" | "PUT") => {
                self.api.renew(request, Address::Id(lock_id(id)?), call).await
            }
            (Route::Lock(id), "DELETE") => {
                self.api.release(request, Address::Id(lock_id(id)?), call).await
            }
            (Route::Lock(id), _) => self.api.show_lock(lock_id(id)?, call).await,
            (Route::BreakLock(id), _) => {
                self.api.break_lock(request, Address::Id(lock_id(id)?), call).await
            }
            (Route::TransferLock(id), _) => {
                self.api.transfer(request, Address::Id(lock_id(id)?), call).await
            }
            (Route::Check, _) => self.check(request, call).await,
            (Route::Batch, _) => self.batch(request, call).await,
            (Route::Audit, _) => self.audit(request.into_parts().0, call).await,
            (Route::Events, _) => self.events(request.into_parts().0, call).await,
            (Route::Live, _) => Ok(json(StatusCode::OK, &value!({ "status": "live" }))),
            (Route::Ready, _) => self.ready(),
            (Route::Problems, _) => Ok(self.problems()),
            (Route::Problem(name), _) => self.problem(&request, name),
            (Route::OpenApi, _) => {
                Ok(json(StatusCode::OK, &crate::openapi::document(&self.prefix, &self.lock_suffix)))
            }
            (Route::Metrics, _) => {
                if !admin {
                    call.need_everywhere(Permission::Admin)?;
                }
                self.metrics_text()
            }
        }?;
        Ok(if head_only { response.map(|_| empty()) } else { response })
    }

    fn ready(&self) -> Answer {
        if self.engine.is_serving() {
            return Ok(json(StatusCode::OK, &value!({ "status": "ready" })));
        }
        Err(Box::new(
            Problem::new(
                Name::Unavailable,
                "The journal does not work, or the server is stopping.",
            )
            .retry_after(1),
        ))
    }

    fn problems(&self) -> Response<Body> {
        let items: Vec<Value> =
            Name::ALL.iter().map(|name| page::json(name.entry(), &self.prefix)).collect();
        json(StatusCode::OK, &value!({ "items": items, "next": null }))
    }

    fn problem(&self, request: &Request<Body>, name: &str) -> Answer {
        let Some(name) = Name::parse(name) else {
            let detail = format!("No problem is called `{name}`.");
            return Err(Box::new(Problem::new(Name::NotFound, detail)));
        };
        let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
        if accept.is_some_and(|accept| accept.contains("text/html")) {
            let mut response = Response::new(full(page::html(name.entry(), &self.prefix)));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            headers.insert(
                http::header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
            );
            return Ok(response);
        }
        Ok(json(StatusCode::OK, &page::json(name.entry(), &self.prefix)))
    }

    fn metrics_text(&self) -> Answer {
        let stats = self.engine.stats();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.metrics.set_locks(count(stats.locks));
        self.metrics.set_waiters(count(stats.waiters));
        self.metrics.set_writes_in_flight(count(stats.writes_in_flight));
        let lag = stats.durable.0.saturating_sub(self.follower.folded().0);
        self.metrics.set_follower_lag(lag);
        self.metrics.set_connections(count(self.connections.open()));
        if let Some((seq, hash)) = self.head.latest() {
            self.metrics.set_audit_head(seq, &hash);
        }
        let text = self.metrics.encode().map_err(|_| {
            Box::new(Problem::new(Name::Unavailable, "The metrics cannot be written down."))
        })?;
        let mut response = Response::new(full(text));
        response.headers_mut().insert(CONTENT_TYPE, OPENMETRICS);
        Ok(response)
    }
}

fn lock_id(text: &str) -> Result<LockId, Box<Problem>> {
    text.parse().map_err(|_| {
        Box::new(
            Problem::new(Name::MalformedRequest, format!("`{text}` is no lock id."))
                .with("field", "lock_id"),
        )
    })
}
