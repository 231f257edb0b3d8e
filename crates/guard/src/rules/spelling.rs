//! The spelling of a URL: what an upstream takes for the same is made the same.
//!
//! In doubt two URLs are one resource: that costs a wait, the opposite would be a way around a
//! lock.

use leasehold_core::pattern::Pattern;
use leasehold_core::resource::{PathError, Resource};

use super::{NoResource, Rule};

/// Which differences in spelling an upstream does not see.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fold {
    /// Upper and lower case.
    pub case: bool,
    /// What follows a `;` in a segment.
    pub params: bool,
}

impl Fold {
    /// Whether it folds nothing.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Whether it makes everything the same that `other` makes the same.
    #[must_use]
    pub fn takes_all_of(self, other: Self) -> bool {
        (self.case || !other.case) && (self.params || !other.params)
    }

    /// What either makes the same.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { case: self.case || other.case, params: self.params || other.params }
    }

    /// A path in the one spelling.
    ///
    /// # Errors
    /// When that is no path.
    pub fn path(self, path: &Resource) -> Result<Resource, PathError> {
        if self.is_none() { Ok(path.clone()) } else { path.map_segments(|text| self.text(text)) }
    }

    /// A pattern whose literal segments have the one spelling.
    ///
    /// # Errors
    /// When one is no segment then.
    pub fn pattern(self, pattern: &Pattern) -> Result<Pattern, PathError> {
        if self.is_none() {
            Ok(pattern.clone())
        } else {
            pattern.map_literals(|text| self.text(text))
        }
    }

    /// One decoded segment.
    fn text(self, text: &str) -> String {
        let bare = match text.split_once(';') {
            Some((bare, _)) if self.params => bare,
            _ => text,
        };
        if self.case { caseless(bare) } else { bare.to_owned() }
    }
}

/// A text without its case. Each character goes down, up and down again, so that those that have
/// one case in common (`s` and `\u{17f}`, `k` and the Kelvin sign, all three sigmas) become the
/// same.
fn caseless(text: &str) -> String {
    let lower = text.chars().flat_map(char::to_lowercase);
    lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// The parameters of a query that are part of a resource.
pub(super) struct Parameters {
    /// Those that are there, in the order of the rule; names and values decoded.
    pub(super) pairs: Vec<(String, String)>,
    /// How many are not.
    pub(super) missing: usize,
}

/// Reads the parameters that are part of the resources of `rule`.
pub(super) fn parameters(rule: &Rule, query: Option<&str>) -> Result<Parameters, NoResource> {
    let folded = |text: String| if rule.fold.case { caseless(&text) } else { text };
    let mut pairs = Vec::with_capacity(rule.query.len());
    for listed in &rule.query {
        let listed_name = folded(listed.clone());
        let mut value = None;
        for pair in query.unwrap_or_default().split('&') {
            // Some upstreams separate with `;` as well, and would see a parameter that others
            // take for a part of a value.
            for (at, part) in pair.split(';').enumerate() {
                let (name, text) = part.split_once('=').unwrap_or((part, ""));
                let Ok(name) = decode(name).map(folded) else { continue };
                let is_list = name.strip_prefix(&listed_name).is_some_and(|it| it.starts_with('['));
                if name != listed_name && !is_list {
                    continue;
                }
                if is_list || at > 0 || value.is_some() || pair.contains(';') {
                    return Err(NoResource::Ambiguous(listed.clone()));
                }
                let text = decode(text)
                    .map_err(|source| NoResource::Unreadable { name: listed.clone(), source })?;
                value = Some(folded(text));
            }
        }
        pairs.extend(value.map(|value| (listed_name, value)));
    }
    let missing = rule.query.len() - pairs.len();
    Ok(Parameters { pairs, missing })
}

/// Decodes a name or value as forms write them: a `+` is a space, as for most upstreams.
pub(crate) fn decode(text: &str) -> Result<String, PathError> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'%' => {
                let digits = text
                    .get(at..at + 2)
                    .filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
                decoded.push(byte.ok_or(PathError::BadEscape)?);
                at += 2;
            }
            b'+' => decoded.push(b' '),
            byte => decoded.push(byte),
        }
    }
    let text = String::from_utf8(decoded).map_err(|_| PathError::NotUtf8)?;
    if text.chars().any(char::is_control) {
        return Err(PathError::ControlCharacter);
    }
    Ok(text)
}

/// Whether an odd path, as it was sent, lies below `prefix` for every upstream: it begins with the
/// prefix as that is written, and nothing in it can lead out again.
pub(super) fn is_below(path: &str, prefix: &Resource) -> bool {
    let at = if prefix.is_root() { "" } else { prefix.as_str() };
    let Some(rest) = path.strip_prefix(at).filter(|rest| rest.starts_with('/')) else {
        return false;
    };
    // Decoded until nothing changes: an upstream may do it more than once.
    let mut rest = rest.as_bytes().to_vec();
    loop {
        let decoded = decoded_once(&rest);
        if decoded == rest {
            break;
        }
        rest = decoded;
    }
    let mut segments = rest.split(|byte| matches!(byte, b'/' | b'\\'));
    // Parameters behind a `;` do not keep a segment from being `..`.
    !segments.any(|segment| segment.split(|byte| *byte == b';').next() == Some(b".."))
}

pub(crate) fn decoded_once(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        let escaped = digits
            .filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match escaped {
            Some(escaped) if byte == b'%' => {
                decoded.push(escaped);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_case_twice_is_folding_it_once() {
        for char in '\0'..=char::MAX {
            let once = caseless(&char.to_string());
            assert_eq!(caseless(&once), once, "{char:?}");
            let upper: String = char.to_uppercase().collect();
            let lower: String = char.to_lowercase().collect();
            assert_eq!(caseless(&upper), once, "{char:?}");
            assert_eq!(caseless(&lower), once, "{char:?}");
        }
    }

    #[test]
    fn an_odd_path_is_below_a_prefix_only_where_nothing_leads_out() {
        let prefix = Resource::parse("/files").unwrap();
        for (path, expected) in [
            ("/files//a", true),
            ("/files/a%2Fb", true),
            ("/files/a\\b", true),
            ("/files/./a", true),
            ("/files/%zz", true),
            ("/files", false),
            ("/filesystem//a", false),
            ("/%66iles//a", false),
            ("//files//a", false),
            ("/files/../a", false),
            ("/files//..", false),
            ("/files/%2e%2E/a", false),
            ("/files/%252e%252e/a", false),
            ("/files/..%2fa", false),
            ("/files/a%5c..%5cb", false),
            ("/files/..;x=1/a", false),
        ] {
            assert_eq!(is_below(path, &prefix), expected, "{path}");
        }
        assert!(is_below("//a", &Resource::root()));
    }
}
