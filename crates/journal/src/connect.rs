//! How every SQLite connection of this crate is opened, and the one error they all fail with.
//!
//! Deliberately absent: schemas. Each file's own module has its own.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold_core::ids::Seq;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// SQLite before 3.51.3 can lose committed transactions when a checkpoint races a writer.
pub(crate) const OLDEST_SQLITE: i32 = 3_051_003;

/// `LSHD`: tells our files from other SQLite files.
pub(crate) const APPLICATION_ID: i64 = 0x4c53_4844;

/// How long a connection waits for another one's lock.
const BUSY: Duration = Duration::from_secs(5);

/// Something that was attempted on a file failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {}", path.display())]
pub struct StoreError {
    /// What was attempted, as a verb phrase.
    pub attempt: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl StoreError {
    pub(crate) fn new(
        attempt: &'static str,
        path: &Path,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { attempt, path: path.to_owned(), source: source.into() }
    }

    /// Whether the file is broken, as opposed to busy, full or out of reach.
    pub(crate) fn is_damage(&self) -> bool {
        self.source.downcast_ref::<rusqlite::Error>().is_some_and(is_damage)
    }
}

/// Wraps an error of `attempt` on `path`; for `map_err`.
pub(crate) fn failed<E: Into<Box<dyn Error + Send + Sync>>>(
    attempt: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError { attempt, path, source: source.into() }
}

/// Whether `error` says that the file itself is broken.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        rusqlite::Error::SqliteFailure(inner, _) => {
            matches!(inner.code, DatabaseCorrupt | NotADatabase)
        }
        // A table of another shape than ours.
        rusqlite::Error::SqlInputError { .. }
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => true,
        _ => false,
    }
}

/// Whether a transaction that was interrupted has to be undone before the file can be read: then
/// only a connection that may write can open it.
pub(crate) fn wants_rollback(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|inner| inner.extended_code == rusqlite::ffi::SQLITE_READONLY_ROLLBACK)
}

/// The connection that may write to a file, made if it is missing.
pub(crate) fn writer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    common(&connection)?;
    Ok(connection)
}

/// A connection that only reads, from this process or another, and never checkpoints: only the
/// writer does, and a second one racing it is what the oldest SQLite bugs are made of.
pub(crate) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    common(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// A reader that has looked at the file, so that it shares memory with the others.
pub(crate) fn keeper(path: &Path) -> rusqlite::Result<Connection> {
    let connection = reader(path)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn common(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch(
        "PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY;",
    )
}

/// Switches to write-ahead logging; `false` if the file system cannot do it.
pub(crate) fn use_wal(connection: &Connection) -> rusqlite::Result<bool> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    Ok(mode == "wal")
}

/// `application_id` and `user_version`.
pub(crate) fn versions(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let application = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok((application, version))
}

/// A number as SQLite keeps it. Positions and lease readings stay below 2^63.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that [`int`] has written.
pub(crate) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A position that [`int`] has written.
pub(crate) fn seq(number: i64) -> Seq {
    Seq(uint(number))
}
