//! Browsers: which pages may call the server (CORS), and which may not make a browser do so for
//! them.
//!
//! A browser sends requests that its user did not mean: any page can make it. Where callers show
//! a key, such a request has none and is refused as any other. In anonymous mode nothing would
//! tell it apart, nor where a browser sends by itself what a caller is known by: so
//! [`Browsers::check`] looks at what browsers say of a request's origin.
//! A program that is no browser sends neither field, and passes.
//!
//! Deliberately absent: cookies, and so `Access-Control-Allow-Credentials`. A page shows its key
//! in `Authorization`, which CORS treats as any other field.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use leasehold_guard::body::{self, Body};
use leasehold_guard::method::is_safe;
use leasehold_problems::{Name, Problem};

use crate::config::IdentityMode;

/// What a page's script may read of an answer. Browsers do not understand `X-Lock-*`.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "ETag, Location, Retry-After, Link, Lock-Token, Preference-Applied, Idempotency-Replayed, \
     X-Lock-Fence, X-Lock-Id, X-Lock-Holder, X-Lock-Requested-By, RateLimit, \
     RateLimit-Policy",
);

/// Where a browser says how the page that sends a request stands to its target.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE");

/// For how many seconds a browser may remember a preflight's answer.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Where a page comes from: scheme, host, and port unless it is the scheme's own, as browsers
/// write it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin(Box<str>);

/// A text is no origin.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is not an origin such as \"https://app.example.com\" or \"http://localhost:3000\"; \
     each has to be named"
)]
pub struct NotAnOrigin(String);

impl Origin {
    /// The origin, as a browser sends it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let lower = text.to_ascii_lowercase();
        match split(&lower) {
            Some((scheme, host, port)) if port == default_port(scheme) => {
                Ok(Self(format!("{scheme}://{host}").into()))
            }
            Some((scheme, host, port)) => Ok(Self(format!("{scheme}://{host}:{port}").into())),
            None => Err(NotAnOrigin(text.to_owned())),
        }
    }
}

/// Scheme, host and port of an origin in lower case.
fn split(origin: &str) -> Option<(&str, &str, u16)> {
    let (scheme, authority) = origin.split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let (host, port) = split_authority(authority)?;
    Some((scheme, host, port.unwrap_or(default_port(scheme))))
}

fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    // The colons within `[::1]` are no port's.
    let colon = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    let (host, port) = match colon {
        Some(at) => (&authority[..at], Some(authority[at + 1..].parse().ok()?)),
        None => (authority, None),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    let brackets = host.starts_with('[') && host.ends_with(']');
    let sound = !host.is_empty() && host.chars().all(legal) && (brackets || !host.contains(':'));
    sound.then_some((host, port))
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

/// What the server says to browsers.
#[derive(Debug)]
pub struct Browsers {
    origins: ArcSwap<Vec<Origin>>,
    ambient: Ambient,
}

/// Which requests need nothing that a page of another site could not make a browser send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ambient {
    /// None: each shows what a page has to know.
    None,
    /// Every one: nobody is asked, a proxy asks for a cookie, or the browser for a certificate.
    All,
    /// Every one, and of those that pass on to the upstream the upstream is to think for itself.
    Own,
}

impl Browsers {
    /// Pages of `origins` may call a server that tells its callers apart in this way.
    #[must_use]
    pub fn new(origins: Vec<Origin>, identity: IdentityMode) -> Self {
        let ambient = match identity {
            IdentityMode::Anonymous | IdentityMode::Header | IdentityMode::Certificate => {
                Ambient::All
            }
            IdentityMode::Keys | IdentityMode::Jwt => Ambient::None,
            IdentityMode::Digest => Ambient::Own,
        };
        Self { origins: ArcSwap::from_pointee(origins), ambient }
    }

    /// From now on, pages of these origins may.
    pub fn set_origins(&self, origins: Vec<Origin>) {
        self.origins.store(Arc::new(origins));
    }

    /// Answers a preflight of a listed origin. It comes before identity: a browser sends it
    /// without the credentials of the request it asks about. A preflight of any other origin is
    /// an `OPTIONS` like any other, and the browser takes its answer, which has no CORS fields,
    /// as a no.
    #[must_use]
    pub fn preflight(&self, head: &Parts) -> Option<Response<Body>> {
        if head.method != Method::OPTIONS
            || !head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
            || !self.is_listed(head.headers.get(ORIGIN)?)
        {
            return None;
        }
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        if let Some(asked) = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            headers.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
        }
        self.decorate(head.headers.get(ORIGIN), headers);
        Some(response)
    }

    /// Refuses what another site made a browser send, where that proves nothing of the caller.
    /// `passes_on`: it is for what stands behind the server.
    ///
    /// # Errors
    /// `403 forbidden`.
    pub fn check(&self, head: &Parts, passes_on: bool) -> Result<(), Box<Problem>> {
        match self.ambient {
            Ambient::None => return Ok(()),
            Ambient::Own if passes_on => return Ok(()),
            Ambient::Own | Ambient::All => {}
        }
        if let Some(origin) = head.headers.get(ORIGIN) {
            if self.is_listed(origin) {
                return Ok(());
            }
            if !is_own(origin, head) {
                return Err(refusal("the page that sent this request is of another origin"));
            }
        }
        let site = head.headers.get(SEC_FETCH_SITE);
        if site.is_some_and(|site| site == "cross-site") && !is_safe(&head.method) {
            return Err(refusal("another site made the browser send this request"));
        }
        Ok(())
    }

    /// Puts the CORS fields on an answer to a request whose `Origin` was `origin`.
    pub fn decorate(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if self.origins.load().is_empty() {
            return;
        }
        // Also where the origin is not listed: a cache must not give its answer to one that is.
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin.filter(|origin| self.is_listed(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    fn is_listed(&self, origin: &HeaderValue) -> bool {
        self.origins.load().iter().any(|listed| listed.as_str().as_bytes() == origin.as_bytes())
    }
}

/// Whether the page is one of this server's own: its host and port are those the request is for.
/// The scheme is not compared, for TLS may have ended before the request came here.
fn is_own(origin: &HeaderValue, head: &Parts) -> bool {
    let Ok(origin) = origin.to_str().map(str::to_ascii_lowercase) else { return false };
    let authority = match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(HOST).and_then(|host| host.to_str().ok()),
    };
    let authority = authority.map(str::to_ascii_lowercase);
    let (Some((scheme, host, port)), Some(own)) = (split(&origin), &authority) else {
        return false;
    };
    split_authority(own).is_some_and(|(own_host, own_port)| {
        own_host == host && own_port.unwrap_or(default_port(scheme)) == port
    })
}

fn refusal(what: &str) -> Box<Problem> {
    let detail = format!(
        "{what}, and its user may not know of it; the operator can list the page's origin in \
         `cors_origins`"
    );
    Box::new(Problem::new(Name::Forbidden, detail))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(method: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/a");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn browsers(identity: IdentityMode) -> Browsers {
        Browsers::new(vec!["https://app.example".parse().unwrap()], identity)
    }

    #[test]
    fn an_origin_is_scheme_host_and_port_and_nothing_else() {
        for (text, origin) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example:443", "https://app.example"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().as_str(), origin);
        }
        for bad in [
            "*",
            "null",
            "",
            "app.example",
            "https://",
            "https://a/",
            "https://a/b",
            "https://u@a",
            "https://a:b",
            "https://a:",
            "https://*.a",
            "https://a b",
            "file://a",
            "http://::1",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_preflight_of_a_listed_origin_is_answered_and_no_other() {
        let browsers = browsers(IdentityMode::Keys);
        let asks = ("access-control-request-method", "PUT");
        let from = ("origin", "https://app.example");
        let fields = ("access-control-request-headers", "authorization, x-lock-token");
        let answer = browsers.preflight(&head("OPTIONS", &[from, asks, fields])).unwrap();
        assert_eq!(answer.status(), 204);
        let field = |name: &str| answer.headers()[name].to_str().unwrap();
        assert_eq!(field("access-control-allow-origin"), "https://app.example");
        assert_eq!(field("access-control-allow-headers"), "authorization, x-lock-token");
        assert!(field("access-control-allow-methods").contains("PATCH"));
        let vary: Vec<_> = answer.headers().get_all("vary").iter().collect();
        assert_eq!(vary, ["Access-Control-Request-Headers", "Origin"]);

        assert!(browsers.preflight(&head("OPTIONS", &[from])).is_none());
        assert!(browsers.preflight(&head("GET", &[from, asks])).is_none());
        assert!(browsers.preflight(&head("OPTIONS", &[asks])).is_none());
        let other = ("origin", "https://evil.example");
        assert!(browsers.preflight(&head("OPTIONS", &[other, asks])).is_none());
    }

    #[test]
    fn every_answer_has_the_fields_for_a_listed_origin_and_varies_for_all() {
        let browsers = browsers(IdentityMode::Keys);
        let decorate = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            browsers.decorate(origin.map(HeaderValue::from_static).as_ref(), &mut headers);
            headers
        };
        let headers = decorate(Some("https://app.example"));
        assert_eq!(headers["access-control-allow-origin"], "https://app.example");
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.starts_with("ETag, Location, Retry-After, Link, Lock-Token, Preference-"));
        for origin in [None, Some("https://evil.example"), Some("null")] {
            let headers = decorate(origin);
            assert_eq!(headers["vary"], "Origin");
            assert!(!headers.contains_key("access-control-allow-origin"), "{origin:?}");
        }
        browsers.set_origins(Vec::new());
        let mut headers = HeaderMap::new();
        let origin = HeaderValue::from_static("https://app.example");
        browsers.decorate(Some(&origin), &mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn in_anonymous_mode_another_site_cannot_use_the_browser() {
        let own = ("host", "127.0.0.1:7423");
        let cross = ("sec-fetch-site", "cross-site");
        for (method, fields, passes) in [
            // No browser.
            ("PUT", vec![own], true),
            // Its own pages, and what the user does.
            ("PUT", vec![own, ("origin", "http://127.0.0.1:7423")], true),
            ("PUT", vec![own, ("origin", "HTTP://127.0.0.1:7423")], true),
            ("PUT", vec![("host", "a.example"), ("origin", "https://a.example")], true),
            ("PUT", vec![("host", "a.example:443"), ("origin", "https://a.example")], true),
            ("GET", vec![own, ("sec-fetch-site", "none")], true),
            // A link on another site.
            ("GET", vec![own, cross], true),
            ("HEAD", vec![own, cross], true),
            // A form or a script on another site.
            ("POST", vec![own, cross], false),
            ("POST", vec![own, cross, ("origin", "null")], false),
            ("DELETE", vec![own, ("origin", "https://evil.example")], false),
            ("GET", vec![own, ("origin", "https://evil.example")], false),
            ("PUT", vec![own, ("origin", "http://127.0.0.1:7424")], false),
            ("PUT", vec![own, ("origin", "http://127.0.0.1")], false),
            ("PUT", vec![("origin", "http://127.0.0.1:7423")], false),
            ("PUT", vec![("host", "a.example"), ("origin", "https://a.example:8443")], false),
            // A listed one.
            ("PUT", vec![own, cross, ("origin", "https://app.example")], true),
        ] {
            let head = head(method, &fields);
            let checked = browsers(IdentityMode::Anonymous).check(&head, false);
            assert_eq!(checked.is_ok(), passes, "{method} {fields:?}");
            if let Err(problem) = checked {
                assert_eq!(problem.name, Name::Forbidden);
            }
            assert!(browsers(IdentityMode::Keys).check(&head, false).is_ok());
            // What the upstream takes from other sites it says itself.
            let digest = browsers(IdentityMode::Digest);
            assert_eq!(digest.check(&head, false).is_ok(), passes, "{method} {fields:?}");
            assert!(digest.check(&head, true).is_ok());
        }
    }
}
