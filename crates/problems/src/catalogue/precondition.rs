//! 412 and 428: conditions that do not hold, and conditions that are missing.

use http::StatusCode;

use super::{ENDED, Entry, Name, Retryable, Type, field, not, rfc, sometimes};

pub(super) static PRECONDITION_FAILED: Entry = Entry {
    name: "precondition-failed",
    status: StatusCode::PRECONDITION_FAILED,
    title: "Precondition failed",
    retryable: Retryable::AfterChange,
    meaning: "The request said, in a header field, under which condition it may be carried out, \
              and that condition does not hold. Nothing was changed.",
    sent_when: &[
        "`If-Match` names another version of the document than the current one.",
        "`If-None-Match: *` asks to create a document, and there is one.",
        "`If-Unmodified-Since` names a time before the document's last change.",
        "`If` (RFC 4918) has no alternative that is true.",
    ],
    caller: "Somebody changed the document after you read it. Read it again, take its new `ETag`, \
             make your change anew on what you read, and send it with `If-Match` and that `ETag`. \
             If you keep losing this race, lock the resource first.",
    operator: "Nothing needs to be done: an update was kept from being lost. Where it happens all \
               the time, the clients are better served by locks.",
    confused_with: &[
        not(
            Name::Locked,
            "`locked` (423) is for a resource that somebody reserved; its content may be just what \
             you read. A lock is judged first, so a locked write is 423 even if its `If-Match` \
             fails too.",
        ),
        not(
            Name::LockLost,
            "`lock-lost` (412) is for a lock token in the request whose lock has ended.",
        ),
        not(
            Name::PreconditionRequired,
            "`precondition-required` (428) is for a write that set no condition where a rule asks \
             for one; this one is for a condition that was set and is false.",
        ),
        not(
            Name::AlreadyExists,
            "`already-exists` (409) is for a `POST` that set no condition, and whose `id` is \
             taken.",
        ),
        not(
            Name::PatchConflict,
            "`patch-conflict` (409) is for a patch whose body does not fit the document; no header \
             field asked for anything.",
        ),
        not(
            Name::LockChanged,
            "`lock-changed` (409) is for a request about a lock which is not in the state that the \
             request needs; no header field asked for anything.",
        ),
    ],
    detail: "If-Match names another version of /v1/flags/feature-x than the current one.",
    members: &[sometimes(
        "etag",
        Type::TextOrNull,
        "The `ETag` of the document now; `null` where there is no document.",
        r#""\"1f-9c2e\"""#,
    )],
    headers: &[field(
        "ETag",
        "The `ETag` of the document now; absent where there is none.",
        r#""1f-9c2e""#,
    )],
    follows: &[
        rfc(9110, "15.5.13", "412 Precondition Failed"),
        rfc(9110, "13.2", "Evaluation of Preconditions"),
        rfc(4918, "10.4", "If Header"),
    ],
};

pub(super) static LOCK_LOST: Entry = Entry {
    name: "lock-lost",
    status: StatusCode::PRECONDITION_FAILED,
    title: "Lock lost",
    retryable: Retryable::AfterChange,
    meaning: "The write carries the token of a lock of yours that has ended. You believed that \
              nobody else could write, and that is no longer true, so the write was refused even \
              though nobody holds the resource now.",
    sent_when: &[
        "A write that no live lock stands in the way of carries a token whose lock has expired, \
         was released, was broken, or was handed over.",
    ],
    caller: "Throw away what you read under the old lock. Acquire a new lock, read again, decide \
             anew, write with the new token. Do not repeat the write without the token: that \
             would overwrite what others may have done in between.",
    operator: "`ended` tells how it came: many `expired` mean that the TTL is too short for the \
               work, or that clients do not renew; `broken` has the name and the reason.",
    confused_with: &[
        not(
            Name::Locked,
            "`locked` (423) is for a write that somebody's live lock stands in the way of; if your \
             lock was lost and another one taken, that is what you get, with the lost token \
             reported in `presented`.",
        ),
        not(
            Name::LockGone,
            "`lock-gone` (410) tells the same at the lock endpoints: renew, release, transfer.",
        ),
        not(
            Name::LockMismatch,
            "`lock-mismatch` (412) is for a token whose lock lives, but does not cover this write.",
        ),
        not(
            Name::PreconditionFailed,
            "`precondition-failed` (412) is about the version of the document (`If-Match` and the \
             like), not about a lock.",
        ),
    ],
    detail: "The lock presented for /v1/flags/feature-x was broken by carol.",
    members: &ENDED,
    headers: &[],
    follows: &[rfc(9110, "15.5.13", "412 Precondition Failed"), rfc(4918, "10.4.1", "Purpose")],
};

pub(super) static LOCK_MISMATCH: Entry = Entry {
    name: "lock-mismatch",
    status: StatusCode::PRECONDITION_FAILED,
    title: "Lock mismatch",
    retryable: Retryable::AfterChange,
    meaning: "The write carries the token of a live lock of yours that does not cover what the \
              write changes. You believe that you hold this resource, and you do not.",
    sent_when: &[
        "A write that no lock stands in the way of carries a live token that none of its \
         resources asks for.",
    ],
    caller: "Compare the path of the write with the `resources` of your lock: is one of them \
             misspelt, or is the lock of depth `0` and the write further down? Acquire a lock \
             that covers this resource, or send the write without the token if it needs none.",
    operator: "Nothing needs to be done. A client that sends one token with every request, \
               whatever the path, gets this for the paths that its lock does not cover.",
    confused_with: &[
        not(
            Name::Locked,
            "`locked` (423) is for a resource that another lock covers; there, a live token for \
             something else is reported in `presented` as `live-elsewhere`.",
        ),
        not(Name::LockLost, "`lock-lost` (412) is for a token whose lock has ended."),
        not(
            Name::InvalidLockToken,
            "`invalid-lock-token` (403) is for a token that was never issued here; at the lock \
             endpoints also for one that is for other resources.",
        ),
    ],
    detail: "The lock presented covers /v1/flags/feature-y, not /v1/flags/feature-x.",
    members: &[],
    headers: &[],
    follows: &[rfc(9110, "15.5.13", "412 Precondition Failed"), rfc(4918, "10.4.1", "Purpose")],
};

pub(super) static PRECONDITION_REQUIRED: Entry = Entry {
    name: "precondition-required",
    status: StatusCode::PRECONDITION_REQUIRED,
    title: "Precondition required",
    retryable: Retryable::AfterChange,
    meaning: "A rule of this server says that nobody writes here blindly: a write has to carry a \
              lock token, or say which version of the document it replaces. This one does \
              neither, so it could undo somebody's change without anyone noticing.",
    sent_when: &[
        "The rule for the resource says `require_precondition = true`, and a write has no token \
         and none of `If-Match`, `If-None-Match` and `If-Unmodified-Since`.",
    ],
    caller: "Read the document, then send the write again with `If-Match` and the `ETag` that you \
             got; or lock the resource and send the token; or, to create a document, send \
             `If-None-Match: *`.",
    operator: "This is what `require_precondition = true` is for. Remove it from the rule while \
               old clients that cannot do it have to work.",
    confused_with: &[
        not(
            Name::PreconditionFailed,
            "`precondition-failed` (412) is for a write that did set a condition, which is false.",
        ),
        not(
            Name::Locked,
            "`locked` (423) is for a resource that somebody reserved; this one is sent though \
             nobody did.",
        ),
        not(
            Name::LockTokenRequired,
            "`lock-token-required` (400) is for renewing, releasing or handing over a lock without \
             its token.",
        ),
    ],
    detail: "Writes to /v1/flags/feature-x need a lock token or If-Match.",
    members: &[],
    headers: &[],
    follows: &[rfc(6585, "3", "428 Precondition Required")],
};
