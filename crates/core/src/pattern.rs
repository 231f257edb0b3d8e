//! Path patterns, as rules and narrowed roles use them: `/v1/flags/{id}/**`.

use std::fmt;

use crate::resource::{PathError, Resource};

/// A pattern over the segments of a resource: literal segments, `{name}` for exactly one segment
/// of any name, and `**` for any number of segments, none included.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Literal(String),
    One,
    Any,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// It does not begin with a slash.
    #[error("the pattern `{0}` does not begin with `/`")]
    NotAbsolute(String),
    /// A literal segment is no legal segment.
    #[error("the segment `{segment}` of the pattern `{pattern}` is not allowed: {source}")]
    Segment {
        /// The pattern.
        pattern: String,
        /// The segment.
        segment: String,
        /// What is wrong with it.
        source: PathError,
    },
    /// A `{` without `}`, a brace inside a segment, or a `*` that is not the segment `**`.
    #[error("the segment `{segment}` of the pattern `{pattern}` is not a name, `{{name}}` or `**`")]
    Wildcard {
        /// The pattern.
        pattern: String,
        /// The segment.
        segment: String,
    },
    /// More than one `**`.
    #[error("the pattern `{0}` has more than one `**`")]
    TwoAny(String),
}

impl Pattern {
    /// Reads a pattern. Literal segments are percent-decoded like those of a request.
    ///
    /// # Errors
    /// When it is not one; the error names the segment.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PatternError::NotAbsolute(text.to_owned()));
        };
        let mut parts = Vec::new();
        for segment in rest.strip_suffix('/').unwrap_or(rest).split('/') {
            if segment.is_empty() && rest.is_empty() {
                break;
            }
            parts.push(Self::part(text, segment)?);
        }
        if parts.iter().filter(|part| **part == Part::Any).count() > 1 {
            return Err(PatternError::TwoAny(text.to_owned()));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    fn part(pattern: &str, segment: &str) -> Result<Part, PatternError> {
        let wildcard =
            || PatternError::Wildcard { pattern: pattern.to_owned(), segment: segment.to_owned() };
        if segment == "**" {
            return Ok(Part::Any);
        }
        if let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            return if !name.is_empty() && name.chars().all(legal) {
                Ok(Part::One)
            } else {
                Err(wildcard())
            };
        }
        if segment.contains(['{', '}', '*']) {
            return Err(wildcard());
        }
        match Resource::parse(&format!("/{segment}")) {
            Ok(resource) if !resource.is_root() => {
                Ok(Part::Literal(resource.as_str()[1..].to_owned()))
            }
            Ok(_) => Err(PatternError::Segment {
                pattern: pattern.to_owned(),
                segment: segment.to_owned(),
                source: PathError::EmptySegment,
            }),
            Err(source) => Err(PatternError::Segment {
                pattern: pattern.to_owned(),
                segment: segment.to_owned(),
                source,
            }),
        }
    }

    /// Whether `resource` and everything below it matches.
    #[must_use]
    pub fn matches_all_below(&self, resource: &Resource) -> bool {
        self.parts.last() == Some(&Part::Any) && self.matches(resource)
    }

    /// Whether `resource` matches.
    #[must_use]
    pub fn matches(&self, resource: &Resource) -> bool {
        let segments: Vec<&str> = resource.segments().collect();
        let fits = |part: &Part, segment: &str| match part {
            Part::Literal(literal) => literal == segment,
            Part::One | Part::Any => true,
        };
        match self.parts.iter().position(|part| *part == Part::Any) {
            None => {
                segments.len() == self.parts.len()
                    && self.parts.iter().zip(&segments).all(|(part, segment)| fits(part, segment))
            }
            Some(any) => {
                let (head, tail) = (&self.parts[..any], &self.parts[any + 1..]);
                segments.len() >= head.len() + tail.len()
                    && head.iter().zip(&segments).all(|(part, segment)| fits(part, segment))
                    && tail
                        .iter()
                        .rev()
                        .zip(segments.iter().rev())
                        .all(|(part, segment)| fits(part, segment))
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_by_segment() {
        for (pattern, path, expected) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/a/{id}", "/a/b", true),
            ("/a/{id}", "/a", false),
            ("/a/{id}", "/a/b/c", false),
            ("/a/{id}/**", "/a/b", true),
            ("/a/{id}/**", "/a/b/c/d", true),
            ("/a/{id}/**", "/a", false),
            ("/a/**/z", "/a/z", true),
            ("/a/**/z", "/a/b/c/z", true),
            ("/a/**/z", "/a/b", false),
            ("/a b", "/a%20b", true),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(
                pattern.matches(&Resource::parse(path).unwrap()),
                expected,
                "{pattern} {path}"
            );
        }
        for (pattern, path, expected) in [
            ("/**", "/", true),
            ("/a/**", "/a", true),
            ("/a/**", "/b", false),
            ("/a", "/a", false),
            ("/a/{id}", "/a/b", false),
            ("/**/z", "/a/z", false),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            let resource = Resource::parse(path).unwrap();
            assert_eq!(pattern.matches_all_below(&resource), expected, "{pattern} {path}");
        }
        for bad in ["", "a", "/a//b", "/{", "/{}", "/a*", "/*", "/{a}b", "/**/**", "/../a"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
