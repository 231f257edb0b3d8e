//! The key that a document is stored under: its path, so encoded that order is tree order.
//!
//! A key is, for each segment, the byte 1 and the decoded name; the root's is empty. No name has a
//! control character, so everything below a resource lies between its key followed by 1 and its
//! key followed by 2, directly after the resource itself, and children come in the order of the
//! bytes of their names. A subtree is one range, a child is found with one seek.

use leasehold_core::resource::Resource;

const SEPARATOR: u8 = 1;
const AFTER_SEPARATOR: u8 = 2;

/// The key of a resource.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Key(Vec<u8>);

impl Key {
    pub(super) fn of(resource: &Resource) -> Self {
        let mut key = Vec::with_capacity(resource.as_str().len());
        for segment in resource.segments() {
            key.push(SEPARATOR);
            decode(segment.as_bytes(), &mut key);
        }
        Self(key)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The first key that could lie below.
    pub(super) fn below_from(&self) -> Vec<u8> {
        followed_by(&self.0, SEPARATOR)
    }

    /// The first key that lies neither here nor below.
    pub(super) fn below_until(&self) -> Vec<u8> {
        followed_by(&self.0, AFTER_SEPARATOR)
    }

    /// The first key that could belong to a child after the one called `name`.
    pub(super) fn after_child(&self, name: &[u8]) -> Vec<u8> {
        let mut key = self.below_from();
        key.extend_from_slice(name);
        key.push(AFTER_SEPARATOR);
        key
    }

    /// The name of the child of this resource that `found` is, or lies below; and whether it is
    /// the child itself. None when `found` does not lie below.
    pub(super) fn child_in<'a>(&self, found: &'a [u8]) -> Option<(&'a [u8], bool)> {
        let rest = found.strip_prefix(self.0.as_slice())?.strip_prefix(&[SEPARATOR])?;
        match rest.iter().position(|byte| *byte == SEPARATOR) {
            Some(end) => Some((&rest[..end], false)),
            None => Some((rest, true)),
        }
    }
}

fn followed_by(key: &[u8], byte: u8) -> Vec<u8> {
    let mut longer = Vec::with_capacity(key.len() + 1);
    longer.extend_from_slice(key);
    longer.push(byte);
    longer
}

/// Decodes a canonical segment, whose every escape is whole.
fn decode(segment: &[u8], into: &mut Vec<u8>) {
    let mut rest = segment;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                into.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            _ => into.push(first),
        }
    }
}

fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Key {
        Key::of(&Resource::parse(path).unwrap())
    }

    #[test]
    fn keys_are_in_the_order_of_the_tree_and_of_the_bytes_of_names() {
        let paths =
            ["/", "/a", "/a/b", "/a/b/c", "/a/b!", "/a/b%C3%A9", "/a%20b", "/a!", "/aa", "/b"];
        let keys: Vec<_> = paths.iter().map(|path| key(path).0).collect();
        let mut sorted = keys.clone();
        sorted.sort();
        assert_eq!(keys, sorted);
    }

    #[test]
    fn a_subtree_is_the_range_directly_after_its_root() {
        let paths = ["/a", "/a!", "/a/b", "/a/b/c", "/ab", "/b"];
        for root in paths {
            for other in paths {
                let (from, until) = (key(root).below_from(), key(root).below_until());
                let inside = from <= key(other).0 && key(other).0 < until;
                let (root, other) =
                    (Resource::parse(root).unwrap(), Resource::parse(other).unwrap());
                assert_eq!(inside, root.covers(&other) && root != other, "{root} {other}");
            }
        }
    }

    #[test]
    fn a_key_tells_the_child_that_it_belongs_to() {
        assert_eq!(key("/").child_in(key("/a%20b/c").as_bytes()), Some((&b"a b"[..], false)));
        assert_eq!(key("/a").child_in(key("/a/b").as_bytes()), Some((&b"b"[..], true)));
        assert_eq!(key("/a").child_in(key("/ab").as_bytes()), None);
        assert_eq!(key("/a").child_in(key("/a").as_bytes()), None);
    }
}
