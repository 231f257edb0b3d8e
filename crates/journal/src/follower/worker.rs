//! One batch after the other: from the queue or the log into the index.

use std::path::{Path, PathBuf};

use leasehold_core::event::Event;
use leasehold_core::ids::Seq;
use leasehold_core::rows::{self, FoldError, Meta};
use rusqlite::Connection;

use super::BASE_CHUNK;
use super::recent::{Group, Recent};
use crate::connect::{self, StoreError, failed};
use crate::index::{self, BLOCK, Block, Endings, Probe, Reached, RowTable, Terms};
use crate::log::{Stored, StoredError, Trimmed, hash, sqlite};
use crate::recovery::IndexState;

/// The most events of one batch.
pub(super) const BATCH: usize = 4096;

/// Why a batch failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error("cannot fold an event into rows")]
    Fold(#[from] FoldError<rusqlite::Error>),
    #[error("the log begins after what the index has reached")]
    TrimmedAway,
    #[error("the index was removed")]
    Removed,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FollowError {
    /// Whether the index itself is to blame, so that it has to go.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Fold(FoldError::Store(error)) => connect::is_damage(error),
            Self::Fold(FoldError::Row { .. } | FoldError::Gap { .. }) => true,
            Self::Store(error) => error.is_damage(),
            Self::Stored(_) | Self::TrimmedAway | Self::Removed => false,
        }
    }
}

/// The two connections, and the block that is being filled.
pub(super) struct Worker {
    log: Connection,
    log_path: PathBuf,
    index: Connection,
    index_path: PathBuf,
    /// What tells the file that is open from one that took its place.
    identity: Option<u64>,
    pub(super) reached: Reached,
    /// The newest event in `terms`: between `reached.blocks` and `reached.rows` after a start.
    read: Seq,
    terms: Terms,
    endings: Endings,
}

impl Worker {
    pub(super) fn open(folder: &Path) -> Result<Self, FollowError> {
        let log_path = folder.join(crate::folder::LOG_FILE);
        let index_path = index::path(folder);
        let log = connect::reader(&log_path).map_err(failed("open", &log_path))?;
        let index = index::open_writer(folder)?;
        let reached = index::reached(&index).map_err(failed("read", &index_path))?;
        let state = index::compare_with_log(&reached, &log).map_err(failed("read", &log_path))?;
        let reached = match state {
            IndexState::Current | IndexState::Behind => reached,
            _ => rebuild(&log, &index).map_err(failed("rebuild", &index_path))?,
        };
        let (read, terms) = (reached.blocks, Terms::default());
        let endings = Endings::of(&index).map_err(failed("read", &index_path))?;
        let identity = identity(&index_path);
        Ok(Self { log, log_path, index, index_path, identity, reached, read, terms, endings })
    }

    /// The connection to the index, with no transaction open.
    pub(super) fn into_idle_index(self) -> Option<Connection> {
        if !self.index.is_autocommit() {
            // If it fails, it is told by `is_autocommit`.
            let _ = self.index.execute_batch("ROLLBACK");
        }
        self.index.is_autocommit().then_some(self.index)
    }

    /// Folds what comes next, and says how many events that was.
    pub(super) fn batch(&mut self, recent: &Recent) -> Result<usize, FollowError> {
        let batch = self.next_batch(recent)?;
        let Some((first, last)) = batch.span() else { return Ok(0) };
        if first > self.reached.rows.next() {
            return Err(FollowError::TrimmedAway);
        }
        if identity(&self.index_path) != self.identity {
            return Err(FollowError::Removed);
        }
        let trimmed = sqlite::trimmed(&self.log).map_err(failed("read", &self.log_path))?;
        let path = self.index_path.clone();
        self.index.execute_batch("BEGIN IMMEDIATE").map_err(failed("write to", &path))?;
        let reached = self.fold(&batch, trimmed)?;
        self.index.execute_batch("COMMIT").map_err(failed("write to", &path))?;
        self.reached = reached;
        self.read = last;
        Ok((last.0 - first.0 + 1) as usize)
    }

    fn next_batch(&self, recent: &Recent) -> Result<Batch, FollowError> {
        let next = self.read.next();
        // What is in the rows already is read for its block only, in its stored form.
        if next > self.reached.rows {
            let groups = recent.take(next, BATCH);
            if !groups.is_empty() {
                return Ok(Batch::Recent(groups));
            }
        }
        let events =
            sqlite::read(&self.log, next, BATCH).map_err(failed("read", &self.log_path))?;
        Ok(Batch::Stored(events))
    }

    /// Writes a batch within a transaction. After an error the worker is of no use any more.
    fn fold(&mut self, batch: &Batch, trimmed: Option<Trimmed>) -> Result<Reached, FollowError> {
        let path = &self.index_path;
        let mut table = RowTable::of_index(&self.index, &mut self.endings);
        let meta = rows::get_meta(&mut table)?;
        let mut fold = Fold { table, meta, terms: &mut self.terms, reached: self.reached };
        match batch {
            Batch::Recent(groups) => {
                for group in groups {
                    for event in &group.events {
                        fold.event(event)?;
                        fold.seal(event.seq).map_err(failed("write to", path))?;
                    }
                    fold.reached.rows_hash = group.hash;
                }
            }
            Batch::Stored(events) => {
                for stored in events {
                    if stored.seq > fold.reached.rows {
                        fold.event(&stored.event()?)?;
                    } else {
                        let probe = Probe::read(&stored.bytes)
                            .map_err(|source| StoredError::Json { seq: stored.seq, source })?;
                        fold.terms.add(&probe);
                    }
                    fold.seal(stored.seq).map_err(failed("write to", path))?;
                }
                if let Some(last) = events.last().filter(|last| last.seq == fold.reached.rows) {
                    fold.reached.rows_hash = hash(&last.bytes);
                }
            }
        }
        let reached = fold.finish()?;
        if let Some(trimmed) = trimmed {
            let gone = index::block_of(trimmed.through.next());
            index::drop_blocks(&self.index, gone).map_err(failed("write to", path))?;
        }
        index::set_reached(&self.index, &reached).map_err(failed("write to", path))?;
        Ok(reached)
    }
}

/// What is folded in one transaction.
enum Batch {
    /// As it was committed.
    Recent(Vec<Group>),
    /// As the log has it.
    Stored(Vec<Stored>),
}

impl Batch {
    /// The first position and the last; none of an empty one.
    fn span(&self) -> Option<(Seq, Seq)> {
        match self {
            Self::Recent(groups) => {
                Some((groups.first()?.events.first()?.seq, groups.last()?.events.last()?.seq))
            }
            Self::Stored(events) => Some((events.first()?.seq, events.last()?.seq)),
        }
    }
}

/// The fold of one batch.
struct Fold<'a> {
    table: RowTable<'a>,
    meta: Meta,
    terms: &'a mut Terms,
    reached: Reached,
}

impl Fold<'_> {
    /// Folds the event after the newest one in the rows.
    fn event(&mut self, event: &Event) -> Result<(), FollowError> {
        self.terms.add_event(event);
        rows::fold(event, &mut self.meta, &mut self.table)?;
        self.reached.rows = event.seq;
        Ok(())
    }

    /// Writes the block that ends with `seq`, if one does.
    fn seal(&mut self, seq: Seq) -> rusqlite::Result<()> {
        if seq.0.is_multiple_of(BLOCK) {
            let (at_min, at_max) = self.terms.span();
            let filter = self.terms.seal();
            let block = Block { id: index::block_of(seq), at_min, at_max, filter };
            index::put_block(self.table.connection(), &block)?;
            self.reached.blocks = seq;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Reached, FollowError> {
        rows::put_meta(&self.meta, &mut self.table)?;
        self.table.flush()?;
        self.reached.rows_sum = self.reached.rows_sum.wrapping_add(self.table.sum());
        Ok(self.reached)
    }
}

/// What the file system calls a file; none if it is not there, or has no such thing.
fn identity(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).ok().map(|found| found.ino())
    }
    #[cfg(not(unix))]
    {
        path.exists().then_some(0)
    }
}

/// Empties the index and fills it with the base of the log. The read transaction on the log is
/// as long as copying the base takes; nothing is waited for in it.
fn rebuild(log: &Connection, index: &Connection) -> rusqlite::Result<Reached> {
    let snapshot = log.unchecked_transaction()?;
    let trimmed = sqlite::trimmed(&snapshot)?;
    let write = index.unchecked_transaction()?;
    write.execute_batch(
        "DELETE FROM row; DELETE FROM ended; DELETE FROM block; DELETE FROM reached;",
    )?;
    let mut reached = Reached::default();
    if let Some(Trimmed { through, hash }) = trimmed {
        let mut after = String::new();
        loop {
            let chunk = sqlite::base(&snapshot, &after, BASE_CHUNK)?;
            let Some(last) = chunk.last() else { break };
            after.clone_from(&last.key);
            for base in &chunk {
                let sum = index::put_row(&write, base)?;
                reached.rows_sum = reached.rows_sum.wrapping_add(sum);
            }
        }
        reached.rows = through;
        reached.rows_hash = hash;
        reached.blocks = Seq(through.0 / BLOCK * BLOCK);
    }
    index::set_reached(&write, &reached)?;
    write.commit()?;
    Ok(reached)
}
