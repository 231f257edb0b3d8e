//! The query of a request: the few parameters that mean something here. Others are ignored.

use leasehold_problems::Problem;

use super::answer;

/// The parameters, each as far as it was sent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Query {
    pub(super) recursive: Option<bool>,
    pub(super) list: Option<bool>,
    pub(super) limit: Option<usize>,
    pub(super) cursor: Option<String>,
}

const MAX_LIMIT: usize = 1000;

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Box<Problem>> {
        let mut parsed = Self::default();
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for (name, value) in pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            let twice = match decode(name).as_deref() {
                Some("recursive") => parsed.recursive.replace(flag("recursive", value)?).is_some(),
                Some("list") => parsed.list.replace(flag("list", value)?).is_some(),
                Some("limit") => parsed.limit.replace(limit(value)?).is_some(),
                Some("cursor") => parsed.cursor.replace(cursor(value)?).is_some(),
                _ => false,
            };
            if twice {
                return Err(answer::malformed(name, format!("`{name}` is given twice.")));
            }
        }
        Ok(parsed)
    }
}

fn flag(name: &str, value: &str) -> Result<bool, Box<Problem>> {
    match decode(value).as_deref() {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err(answer::malformed(name, format!("`{name}` is neither `true` nor `false`."))),
    }
}

fn limit(value: &str) -> Result<usize, Box<Problem>> {
    let digits = decode(value).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|text| text.parse().ok()) {
        Some(limit @ 1..=MAX_LIMIT) => Ok(limit),
        _ => Err(answer::malformed(
            "limit",
            format!("`limit` is not a whole number from 1 to {MAX_LIMIT}."),
        )),
    }
}

fn cursor(value: &str) -> Result<String, Box<Problem>> {
    decode(value).ok_or_else(answer::bad_cursor)
}

/// Decodes `application/x-www-form-urlencoded`; none when an escape is broken.
fn decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_names_its_field() {
        for (query, field) in [
            ("recursive=yes", "recursive"),
            ("recursive", "recursive"),
            ("list=1", "list"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=+1", "limit"),
            ("limit=-1", "limit"),
            ("limit=", "limit"),
            ("limit=99999999999999999999999", "limit"),
            ("limit=1&limit=1", "limit"),
            ("cursor=%zz", "cursor"),
            ("cursor=%ff", "cursor"),
        ] {
            assert_eq!(Query::parse(Some(query)).unwrap_err().members["field"], field, "{query}");
        }
        for query in ["", "&&", "a=%zz&b", "%=", "listing=1"] {
            assert_eq!(Query::parse(Some(query)).unwrap(), Query::default(), "{query}");
        }
        let all = Query::parse(Some("recursive=true&list=%74rue&limit=1000&cursor=a%2Bb")).unwrap();
        let (recursive, list, limit) = (Some(true), Some(true), Some(1000));
        assert_eq!(all, Query { recursive, list, limit, cursor: Some("a+b".into()) });
    }
}
