//! 400: requests that cannot be understood.

use http::StatusCode;

use super::{Entry, Name, Retryable, Type, not, rfc, sometimes};

pub(super) static MALFORMED_REQUEST: Entry = Entry {
    name: "malformed-request",
    status: StatusCode::BAD_REQUEST,
    title: "Malformed request",
    retryable: Retryable::No,
    meaning: "The request could not be understood: its path, a header field, a query parameter \
              or its body is not written the way it has to be. Nothing was looked up or changed.",
    sent_when: &[
        "The path has an empty segment (`//`), a `.` or `..` segment, an encoded slash, a \
         backslash, a broken escape, a control character or bytes that are not UTF-8, or it is \
         longer than 2,048 bytes or 64 segments.",
        "A body that has to be a JSON object is broken JSON, is something else than an object, \
         has a field that is not known, or a field of the wrong type.",
        "A header field such as `X-Lock-Token`, `If`, `Prefer` or `Idempotency-Key` breaks its \
         syntax, or more than 256 tokens are sent.",
        "A query parameter such as `limit` or `cursor` is not one that the list can use.",
        "A break covers several locks and does not say which one it means by `lock_id`.",
        "`POST /-/locks` has both `resources` and `any_of`, or neither.",
        "`/-/check` does not say which request it is about, or says two things; or the proxy that \
         asks sends what is about a lock to the API.",
    ],
    caller: "Read `detail` and `field`: they name the part that is wrong. Correct it and send the \
             request again; sending the same bytes again cannot help.",
    operator: "Nothing is wrong with the server. If many callers get this after a change of a \
               proxy in front, look at whether the proxy rewrites paths, escapes or header fields.",
    confused_with: &[
        not(
            Name::ValidationFailed,
            "`validation-failed` (422) is for a request that is well formed and understood, whose \
             values break a rule.",
        ),
        not(
            Name::LockTokenRequired,
            "`lock-token-required` (400) is for a request to a lock endpoint that is fine but for \
             the token that it lacks.",
        ),
        not(
            Name::UriTooLong,
            "`uri-too-long` (414) is for a target so long that it is not even read; a path over \
             2,048 bytes that can still be read is this one.",
        ),
        not(
            Name::UnsupportedMediaType,
            "`unsupported-media-type` (415) is for a body in a format that the resource does not \
             take at all, however well it is written.",
        ),
    ],
    detail: "The body has a field that is not known here: `ttl`.",
    members: &[
        sometimes(
            "field",
            Type::Text,
            "The part of the request that is wrong: the name of a body field, header field or \
             query parameter, or `path`.",
            r#""ttl""#,
        ),
        sometimes(
            "locks",
            Type::Objects,
            "For a break that could mean several locks: those locks, to choose a `lock_id` from.",
            r#"[{ "lock_id": "0193b0a5-2f6e-7c3a-9d41-5b8f3c2e7a10", "resource": "/v1/flags" }]"#,
        ),
    ],
    headers: &[],
    follows: &[rfc(9110, "15.5.1", "400 Bad Request")],
};

pub(super) static LOCK_TOKEN_REQUIRED: Entry = Entry {
    name: "lock-token-required",
    status: StatusCode::BAD_REQUEST,
    title: "Lock token required",
    retryable: Retryable::No,
    meaning: "The request wants to do something that only the holder of a lock can do, and it \
              carries no token to prove that.",
    sent_when: &["A renewal, a release or a transfer comes without a token in `X-Lock-Token`, \
         `Lock-Token` or `If`."],
    caller: "Send the `lock_token` that the answer to your acquire contained, as \
             `X-Lock-Token: lock_…`. If you never acquired the lock, acquire it with \
             `POST {resource}/lock`; to end somebody else's lock, ask with \
             `POST {resource}/lock/request` or, with the permission, break it.",
    operator: "If the caller says that it does send the token, look for a proxy in front that \
               drops header fields it does not know, such as `X-Lock-Token`.",
    confused_with: &[
        not(
            Name::MalformedRequest,
            "`malformed-request` (400) is for a token that is there but breaks the syntax of its \
             header field, and for every other mistake in the writing of a request.",
        ),
        not(
            Name::InvalidLockToken,
            "`invalid-lock-token` (403) is for a token that was sent and is not one of this \
             server, or is for other resources.",
        ),
        not(
            Name::Locked,
            "`locked` (423) is for a write to a locked resource without the token; this one is \
             for the lock endpoints.",
        ),
        not(
            Name::PreconditionRequired,
            "`precondition-required` (428) is for a write where a rule asks for a token or an \
             `If-Match`, locked or not.",
        ),
    ],
    detail: "To renew the lock of /v1/flags/feature-x, send its token in X-Lock-Token.",
    members: &[],
    headers: &[],
    follows: &[rfc(9110, "15.5.1", "400 Bad Request"), rfc(4918, "9.11", "UNLOCK Method")],
};
