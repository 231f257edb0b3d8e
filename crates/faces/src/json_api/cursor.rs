//! The cursors of lists that go by number: a letter that says which list, and where its next page
//! begins.
//!
//! What always holds: only what a list gave is taken, so there is one text for each position.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The cursor of `list` at `position`.
#[must_use]
pub fn encode(list: char, position: u64) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}{position}"))
}

/// What [`encode`] was given; none where it did not make this text.
#[must_use]
pub fn decode(text: &str) -> Option<(char, u64)> {
    let decoded = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let list = decoded.chars().next()?;
    let position = decoded[list.len_utf8()..].parse().ok()?;
    // A number has other spellings, such as `+7` or `07`.
    (encode(list, position) == text).then_some((list, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_taken() {
        for position in [0, 7, u64::MAX] {
            assert_eq!(decode(&encode('l', position)), Some(('l', position)));
        }
        for other in ["l+7", "l07", "l", "", "7", "l18446744073709551616", "l7 "] {
            assert_eq!(decode(&URL_SAFE_NO_PAD.encode(other)), None, "{other}");
        }
        // The last character of `bDE` has bits to spare.
        assert_eq!(decode("bDE"), Some(('l', 1)));
        for other in ["bDF", "bDE=", " bDE", "bD E", "!"] {
            assert_eq!(decode(other), None, "{other}");
        }
    }
}
