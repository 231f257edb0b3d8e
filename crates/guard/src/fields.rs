//! The header fields that say under which lock a write comes, those that must not say it, and those
//! that are for one connection.

use http::HeaderMap;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use leasehold_core::event::Subject;

use crate::rules::spelling::decoded_once;

/// The fencing number of the lock that a write was let through under.
pub const X_LOCK_FENCE: HeaderName = HeaderName::from_static("x-lock-fence");
/// Its id.
pub const X_LOCK_ID: HeaderName = HeaderName::from_static("x-lock-id");
/// Its holder.
pub const X_LOCK_HOLDER: HeaderName = HeaderName::from_static("x-lock-holder");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Some servers make an environment variable of it that names a proxy for their own requests.
const PROXY: HeaderName = HeaderName::from_static("proxy");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What is for one connection only (RFC 9110, section 7.6.1). `Trailer` is not among them: it
/// announces trailers that go on.
pub static HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
];

/// Tells of the lock that a write was let through under. Bytes of a holder's name that are not
/// visible ASCII are escaped.
pub fn tell_lock(headers: &mut HeaderMap, lock: &Subject) {
    headers.insert(X_LOCK_FENCE, HeaderValue::from(lock.fence.0));
    if let Ok(id) = HeaderValue::from_str(&lock.lock_id.to_string()) {
        headers.insert(X_LOCK_ID, id);
    }
    if let Ok(holder) = HeaderValue::from_str(&encoded(lock.holder.as_str())) {
        headers.insert(X_LOCK_HOLDER, holder);
    }
}

/// A name as a header field can carry it: every byte that is not visible ASCII, and `%`, as `%XX`.
#[must_use]
pub fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The name in a field that [`tell_lock`] has set; none for what is none.
#[must_use]
pub fn decoded(field: &HeaderValue) -> Option<String> {
    String::from_utf8(decoded_once(field.as_bytes())).ok()
}

/// Drops what a client may not say to what stands behind the guard: lock tokens; what the guard
/// says itself; and what has some servers answer for another URL than the one that was judged.
pub fn drop_claims(headers: &mut HeaderMap) {
    let claims: Vec<HeaderName> =
        headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

fn is_claim(name: &str) -> bool {
    // Servers that make variables of names do not tell `_` from `-`.
    let is = |claim: &str| {
        name.len() == claim.len()
            && name.bytes().zip(claim.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
    };
    let begins = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|start| {
            start.bytes().zip(prefix.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
        })
    };
    match name.as_bytes().first() {
        Some(b'x') => {
            begins("x-lock-")
                || is("x-original-url")
                || is("x-rewrite-url")
                // Written with `-` they are replaced, or added to.
                || (name.contains('_')
                    && (is("x-forwarded-for")
                        || is("x-forwarded-proto")
                        || is("x-forwarded-host")))
        }
        Some(b'i') => name == "if",
        Some(b'l') => is("lock-token"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_field_cannot_carry_is_escaped() {
        let name = "ali ce%\u{e9}\n";
        let field = HeaderValue::from_str(&encoded(name)).unwrap();
        assert_eq!(decoded(&field).as_deref(), Some(name));
        assert_eq!(decoded(&HeaderValue::from_static("%FF")), None);
        assert_eq!(encoded("ali ce%\u{e9}\n"), "ali%20ce%25%C3%A9%0A");
    }
}
