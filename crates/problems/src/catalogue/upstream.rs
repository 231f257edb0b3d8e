//! 502 and 504: what stands behind a gateway did not answer.

use http::StatusCode;

use super::{Entry, Member, Name, Retryable, Type, always, field, not, rfc};

const OUTCOME: Member = always(
    "outcome",
    Type::Text,
    "`not_sent`: nothing of the request has reached the upstream. `unknown`: it has been sent, \
     and may have taken effect, or may still.",
    r#""unknown""#,
);

pub(super) static UPSTREAM_UNREACHABLE: Entry = Entry {
    name: "upstream-unreachable",
    status: StatusCode::BAD_GATEWAY,
    title: "Upstream unreachable",
    retryable: Retryable::Same,
    meaning: "The API behind the gateway could not be reached, or ended the connection without a \
              whole answer. It is no refusal: no lock stood in the way.",
    sent_when: &[
        "No connection to the upstream came about: nobody listens, its name is unknown, TLS \
         failed. Then nothing was sent (`outcome` is `not_sent`).",
        "The upstream closed the connection, or sent what is no HTTP, after the request was on \
         its way. Then nobody knows what became of it (`outcome` is `unknown`, and `retryable` \
         `after-change`).",
        "The API could not say whether the caller may see a resource whose lock is asked for \
         (identity mode `digest`): it could not be reached, or answered with 429 or 5xx. Nothing \
         was done.",
    ],
    caller: "With `not_sent`, send the same request again. With `unknown`, read the resource \
             first; a lock that you hold you still hold, and it goes to nobody else while your \
             write may still land.",
    operator: "Look at the upstream: the server's log has the cause, and \
               `leasehold_upstream_faults_total` tells the kinds apart.",
    confused_with: &[
        not(
            Name::UpstreamTimeout,
            "`upstream-timeout` (504) is for an upstream that was there and stayed silent.",
        ),
        not(
            Name::Unavailable,
            "`unavailable` (503) is about the lock server itself, not about what stands behind \
             it.",
        ),
    ],
    detail: "The upstream cannot be reached: Connection refused. Nothing was sent.",
    members: &[OUTCOME],
    headers: &[field(
        "Retry-After",
        "When to send it again, in seconds; only where nothing was sent, or done.",
        "1",
    )],
    follows: &[rfc(9110, "15.6.3", "502 Bad Gateway")],
};

pub(super) static UPSTREAM_TIMEOUT: Entry = Entry {
    name: "upstream-timeout",
    status: StatusCode::GATEWAY_TIMEOUT,
    title: "Upstream timeout",
    retryable: Retryable::AfterChange,
    meaning: "The API behind the gateway was silent for longer than `upstream_timeout`, and the \
              gateway has closed the connection. A write may have taken effect, or may still.",
    sent_when: &[
        "A whole `upstream_timeout` has passed in which the upstream neither took more of \
                  the request nor sent anything of an answer.",
        "The same while it was asked whether the caller may see a resource whose lock is asked \
         for (identity mode `digest`): then nothing was done, and `outcome` is `not_sent`.",
    ],
    caller: "Read the resource before you go on. A lock that you hold you still hold. Nobody else \
             is granted it before `drain_time` has passed, in which the write may still land.",
    operator: "If the upstream needs longer for some requests, raise `upstream_timeout`: it is a \
               bound on silence, not on the whole. If it can go on with a request for longer \
               after its connection was closed, raise `drain_time`.",
    confused_with: &[not(
        Name::UpstreamUnreachable,
        "`upstream-unreachable` (502) is for a connection that did not come about or was ended by \
         the upstream.",
    )],
    detail: "The upstream was silent for 30s; whether the request took effect is not known.",
    members: &[OUTCOME],
    headers: &[],
    follows: &[rfc(9110, "15.6.5", "504 Gateway Timeout")],
};
