//! The server's own space: a fixed set of routes under the prefix.

use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use leasehold_core::caller::Permission;
use leasehold_faces::json_api::{json, method_not_allowed, options, own_space};
use leasehold_guard::body::{Body, empty, full};
use leasehold_guard::call::Call;
use leasehold_guard::upstream::Answer;
use leasehold_problems::{Name, Problem};
use serde_json::json as value;

use crate::app::App;
use crate::check;
use crate::metrics::OPENMETRICS;

/// One of the routes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Route<'p> {
    Api(own_space::Route<'p>),
    Check,
    Batch,
    Audit,
    Events,
    Live,
    Ready,
    OpenApi,
    Metrics,
}

fn route(rest: &str) -> Option<Route<'_>> {
    Some(match rest {
        "check" => Route::Check,
        "batch" => Route::Batch,
        "audit" => Route::Audit,
        "events" => Route::Events,
        "health/live" => Route::Live,
        "health/ready" => Route::Ready,
        "openapi.json" => Route::OpenApi,
        "metrics" => Route::Metrics,
        _ => return own_space::Route::parse(rest).map(Route::Api),
    })
}

impl Route<'_> {
    fn allowed(self) -> &'static str {
        match self {
            Self::Api(route) => route.allowed(),
            Self::Batch => "POST, OPTIONS",
            Self::Check => "GET, HEAD, POST, OPTIONS",
            Self::Audit
            | Self::Events
            | Self::Live
            | Self::Ready
            | Self::OpenApi
            | Self::Metrics => "GET, HEAD, OPTIONS",
        }
    }
}

/// Whether a path of the own space is anyone's: health, problem pages, the API description; on
/// the operators' listener metrics as well.
pub(crate) fn is_public(rest: &str, admin: bool) -> bool {
    match route(rest) {
        Some(Route::Live | Route::Ready | Route::OpenApi) => true,
        Some(Route::Api(route)) => route.is_public(),
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
        // What is about no one resource, or one known by the id of its lock, cannot be asked of the
        // upstream. The others ask it, or want a token.
        let by_name;
        let call = match (route, method.as_str()) {
            (Route::Api(own_space::Route::Locks), "POST") | (Route::Check, _) => call,
            _ => {
                by_name = call.by_name();
                &by_name
            }
        };
        let response = match route {
            Route::Api(route) => self.api.own_space(request, route, call).await,
            Route::Check => self.check(request, call).await,
            Route::Batch => self.batch(request, call).await,
            Route::Audit => self.audit(request.into_parts().0, call).await,
            Route::Events => self.events(request.into_parts().0, call).await,
            Route::Live => Ok(json(StatusCode::OK, &value!({ "status": "live" }))),
            Route::Ready => self.ready(),
            Route::OpenApi => {
                Ok(json(StatusCode::OK, &crate::openapi::document(&self.prefix, &self.lock_suffix)))
            }
            Route::Metrics => {
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
