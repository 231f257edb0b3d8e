//! A resource: the path of an HTTP request, in the one form the lock table knows.
//!
//! A [`Resource`] is parsed once, at the edge, and from then on two paths are the same resource
//! exactly when their canonical texts are equal. The canonical text is the percent-encoded form:
//! letters, digits and `-._~!$&'()*+,;=:@` bare, every other byte as `%XX` in upper case.
//!
//! Deliberately absent: case folding, Unicode normalisation, query strings. Those are rules of an
//! upstream and are applied before a path comes here.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A path in canonical form: `/`, or `/` and segments without a trailing slash.
///
/// Invariants: at most [`Resource::MAX_BYTES`] bytes and [`Resource::MAX_SEGMENTS`] segments, each
/// segment non-empty valid UTF-8 (after decoding), without control characters, slash, backslash,
/// and never `.` or `..`.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Resource(Arc<str>);

/// Why a path is no resource. Each text names what was wrong with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// The path does not begin with a slash.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// Two slashes meet.
    #[error("the path has an empty segment (`//`)")]
    EmptySegment,
    /// A segment is `.` or `..`, raw or encoded.
    #[error("the path has a `.` or `..` segment")]
    DotSegment,
    /// `%2F`: one segment for some servers and two for others.
    #[error("the path has an encoded slash (`%2F`)")]
    EncodedSlash,
    /// A backslash, raw or encoded: some servers take it for a slash.
    #[error("the path has a backslash")]
    Backslash,
    /// A percent sign that is not followed by two hexadecimal digits.
    #[error("the path has a `%` that is not followed by two hexadecimal digits")]
    BadEscape,
    /// NUL or another control character, raw or encoded.
    #[error("the path has a control character")]
    ControlCharacter,
    /// The decoded bytes are not UTF-8.
    #[error("the path is not valid UTF-8 once decoded")]
    NotUtf8,
    /// Over [`Resource::MAX_BYTES`] bytes.
    #[error("the path is longer than 2048 bytes")]
    TooLong,
    /// Over [`Resource::MAX_SEGMENTS`] segments.
    #[error("the path has more than 64 segments")]
    TooManySegments,
    /// A `?` or `#`: they end a path and cannot be part of one.
    #[error("the path has a raw `?` or `#`")]
    Delimiter,
}

impl Resource {
    /// The longest path in bytes, as sent and in canonical form.
    pub const MAX_BYTES: usize = 2048;
    /// The most segments of a path.
    pub const MAX_SEGMENTS: usize = 64;

    /// The root, `/`.
    #[must_use]
    pub fn root() -> Self {
        Self(Arc::from("/"))
    }

    /// Reads the path of a request target: percent-encoded, without query or fragment.
    ///
    /// Each segment is decoded exactly once; one trailing slash is ignored.
    ///
    /// # Errors
    /// The first thing wrong with the path, as [`PathError`].
    pub fn parse(path: &str) -> Result<Self, PathError> {
        if path.len() > Self::MAX_BYTES {
            return Err(PathError::TooLong);
        }
        let Some(rest) = path.strip_prefix('/') else { return Err(PathError::NotAbsolute) };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() {
            // `//` is a root with an empty segment, not a root with a trailing slash.
            return if path.len() > 1 { Err(PathError::EmptySegment) } else { Ok(Self::root()) };
        }
        if is_canonical(rest) {
            return Ok(Self(Arc::from(&path[..=rest.len()])));
        }
        let mut canonical = String::with_capacity(path.len());
        let mut decoded = Vec::new();
        let mut segments = 0;
        for segment in rest.split('/') {
            segments += 1;
            if segments > Self::MAX_SEGMENTS {
                return Err(PathError::TooManySegments);
            }
            decode_segment(segment, &mut decoded)?;
            canonical.push('/');
            encode_segment(&decoded, &mut canonical);
        }
        if canonical.len() > Self::MAX_BYTES {
            return Err(PathError::TooLong);
        }
        Ok(Self(Arc::from(canonical)))
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The canonical (encoded) segments, outermost first; none for `/`.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// The resource one segment up; none for `/`.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        match self.0.rfind('/') {
            Some(0) | None => Some(Self::root()),
            Some(at) => Some(Self(Arc::from(&self.0[..at]))),
        }
    }

    /// This resource or the one above it whose text is the first `length` bytes of this one's;
    /// `/` for 0. None where no segment ends there.
    #[must_use]
    pub fn up_to(&self, length: usize) -> Option<Self> {
        if length == self.0.len() {
            return Some(self.clone());
        }
        if self.0.as_bytes().get(length) != Some(&b'/') {
            return None;
        }
        Some(if length == 0 { Self::root() } else { Self(Arc::from(&self.0[..length])) })
    }

    /// The last segment, decoded; empty for `/`.
    #[must_use]
    pub fn name(&self) -> String {
        let last = self.0.rsplit('/').next().unwrap_or_default();
        let mut decoded = Vec::new();
        match decode_segment(last, &mut decoded) {
            Ok(()) => String::from_utf8_lossy(&decoded).into_owned(),
            Err(_) => String::new(),
        }
    }

    /// The child that `segment`, a decoded name, stands for.
    ///
    /// # Errors
    /// When the name is no legal segment, or the child would be over a limit.
    pub fn child(&self, segment: &str) -> Result<Self, PathError> {
        if segment.is_empty() {
            return Err(PathError::EmptySegment);
        }
        check_segment(segment.as_bytes())?;
        let mut canonical = if self.is_root() { String::new() } else { self.0.to_string() };
        canonical.push('/');
        encode_segment(segment.as_bytes(), &mut canonical);
        if canonical.len() > Self::MAX_BYTES {
            return Err(PathError::TooLong);
        }
        let child = Self(Arc::from(canonical));
        if child.segments().count() > Self::MAX_SEGMENTS {
            return Err(PathError::TooManySegments);
        }
        Ok(child)
    }

    /// Whether `other` is this resource or lies below it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self.is_root() {
            return true;
        }
        other.0.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// The bytes that stand for themselves, in every form of a path.
const BARE: [bool; 256] = {
    let mut bare = [false; 256];
    let listed = b"-._~!$&'()*+,;=:@";
    let mut at = 0;
    while at < listed.len() {
        bare[listed[at] as usize] = true;
        at += 1;
    }
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            bare[byte as usize] = true;
        }
        byte += 1;
    }
    bare
};

/// Whether a path without its first slash is as its canonical form: most are. `false` also where
/// only a closer look can tell.
fn is_canonical(rest: &str) -> bool {
    let mut segments = 0;
    rest.split('/').all(|segment| {
        segments += 1;
        segments <= Resource::MAX_SEGMENTS
            && !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| BARE[usize::from(byte)])
    })
}

fn decode_segment(segment: &str, decoded: &mut Vec<u8>) -> Result<(), PathError> {
    decoded.clear();
    if segment.is_empty() {
        return Err(PathError::EmptySegment);
    }
    let bytes = segment.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let pair = (bytes.get(at + 1).and_then(hex), bytes.get(at + 2).and_then(hex));
                let (Some(high), Some(low)) = pair else { return Err(PathError::BadEscape) };
                let byte = high << 4 | low;
                if byte == b'/' {
                    return Err(PathError::EncodedSlash);
                }
                decoded.push(byte);
                at += 3;
            }
            b'?' | b'#' => return Err(PathError::Delimiter),
            byte => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    check_segment(decoded)
}

fn check_segment(decoded: &[u8]) -> Result<(), PathError> {
    if decoded == b"." || decoded == b".." {
        return Err(PathError::DotSegment);
    }
    for byte in decoded {
        match byte {
            b'/' => return Err(PathError::EncodedSlash),
            b'\\' => return Err(PathError::Backslash),
            0..=0x1f | 0x7f => return Err(PathError::ControlCharacter),
            _ => {}
        }
    }
    let text = std::str::from_utf8(decoded).map_err(|_| PathError::NotUtf8)?;
    if text.chars().any(char::is_control) {
        return Err(PathError::ControlCharacter);
    }
    Ok(())
}

fn encode_segment(decoded: &[u8], canonical: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in decoded {
        if BARE[usize::from(byte)] {
            canonical.push(char::from(byte));
        } else {
            canonical.push('%');
            canonical.push(char::from(HEX[usize::from(byte >> 4)]));
            canonical.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

fn hex(byte: &u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Resource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_canonical_form() {
        for (sent, canonical) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a"),
            ("/%61", "/a"),
            ("/a%20b", "/a%20b"),
            ("/%c3%a9", "/%C3%A9"),
            ("/é", "/%C3%A9"),
            ("/a:b@c;d=e,f", "/a:b@c;d=e,f"),
            ("/%3Ax", "/:x"),
            ("/a%2525", "/a%2525"),
            ("/...", "/..."),
        ] {
            assert_eq!(
                Resource::parse(sent).map(|r| r.to_string()).as_deref(),
                Ok(canonical),
                "{sent}"
            );
        }
    }

    #[test]
    fn a_path_that_two_servers_could_read_differently_is_refused() {
        for (sent, error) in [
            ("", PathError::NotAbsolute),
            ("a", PathError::NotAbsolute),
            ("//", PathError::EmptySegment),
            ("//a", PathError::EmptySegment),
            ("/a//b", PathError::EmptySegment),
            ("/a//", PathError::EmptySegment),
            ("/.", PathError::DotSegment),
            ("/a/../b", PathError::DotSegment),
            ("/a/%2e%2E/b", PathError::DotSegment),
            ("/a%2fb", PathError::EncodedSlash),
            ("/a\\b", PathError::Backslash),
            ("/a%5cb", PathError::Backslash),
            ("/a%", PathError::BadEscape),
            ("/a%4", PathError::BadEscape),
            ("/a%zz", PathError::BadEscape),
            ("/a%00", PathError::ControlCharacter),
            ("/a%7f", PathError::ControlCharacter),
            ("/a%c2%85", PathError::ControlCharacter),
            ("/a%ff", PathError::NotUtf8),
            ("/a?b", PathError::Delimiter),
            ("/a#b", PathError::Delimiter),
        ] {
            assert_eq!(Resource::parse(sent), Err(error), "{sent}");
        }
        let longest = format!("/{}", "a".repeat(2047));
        assert!(Resource::parse(&longest).is_ok());
        assert_eq!(Resource::parse(&format!("{longest}a")), Err(PathError::TooLong));
        assert!(Resource::parse(&"/a".repeat(64)).is_ok());
        assert_eq!(Resource::parse(&"/a".repeat(65)), Err(PathError::TooManySegments));
        // Canonical form may be longer than what was sent.
        assert_eq!(Resource::parse(&format!("/{}", "é".repeat(1000))), Err(PathError::TooLong));
    }

    #[test]
    fn what_is_above_is_cut_between_segments_only() {
        let path = Resource::parse("/ab/c").unwrap();
        let up_to = |length| path.up_to(length).map(|above| above.to_string());
        assert_eq!(up_to(0).as_deref(), Some("/"));
        assert_eq!(up_to(3).as_deref(), Some("/ab"));
        assert_eq!(up_to(5).as_deref(), Some("/ab/c"));
        assert_eq!([up_to(1), up_to(2), up_to(4), up_to(6)], [None, None, None, None]);
        assert_eq!(Resource::root().up_to(1), Some(Resource::root()));
    }

    #[test]
    fn covering_is_by_segment() {
        let covers =
            |a: &str, b: &str| Resource::parse(a).unwrap().covers(&Resource::parse(b).unwrap());
        assert!(covers("/", "/a"));
        assert!(covers("/a", "/a"));
        assert!(covers("/a", "/a/b"));
        assert!(!covers("/a", "/ab"));
        assert!(!covers("/a/b", "/a"));
    }

    #[test]
    fn a_child_is_one_legal_segment() {
        let parent = Resource::parse("/flags").unwrap();
        assert_eq!(parent.child("a b").unwrap().as_str(), "/flags/a%20b");
        assert_eq!(parent.child("").unwrap_err(), PathError::EmptySegment);
        assert_eq!(parent.child("..").unwrap_err(), PathError::DotSegment);
        assert_eq!(parent.child("a/b").unwrap_err(), PathError::EncodedSlash);
        assert_eq!(Resource::root().child("a").unwrap().as_str(), "/a");
        assert_eq!(parent.child("a b").unwrap().name(), "a b");
        assert_eq!(parent.child("a").unwrap().parent().unwrap(), parent);
    }
}
