//! The cursors of lists of children: what list it is of, and the last name of the page, in hexadecimal.

use leasehold_core::resource::Resource;

/// The cursor after `name` in the list of the children of `resource`.
#[must_use]
pub fn encode(resource: &Resource, name: &str) -> String {
    let mark = mark(resource, name).to_be_bytes();
    mark.iter().chain(name.as_bytes()).map(|byte| format!("{byte:02x}")).collect()
}

/// The name that the page before ended with; none where no list of `resource` gave this.
#[must_use]
pub fn decode(resource: &Resource, cursor: &str) -> Option<String> {
    let digits = cursor.chars().map(|digit| digit.to_digit(16)).collect::<Option<Vec<_>>>()?;
    if digits.len() % 2 != 0 {
        return None;
    }
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(pair[0] << 4 | pair[1]))
        .collect::<Result<_, _>>()
        .ok()?;
    let (marked, name) = bytes.split_first_chunk()?;
    let name = std::str::from_utf8(name).ok()?;
    (mark(resource, name) == u32::from_be_bytes(*marked)).then(|| name.to_owned())
}

/// FNV-1a. A check against mistakes; a forged cursor shows nothing that the list does not.
fn mark(resource: &Resource, name: &str) -> u32 {
    let bytes = resource.as_str().bytes().chain([0]).chain(name.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_the_list_that_gave_it_only() {
        let (a, b) = (Resource::parse("/a").unwrap(), Resource::parse("/b").unwrap());
        let cursor = encode(&a, "é x");
        assert_eq!(decode(&a, &cursor).as_deref(), Some("é x"));
        assert_eq!(decode(&b, &cursor), None);
        for bad in ["", "0", "zz", "é", "00000000", &cursor[1..], &cursor[2..], &cursor[..8]] {
            assert_eq!(decode(&a, bad), None, "{bad}");
        }
    }
}
