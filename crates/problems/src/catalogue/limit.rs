//! 429 and 503: too much, or not now.

use http::StatusCode;

use super::{Entry, Field, Name, Retryable, Type, always, field, not, rfc, sometimes};

const RETRY_AFTER: Field = field("Retry-After", "When to ask again, in seconds.", "1");

pub(super) static RATE_LIMITED: Entry = Entry {
    name: "rate-limited",
    status: StatusCode::TOO_MANY_REQUESTS,
    title: "Rate limited",
    retryable: Retryable::Same,
    meaning: "You have sent more requests in a short time than one principal may. Nothing of this \
              one was carried out.",
    sent_when: &["The principal has used up its burst (`request_burst`) and sends more than \
                  `requests_per_second`. In anonymous mode everyone is one principal."],
    caller: "Wait for `Retry-After`, and send the same request again. Every answer says in \
             `RateLimit` how many requests you have left (`r`) and in how many seconds there is \
             one more (`t`); slow down before it is none. To wait for a lock, use \
             `Prefer: wait=30` in place of asking again and again.",
    operator: "See whether a client asks in a loop. The limits are `requests_per_second` and \
               `request_burst` under `[limits]`, the same for every principal.",
    confused_with: &[
        not(
            Name::QueueFull,
            "`queue-full` (429) is about acquires that wait, however slowly they came.",
        ),
        not(
            Name::Unavailable,
            "`unavailable` (503) is about the server as a whole, not about one caller.",
        ),
    ],
    detail: "You send more requests than you may: 50 a second, and 100 at once.",
    members: &[always("limit", Type::Integer, "How many you may send in a second.", "50")],
    headers: &[
        RETRY_AFTER,
        field(
            "RateLimit-Policy",
            "What you may send: `q` requests at once, given back over `w` seconds.",
            r#""requests";q=100;w=2"#,
        ),
        field(
            "RateLimit",
            "How many requests you have left, and in how many seconds there is one more.",
            r#""requests";r=0;t=1"#,
        ),
    ],
    follows: &[rfc(6585, "4", "429 Too Many Requests")],
};

pub(super) static QUEUE_FULL: Entry = Entry {
    name: "queue-full",
    status: StatusCode::TOO_MANY_REQUESTS,
    title: "Queue full",
    retryable: Retryable::Same,
    meaning: "So many acquires wait for this resource already that no more are let in.",
    sent_when: &[
        "An acquire is ready to wait, and the queue of the resource has as many waiters as the \
         rule allows (`max_queue`, 1,000 unless configured).",
        "The whole server has as many waiters as it allows (`max_waiters`), or you have as many as \
         one principal may have (`max_waiters_per_principal`).",
    ],
    caller: "Wait for `Retry-After`, and a little more that differs from client to client, and ask \
             again. If your clients come in such numbers, lock smaller resources, or hold the \
             lock for a shorter time.",
    operator: "Raise `max_queue` in the rule, or `max_waiters` or `max_waiters_per_principal` under \
               `[limits]`; each waiter costs \
               an open connection. A queue of a thousand mostly tells of a lock that is held too \
               long, or on too much.",
    confused_with: &[
        not(
            Name::TooManyLocks,
            "`too-many-locks` (429) is about locks that are held, not about waiting for one.",
        ),
        not(
            Name::RateLimited,
            "`rate-limited` (429) is about how many requests you send, not about waiting.",
        ),
        not(
            Name::Locked,
            "`locked` (423) is for an acquire that did not want to wait, or has waited its time.",
        ),
        not(
            Name::Unavailable,
            "`unavailable` (503) is about the server as a whole, not about one queue.",
        ),
    ],
    detail: "1000 acquires wait for /v1/flags/feature-x already.",
    members: &[sometimes(
        "limit",
        Type::Integer,
        "How many may wait; absent where the queue of one resource is full.",
        "100",
    )],
    headers: &[RETRY_AFTER],
    follows: &[rfc(6585, "4", "429 Too Many Requests")],
};

pub(super) static TOO_MANY_LOCKS: Entry = Entry {
    name: "too-many-locks",
    status: StatusCode::TOO_MANY_REQUESTS,
    title: "Too many locks",
    retryable: Retryable::Same,
    meaning: "The limit of locks that may be held at one time is reached: yours, or the server's.",
    sent_when: &[
        "The holder has as many live locks as the rule or the server allows \
         (`max_locks_per_holder`).",
        "The server has as many live locks as it allows (`max_locks`).",
    ],
    caller: "Release locks that you no longer need, then ask again. `GET /-/locks?holder=YOU` \
             lists yours. One lock on a resource above, or one `POST /-/locks` for several \
             resources, is one lock.",
    operator: "Look for a client that never releases: `GET /-/locks`. The limits are \
               `max_locks_per_holder` in the rule and under `[limits]`, and `max_locks` there.",
    confused_with: &[not(
        Name::QueueFull,
        "`queue-full` (429) is about the number of those who wait for one resource.",
    )],
    detail: "alice holds 100 locks, as many as the rule for /v1/flags/feature-x allows.",
    members: &[],
    headers: &[RETRY_AFTER],
    follows: &[rfc(6585, "4", "429 Too Many Requests")],
};

pub(super) static UNAVAILABLE: Entry = Entry {
    name: "unavailable",
    status: StatusCode::SERVICE_UNAVAILABLE,
    title: "Unavailable",
    retryable: Retryable::Same,
    meaning: "The server cannot answer this now. It did not carry the request out.",
    sent_when: &[
        "The server is starting, or is shutting down.",
        "As many connections are open as the server allows (`max_connections`); one more is told \
         so and closed.",
        "Large requests and answers have as much memory as they may have (`max_buffered`).",
        "The log cannot be written at the moment: then no write to a lockable resource is let \
         through, and no lock is granted. Reads pass.",
        "A lock was granted so late that its deadline had passed before it could be told; it has \
         expired.",
    ],
    caller: "Wait for `Retry-After` and send the same request again.",
    operator: "Look at `/-/health/ready` and the server's log. If the log cannot be written, see to \
               the disk that holds the data folder: space, permissions, errors.",
    confused_with: &[
        not(
            Name::RateLimited,
            "`rate-limited` (429) is about one caller who sends too much, on a server that is well.",
        ),
        not(
            Name::StorageFailure,
            "`storage-failure` (503) is for a request that may have been carried out; here it was \
             not.",
        ),
        not(
            Name::QueueFull,
            "`queue-full` (429) is for one resource that too many wait for, on a server that is \
             well.",
        ),
        not(
            Name::UpstreamUnreachable,
            "`upstream-unreachable` (502) is about what stands behind a gateway.",
        ),
    ],
    detail: "The server is shutting down.",
    members: &[],
    headers: &[RETRY_AFTER],
    follows: &[rfc(9110, "15.6.4", "503 Service Unavailable")],
};

pub(super) static STORAGE_FAILURE: Entry = Entry {
    name: "storage-failure",
    status: StatusCode::SERVICE_UNAVAILABLE,
    title: "Storage failure",
    retryable: Retryable::Same,
    meaning: "Writing to disk failed while the request was under way. Nobody knows whether it took \
              effect: it may have reached the disk before the failure, or not.",
    sent_when: &["The commit that the answer depends on failed."],
    caller: "Send the same request again, an acquire with the same `Idempotency-Key`: if the first \
             attempt did take effect, you get its lock and not a second one. Without a key, look \
             at `GET {resource}/lock` before you go on; a write can be made safe to repeat with \
             `If-Match`.",
    operator: "The server's log has the cause: mostly a full or failing disk under the data folder. \
               The server opens its log again by itself and answers nothing from it before it is \
               on stable storage. Nothing that was acknowledged is lost.",
    confused_with: &[not(
        Name::Unavailable,
        "`unavailable` (503) is for a request that was certainly not carried out.",
    )],
    detail: "Writing to disk failed; whether the lock was granted is unknown.",
    members: &[],
    headers: &[RETRY_AFTER],
    follows: &[rfc(9110, "15.6.4", "503 Service Unavailable")],
};
