//! Conditional requests: RFC 9110, section 13, to the letter.
//!
//! `If-Range` is absent on purpose: there are no ranges here, and without one it is ignored.

use http::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
};
use leasehold_problems::Problem;

use super::answer;
use super::validators::{EntityTag, Tags, parse_http_date};

/// The conditions of one request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    if_unmodified_since: Option<i64>,
    if_modified_since: Option<i64>,
}

/// What a condition is judged against: what is there now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Current<'a> {
    /// Its entity tag; a list of children has none.
    pub(super) etag: Option<&'a str>,
    /// Its date in seconds, as it is shown.
    pub(super) modified: Option<i64>,
}

/// Whether a request reads or writes: a reader that is up to date is told so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    Read,
    Write,
}

/// What the conditions say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Go on.
    Holds,
    /// 304.
    NotModified,
    /// 412.
    Fails,
}

impl Conditions {
    /// Reads the fields of a request. A date that is none is ignored, as the RFC asks.
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, Box<Problem>> {
        Ok(Self {
            if_match: tags(headers, &IF_MATCH)?,
            if_none_match: tags(headers, &IF_NONE_MATCH)?,
            if_unmodified_since: date(headers, &IF_UNMODIFIED_SINCE),
            if_modified_since: date(headers, &IF_MODIFIED_SINCE),
        })
    }

    /// Judges them in the order of RFC 9110, section 13.2.2.
    pub(super) fn judge(&self, access: Access, current: Option<Current<'_>>) -> Verdict {
        let modified = current.and_then(|current| current.modified);
        let first = match (&self.if_match, self.if_unmodified_since, modified) {
            (Some(tags), _, _) => matches(tags, current, strong),
            (None, Some(since), Some(modified)) => modified <= since,
            // Section 13.1.4: ignored where there is no date to compare with.
            (None, _, _) => true,
        };
        if !first {
            return Verdict::Fails;
        }
        match (&self.if_none_match, self.if_modified_since, modified, access) {
            (Some(tags), _, _, _) => match (matches(tags, current, weak), access) {
                (false, _) => Verdict::Holds,
                (true, Access::Read) => Verdict::NotModified,
                (true, Access::Write) => Verdict::Fails,
            },
            (None, Some(since), Some(modified), Access::Read) if modified <= since => {
                Verdict::NotModified
            }
            _ => Verdict::Holds,
        }
    }
}

fn matches(
    tags: &Tags,
    current: Option<Current<'_>>,
    compare: fn(&EntityTag, &str) -> bool,
) -> bool {
    match (tags, current) {
        (_, None) => false,
        (Tags::Any, Some(_)) => true,
        (Tags::Listed(tags), Some(current)) => {
            current.etag.is_some_and(|etag| tags.iter().any(|tag| compare(tag, etag)))
        }
    }
}

/// Section 8.8.3.2. Ours are all strong.
fn strong(tag: &EntityTag, etag: &str) -> bool {
    !tag.weak && weak(tag, etag)
}

fn weak(tag: &EntityTag, etag: &str) -> bool {
    tag.opaque == etag.as_bytes()
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Box<Problem>> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let lines = headers.get_all(name).into_iter().map(|value| value.as_bytes());
    match Tags::parse(lines) {
        Some(tags) => Ok(Some(tags)),
        None => Err(answer::malformed(
            answer::field_name(name),
            format!(
                "The field {} is neither `*` nor a list of entity tags.",
                answer::field_name(name)
            ),
        )),
    }
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<i64> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => parse_http_date(value.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"0a0b0c0d-7\"";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn conditions(fields: &[(&'static str, &str)]) -> Conditions {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        Conditions::parse(&headers).unwrap()
    }

    #[test]
    fn conditions_are_judged_in_the_order_of_the_rfc() {
        use Verdict::{Fails, Holds, NotModified};
        let (same, other, weak) = (ETAG, "\"other\"", format!("W/{ETAG}"));
        let list = format!("{other}, {ETAG}");
        let document = Current { etag: Some(ETAG), modified: Some(784_111_777) };
        let children = Current { etag: None, modified: None };
        // The fields, and what they say: on a read, on a write, where there are only children,
        // and where there is nothing.
        for (fields, expected) in [
            (&[][..], [Holds, Holds, Holds, Holds]),
            (&[("if-match", "*")], [Holds, Holds, Holds, Fails]),
            (&[("if-match", same)], [Holds, Holds, Fails, Fails]),
            (&[("if-match", &list)], [Holds, Holds, Fails, Fails]),
            (&[("if-match", other), ("if-match", same)], [Holds, Holds, Fails, Fails]),
            (&[("if-match", &weak)], [Fails, Fails, Fails, Fails]),
            (&[("if-match", other)], [Fails, Fails, Fails, Fails]),
            (&[("if-match", "")], [Fails, Fails, Fails, Fails]),
            (&[("if-none-match", "*")], [NotModified, Fails, Fails, Holds]),
            (&[("if-none-match", same)], [NotModified, Fails, Holds, Holds]),
            (&[("if-none-match", &weak)], [NotModified, Fails, Holds, Holds]),
            (&[("if-none-match", &list)], [NotModified, Fails, Holds, Holds]),
            (&[("if-none-match", other)], [Holds, Holds, Holds, Holds]),
            (&[("if-unmodified-since", BEFORE)], [Fails, Fails, Holds, Holds]),
            (&[("if-unmodified-since", DATE)], [Holds, Holds, Holds, Holds]),
            (&[("if-unmodified-since", AFTER)], [Holds, Holds, Holds, Holds]),
            (&[("if-unmodified-since", "yesterday")], [Holds, Holds, Holds, Holds]),
            (&[("if-modified-since", BEFORE)], [Holds, Holds, Holds, Holds]),
            (&[("if-modified-since", DATE)], [NotModified, Holds, Holds, Holds]),
            (&[("if-modified-since", AFTER)], [NotModified, Holds, Holds, Holds]),
            (&[("if-modified-since", "tomorrow")], [Holds, Holds, Holds, Holds]),
            (
                &[("if-modified-since", DATE), ("if-modified-since", AFTER)],
                [Holds, Holds, Holds, Holds],
            ),
            // If-Match overrules If-Unmodified-Since; If-None-Match overrules If-Modified-Since.
            (&[("if-match", same), ("if-unmodified-since", BEFORE)], [Holds, Holds, Fails, Fails]),
            (
                &[("if-none-match", other), ("if-modified-since", AFTER)],
                [Holds, Holds, Holds, Holds],
            ),
            // Both steps count, and the first one first.
            (&[("if-match", same), ("if-none-match", same)], [NotModified, Fails, Fails, Fails]),
            (&[("if-match", other), ("if-none-match", same)], [Fails, Fails, Fails, Fails]),
            (
                &[("if-unmodified-since", DATE), ("if-none-match", same)],
                [NotModified, Fails, Holds, Holds],
            ),
            (
                &[("if-unmodified-since", BEFORE), ("if-modified-since", AFTER)],
                [Fails, Fails, Holds, Holds],
            ),
        ] {
            let conditions = conditions(fields);
            let judged = [
                conditions.judge(Access::Read, Some(document)),
                conditions.judge(Access::Write, Some(document)),
                conditions.judge(Access::Write, Some(children)),
                conditions.judge(Access::Write, None),
            ];
            assert_eq!(judged, expected, "{fields:?}");
        }
    }

    #[test]
    fn a_malformed_list_names_its_field() {
        for (name, shown) in [("if-match", "If-Match"), ("if-none-match", "If-None-Match")] {
            let mut headers = HeaderMap::new();
            headers.insert(name, "7".parse().unwrap());
            let problem = Conditions::parse(&headers).unwrap_err();
            assert_eq!(problem.members["field"], shown);
        }
    }
}
