//! The file: its schema, how it is opened, and the questions that are asked of it.
//!
//! Each function takes the connection that it asks, a reader's or the writer's within its
//! transaction, so that both see a document by the same statements. Bodies are the last column:
//! what describes a document is read without touching them.
//!
//! Deliberately absent: transactions (the writer has them), and anything of HTTP.

use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold_core::ids::Seq;
use leasehold_core::time::WallTime;
use leasehold_journal::{StoreError, files};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use super::key::Key;

/// The schema that this program writes. A file with a greater one is refused.
const SCHEMA: i64 = 1;
/// `lhdc`: marks the file as ours.
const APPLICATION: i64 = 0x6c68_6463;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The incarnation is not eight lower-case hexadecimal digits.
    #[error("the incarnation {0:?} is not eight lower-case hexadecimal digits")]
    Incarnation(String),
    /// The file was written by a later version of this program.
    #[error("{path} has schema {found}; this program knows {SCHEMA} and earlier")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// The file is a database of something else.
    #[error("{path} is a database, but not of documents")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The write-ahead file could not be brought into the database.
    #[error("cannot bring {path} to stable storage: another process is using it")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Storage failed.
    #[error("cannot open {path}")]
    Storage {
        /// The file.
        path: PathBuf,
        /// What it failed with.
        #[source]
        source: rusqlite::Error,
    },
    /// The file could not be made.
    #[error("cannot make {path}")]
    Make {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The write-ahead file could not be written again.
    #[error(transparent)]
    WriteAgain(#[from] StoreError),
    /// The writer's thread could not be started.
    #[error("cannot start the thread that writes documents")]
    Thread(#[source] std::io::Error),
}

/// What is known of a document without its body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Meta {
    pub(super) version: i64,
    pub(super) modified: WallTime,
    pub(super) media_type: String,
    pub(super) length: i64,
}

/// What is used up and never given out again: versions, and times of change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Counters {
    pub(super) version: i64,
    pub(super) modified: WallTime,
}

/// Opens the file for the one writer, makes or checks its schema, and brings everything that it
/// has to stable storage.
pub(super) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    let storage = |source| OpenError::Storage { path: path.to_owned(), source };
    // Only if it is missing: closing a file that SQLite has open gives up SQLite's locks.
    if !path.exists() {
        files::private_file(path, false)
            .map_err(|source| OpenError::Make { path: path.to_owned(), source })?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(storage)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(storage)?;
    // Before anything is changed: a file that is not ours stays as it is.
    check_schema(&connection, path)?;
    configure(&connection).map_err(storage)?;
    create_schema(&mut connection).map_err(storage)?;
    // What a failed or interrupted commit left in the write-ahead file may be there now and gone
    // after a power cut. This syncs it, or drops it, before anything is answered from it.
    let busy: bool = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(storage)?;
    if busy {
        return Err(OpenError::Busy { path: path.to_owned() });
    }
    Ok(connection)
}

/// Opens the file for reading. It must exist.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Opens a reader that has looked at the file, so that it shares memory with the others.
pub(super) fn open_keeper(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open_reader(path)?;
    counters(&connection)?;
    Ok(connection)
}

fn check_schema(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let storage = |source| OpenError::Storage { path: path.to_owned(), source };
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(storage)?;
    let found = pragma("user_version").map_err(storage)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(storage)?;
    match (application, found) {
        (0, 0) if tables == 0 => Ok(()),
        (APPLICATION, ..=SCHEMA) => Ok(()),
        (APPLICATION, _) => Err(OpenError::Newer { path: path.to_owned(), found }),
        _ => Err(OpenError::Foreign { path: path.to_owned() }),
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Only macOS knows a stronger sync than fsync; elsewhere it changes nothing.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    // After a burst the write-ahead file shrinks to this.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn create_schema(connection: &mut Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == SCHEMA {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "CREATE TABLE documents (
             id INTEGER PRIMARY KEY,
             key BLOB NOT NULL UNIQUE,
             version INTEGER NOT NULL,
             modified_ms INTEGER NOT NULL,
             admission INTEGER,
             media_type TEXT NOT NULL,
             body BLOB NOT NULL
         ) STRICT;
         CREATE TABLE applied (admission INTEGER PRIMARY KEY) STRICT;
         CREATE TABLE counters (
             id INTEGER PRIMARY KEY CHECK (id = 1),
             version INTEGER NOT NULL,
             modified_ms INTEGER NOT NULL
         ) STRICT;
         INSERT INTO counters VALUES (1, 0, 0);",
    )?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()
}

pub(super) fn counters(connection: &Connection) -> rusqlite::Result<Counters> {
    connection
        .prepare_cached("SELECT version, modified_ms FROM counters")?
        .query_row([], |row| Ok(Counters { version: row.get(0)?, modified: WallTime(row.get(1)?) }))
}

pub(super) fn save_counters(connection: &Connection, counters: Counters) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE counters SET version = ?1, modified_ms = ?2")?
        .execute((counters.version, counters.modified.0))?;
    Ok(())
}

/// What is known of the document at `key`.
pub(super) fn meta(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Meta>> {
    connection
        .prepare_cached(
            "SELECT version, modified_ms, media_type, length(body) FROM documents WHERE key = ?1",
        )?
        .query_row([key.as_bytes()], read_meta)
        .optional()
}

/// The body of the document at `key`.
pub(super) fn body(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT body FROM documents WHERE key = ?1")?
        .query_row([key.as_bytes()], |row| row.get(0))
        .optional()
}

fn read_meta(row: &Row<'_>) -> rusqlite::Result<Meta> {
    Ok(Meta {
        version: row.get(0)?,
        modified: WallTime(row.get(1)?),
        media_type: row.get(2)?,
        length: row.get(3)?,
    })
}

/// A new version of a document.
pub(super) struct NewVersion<'a> {
    pub(super) version: i64,
    pub(super) modified: WallTime,
    pub(super) admission: Option<Seq>,
    pub(super) media_type: &'a str,
    pub(super) body: &'a [u8],
}

pub(super) fn put(
    connection: &Connection,
    key: &Key,
    new: &NewVersion<'_>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO documents (key, version, modified_ms, admission, media_type, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (key) DO UPDATE SET version = ?2, modified_ms = ?3, admission = ?4,
                 media_type = ?5, body = ?6",
        )?
        .execute((
            key.as_bytes(),
            new.version,
            new.modified.0,
            new.admission.map(position),
            new.media_type,
            new.body,
        ))?;
    Ok(())
}

/// Deletes the document at `key` and everything below it.
pub(super) fn delete_subtree(connection: &Connection, key: &Key) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM documents WHERE key = ?1 OR (key >= ?2 AND key < ?3)")?
        .execute((key.as_bytes(), key.below_from(), key.below_until()))?;
    Ok(())
}

/// A child of a resource.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Child {
    /// Its decoded name.
    pub(super) name: String,
    /// Its document; none where there are only resources below it.
    pub(super) meta: Option<Meta>,
}

/// The first child of `parent` after the one called `after`; the first of all without.
pub(super) fn next_child(
    connection: &Connection,
    parent: &Key,
    after: Option<&str>,
) -> rusqlite::Result<Option<Child>> {
    let from = match after {
        Some(name) => parent.after_child(name.as_bytes()),
        None => parent.below_from(),
    };
    let found = connection
        .prepare_cached(
            "SELECT version, modified_ms, media_type, length(body), key FROM documents
             WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT 1",
        )?
        .query_row((from, parent.below_until()), |row| {
            let key = row.get_ref(4)?.as_blob()?;
            let Some((name, itself)) = parent.child_in(key) else { return Ok(None) };
            let name = String::from_utf8_lossy(name).into_owned();
            let meta = if itself { Some(read_meta(row)?) } else { None };
            Ok(Some(Child { name, meta }))
        })
        .optional()?;
    Ok(found.flatten())
}

/// Whether anything lies below `key`.
pub(super) fn has_children(connection: &Connection, key: &Key) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM documents WHERE key >= ?1 AND key < ?2)")?
        .query_row((key.below_from(), key.below_until()), |row| row.get(0))
}

/// Notes that the write of this admission took effect.
pub(super) fn note_applied(connection: &Connection, admission: Seq) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO applied VALUES (?1)")?
        .execute([position(admission)])?;
    Ok(())
}

/// Whether the write of this admission took effect.
pub(super) fn was_applied(connection: &Connection, admission: Seq) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM applied WHERE admission = ?1)")?
        .query_row([position(admission)], |row| row.get(0))
}

/// Forgets at most `most` admissions before `before`, the oldest first; says how many.
pub(super) fn forget_applied(
    connection: &Connection,
    before: Seq,
    most: usize,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "DELETE FROM applied WHERE admission IN
                 (SELECT admission FROM applied WHERE admission < ?1 ORDER BY admission LIMIT ?2)",
        )?
        .execute((position(before), i64::try_from(most).unwrap_or(i64::MAX)))
}

fn position(seq: Seq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_later_program_or_of_another_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("documents.db");
        drop(open_writer(&path).unwrap());
        let reopened = open_writer(&path).unwrap();
        drop(reopened);

        let raw = Connection::open(&path).unwrap();
        raw.pragma_update(None, "user_version", SCHEMA + 1).unwrap();
        drop(raw);
        assert!(
            matches!(open_writer(&path), Err(OpenError::Newer { found, .. }) if found == SCHEMA + 1)
        );

        let other = folder.path().join("other.db");
        let raw = Connection::open(&other).unwrap();
        raw.execute_batch("CREATE TABLE something (a)").unwrap();
        drop(raw);
        assert!(matches!(open_writer(&other), Err(OpenError::Foreign { .. })));

        let text = folder.path().join("text.db");
        std::fs::write(&text, "not a database at all, but long enough to be looked at").unwrap();
        assert!(matches!(open_writer(&text), Err(OpenError::Storage { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn the_documents_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let connection = open_writer(&folder.path().join("documents.db")).unwrap();
        save_counters(&connection, Counters { version: 1, modified: WallTime(1) }).unwrap();
        for name in ["documents.db", "documents.db-wal", "documents.db-shm"] {
            let found = folder.path().join(name).metadata().unwrap();
            assert_eq!(found.permissions().mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_child_is_found_with_one_range_seek_of_the_index() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open_writer(&folder.path().join("documents.db")).unwrap();
        let plan: String = connection
            .query_row(
                "EXPLAIN QUERY PLAN SELECT version, key FROM documents
                 WHERE key >= x'01' AND key < x'02' ORDER BY key LIMIT 1",
                [],
                |row| row.get(3),
            )
            .unwrap();
        assert!(plan.contains("SEARCH") && plan.contains("key>? AND key<?"), "{plan}");
        let mut delete = connection
            .prepare("EXPLAIN QUERY PLAN DELETE FROM documents WHERE key = x'' OR (key >= x'01' AND key < x'02')")
            .unwrap();
        let steps: Vec<String> =
            delete.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{steps:?}");
    }
}
