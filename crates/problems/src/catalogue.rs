//! The catalogue: every refusal by name.

use http::StatusCode;

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
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Same => "same",
            Self::AfterChange => "after-change",
        }
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
}

macro_rules! catalogue {
    ($($variant:ident $name:literal $status:ident $title:literal $retryable:ident;)*) => {
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
                    $(Self::$variant => &Entry {
                        name: $name,
                        status: StatusCode::$status,
                        title: $title,
                        retryable: Retryable::$retryable,
                    },)*
                }
            }
        }
    };
}

catalogue! {
    MalformedRequest "malformed-request" BAD_REQUEST "Malformed request" No;
    LockTokenRequired "lock-token-required" BAD_REQUEST "Lock token required" No;
    Unauthenticated "unauthenticated" UNAUTHORIZED "Unauthenticated" No;
    Forbidden "forbidden" FORBIDDEN "Forbidden" No;
    InvalidLockToken "invalid-lock-token" FORBIDDEN "Invalid lock token" No;
    NotTheHolder "not-the-holder" FORBIDDEN "Not the holder" No;
    NotFound "not-found" NOT_FOUND "Not found" No;
    NotLockable "not-lockable" NOT_FOUND "Not lockable" No;
    MethodNotAllowed "method-not-allowed" METHOD_NOT_ALLOWED "Method not allowed" No;
    AlreadyExists "already-exists" CONFLICT "Already exists" AfterChange;
    HasChildren "has-children" CONFLICT "Has children" AfterChange;
    PatchConflict "patch-conflict" CONFLICT "Patch conflict" AfterChange;
    InvalidTransition "invalid-transition" CONFLICT "Invalid transition" AfterChange;
    LockChanged "lock-changed" CONFLICT "Lock changed" AfterChange;
    Deadlock "deadlock" CONFLICT "Deadlock" AfterChange;
    IdempotencyInProgress "idempotency-in-progress" CONFLICT "Still being decided" Same;
    LockGone "lock-gone" GONE "Lock gone" No;
    PreconditionFailed "precondition-failed" PRECONDITION_FAILED "Precondition failed" AfterChange;
    LockLost "lock-lost" PRECONDITION_FAILED "Lock lost" AfterChange;
    LockMismatch "lock-mismatch" PRECONDITION_FAILED "Lock mismatch" AfterChange;
    PayloadTooLarge "payload-too-large" PAYLOAD_TOO_LARGE "Payload too large" No;
    UriTooLong "uri-too-long" URI_TOO_LONG "URI too long" No;
    UnsupportedMediaType "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "Unsupported media type" No;
    ValidationFailed "validation-failed" UNPROCESSABLE_ENTITY "Validation failed" AfterChange;
    TtlOutOfRange "ttl-out-of-range" UNPROCESSABLE_ENTITY "TTL out of range" AfterChange;
    WaitOutOfRange "wait-out-of-range" UNPROCESSABLE_ENTITY "Wait out of range" AfterChange;
    IdempotencyKeyReused "idempotency-key-reused" UNPROCESSABLE_ENTITY "Idempotency key reused" No;
    Locked "locked" LOCKED "Locked" Same;
    Frozen "frozen" LOCKED "Frozen" Same;
    PreconditionRequired "precondition-required" PRECONDITION_REQUIRED "Precondition required" AfterChange;
    RateLimited "rate-limited" TOO_MANY_REQUESTS "Rate limited" Same;
    QueueFull "queue-full" TOO_MANY_REQUESTS "Queue full" Same;
    TooManyLocks "too-many-locks" TOO_MANY_REQUESTS "Too many locks" Same;
    UpstreamUnreachable "upstream-unreachable" BAD_GATEWAY "Upstream unreachable" Same;
    Unavailable "unavailable" SERVICE_UNAVAILABLE "Unavailable" Same;
    StorageFailure "storage-failure" SERVICE_UNAVAILABLE "Storage failure" Same;
    UpstreamTimeout "upstream-timeout" GATEWAY_TIMEOUT "Upstream timeout" No;
}
