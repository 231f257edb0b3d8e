//! The keys as a running server knows them: it follows the file without a restart.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use leasehold_core::caller::Caller;
use leasehold_core::ids::Principal;

use super::key::SecretDigest;
use super::store::{KeyStore, KeyStoreError};

/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// How often in a second it is looked at besides, for ids that are not known. It bounds what
/// somebody who makes ids up can cause; each look is one `stat`.
const UNKNOWN_A_SECOND: u32 = 100;

/// The keys of a running server.
///
/// A file that cannot be read or is broken changes nothing: the keys known before stay. A file
/// that is gone is no keys, for then somebody removed it.
#[derive(Debug)]
pub struct KeyRing {
    store: KeyStore,
    keys: ArcSwap<HashMap<String, Arc<KnownKey>>>,
    /// When the file is due to be looked at again, in milliseconds of the readings passed in.
    due_ms: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct KnownKey {
    digest: SecretDigest,
    caller: Caller,
}

/// What was last seen of the file.
#[derive(Debug, Default)]
struct Seen {
    stamp: Option<Stamp>,
    /// The second in which ids that are not known were last counted, and how many.
    unknown: (u64, u32),
}

/// What tells one version of the file from another. A replaced file has another inode, or else
/// another time: a freed inode may be taken again.
#[derive(Debug, Eq, PartialEq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl KeyRing {
    /// Reads the keys.
    ///
    /// # Errors
    /// When there is a file and it cannot be read, or is not one of ours.
    pub fn open(store: KeyStore) -> Result<Self, KeyStoreError> {
        let stamp = stamp(&store)?;
        let keys = ArcSwap::from_pointee(read(&store)?);
        let seen = Mutex::new(Seen { stamp, unknown: (0, 0) });
        Ok(Self { store, keys, due_ms: AtomicU64::new(millis(EVERY)), seen })
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.load().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Who the key `id` with this secret speaks for. `now` is a monotonic reading that begins
    /// near zero when the server starts.
    #[must_use]
    pub fn find(&self, id: &str, secret: &str, now: Duration) -> Option<Caller> {
        let now_ms = millis(now);
        if now_ms >= self.due_ms.load(Ordering::Relaxed) {
            self.due_ms.store(now_ms + millis(EVERY), Ordering::Relaxed);
            self.look();
        }
        let mut known = self.keys.load().get(id).cloned();
        if known.is_none() && self.may_look_for_unknown(now.as_secs()) {
            // It may have been made a moment ago.
            self.look();
            known = self.keys.load().get(id).cloned();
        }
        known.filter(|key| key.digest.is_of(secret)).map(|key| key.caller.clone())
    }

    fn may_look_for_unknown(&self, second: u64) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.unknown.0 != second {
            seen.unknown = (second, 0);
        }
        seen.unknown.1 += 1;
        seen.unknown.1 <= UNKNOWN_A_SECOND
    }

    /// Reads the keys again if the file has changed.
    fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match stamp(&self.store) {
            Ok(now) => now,
            Err(error) => {
                tracing::error!(%error, "the keys may have changed and cannot be looked at");
                return;
            }
        };
        if now == seen.stamp {
            return;
        }
        match read(&self.store) {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "the keys have changed");
                self.keys.store(Arc::new(keys));
            }
            // Told once: the stamp is kept.
            Err(error) => tracing::error!(%error, "the keys have changed and cannot be read"),
        }
        seen.stamp = now;
    }
}

fn read(store: &KeyStore) -> Result<HashMap<String, Arc<KnownKey>>, KeyStoreError> {
    let mut keys = HashMap::new();
    for entry in store.list()? {
        let (digest, roles) =
            entry.check().map_err(|reason| KeyStoreError::Broken { path: store.path(), reason })?;
        let principal = Principal::new(&entry.name);
        let caller = Caller { principal, anonymous: false, roles: Arc::from(roles) };
        keys.insert(entry.id, Arc::new(KnownKey { digest, caller }));
    }
    Ok(keys)
}

fn stamp(store: &KeyStore) -> Result<Option<Stamp>, KeyStoreError> {
    let path = store.path();
    match std::fs::metadata(&path) {
        Ok(file) => Ok(Some(Stamp {
            inode: file.ino(),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyStoreError::Io { action: "look at", path, source }),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use leasehold_core::caller::Permission;
    use leasehold_core::resource::Resource;

    use super::super::key::split;
    use super::*;
    use crate::identity::{KeyRole, RoleName};

    const READER: [KeyRole; 1] = [KeyRole { role: RoleName::Reader, paths: Vec::new() }];

    fn find(ring: &KeyRing, key: &str, at_ms: u64) -> Option<Caller> {
        let (id, secret) = split(key).unwrap();
        ring.find(id, secret, Duration::from_millis(at_ms))
    }

    #[test]
    fn a_new_key_is_known_at_once_and_a_removed_one_is_refused_within_a_second() {
        let root = tempfile::tempdir().unwrap();
        let store = KeyStore::new(root.path());
        let ring = KeyRing::open(store.clone()).unwrap();
        assert!(ring.is_empty());
        let key = store.add("alice", &READER).unwrap().reveal();
        assert_eq!(find(&ring, &key, 0).unwrap().principal.as_str(), "alice");
        store.remove("alice").unwrap();
        assert!(find(&ring, &key, 999).is_some(), "it is looked at once a second");
        assert!(find(&ring, &key, 1000).is_none());
    }

    #[test]
    fn a_wrong_secret_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let store = KeyStore::new(root.path());
        let key = store.add("alice", &READER).unwrap().reveal();
        let other = store.add("bob", &READER).unwrap().reveal();
        let ring = KeyRing::open(store).unwrap();
        let mixed = format!("{}{}", &key[..13], &other[13..]);
        assert!(find(&ring, &mixed, 0).is_none());
        assert_eq!(find(&ring, &other, 0).unwrap().principal.as_str(), "bob");
    }

    #[test]
    fn a_role_holds_where_its_paths_say() {
        let root = tempfile::tempdir().unwrap();
        let store = KeyStore::new(root.path());
        let roles = [
            KeyRole { role: RoleName::Writer, paths: vec!["/v1/**".to_owned()] },
            KeyRole { role: RoleName::Auditor, paths: Vec::new() },
        ];
        let key = store.add("alice", &roles).unwrap().reveal();
        let caller = find(&KeyRing::open(store).unwrap(), &key, 0).unwrap();
        let may = |permission, path| caller.may(permission, &Resource::parse(path).unwrap());
        assert!(may(Permission::Lock, "/v1/a") && !may(Permission::Lock, "/v2/a"));
        assert!(may(Permission::Read, "/v2/a") && !may(Permission::Break, "/v1/a"));
        assert!(caller.may_everywhere(Permission::Audit) && !caller.anonymous);
    }

    #[test]
    fn a_broken_file_changes_nothing_and_a_missing_one_is_no_keys() {
        let root = tempfile::tempdir().unwrap();
        let store = KeyStore::new(root.path());
        let key = store.add("alice", &READER).unwrap().reveal();
        let good = std::fs::read(store.path()).unwrap();
        let ring = KeyRing::open(store.clone()).unwrap();
        std::fs::write(store.path(), "{").unwrap();
        assert!(find(&ring, &key, 2000).is_some());
        assert!(KeyRing::open(store.clone()).is_err());
        std::fs::remove_file(store.path()).unwrap();
        assert!(find(&ring, &key, 4000).is_none());
        std::fs::write(store.path(), good).unwrap();
        assert!(find(&ring, &key, 6000).is_some());
    }

    #[test]
    fn ids_that_somebody_makes_up_cause_a_bounded_number_of_looks() {
        let root = tempfile::tempdir().unwrap();
        let store = KeyStore::new(root.path());
        let ring = KeyRing::open(store.clone()).unwrap();
        for _ in 0..UNKNOWN_A_SECOND {
            assert!(ring.find("00000000", "", Duration::ZERO).is_none());
        }
        let key = store.add("alice", &READER).unwrap().reveal();
        assert!(find(&ring, &key, 500).is_none(), "the looks of this second are used up");
        assert!(find(&ring, &key, 1000).is_some());
    }
}
