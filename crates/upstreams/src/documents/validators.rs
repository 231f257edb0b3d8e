//! The two validators of a version: its entity tag and its date (RFC 9110, section 8.8).
//!
//! An entity tag is the incarnation and the version. Versions are never given out twice in one
//! incarnation, and a restore from a backup begins another: no tag comes back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leasehold_core::time::WallTime;

/// The last second that an HTTP date can name: the end of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

/// An entity tag as a client sends it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct EntityTag {
    /// Whether it was marked as weak.
    pub(super) weak: bool,
    /// With its quotes.
    pub(super) opaque: Vec<u8>,
}

/// What one field of `If-Match` or `If-None-Match` asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Tags {
    /// `*`: any version.
    Any,
    /// One of these.
    Listed(Vec<EntityTag>),
}

/// The entity tag of a version, with its quotes.
pub(super) fn etag(incarnation: &str, version: i64) -> String {
    format!("\"{incarnation}-{version}\"")
}

impl Tags {
    /// Reads the lines of a field. None when they are neither `*` nor a list of entity tags.
    pub(super) fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        // RFC 9110, section 5.3: several lines are one, joined with commas.
        let joined = lines.collect::<Vec<_>>().join(&b',');
        if joined.trim_ascii() == b"*" {
            return Some(Self::Any);
        }
        let mut tags = Vec::new();
        let mut rest = joined.trim_ascii_start();
        loop {
            // RFC 9110, section 5.6.1.2: empty members are ignored.
            while let Some(after) = rest.strip_prefix(b",") {
                rest = after.trim_ascii_start();
            }
            if rest.is_empty() {
                return Some(Self::Listed(tags));
            }
            let (tag, after) = entity_tag(rest)?;
            tags.push(tag);
            rest = after.trim_ascii_start();
            if !rest.is_empty() && !rest.starts_with(b",") {
                return None;
            }
        }
    }
}

fn entity_tag(text: &[u8]) -> Option<(EntityTag, &[u8])> {
    let (weak, text) = match text.strip_prefix(b"W/") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let inner = text.strip_prefix(b"\"")?;
    let length = inner.iter().position(|byte| *byte == b'"')?;
    // etagc: visible characters without the quote, and everything from 0x80.
    if inner[..length].iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return None;
    }
    let (opaque, after) = text.split_at(length + 2);
    Some((EntityTag { weak, opaque: opaque.to_vec() }, after))
}

/// The date that is shown for a version, in whole seconds.
///
/// RFC 9110, section 8.8.2.1: never later than now, also when the clock was wrong once.
pub(super) fn shown_seconds(modified: WallTime, now: WallTime) -> i64 {
    modified.min(now).0.div_euclid(1000).clamp(0, LAST_SECOND)
}

/// An HTTP date in its preferred form.
pub(super) fn http_date(seconds: i64) -> String {
    let seconds = u64::try_from(seconds.clamp(0, LAST_SECOND)).unwrap_or(0);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Reads an HTTP date in any of its three forms, in whole seconds.
pub(super) fn parse_http_date(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let time: SystemTime = httpdate::parse_http_date(text.trim_ascii()).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Option<Vec<String>> {
        match Tags::parse(lines.iter().map(|line| line.as_bytes()))? {
            Tags::Any => Some(vec!["*".into()]),
            Tags::Listed(tags) => Some(
                tags.into_iter()
                    .map(|tag| {
                        let weak = if tag.weak { "W/" } else { "" };
                        format!("{weak}{}", String::from_utf8(tag.opaque).unwrap())
                    })
                    .collect(),
            ),
        }
    }

    #[test]
    fn a_list_of_entity_tags_is_read_to_the_letter() {
        for (lines, read) in [
            (&["*"][..], Some(&["*"][..])),
            (&[" * "], Some(&["*"])),
            (&[r#""a""#], Some(&[r#""a""#])),
            (&[r#"W/"a""#], Some(&[r#"W/"a""#])),
            (&[r#""a", "b","c""#], Some(&[r#""a""#, r#""b""#, r#""c""#])),
            (&[r#""a""#, r#""b""#], Some(&[r#""a""#, r#""b""#])),
            (&[r#", "a",, ,"b" ,"#], Some(&[r#""a""#, r#""b""#])),
            (&[r#""a,b""#], Some(&[r#""a,b""#])),
            (&[r#""""#], Some(&[r#""""#])),
            (&[""], Some(&[])),
            (&["a"], None),
            (&[r#""a"#], None),
            (&[r#""a" "b""#], None),
            (&[r#"w/"a""#], None),
            (&[r#"W/ "a""#], None),
            (&[r#""a b""#], None),
            (&[r#"*, "a""#], None),
            (&[r#""a""#, "*"], None),
        ] {
            let expected =
                read.map(|tags| tags.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(parse(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn dates_are_written_in_one_form_and_read_in_three() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        for form in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_http_date(form.as_bytes()), Some(784_111_777), "{form}");
        }
        for form in ["", "yesterday", "Sun, 06 Nov 1994 08:49:37", "1994-11-06T08:49:37Z", "\u{ff}"]
        {
            assert_eq!(parse_http_date(form.as_bytes()), None, "{form}");
        }
        for seconds in [i64::MIN, -1, i64::MAX] {
            http_date(seconds);
        }
        assert_eq!(shown_seconds(WallTime(9_999), WallTime(5_500)), 5);
        assert_eq!(shown_seconds(WallTime(-1), WallTime(5_500)), 0);
    }
}
