//! The keys that tokens are signed with: a JSON Web Key Set (RFC 7517), from a file or an address.
//!
//! What holds:
//! - Keys that are known stay while the source fails or has nothing that can be read.
//! - A key that is not known is looked for at once, but at most every [`PAUSE`]: who makes ids up
//!   cannot make this server ask more often.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Uri;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::Mutex;

use super::fetch::Fetch;

/// The least time between two looks for keys that are not known.
const PAUSE: Duration = Duration::from_secs(10);
/// The most keys of a set.
const MAX_KEYS: usize = 100;

/// Where the keys come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum JwksSource {
    /// A file.
    File(PathBuf),
    /// An address, `http` or `https`.
    Url(Uri),
}

impl JwksSource {
    /// Whether they come over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        matches!(self, Self::Url(uri) if uri.scheme_str() == Some("https"))
    }
}

impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(uri) => uri.fmt(f),
        }
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[error("no keys from {source_name}")]
pub struct JwksError {
    source_name: String,
    #[source]
    cause: Box<dyn std::error::Error + Send + Sync>,
}

/// The keys as they are known now.
pub(super) struct KeySet {
    source: JwksSource,
    fetch: Option<Fetch>,
    keys: ArcSwap<Vec<Key>>,
    /// When a key that is not known may be looked for again.
    due: Mutex<Duration>,
}

/// One of them.
struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, where it says so.
    algorithm: Option<String>,
    key: DecodingKey,
}

// Without the keys: one that is shared is a secret.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("source", &self.source).finish_non_exhaustive()
    }
}

impl KeySet {
    /// The keys from `source`: at once from a file, and none yet from an address.
    /// With an address that is `https`, the authorities in the file `ca` are trusted, or those of
    /// the system.
    pub(super) fn open(source: JwksSource, ca: Option<&Path>) -> Result<Self, JwksError> {
        let failed = |cause| JwksError { source_name: source.to_string(), cause };
        let (fetch, keys) = match &source {
            JwksSource::File(path) => {
                let read = std::fs::read(path).map_err(|error| failed(error.into()))?;
                (None, parse(&read).map_err(failed)?)
            }
            JwksSource::Url(uri) => {
                (Some(Fetch::new(uri.clone(), ca).map_err(failed)?), Vec::new())
            }
        };
        let keys = ArcSwap::from_pointee(keys);
        Ok(Self { source, fetch, keys, due: Mutex::default() })
    }

    /// Whether there is none at all.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.load().is_empty()
    }

    /// Those that a token with this id and algorithm may be signed with.
    pub(super) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<DecodingKey> {
        let named = format!("{algorithm:?}");
        let fits = |key: &&Key| {
            // A token without an id may be of any key.
            (id.is_none() || key.id.as_deref() == id)
                && key.key.family() == algorithm.family()
                && key.algorithm.as_ref().is_none_or(|only| *only == named)
        };
        self.keys.load().iter().filter(fits).map(|key| key.key.clone()).collect()
    }

    /// Reads the keys again; those known before stay if that fails.
    pub(super) async fn refresh(&self) -> Result<(), JwksError> {
        let failed = |cause| JwksError { source_name: self.source.to_string(), cause };
        let read = match (&self.source, &self.fetch) {
            (JwksSource::Url(_), Some(fetch)) => fetch.get().await.map_err(failed)?,
            (JwksSource::File(path), _) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
                Bytes::from(
                    read.map_err(|error| failed(error.into()))?
                        .map_err(|error| failed(error.into()))?,
                )
            }
            (JwksSource::Url(_), None) => {
                return Err(failed("there is nothing to ask with".into()));
            }
        };
        self.keys.store(Arc::new(parse(&read).map_err(failed)?));
        Ok(())
    }

    /// The same, where the key of this id is not known. `now` is a monotonic reading.
    pub(super) async fn look_for(&self, id: Option<&str>, now: Duration) {
        if self.knows(id) {
            return;
        }
        // Who comes while it is being looked for waits for what is found.
        let mut due = self.due.lock().await;
        if self.knows(id) || now < *due {
            return;
        }
        *due = now + PAUSE;
        // Boxed: every request would have room for it, and hardly any asks.
        if let Err(error) = Box::pin(self.refresh()).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a token names a key that is not known, and the keys cannot be read again"
            );
        }
    }

    fn knows(&self, id: Option<&str>) -> bool {
        self.keys.load().iter().any(|key| id.is_none() || key.id.as_deref() == id)
    }
}

/// Every key of a set that can sign tokens. Sets may have keys of kinds that are not known here.
fn parse(bytes: &[u8]) -> Result<Vec<Key>, Box<dyn std::error::Error + Send + Sync>> {
    // The parser's own message can show a piece of what it read, which may be a secret.
    const WRONG: &str = "this is no JSON Web Key Set; expected {\"keys\": [...]}";
    let set: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| WRONG)?;
    let listed = set.get("keys").and_then(serde_json::Value::as_array).ok_or(WRONG)?;
    let mut keys = Vec::new();
    for each in listed.iter().take(MAX_KEYS) {
        let Ok(jwk) = serde_json::from_value::<Jwk>(each.clone()) else { continue };
        if jwk.common.public_key_use.as_ref().is_some_and(|is| *is != PublicKeyUse::Signature) {
            continue;
        }
        let Ok(key) = DecodingKey::from_jwk(&jwk) else { continue };
        let text = |name: &str| each.get(name).and_then(|it| it.as_str()).map(str::to_owned);
        keys.push(Key { id: jwk.common.key_id, algorithm: text("alg"), key });
    }
    if keys.is_empty() {
        return Err("there is no key in it that signs tokens and is of a known kind".into());
    }
    Ok(keys)
}
