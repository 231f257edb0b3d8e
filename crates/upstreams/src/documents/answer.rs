//! Answers and refusals: the one file that says what each looks like on the wire.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, LAST_MODIFIED, LOCATION,
};
use http::{Method, Response, StatusCode};
use leasehold_core::resource::Resource;
use leasehold_problems::{Name, Problem, Retryable};

use super::validators::http_date;
use super::writer::StorageFailure;

const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, OPTIONS, PUT, POST, PATCH, DELETE");
const PATCHES: HeaderValue = HeaderValue::from_static(
    "application/merge-patch+json, application/json-patch+json, application/json",
);
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// The validators of a version, as they are shown.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) etag: String,
    /// In seconds.
    pub(super) modified: i64,
}

/// A value that is ASCII by its making: a canonical path, an entity tag, a date. Were it not, the
/// field would be empty.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

fn plain(status: StatusCode, shown: Option<&Shown>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, NO_CACHE);
    if let Some(shown) = shown {
        headers.insert(ETAG, value(&shown.etag));
        headers.insert(LAST_MODIFIED, value(&http_date(shown.modified)));
    }
    response
}

/// A document. Without `body` it is the answer to a HEAD.
pub(super) fn document(
    shown: &Shown,
    media_type: &str,
    length: i64,
    body: Option<Bytes>,
) -> Response<Bytes> {
    let mut response = plain(StatusCode::OK, Some(shown));
    response.headers_mut().insert(CONTENT_TYPE, value(media_type));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    *response.body_mut() = body.unwrap_or_default();
    response
}

/// A document after a patch.
pub(super) fn patched(
    shown: &Shown,
    media_type: &str,
    resource: &Resource,
    body: Bytes,
) -> Response<Bytes> {
    let length = i64::try_from(body.len()).unwrap_or(i64::MAX);
    let mut response = document(shown, media_type, length, Some(body));
    // RFC 9110, section 8.7: so the body is known to be the document.
    response.headers_mut().insert(CONTENT_LOCATION, value(resource.as_str()));
    response
}

/// A page of a list.
pub(super) fn list(body: Vec<u8>, head: bool) -> Response<Bytes> {
    let mut response = plain(StatusCode::OK, None);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if !head {
        *response.body_mut() = body.into();
    }
    response
}

/// The reader has this version already.
pub(super) fn not_modified(shown: Option<&Shown>) -> Response<Bytes> {
    plain(StatusCode::NOT_MODIFIED, shown)
}

pub(super) fn created(shown: &Shown, resource: &Resource) -> Response<Bytes> {
    let mut response = plain(StatusCode::CREATED, Some(shown));
    response.headers_mut().insert(LOCATION, value(resource.as_str()));
    response
}

pub(super) fn replaced(shown: &Shown) -> Response<Bytes> {
    plain(StatusCode::NO_CONTENT, Some(shown))
}

pub(super) fn deleted() -> Response<Bytes> {
    plain(StatusCode::NO_CONTENT, None)
}

pub(super) fn options() -> Response<Bytes> {
    let mut response = plain(StatusCode::NO_CONTENT, None);
    response.headers_mut().insert(ALLOW, METHODS);
    response.headers_mut().insert(ACCEPT_PATCH, PATCHES);
    response
}

pub(super) fn method_not_allowed(method: &Method) -> Box<Problem> {
    let detail = format!("A document does not take {method}.");
    Box::new(Problem::new(Name::MethodNotAllowed, detail).header(ALLOW, METHODS))
}

pub(super) fn malformed(field: &str, detail: impl Into<String>) -> Box<Problem> {
    Box::new(Problem::new(Name::MalformedRequest, detail).with("field", field))
}

pub(super) fn bad_cursor() -> Box<Problem> {
    malformed("cursor", "`cursor` is not one that was given for this list.")
}

/// A field's name as people write it.
pub(super) fn field_name(name: &HeaderName) -> &'static str {
    match name.as_str() {
        "if-match" => "If-Match",
        "if-none-match" => "If-None-Match",
        _ => "header",
    }
}

pub(super) fn too_large(what: &str, limit: usize) -> Box<Problem> {
    let detail = format!("{what} is over the limit of {limit} bytes.");
    Box::new(Problem::new(Name::PayloadTooLarge, detail).with("limit_bytes", limit))
}

pub(super) fn unsupported_patch(detail: impl Into<String>) -> Box<Problem> {
    Box::new(Problem::new(Name::UnsupportedMediaType, detail).header(ACCEPT_PATCH, PATCHES))
}

pub(super) fn invalid(pointer: &str, reason: impl Into<String>) -> Box<Problem> {
    let reason = reason.into();
    let errors = serde_json::json!([{ "pointer": pointer, "reason": reason }]);
    Box::new(
        Problem::new(Name::ValidationFailed, format!("The body is not valid: {reason}."))
            .with("errors", errors),
    )
}

pub(super) fn not_found(resource: &Resource) -> Box<Problem> {
    Box::new(Problem::new(Name::NotFound, format!("There is nothing at {resource}.")))
}

pub(super) fn already_exists(resource: &Resource) -> Box<Problem> {
    let detail = format!("{resource} exists already.");
    Box::new(Problem::new(Name::AlreadyExists, detail).with("resource", resource.as_str()))
}

/// `exact` is false where there are more children than were counted.
pub(super) fn has_children(
    resource: &Resource,
    count: usize,
    exact: bool,
    first: &str,
) -> Box<Problem> {
    let at_least = if exact { "" } else { "at least " };
    let children = if count == 1 { "child" } else { "children" };
    let detail = format!(
        "{resource} has {at_least}{count} {children}, {first} the first. \
         `?recursive=true` deletes them as well."
    );
    Box::new(Problem::new(Name::HasChildren, detail).with("count", count).with("first", first))
}

pub(super) fn patch_conflict(operation: usize, pointer: &str, reason: &str) -> Box<Problem> {
    let detail = format!("Operation {operation} of the patch does not apply: {reason}.");
    Box::new(
        Problem::new(Name::PatchConflict, detail)
            .with("operation", operation)
            .with("pointer", pointer),
    )
}

pub(super) fn precondition_failed(resource: &Resource, etag: Option<&str>) -> Box<Problem> {
    let detail = match etag {
        Some(etag) => format!("{resource} is at {etag}, which is not what the request asks for."),
        None => format!("There is no document at {resource}, which the request asks for."),
    };
    let mut problem = Problem::new(Name::PreconditionFailed, detail)
        .with("etag", etag.map_or(serde_json::Value::Null, Into::into));
    if let Some(etag) = etag {
        problem = problem.header(ETAG, value(etag));
    }
    Box::new(problem)
}

pub(super) fn storage(failure: StorageFailure) -> Box<Problem> {
    let problem = match failure {
        StorageFailure::Unknown => Problem::new(
            Name::StorageFailure,
            "Storage failed; whether the write took effect is not known.",
        ),
        StorageFailure::NotDone => Problem::new(
            Name::Unavailable,
            "Storage is not available; the request was not carried out.",
        ),
    };
    Box::new(Problem { retryable: Some(Retryable::Same), ..problem.retry_after(1) })
}
