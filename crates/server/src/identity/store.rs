//! The file with the keys: `keys.json` in the data folder.
//!
//! It is replaced as a whole, so that a reader sees all of one version or all of another, and a
//! crash leaves one of them. `keys.lock` keeps two writers apart.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use leasehold_core::caller::{Permission, Permissions, Role};
use leasehold_core::ids::Principal;
use leasehold_core::pattern::Pattern;
use leasehold_core::time::WallTime;
use serde::{Deserialize, Serialize};

use super::key::{NewKey, SecretDigest};

const VERSION: u32 = 1;

/// What a key may do, by the name that operators know it under.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Read.
    Reader,
    /// Read, write, lock.
    Writer,
    /// As writer, and break and freeze.
    Manager,
    /// Read, and the trail.
    Auditor,
    /// Everything.
    Admin,
}

impl RoleName {
    /// Every role.
    pub const ALL: [Self; 5] =
        [Self::Reader, Self::Writer, Self::Manager, Self::Auditor, Self::Admin];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Manager => "manager",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    /// What it allows.
    #[must_use]
    pub fn permissions(self) -> Permissions {
        use Permission::{Audit, Break, Freeze, Lock, Read, Write};
        match self {
            Self::Reader => Permissions::of(&[Read]),
            Self::Writer => Permissions::of(&[Read, Write, Lock]),
            Self::Manager => Permissions::of(&[Read, Write, Lock, Break, Freeze]),
            Self::Auditor => Permissions::of(&[Read, Audit]),
            Self::Admin => Permissions::ALL,
        }
    }
}

impl std::str::FromStr for RoleName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            format!("`{text}` is not a role: reader, writer, manager, auditor or admin")
        })
    }
}

/// One role of a key, and where it holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRole {
    /// The role.
    pub role: RoleName,
    /// The patterns of the paths it holds for. Empty: everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

impl KeyRole {
    fn to_role(&self) -> Result<Role, String> {
        let patterns = self.paths.iter().map(|path| Pattern::parse(path)).collect::<Result<_, _>>();
        let patterns = patterns.map_err(|error| error.to_string())?;
        Ok(Role { permissions: self.role.permissions(), patterns })
    }
}

/// What is kept of one key.
// Unknown fields are refused: one could narrow what the key may do.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// The principal it speaks for.
    pub name: String,
    /// Which key it is.
    pub id: String,
    /// The SHA-256 of its secret, in hexadecimal.
    sha256: String,
    /// What it may do.
    pub roles: Vec<KeyRole>,
    /// When it was made, by the wall clock.
    pub created_at: WallTime,
}

impl KeyEntry {
    /// The entry's digest and roles, checked.
    pub(super) fn check(&self) -> Result<(SecretDigest, Vec<Role>), String> {
        check_name(&self.name)?;
        let digest = SecretDigest::from_hex(&self.sha256)
            .ok_or_else(|| format!("the `sha256` of the key `{}` is not a digest", self.name))?;
        let roles = self.roles.iter().map(KeyRole::to_role).collect::<Result<_, _>>();
        Ok((digest, roles.map_err(|error| format!("the key `{}`: {error}", self.name))?))
    }
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    version: u32,
    keys: Vec<KeyEntry>,
}

/// Why keys could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The file system failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is not one of ours.
    #[error("{} is not a file of keys: {reason}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The name, a role or a path is not allowed.
    #[error("{0}")]
    NotAllowed(String),
    /// There is a key of this name.
    #[error("there is a key named `{0}`; remove it first, or choose another name")]
    Taken(String),
    /// There is no key of this name.
    #[error("there is no key named `{0}`")]
    Unknown(String),
    /// The system has no random numbers.
    #[error("the system has no random numbers: {0}")]
    Random(getrandom::Error),
}

/// The keys of one data folder. It holds nothing open.
#[derive(Clone, Debug)]
pub struct KeyStore {
    folder: PathBuf,
}

impl KeyStore {
    /// The keys of the data folder `data`, which need not exist yet.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { folder: data.to_owned() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join("keys.json")
    }

    /// Makes a key named `name` with these roles. Its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`KeyStoreError::NotAllowed`], [`KeyStoreError::Taken`], or a failure.
    pub fn add(&self, name: &str, roles: &[KeyRole]) -> Result<NewKey, KeyStoreError> {
        check_name(name).map_err(KeyStoreError::NotAllowed)?;
        if roles.is_empty() {
            return Err(KeyStoreError::NotAllowed("a key needs at least one role".to_owned()));
        }
        for role in roles {
            role.to_role().map_err(KeyStoreError::NotAllowed)?;
        }
        let _lock = self.lock()?;
        let mut keys = self.list()?;
        if keys.iter().any(|key| key.name == name) {
            return Err(KeyStoreError::Taken(name.to_owned()));
        }
        let key = loop {
            let key = NewKey::random().map_err(KeyStoreError::Random)?;
            if keys.iter().all(|other| other.id != key.id()) {
                break key;
            }
        };
        keys.push(KeyEntry {
            name: name.to_owned(),
            id: key.id().to_owned(),
            sha256: key.digest().to_hex(),
            roles: roles.to_vec(),
            created_at: WallTime(jiff::Timestamp::now().as_millisecond()),
        });
        self.write(keys)?;
        Ok(key)
    }

    /// Every key, the oldest first. None when there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, or is not one of ours.
    pub fn list(&self) -> Result<Vec<KeyEntry>, KeyStoreError> {
        let path = self.path();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(KeyStoreError::Io { action: "read", path, source }),
        };
        let file: KeyFile = match serde_json::from_slice(&text) {
            Ok(file) => file,
            Err(error) => return Err(KeyStoreError::Broken { path, reason: error.to_string() }),
        };
        if file.version != VERSION {
            let reason = format!("its version is {}, not {VERSION}", file.version);
            return Err(KeyStoreError::Broken { path, reason });
        }
        Ok(file.keys)
    }

    /// Removes the key named `name`. A running server refuses it within a second.
    ///
    /// # Errors
    /// [`KeyStoreError::Unknown`], or a failure.
    pub fn remove(&self, name: &str) -> Result<KeyEntry, KeyStoreError> {
        if !self.path().exists() {
            return Err(KeyStoreError::Unknown(name.to_owned()));
        }
        let _lock = self.lock()?;
        let mut keys = self.list()?;
        let at = keys.iter().position(|key| key.name == name);
        let at = at.ok_or_else(|| KeyStoreError::Unknown(name.to_owned()))?;
        let removed = keys.remove(at);
        self.write(keys)?;
        Ok(removed)
    }

    /// Waits until no other process changes the keys. The folder is made if it is missing.
    fn lock(&self) -> Result<File, KeyStoreError> {
        let make = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        make.map_err(failed("make the data folder", &self.folder))?;
        let path = self.folder.join("keys.lock");
        let lock = private().create(true).truncate(false).open(&path);
        let lock = lock.map_err(failed("open", &path))?;
        lock.lock().map_err(failed("lock", &path))?;
        Ok(lock)
    }

    /// Replaces the file. The caller has the lock.
    fn write(&self, keys: Vec<KeyEntry>) -> Result<(), KeyStoreError> {
        let path = self.path();
        let new = self.folder.join("keys.json.new");
        let file = KeyFile { version: VERSION, keys };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| KeyStoreError::Broken {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        // What a crash left behind may have another mode.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &new)(error));
            }
            _ => {}
        }
        let mut out = private().create_new(true).open(&new).map_err(failed("make", &new))?;
        self.give_to_the_owner(&out).map_err(failed("change the owner of", &new))?;
        let written = out.write_all(&text).and_then(|()| out.write_all(b"\n"));
        written.and_then(|()| out.sync_all()).map_err(failed("write", &new))?;
        std::fs::rename(&new, &path).map_err(failed("replace", &path))?;
        // Without it the new name may be gone after a power cut.
        let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
        folder.map_err(failed("sync", &self.folder))
    }

    /// A key that root makes is for the server that owns the folder.
    fn give_to_the_owner(&self, file: &File) -> io::Result<()> {
        let (folder, made) = (std::fs::metadata(&self.folder)?, file.metadata()?);
        if folder.uid() == made.uid() {
            return Ok(());
        }
        fchown(file, Some(folder.uid()), Some(folder.gid()))
    }
}

/// Whether a principal can have this name.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > Principal::MAX_BYTES {
        return Err(format!("a key's name has 1 to {} bytes", Principal::MAX_BYTES));
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return Err("a key's name has no control characters, and no space around it".to_owned());
    }
    // Whoever comes without a key has this name where none is asked for.
    if name == "anonymous" {
        return Err("a key cannot be named `anonymous`".to_owned());
    }
    Ok(())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyStoreError {
    let path = path.to_owned();
    move |source| KeyStoreError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn role(role: RoleName, paths: &[&str]) -> KeyRole {
        KeyRole { role, paths: paths.iter().map(|path| (*path).to_owned()).collect() }
    }

    #[test]
    fn a_key_is_kept_until_it_is_removed_and_its_secret_never() {
        let root = tempfile::tempdir().unwrap();
        let store = KeyStore::new(&root.path().join("data"));
        assert!(store.list().unwrap().is_empty());
        let roles = [role(RoleName::Writer, &["/v1/**"]), role(RoleName::Auditor, &[])];
        let key = store.add("ci", &roles).unwrap();
        store.add("alice", &[role(RoleName::Admin, &[])]).unwrap();

        let entries = store.list().unwrap();
        assert_eq!(entries.iter().map(|entry| &*entry.name).collect::<Vec<_>>(), ["ci", "alice"]);
        assert_eq!(entries[0].roles, roles);
        assert_eq!(entries[0].id, key.id());
        let text = std::fs::read_to_string(store.path()).unwrap();
        let revealed = key.reveal();
        let (_, secret) = super::super::key::split(&revealed).unwrap();
        assert!(!text.contains(secret));
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.path()), 0o600);
        assert_eq!(mode(&store.folder), 0o700);

        assert_eq!(store.remove("ci").unwrap().id, key.id());
        assert!(matches!(store.remove("ci"), Err(KeyStoreError::Unknown(_))));
        assert_eq!(store.list().unwrap().len(), 1);
    }

    #[test]
    fn what_makes_no_key_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let store = KeyStore::new(root.path());
        let admin = [role(RoleName::Admin, &[])];
        let long = "a".repeat(256);
        for name in ["", &long, "a\nb", " a", "anonymous"] {
            assert!(matches!(store.add(name, &admin), Err(KeyStoreError::NotAllowed(_))), "{name}");
        }
        assert!(matches!(store.add("a", &[]), Err(KeyStoreError::NotAllowed(_))));
        let bad = [role(RoleName::Reader, &["v1"])];
        assert!(matches!(store.add("a", &bad), Err(KeyStoreError::NotAllowed(_))));
        assert!(!store.path().exists());
        store.add(&long[..255], &admin).unwrap();
        assert!(matches!(store.add(&long[..255], &admin), Err(KeyStoreError::Taken(_))));
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let store = KeyStore::new(root.path());
        for text in ["", "[]", r#"{"version":2,"keys":[]}"#, r#"{"version":1,"keys":[],"x":1}"#] {
            std::fs::write(store.path(), text).unwrap();
            assert!(matches!(store.list(), Err(KeyStoreError::Broken { .. })), "{text}");
            assert!(store.add("a", &[role(RoleName::Admin, &[])]).is_err());
            assert_eq!(std::fs::read_to_string(store.path()).unwrap(), text);
        }
    }

    #[test]
    fn two_writers_lose_no_key() {
        let root = tempfile::tempdir().unwrap();
        let store = KeyStore::new(root.path());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = store.clone();
                scope.spawn(move || {
                    for key in 0..5 {
                        let name = format!("{thread}-{key}");
                        store.add(&name, &[role(RoleName::Reader, &[])]).unwrap();
                    }
                });
            }
        });
        assert_eq!(store.list().unwrap().len(), 20);
    }
}
