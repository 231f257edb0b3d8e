//! Commands: what a caller asks of the table, parsed and complete.

use std::sync::Arc;

use crate::caller::Caller;
use crate::event::Origin;
use crate::ids::{Fence, LockId, Principal};
use crate::lock::{Depth, Idempotency, Json, Mode};
use crate::resource::Resource;
use crate::target::Target;
use crate::time::WallTime;

/// A token that came with a request, after its seal was checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presented {
    /// It was issued here, for this grant.
    Token {
        /// The grant.
        lock_id: LockId,
        /// The grant's fence.
        fence: Fence,
    },
    /// It was never issued here.
    Forged,
}

/// What an acquire asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Want {
    /// All of these in one step; none below another.
    All(Arc<[Resource]>),
    /// The first of these that is free.
    AnyOf(Arc<[Resource]>),
}

impl Want {
    /// The resources it names.
    #[must_use]
    pub fn resources(&self) -> &Arc<[Resource]> {
        match self {
            Self::All(resources) | Self::AnyOf(resources) => resources,
        }
    }
}

/// What the rules allow an acquire. For several resources the strictest of each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AcquireLimits {
    /// The TTL of an acquire that names none, in milliseconds.
    pub default_ttl_ms: u64,
    /// The longest TTL, in milliseconds.
    pub max_ttl_ms: u64,
    /// The longest life, renewals included, in milliseconds; none: no cap.
    pub max_hold_ms: Option<u64>,
    /// The most waiters on one resource.
    pub max_queue: usize,
    /// The most locks of one holder; none: no limit.
    pub max_locks_per_holder: Option<u64>,
    /// How long an acquire that meets only writes under way is held, in milliseconds.
    pub drain_wait_ms: u64,
}

/// The shortest TTL, in milliseconds.
pub const MIN_TTL_MS: u64 = 1000;

/// `POST {resource}/lock`.
#[derive(Clone, Debug)]
pub struct Acquire {
    /// Who asks.
    pub caller: Caller,
    /// Where it came from.
    pub origin: Origin,
    /// The name the grant will have. A fresh UUID.
    pub lock_id: LockId,
    /// What is asked for.
    pub want: Want,
    /// Whether others may share it.
    pub mode: Mode,
    /// How far down it reaches.
    pub depth: Depth,
    /// The TTL asked for, in milliseconds; none: the rule's default.
    pub ttl_ms: Option<u64>,
    /// Why.
    pub reason: Option<Arc<str>>,
    /// The holder's own data.
    pub metadata: Option<Json>,
    /// An id that the client chose.
    pub handle: Option<Arc<str>>,
    /// The request's idempotency key.
    pub idempotency: Option<Idempotency>,
    /// The tokens of locks that the caller holds, for the deadlock search.
    pub holds: Vec<Presented>,
    /// How long to wait, in milliseconds; 0: fail fast.
    pub wait_ms: u64,
    /// What the rules allow.
    pub limits: AcquireLimits,
}

/// Which lock a command is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// A lock of this resource.
    Resource(Resource),
    /// This lock.
    Id(LockId),
}

/// `PATCH {resource}/lock`.
#[derive(Clone, Debug)]
pub struct Renew {
    /// Who asks.
    pub caller: Caller,
    /// Where it came from.
    pub origin: Origin,
    /// Which lock.
    pub address: Address,
    /// The tokens presented: at least one.
    pub tokens: Vec<Presented>,
    /// The TTL asked for, in milliseconds; none: the one last asked for.
    pub ttl_ms: Option<u64>,
}

/// `DELETE {resource}/lock`.
#[derive(Clone, Debug)]
pub struct Release {
    /// Who asks.
    pub caller: Caller,
    /// Where it came from.
    pub origin: Origin,
    /// Which lock.
    pub address: Address,
    /// The tokens presented: at least one.
    pub tokens: Vec<Presented>,
}

/// `POST {resource}/lock/transfer`.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Who asks.
    pub caller: Caller,
    /// Where it came from.
    pub origin: Origin,
    /// Which lock.
    pub address: Address,
    /// The tokens presented: at least one.
    pub tokens: Vec<Presented>,
    /// The name the new grant will have. A fresh UUID.
    pub lock_id: LockId,
    /// Who gets it.
    pub to: Principal,
    /// How long to wait for the holder's writes under way, in milliseconds.
    pub drain_wait_ms: u64,
}

/// `POST {resource}/lock/request`.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub caller: Caller,
    /// Where it came from.
    pub origin: Origin,
    /// The resource.
    pub resource: Resource,
    /// What they say.
    pub message: Option<Arc<str>>,
}

/// `POST {resource}/lock/break`.
#[derive(Clone, Debug)]
pub struct BreakLock {
    /// Who asks.
    pub caller: Caller,
    /// Where it came from.
    pub origin: Origin,
    /// Which lock: one that covers the resource, or this one.
    pub address: Address,
    /// With a resource: that lock or none.
    pub lock_id: Option<LockId>,
    /// Why.
    pub reason: Arc<str>,
    /// How long the holder still has, in milliseconds.
    pub grace_ms: u64,
}

/// `PUT {resource}/lock/freeze`.
#[derive(Clone, Debug)]
pub struct SetFreeze {
    /// Who asks.
    pub caller: Caller,
    /// Where it came from.
    pub origin: Origin,
    /// The resource.
    pub resource: Resource,
    /// Why.
    pub reason: Arc<str>,
    /// Until when, by the wall clock.
    pub until: WallTime,
    /// How long the answer waits for writes under way, in milliseconds.
    pub drain_wait_ms: u64,
}

/// One condition of an `If` header (RFC 4918, section 10.4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Check {
    /// A state token: true if a live lock with it covers the list's resource.
    Token(Presented),
    /// Already judged: an entity tag, or `DAV:no-lock`.
    Known(bool),
}

/// One list of an `If` header: true if all its conditions are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IfList {
    /// The resource it is about.
    pub resource: Resource,
    /// The conditions, each with whether it is negated.
    pub checks: Vec<(bool, Check)>,
}

/// A write that asks to be let through.
#[derive(Clone, Debug)]
pub struct Write {
    /// Who asks.
    pub caller: Caller,
    /// Where it came from.
    pub origin: Origin,
    /// The method.
    pub method: Arc<str>,
    /// The target of the request.
    pub resource: Resource,
    /// Everything it changes.
    pub targets: Vec<Target>,
    /// The tokens presented, those of an `If` header not among them.
    pub tokens: Vec<Presented>,
    /// The lists of its `If` header; empty: it has none.
    pub conditions: Vec<IfList>,
    /// Whether a rule asks for a token or a precondition, and it has no precondition.
    pub lacks_precondition: bool,
}
