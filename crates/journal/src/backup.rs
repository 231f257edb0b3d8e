//! Backups: one file with the documents, the log and the keys, taken while a server runs.
//!
//! What always holds:
//! - documents are copied first, then the log: the trail never lacks a write that the documents
//!   have;
//! - the server's files are only read, through connections that never checkpoint; each copy is
//!   of one moment. While a file is copied its write-ahead file cannot be emptied;
//! - the file appears under its name only when it is whole and synced; a folder is restored with
//!   the log last, and a server refuses one that has the rest and no log, so that it never starts
//!   on half of it;
//! - `token.key` is left out unless it is asked for: whoever reads it can use every token.
//!
//! The file is a tar archive of SQLite files and text, for when nothing else is left to read it.
//! Deliberately absent: the index, which is built again; compression and encryption.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use leasehold_core::ids::Seq;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use serde::{Deserialize, Serialize};

use crate::connect::{self, StoreError, failed};
use crate::files;
use crate::folder::LOG_FILE;
use crate::log::{Head, hex, sqlite};

/// The embedded documents.
pub const DOCUMENTS_FILE: &str = "documents.db";
/// The API keys: names and digests.
pub const KEYS_FILE: &str = "keys.json";
/// The secret that tokens are made with.
pub const TOKEN_KEY_FILE: &str = "token.key";
/// The log while it is being restored.
pub(crate) const PARTIAL_LOG_FILE: &str = "log.db.partial";
/// What the backup says about itself; the first file in it.
const MANIFEST: &str = "backup.json";
const FORMAT: u32 = 1;

/// What was put into a backup or taken out of one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackupReport {
    /// Where its log stands. Keep it elsewhere: `verify` compares with it.
    pub head: Head,
    /// The names of the files, in their order.
    pub files: Vec<String>,
    /// The size of the backup in bytes.
    pub bytes: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Manifest {
    format: u32,
    seq: Seq,
    hash: String,
}

/// Why there is no backup, or no restored folder.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The folder to restore into is not empty.
    #[error("{} is not empty: a backup is restored into a new folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The file is no backup, or not a whole one.
    #[error("{} is no backup of this version of leasehold: {what}", path.display())]
    NotABackup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The log in the backup cannot be used.
    #[error("the log in the backup cannot be used")]
    Log(#[from] sqlite::OpenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies the data folder at `folder` into the one file `dest`, which is replaced if it exists.
/// `documents` is where the embedded documents are, if there are any. A server may be running.
///
/// # Errors
/// When something cannot be read or written. `dest` is then as it was.
pub fn backup(
    folder: &Path,
    documents: Option<&Path>,
    dest: &Path,
    include_token_key: bool,
) -> Result<BackupReport, BackupError> {
    let work = Workspace::beside(dest)?;
    let mut parts: Vec<(&str, PathBuf)> = Vec::new();
    if let Some(documents) = documents {
        let copy = work.path.join(DOCUMENTS_FILE);
        copy_database(documents, &copy)?;
        parts.push((DOCUMENTS_FILE, copy));
    }
    let copy = work.path.join(LOG_FILE);
    copy_database(&folder.join(LOG_FILE), &copy)?;
    let head = head_of(&copy)?;
    parts.push((LOG_FILE, copy));
    for (name, wanted) in [(KEYS_FILE, true), (TOKEN_KEY_FILE, include_token_key)] {
        let path = folder.join(name);
        if wanted && path.exists() {
            parts.push((name, path));
        }
    }
    let archive = work.path.join("archive");
    let bytes = write_archive(&archive, &head, &parts)?;
    fs::rename(&archive, dest).map_err(failed("move the backup to", dest))?;
    files::sync_folder(parent(dest))?;
    let files = parts.into_iter().map(|(name, _)| name.to_owned()).collect();
    Ok(BackupReport { head, files, bytes })
}

/// Makes the data folder `folder` from the backup `file`. The next [`sqlite::SqliteLog::open`]
/// reports [`sqlite::Opened::restored`], upon which the engine starts a new incarnation.
///
/// # Errors
/// [`BackupError::NotEmpty`] if there is anything in `folder`; otherwise when the file is no whole
/// backup, its log is damaged, or something cannot be written. What was restored until then is
/// left there, without a log.
pub fn restore(file: &Path, folder: &Path) -> Result<BackupReport, BackupError> {
    files::private_folder(folder).map_err(failed("make the folder", folder))?;
    let mut inside = fs::read_dir(folder).map_err(failed("list the folder", folder))?;
    if inside.next().is_some() {
        return Err(BackupError::NotEmpty { path: folder.to_owned() });
    }
    let not = |what: &str| BackupError::NotABackup { path: file.to_owned(), what: what.to_owned() };
    let input = File::open(file).map_err(failed("open", file))?;
    let bytes = input.metadata().map_err(failed("look at", file))?.len();
    let mut archive = tar::Archive::new(input);
    let mut manifest: Option<Manifest> = None;
    let mut files = Vec::new();
    let partial = folder.join(PARTIAL_LOG_FILE);
    for entry in archive.entries().map_err(failed("read", file))? {
        let mut entry = entry.map_err(failed("read", file))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let to = match name.as_str() {
            MANIFEST => {
                let mut text = Vec::new();
                entry.read_to_end(&mut text).map_err(failed("read", file))?;
                manifest =
                    Some(serde_json::from_slice(&text).map_err(|error| not(&error.to_string()))?);
                continue;
            }
            LOG_FILE => partial.clone(),
            // Only names that belong here: a path from an archive is not to be trusted.
            DOCUMENTS_FILE | KEYS_FILE | TOKEN_KEY_FILE => folder.join(&name),
            other => return Err(not(&format!("it has a file `{other}`"))),
        };
        let mut output = files::private_file(&to, true).map_err(failed("create", &to))?;
        std::io::copy(&mut entry, &mut output).map_err(failed("write to", &to))?;
        output.sync_all().map_err(failed("sync", &to))?;
        files.push(name);
    }
    let Some(manifest) = manifest.filter(|found| found.format == FORMAT) else {
        return Err(not("it does not say that it is one"));
    };
    if !files.iter().any(|name| name == LOG_FILE) {
        return Err(not("it has no log"));
    }
    let head = sqlite::mark_restored(&partial)?;
    if (head.seq, hex(&head.hash)) != (manifest.seq, manifest.hash) {
        return Err(not("its log is not the one it was made with"));
    }
    let log = folder.join(LOG_FILE);
    fs::rename(&partial, &log).map_err(failed("move the log to", &log))?;
    files::sync_folder(folder)?;
    Ok(BackupReport { head, files, bytes })
}

/// A folder for copies, beside the file they end in. Removed when dropped.
struct Workspace {
    path: PathBuf,
}

impl Workspace {
    fn beside(dest: &Path) -> Result<Self, StoreError> {
        let mut name = std::ffi::OsString::from(".");
        name.push(dest.file_name().unwrap_or_default());
        name.push(format!(".partial-{}", std::process::id()));
        let path = parent(dest).join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::new("clear", &path, error));
            }
            _ => {}
        }
        files::private_folder(&path).map_err(failed("make the folder", &path))?;
        Ok(Self { path })
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a working folder");
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Copies a SQLite file as of one moment, its write-ahead file included.
fn copy_database(from: &Path, to: &Path) -> Result<(), StoreError> {
    files::private_file(to, true).map_err(failed("create", to))?;
    let source = connect::reader(from).map_err(failed("open", from))?;
    let mut target = Connection::open(to).map_err(failed("open", to))?;
    {
        let backup = Backup::new(&source, &mut target).map_err(failed("copy", from))?;
        // All pages in one step: a second one would start over whenever the server has written.
        let step = backup.step(-1).map_err(failed("copy", from))?;
        if step != StepResult::Done {
            return Err(StoreError::new("copy", from, "the file is busy"));
        }
    }
    target.close().map_err(|(_, error)| StoreError::new("close", to, error))
}

fn head_of(log: &Path) -> Result<Head, StoreError> {
    let connection = Connection::open(log).map_err(failed("open", log))?;
    let head = sqlite::head(&connection).map_err(failed("read", log))?;
    connection.close().map_err(|(_, error)| StoreError::new("close", log, error))?;
    Ok(head)
}

fn write_archive(path: &Path, head: &Head, parts: &[(&str, PathBuf)]) -> Result<u64, StoreError> {
    let wrong = |error: std::io::Error| StoreError::new("write to", path, error);
    let file = files::private_file(path, true).map_err(wrong)?;
    let mut archive = tar::Builder::new(file);
    let manifest = Manifest { format: FORMAT, seq: head.seq, hash: hex(&head.hash) };
    let text = serde_json::to_vec(&manifest).map_err(failed("describe", path))?;
    archive
        .append_data(&mut header(text.len() as u64), MANIFEST, text.as_slice())
        .map_err(wrong)?;
    for (name, part) in parts {
        let input = File::open(part).map_err(failed("open", part))?;
        let size = input.metadata().map_err(failed("look at", part))?.len();
        archive.append_data(&mut header(size), name, input.take(size)).map_err(wrong)?;
    }
    let mut file = archive.into_inner().map_err(wrong)?;
    file.flush().and_then(|()| file.sync_all()).map_err(wrong)?;
    Ok(file.metadata().map_err(wrong)?.len())
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    header
}

#[cfg(test)]
mod tests;
