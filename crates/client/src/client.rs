//! The client: where the server is, who asks, and how one request is sent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use serde::de::DeserializeOwned;

use crate::builder::ClientBuilder;
use crate::clock::{Moment, pause};
use crate::connect::{Connector, NoTls};
use crate::error::Error;
use crate::outgoing::Outgoing;
use crate::problem::Problem;
use crate::retry::{Backoff, Repeat, RetryPolicy, passes};

/// A client of one Leasehold server.
///
/// It keeps connections alive and is cheap to clone; make one and pass clones on.
///
/// ```no_run
/// # async fn example() -> Result<(), leasehold_client::Error> {
/// use leasehold_client::Client;
///
/// let client = Client::builder("http://127.0.0.1:7423").key("my-api-key").build()?;
/// let held = client.lock("/v1/flags/x").hold().await?;
/// client.put("/v1/flags/x", &true).under(&held).await?;
/// held.release().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

/// What the clones of a client have in common. The [`ClientBuilder`] makes it.
pub(crate) struct Inner {
    pub(crate) hyper: Hyper<Connector, Outgoing>,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) user_agent: HeaderValue,
    pub(crate) timeout: Duration,
    pub(crate) max_body: usize,
    pub(crate) retry: RetryPolicy,
    pub(crate) prefix: String,
    pub(crate) lock_suffix: String,
}

impl Client {
    /// A client of the server at this address, with every default: `http://127.0.0.1:7423`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no such address.
    pub fn new(url: &str) -> Result<Self, Error> {
        Self::builder(url).build()
    }

    /// A client that is set up first.
    #[must_use]
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder::new(url)
    }

    /// Where the server is: `http://127.0.0.1:7423`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.inner.scheme, self.inner.authority)
    }

    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        self.inner.retry
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// A path of the server's own space.
    pub(crate) fn own(&self, path: &str) -> String {
        format!("{}{path}", self.inner.prefix)
    }

    /// The lock endpoint of a resource.
    pub(crate) fn lock_of(&self, resource: &str) -> Result<String, Error> {
        Ok(format!("{}{}", crate::path::base(resource)?, self.inner.lock_suffix))
    }

    /// Sends a request as often as it is safe and worth it.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<Reply, Error> {
        self.send_within(ask, self.inner.retry.begin()).await
    }

    pub(crate) async fn send_within(&self, ask: &Ask, backoff: Backoff) -> Result<Reply, Error> {
        self.repeat(ask, backoff, || self.once(ask)).await
    }

    /// Sends a request as often as it is safe and worth it to get an answer, whatever that is.
    pub(crate) async fn answered(&self, ask: &Ask) -> Result<Reply, Error> {
        self.repeat(ask, self.inner.retry.begin(), || self.exchange(ask)).await
    }

    async fn repeat<F>(
        &self,
        ask: &Ask,
        mut backoff: Backoff,
        attempt: impl Fn() -> F,
    ) -> Result<Reply, Error>
    where
        F: Future<Output = Result<Reply, Error>>,
    {
        loop {
            let error = match attempt().await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            if !passes(&error, ask.repeat) {
                return Err(error);
            }
            let Some(rest) = backoff.next(error.retry_after()) else { return Err(error) };
            pause(rest).await;
        }
    }

    /// Sends a request that takes effect at most once however often it is sent, but whose
    /// repetition does not tell whether it has. `may_go` is asked before each attempt.
    ///
    /// Once an attempt may have taken effect, only a success says more than that: whatever other
    /// end it comes to, the error is that of the first such attempt.
    pub(crate) async fn send_once_in_effect(
        &self,
        ask: &Ask,
        may_go: impl Fn() -> Result<(), Error>,
    ) -> Result<Reply, Error> {
        let mut backoff = self.inner.retry.begin();
        let mut unknown = None;
        loop {
            let error = match may_go() {
                Ok(()) => match self.once(ask).await {
                    Ok(reply) => return Ok(reply),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let passes = passes(&error, ask.repeat);
            let rest = if passes { backoff.next(error.retry_after()) } else { None };
            let told = match unknown.take() {
                Some(first) => first,
                None => error,
            };
            let Some(rest) = rest else { return Err(told) };
            if !told.has_no_side_effects() {
                unknown = Some(told);
            }
            pause(rest).await;
        }
    }

    /// Sends a request once. Every refusal is an error.
    pub(crate) async fn once(&self, ask: &Ask) -> Result<Reply, Error> {
        let reply = self.exchange(ask).await?;
        if reply.status.is_success() { Ok(reply) } else { Err(reply.refusal()) }
    }

    /// Sends a request once, and gives whatever is answered.
    async fn exchange(&self, ask: &Ask) -> Result<Reply, Error> {
        let sent_at = Moment::now();
        let timeout = ask.timeout.unwrap_or(self.inner.timeout);
        let (request, connection) = self.prepare(ask)?;
        let exchange = async {
            let (head, body) = self.begin(request).await?.into_parts();
            let whole =
                Limited::new(body, self.inner.max_body).collect().await.map_err(|error| {
                    if error.is::<LengthLimitError>() {
                        Error::Protocol(format!("it is longer than {} bytes", self.inner.max_body))
                    } else {
                        let what = "the answer broke off".to_owned();
                        Error::Transport { what, sent: true, source: error }
                    }
                })?;
            Ok::<_, Error>((head, whole.to_bytes()))
        };
        // Dropping the exchange closes its connection, so a late answer reaches nobody.
        let (head, body) = tokio::time::timeout(timeout, exchange)
            .await
            .map_err(|_| timed_out(timeout, &connection))??;
        let reply = Reply { status: head.status, headers: head.headers, body, sent_at };
        if reply.status == StatusCode::BAD_REQUEST
            && self.inner.scheme == Scheme::HTTP
            && !is_json(reply.text(CONTENT_TYPE))
            && let Some(failure) = NoTls::told(&reply.body)
        {
            return Err(self.no_tls(&failure));
        }
        Ok(reply)
    }

    /// Sends a request, and gives the answer with its body still to come. Its head comes in time.
    pub(crate) async fn open(&self, ask: &Ask) -> Result<Response<Incoming>, Error> {
        let timeout = ask.timeout.unwrap_or(self.inner.timeout);
        let (request, connection) = self.prepare(ask)?;
        let response = tokio::time::timeout(timeout, self.begin(request))
            .await
            .map_err(|_| timed_out(timeout, &connection))??;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let read = tokio::time::timeout(timeout, Limited::new(body, 1 << 20).collect()).await;
        let body = read.ok().and_then(Result::ok).map(|whole| whole.to_bytes()).unwrap_or_default();
        let sent_at = Moment::now();
        Err(Reply { status: head.status, headers: head.headers, body, sent_at }.refusal())
    }

    /// A request, and where it can be seen that a connection has been found for it.
    fn prepare(&self, ask: &Ask) -> Result<(Request<Outgoing>, CaptureConnection), Error> {
        let inner = &self.inner;
        let uri = Uri::builder()
            .scheme(inner.scheme.clone())
            .authority(inner.authority.clone())
            .path_and_query(ask.target.as_str())
            .build()
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let mut request = Outgoing::request(ask.body.clone());
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        for (name, value) in &ask.headers {
            headers.append(name.clone(), value.clone());
        }
        headers.insert(USER_AGENT, inner.user_agent.clone());
        if !headers.contains_key(ACCEPT) {
            headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
        }
        if let Some(key) = &inner.authorization {
            headers.insert(AUTHORIZATION, key.clone());
        }
        if let Ok(host) = HeaderValue::from_str(inner.authority.as_str()) {
            headers.insert(HOST, host);
        }
        let connection = capture_connection(&mut request);
        Ok((request, connection))
    }

    async fn begin(&self, request: Request<Outgoing>) -> Result<Response<Incoming>, Error> {
        let inner = &self.inner;
        inner.hyper.request(request).await.map_err(|error| {
            let authority = &inner.authority;
            if let Some(failure) = NoTls::among(&error) {
                return self.no_tls(failure);
            }
            let sent = !error.is_connect();
            let what = if sent {
                format!("the connection to {authority} broke")
            } else {
                format!("cannot connect to {authority}")
            };
            Error::Transport { what, sent, source: Box::new(error) }
        })
    }

    fn no_tls(&self, NoTls { failure, what }: &NoTls) -> Error {
        let authority = self.inner.authority.to_string();
        Error::Tls { failure: *failure, authority, what: what.clone() }
    }
}

/// No answer in time. A request that had no connection yet has not been sent.
fn timed_out(after: Duration, connection: &CaptureConnection) -> Error {
    Error::Timeout { after, sent: connection.connection_metadata().is_some() }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url()).finish_non_exhaustive()
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) timeout: Option<Duration>,
    pub(crate) repeat: Repeat,
}

impl Ask {
    /// A request that changes nothing.
    pub(crate) fn get(target: String) -> Self {
        Self::new(Method::GET, target, Repeat::Safe)
    }

    pub(crate) fn new(method: Method, target: String, repeat: Repeat) -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { method, target, headers, body, timeout: None, repeat }
    }

    pub(crate) fn json(mut self, value: &serde_json::Value) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body = value.to_string().into();
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    pub(crate) fn token(self, token: &crate::Token) -> Result<Self, Error> {
        Ok(self.header(X_LOCK_TOKEN, token.header()?))
    }

    pub(crate) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

pub(crate) const X_LOCK_TOKEN: HeaderName = HeaderName::from_static("x-lock-token");

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// When the request was sent that this answers.
    pub(crate) sent_at: Moment,
}

impl Reply {
    /// The body as JSON, which it says it is.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        if !is_json(self.text(CONTENT_TYPE)) {
            let media = self.text(CONTENT_TYPE).unwrap_or("nothing").chars().take(100);
            let media: String = media.collect();
            return Err(Error::Protocol(format!("JSON was expected, and {media:?} came")));
        }
        // The message has the place and what was expected, and no more than a word of the body.
        serde_json::from_slice(&self.body).map_err(|error| Error::Protocol(error.to_string()))
    }

    pub(crate) fn text(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A success of this status.
    pub(crate) fn expect(self, status: StatusCode) -> Result<Self, Error> {
        if self.status == status {
            return Ok(self);
        }
        Err(Error::Protocol(format!("{status} was expected, and {} came", self.status)))
    }

    fn refusal(&self) -> Error {
        if self.status.is_client_error() || self.status.is_server_error() {
            let problem = Problem::read(self.status, &self.headers, &self.body);
            return Error::Refused(Box::new(problem));
        }
        if self.status.is_redirection() {
            let status = self.status;
            return Error::Protocol(format!("{status} came; redirections are not followed"));
        }
        Error::Protocol(format!("the status {} came", self.status))
    }
}

pub(crate) fn is_json(media_type: Option<&str>) -> bool {
    let media = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
    let media = media.trim().to_ascii_lowercase();
    media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
}
