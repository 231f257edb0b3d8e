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

mod open;
mod read;
mod trim;

use std::path::PathBuf;
use std::sync::Arc;

use leasehold_core::event::{Event, EventBody};
use leasehold_core::ids::Seq;
use leasehold_core::time::{LeaseTime, WallTime};
use rusqlite::{Connection, params};

use super::{
    BaseRow, Group, Head, Log, LogError, Retention, Stored, TrimStep, Trimmed, encode, hash,
};
use crate::connect::{StoreError, failed, int};
use crate::folder::DataFolder;
use crate::gathered::Gathered;
pub(crate) use open::mark_restored;
pub use open::{CHECKPOINT_PAGES, LogOptions, OpenError, Opened, SCHEMA_VERSION};
use open::{checkpoint, connect_writer, inspect};
pub(crate) use read::{base, body, head, one, read, trimmed};

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
    gathered: Arc<Gathered>,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Marks {
    clean: bool,
    restored: bool,
    trim_owed: bool,
}

impl SqliteLog {
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

    fn is_checkpoint_due(&self) -> bool {
        self.options.pages() <= self.gathered.since_moved()
    }

    fn checkpoint(&mut self) -> Result<(), LogError> {
        if !self.is_checkpoint_due() {
            return Ok(());
        }
        let connection = self.connection.take().ok_or(LogError::NeedsReopen)?;
        // What no reader stands in the way of, and nobody is waited for.
        connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .map_err(failed("checkpoint", &self.path))?;
        self.connection = Some(connection);
        // Also where a reader kept it from moving all: each commit would try again.
        self.gathered.moved();
        Ok(())
    }

    fn read(&mut self, from: Seq, limit: usize) -> Result<Vec<Stored>, LogError> {
        let connection = self.connection()?;
        Ok(read(connection, from, limit).map_err(failed("read", &self.path))?)
    }

    fn reopen(&mut self) -> Result<Head, LogError> {
        // Closed first, so that nothing of what failed is left in a cache of ours.
        self.connection = None;
        let opened = connect_writer(&self.path, self.options, &self.gathered);
        let connection = opened.map_err(|error| match error {
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
        self.gathered.restarted();
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
        self.trim_a_chunk(retention, now)
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

#[cfg(test)]
#[cfg(unix)]
mod faults;
#[cfg(test)]
mod tests;
