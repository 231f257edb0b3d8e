//! The statuses that the server answers with, and what each means.

use crate::catalogue::Section;

/// What is to be known of one HTTP status.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// The status.
    pub code: u16,
    /// Its name in the RFC.
    pub title: &'static str,
    /// Where the RFC defines it.
    pub defined_in: Section,
    /// What it means here.
    pub meaning: &'static str,
}

impl Status {
    /// Every status that the server answers with, in order.
    pub const ALL: &[Self] = STATUSES;

    /// What is to be known of `code`; none if the server never answers with it.
    #[must_use]
    pub fn find(code: u16) -> Option<&'static Self> {
        STATUSES.iter().find(|status| status.code == code)
    }
}

const fn status(
    code: u16,
    title: &'static str,
    (rfc, section, heading): (u16, &'static str, &'static str),
    meaning: &'static str,
) -> Status {
    Status { code, title, defined_in: Section { rfc, section, title: heading }, meaning }
}

const STATUSES: &[Status] = &[
    status(
        100,
        "Continue",
        (9110, "15.2.1", "100 Continue"),
        "The request carried `Expect: 100-continue` and nothing stands in its way so far: send \
         the body. It is not sent for a write that is refused.",
    ),
    status(
        200,
        "OK",
        (9110, "15.3.1", "200 OK"),
        "It worked, and the answer has a body: a document, a list, a lock, or for `/-/check` the \
         word that a write may pass.",
    ),
    status(
        201,
        "Created",
        (9110, "15.3.2", "201 Created"),
        "A lock was granted, or a document was created. `Location` says where it is.",
    ),
    status(
        202,
        "Accepted",
        (9110, "15.3.3", "202 Accepted"),
        "The holder was asked to let go. Whether it does is up to the holder.",
    ),
    status(
        204,
        "No Content",
        (9110, "15.3.5", "204 No Content"),
        "It worked, and there is nothing more to say: a document was replaced or deleted, a lock \
         released, a freeze lifted.",
    ),
    status(
        304,
        "Not Modified",
        (9110, "15.4.5", "304 Not Modified"),
        "The document is still the version that `If-None-Match` or `If-Modified-Since` names: use \
         the copy that you have.",
    ),
    status(
        400,
        "Bad Request",
        (9110, "15.5.1", "400 Bad Request"),
        "The request cannot be understood as it is written. Correct it; the same request will be \
         refused again. What is understood but not allowed is 422.",
    ),
    status(
        401,
        "Unauthorized",
        (9110, "15.5.2", "401 Unauthorized"),
        "The server does not know who you are. (The RFC's title says \"unauthorized\"; what it \
         defines is missing or wrong credentials. Known, but not allowed, is 403.)",
    ),
    status(
        403,
        "Forbidden",
        (9110, "15.5.4", "403 Forbidden"),
        "The server understood the request and knows who asks, and refuses: the role, or the lock \
         token, is not one that this needs. Waiting does not help.",
    ),
    status(
        404,
        "Not Found",
        (9110, "15.5.5", "404 Not Found"),
        "There is nothing at this path, or it cannot be locked.",
    ),
    status(
        405,
        "Method Not Allowed",
        (9110, "15.5.6", "405 Method Not Allowed"),
        "The path is there and does not take this method; `Allow` lists those that it takes.",
    ),
    status(
        409,
        "Conflict",
        (9110, "15.5.10", "409 Conflict"),
        "The request does not fit the current state of what it is about, and it did not say in a \
         header field which state it expects. Look at the state, then send another request. A \
         condition that was set and does not hold is 412; a resource that somebody reserved is \
         423. (A rule with `locked_status = 409` answers refused acquires with 409; their name is \
         still `locked`.)",
    ),
    status(
        410,
        "Gone",
        (9110, "15.5.11", "410 Gone"),
        "What the request is about existed and has ended for good: here, a lock.",
    ),
    status(
        412,
        "Precondition Failed",
        (9110, "15.5.13", "412 Precondition Failed"),
        "The request said in its header fields what has to be true for it to be carried out \
         (`If-Match`, `If`, a lock token), and it is not true. Nothing was changed. Read again \
         and decide anew: the same request cannot work. A write that set no condition where one \
         is asked for is 428; a resource that somebody reserved is 423.",
    ),
    status(
        413,
        "Content Too Large",
        (9110, "15.5.14", "413 Content Too Large"),
        "The body of the request is larger than what is taken here.",
    ),
    status(
        414,
        "URI Too Long",
        (9110, "15.5.15", "414 URI Too Long"),
        "The request target is so long that the server does not read it.",
    ),
    status(
        415,
        "Unsupported Media Type",
        (9110, "15.5.16", "415 Unsupported Media Type"),
        "The body is in a format that this request cannot use.",
    ),
    status(
        422,
        "Unprocessable Content",
        (9110, "15.5.21", "422 Unprocessable Content"),
        "The body is well formed and was understood, and what it asks for is not allowed. What \
         cannot be understood is 400.",
    ),
    status(
        423,
        "Locked",
        (4918, "11.3", "423 Locked"),
        "Somebody has reserved the resource, or an operator has frozen it. The request itself is \
         fine: the same request may work when the lock has ended. Content that has changed since \
         you read it is 412, whether locked or not.",
    ),
    status(
        428,
        "Precondition Required",
        (6585, "3", "428 Precondition Required"),
        "A rule asks every write here to set a condition (a lock token, `If-Match`, \
         `If-None-Match` or `If-Unmodified-Since`), and this one set none. A condition that was \
         set and does not hold is 412.",
    ),
    status(
        429,
        "Too Many Requests",
        (6585, "4", "429 Too Many Requests"),
        "A limit on how many may wait, or how many locks may be held, is reached. `Retry-After` \
         says when to ask again.",
    ),
    status(
        431,
        "Request Header Fields Too Large",
        (6585, "5", "431 Request Header Fields Too Large"),
        "The header of the request is so large that the server does not read it. The answer has \
         no problem document. Send fewer or shorter header fields; mostly it is a cookie.",
    ),
    status(
        502,
        "Bad Gateway",
        (9110, "15.6.3", "502 Bad Gateway"),
        "The API behind the gateway could not be reached, or broke off. That is no refusal; \
         `outcome` says whether the request may have taken effect.",
    ),
    status(
        503,
        "Service Unavailable",
        (9110, "15.6.4", "503 Service Unavailable"),
        "The server cannot answer this now. `Retry-After` says when to ask again; the name says \
         whether the request may have been carried out.",
    ),
    status(
        504,
        "Gateway Timeout",
        (9110, "15.6.5", "504 Gateway Timeout"),
        "The API behind the gateway stayed silent for too long. The request may have taken effect, \
         or may still: read again before you go on.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Name;

    #[test]
    fn every_status_of_the_catalogue_is_explained_and_in_order() {
        for name in Name::ALL {
            let entry = name.entry();
            let status = Status::find(entry.status.as_u16()).expect("is listed");
            assert_eq!(status.defined_in, entry.follows[0], "{name}");
        }
        assert!(Status::ALL.is_sorted_by_key(|status| status.code));
        for status in Status::ALL {
            assert_eq!(status.defined_in.title, format!("{} {}", status.code, status.title));
        }
    }

    #[test]
    fn a_status_that_is_never_sent_is_not_found() {
        for code in [0, 99, 301, 402, 500, 501, 505, 599] {
            assert!(Status::find(code).is_none(), "{code}");
        }
    }
}
