//! Path patterns, as rules and narrowed roles use them: `/v1/flags/{id}/**`.

use std::fmt;

use crate::resource::{PathError, Resource};

/// A pattern over the segments of a resource: literal segments, `{name}` for exactly one segment
/// of any name, and `**` for any number of segments, none included.
///
/// Read the other way round it is a template: with what one pattern captured, another is filled
/// ([`Pattern::bind`], [`Pattern::fill`]).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Literal(String),
    One(String),
    Any,
}

impl Part {
    /// Whether this takes every segment that `other` takes.
    fn takes_all_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(ours), Self::Literal(theirs)) => ours == theirs,
            (Self::Literal(_), Self::One(_) | Self::Any) => false,
            (Self::One(_) | Self::Any, _) => true,
        }
    }

    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(ours), Self::Literal(theirs)) => ours == theirs,
            _ => true,
        }
    }

    fn fits(&self, segment: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == segment,
            Self::One(_) | Self::Any => true,
        }
    }
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
    /// A name that stands for two segments.
    #[error("the pattern `{pattern}` has `{{{name}}}` twice")]
    TwoNames {
        /// The pattern.
        pattern: String,
        /// The name.
        name: String,
    },
}

/// What a pattern captured of a path, or of the beginning of one: segments in canonical form.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Captures<'s> {
    named: Vec<(String, &'s str)>,
    any: Option<Vec<&'s str>>,
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
            let part = Self::part(text, segment)?;
            if let Part::One(name) = &part
                && parts.contains(&part)
            {
                let (pattern, name) = (text.to_owned(), name.clone());
                return Err(PatternError::TwoNames { pattern, name });
            }
            parts.push(part);
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
                Ok(Part::One(name.to_owned()))
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
        self.matches_segments(&segments)
    }

    fn matches_segments(&self, segments: &[&str]) -> bool {
        let (head, any, tail) = self.split();
        let enough = head.len() + tail.len();
        (if any { enough <= segments.len() } else { enough == segments.len() })
            && head.iter().zip(segments).all(|(part, segment)| part.fits(segment))
            && tail
                .iter()
                .rev()
                .zip(segments.iter().rev())
                .all(|(part, segment)| part.fits(segment))
    }

    /// The parts before `**`, whether there is one, and those behind it.
    fn split(&self) -> (&[Part], bool, &[Part]) {
        match self.parts.iter().position(|part| *part == Part::Any) {
            None => (&self.parts, false, &[]),
            Some(any) => (&self.parts[..any], true, &self.parts[any + 1..]),
        }
    }

    /// The names of its `{name}` segments, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::One(name) => Some(name.as_str()),
            Part::Literal(_) | Part::Any => None,
        })
    }

    /// Whether it has a `**`.
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.parts.contains(&Part::Any)
    }

    /// Whether the two match the same resources.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.takes_all_of(other) && other.takes_all_of(self)
    }

    /// Whether this matches every resource that `other` matches.
    #[must_use]
    pub fn takes_all_of(&self, other: &Self) -> bool {
        let (head, any, tail) = self.split();
        let (their_head, theirs_any, their_tail) = other.split();
        let (enough, theirs) = (head.len() + tail.len(), their_head.len() + their_tail.len());
        if !any {
            return !theirs_any && enough == theirs && pairs(head, their_head, Part::takes_all_of);
        }
        if theirs < enough {
            return false;
        }
        if !theirs_any {
            return pairs(head, their_head, Part::takes_all_of)
                && pairs_from_end(tail, their_head, Part::takes_all_of);
        }
        // Where their `**` begins, any segment may stand.
        let or_any = |parts: &[Part], at: usize| parts.get(at).cloned().unwrap_or(Part::Any);
        let from_end = |at: usize| match their_tail.len().checked_sub(at + 1) {
            Some(at) => their_tail[at].clone(),
            None => Part::Any,
        };
        head.iter().enumerate().all(|(at, part)| part.takes_all_of(&or_any(their_head, at)))
            && tail.iter().rev().enumerate().all(|(at, part)| part.takes_all_of(&from_end(at)))
    }

    /// Whether some resource matches both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let (head, any, tail) = self.split();
        let (their_head, theirs_any, their_tail) = other.split();
        let (ours, theirs) = (head.len() + tail.len(), their_head.len() + their_tail.len());
        let long_enough = match (any, theirs_any) {
            (false, false) => ours == theirs,
            (true, false) => ours <= theirs,
            (false, true) => theirs <= ours,
            (true, true) => true,
        };
        let (ends, their_ends) =
            (if any { tail } else { head }, if theirs_any { their_tail } else { their_head });
        long_enough
            && pairs(head, their_head, Part::meets)
            && pairs_from_end(ends, their_ends, Part::meets)
    }

    /// What it captures of a path that it matches.
    #[must_use]
    pub fn bind<'s>(&self, path: &'s Resource) -> Option<Captures<'s>> {
        let segments: Vec<&str> = path.segments().collect();
        if !self.matches_segments(&segments) {
            return None;
        }
        let (head, any, tail) = self.split();
        let behind = segments.len() - tail.len();
        let mut captures = Captures::default();
        captures.take(head, &segments);
        captures.take(tail, &segments[behind..]);
        captures.any = any.then(|| segments[head.len()..behind].to_vec());
        Some(captures)
    }

    /// What is certain of the captures of every path below `above` that it matches; none where it
    /// matches nothing there.
    #[must_use]
    pub fn bind_below<'s>(&self, above: &'s Resource) -> Option<Captures<'s>> {
        let segments: Vec<&str> = above.segments().collect();
        let (head, any, tail) = self.split();
        let below = any || segments.len() < head.len();
        if !below || !head.iter().zip(&segments).all(|(part, segment)| part.fits(segment)) {
            return None;
        }
        let mut captures = Captures::default();
        captures.take(head, &segments);
        if any && head.len() <= segments.len() {
            // The shortest path below has one segment more, the last of which are the tail's.
            let certain = (segments.len() + 1).saturating_sub(tail.len()).max(head.len());
            let certain = certain.min(segments.len());
            captures.any = Some(segments[head.len()..certain].to_vec());
        }
        Some(captures)
    }

    /// The path that it is with these captures.
    ///
    /// # Errors
    /// When the path is over a limit.
    pub fn fill(&self, captures: &Captures<'_>) -> Result<Resource, PathError> {
        let mut path = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => push(&mut path, literal),
                Part::One(name) => {
                    let Some(segment) = captures.named(name) else { break };
                    push(&mut path, segment);
                }
                Part::Any => {
                    for segment in captures.any.iter().flatten() {
                        push(&mut path, segment);
                    }
                }
            }
        }
        if path.is_empty() { Ok(Resource::root()) } else { Resource::parse(&path) }
    }

    /// The part of [`Pattern::fill`] that is certain with captures of [`Pattern::bind_below`]: the
    /// paths that it is filled to are this or below it.
    ///
    /// # Errors
    /// When the path is over a limit.
    pub fn fill_certain(&self, captures: &Captures<'_>) -> Result<Resource, PathError> {
        let (head, any, _) = self.split();
        let certain = head.iter().take_while(|part| match part {
            Part::One(name) => captures.named(name).is_some(),
            Part::Literal(_) | Part::Any => true,
        });
        let mut parts: Vec<Part> = certain.cloned().collect();
        if any && parts.len() == head.len() {
            parts.push(Part::Any);
        }
        Self { text: String::new(), parts }.fill(captures)
    }

    /// This pattern with its literal segments, decoded, changed by `change`.
    ///
    /// # Errors
    /// When a segment is none afterwards.
    pub fn map_literals(&self, change: impl Fn(&str) -> String) -> Result<Self, PathError> {
        let mut changed = self.clone();
        for part in &mut changed.parts {
            if let Part::Literal(literal) = part {
                let path = Resource::parse(&format!("/{literal}"))?.map_segments(&change)?;
                path.as_str()[1..].clone_into(literal);
            }
        }
        Ok(changed)
    }

    /// Its first segment, where that is literal, in canonical form.
    #[must_use]
    pub fn literal_start(&self) -> Option<&str> {
        match self.parts.first() {
            Some(Part::Literal(literal)) => Some(literal),
            Some(Part::One(_) | Part::Any) | None => None,
        }
    }

    /// Its last segments, where they are literal: at most `count`, in canonical form.
    #[must_use]
    pub fn literal_end(&self, count: usize) -> Vec<&str> {
        let literals = self.parts.iter().rev().map_while(|part| match part {
            Part::Literal(literal) => Some(literal.as_str()),
            Part::One(_) | Part::Any => None,
        });
        let mut end: Vec<&str> = literals.take(count).collect();
        end.reverse();
        end
    }
}

impl<'s> Captures<'s> {
    fn take(&mut self, parts: &[Part], segments: &[&'s str]) {
        for (part, segment) in parts.iter().zip(segments) {
            if let Part::One(name) = part {
                self.named.push((name.clone(), segment));
            }
        }
    }

    fn named(&self, name: &str) -> Option<&'s str> {
        self.named.iter().find(|(each, _)| each == name).map(|(_, segment)| *segment)
    }
}

fn push(path: &mut String, segment: &str) {
    path.push('/');
    path.push_str(segment);
}

fn pairs(ours: &[Part], theirs: &[Part], holds: impl Fn(&Part, &Part) -> bool) -> bool {
    ours.iter().zip(theirs).all(|(our, their)| holds(our, their))
}

fn pairs_from_end(ours: &[Part], theirs: &[Part], holds: impl Fn(&Part, &Part) -> bool) -> bool {
    ours.iter().rev().zip(theirs.iter().rev()).all(|(our, their)| holds(our, their))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
