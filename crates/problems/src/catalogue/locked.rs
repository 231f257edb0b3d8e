//! 423: somebody reserved the resource.

use http::StatusCode;

use super::{Entry, Field, Name, Retryable, Type, always, field, not, rfc, sometimes};

const LINK: Field = field(
    "Link",
    "Where the lock can be inspected, without a token: `rel=\"lock\"`.",
    r#"</v1/flags/feature-x/lock>; rel="lock""#,
);

const RETRY_AFTER: Field = field(
    "Retry-After",
    "When to ask again, in seconds: the remaining time, rounded up, at least 1, at most 60.",
    "37",
);

pub(super) static LOCKED: Entry = Entry {
    name: "locked",
    status: StatusCode::LOCKED,
    title: "Locked",
    retryable: Retryable::Same,
    meaning: "Somebody has reserved the resource: until their lock ends, only they can write to \
              it. Your request is fine, it came at the wrong time. Reading is not affected.",
    sent_when: &[
        "A write would change a resource that a live lock covers (its own, one taken above, or, \
         for what deletes a whole tree, one below), and the request does not carry that lock's \
         token.",
        "An acquire meets a lock that conflicts with it, and does not wait, or has waited as long \
         as it asked for. Two locks conflict unless both are shared.",
        "An acquire comes behind earlier waiters that it conflicts with (`queue_ahead`); nobody \
         overtakes them.",
        "An acquire meets writes under way that have not ended in time (`writes_in_flight`).",
        "A second acquire by the holder itself (`held_by_you`): locks are not re-entrant.",
    ],
    caller: "Wait `Retry-After` seconds and send the same request again; or acquire with \
             `Prefer: wait=30` and be served in turn. `how_to_unlock` has the other ways: look \
             who holds it, ask them to let go, or break the lock with the permission to. If the \
             lock is your own, send its token in `X-Lock-Token`.",
    operator: "`GET /-/locks` lists every lock with its holder. A lock whose holder is gone ends at \
               its deadline; `POST {resource}/lock/break` ends it now. If it happens often, \
               shorten `default_ttl`, lock less (a depth, a smaller resource), or let acquires \
               wait. For clients that know no 423, `locked_status = 409` answers acquires with \
               409.",
    confused_with: &[
        not(
            Name::Frozen,
            "`frozen` (423) is for a stop to all writes that an operator set; no token opens it.",
        ),
        not(
            Name::PreconditionFailed,
            "`precondition-failed` (412) is for content that has changed since you read it, \
             whether anyone holds a lock or not; reading again helps there, waiting does not.",
        ),
        not(
            Name::PreconditionRequired,
            "`precondition-required` (428) is for a write without token or `If-Match` where a rule \
             asks for one, though nobody holds a lock.",
        ),
        not(
            Name::LockLost,
            "`lock-lost` (412) is for the token of a lock that has ended, on a resource that \
             nobody holds now.",
        ),
        not(
            Name::LockMismatch,
            "`lock-mismatch` (412) is for a live token that the write has no use for, on a \
             resource that nobody holds.",
        ),
        not(
            Name::LockChanged,
            "`lock-changed` (409) is for a request about a lock that is not what the request takes \
             it for.",
        ),
        not(
            Name::Deadlock,
            "`deadlock` (409) is for a wait that could never end, because the holder waits for \
             you.",
        ),
        not(
            Name::NotTheHolder,
            "`not-the-holder` (403) is for another's token at the lock endpoints, or on a resource \
             that no lock stands in the way of.",
        ),
        not(
            Name::LockTokenRequired,
            "`lock-token-required` (400) is for renewing, releasing or handing over without a \
             token.",
        ),
        not(
            Name::HasChildren,
            "`has-children` (409) is for a delete of a document that has others below it, locked \
             or not.",
        ),
        not(
            Name::IdempotencyInProgress,
            "`idempotency-in-progress` (409) is for an acquire whose own first attempt is not \
             decided yet.",
        ),
        not(
            Name::QueueFull,
            "`queue-full` (429) is for an acquire that wants to wait where too many wait already.",
        ),
    ],
    detail: "/v1/flags/feature-x is locked by alice for another 37 s.",
    members: &[
        always(
            "lock",
            Type::ObjectOrNull,
            "The lock in the way that ends last; never with its token. `null` where only earlier \
             waiters or writes under way are in the way; of `kind` `pending` where another \
             acquire is about to be granted. The holder may be hidden by a rule; all of it (`null`) \
             where the API behind the server does not show the resource to you.",
            r#"{ "lock_id": "0193b0a5-2f6e-7c3a-9d41-5b8f3c2e7a10", "resource": "/v1/flags/feature-x", "kind": "lock", "dialect": "http", "mode": "exclusive", "holder": "alice", "reason": "Rolling out", "acquired_at": "2026-11-20T12:00:00.000Z", "expires_at": "2026-11-20T12:01:00.000Z", "expires_in_ms": 37000 }"#,
        ),
        sometimes("locks_in_the_way", Type::Integer, "How many locks are in the way.", "1"),
        sometimes(
            "held_by_you",
            Type::Boolean,
            "Whether the holder is you; in anonymous mode only told to who presents the token.",
            "false",
        ),
        sometimes(
            "how_to_unlock",
            Type::Object,
            "What can be done: `wait`, `inspect`, `request` and `break`, each a request to send.",
            r#"{ "wait": "POST /v1/flags/feature-x/lock with Prefer: wait=30", "inspect": "GET /v1/flags/feature-x/lock", "request": "POST /v1/flags/feature-x/lock/request", "break": "POST /v1/flags/feature-x/lock/break" }"#,
        ),
        sometimes(
            "presented",
            Type::Objects,
            "For each token that was sent, what it is: `live-elsewhere`, `ended` (with how and \
             when), `not-yours` or `unknown`.",
            r#"[{ "state": "ended", "ended": "expired", "ended_at": "2026-11-20T11:59:00.000Z" }]"#,
        ),
        sometimes(
            "queue_ahead",
            Type::Integer,
            "How many earlier waiters stand before this acquire.",
            "2",
        ),
        sometimes("waited_ms", Type::Integer, "How long this acquire has waited.", "30000"),
        sometimes(
            "writes_in_flight",
            Type::Integer,
            "How many writes under way the acquire would have had to wait for.",
            "1",
        ),
    ],
    headers: &[LINK, RETRY_AFTER],
    follows: &[rfc(4918, "11.3", "423 Locked"), rfc(9110, "10.2.3", "Retry-After")],
};

pub(super) static FROZEN: Entry = Entry {
    name: "frozen",
    status: StatusCode::LOCKED,
    title: "Frozen",
    retryable: Retryable::Same,
    meaning: "An operator has stopped all writes to the resource, and to everything below it, \
              until a certain time. Nobody can write, whatever token they hold. Reading is not \
              affected.",
    sent_when: &[
        "A write would change a resource that is frozen, itself or from above; or would delete \
         something that is frozen below.",
        "An acquire names a frozen resource; it is refused at once, ready to wait or not.",
    ],
    caller: "Look at `freeze` for who stopped writes, why, and until when, and try again then. If \
             you hold a lock, you can go on renewing it meanwhile.",
    operator: "`DELETE {resource}/lock/freeze` lifts it, with the `freeze` permission, on the \
               resource that `freeze.resource` names. Otherwise it ends by itself at \
               `freeze.until`.",
    confused_with: &[
        not(
            Name::Locked,
            "`locked` (423) is for a lock, which one holder took to write; its token opens it.",
        ),
        not(Name::Forbidden, "`forbidden` (403) is about what your role allows, at any time."),
    ],
    detail: "/v1/flags is frozen by carol until 2026-11-20T18:00:00.000Z: release freeze.",
    members: &[
        always(
            "freeze",
            Type::ObjectOrNull,
            "The freeze: the `resource` it is on, `by` whom, the `reason`, `since` and `until`. \
             `null` where the API behind the server does not show the resource to you.",
            r#"{ "resource": "/v1/flags", "by": "carol", "reason": "release freeze", "since": "2026-11-20T09:00:00.000Z", "until": "2026-11-20T18:00:00.000Z" }"#,
        ),
        always(
            "how_to_unlock",
            Type::Object,
            "What can be done: `unfreeze`, the request that lifts it.",
            r#"{ "unfreeze": "DELETE /v1/flags/lock/freeze" }"#,
        ),
    ],
    headers: &[LINK, RETRY_AFTER],
    follows: &[rfc(4918, "11.3", "423 Locked"), rfc(9110, "10.2.3", "Retry-After")],
};
