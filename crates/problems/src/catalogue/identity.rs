//! 401 and 403: who asks, and what they may do.

use http::StatusCode;

use super::{Entry, Name, Retryable, Type, field, not, rfc, sometimes};

pub(super) static UNAUTHENTICATED: Entry = Entry {
    name: "unauthenticated",
    status: StatusCode::UNAUTHORIZED,
    title: "Unauthenticated",
    retryable: Retryable::No,
    meaning: "The server does not know who you are: it asks who its callers are, and the request \
              does not show it.",
    sent_when: &[
        "The server runs with `--identity keys` and the request has no API key.",
        "The API key in it is unknown here or has been revoked.",
        "The server learns who its callers are from a proxy in front of it, and the proxy did not \
         say it.",
        "The server asks for a token that an issuer has signed (a JWT), and the one in the request \
         has expired, is for somebody else, or was signed with a key that is not known. `detail` \
         says which.",
        "The server asks the API behind it about its callers (identity mode `digest`), and that API \
         does not know the credentials in the request, or the request needs some and has none.",
        "The server learns who its callers are from the certificates that they connect with, and \
         the connection has none, or one without exactly one name of the kind that counts.",
    ],
    caller: "Send your key as `Authorization: Bearer KEY`, or as the password of Basic \
             authentication (`curl -u name:KEY`), or in the field that `WWW-Authenticate` names. Where the API behind the server is asked, send \
             what you send to it. \
             If you do send it, ask the operator whether it is still valid.",
    operator: "Make a key with `leasehold key add NAME --role ROLE`; it is shown once, on the last \
               line. A running server takes it without a restart. If keys that worked are \
               refused, check that the server runs on the data folder they were made in. With the \
               mode `header`, see that the proxy sets the field that `identity.header` names, once; with `jwt`, compare issuer, audience, algorithm and keys with what is configured.",
    confused_with: &[not(
        Name::Forbidden,
        "`forbidden` (403) is for a caller who is known and may not do this; other credentials \
         may help there, the same never.",
    )],
    detail: "This server asks for an API key.",
    members: &[],
    headers: &[field(
        "WWW-Authenticate",
        "The ways to authenticate: one field for `Basic` and one for `Bearer`. A browser's `fetch` \
         is offered `Bearer` alone, so that no password dialog opens. Where the server looks for \
         who you are in another field, `ApiKey`, `Proxied` or `Upstream` with its name as `header`. Where the API behind the \
         server refuses credentials, its own challenge; `Certificate` where one is wanted when \
         connecting.",
        r#"Basic realm="leasehold", charset="UTF-8""#,
    )],
    follows: &[
        rfc(9110, "15.5.2", "401 Unauthorized"),
        rfc(7617, "2", "The 'Basic' Authentication Scheme"),
        rfc(6750, "3", "The WWW-Authenticate Response Header Field"),
    ],
};

pub(super) static FORBIDDEN: Entry = Entry {
    name: "forbidden",
    status: StatusCode::FORBIDDEN,
    title: "Forbidden",
    retryable: Retryable::No,
    meaning: "The server knows who you are, and your role does not allow this here.",
    sent_when: &[
        "The caller's role lacks the permission that the request needs: `read`, `write`, `lock`, \
         `break`, `freeze`, `audit` or `admin`.",
        "The role has the permission, but is narrowed to other paths.",
        "Where a page of another site could make a browser send the request (in anonymous mode, \
         where a proxy or a certificate says who callers are, and in digest mode), such a page \
         sent it, and its origin is not in \
         `cors_origins`.",
        "The server learns who its callers are from a proxy in front of it, and the request did not \
         come from there.",
        "The server asks the API behind it about its callers (identity mode `digest`), and that API \
         does not show the resource to the caller, or does not say that it does.",
    ],
    caller: "Look at `permission`: it is what you lack. Ask the operator for a role that has it, \
             or use a key that does. Waiting does not help.",
    operator: "Roles: `reader` has read; `writer` read, write, lock; `manager` also break and \
               freeze; `auditor` read and audit; `admin` everything. Give the caller a key with \
               the role it needs, or widen the paths of its role. For a web page of your own, \
               list its origin in `cors_origins`. For a proxy, list its address in \
               `identity.trusted_proxies`.",
    confused_with: &[
        not(
            Name::Unauthenticated,
            "`unauthenticated` (401) is for a caller whom the server does not know.",
        ),
        not(
            Name::NotTheHolder,
            "`not-the-holder` (403) is for a caller who may use locks, and sends the token of \
             somebody else's.",
        ),
        not(
            Name::Frozen,
            "`frozen` (423) refuses everyone's writes for a time, whatever their role.",
        ),
    ],
    detail: "bob may not break locks on /v1/flags/feature-x.",
    members: &[sometimes(
        "permission",
        Type::Text,
        "The permission that is missing; absent where the request was refused for where it came from.",
        r#""break""#,
    )],
    headers: &[],
    follows: &[rfc(9110, "15.5.4", "403 Forbidden")],
};

pub(super) static INVALID_LOCK_TOKEN: Entry = Entry {
    name: "invalid-lock-token",
    status: StatusCode::FORBIDDEN,
    title: "Invalid lock token",
    retryable: Retryable::No,
    meaning: "The request carries a lock token that this server never issued, or that belongs to \
              other resources than the one addressed.",
    sent_when: &[
        "A lock endpoint gets a token that was not made by this server, or was altered.",
        "A lock endpoint gets the token of a lock whose `resources` do not include the one in the \
         path.",
        "A write that no lock stands in the way of carries a token that was never issued here.",
    ],
    caller: "Compare the token with the `lock_token` of your acquire, byte for byte: was it cut \
             off, quoted, or taken from another environment? At a lock endpoint, use the path \
             that the lock was acquired on; a lock acquired above is renewed and released there. \
             If the token cannot be found, let the lock expire and acquire anew.",
    operator: "A token proves itself by a secret in the data folder (`token.key`). Tokens from \
               before that file was replaced, or from another server, are not known. A restored \
               backup starts afresh on purpose: tokens from before it are refused.",
    confused_with: &[
        not(
            Name::LockTokenRequired,
            "`lock-token-required` (400) is for a request that carries no token at all.",
        ),
        not(
            Name::NotTheHolder,
            "`not-the-holder` (403) is for a genuine token that belongs to another principal.",
        ),
        not(
            Name::LockGone,
            "`lock-gone` (410) is for a genuine token of yours whose lock has ended.",
        ),
        not(
            Name::LockMismatch,
            "`lock-mismatch` (412) is for a write with a genuine, live token of yours that this \
             write has no use for.",
        ),
    ],
    detail: "The token in X-Lock-Token was not issued for /v1/flags/feature-x.",
    members: &[],
    headers: &[],
    follows: &[rfc(9110, "15.5.4", "403 Forbidden"), rfc(4918, "6.5", "Lock Tokens")],
};

pub(super) static NOT_THE_HOLDER: Entry = Entry {
    name: "not-the-holder",
    status: StatusCode::FORBIDDEN,
    title: "Not the holder",
    retryable: Retryable::No,
    meaning: "The lock token in the request is genuine, but it belongs to somebody else. A token \
              counts only together with the principal that holds it.",
    sent_when: &[
        "A renewal, release or transfer carries a token that was issued to another principal. \
         Whether that lock still lives is not told.",
        "A write that no lock stands in the way of carries another principal's token.",
    ],
    caller: "Authenticate as the principal that acquired the lock, or acquire a lock of your own. \
             To take over somebody's lock, have its holder hand it over with \
             `POST {resource}/lock/transfer`.",
    operator: "Look whether two services share a token but not a key, or a key was replaced by \
               one with another name: locks belong to the name. `POST {resource}/lock/break` \
               frees a lock whose holder is gone for good.",
    confused_with: &[
        not(Name::Forbidden, "`forbidden` (403) is about your role, whatever token you send."),
        not(
            Name::InvalidLockToken,
            "`invalid-lock-token` (403) is for a token that was never issued here, or is for other \
             resources.",
        ),
        not(
            Name::Locked,
            "`locked` (423) is for a write that a lock stands in the way of; there, another's \
             token is reported in `presented` as `not-yours`.",
        ),
    ],
    detail: "The token in X-Lock-Token belongs to another principal than bob.",
    members: &[],
    headers: &[],
    follows: &[
        rfc(9110, "15.5.4", "403 Forbidden"),
        rfc(4918, "6.4", "Lock Creator and Privileges"),
    ],
};
