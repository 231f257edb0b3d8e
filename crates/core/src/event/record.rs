//! An event as it is stored and shown, both ways.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Event, EventBody, Origin, RecoveryCause, Subject, WriteResult};
use crate::ids::{Fence, LockId, Principal, Seq};
use crate::lock::{Depth, Dialect, Freeze, Grant, Idempotency, Json, Mode};
use crate::resource::Resource;
use crate::time::{LeaseTime, WallTime};

/// An event as one flat JSON object: the form on disk and on the wire.
///
/// `prev` is the SHA-256, in hexadecimal, of the stored bytes of the event before it; the log
/// fills it in. Members that do not apply to a type are left out.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[allow(missing_docs)] // Each is the member of the same name of `EventBody`'s variants.
pub struct Record {
    pub seq: Seq,
    pub at: WallTime,
    pub lease_ms: LeaseTime,
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_id: Option<LockId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Arc<[Resource]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Principal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Principal>,
    pub dialect: Dialect,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_addr: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<LeaseTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_ms: Option<LeaseTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acquired_at: Option<WallTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_deadline_ms: Option<LeaseTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ttl_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Box<Idempotency>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor_writes: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Principal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transferred_to: Option<Box<Grant>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<WallTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<WallTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Seq>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Seq>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minute: Option<WallTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<RecoveryCause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_floor: Option<Fence>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<Seq>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<Arc<str>>,
}

/// Why a record is no event.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// A member that its type needs is missing.
    #[error("event {seq} of type `{kind}` has no `{member}`")]
    Missing {
        /// Its position.
        seq: Seq,
        /// Its type.
        kind: String,
        /// What is missing.
        member: &'static str,
    },
    /// A type that this version does not know.
    #[error("event {seq} has the unknown type `{kind}`")]
    UnknownType {
        /// Its position.
        seq: Seq,
        /// Its type.
        kind: String,
    },
}

impl From<&Event> for Record {
    fn from(event: &Event) -> Self {
        let mut record = Self::blank(event);
        match &event.body {
            EventBody::Acquired(grant) => record.set_grant(grant),
            EventBody::Renewed { lock, ttl_ms, deadline } => {
                record.set_subject(lock);
                record.ttl_ms = Some(*ttl_ms);
                record.deadline_ms = Some(*deadline);
            }
            EventBody::Released { lock, undelivered } => {
                record.set_subject(lock);
                record.undelivered = undelivered.then_some(true);
            }
            EventBody::Expired { lock, deadline } => {
                record.set_subject(lock);
                record.deadline_ms = Some(*deadline);
            }
            EventBody::BreakAnnounced { lock, by, reason, deadline } => {
                record.set_subject(lock);
                record.phase = Some("announced".into());
                record.by = Some(by.clone());
                record.reason = Some(reason.clone());
                record.deadline_ms = Some(*deadline);
            }
            EventBody::Broken { lock, by, reason } => {
                record.set_subject(lock);
                record.phase = Some("ended".into());
                record.by = Some(by.clone());
                record.reason = Some(reason.clone());
            }
            EventBody::Transferred { lock, to } => {
                record.set_subject(lock);
                record.transferred_to = Some(to.clone());
            }
            EventBody::Requested { lock, by, message } => {
                record.set_subject(lock);
                record.by = Some(by.clone());
                record.message.clone_from(message);
            }
            EventBody::Frozen(freeze) => {
                record.resource = Some(freeze.resource.clone());
                record.by = Some(freeze.by.clone());
                record.reason = Some(freeze.reason.clone());
                record.since = Some(freeze.since);
                record.until = Some(freeze.until);
            }
            EventBody::Unfrozen { resource, passed } => {
                record.resource = Some(resource.clone());
                record.how = Some(if *passed { "passed" } else { "lifted" }.into());
            }
            EventBody::WriteAdmitted { lock, method, resource, admission } => {
                record.set_subject(lock);
                record.method = Some(method.clone());
                record.resource = Some(resource.clone());
                record.admission = Some(*admission);
            }
            EventBody::WriteCompleted { lock, method, resource, admitted, result } => {
                record.set_subject(lock);
                record.method = Some(method.clone());
                record.resource = Some(resource.clone());
                record.admitted = Some(*admitted);
                let (word, status) = match result {
                    WriteResult::Answered(status) => ("answered", Some(*status)),
                    WriteResult::NotSent => ("not_sent", None),
                    WriteResult::Applied => ("applied", None),
                    WriteResult::NotApplied => ("not_applied", None),
                    WriteResult::Unknown => ("unknown", None),
                };
                record.result = Some(word.into());
                record.status = status;
            }
            EventBody::WriteChecked { lock, method, resource, problem } => {
                if let Some(lock) = lock {
                    record.set_subject(lock);
                }
                record.method = Some(method.clone());
                record.resource = Some(resource.clone());
                record.problem.clone_from(problem);
            }
            EventBody::Refused { resource, holder, problem, count, minute } => {
                record.resource.clone_from(resource);
                record.holder.clone_from(holder);
                record.problem = Some(problem.clone());
                record.count = Some(*count);
                record.minute = Some(*minute);
            }
            EventBody::Recovered { cause, incarnation, fence_floor } => {
                record.cause = Some(*cause);
                record.incarnation = Some(incarnation.clone());
                record.fence_floor = Some(*fence_floor);
            }
            EventBody::Trimmed { through, hash } => {
                record.through = Some(*through);
                record.hash = Some(hash.clone());
            }
        }
        record
    }
}

impl Record {
    fn blank(event: &Event) -> Self {
        Self {
            seq: event.seq,
            at: event.at,
            lease_ms: event.lease,
            kind: event.body.name().into(),
            lock_id: None,
            resources: None,
            holder: None,
            actor: event.origin.actor.clone(),
            dialect: event.origin.dialect,
            fence: None,
            request_id: event.origin.request_id.clone(),
            remote_addr: event.origin.remote_addr.clone(),
            mode: None,
            depth: None,
            reason: None,
            metadata: None,
            handle: None,
            ttl_ms: None,
            deadline_ms: None,
            granted_ms: None,
            acquired_at: None,
            max_deadline_ms: None,
            max_ttl_ms: None,
            waited_ms: None,
            idempotency: None,
            predecessor_writes: None,
            undelivered: None,
            phase: None,
            by: None,
            message: None,
            transferred_to: None,
            resource: None,
            since: None,
            until: None,
            how: None,
            method: None,
            admission: None,
            admitted: None,
            result: None,
            status: None,
            problem: None,
            count: None,
            minute: None,
            cause: None,
            incarnation: None,
            fence_floor: None,
            through: None,
            hash: None,
            prev: None,
        }
    }

    fn set_subject(&mut self, lock: &Subject) {
        self.lock_id = Some(lock.lock_id);
        self.fence = Some(lock.fence);
        self.resources = Some(lock.resources.clone());
        self.holder = Some(lock.holder.clone());
        self.dialect = lock.dialect;
    }

    fn set_grant(&mut self, grant: &Grant) {
        self.lock_id = Some(grant.lock_id);
        self.fence = Some(grant.fence);
        self.resources = Some(grant.resources.clone());
        self.holder = Some(grant.holder.clone());
        self.dialect = grant.dialect;
        self.mode = Some(grant.mode);
        self.depth = Some(grant.depth);
        self.reason.clone_from(&grant.reason);
        self.metadata.clone_from(&grant.metadata);
        self.handle.clone_from(&grant.handle);
        self.ttl_ms = Some(grant.ttl_ms);
        self.deadline_ms = Some(grant.deadline);
        self.max_deadline_ms = grant.max_deadline;
        self.max_ttl_ms = Some(grant.max_ttl_ms);
        self.waited_ms = Some(grant.waited_ms);
        self.idempotency.clone_from(&grant.idempotency);
        self.predecessor_writes = grant.predecessor_unknown.then(|| "unknown".into());
        // Both are the event's own readings, but for a grant that was handed over.
        self.granted_ms = (grant.granted != self.lease_ms).then_some(grant.granted);
        self.acquired_at = (grant.acquired_at != self.at).then_some(grant.acquired_at);
    }

    fn missing(&self, member: &'static str) -> RecordError {
        RecordError::Missing { seq: self.seq, kind: self.kind.to_string(), member }
    }

    fn need<T: Clone>(&self, value: &Option<T>, member: &'static str) -> Result<T, RecordError> {
        value.clone().ok_or_else(|| self.missing(member))
    }

    /// The lock it is about, if its type has one.
    ///
    /// # Errors
    /// When a part of it is missing.
    pub fn subject(&self) -> Result<Subject, RecordError> {
        Ok(Subject {
            lock_id: self.need(&self.lock_id, "lock_id")?,
            fence: self.need(&self.fence, "fence")?,
            resources: self.need(&self.resources, "resources")?,
            holder: self.need(&self.holder, "holder")?,
            dialect: self.dialect,
        })
    }

    fn grant(&self) -> Result<Box<Grant>, RecordError> {
        Ok(Box::new(Grant {
            lock_id: self.need(&self.lock_id, "lock_id")?,
            fence: self.need(&self.fence, "fence")?,
            resources: self.need(&self.resources, "resources")?,
            dialect: self.dialect,
            mode: self.need(&self.mode, "mode")?,
            depth: self.need(&self.depth, "depth")?,
            holder: self.need(&self.holder, "holder")?,
            reason: self.reason.clone(),
            metadata: self.metadata.clone(),
            handle: self.handle.clone(),
            ttl_ms: self.need(&self.ttl_ms, "ttl_ms")?,
            deadline: self.need(&self.deadline_ms, "deadline_ms")?,
            granted: self.granted_ms.unwrap_or(self.lease_ms),
            acquired_at: self.acquired_at.unwrap_or(self.at),
            max_deadline: self.max_deadline_ms,
            max_ttl_ms: self.need(&self.max_ttl_ms, "max_ttl_ms")?,
            waited_ms: self.waited_ms.unwrap_or(0),
            idempotency: self.idempotency.clone(),
            predecessor_unknown: self.predecessor_writes.is_some(),
        }))
    }

    fn result(&self) -> Result<WriteResult, RecordError> {
        match self.need(&self.result, "result")?.as_ref() {
            "answered" => Ok(WriteResult::Answered(self.need(&self.status, "status")?)),
            "not_sent" => Ok(WriteResult::NotSent),
            "applied" => Ok(WriteResult::Applied),
            "not_applied" => Ok(WriteResult::NotApplied),
            _ => Ok(WriteResult::Unknown),
        }
    }

    /// The typed event.
    ///
    /// # Errors
    /// When the type is unknown, or a member that it needs is missing.
    pub fn event(&self) -> Result<Event, RecordError> {
        let body = match self.kind.as_ref() {
            "acquired" => EventBody::Acquired(self.grant()?),
            "renewed" => EventBody::Renewed {
                lock: self.subject()?,
                ttl_ms: self.need(&self.ttl_ms, "ttl_ms")?,
                deadline: self.need(&self.deadline_ms, "deadline_ms")?,
            },
            "released" => EventBody::Released {
                lock: self.subject()?,
                undelivered: self.undelivered.unwrap_or(false),
            },
            "expired" => EventBody::Expired {
                lock: self.subject()?,
                deadline: self.need(&self.deadline_ms, "deadline_ms")?,
            },
            "broken" if self.phase.as_deref() == Some("announced") => EventBody::BreakAnnounced {
                lock: self.subject()?,
                by: self.need(&self.by, "by")?,
                reason: self.need(&self.reason, "reason")?,
                deadline: self.need(&self.deadline_ms, "deadline_ms")?,
            },
            "broken" => EventBody::Broken {
                lock: self.subject()?,
                by: self.need(&self.by, "by")?,
                reason: self.need(&self.reason, "reason")?,
            },
            "transferred" => EventBody::Transferred {
                lock: self.subject()?,
                to: self.need(&self.transferred_to, "transferred_to")?,
            },
            "requested" => EventBody::Requested {
                lock: self.subject()?,
                by: self.need(&self.by, "by")?,
                message: self.message.clone(),
            },
            "frozen" => EventBody::Frozen(Freeze {
                resource: self.need(&self.resource, "resource")?,
                by: self.need(&self.by, "by")?,
                reason: self.need(&self.reason, "reason")?,
                since: self.need(&self.since, "since")?,
                until: self.need(&self.until, "until")?,
            }),
            "unfrozen" => EventBody::Unfrozen {
                resource: self.need(&self.resource, "resource")?,
                passed: self.how.as_deref() == Some("passed"),
            },
            "write_admitted" => EventBody::WriteAdmitted {
                lock: self.subject()?,
                method: self.need(&self.method, "method")?,
                resource: self.need(&self.resource, "resource")?,
                admission: self.need(&self.admission, "admission")?,
            },
            "write_completed" => EventBody::WriteCompleted {
                lock: self.subject()?,
                method: self.need(&self.method, "method")?,
                resource: self.need(&self.resource, "resource")?,
                admitted: self.need(&self.admitted, "admitted")?,
                result: self.result()?,
            },
            "write_checked" => EventBody::WriteChecked {
                lock: if self.lock_id.is_some() { Some(self.subject()?) } else { None },
                method: self.need(&self.method, "method")?,
                resource: self.need(&self.resource, "resource")?,
                problem: self.problem.clone(),
            },
            "refused" => EventBody::Refused {
                resource: self.resource.clone(),
                holder: self.holder.clone(),
                problem: self.need(&self.problem, "problem")?,
                count: self.need(&self.count, "count")?,
                minute: self.need(&self.minute, "minute")?,
            },
            "recovered" => EventBody::Recovered {
                cause: self.need(&self.cause, "cause")?,
                incarnation: self.need(&self.incarnation, "incarnation")?,
                fence_floor: self.need(&self.fence_floor, "fence_floor")?,
            },
            "trimmed" => EventBody::Trimmed {
                through: self.need(&self.through, "through")?,
                hash: self.need(&self.hash, "hash")?,
            },
            other => {
                return Err(RecordError::UnknownType { seq: self.seq, kind: other.to_owned() });
            }
        };
        Ok(Event {
            seq: self.seq,
            at: self.at,
            lease: self.lease_ms,
            origin: Origin {
                actor: self.actor.clone(),
                dialect: self.dialect,
                request_id: self.request_id.clone(),
                remote_addr: self.remote_addr.clone(),
            },
            body,
        })
    }
}
