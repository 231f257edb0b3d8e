//! A resource: the path of an HTTP request, in the one form the lock table knows.
//!
//! A [`Resource`] is parsed once, at the edge, and from then on two paths are the same resource
//! exactly when their canonical texts are equal. The canonical text is the percent-encoded form:
//! letters, digits and `-._~!$&'()*+,;=:@` bare, every other byte as `%XX` in upper case.
//!
//! Where a rule makes query parameters part of a resource, they are one more segment, below the
//! path's: `/item/?id=7`. No path is spelt so, because a raw `?` ends a path and an encoded one
//! stays encoded; and a lock on `/item` covers it.
//!
//! Deliberately absent: which rule folds case or takes which parameters. That is the guard's.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A path in canonical form: `/`, or `/` and segments without a trailing slash; the last may be
/// query parameters.
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

    /// Reads what [`Resource::as_str`] gives: as [`Resource::parse`] does, and a last segment of
    /// query parameters as well.
    ///
    /// # Errors
    /// The first thing wrong with it, as [`PathError`].
    pub fn read(text: &str) -> Result<Self, PathError> {
        let Some((path, query)) = text.split_once("/?") else { return Self::parse(text) };
        let path = match path {
            "" => Self::root(),
            path if path.ends_with('/') => return Err(PathError::EmptySegment),
            path => Self::parse(path)?,
        };
        let mut pairs = Vec::new();
        let mut decoded = Vec::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').ok_or(PathError::Delimiter)?;
            let mut read = |text: &str| {
                unescape(text, &mut decoded)?;
                check_parameter(&decoded)
            };
            pairs.push((read(name)?, read(value)?));
        }
        path.with_parameters(&pairs)
    }

    /// This path with query parameters: decoded names and values, in the order they are given.
    /// Without any it is the path.
    ///
    /// # Errors
    /// When one has a control character, or the whole is over a limit.
    pub fn with_parameters(&self, pairs: &[(String, String)]) -> Result<Self, PathError> {
        if pairs.is_empty() {
            return Ok(self.clone());
        }
        if self.has_parameters() {
            return Err(PathError::Delimiter);
        }
        let mut text = if self.is_root() { String::new() } else { self.0.to_string() };
        for (at, (name, value)) in pairs.iter().enumerate() {
            check_parameter(name.as_bytes())?;
            check_parameter(value.as_bytes())?;
            text.push_str(if at == 0 { "/?" } else { "&" });
            encode(&UNRESERVED, name.as_bytes(), &mut text);
            text.push('=');
            encode(&UNRESERVED, value.as_bytes(), &mut text);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(PathError::TooLong);
        }
        let resource = Self(Arc::from(text));
        if resource.segments().count() > Self::MAX_SEGMENTS {
            return Err(PathError::TooManySegments);
        }
        Ok(resource)
    }

    /// Whether query parameters are part of it.
    #[must_use]
    pub fn has_parameters(&self) -> bool {
        self.parameters_at().is_some()
    }

    /// The path, and the parameters as a query is written, where they are part of it.
    #[must_use]
    pub fn path_and_query(&self) -> (Self, Option<&str>) {
        let Some(at) = self.parameters_at() else { return (self.clone(), None) };
        let path = if at == 0 { Self::root() } else { Self(Arc::from(&self.0[..at])) };
        (path, Some(&self.0[at + 2..]))
    }

    /// Where the query parameters begin, with their delimiter of two bytes.
    fn parameters_at(&self) -> Option<usize> {
        // Hardly any has some, and one byte is looked for in a tenth of the time of two.
        if self.0.as_bytes().contains(&b'?') { self.0.find("/?") } else { None }
    }

    /// This path with each segment, decoded, changed by `change`.
    ///
    /// # Errors
    /// When the result is no path, or over a limit.
    pub fn map_segments(&self, change: impl Fn(&str) -> String) -> Result<Self, PathError> {
        let mut changed = String::with_capacity(self.0.len());
        let mut decoded = Vec::new();
        for segment in self.segments() {
            decode_segment(segment, &mut decoded)?;
            let text = std::str::from_utf8(&decoded).map_err(|_| PathError::NotUtf8)?;
            let text = change(text);
            if text.is_empty() {
                return Err(PathError::EmptySegment);
            }
            check_segment(text.as_bytes())?;
            changed.push('/');
            encode_segment(text.as_bytes(), &mut changed);
        }
        if changed.is_empty() { Ok(Self::root()) } else { Self::parse(&changed) }
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

    /// How many segments it has; 0 for `/`.
    #[must_use]
    pub fn depth(&self) -> usize {
        // Each segment follows a slash, and none has one in it.
        if self.is_root() { 0 } else { self.0.bytes().filter(|&byte| byte == b'/').count() }
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

    /// The last segment, decoded; empty for `/`. Query parameters are told as they are written.
    #[must_use]
    pub fn name(&self) -> String {
        let last = self.0.rsplit('/').next().unwrap_or_default();
        if last.starts_with('?') {
            return last.to_owned();
        }
        let mut decoded = Vec::new();
        match decode_segment(last, &mut decoded) {
            Ok(()) => String::from_utf8_lossy(&decoded).into_owned(),
            Err(_) => String::new(),
        }
    }

    /// The child that `segment`, a decoded name, stands for.
    ///
    /// # Errors
    /// When the name is no legal segment, or the child would be over a limit; and where query
    /// parameters are part of this: nothing is below them.
    pub fn child(&self, segment: &str) -> Result<Self, PathError> {
        if segment.is_empty() {
            return Err(PathError::EmptySegment);
        }
        if self.has_parameters() {
            return Err(PathError::Delimiter);
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

/// The bytes that stand for themselves in a query parameter: those that RFC 3986 reserves for
/// nothing, so that no `&`, `=` or `+` in a value has a second reading.
const UNRESERVED: [bool; 256] = {
    let mut bare = BARE;
    let reserved = b"!$&'()*+,;=:@";
    let mut at = 0;
    while at < reserved.len() {
        bare[reserved[at] as usize] = false;
        at += 1;
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

/// Decodes the escapes of a query parameter's name or value, once.
fn unescape(text: &str, decoded: &mut Vec<u8>) -> Result<(), PathError> {
    decoded.clear();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let pair = (bytes.get(at + 1).and_then(hex), bytes.get(at + 2).and_then(hex));
            let (Some(high), Some(low)) = pair else { return Err(PathError::BadEscape) };
            decoded.push(high << 4 | low);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    Ok(())
}

/// The text of a decoded name or value. A slash or backslash is one of its characters: nothing
/// takes it for a part of the path.
fn check_parameter(decoded: &[u8]) -> Result<String, PathError> {
    let text = std::str::from_utf8(decoded).map_err(|_| PathError::NotUtf8)?;
    if text.chars().any(char::is_control) {
        return Err(PathError::ControlCharacter);
    }
    Ok(text.to_owned())
}

fn encode_segment(decoded: &[u8], canonical: &mut String) {
    encode(&BARE, decoded, canonical);
}

fn encode(bare: &[bool; 256], decoded: &[u8], canonical: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in decoded {
        if bare[usize::from(byte)] {
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

/// Compared as its text is.
impl std::borrow::Borrow<str> for Resource {
    fn borrow(&self) -> &str {
        &self.0
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
        Self::read(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
