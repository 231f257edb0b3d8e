//! What a refusal says: the problem document (RFC 9457), typed by the server's own catalogue.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use leasehold_problems::{Name, Retryable};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

/// A refusal of the server.
///
/// Decide by [`name`](Self::name), never by the text. A server newer than this client may send a
/// name that it does not know: then `name` is none, and [`name_text`](Self::name_text) has it.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    name: String,
    retryable: Retryable,
    retry_after: Option<Duration>,
    etag: Option<String>,
    members: Map<String, Value>,
}

/// The name of an answer that is no problem document: RFC 9457, section 4.2.1.
const BLANK: &str = "about:blank";

/// The longest `Retry-After` that is believed.
const RETRY_AFTER_MAX: u64 = 24 * 60 * 60;

impl Problem {
    /// Reads a refusal. What is no problem document (a proxy's page, an empty body) is one
    /// without a name.
    pub(crate) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let field =
            |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        let media = field(http::header::CONTENT_TYPE).unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim();
        let members = media
            .eq_ignore_ascii_case(leasehold_problems::PROBLEM_JSON)
            .then(|| serde_json::from_slice::<Map<String, Value>>(body).ok())
            .flatten()
            .unwrap_or_default();
        let name = members
            .get("type")
            .and_then(Value::as_str)
            .and_then(|kind| kind.rsplit('/').next())
            .filter(|name| !name.is_empty() && name.len() <= 128)
            .unwrap_or(BLANK)
            .to_owned();
        let said = members.get("retryable").and_then(Value::as_str);
        let retryable = Retryable::ALL
            .iter()
            .copied()
            .find(|word| Some(word.as_str()) == said)
            .or_else(|| Some(Name::parse(&name)?.entry().retryable))
            .unwrap_or(match status.as_u16() {
                408 | 423 | 425 | 429 | 502..=504 => Retryable::Same,
                409 | 412 => Retryable::AfterChange,
                _ => Retryable::No,
            });
        let retry_after = field(http::header::RETRY_AFTER)
            .and_then(|text| text.trim().parse().ok())
            .map(|seconds: u64| Duration::from_secs(seconds.min(RETRY_AFTER_MAX)));
        let etag = field(http::header::ETAG).map(str::to_owned);
        Self { status, name, retryable, retry_after, etag, members }
    }

    /// Which refusal of the catalogue it is; none for a name that this client does not know.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        Name::parse(&self.name)
    }

    /// The name as it was sent: `locked`. `about:blank` for an answer that was no problem
    /// document.
    #[must_use]
    pub fn name_text(&self) -> &str {
        &self.name
    }

    /// Whether it is this one.
    #[must_use]
    pub fn is(&self, name: Name) -> bool {
        self.name() == Some(name)
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// A short title, the same every time.
    #[must_use]
    pub fn title(&self) -> &str {
        self.text("title").or(self.status.canonical_reason()).unwrap_or("Refused")
    }

    /// A sentence about this very refusal.
    #[must_use]
    pub fn detail(&self) -> &str {
        self.text("detail").unwrap_or_default()
    }

    /// The path that was asked for.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.text("instance")
    }

    /// The id of the request, as the server's log and trail have it.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.text("request_id")
    }

    /// What a repetition would do: nothing, work later, or need a change.
    #[must_use]
    pub fn retryable(&self) -> Retryable {
        self.retryable
    }

    /// Whether the same request, unchanged, may work later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable == Retryable::Same
    }

    /// Whether it is certain that the request changed nothing.
    ///
    /// All refusals are such, but for those where the server, or what stands before it, does not
    /// know how far the request got: `storage-failure`, those of an upstream that got the request,
    /// and the 5xx without a name.
    #[must_use]
    pub fn has_no_side_effects(&self) -> bool {
        match self.name.as_str() {
            // "Nothing was done."
            "unavailable" => true,
            "upstream-unreachable" => {
                self.typed::<String>("outcome").as_deref() == Some("not_sent")
            }
            _ => self.status.is_client_error() && self.status != StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// When to ask again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// `locked`: the lock in the way that ends last.
    #[must_use]
    pub fn lock(&self) -> Option<LockInTheWay> {
        self.typed("lock")
    }

    /// `locked`: who holds the lock in the way, where that is told.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.members.get("lock")?.get("holder")?.as_str()
    }

    /// `locked`: whether the lock in the way is the caller's own.
    #[must_use]
    pub fn held_by_you(&self) -> bool {
        self.members.get("held_by_you").and_then(Value::as_bool).unwrap_or(false)
    }

    /// `locked`: how many earlier waiters stand before.
    #[must_use]
    pub fn queue_ahead(&self) -> Option<u64> {
        self.number("queue_ahead")
    }

    /// `locked`: how many writes under way are in the way.
    #[must_use]
    pub fn writes_in_flight(&self) -> Option<u64> {
        self.number("writes_in_flight")
    }

    /// `locked`: how long the acquire waited.
    #[must_use]
    pub fn waited(&self) -> Option<Duration> {
        self.number("waited_ms").map(Duration::from_millis)
    }

    /// `frozen`: the freeze.
    #[must_use]
    pub fn freeze(&self) -> Option<crate::lock::Freeze> {
        self.typed("freeze")
    }

    /// `ttl-out-of-range`: the longest TTL.
    #[must_use]
    pub fn max_ttl(&self) -> Option<Duration> {
        self.seconds("max_ttl_seconds")
    }

    /// `ttl-out-of-range` of a renewal: the longest life of a lock.
    #[must_use]
    pub fn max_hold(&self) -> Option<Duration> {
        self.seconds("max_hold_seconds")
    }

    /// `wait-out-of-range`: the longest wait.
    #[must_use]
    pub fn max_wait(&self) -> Option<Duration> {
        self.seconds("max_wait_seconds")
    }

    /// `precondition-failed`: the `ETag` as it is now.
    #[must_use]
    pub fn etag(&self) -> Option<&str> {
        self.text("etag").or(self.etag.as_deref())
    }

    /// `deadlock`: who waits for whom, from the caller round to the caller.
    #[must_use]
    pub fn circle(&self) -> Vec<Waits> {
        self.typed("circle").unwrap_or_default()
    }

    /// `lock-gone`, `lock-lost`: how the lock ended.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.members.contains_key("ended").then(|| {
            serde_json::from_value(Value::Object(self.members.clone())).unwrap_or_default()
        })
    }

    /// `lock-changed`: how much longer a lock lives that is being broken.
    #[must_use]
    pub fn ends_in(&self) -> Option<Duration> {
        self.number("ends_in_ms").map(Duration::from_millis)
    }

    /// `malformed-request`: which field.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.text("field")
    }

    /// `forbidden`: the permission that is lacking.
    #[must_use]
    pub fn permission(&self) -> Option<&str> {
        self.text("permission")
    }

    /// `validation-failed`: what is wrong, and where.
    #[must_use]
    pub fn errors(&self) -> Vec<Invalid> {
        self.typed("errors").unwrap_or_default()
    }

    /// Of a batch: which operation was refused, from 0.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        self.number("index").and_then(|index| usize::try_from(index).ok())
    }

    /// Any member of the document.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    /// All members of the document, as they were sent.
    #[must_use]
    pub fn members(&self) -> &Map<String, Value> {
        &self.members
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name)?.as_str()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.members.get(name)?.as_u64()
    }

    fn seconds(&self, name: &str) -> Option<Duration> {
        Duration::try_from_secs_f64(self.members.get(name)?.as_f64()?).ok()
    }

    fn typed<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_value(self.members.get(name)?.clone()).ok()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = self.detail();
        if detail.is_empty() {
            write!(f, "the server answered {}", self.status)
        } else {
            write!(f, "{detail} ({} {})", self.status.as_u16(), self.name)
        }
    }
}

/// A lock that is in the way.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct LockInTheWay {
    /// Its id; none of one that is about to be granted.
    #[serde(default)]
    pub lock_id: Option<Uuid>,
    /// What it locks.
    #[serde(default)]
    pub resource: Option<String>,
    /// `lock`, or `pending`: about to be granted.
    #[serde(default)]
    pub kind: String,
    /// Through which protocol it was taken.
    #[serde(default)]
    pub dialect: String,
    /// `exclusive` or `shared`.
    #[serde(default)]
    pub mode: String,
    /// Who holds it, where that is told.
    #[serde(default)]
    pub holder: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Since when.
    #[serde(default)]
    pub acquired_at: Option<Timestamp>,
    /// Until when, by the wall clock: for people.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// For how much longer, in milliseconds.
    #[serde(default)]
    pub expires_in_ms: Option<u64>,
}

/// One step of a circle of waiters.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Waits {
    /// Who waits, where that is told.
    #[serde(default)]
    pub waiter: Option<String>,
    /// For what.
    #[serde(default)]
    pub resource: String,
    /// For whom, where that is told.
    #[serde(default)]
    pub behind: Option<String>,
    /// The lock that one holds.
    #[serde(default)]
    pub lock_id: Option<Uuid>,
}

/// How a lock ended.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
pub struct Ended {
    /// `expired`, `released`, `broken`, `transferred`, `deleted`, or `unknown`.
    #[serde(rename = "ended", default)]
    pub how: String,
    /// When, where that is remembered.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// Who broke it.
    #[serde(default)]
    pub by: Option<String>,
    /// Why it was broken.
    #[serde(default)]
    pub reason: Option<String>,
}

/// One thing that is wrong with a body.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Invalid {
    /// Where, as a JSON pointer.
    #[serde(default)]
    pub pointer: String,
    /// What.
    #[serde(default)]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{CONTENT_TYPE, RETRY_AFTER};
    use serde_json::json;

    use super::*;

    fn read(status: u16, media: &'static str, body: &str) -> Problem {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        Problem::read(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
    }

    #[test]
    fn every_name_of_the_catalogue_is_known_with_what_the_catalogue_says_of_it() {
        for name in Name::ALL {
            let entry = name.entry();
            let body = json!({ "type": format!("/-/problems/{name}") }).to_string();
            let problem = read(entry.status.as_u16(), "application/problem+json", &body);
            assert_eq!(problem.name(), Some(*name));
            assert_eq!(problem.retryable(), entry.retryable, "{name}");
            let is_known = !matches!(
                name,
                Name::StorageFailure | Name::UpstreamUnreachable | Name::UpstreamTimeout
            );
            assert_eq!(problem.has_no_side_effects(), is_known, "{name}");
            assert_eq!(problem.retry_after(), Some(Duration::from_secs(7)));
        }
    }

    #[test]
    fn an_upstream_that_was_not_reached_has_changed_nothing() {
        for (outcome, harmless) in [("not_sent", true), ("unknown", false)] {
            let body = json!({ "type": "/-/problems/upstream-unreachable", "outcome": outcome });
            let problem = read(502, "application/problem+json", &body.to_string());
            assert_eq!(problem.has_no_side_effects(), harmless, "{outcome}");
        }
    }

    #[test]
    fn what_is_no_problem_document_is_judged_by_its_status() {
        for (status, media, body, retryable, harmless) in [
            (502, "text/html", "<h1>Bad gateway</h1>", true, false),
            (503, "application/problem+json", "{\"type\":", true, false),
            (503, "application/problem+json", "[]", true, false),
            (400, "text/plain", "", false, true),
            (423, "application/json", "{\"type\": \"/-/problems/frozen\"}", true, true),
        ] {
            let problem = read(status, media, body);
            assert_eq!(problem.name(), None, "{body}");
            assert_eq!(problem.name_text(), "about:blank", "{body}");
            assert_eq!(problem.is_retryable(), retryable, "{body}");
            assert_eq!(problem.has_no_side_effects(), harmless, "{body}");
            assert!(problem.to_string().contains(&status.to_string()), "{problem}");
        }
    }

    #[test]
    fn an_unknown_name_is_kept_and_the_document_says_whether_it_can_be_retried() {
        let body =
            r#"{"type": "https://x/-/problems/too-hot", "retryable": "same", "detail": "Hm."}"#;
        let problem = read(418, "application/problem+json; charset=utf-8", body);
        assert_eq!((problem.name(), problem.name_text()), (None, "too-hot"));
        assert!(problem.is_retryable());
        assert_eq!(problem.to_string(), "Hm. (418 too-hot)");
    }

    #[test]
    fn members_of_the_wrong_type_are_as_if_absent() {
        let body = r#"{"type": "/-/problems/locked", "lock": [1], "queue_ahead": "x",
                       "circle": {}, "max_ttl_seconds": -1, "ended": 5}"#;
        let problem = read(423, "application/problem+json", body);
        assert!(problem.lock().is_none());
        assert!(problem.queue_ahead().is_none());
        assert!(problem.circle().is_empty());
        assert!(problem.max_ttl().is_none());
        assert_eq!(problem.ended(), Some(Ended::default()));
    }
}
