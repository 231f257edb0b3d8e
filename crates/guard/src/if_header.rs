//! The `If` header (RFC 4918, section 10.4), read to the letter.

use http::HeaderMap;
use leasehold_problems::Problem;

use crate::tokens::{IF, malformed};

/// One list: a resource (none: the target of the request) and its conditions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct List<'a> {
    /// The tag: a URI or an absolute path.
    pub tag: Option<&'a str>,
    /// The conditions, each with whether it is negated.
    pub conditions: Vec<(bool, Condition<'a>)>,
}

/// One condition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Condition<'a> {
    /// A state token, without its angle brackets.
    Token(&'a str),
    /// An entity tag, without its square brackets.
    Etag(&'a str),
}

/// The lists of a request's `If` header; none if it has none.
///
/// # Errors
/// `400 malformed-request` when it is there and is not one.
pub fn parse(headers: &HeaderMap) -> Result<Vec<List<'_>>, Box<Problem>> {
    let mut values = headers.get_all(IF).iter();
    let Some(value) = values.next() else { return Ok(Vec::new()) };
    if values.next().is_some() {
        return Err(malformed("If", "The If header was sent more than once."));
    }
    let text = value.to_str().map_err(|_| malformed("If", "The If header is not ASCII."))?;
    parse_text(text).map_err(|what| malformed("If", format!("The If header {what}.")))
}

/// The most conditions of one header: each is looked up.
pub const MAX_CONDITIONS: usize = 256;

fn parse_text(text: &str) -> Result<Vec<List<'_>>, &'static str> {
    let mut rest = text.trim_start();
    let mut lists: Vec<List<'_>> = Vec::new();
    let mut tag = None;
    let mut count = 0;
    if rest.is_empty() {
        return Err("is empty");
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('<') {
            let (uri, after) = after.split_once('>').ok_or("has a `<` without `>`")?;
            if uri.is_empty() || lists.iter().any(|list| list.tag.is_none()) {
                return Err("mixes lists with and without a resource");
            }
            tag = Some(uri);
            rest = after.trim_start();
            if !rest.starts_with('(') {
                return Err("has a resource without a list");
            }
        }
        let inside = rest.strip_prefix('(').ok_or("has something outside its lists")?;
        let (conditions, after) = parse_list(inside)?;
        count += conditions.len();
        if MAX_CONDITIONS < count {
            return Err("has more than 256 conditions");
        }
        lists.push(List { tag, conditions });
        rest = after.trim_start();
    }
    Ok(lists)
}

type Conditions<'a> = Vec<(bool, Condition<'a>)>;

fn parse_list(mut rest: &str) -> Result<(Conditions<'_>, &str), &'static str> {
    let mut conditions = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(')') {
            return if conditions.is_empty() {
                Err("has an empty list")
            } else {
                Ok((conditions, after))
            };
        }
        let negated = rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("not"));
        if negated {
            rest = rest[3..].trim_start();
        }
        if let Some(after) = rest.strip_prefix('<') {
            let (token, after) = after.split_once('>').ok_or("has a `<` without `>`")?;
            if token.is_empty() || token.contains(char::is_whitespace) {
                return Err("has a state token that is no URI");
            }
            conditions.push((negated, Condition::Token(token)));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            // An entity tag may contain `]` between its quotes.
            let quote = after.find('"').ok_or("has an entity tag without quotes")?;
            let end = after[quote + 1..].find('"').ok_or("has an entity tag without its end")?;
            let close = quote + 1 + end + 1;
            let etag = &after[..close];
            if !matches!(&after[..quote], "" | "W/") {
                return Err("has an entity tag that is none");
            }
            rest = after[close..].strip_prefix(']').ok_or("has a `[` without `]`")?;
            conditions.push((negated, Condition::Etag(etag)));
        } else {
            return Err("has a condition that is neither `<…>` nor `[…]`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_if_header_is_read_to_the_letter() {
        let lists = parse_text("(<a:b> [\"x]y\"]) (Not <DAV:no-lock>)").unwrap();
        assert_eq!(lists.len(), 2);
        assert_eq!(
            lists[0].conditions,
            [(false, Condition::Token("a:b")), (false, Condition::Etag("\"x]y\""))]
        );
        assert_eq!(lists[1].conditions, [(true, Condition::Token("DAV:no-lock"))]);
        let lists = parse_text("</x> (<a:b>) (<c:d>) </y> ([W/\"1\"])").unwrap();
        let tags: Vec<_> = lists.iter().map(|list| list.tag).collect();
        assert_eq!(tags, [Some("/x"), Some("/x"), Some("/y")]);
    }

    #[test]
    fn a_malformed_if_header_is_not_guessed_at() {
        for text in [
            "",
            "  ",
            "x",
            "()",
            "(",
            "(<a:b>",
            "(<a:b)",
            "<a:b>",
            "<a:b> x",
            "(<>)",
            "([x])",
            "([\"x\")",
            "(<a:b>) </x> (<c:d>)",
            "(a)",
            "(<a b>)",
            "(Not)",
            "(<a:b>) y",
            "([Z\"x\"])",
        ] {
            assert!(parse_text(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_if_header_has_so_many_conditions_and_no_more() {
        for conditions in [MAX_CONDITIONS, MAX_CONDITIONS + 1] {
            let is_legal = conditions == MAX_CONDITIONS;
            let one_list = format!("({})", "<a:b>".repeat(conditions));
            assert_eq!(parse_text(&one_list).is_ok(), is_legal);
            let many_lists = "(<a:b>)".repeat(conditions);
            assert_eq!(parse_text(&many_lists).is_ok(), is_legal);
        }
    }
}
