//! An API key: `lhk_{id}_{secret}`. The id says which key it is, the secret proves it.
//!
//! Both are letters and digits, so that a key is one word in a shell, in a URL and under a double
//! click. The secret has 256 random bits: it cannot be guessed, so its plain SHA-256 can be kept.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "lhk_";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID_CHARS: usize = 8;
/// 62^43 is a little more than 2^256.
const SECRET_CHARS: usize = 43;

/// A key that was just made. This is the only time its text is known.
pub struct NewKey {
    id: String,
    secret: String,
}

impl NewKey {
    /// A random key.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        Ok(Self { id: random_text(ID_CHARS)?, secret: random_text(SECRET_CHARS)? })
    }

    /// Which key it is. No secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is kept of its secret.
    pub(super) fn digest(&self) -> SecretDigest {
        SecretDigest::of(&self.secret)
    }

    /// The whole key, to be shown to whoever will use it and then forgotten.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, self.secret)
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Splits a presented key into its id and its secret.
pub(super) fn split(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let legal = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let whole = id.len() == ID_CHARS && secret.len() == SECRET_CHARS;
    (whole && legal(id) && legal(secret)).then_some((id, secret))
}

/// What is kept of a secret: its SHA-256.
#[derive(Clone, Copy, Debug)]
pub(super) struct SecretDigest([u8; 32]);

impl SecretDigest {
    pub(super) fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Whether this is the digest of `secret`, in a time that does not tell how nearly.
    pub(super) fn is_of(&self, secret: &str) -> bool {
        self.0.ct_eq(&Self::of(secret).0).into()
    }

    pub(super) fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut digest = [0; 32];
        for (at, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

/// Random letters and digits, each as likely as any other.
fn random_text(chars: usize) -> Result<String, getrandom::Error> {
    let mut text = String::with_capacity(chars);
    let mut bytes = [0; 64];
    while text.len() < chars {
        getrandom::fill(&mut bytes)?;
        // 248 is 4 * 62: what lies above would make the first few letters likelier.
        let fair = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < 248);
        let letters = fair.map(|byte| char::from(ALPHABET[byte % 62]));
        text.extend(letters.take(chars - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_apart_from_everything_else() {
        let key = NewKey::random().unwrap();
        let text = key.reveal();
        assert_eq!(text.len(), 4 + 8 + 1 + 43);
        let (id, secret) = split(&text).unwrap();
        assert_eq!(id, key.id());
        assert!(key.digest().is_of(secret));
        assert!(!key.digest().is_of(&secret.to_lowercase()));
        let kept = key.digest().to_hex();
        assert!(SecretDigest::from_hex(&kept).unwrap().is_of(secret));
        assert!(!kept.contains(secret));
        assert!(!format!("{key:?}").contains(secret));
        assert_ne!(NewKey::random().unwrap().reveal(), text);
        for bad in ["", "lhk_", "lhk_a_b", &text[..text.len() - 1], &text[4..], &format!("{text}a")]
        {
            assert!(split(bad).is_none(), "{bad}");
        }
        assert!(SecretDigest::from_hex("00").is_none());
        assert!(SecretDigest::from_hex(&"+f".repeat(32)).is_none());
    }
}
