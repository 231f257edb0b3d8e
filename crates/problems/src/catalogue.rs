//! The catalogue: every refusal by name, and all there is to know about it.
//!
//! The prose is written for someone who meets the name for the first time. Words between
//! backticks are code; each page renders them its own way. The entries themselves are in the
//! modules below, one for each group of statuses.

use http::StatusCode;

mod content;
mod identity;
mod limit;
mod locked;
mod precondition;
mod request;
mod state;
mod upstream;

/// Whether the same request may work later.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Retryable {
    /// It will not.
    No,
    /// It may, unchanged.
    Same,
    /// Only after reading again and changing it.
    AfterChange,
}

impl Retryable {
    /// Every value.
    pub const ALL: &[Self] = &[Self::No, Self::Same, Self::AfterChange];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Same => "same",
            Self::AfterChange => "after-change",
        }
    }

    /// What the word says, as a sentence.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::No => "The same request will be refused again.",
            Self::Same => "The same request, unchanged, may work later.",
            Self::AfterChange => "Read the current state again, then send a changed request.",
        }
    }
}

/// The type of a member of a problem document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type {
    /// A string.
    Text,
    /// A string, or null.
    TextOrNull,
    /// A whole number.
    Integer,
    /// A number, fractions allowed.
    Number,
    /// True or false.
    Boolean,
    /// A point in time: RFC 3339, UTC, three decimals.
    Time,
    /// An object.
    Object,
    /// An object, or null.
    ObjectOrNull,
    /// An array of strings.
    Texts,
    /// An array of objects.
    Objects,
}

impl Type {
    /// The type in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::TextOrNull => "string or null",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Time => "time (RFC 3339)",
            Self::Object => "object",
            Self::ObjectOrNull => "object or null",
            Self::Texts => "array of strings",
            Self::Objects => "array of objects",
        }
    }
}

/// A member that a problem document carries beside those that all have.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Whether every answer of this name carries it.
    pub always: bool,
    /// What it tells.
    pub meaning: &'static str,
    /// An example of its value, as JSON.
    pub example: &'static str,
}

/// A header field that the answer carries beside `Content-Type` and `Cache-Control`.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it tells.
    pub meaning: &'static str,
    /// An example of its value.
    pub example: &'static str,
}

/// Another refusal that this one is taken for.
#[derive(Clone, Copy, Debug)]
pub struct Confusion {
    /// The other one.
    pub name: Name,
    /// What the other one is for, in one sentence.
    pub difference: &'static str,
}

/// A section of an RFC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Section {
    /// The number of the RFC.
    pub rfc: u16,
    /// The number of the section.
    pub section: &'static str,
    /// The heading of the section.
    pub title: &'static str,
}

impl Section {
    /// Where to read it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://www.rfc-editor.org/rfc/rfc{}#section-{}", self.rfc, self.section)
    }
}

/// `RFC 9110, section 15.5.10 (409 Conflict)`.
impl std::fmt::Display for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RFC {}, section {} ({})", self.rfc, self.section, self.title)
    }
}

/// What the catalogue says of one refusal.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name: the last segment of its `type`.
    pub name: &'static str,
    /// The status it is answered with.
    pub status: StatusCode,
    /// A short title that does not change.
    pub title: &'static str,
    /// Whether the same request may work later.
    pub retryable: Retryable,
    /// What it means.
    pub meaning: &'static str,
    /// When it is sent: each case.
    pub sent_when: &'static [&'static str],
    /// How the caller fixes it.
    pub caller: &'static str,
    /// How the operator of the server fixes it.
    pub operator: &'static str,
    /// What it is taken for, and how the two differ.
    pub confused_with: &'static [Confusion],
    /// An example of its `detail`.
    pub detail: &'static str,
    /// The members it carries beside those that every problem has.
    pub members: &'static [Member],
    /// The header fields it carries.
    pub headers: &'static [Field],
    /// What it follows; the section that defines its status is the first.
    pub follows: &'static [Section],
}

macro_rules! catalogue {
    ($($variant:ident $entry:path;)*) => {
        /// The name of a refusal.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[allow(missing_docs)] // The catalogue itself says what each means.
        pub enum Name { $($variant,)* }

        impl Name {
            /// Every name, in the order of their status.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// What the catalogue says of it.
            #[must_use]
            pub const fn entry(self) -> &'static Entry {
                match self {
                    $(Self::$variant => &$entry,)*
                }
            }
        }
    };
}

catalogue! {
    MalformedRequest request::MALFORMED_REQUEST;
    LockTokenRequired request::LOCK_TOKEN_REQUIRED;
    Unauthenticated identity::UNAUTHENTICATED;
    Forbidden identity::FORBIDDEN;
    InvalidLockToken identity::INVALID_LOCK_TOKEN;
    NotTheHolder identity::NOT_THE_HOLDER;
    NotFound state::NOT_FOUND;
    NotLockable state::NOT_LOCKABLE;
    MethodNotAllowed state::METHOD_NOT_ALLOWED;
    AlreadyExists state::ALREADY_EXISTS;
    HasChildren state::HAS_CHILDREN;
    PatchConflict state::PATCH_CONFLICT;
    LockChanged state::LOCK_CHANGED;
    Deadlock state::DEADLOCK;
    IdempotencyInProgress state::IDEMPOTENCY_IN_PROGRESS;
    LockGone state::LOCK_GONE;
    PreconditionFailed precondition::PRECONDITION_FAILED;
    LockLost precondition::LOCK_LOST;
    LockMismatch precondition::LOCK_MISMATCH;
    PayloadTooLarge content::PAYLOAD_TOO_LARGE;
    UriTooLong content::URI_TOO_LONG;
    UnsupportedMediaType content::UNSUPPORTED_MEDIA_TYPE;
    ValidationFailed content::VALIDATION_FAILED;
    TtlOutOfRange content::TTL_OUT_OF_RANGE;
    WaitOutOfRange content::WAIT_OUT_OF_RANGE;
    IdempotencyKeyReused content::IDEMPOTENCY_KEY_REUSED;
    Locked locked::LOCKED;
    Frozen locked::FROZEN;
    PreconditionRequired precondition::PRECONDITION_REQUIRED;
    RateLimited limit::RATE_LIMITED;
    QueueFull limit::QUEUE_FULL;
    TooManyLocks limit::TOO_MANY_LOCKS;
    UpstreamUnreachable upstream::UPSTREAM_UNREACHABLE;
    Unavailable limit::UNAVAILABLE;
    StorageFailure limit::STORAGE_FAILURE;
    UpstreamTimeout upstream::UPSTREAM_TIMEOUT;
}

impl Name {
    /// The name that is written `text`, exactly: `lock-lost`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|name| name.as_str() == text)
    }

    /// The name as it is written: the last segment of its `type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.entry().name
    }

    /// The names whose status in the catalogue is `status`; none for any other status.
    pub fn by_status(status: u16) -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(move |name| name.entry().status.as_u16() == status)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A member that every answer of this name carries.
const fn always(
    name: &'static str,
    kind: Type,
    meaning: &'static str,
    example: &'static str,
) -> Member {
    Member { name, kind, always: true, meaning, example }
}

/// A member that some answers of this name carry.
const fn sometimes(
    name: &'static str,
    kind: Type,
    meaning: &'static str,
    example: &'static str,
) -> Member {
    Member { name, kind, always: false, meaning, example }
}

const fn field(name: &'static str, meaning: &'static str, example: &'static str) -> Field {
    Field { name, meaning, example }
}

const fn not(name: Name, difference: &'static str) -> Confusion {
    Confusion { name, difference }
}

const fn rfc(rfc: u16, section: &'static str, title: &'static str) -> Section {
    Section { rfc, section, title }
}

/// How a lock ended: the same members wherever that is told.
const ENDED: [Member; 4] = [
    always(
        "ended",
        Type::Text,
        "How the lock ended: `expired`, `released`, `broken`, `transferred`, `deleted`, or \
         `unknown` when it ended so long ago (24 hours or more) that it is not remembered.",
        r#""broken""#,
    ),
    sometimes(
        "ended_at",
        Type::Time,
        "When it ended, where that is remembered.",
        r#""2026-11-20T12:00:41.000Z""#,
    ),
    sometimes("by", Type::Text, "Who broke it, where it was broken.", r#""carol""#),
    sometimes(
        "reason",
        Type::Text,
        "Why it was broken, in the words of whoever did it.",
        r#""Rolling back the 12:00 release""#,
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The table of the wire contract: status, and the names that it is answered with.
    const CONTRACT: &[(u16, &[&str])] = &[
        (400, &["malformed-request", "lock-token-required"]),
        (401, &["unauthenticated"]),
        (403, &["forbidden", "invalid-lock-token", "not-the-holder"]),
        (404, &["not-found", "not-lockable"]),
        (405, &["method-not-allowed"]),
        (
            409,
            &[
                "already-exists",
                "has-children",
                "patch-conflict",
                "lock-changed",
                "deadlock",
                "idempotency-in-progress",
            ],
        ),
        (410, &["lock-gone"]),
        (412, &["precondition-failed", "lock-lost", "lock-mismatch"]),
        (413, &["payload-too-large"]),
        (414, &["uri-too-long"]),
        (415, &["unsupported-media-type"]),
        (
            422,
            &[
                "validation-failed",
                "ttl-out-of-range",
                "wait-out-of-range",
                "idempotency-key-reused",
            ],
        ),
        (423, &["locked", "frozen"]),
        (428, &["precondition-required"]),
        (429, &["rate-limited", "queue-full", "too-many-locks"]),
        (502, &["upstream-unreachable"]),
        (503, &["unavailable", "storage-failure"]),
        (504, &["upstream-timeout"]),
    ];

    #[test]
    fn each_status_has_exactly_the_names_of_the_contract() {
        for (status, names) in CONTRACT {
            let found: Vec<_> = Name::by_status(*status).map(Name::as_str).collect();
            assert_eq!(found, *names, "{status}");
        }
        let contracted: usize = CONTRACT.iter().map(|(_, names)| names.len()).sum();
        assert_eq!(Name::ALL.len(), contracted);
        assert_eq!(Name::by_status(200).count(), 0);
    }

    #[test]
    fn names_are_unique_kebab_case_and_can_be_parsed_again() {
        let mut seen = HashSet::new();
        for name in Name::ALL {
            let text = name.as_str();
            assert!(seen.insert(text), "{text} is there twice");
            assert!(
                text.split('-').all(|word| {
                    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase())
                }),
                "{text}"
            );
            assert_eq!(Name::parse(text), Some(*name));
        }
        for unknown in ["", "Locked", "locked ", "no-such-name"] {
            assert_eq!(Name::parse(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn names_are_in_the_order_of_their_status() {
        assert!(Name::ALL.is_sorted_by_key(|name| name.entry().status));
    }

    #[test]
    fn every_entry_is_complete() {
        let sentence = |text: &str, what: &str, name: &Name| {
            assert!(text.len() > 15, "{name}: {what} is too short: {text:?}");
            assert!(text.ends_with('.'), "{name}: {what} is no sentence: {text:?}");
            assert!(!text.contains("  "), "{name}: {what} has two spaces: {text:?}");
            assert_eq!(text.matches('`').count() % 2, 0, "{name}: {what}: {text:?}");
        };
        for name in Name::ALL {
            let entry = name.entry();
            assert!(!entry.title.is_empty(), "{name}");
            sentence(entry.meaning, "meaning", name);
            assert!(!entry.sent_when.is_empty(), "{name}");
            for case in entry.sent_when {
                sentence(case, "sent_when", name);
            }
            sentence(entry.caller, "caller", name);
            sentence(entry.operator, "operator", name);
            sentence(entry.detail, "detail", name);
            assert!(!entry.confused_with.is_empty(), "{name}");
            for confusion in entry.confused_with {
                sentence(confusion.difference, "difference", name);
            }
            for member in entry.members {
                sentence(member.meaning, member.name, name);
                assert!(
                    serde_json::from_str::<serde_json::Value>(member.example).is_ok(),
                    "{name}: the example of {} is no JSON",
                    member.name
                );
            }
            for field in entry.headers {
                sentence(field.meaning, field.name, name);
                assert!(http::HeaderName::try_from(field.name).is_ok(), "{name}");
                assert!(http::HeaderValue::try_from(field.example).is_ok(), "{name}");
            }
            assert!(!entry.follows.is_empty(), "{name}");
            let status = entry.status.as_str();
            assert!(entry.follows[0].title.starts_with(status), "{name}: {}", entry.follows[0]);
        }
    }

    #[test]
    fn confusions_are_mutual_and_never_with_oneself() {
        for name in Name::ALL {
            let mut seen = HashSet::new();
            for confusion in name.entry().confused_with {
                assert_ne!(confusion.name, *name);
                assert!(seen.insert(confusion.name), "{name} lists {} twice", confusion.name);
                assert!(
                    confusion.name.entry().confused_with.iter().any(|back| back.name == *name),
                    "{name} is confused with {}, and not the other way round",
                    confusion.name
                );
            }
        }
    }

    #[test]
    fn the_members_that_the_contract_names_are_there() {
        for (name, members) in [
            (Name::MalformedRequest, &["field"][..]),
            (Name::Forbidden, &["permission"]),
            (Name::AlreadyExists, &["resource"]),
            (Name::HasChildren, &["count", "first"]),
            (Name::PatchConflict, &["operation", "pointer"]),
            (Name::LockChanged, &["ends_at", "by", "reason"]),
            (Name::Deadlock, &["circle"]),
            (Name::LockGone, &["ended", "ended_at", "by", "reason"]),
            (Name::PreconditionFailed, &["etag"]),
            (Name::LockLost, &["ended", "ended_at", "by", "reason"]),
            (Name::ValidationFailed, &["errors"]),
            (Name::TtlOutOfRange, &["max_ttl_seconds", "max_hold_seconds"]),
            (
                Name::Locked,
                &[
                    "lock",
                    "locks_in_the_way",
                    "held_by_you",
                    "how_to_unlock",
                    "presented",
                    "queue_ahead",
                    "waited_ms",
                    "writes_in_flight",
                ],
            ),
            (Name::Frozen, &["freeze", "how_to_unlock"]),
        ] {
            let found: Vec<_> = name.entry().members.iter().map(|member| member.name).collect();
            for member in members {
                assert!(found.contains(member), "{name} has no `{member}`");
            }
        }
    }

    #[test]
    fn whoever_may_retry_the_same_request_is_told_when() {
        for name in Name::ALL.iter().filter(|name| name.entry().retryable == Retryable::Same) {
            let headers = name.entry().headers;
            assert!(headers.iter().any(|field| field.name == "Retry-After"), "{name}");
        }
    }
}
