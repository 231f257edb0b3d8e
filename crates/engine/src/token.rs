//! Lock tokens: made from what the table knows, and a secret. They are not stored.
//!
//! A token is `lock_` and, in base64url, the id of the secret, the lock id, the fence, and an
//! HMAC-SHA256 over them and the incarnation. Whoever reads a backup or the trail can use no
//! token; whoever reads `token.key` can.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use leasehold_core::command::Presented;
use leasehold_core::ids::{Fence, LockId};
use leasehold_core::time::WallTime;
use leasehold_journal::files;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// What every token begins with.
pub const PREFIX: &str = "lock_";

/// The longest token, in characters after the prefix.
pub const MAX_CHARACTERS: usize = 120;

const CLAIMS: usize = 2 + 16 + 8;
const SEAL: usize = 32;

/// The secrets that seal tokens: the current one, and earlier ones that still verify.
pub struct TokenKeys {
    incarnation: String,
    keys: Vec<Key>,
}

struct Key {
    id: u16,
    mac: Hmac<Sha256>,
}

#[derive(Deserialize, Serialize)]
struct KeyFile {
    keys: Vec<KeyEntry>,
    /// What principals are made with from credentials. It is never rotated: everybody would be
    /// somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    principals: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct KeyEntry {
    id: u16,
    secret: String,
    /// Until when it still verifies, by the wall clock; set when a newer one took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verifies_until: Option<WallTime>,
}

/// Why the token secrets could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The file could not be read or written.
    #[error("cannot {action} the token secrets in {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} is no file of token secrets", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Randomness,
}

impl TokenKeys {
    /// Reads the secrets from `path`, or makes them there (0600) if there are none. Those whose
    /// time was over by `now` are left out.
    ///
    /// # Errors
    /// When the file cannot be read, written or understood.
    pub fn open(path: &Path, incarnation: &str, now: WallTime) -> Result<Self, TokenKeyError> {
        let mut file = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice::<KeyFile>(&bytes)
                .map_err(|_| TokenKeyError::Damaged { path: path.to_owned() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = KeyFile { keys: vec![fresh(1)?], principals: None };
                write(path, &file)?;
                file
            }
            Err(source) => {
                return Err(TokenKeyError::Io { action: "read", path: path.to_owned(), source });
            }
        };
        file.keys.retain(|key| key.verifies_until.is_none_or(|until| now < until));
        Self::from_file(&file, incarnation)
            .ok_or_else(|| TokenKeyError::Damaged { path: path.to_owned() })
    }

    /// Puts a new secret in front of those in `path`: it makes tokens, and those before it verify
    /// for `keep_ms` longer. Its number. A running engine takes it when it reads the file again.
    ///
    /// # Errors
    /// When the file cannot be read, written or understood.
    pub fn rotate(path: &Path, now: WallTime, keep_ms: u64) -> Result<u16, TokenKeyError> {
        let bytes = fs::read(path).map_err(|source| TokenKeyError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let mut file: KeyFile = serde_json::from_slice(&bytes)
            .map_err(|_| TokenKeyError::Damaged { path: path.to_owned() })?;
        let id = file.keys.iter().map(|key| key.id).max().unwrap_or(0).wrapping_add(1);
        for key in &mut file.keys {
            key.verifies_until.get_or_insert(now + keep_ms);
        }
        file.keys.retain(|key| key.verifies_until.is_some_and(|until| now < until));
        file.keys.insert(0, fresh(id)?);
        write(path, &file)?;
        Ok(id)
    }

    /// Secrets made of `seed`, for tests: never for a server.
    #[must_use]
    pub fn for_tests(seed: u8, incarnation: &str) -> Self {
        let entry =
            KeyEntry { id: 1, secret: URL_SAFE_NO_PAD.encode([seed; 32]), verifies_until: None };
        Self::from_file(&KeyFile { keys: vec![entry], principals: None }, incarnation)
            .unwrap_or_else(|| Self { incarnation: incarnation.to_owned(), keys: Vec::new() })
    }

    fn from_file(file: &KeyFile, incarnation: &str) -> Option<Self> {
        let mut keys = Vec::with_capacity(file.keys.len());
        for entry in &file.keys {
            let secret = URL_SAFE_NO_PAD.decode(&entry.secret).ok()?;
            if secret.len() < 32 {
                return None;
            }
            keys.push(Key { id: entry.id, mac: Hmac::new_from_slice(&secret).ok()? });
        }
        (!keys.is_empty()).then(|| Self { incarnation: incarnation.to_owned(), keys })
    }

    /// The token of a grant.
    #[must_use]
    pub fn mint(&self, lock_id: LockId, fence: Fence) -> String {
        self.keys.first().map(|key| self.seal(key, lock_id, fence)).unwrap_or_default()
    }

    fn seal(&self, key: &Key, lock_id: LockId, fence: Fence) -> String {
        let mut bytes = [0; CLAIMS + SEAL];
        bytes[..2].copy_from_slice(&key.id.to_be_bytes());
        bytes[2..18].copy_from_slice(lock_id.0.as_bytes());
        bytes[18..CLAIMS].copy_from_slice(&fence.0.to_be_bytes());
        let seal = self.mac(key, &bytes[..CLAIMS]).finalize();
        bytes[CLAIMS..].copy_from_slice(&seal.into_bytes());
        let mut token = String::with_capacity(PREFIX.len() + 78);
        token.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes, &mut token);
        token
    }

    fn mac(&self, key: &Key, claims: &[u8]) -> Hmac<Sha256> {
        let mut mac = key.mac.clone();
        mac.update(claims);
        mac.update(self.incarnation.as_bytes());
        mac
    }

    /// What a presented token claims, if it was issued here.
    #[must_use]
    pub fn read(&self, token: &str) -> Presented {
        self.claims(token)
            .map_or(Presented::Forged, |(lock_id, fence)| Presented::Token { lock_id, fence })
    }

    fn claims(&self, token: &str) -> Option<(LockId, Fence)> {
        // It decodes what it would encode and nothing else, neither padding nor bits that are left
        // over: a token has no second spelling.
        let mut bytes = [0; CLAIMS + SEAL];
        let length = URL_SAFE_NO_PAD.decode_slice(token.strip_prefix(PREFIX)?, &mut bytes).ok()?;
        if length != bytes.len() {
            return None;
        }
        let id = u16::from_be_bytes(bytes[..2].try_into().ok()?);
        let lock_id = LockId(uuid::Uuid::from_bytes(bytes[2..18].try_into().ok()?));
        let fence = Fence(u64::from_be_bytes(bytes[18..CLAIMS].try_into().ok()?));
        let key = self.keys.iter().find(|key| key.id == id)?;
        // Compared in a time that tells nothing of where the two differ.
        self.mac(key, &bytes[..CLAIMS]).verify_slice(&bytes[CLAIMS..]).ok()?;
        Some((lock_id, fence))
    }
}

/// The secret that principals are made with from credentials, of the file that the token secrets
/// are in. It is made there when it is first asked for.
///
/// # Errors
/// When the file is not there, or cannot be read, written or understood.
pub fn principal_secret(path: &Path) -> Result<Vec<u8>, TokenKeyError> {
    let damaged = || TokenKeyError::Damaged { path: path.to_owned() };
    let bytes = fs::read(path).map_err(|source| TokenKeyError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let mut file: KeyFile = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    let text = match &file.principals {
        Some(text) => text.clone(),
        None => {
            let text = random()?;
            file.principals = Some(text.clone());
            write(path, &file)?;
            text
        }
    };
    let secret = URL_SAFE_NO_PAD.decode(text).map_err(|_| damaged())?;
    if secret.len() < 32 { Err(damaged()) } else { Ok(secret) }
}

fn fresh(id: u16) -> Result<KeyEntry, TokenKeyError> {
    Ok(KeyEntry { id, secret: random()?, verifies_until: None })
}

/// A secret, as it is written.
fn random() -> Result<String, TokenKeyError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|_| TokenKeyError::Randomness)?;
    Ok(URL_SAFE_NO_PAD.encode(secret))
}

fn write(path: &Path, file: &KeyFile) -> Result<(), TokenKeyError> {
    let failed = |source| TokenKeyError::Io { action: "write", path: path.to_owned(), source };
    let bytes = serde_json::to_vec_pretty(file).map_err(|error| failed(error.into()))?;
    let temporary = path.with_extension("key.new");
    let mut out = files::private_file(&temporary, true).map_err(failed)?;
    out.write_all(&bytes).and_then(|()| out.sync_all()).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LockId = LockId(uuid::Uuid::from_u128(7));

    #[test]
    fn a_token_is_known_only_as_it_was_issued() {
        let keys = TokenKeys::for_tests(1, "aa");
        let token = keys.mint(ID, Fence(42));
        assert_eq!(keys.read(&token), Presented::Token { lock_id: ID, fence: Fence(42) });
        assert!(token.len() <= PREFIX.len() + MAX_CHARACTERS);
        for at in PREFIX.len()..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(keys.read(&other), Presented::Forged, "{other}");
        }
        let bytes = URL_SAFE_NO_PAD.decode(&token[PREFIX.len()..]).unwrap();
        let respelt: Vec<String> = ('A'..='Z')
            .chain('a'..='z')
            .chain('0'..='9')
            .map(|last| format!("{}{last}", &token[..token.len() - 1]))
            .filter(|other| *other != token)
            .chain([format!("{token}A"), format!("{token}="), format!("{token}==")])
            .chain([token[..token.len() - 1].to_owned(), String::new(), PREFIX.to_owned()])
            .chain([format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes[..57]))])
            .collect();
        for other in respelt {
            assert_eq!(keys.read(&other), Presented::Forged, "{other}");
        }
        assert_eq!(TokenKeys::for_tests(1, "bb").read(&token), Presented::Forged);
        assert_eq!(TokenKeys::for_tests(2, "aa").read(&token), Presented::Forged);
    }

    #[test]
    fn a_token_verifies_after_a_rotation_as_long_as_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        let open = |now| TokenKeys::open(&path, "aa", WallTime(now)).unwrap();
        let token = open(0).mint(ID, Fence(1));
        assert_eq!(TokenKeys::rotate(&path, WallTime(1000), 5000).unwrap(), 2);
        assert_ne!(open(5999).mint(ID, Fence(1)), token);
        assert_ne!(open(5999).read(&token), Presented::Forged);
        assert_eq!(open(6000).read(&token), Presented::Forged);
        assert_eq!(TokenKeys::rotate(&path, WallTime(7000), 5000).unwrap(), 3);
        assert_eq!(open(0).read(&token), Presented::Forged);
    }

    #[test]
    fn principals_stay_who_they_are_when_token_secrets_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        assert!(matches!(principal_secret(&path), Err(TokenKeyError::Io { .. })));
        let token = TokenKeys::open(&path, "aa", WallTime(0)).unwrap().mint(ID, Fence(1));
        let secret = principal_secret(&path).unwrap();
        assert_eq!(secret.len(), 32);
        TokenKeys::rotate(&path, WallTime(1000), 5000).unwrap();
        assert_eq!(principal_secret(&path).unwrap(), secret);
        let keys = TokenKeys::open(&path, "aa", WallTime(2000)).unwrap();
        assert_ne!(keys.read(&token), Presented::Forged);
        fs::write(&path, r#"{"keys":[],"principals":"c2hvcnQ"}"#).unwrap();
        assert!(matches!(principal_secret(&path), Err(TokenKeyError::Damaged { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn the_secrets_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        TokenKeys::open(&path, "aa", WallTime(0)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
