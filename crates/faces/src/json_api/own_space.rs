//! What of the server's own space is of the JSON API: locks by their ids, and the problem pages.

use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use leasehold_core::command::Address;
use leasehold_core::ids::LockId;
use leasehold_guard::body::{Body, full};
use leasehold_guard::call::Call;
use leasehold_guard::upstream::Answer;
use leasehold_problems::{Name, Problem, page};
use serde_json::{Value, json as value};

use super::{JsonApi, json};

/// One of the routes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route<'p> {
    /// All locks, and several in one step.
    Locks,
    /// The lock of this id.
    Lock(&'p str),
    /// Breaking it.
    BreakLock(&'p str),
    /// Handing it over.
    TransferLock(&'p str),
    /// Every refusal.
    Problems,
    /// The one of this name.
    Problem(&'p str),
}

impl<'p> Route<'p> {
    /// The route of a path, without the prefix of the own space.
    #[must_use]
    pub fn parse(rest: &'p str) -> Option<Self> {
        let mut segments = rest.split('/');
        let route = match (segments.next()?, segments.next(), segments.next()) {
            ("locks", None, None) => Self::Locks,
            ("locks", Some(id), None) => Self::Lock(id),
            ("locks", Some(id), Some("break")) => Self::BreakLock(id),
            ("locks", Some(id), Some("transfer")) => Self::TransferLock(id),
            ("problems", None, None) => Self::Problems,
            ("problems", Some(name), None) => Self::Problem(name),
            _ => return None,
        };
        segments.next().is_none().then_some(route)
    }

    /// The methods it takes.
    #[must_use]
    pub fn allowed(self) -> &'static str {
        match self {
            Self::Locks => "GET, HEAD, POST, OPTIONS",
            Self::Lock(_) => "GET, HEAD, PATCH, PUT, DELETE, OPTIONS",
            Self::BreakLock(_) | Self::TransferLock(_) => "POST, OPTIONS",
            Self::Problems | Self::Problem(_) => "GET, HEAD, OPTIONS",
        }
    }

    /// Whether it is anyone's.
    #[must_use]
    pub fn is_public(self) -> bool {
        matches!(self, Self::Problems | Self::Problem(_))
    }
}

impl JsonApi {
    /// Answers a request to one of the routes, with one of the methods that it takes. A `HEAD` is
    /// answered as a `GET`: its body is left out by whoever sends it.
    ///
    /// # Errors
    /// The refusal.
    pub async fn own_space(&self, request: Request<Body>, route: Route<'_>, call: &Call) -> Answer {
        match (route, request.method()) {
            (Route::Locks, &Method::POST) => self.acquire_set(request, call).await,
            (Route::Locks, _) => {
                let query = request.uri().query().map(str::to_owned);
                self.list_locks(query.as_deref(), call).await
            }
            (Route::Lock(id), &Method::PATCH | &Method::PUT) => {
                self.renew(request, Address::Id(lock_id(id)?), call).await
            }
            (Route::Lock(id), &Method::DELETE) => {
                self.release(request, Address::Id(lock_id(id)?), call).await
            }
            (Route::Lock(id), _) => self.show_lock(lock_id(id)?, call).await,
            (Route::BreakLock(id), _) => {
                self.break_lock(request, Address::Id(lock_id(id)?), call).await
            }
            (Route::TransferLock(id), _) => {
                self.transfer(request, Address::Id(lock_id(id)?), call).await
            }
            (Route::Problems, _) => Ok(problems(&self.settings.prefix)),
            (Route::Problem(name), _) => problem(&request, name, &self.settings.prefix),
        }
    }
}

fn problems(prefix: &str) -> Response<Body> {
    let items: Vec<Value> = Name::ALL.iter().map(|name| page::json(name.entry(), prefix)).collect();
    json(StatusCode::OK, &value!({ "items": items, "next": null }))
}

fn problem(request: &Request<Body>, name: &str, prefix: &str) -> Answer {
    let Some(name) = Name::parse(name) else {
        let detail = format!("No problem is called `{name}`.");
        return Err(Box::new(Problem::new(Name::NotFound, detail)));
    };
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/html")) {
        let mut response = Response::new(full(page::html(name.entry(), prefix)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
        );
        return Ok(response);
    }
    Ok(json(StatusCode::OK, &page::json(name.entry(), prefix)))
}

fn lock_id(text: &str) -> Result<LockId, Box<Problem>> {
    text.parse().map_err(|_| {
        Box::new(
            Problem::new(Name::MalformedRequest, format!("`{text}` is no lock id."))
                .with("field", "lock_id"),
        )
    })
}
