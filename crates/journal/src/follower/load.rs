//! Loading the lock table at a start: the rows of the index, or the base, and then the events
//! after them.
//!
//! What always holds: whatever state the index is in, what is loaded is the fold of the log, and
//! memory is bounded by a chunk of it. Deliberately absent: writing. An index that cannot be used
//! is removed, and the follower builds it again.

use std::path::{Path, PathBuf};

use leasehold_core::event::Event;
use leasehold_core::ids::Seq;
use leasehold_core::rows::Row;
use rusqlite::Connection;

use super::BASE_CHUNK;
use super::ahead::parse_ahead;
use crate::connect::{self, StoreError, failed};
use crate::folder::DataFolder;
use crate::index::{self, Reached, StoredRows};
use crate::log::{Log, LogError, Stored, StoredError, hash};
use crate::recovery::{Case, IndexState, LogState, RestState, WalState, classify};

/// One part of the lock table at a start.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// A row of the fold.
    Row(Row),
    /// An event after the position of the rows.
    Event(Event),
    /// What came so far is void, because the index is damaged: the table begins empty again.
    Void,
}

/// What a start was made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LoadReport {
    /// What the index was.
    pub index: IndexState,
    /// How many rows were loaded.
    pub rows: u64,
    /// How many events were folded after them.
    pub events: u64,
}

/// Why the lock table could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A row is not what its name says.
    #[error("the row `{key}` in {} cannot be read", path.display())]
    Row {
        /// Its name.
        key: String,
        /// The file it is in.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How many events, and rows of the base, are in memory at once.
const CHUNK: usize = 1024;

/// Loads the lock table: first all rows, then, in order, the events after them, up to the head.
///
/// An index that is missing, damaged, of another version or of another history is removed, and
/// the base and every event of the log take its place. Memory is bounded by the size of a chunk.
///
/// # Errors
/// When the log fails, or an event or a row is unreadable.
pub fn load(
    folder: &DataFolder,
    log: &mut dyn Log,
    sink: &mut dyn FnMut(Loaded),
) -> Result<LoadReport, LoadError> {
    let (mut state, index) = look(folder.path(), log)?;
    let case = classify(LogState::Usable, WalState::Absent, state, RestState::Used);
    let mut from_index = None;
    if let (Case::UseIndex | Case::FoldTail, Some((connection, reached))) = (case, index) {
        match load_index(&connection, folder.path(), &reached, sink)? {
            Some(rows) => from_index = Some((rows, reached.rows)),
            None => {
                state = IndexState::Damaged;
                sink(Loaded::Void);
            }
        }
    }
    let (rows, at) = match from_index {
        Some(loaded) => loaded,
        None => {
            if state != IndexState::Missing {
                tracing::warn!(index = ?state, "the index is built again from the log");
                index::remove(folder.path())?;
            }
            let rows = load_base(folder, log, sink)?;
            (rows, log.trimmed().map_or(Seq(0), |trimmed| trimmed.through))
        }
    };
    let events = load_events(folder, log, at, sink)?;
    Ok(LoadReport { index: state, rows, events })
}

/// Loads the events after `at`.
fn load_events(
    folder: &DataFolder,
    log: &mut dyn Log,
    mut at: Seq,
    sink: &mut dyn FnMut(Loaded),
) -> Result<u64, LoadError> {
    let mut loaded = 0;
    let mut wrong = None;
    let read = parse_ahead(
        |events: Vec<Stored>| {
            events.iter().map(Stored::event).collect::<Result<Vec<Event>, StoredError>>()
        },
        |push| {
            loop {
                let events = log.read(at.next(), CHUNK)?;
                let Some(last) = events.last() else { return Ok(()) };
                if events[0].seq != at.next() {
                    let what = "the event is missing".to_owned();
                    return Err(LogError::Damaged { seq: at.next(), what });
                }
                at = last.seq;
                push(events);
            }
        },
        |events| match events {
            Ok(events) if wrong.is_none() => {
                loaded += events.len() as u64;
                events.into_iter().for_each(|event| sink(Loaded::Event(event)));
            }
            Ok(_) => {}
            Err(error) => wrong = wrong.take().or(Some(error)),
        },
    );
    let read = read.map_err(failed("start a thread for", &folder.log_path()))?;
    // Read before whatever could not be read.
    wrong.map_or(Ok(()), |error| Err(LogError::from(error)))?;
    read?;
    Ok(loaded)
}

/// What the index is to the log, and a connection to it if it can be used.
fn look(
    folder: &Path,
    log: &mut dyn Log,
) -> Result<(IndexState, Option<(Connection, Reached)>), LogError> {
    if !index::path(folder).exists() {
        return Ok((IndexState::Missing, None));
    }
    let Some(connection) = index::open_reader(folder) else {
        let other = connect::reader(&index::path(folder))
            .and_then(|connection| connect::versions(&connection));
        let state = match other {
            Ok(_) => IndexState::OtherVersion,
            Err(error) => unreadable(&error),
        };
        return Ok((state, None));
    };
    // One moment of the index for its position, its sum and its rows: after a failed commit the
    // table is loaded while a follower runs. Ends with the connection.
    let began = connection.execute_batch("BEGIN");
    let reached = match began.and_then(|()| index::reached(&connection)) {
        Ok(reached) => reached,
        Err(error) => return Ok((unreadable(&error), None)),
    };
    let (head, trimmed) = (log.head(), log.trimmed());
    let state = index::compare(&reached, &head, trimmed, |seq| {
        let found = log.read(seq, 1)?.pop();
        let found = found.filter(|stored| stored.seq == seq);
        Ok::<_, LogError>(found.map(|stored| hash(&stored.bytes)))
    })?;
    let usable = matches!(state, IndexState::Current | IndexState::Behind);
    Ok((state, usable.then_some((connection, reached))))
}

/// What an index is that cannot be read. One that is busy, because a follower is making it just
/// now, is none yet: it is left alone, and the log is read.
fn unreadable(error: &rusqlite::Error) -> IndexState {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked};
    match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked | CannotOpen) => IndexState::Missing,
        _ => IndexState::Damaged,
    }
}

/// Loads the rows of the index; none if they are not what `reached` says, which is known only
/// behind the last of them: rows are read once, for the table and for their sum.
fn load_index(
    connection: &Connection,
    folder: &Path,
    reached: &Reached,
    sink: &mut dyn FnMut(Loaded),
) -> Result<Option<u64>, LoadError> {
    let path = index::path(folder);
    let mut rows = 0;
    let mut wrong = None;
    let sum = parse_ahead(
        |part: Vec<StoredRows>| {
            part.into_iter().map(StoredRows::parse).collect::<Result<Vec<_>, _>>()
        },
        |push| {
            let mut part = Vec::with_capacity(CHUNK);
            let sum = index::for_each_row(connection, |stored| {
                let is_many = matches!(stored, StoredRows::Endings(_));
                part.push(stored);
                if is_many {
                    push(std::mem::take(&mut part));
                }
                if part.len() == CHUNK {
                    push(std::mem::replace(&mut part, Vec::with_capacity(CHUNK)));
                }
            });
            push(part);
            sum
        },
        |parsed| match parsed {
            Ok(part) if wrong.is_none() => {
                for row in part.into_iter().flatten() {
                    rows += 1;
                    sink(Loaded::Row(row));
                }
            }
            Ok(_) => {}
            Err((key, source)) => {
                let path = path.clone();
                wrong = wrong.take().or(Some(LoadError::Row { key, path, source }));
            }
        },
    );
    match (sum.map_err(failed("start a thread for", &path))?, wrong) {
        (Ok(sum), wrong) if sum == reached.rows_sum => wrong.map_or(Ok(Some(rows)), Err),
        _ => Ok(None),
    }
}

fn load_base(
    folder: &DataFolder,
    log: &mut dyn Log,
    sink: &mut dyn FnMut(Loaded),
) -> Result<u64, LoadError> {
    let mut rows = 0;
    let mut after = String::new();
    loop {
        let chunk = log.base(&after, BASE_CHUNK)?;
        let Some(last) = chunk.last() else { return Ok(rows) };
        after.clone_from(&last.key);
        rows += chunk.len() as u64;
        for base in chunk {
            let row = Row::parse(&base.key, &base.value).map_err(|source| LoadError::Row {
                key: base.key.clone(),
                path: folder.log_path(),
                source,
            })?;
            row.into_iter().for_each(|row| sink(Loaded::Row(row)));
        }
    }
}
