//! Opening the log: what is there, whether it is a log, and bringing it to stable storage.
//!
//! Which case the files are in is decided in [`crate::recovery`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use leasehold_core::ids::Seq;
use leasehold_core::sabotage::{self, Mistake};
use rusqlite::Connection;

use super::read::{oldest, state, tail};
use super::{Marks, SqliteLog};
use crate::backup::{DOCUMENTS_FILE, PARTIAL_LOG_FILE};
use crate::connect::{self, APPLICATION_ID, StoreError, failed};
use crate::files;
use crate::folder::{DataFolder, INDEX_FILE};
use crate::gathered::Gathered;
use crate::log::{Hash, Head, LogError, NO_HASH, Trimmed, from_hex, hash};
use crate::recovery::{Case, IndexState, LogState, RestState, WalState, classify};

/// The version of the schema that this program writes.
pub const SCHEMA_VERSION: i64 = 1;

/// The pages that gather in the write-ahead file before they are moved into the main file.
///
/// 512 pages are 2 MiB. A checkpoint writes each changed page once, however often it was written:
/// the last page of `event` is, by every commit. So a larger number writes less, and keeps the
/// next commit waiting for longer. docs/performance.md has what was measured.
pub const CHECKPOINT_PAGES: u32 = 512;

/// The pages that the write-ahead file may keep on the disk while it has less: writing over what is
/// there takes the disk less time than making room.
const KEPT_PAGES: u32 = 4096;

/// How many of the newest events are checked when the log is opened.
const TAIL_CHECKED: usize = 64;

pub(super) const SCHEMA: &str = "
    CREATE TABLE event (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE row (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        lease INTEGER NOT NULL,
        clean INTEGER NOT NULL,
        restored INTEGER NOT NULL,
        trimmed_through INTEGER,
        trimmed_hash BLOB,
        trim_owed INTEGER NOT NULL
    );
    INSERT INTO state VALUES (1, 0, 1, 0, NULL, NULL, 0);
";

/// How the log is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogOptions {
    /// The pages that gather in the write-ahead file before a checkpoint moves them; at least 1.
    pub checkpoint_pages: u32,
}

impl LogOptions {
    pub(super) fn pages(self) -> u32 {
        self.checkpoint_pages.max(1)
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { checkpoint_pages: CHECKPOINT_PAGES }
    }
}

/// What was found when the log was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Opened {
    /// Whether the log was made just now.
    pub created: bool,
    /// Whether the last server shut down cleanly. True for a log made just now.
    pub clean: bool,
    /// Whether the log came from a backup and nothing has been appended since.
    pub restored: bool,
    /// The version of its schema.
    pub schema_version: i64,
    /// Where it stands.
    pub head: Head,
    /// Where the trail begins, if something was removed.
    pub trimmed: Option<Trimmed>,
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The SQLite in this program can lose commits.
    #[error("SQLite {found} can lose commits; 3.51.3 or newer is needed")]
    SqliteTooOld {
        /// The version that was found.
        found: &'static str,
    },
    /// The log has gone, but what is beside it says that there was one.
    #[error(
        "{} is missing or empty, but other files of it are there: \
         restore a backup, or start with an empty data folder", path.display()
    )]
    Lost {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The log was written by a newer program.
    #[error(
        "{} has schema version {found}, this program knows versions up to {known}: \
         use the newer program", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// The file is no log, or a broken one.
    #[error("{} is damaged: restore a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file system cannot do what a log needs.
    #[error("{} is on a file system without shared memory for a write-ahead log", path.display())]
    NoWal {
        /// The file.
        path: PathBuf,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the file says about itself.
pub(super) struct Found {
    pub(super) head: Head,
    pub(super) trimmed: Option<Trimmed>,
    pub(super) marks: Marks,
}

impl SqliteLog {
    /// Opens the log of a data folder, or makes it if the folder is new.
    ///
    /// # Errors
    /// When the log is lost, damaged or newer (see [`crate::recovery`]), or the store fails.
    pub fn open(folder: &DataFolder, options: LogOptions) -> Result<(Self, Opened), OpenError> {
        if rusqlite::version_number() < connect::OLDEST_SQLITE {
            return Err(OpenError::SqliteTooOld { found: rusqlite::version() });
        }
        let path = folder.log_path();
        // Before SQLite trusts it.
        files::write_wal_again(&path)?;
        let (log_state, version) = look(&path)?;
        let wal_state = look_at_wal(&path);
        let index_state = if folder.path().join(INDEX_FILE).exists() {
            IndexState::Unread
        } else {
            IndexState::Missing
        };
        let rest = look_at_rest(folder.path());
        let created = match classify(log_state, wal_state, index_state, rest) {
            Case::RefuseLost => return Err(OpenError::Lost { path }),
            Case::RefuseNewer => {
                return Err(OpenError::Newer { path, found: version, known: SCHEMA_VERSION });
            }
            Case::RefuseDamaged => {
                return Err(OpenError::Damaged { path, source: "not a log of leasehold".into() });
            }
            Case::Create => true,
            Case::LookAtIndex | Case::UseIndex | Case::FoldTail | Case::RebuildIndex => false,
        };
        if created {
            create(folder, &path)?;
        }
        let gathered = Arc::new(Gathered::default());
        let connection = connect_writer(&path, options, &gathered)?;
        checkpoint(&connection).map_err(failed("checkpoint", &path))?;
        let found = inspect(&connection, &path).map_err(|error| match error {
            LogError::Store(error) if !error.is_damage() => OpenError::Store(error),
            error => OpenError::Damaged { path: path.clone(), source: error.into() },
        })?;
        let opened = Opened {
            created,
            clean: found.marks.clean,
            restored: found.marks.restored,
            schema_version: SCHEMA_VERSION,
            head: found.head,
            trimmed: found.trimmed,
        };
        let keeper = connect::keeper(&path).map_err(failed("open", &path))?;
        let log = Self {
            folder: folder.clone(),
            path,
            options,
            _keeper: keeper,
            connection: Some(connection),
            head: found.head,
            trimmed: found.trimmed,
            marks: found.marks,
            gathered,
            buffer: Vec::with_capacity(1024),
        };
        Ok((log, opened))
    }
}

/// The state of the file, and its version.
fn look(path: &Path) -> Result<(LogState, i64), OpenError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((LogState::Missing, 0));
        }
        Err(error) => return Err(StoreError::new("look at", path, error).into()),
        Ok(_) => {}
    }
    let ask = |connection: Connection| {
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((tables, connect::versions(&connection)?))
    };
    let versions = connect::reader(path).and_then(ask).or_else(|error| {
        // Whoever made the file was killed before it was a write-ahead one. What was half done has
        // to be undone first, and a reader cannot do that.
        if connect::wants_rollback(&error) {
            connect::writer(path).and_then(ask)
        } else {
            Err(error)
        }
    });
    match versions {
        Ok((0, (0, 0))) => Ok((LogState::Empty, 0)),
        Ok((_, (APPLICATION_ID, version))) if version > SCHEMA_VERSION => {
            Ok((LogState::Newer, version))
        }
        Ok((_, (APPLICATION_ID, version))) if version == SCHEMA_VERSION => {
            Ok((LogState::Usable, version))
        }
        Ok((_, (_, version))) => Ok((LogState::Damaged, version)),
        Err(error) if connect::is_damage(&error) => {
            Err(OpenError::Damaged { path: path.to_owned(), source: error.into() })
        }
        Err(error) => Err(StoreError::new("open", path, error).into()),
    }
}

fn look_at_wal(path: &Path) -> WalState {
    match std::fs::metadata(files::wal_path(path)) {
        Ok(found) if found.len() > 0 => WalState::Present,
        _ => WalState::Absent,
    }
}

fn look_at_rest(folder: &Path) -> RestState {
    if [DOCUMENTS_FILE, PARTIAL_LOG_FILE].iter().any(|name| folder.join(name).exists()) {
        RestState::Used
    } else {
        RestState::New
    }
}

fn create(folder: &DataFolder, path: &Path) -> Result<(), OpenError> {
    files::private_file(path, false).map_err(failed("create", path))?;
    let connection = connect::writer(path).map_err(failed("open", path))?;
    if !connect::use_wal(&connection).map_err(failed("set up", path))? {
        return Err(OpenError::NoWal { path: path.to_owned() });
    }
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = FULL; BEGIN IMMEDIATE; {SCHEMA}
             PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};
             COMMIT;"
        ))
        .map_err(failed("set up", path))?;
    files::sync_folder(folder.path())?;
    Ok(())
}

/// The connection that writes. It does no checkpoint by itself, and tells `gathered` of each commit.
pub(super) fn connect_writer(
    path: &Path,
    options: LogOptions,
    gathered: &Arc<Gathered>,
) -> Result<Connection, OpenError> {
    let mut connection = connect::writer(path).map_err(failed("open", path))?;
    if !connect::use_wal(&connection).map_err(failed("set up", path))? {
        return Err(OpenError::NoWal { path: path.to_owned() });
    }
    let kept = options.pages().saturating_mul(2).max(KEPT_PAGES);
    let synchronous = if sabotage::is(Mistake::SkipSync) { "OFF" } else { "FULL" };
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = {synchronous};
             PRAGMA fullfsync = ON;
             PRAGMA checkpoint_fullfsync = ON;
             PRAGMA journal_size_limit = {};",
            i64::from(kept) * 4096
        ))
        .map_err(failed("set up", path))?;
    gathered.count(&mut connection).map_err(failed("set up", path))?;
    Ok(connection)
}

/// Moves everything into the main file, syncs it, and empties the write-ahead file. `false` if a
/// reader kept it from finishing.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<bool> {
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(busy == 0)
}

/// Reads the state, and checks that the newest events are the end of a chain.
pub(super) fn inspect(connection: &Connection, path: &Path) -> Result<Found, LogError> {
    let (lease, marks, trimmed) = state(connection).map_err(failed("read the state of", path))?;
    let oldest = oldest(connection).map_err(failed("read", path))?;
    let tail = tail(connection, TAIL_CHECKED).map_err(failed("read", path))?;
    let damaged = |seq, what: String| Err(LogError::Damaged { seq, what });
    let begin = trimmed.map_or(Seq(0), |trimmed| trimmed.through).next();
    let (Some(oldest), Some(last)) = (oldest, tail.last()) else {
        if trimmed.is_some() {
            return damaged(begin, "every event is missing".to_owned());
        }
        return Ok(Found { head: Head { lease, ..Head::default() }, trimmed, marks });
    };
    if oldest != begin {
        return damaged(begin, format!("the trail begins at event {oldest}"));
    }
    let mut before: Option<(Seq, Hash)> = match tail.first() {
        Some(first) if first.seq == begin => {
            Some((Seq(begin.0 - 1), trimmed.map_or(NO_HASH, |trimmed| trimmed.hash)))
        }
        _ => None,
    };
    let mut lease = lease;
    for stored in &tail {
        let record = stored.record()?;
        if let Some((seq, hash)) = before {
            if stored.seq != seq.next() {
                return damaged(seq.next(), "the event is missing".to_owned());
            }
            if record.prev.as_deref().and_then(from_hex) != Some(hash) {
                return damaged(
                    stored.seq,
                    "`prev` is not the hash of the event before".to_owned(),
                );
            }
        }
        before = Some((stored.seq, hash(&stored.bytes)));
        lease = lease.max(record.lease_ms);
    }
    let head = Head { seq: last.seq, hash: hash(&last.bytes), lease };
    Ok(Found { head, trimmed, marks })
}

/// Marks a log that was just taken out of a backup, and answers where it stands.
pub(crate) fn mark_restored(path: &Path) -> Result<Head, OpenError> {
    let (LogState::Usable, _) = look(path)? else {
        return Err(OpenError::Damaged {
            path: path.to_owned(),
            source: "not a log of this version of leasehold".into(),
        });
    };
    let connection = connect_writer(path, LogOptions::default(), &Arc::default())?;
    let found = inspect(&connection, path)
        .map_err(|error| OpenError::Damaged { path: path.to_owned(), source: error.into() })?;
    connection
        .execute_batch("UPDATE state SET clean = 0, restored = 1")
        .and_then(|()| checkpoint(&connection))
        .map_err(failed("mark as restored", path))?;
    Ok(found.head)
}
