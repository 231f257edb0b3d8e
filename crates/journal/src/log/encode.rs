//! Events as bytes, and the chain of hashes over them.
//!
//! An event is written once. `prev` is the last member of a record, so it is put in by hand
//! where the closing brace was: no second pass, no allocation.

use leasehold_core::event::Event;
use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// What stands for the hash of the event before the first.
pub const NO_HASH: Hash = [0; 32];

/// The SHA-256 of an event's stored bytes.
#[must_use]
pub fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// A hash as 64 lower-case hexadecimal digits.
#[must_use]
pub fn hex(hash: &Hash) -> String {
    let mut text = String::with_capacity(64);
    text.extend(hex_digits(hash).iter().map(|digit| char::from(*digit)));
    text
}

/// Reads what [`hex`] writes, in either case; none for anything else.
#[must_use]
pub fn from_hex(text: &str) -> Option<Hash> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = NO_HASH;
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(hash)
}

fn hex_digits(hash: &Hash) -> [u8; 64] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 64];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(hash) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    digits
}

/// Writes `event` with `prev` into `buffer`, which is cleared first.
pub(super) fn encode(
    event: &Event,
    prev: &Hash,
    buffer: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    buffer.clear();
    event.write_json(buffer)?;
    // A record is an object that is never empty: it ends in `}` and `,` may follow what is there.
    debug_assert_eq!(buffer.last(), Some(&b'}'));
    buffer.pop();
    buffer.extend_from_slice(b",\"prev\":\"");
    buffer.extend_from_slice(&hex_digits(prev));
    buffer.extend_from_slice(b"\"}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use leasehold_core::event::Record;

    use super::*;
    use crate::testing::{Story, script};

    #[test]
    fn an_event_comes_back_as_it_was_and_prev_is_the_record_s_own_member() {
        let mut buffer = Vec::new();
        for event in script(&mut Story::default()) {
            encode(&event, &hash(b"before"), &mut buffer).unwrap();
            let record: Record = serde_json::from_slice(&buffer).unwrap();
            assert_eq!(record.prev.as_deref(), Some(hex(&hash(b"before")).as_str()));
            assert_eq!(record.event().unwrap(), event);
            assert_eq!(serde_json::to_vec(&record).unwrap(), buffer);
        }
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        let some = hash(b"x");
        assert_eq!(from_hex(&hex(&some)), Some(some));
        assert_eq!(from_hex(&hex(&some).to_uppercase()), Some(some));
        assert_eq!(from_hex("00"), None);
        assert_eq!(from_hex(&"g".repeat(64)), None);
    }
}
