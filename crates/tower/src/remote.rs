//! One request, where a Leasehold server is asked about each write.
//!
//! What always holds: a write that the server has not let pass does not reach the service, whatever
//! the reason. Deliberately absent: a way to let writes pass while the server is away; and pins,
//! which only whoever grants locks can keep.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, DATE, EXPECT, HOST, HeaderMap,
    HeaderName, HeaderValue, RANGE, TRAILER,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use leasehold_client::{Client, RawReply};
use leasehold_core::ids::Principal;
use leasehold_guard::body::{Body, BoxError, full};
use leasehold_guard::fields::{
    HOP_BY_HOP, X_LOCK_FENCE, X_LOCK_HOLDER, X_LOCK_ID, decoded, drop_claims,
};
use leasehold_guard::method::{is_safe, methods};
use leasehold_guard::rules::Rule;
use leasehold_problems::{Context, Name, PROBLEM_JSON, Problem};
use tower_service::Service;

use crate::layer::LeaseholdLayer;
use crate::matched::MatchedLock;
use crate::unread::{Unread, boxed};

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// What of a request is about its body, or nothing to the lock server. All else that is not for one
/// connection goes there: what it goes by is its own affair.
const KEPT_HERE: [HeaderName; 12] = [
    ACCEPT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    HOST,
    RANGE,
    TRAILER,
    X_FORWARDED_METHOD,
    X_FORWARDED_URI,
    // Read instead of the two above where those are missing.
    HeaderName::from_static("x-original-method"),
    HeaderName::from_static("x-original-uri"),
];

/// A Leasehold server that is asked (`/-/check`) about each write before the service sees it.
///
/// ```no_run
/// use std::time::Duration;
///
/// use leasehold_client::{Client, RetryPolicy};
/// use leasehold_tower::Remote;
///
/// # fn example() -> Result<(), leasehold_client::Error> {
/// let client = Client::builder("http://127.0.0.1:7423")
///     .timeout(Duration::from_secs(2))
///     .retry(RetryPolicy::default().total(Duration::from_secs(2)))
///     .build()?;
/// let app: axum::Router = axum::Router::new().layer(Remote::new(client).layer());
/// # Ok(()) }
/// ```
///
/// A refusal of the server's is passed on as it is. Where no answer is had in the time that the
/// client has, or none that a Leasehold server gives, the write is refused with `503`.
///
/// **It cannot hold a lock back.** Between the answer and the end of the write the lock can expire or
/// be released, and another be granted: this write then lands under that one. Let what is written to
/// compare [`MatchedLock::fence`], or have the lock table inside
/// ([`Leasehold`](crate::Leasehold)).
#[derive(Clone, Debug)]
#[must_use = "it is made for its layer"]
pub struct Remote {
    client: Client,
    checks_reads: bool,
}

impl Remote {
    /// The server of this client, with its times and its repetitions.
    ///
    /// The fields of each request go along, its credentials among them, so that the server knows
    /// whose tokens they are. Only with a client that has a key of its own is that key shown
    /// instead: then the service is the holder of every lock.
    pub fn new(client: Client) -> Self {
        Self { client, checks_reads: false }
    }

    /// Asks about reads as well: where a rule of the server takes methods from a query parameter
    /// (`method_parameter`), and where its roles say who may read. Off unless set: what all of a
    /// request's methods say is a read is not asked about.
    pub fn check_reads(mut self, checks_reads: bool) -> Self {
        self.checks_reads = checks_reads;
        self
    }

    /// The layer.
    #[must_use]
    pub fn layer(self) -> LeaseholdLayer {
        LeaseholdLayer::remote(Arc::new(Asker {
            client: self.client,
            checks_reads: self.checks_reads,
        }))
    }
}

/// Who asks the server.
pub(crate) struct Asker {
    client: Client,
    checks_reads: bool,
}

impl Asker {
    pub(crate) async fn answer<S, B, R>(
        &self,
        request: Request<B>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        let mut body = Unread::new(body, head.headers.contains_key(EXPECT));
        match self.lock_of(&head).await {
            Ok(Some(lock)) => {
                head.extensions.insert(lock);
            }
            Ok(None) => {}
            Err(refusal) => return Ok(refusal),
        }
        drop_claims(&mut head.headers);
        // Nobody has taken it before.
        let Some(body) = body.take() else { return Ok(self.told(&head, &unreachable())) };
        let answer = inner.call(Request::from_parts(head, body)).await?;
        Ok(answer.map(boxed))
    }

    /// The lock under which a request may pass; none where no lock is in its way.
    async fn lock_of(&self, head: &Parts) -> Result<Option<MatchedLock>, Response<Body>> {
        let methods = methods(&head.method, &head.uri, &head.headers, &Rule::default())
            .map_err(|problem| self.told(head, &problem))?;
        if !self.checks_reads && methods.iter().all(is_safe) {
            return Ok(None);
        }
        let reply = match self.check(head).await {
            Ok(reply) => reply,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "a write is refused: the lock server gives no answer");
                return Err(self.told(head, &unreachable()));
            }
        };
        if reply.status == StatusCode::OK {
            return matched(&reply.headers).map_err(|NoLock| {
                tracing::warn!("a write is refused: the lock server tells of a lock that is none");
                self.told(head, &unreachable())
            });
        }
        if !is_refusal(&reply) {
            let status = reply.status.as_u16();
            tracing::warn!(status, "a write is refused: what answers is no lock server");
            return Err(self.told(head, &unreachable()));
        }
        Err(passed_on(reply))
    }

    async fn check(&self, head: &Parts) -> Result<RawReply, leasehold_client::Error> {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let as_field = |text: &str| {
            let what = "the request's target or method is no header field".to_owned();
            HeaderValue::from_str(text).map_err(|_| leasehold_client::Error::Invalid(what))
        };
        let mut ask = self.client.request(Method::GET, self.client.own_path("check"));
        // What `Connection` names goes as well: the service sees it, so it has to be judged.
        for (name, value) in &head.headers {
            if !HOP_BY_HOP.contains(name) && !KEPT_HERE.contains(name) {
                ask = ask.header(name.clone(), value.clone());
            }
        }
        ask.header(X_FORWARDED_METHOD, as_field(head.method.as_str())?)
            .header(X_FORWARDED_URI, as_field(target)?)
            .answer()
            .await
    }

    /// A refusal of the layer's own.
    fn told(&self, head: &Parts, problem: &Problem) -> Response<Body> {
        let request_id = head.headers.get("x-request-id").and_then(|id| id.to_str().ok());
        let prefix = self.client.own_path("");
        let told = Context {
            instance: head.uri.path(),
            request_id: request_id.unwrap_or_default(),
            prefix: &prefix,
        };
        problem.to_response(&told).map(full)
    }
}

fn unreachable() -> Problem {
    let detail = "The lock server gave no answer that can be gone by; nothing was done.";
    Problem::new(Name::Unavailable, detail).retry_after(1)
}

/// What the server lets pass tells of a lock that cannot be read.
struct NoLock;

fn matched(headers: &HeaderMap) -> Result<Option<MatchedLock>, NoLock> {
    let Some(fence) = headers.get(X_LOCK_FENCE) else { return Ok(None) };
    let text = |value: Option<&HeaderValue>| Some(value?.to_str().ok()?.to_owned());
    let lock = || {
        Some(MatchedLock {
            fence: text(Some(fence))?.parse().ok()?,
            lock_id: text(headers.get(X_LOCK_ID))?.parse().ok()?,
            holder: Principal::new(&decoded(headers.get(X_LOCK_HOLDER)?)?),
        })
    };
    lock().map(Some).ok_or(NoLock)
}

/// Whether an answer is a refusal of a Leasehold server's, and not of something before it.
fn is_refusal(reply: &RawReply) -> bool {
    let is_error = reply.status.is_client_error() || reply.status.is_server_error();
    is_error && reply.header(CONTENT_TYPE.as_str()) == Some(PROBLEM_JSON)
}

fn passed_on(reply: RawReply) -> Response<Body> {
    let mut response = Response::new(full(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    for name in HOP_BY_HOP.iter().chain(&[CONTENT_LENGTH, DATE]) {
        response.headers_mut().remove(name);
    }
    response
}
