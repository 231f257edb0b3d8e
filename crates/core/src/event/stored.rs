//! An event as the JSON of its [`Record`], without a record in between.
//!
//! Whoever commits writes each event once, and most are of three kinds. A record of one is fifty
//! members, most of them empty, and its strings are counted references to be taken and let go.
//!
//! What always holds: the bytes are those that `serde_json` writes of the record.

use std::sync::Arc;

use super::{Event, EventBody, Record, Subject};
use crate::ids::{Fence, LockId, Principal};
use crate::json;
use crate::lock::{Dialect, Grant};
use crate::resource::Resource;

type Written = Result<(), serde_json::Error>;

impl Event {
    /// Appends the JSON of its [`Record`].
    ///
    /// # Errors
    /// When it cannot be written as JSON, which no event of this version is.
    pub fn write_json(&self, out: &mut Vec<u8>) -> Written {
        match &self.body {
            EventBody::Acquired(grant) => {
                self.write_head(out, &Named::of_grant(grant));
                self.write_grant(out, grant)?;
            }
            EventBody::Renewed { lock, ttl_ms, deadline } => {
                self.write_head(out, &Named::of(lock));
                out.extend_from_slice(b",\"ttl_ms\":");
                json::number(out, *ttl_ms);
                out.extend_from_slice(b",\"deadline_ms\":");
                json::number(out, deadline.0);
            }
            EventBody::Released { lock, undelivered } => {
                self.write_head(out, &Named::of(lock));
                if *undelivered {
                    out.extend_from_slice(b",\"undelivered\":true");
                }
            }
            _ => return serde_json::to_writer(out, &Record::from(self)),
        }
        out.push(b'}');
        Ok(())
    }

    /// What every event of a lock begins with.
    fn write_head(&self, out: &mut Vec<u8>, lock: &Named<'_>) {
        out.extend_from_slice(b"{\"seq\":");
        json::number(out, self.seq.0);
        out.extend_from_slice(b",\"at\":");
        json::time(out, self.at);
        out.extend_from_slice(b",\"lease_ms\":");
        json::number(out, self.lease.0);
        out.extend_from_slice(b",\"type\":\"");
        out.extend_from_slice(self.body.name().as_bytes());
        out.extend_from_slice(b"\",\"lock_id\":");
        json::id(out, lock.lock_id.0);
        out.extend_from_slice(b",\"resources\":");
        json::list(out, lock.resources, |out, resource| json::text(out, resource.as_str()));
        out.extend_from_slice(b",\"holder\":");
        json::text(out, lock.holder.as_str());
        if let Some(actor) = &self.origin.actor {
            out.extend_from_slice(b",\"actor\":");
            json::text(out, actor.as_str());
        }
        out.extend_from_slice(b",\"dialect\":\"");
        out.extend_from_slice(lock.dialect.as_str().as_bytes());
        out.extend_from_slice(b"\",\"fence\":");
        json::number(out, lock.fence.0);
        optional(out, b",\"request_id\":", self.origin.request_id.as_ref());
        optional(out, b",\"remote_addr\":", self.origin.remote_addr.as_ref());
    }

    /// What a grant has beyond that.
    fn write_grant(&self, out: &mut Vec<u8>, grant: &Grant) -> Written {
        out.extend_from_slice(b",\"mode\":");
        json::text(out, grant.mode.as_str());
        out.extend_from_slice(b",\"depth\":");
        json::text(out, grant.depth.as_str());
        optional(out, b",\"reason\":", grant.reason.as_ref());
        if let Some(metadata) = &grant.metadata {
            out.extend_from_slice(b",\"metadata\":");
            out.extend_from_slice(metadata.as_str().as_bytes());
        }
        optional(out, b",\"handle\":", grant.handle.as_ref());
        out.extend_from_slice(b",\"ttl_ms\":");
        json::number(out, grant.ttl_ms);
        out.extend_from_slice(b",\"deadline_ms\":");
        json::number(out, grant.deadline.0);
        // Both are the event's own readings, but for a grant that was handed over.
        if grant.granted != self.lease {
            out.extend_from_slice(b",\"granted_ms\":");
            json::number(out, grant.granted.0);
        }
        if grant.acquired_at != self.at {
            out.extend_from_slice(b",\"acquired_at\":");
            json::time(out, grant.acquired_at);
        }
        if let Some(max_deadline) = grant.max_deadline {
            out.extend_from_slice(b",\"max_deadline_ms\":");
            json::number(out, max_deadline.0);
        }
        out.extend_from_slice(b",\"max_ttl_ms\":");
        json::number(out, grant.max_ttl_ms);
        out.extend_from_slice(b",\"waited_ms\":");
        json::number(out, grant.waited_ms);
        if let Some(idempotency) = &grant.idempotency {
            out.extend_from_slice(b",\"idempotency\":");
            serde_json::to_writer(&mut *out, idempotency)?;
        }
        if grant.predecessor_unknown {
            out.extend_from_slice(b",\"predecessor_writes\":\"unknown\"");
        }
        Ok(())
    }
}

/// The lock that an event is about.
struct Named<'a> {
    lock_id: LockId,
    fence: Fence,
    resources: &'a [Resource],
    holder: &'a Principal,
    dialect: Dialect,
}

impl<'a> Named<'a> {
    fn of(lock: &'a Subject) -> Self {
        let Subject { lock_id, fence, resources, holder, dialect } = lock;
        Self { lock_id: *lock_id, fence: *fence, resources, holder, dialect: *dialect }
    }

    fn of_grant(grant: &'a Grant) -> Self {
        let Grant { lock_id, fence, resources, holder, dialect, .. } = grant;
        Self { lock_id: *lock_id, fence: *fence, resources, holder, dialect: *dialect }
    }
}

/// Appends a member with a text, if there is one.
fn optional(out: &mut Vec<u8>, member: &[u8], text: Option<&Arc<str>>) {
    if let Some(text) = text {
        out.extend_from_slice(member);
        json::text(out, text);
    }
}
