//! Refusals: normal answers that are not a yes.
//!
//! Matched without `_` by every face, so that a new one asks each what to say.

use crate::ids::{LockId, Principal, WaiterId};
use crate::lock::{Ended, Freeze, Lock};
use crate::resource::Resource;
use crate::time::LeaseTime;

/// What a presented token turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenIs {
    /// It fits.
    Fits(LockId),
    /// Its lock lives, but is not one of those asked for.
    LiveElsewhere(LockId),
    /// Its lock has ended; how is known, or was too long ago.
    Ended(LockId, Option<Box<Ended>>),
    /// Its lock is or was another principal's.
    NotYours,
    /// It was never issued here.
    Unknown,
}

/// What stands in the way of an acquire or a write.
#[derive(Clone, Debug, Default)]
pub struct InTheWay {
    /// The lock in the way that ends last.
    pub lock: Option<Box<Lock>>,
    /// An acquire that has its place and waits for writes under way.
    pub pending: Option<Pending>,
    /// How many locks are in the way; counting stops at [`COUNT_LIMIT`].
    pub locks: usize,
    /// Whether one of them is the caller's own.
    pub held_by_you: bool,
    /// How many earlier waiters are in the way; counting stops at [`COUNT_LIMIT`].
    pub queue_ahead: usize,
    /// How many writes on their way are in the way.
    pub writes_in_flight: usize,
    /// How long the acquire has waited, in milliseconds.
    pub waited_ms: u64,
    /// What each token that was presented is.
    pub presented: Vec<TokenIs>,
}

/// How far things in the way are counted: a refusal must not cost more than this many looks.
pub const COUNT_LIMIT: usize = 1000;

/// An acquire that has its place and waits for writes under way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pending {
    /// Who will hold it.
    pub holder: Principal,
    /// What it asks for here.
    pub resource: Resource,
}

/// One step of a circle of waiters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CircleStep {
    /// Who waits.
    pub waiter: Principal,
    /// For what.
    pub resource: Resource,
    /// For whom: the holder of a lock, or an earlier waiter.
    pub behind: Principal,
    /// The lock, where it is one.
    pub lock_id: Option<LockId>,
}

/// Why an acquire was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AcquireRefusal {
    /// The TTL is below 1 s or above the rule's maximum.
    #[error("the TTL is out of range")]
    TtlOutOfRange {
        /// The rule's maximum, in milliseconds.
        max_ttl_ms: u64,
    },
    /// The resource is frozen.
    #[error("{} is frozen", .0.resource)]
    Frozen(Box<Freeze>),
    /// Something is in the way, and the wait, if there was one, is over.
    #[error("the resource is locked")]
    Locked(Box<InTheWay>),
    /// The queue of the resource is full.
    #[error("the queue of {resource} is full")]
    QueueFull {
        /// The resource.
        resource: Resource,
    },
    /// There are as many waiters as the server, or one principal, may have.
    #[error("there are too many waiters")]
    TooManyWaiters {
        /// How many there may be.
        limit: u64,
        /// Whether the limit is the principal's; else the server's.
        of_principal: bool,
    },
    /// There are as many locks as the server, or one holder, may have.
    #[error("there are too many locks")]
    TooManyLocks {
        /// How many there may be.
        limit: u64,
        /// Whether the limit is the holder's; else the server's.
        of_holder: bool,
    },
    /// Waiting would close a circle.
    #[error("waiting would close a circle")]
    Deadlock {
        /// The circle, from the caller round to the caller.
        circle: Vec<CircleStep>,
    },
    /// The key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The request with this key is still undecided.
    #[error("the request with this idempotency key is still undecided")]
    KeyInProgress,
    /// The lock that this key got has ended.
    #[error("the lock that this idempotency key got has ended")]
    Gone(Box<Ended>),
    /// A token named as held is not live, not the caller's, or never issued here.
    #[error("a token that was presented is not of a lock that the caller holds")]
    Token(Box<TokenIs>),
}

/// Why a command of a holder was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HolderRefusal {
    /// The token was never issued here, or for other resources.
    #[error("the token was not issued for this resource")]
    InvalidToken,
    /// The lock is, or was, another principal's.
    #[error("the lock is another principal's")]
    NotTheHolder,
    /// The lock has ended; how, if that is still known.
    #[error("the lock has ended")]
    Gone(LockId, Option<Box<Ended>>),
    /// A break's grace is running.
    #[error("the lock is being broken")]
    Closing(Box<Lock>),
    /// The TTL is below 1 s or above the maximum.
    #[error("the TTL is out of range")]
    TtlOutOfRange {
        /// The maximum, in milliseconds.
        max_ttl_ms: u64,
    },
    /// The lock has reached the longest life that its rule allows.
    #[error("the lock cannot be held any longer")]
    MaxHoldReached {
        /// The longest life, in milliseconds.
        max_hold_ms: u64,
    },
    /// Writes of the holder are still on their way.
    #[error("writes under the lock are still on their way")]
    WritesInFlight {
        /// How many.
        writes: usize,
    },
    /// There is no such lock.
    #[error("there is no such lock")]
    NoSuchLock,
}

/// Why a command about the locks of a resource was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BreakRefusal {
    /// Nothing covers the resource, or not the lock that was named.
    #[error("there is no such lock now")]
    Changed,
    /// Several locks cover it and none was named.
    #[error("several locks cover the resource")]
    Ambiguous(Vec<Lock>),
}

/// Why a write was refused, in the order of precedence: when several apply, the first answers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteRefusal {
    /// Something that it changes is frozen.
    #[error("{} is frozen", .0.resource)]
    Frozen(Box<Freeze>),
    /// Its `If` header is false.
    #[error("no list of the If header is true")]
    ConditionFailed,
    /// A lock that it has no token for covers something that it changes.
    #[error("the resource is locked")]
    Locked(Box<InTheWay>),
    /// A lock whose token it carries has ended.
    #[error("a lock that was presented has ended")]
    LockLost(LockId, Option<Box<Ended>>),
    /// A lock whose token it carries lives, but does not cover what it changes.
    #[error("a lock that was presented does not cover this write")]
    LockMismatch(Box<Lock>),
    /// A token that it carries is another principal's.
    #[error("a token that was presented is another principal's")]
    NotTheHolder,
    /// A token that it carries was never issued here.
    #[error("a token that was presented was never issued here")]
    InvalidToken,
    /// The rule asks for a token or a precondition.
    #[error("this resource asks for a lock token or a precondition")]
    PreconditionRequired,
}

/// A parked acquire, as inspection shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Waiting {
    /// Its id.
    pub waiter: WaiterId,
    /// Who waits.
    pub holder: Principal,
    /// Since when, by the lease clock.
    pub since: LeaseTime,
    /// Until when, by the lease clock.
    pub until: LeaseTime,
    /// Whether it has its place and only waits for writes under way.
    pub granted: bool,
}
