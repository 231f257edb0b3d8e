//! The header fields of a request and of its answer, on their way through.
//!
//! What always holds: what is meant for one connection stays there; what says who came and under
//! which lock is said by the gateway alone. Everything else goes on as it came.

use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::request::Parts;
use http::{HeaderMap, Method, Uri, Version};
use leasehold_core::event::Subject;
use leasehold_guard::fields::{HOP_BY_HOP, drop_claims, tell_lock};

/// Where a request came from: an extension of its head, put there by whoever accepted it.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The address of the peer, without its port.
    pub peer: Arc<str>,
    /// Whether it came over TLS.
    pub is_https: bool,
    /// Whether the peer is a proxy whose word on who came before it counts.
    pub is_trusted: bool,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What says who came, and for what.
static FORWARDING: [HeaderName; 4] =
    [FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST];

/// Makes a request's head that of the request to the upstream. `upgrade` is what its client may
/// change the connection to.
pub fn outgoing(
    head: &mut Parts,
    authority: &str,
    lock: Option<&Subject>,
    upgrade: Option<&HeaderValue>,
) {
    let takes_trailers =
        members(&head.headers, &TE).any(|one| one.eq_ignore_ascii_case("trailers"));
    let via = match head.version {
        Version::HTTP_10 => "1.0 leasehold",
        Version::HTTP_2 => "2.0 leasehold",
        _ => "1.1 leasehold",
    };
    drop_hop_by_hop(&mut head.headers);
    drop_claims(&mut head.headers);
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    // Answered here: the client is asked for its body when the upstream takes it.
    head.headers.remove(EXPECT);
    let host = host_of(&head.uri, &head.headers, authority);
    if let Some(arrival) = head.extensions.remove::<Arrival>() {
        forwarded(&mut head.headers, &arrival, &host);
    }
    head.headers.insert(HOST, host);
    head.headers.append(VIA, HeaderValue::from_static(via));
    if takes_trailers {
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
        head.headers.append(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(protocol) = upgrade {
        head.headers.insert(UPGRADE, protocol.clone());
        head.headers.append(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if let Some(lock) = lock {
        tell_lock(&mut head.headers, lock);
    }
    head.uri = match head.uri.path_and_query() {
        Some(target) => Uri::from(target.clone()),
        None => Uri::from_static("/"),
    };
    head.version = Version::HTTP_11;
}

/// Makes an answer's head that of the answer to the client.
pub(super) fn incoming(headers: &mut HeaderMap, version: Version) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112, section 6.3: it overrides the length, which was of something else.
        headers.remove(CONTENT_LENGTH);
    }
    drop_hop_by_hop(headers);
    let via = if version == Version::HTTP_10 { "1.0 leasehold" } else { "1.1 leasehold" };
    headers.append(VIA, HeaderValue::from_static(via));
}

/// Trailers could say again what the header must not say.
pub(super) fn trailers(trailers: &mut HeaderMap) {
    drop_hop_by_hop(trailers);
    drop_claims(trailers);
}

/// What a request asks to change its connection to, where it may: a reading request, and not to
/// another kind of HTTP or to TLS, under which requests would come that nobody judges.
pub(super) fn upgrade(method: &Method, headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = *method == Method::GET
        && members(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"));
    if !asks {
        return None;
    }
    let judged = |protocol: &&str| {
        let name = protocol.split('/').next().unwrap_or(protocol).trim().to_ascii_lowercase();
        !matches!(name.as_str(), "" | "h2c" | "h2" | "h3" | "http" | "tls")
    };
    let protocols: Vec<&str> = members(headers, &UPGRADE).filter(judged).collect();
    HeaderValue::from_str(&protocols.join(", ")).ok().filter(|value| !value.is_empty())
}

/// Whether `headers` agree to change the connection to one of `asked`.
pub(super) fn agrees(headers: &HeaderMap, asked: &HeaderValue) -> bool {
    let asked = asked.to_str().unwrap_or_default();
    let mut agreed = members(headers, &UPGRADE).peekable();
    agreed.peek().is_some()
        && agreed.all(|one| asked.split(',').any(|each| each.trim().eq_ignore_ascii_case(one)))
}

/// The members of a list field that are text.
fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    // Most heads have none, and one look at each field costs less than a search for each of these.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> =
        members(headers, &CONNECTION).filter_map(|name| name.parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Makes one `Cookie` of several: HTTP/2 may split it, and HTTP/1.1 knows but one (RFC 9113, section
/// 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut parts = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let (Some(first), Some(second)) = (parts.next(), parts.next()) else { return };
    let mut joined = first.to_vec();
    for part in std::iter::once(second).chain(parts) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(part);
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

/// The host that a request is for: its target's, where that names one (RFC 9112, section 3.2.2).
fn host_of(uri: &Uri, headers: &HeaderMap, upstream: &str) -> HeaderValue {
    let named = uri.authority().map(|authority| {
        let text = authority.as_str();
        text.rsplit_once('@').map_or(text, |(_, host)| host)
    });
    let named = named.and_then(|host| HeaderValue::from_str(host).ok());
    named
        .or_else(|| headers.get(HOST).cloned())
        .or_else(|| HeaderValue::from_str(upstream).ok())
        .unwrap_or_else(|| HeaderValue::from_static(""))
}

fn forwarded(headers: &mut HeaderMap, arrival: &Arrival, host: &HeaderValue) {
    let mut is_said = headers.keys().any(|name| FORWARDING.contains(name));
    if is_said && !arrival.is_trusted {
        for name in &FORWARDING {
            headers.remove(name);
        }
        is_said = false;
    }
    let scheme = if arrival.is_https { "https" } else { "http" };
    let element = element(&arrival.peer, scheme, host);
    for (name, value) in [(FORWARDED, element.as_str()), (X_FORWARDED_FOR, &arrival.peer)] {
        let before: Vec<&str> =
            if is_said { members(headers, &name).collect() } else { Vec::new() };
        let list = if before.is_empty() {
            HeaderValue::from_str(value)
        } else {
            HeaderValue::from_str(&format!("{}, {value}", before.join(", ")))
        };
        if let Ok(list) = list {
            headers.insert(name, list);
        }
    }
    // What the first proxy was asked for, where that one's word counts.
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(scheme));
    headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
}

/// What is added to `Forwarded` (RFC 7239, section 4).
fn element(peer: &str, scheme: &str, host: &HeaderValue) -> String {
    // With room for all of it.
    let mut element = String::with_capacity(32 + peer.len() + host.len());
    let is_v6 = peer.contains(':');
    let (before, after) = if is_v6 { ("for=\"[", "]\"") } else { ("for=", "") };
    for part in [before, peer, after, ";proto=", scheme] {
        element.push_str(part);
    }
    if let Ok(host) = host.to_str()
        && !host.is_empty()
        && !host.contains(['"', '\\'])
    {
        for part in [";host=\"", host, "\""] {
            element.push_str(part);
        }
    }
    element
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn sent(fields: &[(&str, &str)]) -> HeaderMap {
        sent_by(fields, false)
    }

    fn sent_by(fields: &[(&str, &str)], is_trusted: bool) -> HeaderMap {
        let mut request = Request::builder().uri("/a?b=%2f").header("Host", "api.example");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        head.extensions.insert(Arrival { peer: "::1".into(), is_https: true, is_trusted });
        outgoing(&mut head, "up:80", None, None);
        assert_eq!(head.uri, "/a?b=%2f");
        head.headers
    }

    #[test]
    fn what_is_for_one_connection_stays_there() {
        let headers = sent(&[
            ("Connection", "close, X-Mine"),
            ("Connection", "cookie"),
            ("X-Mine", "1"),
            ("Cookie", "a"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authorization", "Basic x"),
            ("Proxy-Connection", "close"),
            ("Proxy", "http://evil"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "x"),
            ("TE", "gzip, trailers"),
            ("Expect", "100-continue"),
            ("X-Yours", "2"),
        ]);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let kept = [
            "connection",
            "forwarded",
            "host",
            "te",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-yours",
        ];
        assert_eq!(names, kept);
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["connection"], "te");
    }

    #[test]
    fn cookies_that_http2_has_split_are_joined() {
        for (version, expected) in [
            (Version::HTTP_2, &["a=1; b=2; c=3; a=4"][..]),
            (Version::HTTP_11, &["a=1", "b=2; c=3", "a=4"]),
        ] {
            let request = Request::builder().version(version).uri("/a").header("Host", "a");
            let crumbs = request.header("Cookie", "a=1").header("Cookie", "b=2; c=3");
            let request = crumbs.header("Cookie", "a=4").body(()).unwrap();
            let (mut head, ()) = request.into_parts();
            outgoing(&mut head, "up:80", None, None);
            let cookies: Vec<_> = head.headers.get_all("cookie").iter().collect();
            assert_eq!(cookies, expected);
        }
    }

    #[test]
    fn nobody_says_to_the_upstream_what_the_gateway_says() {
        for name in [
            "X-Lock-Token",
            "x_lock_fence",
            "X-Lock_Id",
            "X-LOCK-HOLDER",
            "X-Original-URL",
            "x_rewrite_url",
            "If",
            "Lock-Token",
            "x_forwarded_for",
        ] {
            let headers = sent(&[(name, "forged")]);
            assert!(headers.values().all(|value| value != "forged"), "{name}: {headers:?}");
        }
        for name in ["If-Match", "X-Locker", "X-Original", "X_Lock"] {
            assert_eq!(sent(&[(name, "mine")])[name], "mine");
        }
    }

    #[test]
    fn who_came_is_said_by_the_gateway_or_a_proxy_that_is_trusted() {
        let claims = [
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-Host", "evil"),
            ("X-Forwarded-Proto", "ftp"),
            ("Forwarded", "for=6.6.6.6"),
        ];
        let own = r#"for="[::1]";proto=https;host="api.example""#;
        let headers = sent(&claims);
        assert_eq!(headers["x-forwarded-for"], "::1");
        assert_eq!(headers["x-forwarded-host"], "api.example");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["forwarded"], own);
        let headers = sent_by(&claims, true);
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, ::1");
        assert_eq!(headers["x-forwarded-host"], "evil");
        assert_eq!(headers["x-forwarded-proto"], "ftp");
        assert_eq!(headers["forwarded"], format!("for=6.6.6.6, {own}"));
    }

    #[test]
    fn a_connection_is_changed_by_reading_requests_and_to_nothing_that_carries_requests() {
        for (method, connection, protocols, expected) in [
            (Method::GET, "Upgrade", "websocket", Some("websocket")),
            (Method::GET, "keep-alive, upgrade", "h2c, websocket", Some("websocket")),
            (Method::GET, "Upgrade", "HTTP/2.0, TLS/1.3, h2c", None),
            (Method::GET, "close", "websocket", None),
            (Method::POST, "Upgrade", "websocket", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_static(connection));
            headers.insert(UPGRADE, HeaderValue::from_static(protocols));
            let found = upgrade(&method, &headers);
            assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), expected);
        }
        let mut answer = HeaderMap::new();
        let asked = HeaderValue::from_static("websocket");
        assert!(!agrees(&answer, &asked));
        answer.insert(UPGRADE, HeaderValue::from_static("h2c"));
        assert!(!agrees(&answer, &asked));
        answer.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        assert!(agrees(&answer, &asked));
    }
}
