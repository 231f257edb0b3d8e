//! What a request asks for by header fields and query: waiting, and safe retries.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName};
use leasehold_core::lock::Idempotency;
use leasehold_problems::{Name, Problem};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fields::{malformed, to_ms};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How long an acquire waits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Wait {
    /// In milliseconds; 0: fail fast.
    pub ms: u64,
    /// The seconds that `Preference-Applied` names, where `Prefer` asked.
    pub applied: Option<u64>,
}

/// The value of a query parameter, percent-decoded.
#[must_use]
pub fn query(head: &Parts, name: &str) -> Option<String> {
    let query = head.uri.query()?;
    form_pairs(query).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The pairs of a query string, decoded as forms are.
pub fn form_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], pair) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (b'+', _) => {
                decoded.push(b' ');
                at += 1;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// How long the request asks to wait, at most `max_ms`.
///
/// # Errors
/// `422 wait-out-of-range` where `?wait=` is over it; `400` where it is no number.
pub fn wait(head: &Parts, max_ms: u64) -> Result<Wait, Box<Problem>> {
    if let Some(text) = query(head, "wait") {
        let seconds = text.parse::<f64>().ok().filter(|s| s.is_finite() && *s >= 0.0);
        let Some(seconds) = seconds else {
            return Err(malformed("wait", "`wait` is no number of seconds."));
        };
        let ms = to_ms(seconds);
        if max_ms < ms {
            let max = leasehold_guard::shown::seconds(max_ms);
            return Err(Box::new(
                Problem::new(Name::WaitOutOfRange, format!("The longest wait is {max} seconds."))
                    .with("max_wait_seconds", max),
            ));
        }
        return Ok(Wait { ms, applied: None });
    }
    Ok(preferred(&head.headers).map_or_else(Wait::default, |seconds| {
        let ms = seconds.saturating_mul(1000).min(max_ms);
        Wait { ms, applied: Some(ms / 1000) }
    }))
}

/// The `wait` preference (RFC 7240, section 4.3). A preference that cannot be read is ignored
/// (section 2).
fn preferred(headers: &HeaderMap) -> Option<u64> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|preference| {
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=')?;
            if !name.trim().eq_ignore_ascii_case("wait") {
                return None;
            }
            let digits = value.trim().trim_matches('"');
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            // A number of any length is one; it is cut like every other.
            is_number.then(|| digits.parse().unwrap_or(u64::MAX))
        })
}

/// The idempotency key of a request, with the digest of what it was sent with.
///
/// # Errors
/// `400` where it is not 1–255 visible ASCII characters, quoted or bare.
pub fn idempotency(
    headers: &HeaderMap,
    path: &str,
    body: &Value,
) -> Result<Option<Idempotency>, Box<Problem>> {
    let field = "Idempotency-Key";
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed(field, "Idempotency-Key was sent more than once."));
    }
    let broken = || malformed(field, "Idempotency-Key is not 1 to 255 visible ASCII characters.");
    let text = value.to_str().map_err(|_| broken())?.trim();
    let key = text
        .strip_prefix('"')
        .map_or(Some(text), |rest| rest.strip_suffix('"'))
        .ok_or_else(broken)?;
    if key.is_empty() || key.len() > 255 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(broken());
    }
    let mut digest = Sha256::new();
    digest.update(path.as_bytes());
    digest.update([0]);
    let mut canonical = String::new();
    write_canonical(body, &mut canonical);
    digest.update(canonical.as_bytes());
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(Idempotency { key: Arc::from(key), digest: Arc::from(digest) }))
}

/// One text for each JSON value: members sorted, numbers by value.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            text.push('{');
            for name in names {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write_canonical(&members[name], text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write_canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Number(number) if number.is_f64() => match number.as_f64() {
            // 60.0 is 60.
            Some(float) if float.fract() == 0.0 && float.abs() < 9e15 => {
                text.push_str(&format!("{float:.0}"));
            }
            _ => text.push_str(&number.to_string()),
        },
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_wait_is_cut_where_it_is_preferred_and_refused_where_it_is_demanded() {
        let ms = |head: Parts| wait(&head, 30_000).map(|wait| wait.ms).map_err(|p| p.name);
        assert_eq!(ms(head("/", &[])), Ok(0));
        assert_eq!(ms(head("/?wait=2.5", &[])), Ok(2500));
        assert_eq!(ms(head("/?wait=31", &[])), Err(Name::WaitOutOfRange));
        assert_eq!(ms(head("/?wait=-1", &[])), Err(Name::MalformedRequest));
        assert_eq!(ms(head("/?wait=x", &[])), Err(Name::MalformedRequest));
        assert_eq!(ms(head("/", &[("prefer", "respond-async, Wait=5")])), Ok(5000));
        assert_eq!(ms(head("/", &[("prefer", "wait=x")])), Ok(0));
        let cut = wait(&head("/", &[("prefer", "wait=100")]), 30_000).unwrap();
        assert_eq!(cut, Wait { ms: 30_000, applied: Some(30) });
    }

    #[test]
    fn a_key_stands_for_the_value_of_the_body_and_not_for_its_spelling() {
        let of = |key: &str, body: Value| {
            let head = head("/", &[("idempotency-key", key)]);
            idempotency(&head.headers, "/a/lock", &body).map(Option::unwrap).map_err(|p| p.name)
        };
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let first = of("k", json(r#"{"ttl_seconds": 60, "mode": "shared"}"#)).unwrap();
        assert_eq!(of("\"k\"", json(r#"{"mode":"shared","ttl_seconds":60.0}"#)).unwrap(), first);
        assert_ne!(of("k", json(r#"{"mode":"shared"}"#)).unwrap().digest, first.digest);
        for broken in ["", "\"", "\"k", "a b", "\"\""] {
            assert_eq!(of(broken, Value::Null), Err(Name::MalformedRequest), "{broken:?}");
        }
        assert!(of(&"k".repeat(255), Value::Null).is_ok());
        assert!(of(&"k".repeat(256), Value::Null).is_err());
    }
}
