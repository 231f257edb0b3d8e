//! The log: groups of events, appended durably, read by position.
//!
//! A [`Log`] is one store's way to do that; [`sqlite`] is the embedded one. What always holds:
//! - positions start at 1 and have no gaps; what [`Log::trim`] removed is always the beginning;
//! - each stored event carries, as `prev`, the SHA-256 of the stored bytes of the one before it;
//! - after a failed [`Log::append`] nothing is answered until [`Log::reopen`] has found out
//!   whether the group is there.
//!
//! Deliberately absent: what events mean, but for folding them with [`leasehold_core::rows`]
//! before they are trimmed. Leadership: it comes with the stores that have several nodes.

#[cfg(test)]
pub(crate) mod conformance;
mod encode;
pub mod sqlite;

use leasehold_core::event::{Event, Record};
use leasehold_core::ids::Seq;
use leasehold_core::time::{LeaseTime, WallTime};

use crate::connect::StoreError;
pub use encode::{Hash, NO_HASH, from_hex, hash, hex};

/// Where the log stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// The newest durable event; 0 before the first.
    pub seq: Seq,
    /// The SHA-256 of its stored bytes; zeros before the first.
    pub hash: Hash,
    /// The durable reading of the lease clock.
    pub lease: LeaseTime,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: Seq(0), hash: NO_HASH, lease: LeaseTime(0) }
    }
}

/// One event as it is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// Its position.
    pub seq: Seq,
    /// The JSON of its [`Record`], `prev` included: the bytes that the chain is made over.
    pub bytes: Vec<u8>,
}

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// It is not the JSON of a record.
    #[error("event {seq} is not readable")]
    Json {
        /// Its position.
        seq: Seq,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// It is a record that is no event of this version.
    #[error(transparent)]
    Record(#[from] leasehold_core::event::RecordError),
    /// It says that it belongs elsewhere.
    #[error("the event stored at {seq} says that it is event {says}")]
    Misplaced {
        /// Where it is stored.
        seq: Seq,
        /// Where it says it belongs.
        says: Seq,
    },
}

impl Stored {
    /// Its record.
    ///
    /// # Errors
    /// When the bytes are no record, or one of another position.
    pub fn record(&self) -> Result<Record, StoredError> {
        let record: Record = serde_json::from_slice(&self.bytes)
            .map_err(|source| StoredError::Json { seq: self.seq, source })?;
        if record.seq == self.seq {
            Ok(record)
        } else {
            Err(StoredError::Misplaced { seq: self.seq, says: record.seq })
        }
    }

    /// The typed event.
    ///
    /// # Errors
    /// As [`Self::record`], and when this version does not know the type.
    pub fn event(&self) -> Result<Event, StoredError> {
        Ok(self.record()?.event()?)
    }
}

/// What one commit makes durable.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// The events, in order, the first right after the head. May be empty: a reading only.
    pub events: &'a [Event],
    /// The reading of the lease clock that goes with them: at least the head's, and at least that
    /// of each of the events.
    pub lease: LeaseTime,
}

/// Where the trail begins, once its oldest part has been removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trimmed {
    /// The newest event removed.
    pub through: Seq,
    /// The SHA-256 of its stored bytes.
    pub hash: Hash,
}

/// How much of the trail is kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Retention {
    /// Events older than this, in milliseconds of wall time, go. None: age does not matter.
    pub max_age_ms: Option<u64>,
    /// While the log uses more bytes than this, its base included, the oldest events go. None:
    /// size does not matter.
    pub max_bytes: Option<u64>,
}

/// What one [`Log::trim`] did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TrimStep {
    /// How many events it removed.
    pub removed: usize,
    /// Whether there is more to remove now.
    pub more: bool,
}

/// One row of the fold of what was trimmed; see [`leasehold_core::rows`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BaseRow {
    /// Its name.
    pub key: String,
    /// Its value, JSON.
    pub value: Vec<u8>,
}

/// Why the log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The group does not follow the head. Nothing was written.
    #[error("event {found} was to be appended after event {head}")]
    NotContiguous {
        /// The newest event of the log.
        head: Seq,
        /// The event that came.
        found: Seq,
    },
    /// The reading of the lease clock goes back. Nothing was written.
    #[error("the lease clock reads {found:?}, but {durable:?} is durable")]
    LeaseGoesBack {
        /// The reading that is durable.
        durable: LeaseTime,
        /// The reading that came.
        found: LeaseTime,
    },
    /// An event could not be turned into JSON.
    #[error("event {seq} cannot be written as JSON")]
    Encode {
        /// Its position.
        seq: Seq,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An earlier append failed and the log has not been opened again since.
    #[error("the log has to be opened again: an append has failed")]
    NeedsReopen,
    /// A stored event cannot be read.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// The trail cannot be folded.
    #[error("the oldest events cannot be folded into rows")]
    Fold(#[source] leasehold_core::rows::FoldError<rusqlite::Error>),
    /// The end of the log is not a chain of events.
    #[error("the log is damaged at event {seq}: {what}")]
    Damaged {
        /// Where.
        seq: Seq,
        /// What is wrong there.
        what: String,
    },
    /// The store failed. For an append: whether the group is durable is not known.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LogError {
    /// Whether the log has to be opened again before anything else: after every error but those
    /// that refuse a group before it is written.
    #[must_use]
    pub fn needs_reopen(&self) -> bool {
        !matches!(self, Self::NotContiguous { .. } | Self::LeaseGoesBack { .. })
    }
}

/// A durable log with one writer.
pub trait Log: Send {
    /// Where the log stands; no I/O.
    fn head(&self) -> Head;

    /// Appends a group in one transaction, durable on return. Fills `prev`, and updates the lease
    /// reading in the same transaction.
    ///
    /// # Errors
    /// [`LogError::NotContiguous`] and [`LogError::LeaseGoesBack`] leave the log as it was. After
    /// every other error the outcome is unknown, and all further calls answer
    /// [`LogError::NeedsReopen`] until [`Self::reopen`] has succeeded.
    fn append(&mut self, group: &Group<'_>) -> Result<(), LogError>;

    /// Whether enough has gathered beside the main file for [`Self::checkpoint`] to move it. No
    /// I/O.
    fn is_checkpoint_due(&self) -> bool;

    /// Moves what has gathered into the main file, if a checkpoint is due. Belongs behind an
    /// append that has been answered: it takes longer than one, and nothing rests on it.
    ///
    /// # Errors
    /// When the store fails; as for [`Self::append`] the log then has to be opened again. What was
    /// appended stays durable.
    fn checkpoint(&mut self) -> Result<(), LogError>;

    /// Events from `from` on, in order: at most `limit`, and at most about 4 MiB, but at least
    /// one if there is any. Starts with the oldest that is kept if `from` has been trimmed.
    ///
    /// # Errors
    /// When the store fails.
    fn read(&mut self, from: Seq, limit: usize) -> Result<Vec<Stored>, LogError>;

    /// Closes the store, opens it again and brings it to stable storage. Afterwards the outcome
    /// of the failed append is known: its events are at the head, or will never come.
    ///
    /// # Errors
    /// When the store still fails; may be tried again.
    fn reopen(&mut self) -> Result<Head, LogError>;

    /// Where the trail begins; none while nothing was ever removed. No I/O.
    fn trimmed(&self) -> Option<Trimmed>;

    /// What the trail begins after, if no `trimmed` event with exactly this has been appended yet.
    /// Kept with the log, so a start can make up for a record that a crash prevented. No I/O.
    fn owed_trim_record(&self) -> Option<Trimmed>;

    /// The rows of the fold of everything trimmed, ordered by key: at most `limit` with a key
    /// after `after`.
    ///
    /// # Errors
    /// When the store fails.
    fn base(&mut self, after: &str, limit: usize) -> Result<Vec<BaseRow>, LogError>;

    /// Removes at most [`TRIM_CHUNK`] of the oldest events that `retention` does not keep, and
    /// folds them into the base, in one transaction. Never removes the newest event. When a run
    /// of steps has ended, a `trimmed` event with what [`Self::owed_trim_record`] then says
    /// belongs into the trail.
    ///
    /// # Errors
    /// When the store fails or the oldest events are unreadable; as for [`Self::append`] the log
    /// then has to be opened again.
    fn trim(&mut self, retention: &Retention, now: WallTime) -> Result<TrimStep, LogError>;

    /// Writes the lease reading and the mark of a clean shutdown, which the next append removes.
    ///
    /// # Errors
    /// As [`Self::append`].
    fn close_cleanly(&mut self, lease: LeaseTime) -> Result<(), LogError>;
}

/// The most events that one [`Log::trim`] removes: it runs between commits, and folding this many
/// takes about as long as a commit does.
pub const TRIM_CHUNK: usize = 256;

/// About how many bytes of events one read answers with.
pub(crate) const READ_BYTES: usize = 4 << 20;
