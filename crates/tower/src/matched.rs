//! The lock that a write was let through under, as the service behind the layer is told it.

use leasehold_core::event::Subject;
use leasehold_core::ids::{LockId, Principal};

/// The lock that a write was let through under: an extension of its request. Of several the one
/// nearest to the resource; among sharers with the smallest fence that lives.
///
/// A write without one was let through because no lock stood in its way.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct MatchedLock {
    /// Its fencing number: greater than that of every lock before it. A store that keeps the
    /// greatest it has seen of a resource, and refuses smaller ones, is safe even from a write that
    /// comes later than any time that is waited for here.
    pub fence: u64,
    /// Its id.
    pub lock_id: LockId,
    /// Who holds it.
    pub holder: Principal,
}

impl From<&Subject> for MatchedLock {
    fn from(lock: &Subject) -> Self {
        Self { fence: lock.fence.0, lock_id: lock.lock_id, holder: lock.holder.clone() }
    }
}
