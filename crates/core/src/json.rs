//! JSON text, appended to bytes value by value.
//!
//! For what is written for every command: the event, the lock it is answered with, the lock that
//! is in its way. There a serialiser that looks at each byte of each member's name, or a tree of
//! values, costs more than deciding does. Everything else is left to `serde_json`, whose text this
//! is to the byte.

use uuid::Uuid;

use crate::time::WallTime;

/// Appends a string in quotes.
pub fn text(out: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Every string has a JSON text, and writing to memory does not fail.
        let _ = serde_json::to_writer(out, text);
    }
}

/// Appends one string in quotes, of which these are the parts.
pub fn text_of(out: &mut Vec<u8>, parts: &[&str]) {
    if !parts.iter().all(|part| is_plain(part)) {
        return text(out, &parts.concat());
    }
    out.push(b'"');
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'"');
}

/// Whether there is nothing in it that JSON writes otherwise.
fn is_plain(text: &str) -> bool {
    // Without a way out of the loop, so that many bytes are compared at once.
    text.bytes().fold(true, |plain, byte| plain & (b' ' <= byte) & (byte != b'"') & (byte != b'\\'))
}

/// Appends a string in quotes, or `null`.
pub fn text_or_null(out: &mut Vec<u8>, given: Option<&str>) {
    match given {
        Some(given) => text(out, given),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a number.
pub fn number(out: &mut Vec<u8>, mut number: u64) {
    // As many digits as the largest number has.
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

/// Appends an id in quotes.
pub fn id(out: &mut Vec<u8>, id: Uuid) {
    out.push(b'"');
    out.extend_from_slice(id.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
    out.push(b'"');
}

/// Appends a time in quotes.
pub fn time(out: &mut Vec<u8>, time: WallTime) {
    out.push(b'"');
    time.shown(|text| out.extend_from_slice(text.as_bytes()));
    out.push(b'"');
}

/// Appends a list.
pub fn list<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// The members of an object, one after the other; the braces are the caller's.
pub struct Members<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl<'a> Members<'a> {
    /// None so far, to be appended to `out`.
    pub fn of(out: &'a mut Vec<u8>) -> Self {
        Self { out, is_first: true }
    }

    /// Appends a name that has nothing to be escaped; its value comes next.
    pub fn member(&mut self, name: &'static str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_character_is_written_as_serde_json_writes_it() {
        let mut all = String::new();
        for character in (0..0x3000).filter_map(char::from_u32) {
            let one = format!("a{character}");
            let ours = written(|out| text(out, &one));
            assert_eq!(ours, serde_json::to_string(&one).unwrap());
            let in_parts = written(|out| text_of(out, &["x", &one, "", "y"]));
            assert_eq!(in_parts, serde_json::to_string(&format!("x{one}y")).unwrap());
            all.push(character);
        }
        assert_eq!(written(|out| text(out, &all)), serde_json::to_string(&all).unwrap());
    }

    #[test]
    fn members_are_separated() {
        let ours = written(|out| {
            let mut members = Members::of(out);
            text_or_null(members.member("a"), Some("x"));
            text_or_null(members.member("b"), None);
        });
        assert_eq!(ours, r#""a":"x","b":null"#);
    }

    #[test]
    fn numbers_lists_ids_and_times_are_written_as_serde_json_writes_them() {
        for given in [0, 1, 9, 10, 99, 100, 1 << 53, u64::MAX] {
            assert_eq!(written(|out| number(out, given)), given.to_string());
        }
        for given in [&[][..], &["a"], &["a", "\""]] {
            let ours = written(|out| list(out, given, |out, item| text(out, item)));
            assert_eq!(ours, serde_json::to_string(given).unwrap());
        }
        let lock_id = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(written(|out| id(out, lock_id)), serde_json::to_string(&lock_id).unwrap());
        for given in [WallTime(0), WallTime(1_795_176_000_123), WallTime(i64::MIN)] {
            assert_eq!(written(|out| time(out, given)), serde_json::to_string(&given).unwrap());
        }
    }
}
