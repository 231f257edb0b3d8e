//! The fold of the log as rows, so that a second file can hold it.
//!
//! [`fold`] turns one event into changes of named rows; [`crate::state::State::load`] reads them
//! again. A follower that applies [`fold`] in order holds, at any moment, the lock table as of
//! the event it has reached, and a start is "load the rows, then fold the tail".
//!
//! Row names: `lock/{lock_id}`, `ended/{lease_ms, 20 digits}/{lock_id}`, `freeze/{resource}`,
//! `open/{seq, 20 digits}`, `meta`. Values are JSON.

use serde::{Deserialize, Serialize};

use crate::event::{Event, EventBody};
use crate::ids::{Fence, LockId, Seq};
use crate::lock::{Break, Ended, Ending, LetGo, Lock, OpenAdmission};
use crate::time::{LeaseTime, WallTime};

/// How long it is known how a lock ended, in milliseconds of the lease clock: 24 h.
pub const ENDED_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// A store of named rows.
pub trait Rows {
    /// What the store fails with.
    type Error;
    /// The value of a row, if there is one.
    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, Self::Error>;
    /// Sets a row.
    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), Self::Error>;
    /// Removes a row, if there is one.
    fn delete(&mut self, key: &str) -> Result<(), Self::Error>;
    /// Removes every row with `from <= key < to`.
    fn delete_range(&mut self, from: &str, to: &str) -> Result<(), Self::Error>;
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
    Store(#[source] E),
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

/// The name of a live lock's row.
#[must_use]
pub fn lock_key(id: LockId) -> String {
    format!("lock/{id}")
}

fn ended_key(lease: LeaseTime, id: LockId) -> String {
    format!("ended/{:020}/{id}", lease.0)
}

fn open_key(seq: Seq) -> String {
    format!("open/{:020}", seq.0)
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
            put(rows, &lock_key(grant.lock_id), &Lock::new((**grant).clone()))?;
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
            put(rows, &lock_key(to.lock_id), &Lock::new((**to).clone()))?;
        }
        EventBody::Requested { lock, by, message } => change(rows, lock.lock_id, |row| {
            row.requested =
                Some(Box::new(LetGo { by: by.clone(), message: message.clone(), at: event.at }));
        })?,
        EventBody::Frozen(freeze) => put(rows, &format!("freeze/{}", freeze.resource), freeze)?,
        EventBody::Unfrozen { resource, .. } => {
            rows.delete(&format!("freeze/{resource}")).map_err(FoldError::Store)?;
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
            put(rows, &open_key(event.seq), &open)?;
        }
        EventBody::WriteCompleted { admitted, .. } => {
            rows.delete(&open_key(*admitted)).map_err(FoldError::Store)?;
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
    rows.delete_range("ended/", &format!("ended/{:020}/", kept_from.0))
        .map_err(FoldError::Store)?;
    put(rows, "meta", meta)
}

/// Reads `meta`; the default where there is none.
///
/// # Errors
/// When the store fails or the row is unreadable.
pub fn get_meta<R: Rows>(rows: &mut R) -> Result<Meta, FoldError<R::Error>> {
    match rows.get("meta").map_err(FoldError::Store)? {
        Some(bytes) => parse("meta", &bytes),
        None => Ok(Meta::default()),
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
    Freeze(crate::lock::Freeze),
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
}

fn parse<T: serde::de::DeserializeOwned, E>(key: &str, bytes: &[u8]) -> Result<T, FoldError<E>> {
    serde_json::from_slice(bytes).map_err(|source| FoldError::Row { key: key.to_owned(), source })
}

fn put<R: Rows, T: Serialize>(
    rows: &mut R,
    key: &str,
    value: &T,
) -> Result<(), FoldError<R::Error>> {
    let bytes = serde_json::to_vec(value)
        .map_err(|source| FoldError::Row { key: key.to_owned(), source })?;
    rows.put(key, &bytes).map_err(FoldError::Store)
}

fn change<R: Rows>(
    rows: &mut R,
    id: LockId,
    edit: impl FnOnce(&mut Lock),
) -> Result<(), FoldError<R::Error>> {
    let key = lock_key(id);
    // A write admitted under a lock may complete after the lock has ended.
    let Some(bytes) = rows.get(&key).map_err(FoldError::Store)? else { return Ok(()) };
    let mut lock = parse(&key, &bytes)?;
    edit(&mut lock);
    put(rows, &key, &lock)
}

fn end<R: Rows>(
    rows: &mut R,
    id: LockId,
    ending: Ending,
    lease: LeaseTime,
    at: WallTime,
) -> Result<(), FoldError<R::Error>> {
    let key = lock_key(id);
    let Some(bytes) = rows.get(&key).map_err(FoldError::Store)? else { return Ok(()) };
    let lock: Lock = parse(&key, &bytes)?;
    rows.delete(&key).map_err(FoldError::Store)?;
    put(rows, &ended_key(lease, id), &lock.ended(ending, lease, at))
}
