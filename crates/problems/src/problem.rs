//! One refusal, on its way to the caller.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Map, Value};

use crate::catalogue::{Name, Retryable};

/// `application/problem+json`.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// One refusal: what it is called, what is to be said of it, and the members and header fields
/// that let the caller resolve it.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Which of the catalogue.
    pub name: Name,
    /// A sentence for the person who reads it.
    pub detail: String,
    /// Members beside those that every problem has.
    pub members: Map<String, Value>,
    /// More of them, JSON already, without the braces around them: the refusal that is sent most
    /// often has many, and a tree of values costs more than everything else about it.
    pub written: Vec<u8>,
    /// The lock in the way, of a `locked`; told as `null` where there is none to be told of.
    pub lock: Option<Box<InTheWay>>,
    /// Header fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The status, where it is not the catalogue's (`locked_status`).
    pub status: Option<StatusCode>,
    /// Whether the same request may work later, where it is not the catalogue's word.
    pub retryable: Option<Retryable>,
}

/// A lock in somebody's way, or an acquire that will be one.
#[derive(Clone, Debug)]
pub struct InTheWay {
    /// The first of its resources.
    pub resource: String,
    /// Who holds it, where that may be told.
    pub holder: Option<String>,
    /// What is told of it: JSON.
    pub written: Vec<u8>,
}

/// What a problem document needs to know of the request.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The path that was asked for.
    pub instance: &'a str,
    /// The id of the request. Empty where no request has been read: then neither is told.
    pub request_id: &'a str,
    /// The prefix of the server's own space, with both slashes.
    pub prefix: &'a str,
}

impl Problem {
    /// A problem of this name.
    #[must_use]
    pub fn new(name: Name, detail: impl Into<String>) -> Self {
        Self {
            name,
            detail: detail.into(),
            members: Map::new(),
            written: Vec::new(),
            lock: None,
            headers: Vec::new(),
            status: None,
            retryable: None,
        }
    }

    /// With a member.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// With a header field.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With `Retry-After` in whole seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(http::header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The status it is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or(self.name.entry().status)
    }

    /// The problem document.
    #[must_use]
    pub fn document(&self, context: &Context<'_>) -> Vec<u8> {
        let lock = self.lock.as_ref().map_or(b"null".as_slice(), |lock| &lock.written);
        // Room for what nearly each has, so that it is not moved while it grows.
        let known = self.detail.len() + context.instance.len() + lock.len() + self.written.len();
        let mut text = Vec::with_capacity(512 + known);
        // Its keys are strings and its numbers JSON's own: it always can be written.
        if serde_json::to_writer(&mut text, &Document { problem: self, context }).is_err() {
            text.clear();
        }
        // An object that is never empty: it ends in `}`, and `,` may follow what is there.
        if !self.written.is_empty() && text.pop().is_some() {
            text.extend_from_slice(b",\"lock\":");
            text.extend_from_slice(lock);
            text.push(b',');
            text.extend_from_slice(&self.written);
            text.push(b'}');
        }
        text
    }

    /// The answer: status, header fields, and the problem document.
    #[must_use]
    pub fn to_response(&self, context: &Context<'_>) -> Response<Vec<u8>> {
        let mut response = Response::new(self.document(context));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        response
    }
}

/// The JSON of a problem, RFC 9457: the members that each has, then those of its own.
struct Document<'a> {
    problem: &'a Problem,
    context: &'a Context<'a>,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { problem, context } = self;
        let entry = problem.name.entry();
        let retryable = problem.retryable.unwrap_or(entry.retryable);
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("type", &[context.prefix, "problems/", entry.name].concat())?;
        members.serialize_entry("title", entry.title)?;
        members.serialize_entry("status", &problem.status().as_u16())?;
        members.serialize_entry("detail", &problem.detail)?;
        if !context.request_id.is_empty() {
            members.serialize_entry("instance", context.instance)?;
            members.serialize_entry("request_id", context.request_id)?;
        }
        members.serialize_entry("retryable", retryable.as_str())?;
        for (member, value) in &problem.members {
            members.serialize_entry(member, value)?;
        }
        members.end()
    }
}
