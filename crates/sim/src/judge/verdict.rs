//! What the judge says.

use std::fmt;

use leasehold_core::ids::Seq;

/// What always holds; the names are those of ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Invariant {
    /// No two live locks conflict, and no write passes against a lock without its token.
    Exclusion,
    /// No lock is granted while a write is on its way that conflicts with it.
    CleanHandOver,
    /// A lock does not expire before the promise.
    NeverEarly,
    /// A running server ends a lock within 50 ms of its deadline.
    NotLate,
    /// Each fence is greater than every one before it.
    FencesGrow,
    /// An answer leaves only when every event it rests on is durable.
    DurableBeforeSaid,
    /// The lock table is the fold of the log.
    TrailIsTruth,
    /// Among acquires that overlap, the earlier is served first.
    FirstComeFirstServed,
    /// Locks, waiters and queues have limits.
    Bounded,
    /// After a failure nothing is acknowledged that is not durable, and nothing is lost.
    FailStop,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Exclusion,
        Self::CleanHandOver,
        Self::NeverEarly,
        Self::NotLate,
        Self::FencesGrow,
        Self::DurableBeforeSaid,
        Self::TrailIsTruth,
        Self::FirstComeFirstServed,
        Self::Bounded,
        Self::FailStop,
    ];
}

/// An invariant that does not hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.what)
    }
}

impl From<(Invariant, String)> for Violation {
    fn from((invariant, what): (Invariant, String)) -> Self {
        Self { invariant, what }
    }
}

/// How many events there are up to this one.
pub(super) fn index(seq: Seq) -> usize {
    usize::try_from(seq.0).unwrap_or(usize::MAX)
}

/// What the judge answers with.
pub type Verdict = Result<(), Violation>;

pub(super) fn broken(invariant: Invariant, what: impl Into<String>) -> Verdict {
    Err(Violation { invariant, what: what.into() })
}

/// The limits that have to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most live locks.
    pub max_locks: usize,
    /// The most live locks of one holder, when it acquires another.
    pub max_locks_per_holder: usize,
    /// The most waiters.
    pub max_waiters: usize,
    /// The most waiters on one resource.
    pub max_queue: usize,
}
