//! The log in one SQLite file, `log.db`.
//!
//! Tables: `event`, by position, without a secondary index, because each would cost a random page
//! a commit; `row`, the base, which is the fold of what was trimmed; and `state`, one row.
//! What always holds:
//! - write-ahead log with `synchronous = FULL`: one sync a commit, and it is done when the commit
//!   returns; readers see a commit only after that sync;
//! - the lease reading is the greater of `state.lease` and the newest event's own, so that a
//!   group whose last event carries its reading writes no second page;
//! - opening begins with writing the write-ahead file again, and ends with a truncating checkpoint:
//!   frames that a killed process had written, and not synced or failed to, are on stable storage
//!   before a page of the main file is overwritten, and before anything is answered from them.
//!   (Where a reader of another process stands in the way of the checkpoint, the frames stay.)
//!
//! Deliberately absent: shrinking the file. Trimmed pages are used again by later events.

mod read;

use std::path::{Path, PathBuf};

use leasehold_core::event::{Event, EventBody};
use leasehold_core::ids::Seq;
use leasehold_core::rows;
use leasehold_core::sabotage::{self, Mistake};
use leasehold_core::time::{LeaseTime, WallTime};
use rusqlite::{Connection, params};

use super::{
    BaseRow, Group, Hash, Head, Log, LogError, NO_HASH, Retention, Stored, TRIM_CHUNK, TrimStep,
    Trimmed, encode, hash,
};
use crate::backup::{DOCUMENTS_FILE, PARTIAL_LOG_FILE};
use crate::connect::{self, APPLICATION_ID, StoreError, failed, int};
use crate::files;
use crate::folder::{DataFolder, INDEX_FILE};
use crate::index::RowTable;
use crate::recovery::{Case, IndexState, LogState, RestState, WalState, classify};
pub(crate) use read::{base, body, head, one, read, trimmed};
use read::{oldest, state, tail, used_bytes};

/// The version of the schema that this program writes.
pub const SCHEMA_VERSION: i64 = 1;

/// The pages that gather in the write-ahead file before a commit moves them into the file.
///
/// 4,096 pages are 16 MiB. A checkpoint writes each changed page once, however often it was
/// written: the last page of `event` is, by every commit. So a larger number writes less, and
/// stalls one commit for longer, about as long as the disk takes to write this much.
pub const CHECKPOINT_PAGES: u32 = 4096;

/// How many of the newest events are checked when the log is opened.
const TAIL_CHECKED: usize = 64;

const SCHEMA: &str = "
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
    /// The pages that gather in the write-ahead file before a commit moves them; at least 1.
    pub checkpoint_pages: u32,
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

/// The log in `log.db`. Keeps the data folder locked.
#[derive(Debug)]
pub struct SqliteLog {
    folder: DataFolder,
    path: PathBuf,
    options: LogOptions,
    /// Keeps the memory that connections share (`-shm`) in place while the one that writes is
    /// closed. Made anew on a full disk, its pages may be without a place there, and touching one
    /// ends the process (SIGBUS).
    _keeper: Connection,
    /// None between a failure and a successful reopen.
    connection: Option<Connection>,
    head: Head,
    trimmed: Option<Trimmed>,
    /// The marks in `state`, most of which an append has to clear.
    marks: Marks,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Marks {
    clean: bool,
    restored: bool,
    trim_owed: bool,
}

/// What the file says about itself.
struct Found {
    head: Head,
    trimmed: Option<Trimmed>,
    marks: Marks,
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
        let connection = connect_writer(&path, options)?;
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
            buffer: Vec::with_capacity(1024),
        };
        Ok((log, opened))
    }

    /// The folder it is in.
    #[must_use]
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    fn connection(&self) -> Result<&Connection, LogError> {
        self.connection.as_ref().ok_or(LogError::NeedsReopen)
    }

    /// Runs `work` in one transaction. After any failure the connection is gone, and with it
    /// every belief about what is in the file.
    fn transact<T>(
        &mut self,
        attempt: &'static str,
        work: impl FnOnce(&mut Self, &Connection) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let connection = self.connection.take().ok_or(LogError::NeedsReopen)?;
        connection
            .prepare_cached("BEGIN IMMEDIATE")
            .and_then(|mut statement| statement.execute([]))
            .map_err(failed(attempt, &self.path))?;
        let result = work(self, &connection)?;
        connection
            .prepare_cached("COMMIT")
            .and_then(|mut statement| statement.execute([]))
            .map_err(failed(attempt, &self.path))?;
        self.connection = Some(connection);
        Ok(result)
    }

    fn set_state(
        &self,
        connection: &Connection,
        lease: LeaseTime,
        marks: Marks,
    ) -> Result<(), LogError> {
        connection
            .prepare_cached(
                "UPDATE state SET lease = ?1, clean = ?2, restored = ?3, trim_owed = ?4",
            )
            .and_then(|mut update| {
                update.execute(params![int(lease.0), marks.clean, marks.restored, marks.trim_owed])
            })
            .map_err(failed("write the lease reading to", &self.path))?;
        Ok(())
    }

    /// Whether an event is the record of the newest trim.
    fn records(&self, event: &Event) -> bool {
        let EventBody::Trimmed { through, hash } = &event.body else { return false };
        self.trimmed.is_some_and(|trimmed| {
            trimmed.through == *through && super::from_hex(hash) == Some(trimmed.hash)
        })
    }

    fn write_group(
        &mut self,
        connection: &Connection,
        group: &Group<'_>,
    ) -> Result<Head, LogError> {
        let mut head = self.head;
        let mut insert = connection
            .prepare_cached("INSERT INTO event (seq, body) VALUES (?1, ?2)")
            .map_err(failed("append to", &self.path))?;
        let mut buffer = std::mem::take(&mut self.buffer);
        for event in group.events {
            encode::encode(event, &head.hash, &mut buffer)
                .map_err(|source| LogError::Encode { seq: event.seq, source })?;
            insert
                .execute(params![int(event.seq.0), buffer])
                .map_err(failed("append to", &self.path))?;
            head = Head { seq: event.seq, hash: hash(&buffer), lease: head.lease };
        }
        self.buffer = buffer;
        head.lease = group.lease;
        let told = group.events.last().map(|event| event.lease);
        // Whoever appends is running. That a restore has been dealt with, only an event can tell.
        let restored = self.marks.restored && group.events.is_empty();
        let trim_owed =
            self.marks.trim_owed && !group.events.iter().any(|event| self.records(event));
        let marks = Marks { clean: false, restored, trim_owed };
        if told != Some(group.lease) || marks != self.marks {
            self.set_state(connection, group.lease, marks)?;
        }
        self.marks = marks;
        Ok(head)
    }
}

impl Log for SqliteLog {
    fn head(&self) -> Head {
        self.head
    }

    fn append(&mut self, group: &Group<'_>) -> Result<(), LogError> {
        let mut before = self.head.seq;
        for event in group.events {
            if event.seq != before.next() {
                return Err(LogError::NotContiguous { head: before, found: event.seq });
            }
            before = event.seq;
        }
        let told = group.events.iter().map(|event| event.lease).max().unwrap_or_default();
        if group.lease < self.head.lease || group.lease < told {
            let durable = self.head.lease.max(told);
            return Err(LogError::LeaseGoesBack { durable, found: group.lease });
        }
        self.head =
            self.transact("append to", |log, connection| log.write_group(connection, group))?;
        Ok(())
    }

    fn read(&mut self, from: Seq, limit: usize) -> Result<Vec<Stored>, LogError> {
        let connection = self.connection()?;
        Ok(read(connection, from, limit).map_err(failed("read", &self.path))?)
    }

    fn reopen(&mut self) -> Result<Head, LogError> {
        // Closed first, so that nothing of what failed is left in a cache of ours.
        self.connection = None;
        let connection = connect_writer(&self.path, self.options).map_err(|error| match error {
            OpenError::Store(error) => error,
            error => StoreError::new("open", &self.path, error),
        })?;
        // Frames that are in the write-ahead file but may not be on the disk are written anew,
        // into the main file, and synced there: a second sync of the old ones proves nothing.
        if !checkpoint(&connection).map_err(failed("checkpoint", &self.path))? {
            let busy = "a reader holds the write-ahead file";
            return Err(StoreError::new("checkpoint", &self.path, busy).into());
        }
        let found = inspect(&connection, &self.path)?;
        self.head = found.head;
        self.trimmed = found.trimmed;
        self.marks = found.marks;
        self.connection = Some(connection);
        Ok(self.head)
    }

    fn trimmed(&self) -> Option<Trimmed> {
        self.trimmed
    }

    fn owed_trim_record(&self) -> Option<Trimmed> {
        self.trimmed.filter(|_| self.marks.trim_owed)
    }

    fn base(&mut self, after: &str, limit: usize) -> Result<Vec<BaseRow>, LogError> {
        let connection = self.connection()?;
        Ok(base(connection, after, limit).map_err(failed("read the base of", &self.path))?)
    }

    fn trim(&mut self, retention: &Retention, now: WallTime) -> Result<TrimStep, LogError> {
        let connection = self.connection()?;
        let due = due(connection, retention, now, self.head.seq, &self.path)?;
        let Some(trimmed) = due.cut else { return Ok(TrimStep::default()) };
        let removed = due.events.len();
        self.transact("trim", |log, connection| {
            let mut base = RowTable::new(connection);
            let mut meta = rows::get_meta(&mut base).map_err(LogError::Fold)?;
            for event in &due.events {
                rows::fold(event, &mut meta, &mut base).map_err(LogError::Fold)?;
            }
            rows::put_meta(&meta, &mut base).map_err(LogError::Fold)?;
            let path = &log.path;
            base.flush().map_err(LogError::Fold)?;
            connection
                .prepare_cached("DELETE FROM event WHERE seq <= ?1")
                .and_then(|mut delete| delete.execute([int(trimmed.through.0)]))
                .map_err(failed("trim", path))?;
            connection
                .prepare_cached(
                    "UPDATE state SET trimmed_through = ?1, trimmed_hash = ?2, trim_owed = 1",
                )
                .and_then(|mut update| {
                    update.execute(params![int(trimmed.through.0), trimmed.hash])
                })
                .map_err(failed("trim", path))?;
            Ok(())
        })?;
        self.trimmed = Some(trimmed);
        self.marks.trim_owed = true;
        Ok(TrimStep { removed, more: removed == TRIM_CHUNK })
    }

    fn close_cleanly(&mut self, lease: LeaseTime) -> Result<(), LogError> {
        if lease < self.head.lease {
            return Err(LogError::LeaseGoesBack { durable: self.head.lease, found: lease });
        }
        let marks = Marks { clean: true, ..self.marks };
        self.transact("close", |log, connection| log.set_state(connection, lease, marks))?;
        self.marks = marks;
        self.head.lease = lease;
        // Nicer to find, and no more than that: a log with a write-ahead file is as whole.
        if let Err(source) = checkpoint(self.connection()?) {
            tracing::warn!(path = %self.path.display(), %source, "no checkpoint at shutdown");
        }
        Ok(())
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

fn connect_writer(path: &Path, options: LogOptions) -> Result<Connection, OpenError> {
    let connection = connect::writer(path).map_err(failed("open", path))?;
    if !connect::use_wal(&connection).map_err(failed("set up", path))? {
        return Err(OpenError::NoWal { path: path.to_owned() });
    }
    let pages = options.checkpoint_pages.max(1);
    let synchronous = if sabotage::is(Mistake::SkipSync) { "OFF" } else { "FULL" };
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = {synchronous};
             PRAGMA fullfsync = ON;
             PRAGMA checkpoint_fullfsync = ON;
             PRAGMA wal_autocheckpoint = {pages};
             PRAGMA journal_size_limit = {};",
            i64::from(pages) * 4096 * 2
        ))
        .map_err(failed("set up", path))?;
    Ok(connection)
}

/// Moves everything into the main file, syncs it, and empties the write-ahead file. `false` if a
/// reader kept it from finishing.
fn checkpoint(connection: &Connection) -> rusqlite::Result<bool> {
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(busy == 0)
}

/// Reads the state, and checks that the newest events are the end of a chain.
fn inspect(connection: &Connection, path: &Path) -> Result<Found, LogError> {
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
            if record.prev.as_deref().and_then(super::from_hex) != Some(hash) {
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
    let connection = connect_writer(path, LogOptions::default())?;
    let found = inspect(&connection, path)
        .map_err(|error| OpenError::Damaged { path: path.to_owned(), source: error.into() })?;
    connection
        .execute_batch("UPDATE state SET clean = 0, restored = 1")
        .and_then(|()| checkpoint(&connection))
        .map_err(failed("mark as restored", path))?;
    Ok(found.head)
}

/// What one trim is to remove.
struct Due {
    events: Vec<Event>,
    cut: Option<Trimmed>,
}

fn due(
    connection: &Connection,
    retention: &Retention,
    now: WallTime,
    head: Seq,
    path: &Path,
) -> Result<Due, LogError> {
    let too_large = match retention.max_bytes {
        Some(max) => used_bytes(connection).map_err(failed("measure", path))? > max,
        None => false,
    };
    let mut due = Due { events: Vec::new(), cut: None };
    if !too_large && retention.max_age_ms.is_none() {
        return Ok(due);
    }
    let too_old = |at| retention.max_age_ms.is_some_and(|age| at < now - age);
    let oldest = read(connection, Seq(0), 1).map_err(failed("read", path))?;
    let Some(oldest) = oldest.first() else { return Ok(due) };
    // Most often nothing is due, and the one event says so.
    if !too_large && !too_old(oldest.event()?.at) {
        return Ok(due);
    }
    for stored in read(connection, oldest.seq, TRIM_CHUNK).map_err(failed("read", path))? {
        let event = stored.event()?;
        if stored.seq == head || !(too_large || too_old(event.at)) {
            break;
        }
        due.cut = Some(Trimmed { through: stored.seq, hash: hash(&stored.bytes) });
        due.events.push(event);
    }
    Ok(due)
}

#[cfg(test)]
#[cfg(unix)]
mod faults;
#[cfg(test)]
mod tests;
