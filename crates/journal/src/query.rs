//! Questions to the trail, asked beside the server or without one.
//!
//! An [`AuditReader`] has its own read-only connection to the log, and opens the index anew for
//! each question, so that an index that was rebuilt meanwhile is not missed. What always holds:
//! - an answer covers every event that was durable when the question was asked: blocks of events
//!   that the index rules out are skipped, everything else is scanned;
//! - a missing, damaged or foreign index makes an answer slower, never wrong;
//! - no read transaction lives longer than one block of events or one call of
//!   [`AuditReader::read`] (and, when a trail is verified, the reading of its base).
//!
//! Deliberately absent: a limit on time. A question that nothing matches reads every filter.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use leasehold_core::event::EventBody;
use leasehold_core::ids::{LockId, Principal, Seq};
use leasehold_core::lock::{Break, Ending};
use leasehold_core::resource::Resource;
use leasehold_core::rows::Row;
use leasehold_core::time::{LeaseTime, WallTime};
use rusqlite::{Connection, params};

use crate::connect::{self, StoreError, failed, int, seq};
use crate::folder::LOG_FILE;
use crate::index::{self, BLOCK, Block, Probe, term};
use crate::log::{Head, Stored, StoredError, Trimmed, sqlite};
use crate::recovery::IndexState;

/// What is asked for: the events that meet every condition that is set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AuditQuery {
    /// Events about this resource or anything below it, by segment. `/` and none: all events.
    pub resource: Option<Resource>,
    /// Events about locks of this holder, and grants handed over to it.
    pub holder: Option<Principal>,
    /// Events that this principal caused.
    pub actor: Option<Principal>,
    /// Events of this `type`.
    pub kind: Option<String>,
    /// Events about this lock; the event that handed it over belongs to both locks.
    pub lock_id: Option<LockId>,
    /// Events at or after this moment.
    pub since: Option<WallTime>,
    /// Events before this moment.
    pub until: Option<WallTime>,
    /// Events after this one; with `descending`, before it.
    pub after: Option<Seq>,
    /// The newest first.
    pub descending: bool,
    /// The most events to answer with.
    pub limit: usize,
}

/// A part of the answer to an [`AuditQuery`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// The events, in the order that was asked for: at most `limit`, and about 4 MiB.
    pub items: Vec<Stored>,
    /// Where to go on ([`AuditQuery::after`]); none if there is nothing more now.
    pub next: Option<Seq>,
}

/// How a lock ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LockEnd {
    /// The event that says so.
    pub seq: Seq,
    /// How.
    pub ending: Ending,
    /// When, by the lease clock. An expired lock ended at its deadline.
    pub lease: LeaseTime,
    /// When that was written down, by the wall clock.
    pub at: WallTime,
}

/// Why a question could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// There is no log that this program can read.
    #[error("{} is no log of this version of leasehold", path.display())]
    NoLog {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// An event that the answer needs cannot be read.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// A row of the base cannot be read.
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

/// How many filters are in memory at once: about half a mebibyte.
const FILTERS: u64 = 256;

/// Reads the trail of one data folder. Not shared between threads: each opens its own.
#[derive(Debug)]
pub struct AuditReader {
    folder: PathBuf,
    path: PathBuf,
    log: Connection,
}

impl AuditReader {
    /// Opens the log of the data folder at `folder`. Needs no lock: a server may have the folder.
    ///
    /// # Errors
    /// When there is no log of this version, or it cannot be opened.
    pub fn open(folder: &Path) -> Result<Self, QueryError> {
        let path = folder.join(LOG_FILE);
        let log = connect::reader(&path).map_err(failed("open", &path))?;
        let versions = connect::versions(&log).map_err(failed("open", &path))?;
        if versions != (connect::APPLICATION_ID, sqlite::SCHEMA_VERSION) {
            return Err(QueryError::NoLog { path });
        }
        Ok(Self { folder: folder.to_owned(), path, log })
    }

    /// Where the log stands.
    ///
    /// # Errors
    /// When the store fails.
    pub fn head(&self) -> Result<Head, QueryError> {
        Ok(sqlite::head(&self.log).map_err(failed("read", &self.path))?)
    }

    /// Where the trail begins; none while nothing was ever removed.
    ///
    /// # Errors
    /// When the store fails.
    pub fn trimmed(&self) -> Result<Option<Trimmed>, QueryError> {
        Ok(sqlite::trimmed(&self.log).map_err(failed("read", &self.path))?)
    }

    /// The position of the oldest event that is kept, or would be: 1 for an empty trail.
    ///
    /// # Errors
    /// When the store fails.
    pub fn oldest(&self) -> Result<Seq, QueryError> {
        Ok(self.trimmed()?.map_or(Seq(1), |trimmed| trimmed.through.next()))
    }

    /// Events from `from` on, in order: at most `limit`, and at most about 4 MiB, but at least
    /// one if there is any. Starts with the oldest that is kept if `from` has been removed.
    ///
    /// # Errors
    /// When the store fails.
    pub fn read(&self, from: Seq, limit: usize) -> Result<Vec<Stored>, QueryError> {
        Ok(sqlite::read(&self.log, from, limit).map_err(failed("read", &self.path))?)
    }

    /// The events that `query` asks for.
    ///
    /// # Errors
    /// When the store fails, or an event in question is unreadable.
    pub fn query(&self, query: &AuditQuery) -> Result<Page, QueryError> {
        let mut page = Page::default();
        let Some((low, high)) = self.bounds(query)? else { return Ok(page) };
        let words = words(query);
        let index = self.index();
        let blocks = (index::block_of(low), index::block_of(high));
        let mut search = Search { query, page: &mut page, bytes: 0 };
        for (from, to) in windows(blocks.0, blocks.1, query.descending) {
            let filters = self.filters(index.as_ref(), from, to);
            let ids = (from..=to).map(|at| if query.descending { from + (to - at) } else { at });
            for id in ids {
                let ruled_out =
                    filters.get(&id).is_some_and(|block| !may_match(block, query, &words));
                if ruled_out {
                    continue;
                }
                let first = Seq((id * BLOCK + 1).max(low.0));
                let last = Seq(((id + 1) * BLOCK).min(high.0));
                if self.scan(first, last, &mut search)? {
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    /// How a lock ended, as far as the trail is kept; none if it lives, or is not known.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub fn how_ended(&self, lock_id: LockId) -> Result<Option<LockEnd>, QueryError> {
        let mut query = AuditQuery {
            lock_id: Some(lock_id),
            descending: true,
            limit: 16,
            ..AuditQuery::default()
        };
        loop {
            let page = self.query(&query)?;
            for stored in &page.items {
                if let Some(end) = ending(stored, lock_id)? {
                    return Ok(Some(end));
                }
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(None),
            }
        }
    }

    /// The rows of the base: the fold of everything that was trimmed.
    pub(crate) fn base(&self, mut visit: impl FnMut(Row)) -> Result<(), QueryError> {
        let mut after = String::new();
        loop {
            let chunk = sqlite::base(&self.log, &after, 64)
                .map_err(failed("read the base of", &self.path))?;
            let Some(last) = chunk.last() else { return Ok(()) };
            after.clone_from(&last.key);
            for base in &chunk {
                let row = Row::parse(&base.key, &base.value).map_err(|source| QueryError::Row {
                    key: base.key.clone(),
                    path: self.path.clone(),
                    source,
                })?;
                row.into_iter().for_each(&mut visit);
            }
        }
    }

    /// Runs `work` in one read transaction, for answers that have to fit together.
    pub(crate) fn snapshot<T>(
        &self,
        work: impl FnOnce() -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let snapshot = self.log.unchecked_transaction().map_err(failed("read", &self.path))?;
        let result = work();
        drop(snapshot);
        result
    }

    /// The positions to look at; none if there are no events there.
    fn bounds(&self, query: &AuditQuery) -> Result<Option<(Seq, Seq)>, QueryError> {
        let mut low = self.oldest()?;
        let mut high = self.head()?.seq;
        match query.after {
            Some(after) if query.descending => high = high.min(Seq(after.0.saturating_sub(1))),
            Some(after) => low = low.max(Seq(after.0.saturating_add(1))),
            None => {}
        }
        let nothing = high < low || query.limit == 0;
        Ok((!nothing).then_some((low, high)))
    }

    /// The index, if there is one and it is this log's.
    fn index(&self) -> Option<Connection> {
        let index = index::open_reader(&self.folder)?;
        let reached = index::reached(&index).ok()?;
        let state = index::compare_with_log(&reached, &self.log).ok()?;
        // One that was ahead when the head was read is ahead no more if the log went on.
        matches!(state, IndexState::Current | IndexState::Behind).then_some(index)
    }

    fn filters(&self, index: Option<&Connection>, from: u64, to: u64) -> HashMap<u64, Block> {
        let Some(index) = index else { return HashMap::new() };
        let found = index::blocks(index, from, to).unwrap_or_else(|error| {
            tracing::warn!(%error, "the index cannot be read; scanning the log instead");
            Vec::new()
        });
        found.into_iter().map(|block| (block.id, block)).collect()
    }

    /// Looks at each event of a span, and says whether the page is full.
    fn scan(&self, first: Seq, last: Seq, search: &mut Search<'_>) -> Result<bool, QueryError> {
        let sql = if search.query.descending {
            "SELECT seq, body FROM event WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq DESC"
        } else {
            "SELECT seq, body FROM event WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq"
        };
        let wrong = |error| StoreError::new("read", &self.path, error);
        let mut select = self.log.prepare_cached(sql).map_err(wrong)?;
        let mut rows = select.query(params![int(first.0), int(last.0)]).map_err(wrong)?;
        while let Some(row) = rows.next().map_err(wrong)? {
            let seq = seq(row.get(0).map_err(wrong)?);
            let bytes = sqlite::body(row).map_err(wrong)?;
            if search.look_at(seq, bytes)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

struct Search<'a> {
    query: &'a AuditQuery,
    page: &'a mut Page,
    bytes: usize,
}

impl Search<'_> {
    /// Takes the event if it matches; `true` if it does and there is no room for it.
    fn look_at(&mut self, seq: Seq, bytes: &[u8]) -> Result<bool, QueryError> {
        let probe = Probe::read(bytes).map_err(|source| StoredError::Json { seq, source })?;
        if !matches(&probe, self.query) {
            return Ok(false);
        }
        let full =
            self.page.items.len() >= self.query.limit || self.bytes >= crate::log::READ_BYTES;
        if full {
            // Only now is it known that there is more.
            self.page.next = self.page.items.last().map(|last| last.seq);
            return Ok(true);
        }
        self.bytes += bytes.len();
        self.page.items.push(Stored { seq, bytes: bytes.to_owned() });
        Ok(false)
    }
}

/// Blocks `from..=to` in spans of [`FILTERS`], in the order of the search.
fn windows(from: u64, to: u64, descending: bool) -> impl Iterator<Item = (u64, u64)> {
    let count = (to - from) / FILTERS + 1;
    (0..count).map(move |at| {
        let at = if descending { count - 1 - at } else { at };
        let first = from + at * FILTERS;
        (first, (first + FILTERS - 1).min(to))
    })
}

/// The words that an event must have to be an answer.
fn words(query: &AuditQuery) -> Vec<u64> {
    let mut words = Vec::new();
    words.extend(query.resource.iter().filter(|all| !all.is_root()).map(term::resource));
    words.extend(query.holder.iter().map(|name| term::holder(name.as_str())));
    words.extend(query.actor.iter().map(|name| term::actor(name.as_str())));
    words.extend(query.kind.iter().map(|name| term::kind(name)));
    words.extend(query.lock_id.iter().map(|id| term::lock(&id.to_string())));
    words
}

fn may_match(block: &Block, query: &AuditQuery, words: &[u64]) -> bool {
    query.since.is_none_or(|since| block.at_max >= since)
        && query.until.is_none_or(|until| block.at_min < until)
        && words.iter().all(|word| block.filter.may_have(*word))
}

fn matches(probe: &Probe<'_>, query: &AuditQuery) -> bool {
    let successor = probe.transferred_to.as_ref();
    query.since.is_none_or(|since| probe.at >= since)
        && query.until.is_none_or(|until| probe.at < until)
        && query.kind.as_deref().is_none_or(|kind| probe.kind == kind)
        && query.actor.as_ref().is_none_or(|name| probe.actor.as_deref() == Some(name.as_str()))
        && query.holder.as_ref().is_none_or(|name| {
            probe.holder.as_deref() == Some(name.as_str())
                || successor.is_some_and(|successor| successor.holder == name.as_str())
        })
        && query.lock_id.is_none_or(|id| {
            let id = id.to_string();
            probe.lock_id.as_deref() == Some(id.as_str())
                || successor.is_some_and(|successor| successor.lock_id == id.as_str())
        })
        && query.resource.as_ref().is_none_or(|above| {
            above.is_root()
                || probe.resources.iter().chain(&probe.resource).any(|one| above.covers(one))
        })
}

/// How this event ended the lock, if it did.
fn ending(stored: &Stored, lock_id: LockId) -> Result<Option<LockEnd>, QueryError> {
    let event = stored.event()?;
    let (lock, ending, lease) = match event.body {
        EventBody::Released { lock, .. } => (lock, Ending::Released, event.lease),
        EventBody::Expired { lock, deadline } => (lock, Ending::Expired, deadline),
        EventBody::Broken { lock, by, reason } => {
            (lock, Ending::Broken(Break { by, reason }), event.lease)
        }
        EventBody::Transferred { lock, to } => {
            let ending = Ending::Transferred { successor: to.lock_id, to: to.holder };
            (lock, ending, event.lease)
        }
        _ => return Ok(None),
    };
    let end = LockEnd { seq: event.seq, ending, lease, at: event.at };
    Ok((lock.lock_id == lock_id).then_some(end))
}

#[cfg(test)]
mod tests;
