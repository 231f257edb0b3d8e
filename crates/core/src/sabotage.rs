//! Mistakes to be made on purpose: the simulation shows with them that it would notice.
//!
//! Only with the feature `sabotage`, which nothing but the simulation turns on, can a thread be
//! told to make one. Without it [`is`] is a constant, and nothing of this is in the program.

/// A mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mistake {
    /// A lock is ended one millisecond before its deadline.
    ExpireEarly,
    /// The timer looks half a second after a deadline.
    ExpireLate,
    /// A lock below the one asked for is not in the way.
    IgnoreLocksBelow,
    /// A write passes without the token of the lock.
    IgnoreMissingToken,
    /// An earlier acquire that waits is not in the way of a later one.
    Overtake,
    /// After a start fences are counted from the locks that live.
    ReuseFence,
    /// There may be any number of locks.
    IgnoreLimits,
    /// A renewal is written down and changes nothing.
    EventWithoutEffect,
    /// What a write that needs no token rests on is left out.
    IgnoreAbsence,
    /// After a failed commit the writes that are on their way are forgotten.
    ForgetPins,
    /// A write whose outcome is not known is taken to have ended.
    DropPinOnError,
    /// An answer leaves before what it rests on is durable.
    AnswerBeforeCommit,
    /// A commit that failed is taken for one that did not.
    AcknowledgeFailedCommit,
    /// What was left to the task that settles answers is taken for committed.
    SkipLoneCommit,
    /// A commit does not wait until it is on the disk.
    SkipSync,
    /// Writes without a lock are not pinned.
    LeaveUnpinned,
    /// A start does not wait for what the process before it had sent to an upstream.
    ForgetRecovery,
    /// A proxied write counts as over when the head of its answer has come.
    EndAtHead,
    /// The drain time of an upstream is not waited for.
    SkipDrainTime,
    /// A write whose connection has broken off is sent once more.
    RepeatWrite,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::ExpireEarly,
        Self::ExpireLate,
        Self::IgnoreLocksBelow,
        Self::IgnoreMissingToken,
        Self::Overtake,
        Self::ReuseFence,
        Self::IgnoreLimits,
        Self::EventWithoutEffect,
        Self::IgnoreAbsence,
        Self::ForgetPins,
        Self::DropPinOnError,
        Self::AnswerBeforeCommit,
        Self::AcknowledgeFailedCommit,
        Self::SkipLoneCommit,
        Self::SkipSync,
        Self::LeaveUnpinned,
        Self::ForgetRecovery,
        Self::EndAtHead,
        Self::SkipDrainTime,
        Self::RepeatWrite,
    ];
}

#[cfg(feature = "sabotage")]
mod told {
    use std::cell::Cell;

    use super::Mistake;

    thread_local! {
        static MISTAKE: Cell<Option<Mistake>> = const { Cell::new(None) };
    }

    /// Whether this thread makes a mistake.
    #[must_use]
    pub fn is(mistake: Mistake) -> bool {
        MISTAKE.get() == Some(mistake)
    }

    /// Tells this thread to make a mistake from now on, or none.
    pub fn make(mistake: Option<Mistake>) {
        MISTAKE.set(mistake);
    }
}

#[cfg(feature = "sabotage")]
pub use told::{is, make};

/// Whether this thread makes a mistake: never.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn is(_: Mistake) -> bool {
    false
}
