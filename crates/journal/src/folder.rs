//! The data folder: one server at a time.
//!
//! Holding a [`DataFolder`] is the proof that no other process serves the same folder: its `lock`
//! file is locked until the last clone is dropped, and the system drops it with the process.
//! Deliberately absent: a way to take the folder over. Readers ([`crate::query`],
//! [`crate::backup`]) need no `DataFolder`.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::connect::{StoreError, failed};
use crate::files;

/// The file with all events.
pub const LOG_FILE: &str = "log.db";
/// The file that is rebuilt from the log.
pub const INDEX_FILE: &str = "index.db";
/// The file that is locked while a server has the folder.
pub const LOCK_FILE: &str = "lock";

/// A data folder that this process has to itself.
#[derive(Clone, Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: Arc<File>,
}

/// Why a data folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another server has it.
    #[error(
        "the data folder {} is in use by another server{}",
        path.display(), owner.map(|id| format!(" (process {id})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process that has it, as far as it wrote that down.
        owner: Option<u32>,
    },
    /// The file system failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DataFolder {
    /// Opens the folder at `path`, made with mode 0700 if it is missing, and takes its lock.
    ///
    /// # Errors
    /// [`FolderError::InUse`] at once when another process has it; [`FolderError::Store`] when it
    /// cannot be made or locked.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        files::private_folder(path).map_err(failed("make the data folder", path))?;
        let path = path.canonicalize().map_err(failed("resolve the data folder", path))?;
        let lock = path.join(LOCK_FILE);
        let mut file = files::private_file(&lock, false).map_err(failed("open", &lock))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // For the message only: whoever has the lock may be writing it right now.
                let owner =
                    file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(FolderError::InUse { path, owner });
            }
            Err(TryLockError::Error(source)) => {
                return Err(StoreError::new("lock", &lock, source).into());
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed("write to", &lock))?;
        Ok(Self { path, _lock: Arc::new(file) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its log is.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.path.join(LOG_FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_is_refused_and_told_who_has_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let first = DataFolder::open(&path).unwrap();
        let text = DataFolder::open(&path).unwrap_err().to_string();
        assert!(text.contains("in use by another server"), "{text}");
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        drop(first);
        DataFolder::open(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_and_its_lock_are_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(&root.path().join("data")).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.path().join(LOCK_FILE)), 0o600);
    }
}
