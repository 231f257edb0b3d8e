//! 404, 405, 409 and 410: what is there, what can be done with it, and what it has become.

use http::StatusCode;

use super::{ENDED, Entry, Name, Retryable, Type, always, field, not, rfc, sometimes};

pub(super) static NOT_FOUND: Entry = Entry {
    name: "not-found",
    status: StatusCode::NOT_FOUND,
    title: "Not found",
    retryable: Retryable::No,
    meaning: "There is nothing at this path.",
    sent_when: &[
        "`GET`, `HEAD`, `PATCH` or `DELETE` names a document that does not exist.",
        "A list is asked for at a path that has neither a document nor children.",
        "A path in the server's own space is none that it has, or names a lock or a problem that \
         it does not know.",
        "The server asks the API behind it about its callers (identity mode `digest`), and that API \
         has nothing at the path whose lock is asked for, or does not tell this caller.",
    ],
    caller: "Check the path: upper and lower case count, and so does every character. To create \
             the document, use `PUT`, or `POST` to its collection.",
    operator: "Nothing needs to be done. If a document that should be there is missing, the trail \
               (`GET /-/audit?resource=…`) shows the writes that were made under locks.",
    confused_with: &[
        not(
            Name::NotLockable,
            "`not-lockable` (404) is for a lock where a rule allows none, whether there is a \
             document or not.",
        ),
        not(
            Name::MethodNotAllowed,
            "`method-not-allowed` (405) is for a path that is there and does not take this method.",
        ),
        not(
            Name::LockGone,
            "`lock-gone` (410) is for a lock that did exist, told to someone who has its token.",
        ),
    ],
    detail: "There is no document at /v1/flags/feature-x.",
    members: &[],
    headers: &[],
    follows: &[rfc(9110, "15.5.5", "404 Not Found")],
};

pub(super) static NOT_LOCKABLE: Entry = Entry {
    name: "not-lockable",
    status: StatusCode::NOT_FOUND,
    title: "Not lockable",
    retryable: Retryable::No,
    meaning: "The rules of this server do not let this resource be locked.",
    sent_when: &[
        "A lock is asked for on `/`, which can be locked only where a rule says so.",
        "A member of the `resources` or `any_of` of `POST /-/locks` is a resource whose rule says \
         `lockable = false`.",
        "Rules know what is below the URL by other names, which a lock on it would not cover.",
    ],
    caller: "Lock a resource below, or one that the rules allow. A lock on `/` would stop every \
             writer of the whole server; lock what you are about to write instead.",
    operator: "The first rule that matches decides: remove `lockable = false` from the `[[rule]]` \
               for this path. For `/`, add a rule with `match = [\"/\"]`. Under a rule with \
               `lockable = false` a path that ends in `/lock` is an ordinary path, so that \
               documents can have that name.",
    confused_with: &[not(
        Name::NotFound,
        "`not-found` (404) is for a document or path that does not exist; a lock needs no \
         document, so a missing document is never the reason for this one.",
    )],
    detail: "/ can be locked only where a rule says so.",
    members: &[],
    headers: &[],
    follows: &[rfc(9110, "15.5.5", "404 Not Found")],
};

pub(super) static METHOD_NOT_ALLOWED: Entry = Entry {
    name: "method-not-allowed",
    status: StatusCode::METHOD_NOT_ALLOWED,
    title: "Method not allowed",
    retryable: Retryable::No,
    meaning: "The path is there, and does not take this method.",
    sent_when: &[
        "The method is none that documents, or this lock endpoint, know.",
        "The method is `CONNECT` or `TRACE`, which no path takes.",
    ],
    caller: "Use one of the methods in `Allow`. Renewing is `PATCH` (or `PUT`) on \
             `{resource}/lock`, releasing is `DELETE`; `POST` acquires.",
    operator: "Nothing needs to be done. If clients need a document whose last segment is `lock`, \
               give the lock endpoints another name with `lock_suffix`.",
    confused_with: &[not(
        Name::NotFound,
        "`not-found` (404) is for a path where nothing is, whatever the method.",
    )],
    detail: "/v1/flags/feature-x/lock/break takes POST and OPTIONS, not GET.",
    members: &[],
    headers: &[field("Allow", "The methods that the path takes.", "OPTIONS, POST")],
    follows: &[rfc(9110, "15.5.6", "405 Method Not Allowed"), rfc(9110, "10.2.1", "Allow")],
};

pub(super) static ALREADY_EXISTS: Entry = Entry {
    name: "already-exists",
    status: StatusCode::CONFLICT,
    title: "Already exists",
    retryable: Retryable::AfterChange,
    meaning: "A document with the `id` that you chose is there already. Nothing was overwritten.",
    sent_when: &["`POST` to a collection has an `id` in its body whose document exists."],
    caller: "Read the document at `resource`. If it is the one that you meant to make, you are \
             done; to change it, use `PATCH` or `PUT` there. Otherwise choose another `id`, or \
             leave it out and let the server choose.",
    operator: "Nothing needs to be done. Many of these mean that clients choose ids that are not \
               unique, or repeat a `POST` whose answer they lost.",
    confused_with: &[not(
        Name::PreconditionFailed,
        "`precondition-failed` (412) is for a condition that the request itself set, such as \
         `PUT` with `If-None-Match: *` on a document that exists.",
    )],
    detail: "/v1/flags/feature-x exists already.",
    members: &[always(
        "resource",
        Type::Text,
        "The path of the document that is in the way.",
        r#""/v1/flags/feature-x""#,
    )],
    headers: &[],
    follows: &[rfc(9110, "15.5.10", "409 Conflict")],
};

pub(super) static HAS_CHILDREN: Entry = Entry {
    name: "has-children",
    status: StatusCode::CONFLICT,
    title: "Has children",
    retryable: Retryable::AfterChange,
    meaning: "The document has others below it, and deleting it would leave them without a \
              parent. Nothing was deleted.",
    sent_when: &["`DELETE` names a document with children, without `?recursive=true`."],
    caller: "Delete the children first, or send `DELETE {resource}?recursive=true` to delete \
             everything below with it.",
    operator: "Nothing needs to be done: this keeps a tree from being deleted by accident.",
    confused_with: &[not(
        Name::Locked,
        "`locked` (423) is for a delete that a lock stands in the way of, on the document or on \
         one below it; locks are judged first.",
    )],
    detail: "/v1/flags has 3 children; the first is /v1/flags/feature-x.",
    members: &[
        always(
            "count",
            Type::Integer,
            "How many documents are directly below; in large trees a lower bound.",
            "3",
        ),
        always("first", Type::Text, "The path of the first of them.", r#""/v1/flags/feature-x""#),
    ],
    headers: &[],
    follows: &[rfc(9110, "15.5.10", "409 Conflict")],
};

pub(super) static PATCH_CONFLICT: Entry = Entry {
    name: "patch-conflict",
    status: StatusCode::CONFLICT,
    title: "Patch conflict",
    retryable: Retryable::AfterChange,
    meaning: "The patch is well formed, and does not fit the document as it is now. A patch is \
              applied whole or not at all: nothing was changed.",
    sent_when: &[
        "An operation of a JSON Patch names a place that the document does not have, or its \
         `test` does not hold.",
    ],
    caller: "Read the document again, look at the operation that `operation` and `pointer` name, \
             and make the patch anew. To be sure that nobody changes the document between your \
             reading and your patch, lock it first, or send `If-Match` with the `ETag` you read.",
    operator: "Nothing needs to be done. Many of these for one resource mean that clients patch \
               it at the same time without a lock or `If-Match`.",
    confused_with: &[
        not(
            Name::PreconditionFailed,
            "`precondition-failed` (412) is for a condition in a header field, such as \
             `If-Match`; a `test` inside a patch is part of the body, so its failure is this one.",
        ),
        not(
            Name::UnsupportedMediaType,
            "`unsupported-media-type` (415) is for a patch in a format that is not known here, or \
             a patch to something that is not a JSON document.",
        ),
        not(
            Name::ValidationFailed,
            "`validation-failed` (422) is for values that are never allowed, whatever the \
             document is now.",
        ),
    ],
    detail: "Operation 1 (replace /limits/daily) does not apply: there is no such member.",
    members: &[
        sometimes(
            "operation",
            Type::Integer,
            "Which operation of the patch did not apply, counted from 0.",
            "1",
        ),
        sometimes(
            "pointer",
            Type::Text,
            "The JSON Pointer of the place in the document that it names.",
            r#""/limits/daily""#,
        ),
    ],
    headers: &[],
    follows: &[
        rfc(9110, "15.5.10", "409 Conflict"),
        rfc(5789, "2.2", "Error Handling"),
        rfc(6902, "5", "Error Handling"),
    ],
};

pub(super) static LOCK_CHANGED: Entry = Entry {
    name: "lock-changed",
    status: StatusCode::CONFLICT,
    title: "Lock changed",
    retryable: Retryable::AfterChange,
    meaning: "The lock is not in the state that the request takes for granted: it is being \
              broken, is another one than the request names, or is not there.",
    sent_when: &[
        "A renewal comes while a break's grace runs: the lock still lives and its writes pass, \
         and it can no longer be prolonged.",
        "A break names a `lock_id` that no longer covers the resource.",
        "A break, or a request to let go, finds nothing locked.",
    ],
    caller: "Look at the locks as they are now with `GET {resource}/lock`. If your own lock is \
             being broken, finish and release before `ends_at`. If what you wanted to break has \
             ended by itself, you are done.",
    operator: "Nothing needs to be done: it keeps a break that was decided on old information \
               from ending somebody else's new lock.",
    confused_with: &[
        not(
            Name::LockGone,
            "`lock-gone` (410) is for the token of a lock that has ended; while a break's grace \
             runs the lock still lives, and a renewal of it gets this one.",
        ),
        not(
            Name::Locked,
            "`locked` (423) says that a lock is in your way; this one says that the lock is not \
             what you think.",
        ),
        not(
            Name::PreconditionFailed,
            "`precondition-failed` (412) is for a condition that you sent in a header field.",
        ),
    ],
    detail: "The lock of /v1/flags/feature-x is being broken by carol and ends in 12 s.",
    members: &[
        sometimes(
            "ends_at",
            Type::Time,
            "While a break's grace runs: when the lock ends.",
            r#""2026-11-20T12:00:41.000Z""#,
        ),
        sometimes("by", Type::Text, "While a break's grace runs: who broke it.", r#""carol""#),
        sometimes(
            "reason",
            Type::Text,
            "While a break's grace runs: why, in their words.",
            r#""Rolling back the 12:00 release""#,
        ),
    ],
    headers: &[],
    follows: &[rfc(9110, "15.5.10", "409 Conflict")],
};

pub(super) static DEADLOCK: Entry = Entry {
    name: "deadlock",
    status: StatusCode::CONFLICT,
    title: "Deadlock",
    retryable: Retryable::AfterChange,
    meaning: "Waiting for this lock would never end: you would wait for someone who, directly or \
              through others, waits for a lock that you hold.",
    sent_when: &["An acquire is ready to wait (`Prefer: wait=…`), names the tokens it holds in \
         `X-Lock-Token`, and its wait would close a circle of waiters. It is refused at once."],
    caller: "Release the locks that you hold, wait a moment, and begin again. To keep it from \
             happening, have everyone acquire in the same order, or acquire all that you need in \
             one step with `POST /-/locks`, which takes all or none.",
    operator: "Look at `circle` for the programs involved, and agree on one order in which they \
               acquire.",
    confused_with: &[not(
        Name::Locked,
        "`locked` (423) is for a lock that somebody holds and will let go; waiting helps there \
         and can never help here.",
    )],
    detail: "alice waits for /b, which bob holds, and bob waits for /a, which alice holds.",
    members: &[always(
        "circle",
        Type::Objects,
        "Who waits for whom, one step an object, from you round to you: the `waiter`, the \
         `resource` it waits for, whom it is `behind`, and the `lock_id` where that one holds a \
         lock.",
        r#"[{ "waiter": "alice", "resource": "/b", "behind": "bob" }, { "waiter": "bob", "resource": "/a", "behind": "alice" }]"#,
    )],
    headers: &[],
    follows: &[rfc(9110, "15.5.10", "409 Conflict")],
};

pub(super) static IDEMPOTENCY_IN_PROGRESS: Entry = Entry {
    name: "idempotency-in-progress",
    status: StatusCode::CONFLICT,
    title: "Still being decided",
    retryable: Retryable::Same,
    meaning: "An earlier request with the same `Idempotency-Key` has not been answered yet, so \
              it is not known what this repetition of it should get.",
    sent_when: &[
        "An acquire comes while another with the same key, of the same principal, still waits or \
         is being written down.",
    ],
    caller: "Wait for `Retry-After` and send the same request with the same key again: you get \
             what the first one got. Do not choose a new key, or you may end up with two locks.",
    operator: "Nothing needs to be done. If it stays for longer than the longest wait, a client \
               sends the same key from several places at once.",
    confused_with: &[
        not(
            Name::IdempotencyKeyReused,
            "`idempotency-key-reused` (422) is for a key that was used with another request, and \
             no waiting changes that.",
        ),
        not(
            Name::Locked,
            "`locked` (423) is for a lock that somebody holds; here the only other one in the way \
             is your own earlier request.",
        ),
    ],
    detail: "The first request with this Idempotency-Key has not been answered yet.",
    members: &[],
    headers: &[field("Retry-After", "When to ask again, in seconds: 1.", "1")],
    follows: &[rfc(9110, "15.5.10", "409 Conflict")],
};

pub(super) static LOCK_GONE: Entry = Entry {
    name: "lock-gone",
    status: StatusCode::GONE,
    title: "Lock gone",
    retryable: Retryable::No,
    meaning: "The lock that this request is about existed and has ended. It does not come back.",
    sent_when: &[
        "A renewal or a transfer carries the token of a lock that has ended.",
        "A release carries the token of a lock that expired, was broken or was handed over. A \
         release repeated after its own success is answered 204, so that a retry is safe.",
        "An acquire repeats an `Idempotency-Key` whose lock has ended less than 10 minutes ago: \
         it never makes a second lock.",
    ],
    caller: "Take nothing for granted that you read under the lock: others may have written \
             since. Acquire a new lock (with a new `Idempotency-Key`), read again, and decide \
             anew. If it `expired`, renew earlier or ask for a longer TTL.",
    operator: "Many `expired` mean that TTLs are shorter than the work: raise `default_ttl` or \
               `max_ttl` of the rule. For a `broken` one, `by` and `reason` tell who ended it.",
    confused_with: &[
        not(
            Name::LockLost,
            "`lock-lost` (412) tells the same of a write: its token is a condition that no longer \
             holds. This one is told at the lock endpoints.",
        ),
        not(
            Name::LockChanged,
            "`lock-changed` (409) is for a lock that still lives, such as one whose break has been \
             announced.",
        ),
        not(
            Name::InvalidLockToken,
            "`invalid-lock-token` (403) is for a token that was never issued here, or is for other \
             resources.",
        ),
        not(Name::NotFound, "`not-found` (404) is for a path where nothing is known to have been."),
    ],
    detail: "The lock of /v1/flags/feature-x was broken by carol.",
    members: &ENDED,
    headers: &[],
    follows: &[rfc(9110, "15.5.11", "410 Gone")],
};
