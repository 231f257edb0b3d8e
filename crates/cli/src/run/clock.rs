//! The clock that the end of a lease is counted on.
//!
//! It goes on while the machine sleeps, as the server's lease does, and two processes of one
//! machine read the same from it: the watchdog is told moments, not spans.

use std::time::Duration;

use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::time::{ClockId, clock_gettime};

/// A moment since the machine was started.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Moment(Duration);

impl Moment {
    pub(super) fn now() -> Self {
        // The kernel refuses only clocks that it does not have, and it has had this since 2.6.39.
        // Should it do so all the same, every moment has come, and nothing is run.
        let now =
            clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(i64::MAX, |now| now.num_nanoseconds());
        Self(Duration::from_nanos(now.unsigned_abs()))
    }

    pub(super) fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }

    pub(super) fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// For a timer of `CLOCK_BOOTTIME` that is set to a moment. Never zero, which would switch it off.
    pub(super) fn as_timespec(self) -> TimeSpec {
        let nanos = i64::try_from(self.as_nanos()).unwrap_or(i64::MAX);
        TimeSpec::nanoseconds(nanos.max(1))
    }

    pub(super) fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    pub(super) fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long from now; zero when it has come.
    pub(super) fn left(self) -> Duration {
        self.since(Self::now())
    }

    pub(super) fn has_come(self) -> bool {
        self <= Self::now()
    }
}
