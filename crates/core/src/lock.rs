//! What a lock is: the grant that made it and what has happened to it since.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{Fence, LockId, Principal, Seq};
use crate::resource::Resource;
use crate::time::{LeaseTime, WallTime};

/// Whether others may hold a lock beside it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nobody else.
    #[default]
    Exclusive,
    /// Other shared locks.
    Shared,
}

impl Mode {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        }
    }
}

/// How far down a lock reaches.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Depth {
    /// The resource and its list of children.
    #[serde(rename = "0")]
    Zero,
    /// The resource and everything below it.
    #[default]
    #[serde(rename = "infinity")]
    Infinity,
}

impl Depth {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zero => "0",
            Self::Infinity => "infinity",
        }
    }
}

/// The protocol through which a lock was taken or a request came.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// The JSON API.
    #[default]
    Http,
}

impl Dialect {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
        }
    }
}

/// A JSON value kept as the text it was written in.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// Keeps `raw`.
    #[must_use]
    pub fn new(raw: Box<RawValue>) -> Self {
        Self(Arc::from(raw))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self::new)
    }
}

/// The `Idempotency-Key` of an acquire and what it was sent with.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Idempotency {
    /// 1–255 visible ASCII characters.
    pub key: Arc<str>,
    /// SHA-256 over the path and the JSON value of the body, in lower-case hexadecimal.
    pub digest: Arc<str>,
}

/// Everything that was settled when a lock was granted.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Grant {
    /// The name of the grant.
    pub lock_id: LockId,
    /// Its fencing number.
    pub fence: Fence,
    /// What is locked: at least one, none below another, the one asked for first first.
    pub resources: Arc<[Resource]>,
    /// Through which protocol.
    pub dialect: Dialect,
    /// Whether others may share it.
    pub mode: Mode,
    /// How far down it reaches.
    pub depth: Depth,
    /// Who acquired it.
    pub holder: Principal,
    /// Why, in the holder's words; at most 1,024 bytes.
    pub reason: Option<Arc<str>>,
    /// A JSON object of the holder's; at most 4,096 bytes.
    pub metadata: Option<Json>,
    /// An id that the client chose, kept verbatim. No secret.
    pub handle: Option<Arc<str>>,
    /// The TTL asked for, in milliseconds.
    pub ttl_ms: u64,
    /// When it ends unless renewed.
    pub deadline: LeaseTime,
    /// When it was granted, by the lease clock.
    pub granted: LeaseTime,
    /// When it was granted, by the wall clock.
    pub acquired_at: WallTime,
    /// The latest deadline that renewals can reach (`max_hold`); none where no rule caps it.
    pub max_deadline: Option<LeaseTime>,
    /// The longest TTL a renewal may ask for, in milliseconds; from the rule it was granted under.
    pub max_ttl_ms: u64,
    /// How long the acquire waited, in milliseconds.
    pub waited_ms: u64,
    /// The request's idempotency key, if it had one.
    pub idempotency: Option<Box<Idempotency>>,
    /// Whether writes of a predecessor may still land: granted without knowing.
    pub predecessor_unknown: bool,
}

/// A break that has been announced: the lock ends when its grace is over.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Break {
    /// Who broke it.
    pub by: Principal,
    /// Why.
    pub reason: Arc<str>,
}

/// A request to let go.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LetGo {
    /// Who asks.
    pub by: Principal,
    /// What they say.
    pub message: Option<Arc<str>>,
    /// When, by the wall clock.
    pub at: WallTime,
}

/// A lock that lives.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Lock {
    /// What was settled when it was granted.
    pub grant: Grant,
    /// The TTL last asked for, in milliseconds.
    pub ttl_ms: u64,
    /// When it ends: from this reading on it has ended, written down or not.
    pub deadline: LeaseTime,
    /// How often it was renewed.
    pub renewals: u32,
    /// Whether its token has been used since the grant (a renewal or a write).
    pub used: bool,
    /// The break whose grace is running.
    pub breaking: Option<Box<Break>>,
    /// The newest request to let go.
    pub requested: Option<Box<LetGo>>,
}

impl Lock {
    /// The lock that a grant makes.
    #[must_use]
    pub fn new(grant: Grant) -> Self {
        Self {
            ttl_ms: grant.ttl_ms,
            deadline: grant.deadline,
            grant,
            renewals: 0,
            used: false,
            breaking: None,
            requested: None,
        }
    }

    /// Applies a renewal.
    pub fn renew(&mut self, ttl_ms: u64, deadline: LeaseTime) {
        self.ttl_ms = ttl_ms;
        self.deadline = deadline;
        self.renewals = self.renewals.saturating_add(1);
        self.used = true;
    }

    /// Applies the announcement of a break: no renewal from now on, and it ends at `deadline`.
    pub fn announce_break(&mut self, breaking: Break, deadline: LeaseTime) {
        self.breaking = Some(Box::new(breaking));
        self.deadline = deadline;
    }

    /// What is remembered of it once it has ended.
    #[must_use]
    pub fn ended(self, ending: Ending, lease: LeaseTime, at: WallTime) -> Ended {
        Ended {
            lock_id: self.grant.lock_id,
            fence: self.grant.fence,
            resources: self.grant.resources,
            holder: self.grant.holder,
            ending,
            lease,
            at,
            idempotency: self.grant.idempotency,
        }
    }

    /// Whether it still lives at `now`.
    #[must_use]
    pub fn is_live(&self, now: LeaseTime) -> bool {
        now < self.deadline
    }
}

/// How a lock ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "how")]
pub enum Ending {
    /// Its deadline passed.
    Expired,
    /// Its holder released it.
    Released,
    /// Somebody ended it for the holder.
    Broken(Break),
    /// Its holder handed it to somebody else.
    Transferred {
        /// The grant that followed it.
        successor: LockId,
        /// Whom it was handed to.
        to: Principal,
    },
}

impl Ending {
    /// The word on the wire: `expired`, `released`, `broken`, `transferred`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Released => "released",
            Self::Broken(_) => "broken",
            Self::Transferred { .. } => "transferred",
        }
    }
}

/// A lock that has ended, as long as that is remembered.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Ended {
    /// The name of the grant.
    pub lock_id: LockId,
    /// Its fencing number.
    pub fence: Fence,
    /// What was locked.
    pub resources: Arc<[Resource]>,
    /// Who held it.
    pub holder: Principal,
    /// How it ended.
    pub ending: Ending,
    /// When, by the lease clock. An expired lock ended at its deadline.
    pub lease: LeaseTime,
    /// When, by the wall clock.
    pub at: WallTime,
    /// The idempotency key it was acquired with.
    pub idempotency: Option<Box<Idempotency>>,
}

/// Nobody writes to a resource or below it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Freeze {
    /// The resource.
    pub resource: Resource,
    /// Who froze it.
    pub by: Principal,
    /// Why.
    pub reason: Arc<str>,
    /// Since when, by the wall clock.
    pub since: WallTime,
    /// Until when, by the wall clock.
    pub until: WallTime,
}

/// A write under a lock that was let through and whose end is not in the trail yet.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OpenAdmission {
    /// The position of its `write_admitted`.
    pub seq: Seq,
    /// The position of the first `write_admitted` of the same write: what the write carries to
    /// the upstream.
    pub admission: Seq,
    /// The lock it was admitted under.
    pub lock_id: LockId,
    /// That lock's fence.
    pub fence: Fence,
    /// That lock's holder.
    pub holder: Principal,
    /// What that lock locks.
    pub resources: Arc<[Resource]>,
    /// Through which protocol that lock was taken.
    pub dialect: Dialect,
    /// The method of the write.
    pub method: Arc<str>,
    /// The target of the write.
    pub resource: Resource,
}
