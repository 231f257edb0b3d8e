//! The name of one request: the caller's own, where it sent a sensible one.
//!
//! It is in the answer, in every problem, in the log and in the trail, so that the four can be
//! put side by side.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header field, in both directions.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The name of one request: 1 to 128 characters of `A-Za-z0-9._-:/+=@`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The longest one, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// The caller's, if it is one and the only one.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut sent = headers.get_all(X_REQUEST_ID).iter();
        let (Some(only), None) = (sent.next(), sent.next()) else { return None };
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-:/+=@".contains(byte);
        let bytes = only.as_bytes();
        if bytes.is_empty() || bytes.len() > Self::MAX_BYTES || !bytes.iter().all(legal) {
            return None;
        }
        only.to_str().ok().map(|text| Self(Arc::from(text)))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Puts it on an answer.
    pub fn echo(&self, headers: &mut HeaderMap) {
        // Its characters are all legal in a field; a value that is not would be left out.
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            headers.insert(X_REQUEST_ID, value);
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes names for requests that came without one.
///
/// A random number for the process and a count: unique as far as anyone will notice, and without
/// a call to the system for each request. Nothing rests on their being hard to guess.
#[derive(Debug)]
pub struct RequestIds {
    /// What each name of this process begins with.
    prefix: String,
    next: AtomicU64,
}

impl RequestIds {
    /// A maker whose names begin like no other's.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { prefix: format!("{:016x}-", getrandom::u64()?), next: AtomicU64::new(1) })
    }

    /// The caller's own name for the request, or a new one.
    #[must_use]
    pub fn take_or_make(&self, headers: &HeaderMap) -> RequestId {
        RequestId::from_headers(headers).unwrap_or_else(|| self.make())
    }

    /// A new name.
    #[must_use]
    pub fn make(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        RequestId(Arc::from([self.prefix.as_str(), &count.to_string()].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensible_name_is_taken_over_and_any_other_replaced() {
        let ids = RequestIds::new().unwrap();
        let of = |sent: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(X_REQUEST_ID, HeaderValue::from_str(value).unwrap());
            }
            ids.take_or_make(&headers)
        };
        let longest = "a".repeat(128);
        for sent in ["a", "01J.x_y-z:0/1+2=3@4", &longest] {
            assert_eq!(of(&[sent]).as_str(), sent);
        }
        let made = of(&[]);
        for sent in [&[""][..], &["a b"], &["a,b"], &["<a>"], &[&"a".repeat(129)], &["a", "b"]] {
            assert!(of(sent).as_str().starts_with(&made.as_str()[..17]), "{sent:?}");
        }
        assert_ne!(of(&[]), of(&[]));
        let mut headers = HeaderMap::new();
        made.echo(&mut headers);
        assert_eq!(headers["x-request-id"], made.as_str());
        assert_eq!(RequestId::from_headers(&headers), Some(made));
    }
}
