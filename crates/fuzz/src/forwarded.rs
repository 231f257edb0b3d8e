//! The header fields of a request on its way through the gateway.

use std::sync::Arc;

use http::header::{CONNECTION, COOKIE, EXPECT, HOST, HeaderName, HeaderValue, TE, VIA};
use http::{HeaderMap, Request, Version};
use leasehold_upstreams::proxy::{Arrival, outgoing};

/// What the gateway says itself, whatever a client has said.
const SAID: [&str; 8] = [
    "host",
    "via",
    "te",
    "connection",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// What is for one connection, beside what `Connection` names.
const FOR_ONE: [&str; 8] = [
    "keep-alive",
    "proxy",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// What a client must not say to the upstream, where `_` is taken for `-`.
fn is_claim(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with("x-lock-")
        || ["x-original-url", "x-rewrite-url", "lock-token", "if"].contains(&name.as_str())
}

/// Whatever fields a request has: what is for one connection and what only the gateway may say does
/// not reach the upstream, there is one host, who came last is said truly, and all else is as it was.
/// The first byte says by what a request came; each line is a field.
pub fn forwarded(data: &[u8]) {
    let Some((first, lines)) = data.split_first() else { return };
    let flag = |bit: u8| first & (1 << bit) != 0;
    let (is_trusted, is_https) = (flag(0), flag(1));
    let peer: Arc<str> = if flag(2) { "::1".into() } else { "192.0.2.1".into() };
    let version = if flag(3) { Version::HTTP_2 } else { Version::HTTP_11 };
    let request = Request::builder().uri("/a?b=%2f").version(version).body(());
    let mut head = request.expect("a request that is known").into_parts().0;
    for line in lines.split(|byte| *byte == b'\n').take(64) {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..at]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&line[at + 1..])) {
            head.headers.append(name, value);
        }
    }
    let before = head.headers.clone();
    head.extensions.insert(Arrival { peer: peer.clone(), is_https, is_trusted });
    outgoing(&mut head, "up:80", None, None);
    let after = head.headers;

    let named = named(&before);
    for name in after.keys().map(HeaderName::as_str) {
        let is_said = SAID.contains(&name);
        assert!(is_said || !named.iter().any(|each| each == name), "{name} is for one connection");
        assert!(!FOR_ONE.contains(&name), "{name} is for one connection");
        assert!(!is_claim(name), "{name} is the gateway's to say");
        assert!(is_said || !SAID.contains(&name.replace('_', "-").as_str()), "{name}");
    }
    assert_eq!(after.get_all(HOST).iter().count(), 1, "one host");
    let last = |name: &str| {
        let values = after.get_all(name).iter().next_back().map(|value| value.as_bytes().to_vec());
        values.expect("the gateway says it")
    };
    assert!(last("x-forwarded-for").ends_with(peer.as_bytes()));
    assert!(last("via").ends_with(b" leasehold"));
    if !is_trusted {
        let scheme = if is_https { "https" } else { "http" };
        assert_eq!(last("x-forwarded-for"), peer.as_bytes());
        assert_eq!(last("x-forwarded-proto"), scheme.as_bytes());
        for name in ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"] {
            assert_eq!(after.get_all(name).iter().count(), 1, "{name} is said once");
        }
    }
    assert!(after.get_all(TE).iter().all(|value| value == "trailers"));
    assert!(after.get_all(CONNECTION).iter().all(|value| value == "te"));
    assert!(
        after.get_all(VIA).iter().count() > before.get_all(VIA).iter().count() || {
            named.iter().any(|name| name == "via")
        }
    );
    for name in before.keys() {
        let text = name.as_str();
        let is_changed = SAID.contains(&text.replace('_', "-").as_str())
            || FOR_ONE.contains(&text)
            || named.iter().any(|each| each == text)
            || is_claim(text)
            || *name == EXPECT
            || (*name == COOKIE && version == Version::HTTP_2);
        if !is_changed {
            assert!(before.get_all(name).iter().eq(after.get_all(name)), "{name} is as it was");
        }
    }
}

/// What a request's `Connection` names.
fn named(headers: &HeaderMap) -> Vec<String> {
    let texts = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}
