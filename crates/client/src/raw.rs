//! Requests that this client has no method of its own for, and answers as they came.

use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;

use crate::client::{Ask, Client, Reply};
use crate::error::Error;
use crate::retry::Repeat;
use crate::secret::Token;

/// A request that is being made. See [`Client::request`].
#[derive(Clone)]
#[must_use = "nothing is sent before `send`"]
pub struct RawRequest {
    client: Client,
    ask: Ask,
}

/// An answer, as it came.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RawReply {
    /// Its status: 2xx, but for [`RawRequest::answer`].
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body, whole.
    pub body: Bytes,
}

impl From<Reply> for RawReply {
    fn from(reply: Reply) -> Self {
        Self { status: reply.status, headers: reply.headers, body: reply.body }
    }
}

impl RawReply {
    /// A header field, where it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// [`Error::Protocol`] where it is not.
    pub fn json(&self) -> Result<Value, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Protocol(error.to_string()))
    }
}

impl Client {
    /// A request of any kind, with the client's address, key, timeouts and retries. The target is
    /// a path, with a query where one is meant, as [`path_of`](Self::path_of),
    /// [`lock_path_of`](Self::lock_path_of) and [`own_path`](Self::own_path) give it.
    ///
    /// It is repeated where that is safe: requests with a safe method, and others where the
    /// failed attempt certainly changed nothing.
    pub fn request(&self, method: Method, target: impl Into<String>) -> RawRequest {
        let repeat = if method.is_safe() { Repeat::Safe } else { Repeat::OnlyIfNothingWasDone };
        RawRequest { client: self.clone(), ask: Ask::new(method, target.into(), repeat) }
    }

    /// The path of a resource, percent-encoded where it has to be.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what no path can be.
    pub fn path_of(&self, resource: &str) -> Result<String, Error> {
        crate::path::path(resource)
    }

    /// The path of the lock of a resource.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what no path can be.
    pub fn lock_path_of(&self, resource: &str) -> Result<String, Error> {
        self.lock_of(resource)
    }

    /// A path of the server's own space: `locks` is `/-/locks`.
    #[must_use]
    pub fn own_path(&self, path: &str) -> String {
        self.own(path)
    }
}

impl RawRequest {
    /// With a header field.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.ask = self.ask.header(name, value);
        self
    }

    /// With the token of a lock; with several, of all of them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what no header field can carry.
    pub fn token(mut self, token: &Token) -> Result<Self, Error> {
        self.ask = self.ask.token(token)?;
        Ok(self)
    }

    /// With this JSON as its body.
    pub fn json(mut self, body: &Value) -> Self {
        self.ask = self.ask.json(body);
        self
    }

    /// With this body.
    pub fn body(mut self, media_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        self.ask.headers.insert(CONTENT_TYPE, media_type);
        self.ask.body = body.into();
        self
    }

    /// It does the same however often it is sent.
    pub fn repeatable(mut self) -> Self {
        self.ask.repeat = Repeat::Safe;
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// The refusal, or why there is no answer.
    pub async fn send(&self) -> Result<RawReply, Error> {
        Ok(self.client.send(&self.ask).await?.into())
    }

    /// Sends it, and gives whatever is answered: a refusal, too, is no error here, and nothing that
    /// was answered is asked for again.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn answer(&self) -> Result<RawReply, Error> {
        Ok(self.client.answered(&self.ask).await?.into())
    }
}

impl fmt::Debug for RawRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawRequest")
            .field("method", &self.ask.method)
            .field("target", &self.ask.target)
            .finish_non_exhaustive()
    }
}
