//! Events: what the log is made of.
//!
//! An [`Event`] is typed; a [`Record`] is the same event as one flat JSON object, which is what
//! is stored, hashed, shown by the audit API and read again. The lock table is exactly the fold
//! of its events.

mod record;
mod size;
mod stored;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Fence, LockId, Principal, Seq};
use crate::lock::{Dialect, Freeze, Grant};
use crate::resource::Resource;
use crate::time::{LeaseTime, WallTime};
pub use record::{Record, RecordError};

/// Where a command came from; goes into the trail as it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Origin {
    /// Who acted. None for what the server does by itself.
    pub actor: Option<Principal>,
    /// Through which protocol.
    pub dialect: Dialect,
    /// The id of the request.
    pub request_id: Option<Arc<str>>,
    /// The address of the peer.
    pub remote_addr: Option<Arc<str>>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its position: 1 for the first, without gaps.
    pub seq: Seq,
    /// When, by the wall clock.
    pub at: WallTime,
    /// When, by the lease clock.
    pub lease: LeaseTime,
    /// Where it came from.
    pub origin: Origin,
    /// What happened.
    pub body: EventBody,
}

/// The lock an event is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subject {
    /// The name of the grant.
    pub lock_id: LockId,
    /// Its fencing number.
    pub fence: Fence,
    /// What it locks.
    pub resources: Arc<[Resource]>,
    /// Who holds it.
    pub holder: Principal,
    /// Through which protocol it was taken.
    pub dialect: Dialect,
}

/// What happened. The names on the wire are those of [`EventBody::name`].
#[derive(Clone, Debug, PartialEq)]
pub enum EventBody {
    /// A lock was granted.
    Acquired(Box<Grant>),
    /// A lock was renewed.
    Renewed {
        /// The lock.
        lock: Subject,
        /// The TTL asked for, in milliseconds.
        ttl_ms: u64,
        /// The new deadline.
        deadline: LeaseTime,
    },
    /// A lock was released by its holder.
    Released {
        /// The lock.
        lock: Subject,
        /// Whether it was released because its grant could not be delivered.
        undelivered: bool,
    },
    /// A lock's deadline passed.
    Expired {
        /// The lock.
        lock: Subject,
        /// The deadline that passed.
        deadline: LeaseTime,
    },
    /// A break with a grace was announced; the lock ends at `deadline`. On the wire a `broken`
    /// with `phase: "announced"`.
    BreakAnnounced {
        /// The lock.
        lock: Subject,
        /// Who broke it.
        by: Principal,
        /// Why.
        reason: Arc<str>,
        /// When the lock ends now.
        deadline: LeaseTime,
    },
    /// A lock was ended for its holder. On the wire a `broken` with `phase: "ended"`.
    Broken {
        /// The lock.
        lock: Subject,
        /// Who broke it.
        by: Principal,
        /// Why.
        reason: Arc<str>,
    },
    /// A lock was handed over: the old grant ended and a new one was made, in one step.
    Transferred {
        /// The grant that ended.
        lock: Subject,
        /// The grant that was made.
        to: Box<Grant>,
    },
    /// Somebody asked the holder to let go.
    Requested {
        /// The lock.
        lock: Subject,
        /// Who asks.
        by: Principal,
        /// What they say.
        message: Option<Arc<str>>,
    },
    /// A resource was frozen.
    Frozen(Freeze),
    /// A freeze ended.
    Unfrozen {
        /// The resource.
        resource: Resource,
        /// Whether its time was over; else it was lifted.
        passed: bool,
    },
    /// A write under a lock was let through.
    WriteAdmitted {
        /// The lock.
        lock: Subject,
        /// The method.
        method: Arc<str>,
        /// The target.
        resource: Resource,
        /// The position of the first `write_admitted` of the same write.
        admission: Seq,
    },
    /// A write under a lock ended.
    WriteCompleted {
        /// The lock.
        lock: Subject,
        /// The method.
        method: Arc<str>,
        /// The target.
        resource: Resource,
        /// The position of its own `write_admitted`.
        admitted: Seq,
        /// How it ended.
        result: WriteResult,
    },
    /// A proxy asked whether a write may pass.
    WriteChecked {
        /// The lock that it had a token for, if any.
        lock: Option<Subject>,
        /// The method.
        method: Arc<str>,
        /// The target.
        resource: Resource,
        /// The name of the refusal; none if it may pass.
        problem: Option<Arc<str>>,
    },
    /// Requests that were refused, counted.
    Refused {
        /// The resource.
        resource: Option<Resource>,
        /// The holder of the lock in the way, if there was one.
        holder: Option<Principal>,
        /// The name of the refusal.
        problem: Arc<str>,
        /// How many.
        count: u64,
        /// The minute they were counted in, by the wall clock.
        minute: WallTime,
    },
    /// The engine started, or opened its log again.
    Recovered {
        /// Why.
        cause: RecoveryCause,
        /// The incarnation that tokens and entity tags are bound to, in hexadecimal.
        incarnation: Arc<str>,
        /// Fences from here on are greater than this.
        fence_floor: Fence,
    },
    /// The oldest part of the trail was removed by retention.
    Trimmed {
        /// The newest event removed.
        through: Seq,
        /// Its hash, in hexadecimal.
        hash: Arc<str>,
    },
}

/// Why an engine wrote `recovered`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryCause {
    /// The first start on an empty data folder.
    Created,
    /// A start after a clean shutdown.
    CleanStart,
    /// A start after anything else.
    Crash,
    /// A commit failed and the log was opened again.
    FailedCommit,
    /// The data folder came from a backup.
    Restored,
}

/// How a write under a lock ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "result", content = "status")]
pub enum WriteResult {
    /// The upstream answered with this status.
    Answered(u16),
    /// Nothing was sent to the upstream.
    NotSent,
    /// After a restart: the write is there.
    Applied,
    /// After a restart: the write is not there and will not come.
    NotApplied,
    /// Nobody can tell whether it landed.
    Unknown,
}

impl EventBody {
    /// The `type` on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Acquired(_) => "acquired",
            Self::Renewed { .. } => "renewed",
            Self::Released { .. } => "released",
            Self::Expired { .. } => "expired",
            Self::BreakAnnounced { .. } | Self::Broken { .. } => "broken",
            Self::Transferred { .. } => "transferred",
            Self::Requested { .. } => "requested",
            Self::Frozen(_) => "frozen",
            Self::Unfrozen { .. } => "unfrozen",
            Self::WriteAdmitted { .. } => "write_admitted",
            Self::WriteCompleted { .. } => "write_completed",
            Self::WriteChecked { .. } => "write_checked",
            Self::Refused { .. } => "refused",
            Self::Recovered { .. } => "recovered",
            Self::Trimmed { .. } => "trimmed",
        }
    }
}
