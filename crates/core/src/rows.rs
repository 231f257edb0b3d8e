//! The fold of the log as rows, so that a second file can hold it.
//!
//! [`fold`] turns one event into changes of named rows; [`crate::state::State::load`] reads them
//! again. A follower that applies [`fold`] in order holds, at any moment, the lock table as of
//! the event it has reached, and a start is "load the rows, then fold the tail".
//!
//! Row names: `lock/{lock_id}`, `ended/{lease_ms, 20 digits}/{lock_id}`, `freeze/{resource}`,
//! `open/{seq, 20 digits}`, `meta`. Values are JSON.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{Event, EventBody};
use crate::ids::{Fence, LockId, Seq};
use crate::lock::{Break, Ended, Ending, Freeze, LetGo, Lock, OpenAdmission};
use crate::resource::Resource;
use crate::time::{LeaseTime, WallTime};

/// How long it is known how a lock ended, in milliseconds of the lease clock: 24 h.
pub const ENDED_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// The name of a row. They are ordered as their texts are.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Key {
    /// A lock that has ended, by when it did.
    Ended(LeaseTime, LockId),
    /// A freeze.
    Freeze(Resource),
    /// A lock that lives.
    Lock(LockId),
    /// What the fold has reached.
    Meta,
    /// A write under a lock whose end is not known, by its `write_admitted`.
    Open(Seq),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(lease, id) => write!(f, "ended/{:020}/{id}", lease.0),
            Self::Freeze(resource) => write!(f, "freeze/{resource}"),
            Self::Lock(id) => write!(f, "lock/{id}"),
            Self::Meta => f.write_str("meta"),
            Self::Open(seq) => write!(f, "open/{:020}", seq.0),
        }
    }
}

/// A store of named rows.
pub trait Rows {
    /// What the store fails with.
    type Error;

    /// A row, if there is one.
    ///
    /// # Errors
    /// When the store fails, or holds what is no such row.
    fn get(&mut self, key: &Key) -> Result<Option<Row>, FoldError<Self::Error>>;

    /// Sets the row of this name.
    ///
    /// # Errors
    /// When the store fails.
    fn put(&mut self, row: Row) -> Result<(), FoldError<Self::Error>>;

    /// Removes a row, if there is one.
    ///
    /// # Errors
    /// When the store fails.
    fn delete(&mut self, key: &Key) -> Result<(), FoldError<Self::Error>>;

    /// Removes every row with `from <= key < to`.
    ///
    /// # Errors
    /// When the store fails.
    fn delete_range(&mut self, from: &Key, to: &Key) -> Result<(), FoldError<Self::Error>>;

    /// Sets a row of a name that has never been used before.
    ///
    /// # Errors
    /// As [`Self::put`].
    fn add(&mut self, row: Row) -> Result<(), FoldError<Self::Error>> {
        self.put(row)
    }

    /// Removes a row, and gives it back.
    ///
    /// # Errors
    /// As [`Self::get`] and [`Self::delete`].
    fn take(&mut self, key: &Key) -> Result<Option<Row>, FoldError<Self::Error>> {
        let row = self.get(key)?;
        if row.is_some() {
            self.delete(key)?;
        }
        Ok(row)
    }

    /// Changes a row, if there is one; never its name.
    ///
    /// # Errors
    /// As [`Self::get`] and [`Self::put`].
    fn edit(
        &mut self,
        key: &Key,
        change: impl FnOnce(&mut Row),
    ) -> Result<(), FoldError<Self::Error>> {
        let Some(mut row) = self.get(key)? else { return Ok(()) };
        change(&mut row);
        self.put(row)
    }
}

/// What the fold has reached, apart from locks.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Meta {
    /// The newest event folded in.
    pub seq: Seq,
    /// Its lease clock reading.
    pub lease_ms: LeaseTime,
    /// The greatest fence granted or reserved.
    pub fence: Fence,
    /// The incarnation, in hexadecimal.
    pub incarnation: String,
}

/// Why an event could not be folded into rows.
#[derive(Debug, thiserror::Error)]
pub enum FoldError<E> {
    /// The store failed.
    #[error("the row store failed")]
    Store(#[from] E),
    /// A row is not what it should be.
    #[error("the row `{key}` cannot be read")]
    Row {
        /// Its name.
        key: String,
        /// What was wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The event does not follow the one folded before it.
    #[error("event {found} follows event {expected_after}")]
    Gap {
        /// The newest event folded in.
        expected_after: Seq,
        /// The event that came.
        found: Seq,
    },
}

/// Folds one event into the rows. `meta` is the fold's own; write it with [`put_meta`] at the end
/// of a batch, in the same transaction.
///
/// # Errors
/// When the store fails, a row is unreadable, or the event is not the next one.
pub fn fold<R: Rows>(
    event: &Event,
    meta: &mut Meta,
    rows: &mut R,
) -> Result<(), FoldError<R::Error>> {
    if event.seq != meta.seq.next() {
        return Err(FoldError::Gap { expected_after: meta.seq, found: event.seq });
    }
    meta.seq = event.seq;
    meta.lease_ms = meta.lease_ms.max(event.lease);
    match &event.body {
        EventBody::Acquired(grant) => {
            meta.fence = meta.fence.max(grant.fence);
            rows.add(Row::Lock(Box::new(Lock::new((**grant).clone()))))?;
        }
        EventBody::Renewed { lock, ttl_ms, deadline } => change(rows, lock.lock_id, |row| {
            row.renew(*ttl_ms, *deadline);
        })?,
        EventBody::Released { lock, .. } => {
            end(rows, lock.lock_id, Ending::Released, event.lease, event.at)?;
        }
        EventBody::Expired { lock, deadline } => {
            end(rows, lock.lock_id, Ending::Expired, *deadline, event.at)?;
        }
        EventBody::BreakAnnounced { lock, by, reason, deadline } => {
            change(rows, lock.lock_id, |row| {
                row.announce_break(Break { by: by.clone(), reason: reason.clone() }, *deadline);
            })?;
        }
        EventBody::Broken { lock, by, reason } => {
            let ending = Ending::Broken(Break { by: by.clone(), reason: reason.clone() });
            end(rows, lock.lock_id, ending, event.lease, event.at)?;
        }
        EventBody::Transferred { lock, to } => {
            meta.fence = meta.fence.max(to.fence);
            let ending = Ending::Transferred { successor: to.lock_id, to: to.holder.clone() };
            end(rows, lock.lock_id, ending, event.lease, event.at)?;
            rows.add(Row::Lock(Box::new(Lock::new((**to).clone()))))?;
        }
        EventBody::Requested { lock, by, message } => change(rows, lock.lock_id, |row| {
            row.requested =
                Some(Box::new(LetGo { by: by.clone(), message: message.clone(), at: event.at }));
        })?,
        EventBody::Frozen(freeze) => rows.put(Row::Freeze(freeze.clone()))?,
        EventBody::Unfrozen { resource, .. } => {
            rows.delete(&Key::Freeze(resource.clone()))?;
        }
        EventBody::WriteAdmitted { lock, method, resource, admission } => {
            change(rows, lock.lock_id, |row| row.used = true)?;
            let open = OpenAdmission {
                seq: event.seq,
                admission: *admission,
                lock_id: lock.lock_id,
                fence: lock.fence,
                holder: lock.holder.clone(),
                resources: lock.resources.clone(),
                dialect: lock.dialect,
                method: method.clone(),
                resource: resource.clone(),
            };
            rows.add(Row::Open(Box::new(open)))?;
        }
        EventBody::WriteCompleted { admitted, .. } => {
            rows.delete(&Key::Open(*admitted))?;
        }
        EventBody::Recovered { incarnation, fence_floor, .. } => {
            meta.incarnation = incarnation.to_string();
            meta.fence = meta.fence.max(*fence_floor);
        }
        EventBody::WriteChecked { .. } | EventBody::Refused { .. } | EventBody::Trimmed { .. } => {}
    }
    Ok(())
}

/// Writes `meta`, and forgets what ended longer ago than is remembered.
///
/// # Errors
/// When the store fails.
pub fn put_meta<R: Rows>(meta: &Meta, rows: &mut R) -> Result<(), FoldError<R::Error>> {
    let kept_from = LeaseTime(meta.lease_ms.0.saturating_sub(ENDED_KEPT_MS));
    let nobody = LockId(Uuid::nil());
    let oldest = Key::Ended(LeaseTime(0), nobody);
    rows.delete_range(&oldest, &Key::Ended(kept_from, nobody))?;
    rows.put(Row::Meta(meta.clone()))
}

/// Reads `meta`; the default where there is none.
///
/// # Errors
/// When the store fails or the row is unreadable.
pub fn get_meta<R: Rows>(rows: &mut R) -> Result<Meta, FoldError<R::Error>> {
    match rows.get(&Key::Meta)? {
        Some(Row::Meta(meta)) => Ok(meta),
        _ => Ok(Meta::default()),
    }
}

/// What one row says.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// A lock that lives.
    Lock(Box<Lock>),
    /// A lock that has ended.
    Ended(Box<Ended>),
    /// A freeze.
    Freeze(Freeze),
    /// A write under a lock whose end is not known.
    Open(Box<OpenAdmission>),
    /// What the fold has reached.
    Meta(Meta),
}

impl Row {
    /// Reads one row by its name; none for names of other things.
    ///
    /// # Errors
    /// When the value is not what the name says.
    pub fn parse(key: &str, value: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match key.split('/').next().unwrap_or_default() {
            "lock" => Self::Lock(serde_json::from_slice(value)?),
            "ended" => Self::Ended(serde_json::from_slice(value)?),
            "freeze" => Self::Freeze(serde_json::from_slice(value)?),
            "open" => Self::Open(serde_json::from_slice(value)?),
            "meta" => Self::Meta(serde_json::from_slice(value)?),
            _ => return Ok(None),
        }))
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Lock(lock) => Key::Lock(lock.grant.lock_id),
            Self::Ended(ended) => Key::Ended(ended.lease, ended.lock_id),
            Self::Freeze(freeze) => Key::Freeze(freeze.resource.clone()),
            Self::Open(open) => Key::Open(open.seq),
            Self::Meta(_) => Key::Meta,
        }
    }

    /// Its value, as [`Self::parse`] reads it.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which no row of this version is.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Lock(lock) => serde_json::to_vec(lock),
            Self::Ended(ended) => serde_json::to_vec(ended),
            Self::Freeze(freeze) => serde_json::to_vec(freeze),
            Self::Open(open) => serde_json::to_vec(open),
            Self::Meta(meta) => serde_json::to_vec(meta),
        }
    }
}

fn change<R: Rows>(
    rows: &mut R,
    id: LockId,
    change: impl FnOnce(&mut Lock),
) -> Result<(), FoldError<R::Error>> {
    // A write admitted under a lock may complete after the lock has ended.
    rows.edit(&Key::Lock(id), |row| {
        if let Row::Lock(lock) = row {
            change(lock);
        }
    })
}

fn end<R: Rows>(
    rows: &mut R,
    id: LockId,
    ending: Ending,
    lease: LeaseTime,
    at: WallTime,
) -> Result<(), FoldError<R::Error>> {
    match rows.take(&Key::Lock(id))? {
        Some(Row::Lock(lock)) => rows.add(Row::Ended(Box::new(lock.ended(ending, lease, at)))),
        _ => Ok(()),
    }
}
