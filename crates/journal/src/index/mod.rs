//! The index, `index.db`: everything that is derived from the log and can be built again.
//!
//! Two parts, each with the position it has reached: the fold of the log as
//! [`leasehold_core::rows`] (`row`, and `ended` for the many that say how a lock ended), and `block`, one filter for every [`BLOCK`] events that says which
//! words may occur in them. What always holds:
//! - the position of the rows comes with the hash of the event there and a sum over all rows, so
//!   that an index of another history, or one that lost or gained a row, is told from a good one;
//! - a block is written once, when it is full, so that a batch of events touches few pages: an
//!   index by random keys would write a page for each event.
//!
//! Deliberately absent: durability. A lost index is built again.

mod endings;
mod filter;
mod table;

use std::path::{Path, PathBuf};

use leasehold_core::ids::Seq;
use leasehold_core::lock::Ended;
use leasehold_core::rows::Row;
use leasehold_core::time::WallTime;
use rusqlite::{Connection, OptionalExtension, params};

use crate::connect::{self, APPLICATION_ID, StoreError, failed, int, seq};
use crate::files;
use crate::folder::INDEX_FILE;
use crate::log::{BaseRow, Hash, Head, NO_HASH, Trimmed, hash};
use crate::recovery::IndexState;
pub(crate) use endings::Endings;
pub(crate) use filter::{Filter, Probe, Terms, term};
pub(crate) use table::RowTable;

/// The version of the index, the JSON of its rows included. Another one is rebuilt.
pub(crate) const INDEX_VERSION: i64 = 2;

/// The events of one filter: positions `n * BLOCK + 1` to `(n + 1) * BLOCK`.
pub(crate) const BLOCK: u64 = 1024;

/// The pages that gather in the write-ahead file: 16 MiB. A checkpoint is the only moment at
/// which the index is synced.
const CHECKPOINT_PAGES: u32 = 4096;

const SCHEMA: &str = "
    CREATE TABLE row (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE ended (
        id INTEGER PRIMARY KEY,
        newest_ms INTEGER NOT NULL,
        locks INTEGER NOT NULL,
        keyed INTEGER NOT NULL,
        sum INTEGER NOT NULL,
        endings BLOB NOT NULL
    );
    CREATE TABLE block (
        id INTEGER PRIMARY KEY,
        at_min INTEGER NOT NULL,
        at_max INTEGER NOT NULL,
        filter BLOB NOT NULL
    );
    CREATE TABLE reached (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        rows_seq INTEGER NOT NULL,
        rows_hash BLOB NOT NULL,
        rows_sum INTEGER NOT NULL,
        blocks_seq INTEGER NOT NULL
    );
";

/// How far the parts of the index have come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Reached {
    /// The newest event folded into the rows.
    pub(crate) rows: Seq,
    /// Its hash.
    pub(crate) rows_hash: Hash,
    /// The sum over all rows; see [`RowTable`].
    pub(crate) rows_sum: i64,
    /// The newest event in a block.
    pub(crate) blocks: Seq,
}

impl Default for Reached {
    fn default() -> Self {
        Self { rows: Seq(0), rows_hash: NO_HASH, rows_sum: 0, blocks: Seq(0) }
    }
}

/// Where the index of `folder` is.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join(INDEX_FILE)
}

/// Removes the index and what SQLite keeps beside it.
pub(crate) fn remove(folder: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = folder.join(format!("{INDEX_FILE}{suffix}"));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::new("remove", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The connection that writes; the file is made if it is missing, and made anew if it is of
/// another version.
pub(crate) fn open_writer(folder: &Path) -> Result<Connection, StoreError> {
    let path = path(folder);
    let open = |path: &Path| -> rusqlite::Result<Connection> {
        // Only if it is missing: closing a file that SQLite has open gives up SQLite's locks.
        if !path.exists() {
            files::private_file(path, false)
                .map_err(|_| rusqlite::Error::InvalidPath(path.into()))?;
        }
        let connection = connect::writer(path)?;
        connect::use_wal(&connection)?;
        connection.execute_batch(&format!(
            "PRAGMA synchronous = NORMAL;
             PRAGMA cache_size = -16384;
             PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
             PRAGMA journal_size_limit = {};",
            i64::from(CHECKPOINT_PAGES) * 4096
        ))?;
        Ok(connection)
    };
    let connection = open(&path).map_err(failed("open", &path))?;
    let versions = connect::versions(&connection).map_err(failed("open", &path))?;
    if versions == (APPLICATION_ID, INDEX_VERSION) {
        return Ok(connection);
    }
    drop(connection);
    remove(folder)?;
    let connection = open(&path).map_err(failed("open", &path))?;
    connection
        .execute_batch(&format!(
            "BEGIN IMMEDIATE; {SCHEMA}
             PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {INDEX_VERSION};
             COMMIT;"
        ))
        .map_err(failed("set up", &path))?;
    Ok(connection)
}

/// A connection that reads; none if there is no index of this version.
pub(crate) fn open_reader(folder: &Path) -> Option<Connection> {
    let connection = connect::reader(&path(folder)).ok()?;
    let versions = connect::versions(&connection).ok()?;
    (versions == (APPLICATION_ID, INDEX_VERSION)).then_some(connection)
}

/// How far it has come; the default while nothing is in it.
pub(crate) fn reached(connection: &Connection) -> rusqlite::Result<Reached> {
    let found = connection
        .prepare_cached("SELECT rows_seq, rows_hash, rows_sum, blocks_seq FROM reached")?
        .query_row([], |row| {
            Ok(Reached {
                rows: seq(row.get(0)?),
                rows_hash: row.get(1)?,
                rows_sum: row.get(2)?,
                blocks: seq(row.get(3)?),
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Writes how far it has come.
pub(crate) fn set_reached(connection: &Connection, reached: &Reached) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO reached VALUES (1, ?1, ?2, ?3, ?4)")?
        .execute(params![
            int(reached.rows.0),
            reached.rows_hash,
            reached.rows_sum,
            int(reached.blocks.0)
        ])?;
    Ok(())
}

/// What an index that has reached `reached` is to a log. `event` gives the hash of an event that
/// the log has.
pub(crate) fn compare<E>(
    reached: &Reached,
    head: &Head,
    trimmed: Option<Trimmed>,
    event: impl FnOnce(Seq) -> Result<Option<Hash>, E>,
) -> Result<IndexState, E> {
    let begin = trimmed.unwrap_or(Trimmed { through: Seq(0), hash: NO_HASH });
    if reached.rows > head.seq {
        return Ok(IndexState::Ahead);
    }
    if reached.rows < begin.through {
        return Ok(IndexState::BeforeTrim);
    }
    let ours = if reached.rows == begin.through {
        Some(begin.hash)
    } else if reached.rows == head.seq {
        Some(head.hash)
    } else {
        event(reached.rows)?
    };
    Ok(match ours {
        Some(ours) if ours == reached.rows_hash && reached.rows == head.seq => IndexState::Current,
        Some(ours) if ours == reached.rows_hash => IndexState::Behind,
        _ => IndexState::Foreign,
    })
}

/// As [`compare`], for a log that is read through a connection.
pub(crate) fn compare_with_log(
    reached: &Reached,
    log: &Connection,
) -> rusqlite::Result<IndexState> {
    let trimmed = crate::log::sqlite::trimmed(log)?;
    let head = crate::log::sqlite::head(log)?;
    compare(reached, &head, trimmed, |seq| {
        Ok(crate::log::sqlite::one(log, seq)?.map(|stored| hash(&stored.bytes)))
    })
}

/// The filter of one block, and the span of wall time of its events.
pub(crate) struct Block {
    /// Positions `id * BLOCK + 1` to `(id + 1) * BLOCK`.
    pub(crate) id: u64,
    pub(crate) at_min: WallTime,
    pub(crate) at_max: WallTime,
    pub(crate) filter: Filter,
}

/// The block that an event belongs to.
pub(crate) fn block_of(seq: Seq) -> u64 {
    seq.0.saturating_sub(1) / BLOCK
}

/// Writes a block.
pub(crate) fn put_block(connection: &Connection, block: &Block) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO block VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![int(block.id), block.at_min.0, block.at_max.0, block.filter.to_bytes()])?;
    Ok(())
}

/// Removes the blocks before `id`.
pub(crate) fn drop_blocks(connection: &Connection, id: u64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM block WHERE id < ?1")?.execute([int(id)])?;
    Ok(())
}

/// Writes a row of the base, and answers with what it adds to the sum over the rows.
pub(crate) fn put_row(connection: &Connection, row: &BaseRow) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("INSERT INTO row VALUES (?1, ?2)")?
        .execute(params![row.key, row.value])?;
    Ok(table::row_sum(&row.key, &row.value))
}

/// One row of the fold as it is stored, or several that are stored together.
pub(crate) enum StoredRows {
    /// A name and a value.
    One(String, Vec<u8>),
    /// How locks ended.
    Endings(Vec<u8>),
}

impl StoredRows {
    /// Reads them; the name of what cannot be read beside the error.
    pub(crate) fn parse(self) -> Result<Vec<Row>, (String, serde_json::Error)> {
        match self {
            Self::One(key, value) => match Row::parse(&key, &value) {
                Ok(row) => Ok(row.into_iter().collect()),
                Err(source) => Err((key, source)),
            },
            Self::Endings(value) => match serde_json::from_slice::<Vec<Box<Ended>>>(&value) {
                Ok(endings) => Ok(endings.into_iter().map(Row::Ended).collect()),
                Err(source) => Err(("ended".to_owned(), source)),
            },
        }
    }
}

/// Goes over all rows, how locks ended first, and answers with the sum over them.
pub(crate) fn for_each_row(
    connection: &Connection,
    mut visit: impl FnMut(StoredRows),
) -> rusqlite::Result<i64> {
    let ended = endings::for_each(connection, |value| visit(StoredRows::Endings(value)))?;
    let others = table::for_each(connection, |key, value| {
        visit(StoredRows::One(key.to_owned(), value.to_owned()));
    })?;
    Ok(ended.wrapping_add(others))
}

/// Reads the blocks `from..=to`. One that is not there, or is damaged, is left out.
pub(crate) fn blocks(connection: &Connection, from: u64, to: u64) -> rusqlite::Result<Vec<Block>> {
    let mut select = connection.prepare_cached(
        "SELECT id, at_min, at_max, filter FROM block WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
    )?;
    let mut found = select.query(params![int(from), int(to)])?;
    let mut blocks = Vec::new();
    while let Some(row) = found.next()? {
        let bytes: Vec<u8> = row.get(3)?;
        let Some(filter) = Filter::from_bytes(bytes) else { continue };
        blocks.push(Block {
            id: connect::uint(row.get(0)?),
            at_min: WallTime(row.get(1)?),
            at_max: WallTime(row.get(2)?),
            filter,
        });
    }
    Ok(blocks)
}
