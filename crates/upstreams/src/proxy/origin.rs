//! The upstream's address.

use http::Uri;
use http::uri::{Authority, Scheme};

/// Scheme, host and port of an upstream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    is_https: bool,
    authority: Authority,
}

impl Origin {
    /// Reads `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    ///
    /// # Errors
    /// What is wrong with it, and what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("`{text}` {what}; expected http://HOST[:PORT] or https://HOST[:PORT]")
        };
        let uri: Uri = text.parse().map_err(|_| wrong("is no URL"))?;
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(wrong("begins with neither http:// nor https://")),
        };
        let Some(authority) = uri.authority() else { return Err(wrong("names no host")) };
        // A target goes on byte for byte: there is nothing to put before it.
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
            return Err(wrong("has a path, a query or a fragment"));
        }
        if authority.as_str().contains('@') {
            return Err(wrong("has a user or a password"));
        }
        if authority.host().is_empty() {
            return Err(wrong("names no host"));
        }
        let has_port = authority.host().len() < authority.as_str().len();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(wrong("has a port that is none"));
        }
        Ok(Self { is_https, authority: authority.clone() })
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Host and port as they were given: the `Host` of a request that came without one.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The host, an IPv6 address without its brackets.
    pub(super) fn host(&self) -> &str {
        let host = self.authority.host();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    pub(super) fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.is_https { 443 } else { 80 })
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        for (text, host, port, is_https) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, false),
            ("http://api.example/", "api.example", 80, false),
            ("https://[::1]:8443", "::1", 8443, true),
            ("https://api.example", "api.example", 443, true),
        ] {
            let origin = Origin::parse(text).unwrap();
            assert_eq!((origin.host(), origin.port(), origin.is_https()), (host, port, is_https));
            assert_eq!(origin.to_string(), text.trim_end_matches('/'));
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_wrong() {
        for (text, what) in [
            ("127.0.0.1:8080", "neither"),
            ("ftp://a", "neither"),
            ("http://a/base", "has a path"),
            ("http://a?x", "has a path"),
            ("http://a#x", "has a path"),
            ("http://u:p@a", "has a user"),
            ("http://a:", "a port that is none"),
            ("http://a:0", "a port that is none"),
            ("http://a:99999", "a port that is none"),
            ("", ""),
        ] {
            let error = Origin::parse(text).unwrap_err();
            assert!(error.contains(what) && error.contains("expected http://"), "{text}: {error}");
        }
    }
}
