//! 413, 414, 415 and 422: requests that are too big, of the wrong kind, or against a rule.

use http::StatusCode;

use super::{Entry, Name, Retryable, Type, always, field, not, rfc, sometimes};

pub(super) static PAYLOAD_TOO_LARGE: Entry = Entry {
    name: "payload-too-large",
    status: StatusCode::PAYLOAD_TOO_LARGE,
    title: "Payload too large",
    retryable: Retryable::No,
    meaning: "The body of the request is larger than what is taken here.",
    sent_when: &[
        "The body of a request to a lock endpoint is over 64 KiB.",
        "A document, or what a patch would make of it, is over `max_document` (16 MiB unless \
         configured).",
        "The body of a batch is over 16 MiB.",
    ],
    caller: "Send less: split the document, or split the batch. Keep large data elsewhere and \
             store a reference to it.",
    operator: "The limit for documents is `max_document` under `[limits]`. The limit of the lock \
               endpoints is fixed.",
    confused_with: &[
        not(
            Name::ValidationFailed,
            "`validation-failed` (422) is for one value that is too long, such as a `reason` over \
             1,024 bytes, in a body that could be read.",
        ),
        not(
            Name::UriTooLong,
            "`uri-too-long` (414) is about the length of the request target, not of the body.",
        ),
    ],
    detail: "The body of an acquire is at most 65536 bytes.",
    members: &[sometimes("limit_bytes", Type::Integer, "How many bytes are taken here.", "65536")],
    headers: &[],
    follows: &[rfc(9110, "15.5.14", "413 Content Too Large")],
};

pub(super) static URI_TOO_LONG: Entry = Entry {
    name: "uri-too-long",
    status: StatusCode::URI_TOO_LONG,
    title: "URI too long",
    retryable: Retryable::No,
    meaning: "The request target (path and query) is so long that the server does not read it.",
    sent_when: &["The first line of the request is longer than the server reads."],
    caller: "Shorten the path and the query. A path is at most 2,048 bytes; what does not fit into \
             a query belongs into a body.",
    operator: "Nothing needs to be done. If it comes unexpectedly, look for a client or proxy that \
               appends to the query on each redirect.",
    confused_with: &[
        not(
            Name::MalformedRequest,
            "`malformed-request` (400) is for a path over 2,048 bytes that could still be read.",
        ),
        not(Name::PayloadTooLarge, "`payload-too-large` (413) is about the body of the request."),
    ],
    detail: "The request target is too long to be read.",
    members: &[],
    headers: &[],
    follows: &[rfc(9110, "15.5.15", "414 URI Too Long")],
};

pub(super) static UNSUPPORTED_MEDIA_TYPE: Entry = Entry {
    name: "unsupported-media-type",
    status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
    title: "Unsupported media type",
    retryable: Retryable::No,
    meaning: "The body is in a format that this request cannot use.",
    sent_when: &[
        "`PATCH` has no media type, or another than `application/merge-patch+json`, \
         `application/json-patch+json` or `application/json`.",
        "`PATCH` names a document that is not JSON.",
        "The body of a write to a document is compressed (`Content-Encoding`).",
    ],
    caller: "Send the patch with one of the media types in `Accept-Patch`; `application/json` is \
             read as a merge patch. A document that is not JSON can only be replaced whole, with \
             `PUT`. Send bodies as they are, not compressed.",
    operator: "Nothing needs to be done. A document that should be JSON and is not was stored with \
               another `Content-Type`; store it again with `application/json`.",
    confused_with: &[
        not(
            Name::MalformedRequest,
            "`malformed-request` (400) is for a body of the right type that is not written right.",
        ),
        not(
            Name::PatchConflict,
            "`patch-conflict` (409) is for a patch in a known format that does not fit the \
             document as it is now.",
        ),
    ],
    detail: "A patch of type text/plain cannot be applied.",
    members: &[],
    headers: &[
        field(
            "Accept-Patch",
            "For a patch: the media types that `PATCH` takes.",
            "application/merge-patch+json, application/json-patch+json, application/json",
        ),
        field(
            "Accept-Encoding",
            "For a body that is compressed: the encodings that are taken, which is none.",
            "identity",
        ),
    ],
    follows: &[
        rfc(9110, "15.5.16", "415 Unsupported Media Type"),
        rfc(5789, "2.2", "Error Handling"),
    ],
};

pub(super) static VALIDATION_FAILED: Entry = Entry {
    name: "validation-failed",
    status: StatusCode::UNPROCESSABLE_ENTITY,
    title: "Validation failed",
    retryable: Retryable::AfterChange,
    meaning: "The request is well formed and was understood, but values in it are not allowed.",
    sent_when: &[
        "A lock's `reason` is over 1,024 bytes, or its `metadata` over 4,096 bytes as JSON.",
        "A freeze lacks `reason` or `until`.",
        "The `id` in the body of a `POST` to a collection is not a string that can be one segment \
         of a path.",
        "The `to` of a transfer is empty or over 255 bytes, or a `message` over 1,024 bytes.",
    ],
    caller: "Go through `errors`: each names a place in the body and what is wrong there. Correct \
             them all and send the request again.",
    operator: "Nothing needs to be done.",
    confused_with: &[
        not(
            Name::MalformedRequest,
            "`malformed-request` (400) is for a body that is not JSON, or has fields or types that \
             are not known.",
        ),
        not(
            Name::TtlOutOfRange,
            "`ttl-out-of-range` (422) is for a time that is too short or too long; its limits \
             depend on the rule.",
        ),
        not(
            Name::PatchConflict,
            "`patch-conflict` (409) is for a patch that could apply, but not to the document as \
             it is now.",
        ),
        not(
            Name::PayloadTooLarge,
            "`payload-too-large` (413) is for a body that is too large as a whole.",
        ),
    ],
    detail: "The reason is 1,301 bytes long; at most 1,024 are kept.",
    members: &[always(
        "errors",
        Type::Objects,
        "What is wrong: for each mistake a `pointer` (JSON Pointer into the body) and a `reason`.",
        r#"[{ "pointer": "/reason", "reason": "is longer than 1,024 bytes" }]"#,
    )],
    headers: &[],
    follows: &[rfc(9110, "15.5.21", "422 Unprocessable Content")],
};

pub(super) static TTL_OUT_OF_RANGE: Entry = Entry {
    name: "ttl-out-of-range",
    status: StatusCode::UNPROCESSABLE_ENTITY,
    title: "TTL out of range",
    retryable: Retryable::AfterChange,
    meaning: "The time asked for is shorter or longer than what is allowed. Every lock and every \
              freeze has an end, and the longest allowed time keeps a forgotten one from staying.",
    sent_when: &[
        "`ttl_seconds` is below 1 or above the rule's `max_ttl` (1,800 s unless configured).",
        "A renewal comes when the lock has reached the longest life that the rule allows \
         (`max_hold`, 24 h unless configured).",
        "The `until` of a freeze is not in the future, or more than 366 days away.",
    ],
    caller: "Ask for at most `max_ttl_seconds` and renew while you work: a short TTL that is \
             renewed frees the resource soon if your program dies. At `max_hold_seconds`, \
             release, acquire anew and read again, so that others get their turn.",
    operator: "Raise `max_ttl` or `max_hold` in the `[[rule]]` for these resources, if the work \
               really takes longer.",
    confused_with: &[
        not(
            Name::ValidationFailed,
            "`validation-failed` (422) is for every other value that is not allowed.",
        ),
        not(
            Name::WaitOutOfRange,
            "`wait-out-of-range` (422) is about how long to wait for the lock, not how long to \
             hold it.",
        ),
    ],
    detail: "A lock on /v1/flags/feature-x lasts at least 1 s and at most 1800 s.",
    members: &[
        sometimes(
            "max_ttl_seconds",
            Type::Number,
            "The longest TTL that the rule for the resource allows.",
            "1800",
        ),
        sometimes(
            "max_hold_seconds",
            Type::Number,
            "For a renewal at the end of the longest life: that life.",
            "86400",
        ),
    ],
    headers: &[],
    follows: &[rfc(9110, "15.5.21", "422 Unprocessable Content")],
};

pub(super) static WAIT_OUT_OF_RANGE: Entry = Entry {
    name: "wait-out-of-range",
    status: StatusCode::UNPROCESSABLE_ENTITY,
    title: "Wait out of range",
    retryable: Retryable::AfterChange,
    meaning: "The request wants to wait for a lock for longer than the server lets anyone wait.",
    sent_when: &[
        "`?wait=` is above the rule's `max_wait` (30 s unless configured). `Prefer: wait=` is \
         never refused for that: it is cut to the longest wait, as a preference may be.",
    ],
    caller: "Ask for a shorter wait, or send it as `Prefer: wait=SECONDS` and look at \
             `Preference-Applied`. To wait longer, ask again with the same `Idempotency-Key` \
             within 5 seconds: your place in the queue is kept.",
    operator: "Raise `max_wait` in the `[[rule]]`. Each waiting request keeps a connection open, \
               and proxies in front often close one that is silent for 60 s.",
    confused_with: &[not(
        Name::TtlOutOfRange,
        "`ttl-out-of-range` (422) is about how long the lock is held once it is granted.",
    )],
    detail: "An acquire waits at most 30 s here.",
    members: &[],
    headers: &[],
    follows: &[
        rfc(9110, "15.5.21", "422 Unprocessable Content"),
        rfc(7240, "4.3", "The \"wait\" Preference"),
    ],
};

pub(super) static IDEMPOTENCY_KEY_REUSED: Entry = Entry {
    name: "idempotency-key-reused",
    status: StatusCode::UNPROCESSABLE_ENTITY,
    title: "Idempotency key reused",
    retryable: Retryable::No,
    meaning: "The `Idempotency-Key` was used before with another request. A key stands for one \
              acquire; with a different path or body it cannot be told which one is meant.",
    sent_when: &[
        "An acquire has the key of an earlier acquire of the same principal, and another path or \
         another body, while that lock lives or has ended less than 10 minutes ago.",
    ],
    caller: "Make a new key (a UUID will do) for each new acquire, and use the same one again only \
             to repeat exactly the same request.",
    operator: "Nothing needs to be done. A client that gets this often derives its keys from too \
               little, such as from the time alone.",
    confused_with: &[not(
        Name::IdempotencyInProgress,
        "`idempotency-in-progress` (409) is for the same request under the same key, whose first \
         attempt is not decided yet; asking again later works there.",
    )],
    detail: "This Idempotency-Key was used for an acquire of /v1/flags/feature-y.",
    members: &[],
    headers: &[],
    follows: &[rfc(9110, "15.5.21", "422 Unprocessable Content")],
};
