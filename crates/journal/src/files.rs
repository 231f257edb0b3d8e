//! Files and folders as a data folder has them: for their owner only, and on stable storage.
//!
//! Shared with whoever else keeps a file there. Deliberately absent: what is in them.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::connect::{StoreError, failed};

/// Opens `path` for writing, made if missing, readable by its owner only. SQLite gives the files
/// that it makes beside one of its own the same mode.
///
/// # Errors
/// As the system says.
pub fn private_file(path: &Path, truncate: bool) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(truncate);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

/// Makes `path` and what is missing above it, for its owner only.
pub(crate) fn private_folder(path: &Path) -> std::io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

/// Makes the names in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|handle| handle.sync_all())
        .map_err(failed("sync the folder", folder))
}

/// The write-ahead file of a database.
#[must_use]
pub fn wal_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Writes the bytes of a database's write-ahead file again where they are, and syncs them; there
/// may be no such file. Before the first connection of a process, which trusts what it finds there.
///
/// After a failed sync a system may have them in its memory alone and take them for written. Then
/// whoever reads the file sees them, and no other sync makes them durable. A checkpoint would
/// overwrite the database with what the next loss of power takes away.
///
/// # Errors
/// When the file cannot be opened, read or written.
pub fn write_wal_again(database: &Path) -> Result<(), StoreError> {
    let path = wal_path(database);
    let mut file = match File::options().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::new("open", &path, error)),
    };
    copy_onto_itself(&mut file).map_err(failed("write again", &path))
}

fn copy_onto_itself(file: &mut File) -> std::io::Result<()> {
    let mut chunk = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        file.seek(SeekFrom::Start(at))?;
        let count = file.read(&mut chunk)?;
        if count == 0 {
            return file.sync_all();
        }
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&chunk[..count])?;
        at += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_is_written_again_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("log.db");
        let wal = folder.path().join("log.db-wal");
        write_wal_again(&database).unwrap();
        assert!(!wal.exists());
        for length in [0, 1, 1 << 20, (3 << 20) + 17] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            std::fs::write(&wal, &bytes).unwrap();
            let long_ago = SystemTime::UNIX_EPOCH;
            File::options().write(true).open(&wal).unwrap().set_modified(long_ago).unwrap();
            write_wal_again(&database).unwrap();
            assert!(std::fs::read(&wal).unwrap() == bytes, "{length} bytes");
            let is_written = wal.metadata().unwrap().modified().unwrap() > long_ago;
            assert_eq!(is_written, length > 0, "{length} bytes");
        }
    }
}
