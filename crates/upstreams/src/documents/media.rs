//! Media types and JSON: what a body says it is, and whether it is that.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use leasehold_problems::{Name, Problem};

use super::answer;

/// The deepest nesting of a JSON document: what can be read back into a value.
pub(super) const MAX_DEPTH: usize = 127;

const DEFAULT: &str = "application/json";

/// A media type as it was sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct MediaType(String);

impl MediaType {
    /// Reads `Content-Type`; none when there is none.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Box<Problem>> {
        let mut values = headers.get_all(CONTENT_TYPE).into_iter();
        let Some(value) = values.next() else { return Ok(None) };
        let media_type = match (value.to_str(), values.next()) {
            (Ok(text), None) if is_media_type(text.trim()) => Self(text.trim().to_owned()),
            _ => {
                return Err(answer::malformed(
                    "Content-Type",
                    "The field Content-Type is not one media type.",
                ));
            }
        };
        Ok(Some(media_type))
    }

    /// What a body without a media type is taken for.
    pub(super) fn json() -> Self {
        Self(DEFAULT.to_owned())
    }

    /// One that was stored.
    pub(super) fn stored(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Type and subtype, in lower case.
    pub(super) fn essence(&self) -> String {
        self.0.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// Whether it says that the body is JSON.
    pub(super) fn is_json(&self) -> bool {
        let essence = self.essence();
        essence == DEFAULT || essence.ends_with("+json")
    }
}

fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    essence.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub))
}

/// Refuses a body that is encoded: it would be kept, and given out, as what it is not.
pub(super) fn refuse_encoded(headers: &HeaderMap) -> Result<(), Box<Problem>> {
    let encoded = |value: &HeaderValue| {
        let value = value.as_bytes().trim_ascii();
        !value.is_empty() && !value.eq_ignore_ascii_case(b"identity")
    };
    if !headers.get_all(CONTENT_ENCODING).into_iter().any(encoded) {
        return Ok(());
    }
    let problem = Problem::new(
        Name::UnsupportedMediaType,
        "The body has a content encoding. Send it as it is.",
    )
    .header(http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Err(Box::new(problem))
}

/// The text of a JSON body: valid, and no deeper than [`MAX_DEPTH`].
pub(super) fn json_text(body: &[u8]) -> Result<&str, Box<Problem>> {
    let text = std::str::from_utf8(body).map_err(|error| {
        answer::malformed(
            "body",
            format!("The body is not valid JSON: no UTF-8 from byte {} on.", error.valid_up_to()),
        )
    })?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| not_json(&error))?;
    if depth(text) > MAX_DEPTH {
        return Err(answer::malformed(
            "body",
            format!("The body nests deeper than {MAX_DEPTH} levels."),
        ));
    }
    Ok(text)
}

/// The refusal of a body that is not JSON, or not what it should be.
pub(super) fn not_json(error: &serde_json::Error) -> Box<Problem> {
    let mut problem = answer::malformed("body", format!("The body is not valid JSON: {error}."));
    problem.members.insert("line".into(), error.line().into());
    problem.members.insert("column".into(), error.column().into());
    problem
}

/// How deep a valid JSON text nests.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_taken_can_be_read_back_into_a_value() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(json_text(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(serde_json::from_str::<serde_json::Value>(&nested(MAX_DEPTH)).is_ok());
        assert!(json_text(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        // Not by recursion: this must not overflow the stack.
        assert!(json_text(nested(1_000_000).as_bytes()).is_err());
        assert_eq!(depth(r#"{"a[[[\"[[":[{"b":"]"}]}"#), 3);
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        let problem = json_text(b"{\n  \"a\": }").unwrap_err();
        assert_eq!((&problem.members["line"], &problem.members["column"]), (&2.into(), &8.into()));
        for body in [&b""[..], b"{", b"{}{}", b"nan", b"\"\xff\"", b"{'a':1}", b"[1,]", b"\"\\x\""]
        {
            assert!(json_text(body).is_err(), "{body:?}");
        }
        for body in [&b"null"[..], b" {} ", b"1e400", b"\"\\ud83d\\ude00\""] {
            assert!(json_text(body).is_ok(), "{body:?}");
        }
    }

    #[test]
    fn json_is_known_by_its_media_type() {
        for (sent, json) in [
            ("application/json", Some(true)),
            ("Application/JSON; charset=utf-8", Some(true)),
            ("application/ld+json", Some(true)),
            ("application/problem+json;x=1", Some(true)),
            ("text/json", Some(false)),
            ("application/jsonl", Some(false)),
            ("text/plain", Some(false)),
            ("json", None),
            ("", None),
            ("a b/c", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, sent.parse().unwrap());
            let read = MediaType::of(&headers).ok().flatten();
            assert_eq!(read.map(|media_type| media_type.is_json()), json, "{sent}");
        }
    }
}
