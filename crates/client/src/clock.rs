//! The clock that deadlines are counted on.
//!
//! It goes on while the machine sleeps (`CLOCK_BOOTTIME`): the server's lease goes on as well.
//! `std::time::Instant` stands still then, and would call a lock held that ended hours ago.

use std::time::Duration;

/// A moment of this process. Never goes back.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Moment(Duration);

#[cfg(unix)]
fn reading() -> Duration {
    use rustix::time::{ClockId, clock_gettime};

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    // Apple's goes on in sleep; elsewhere it is the best there is.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;

    let now = clock_gettime(CLOCK);
    // Neither is negative on a clock that counts from the start of the machine.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos.min(999_999_999))
}

#[cfg(not(unix))]
fn reading() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;

    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self(reading())
    }

    /// `span` later.
    pub(crate) fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// How long from now until this moment; zero when it has passed.
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_sub(Self::now().0)
    }

    /// How much later this is than `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long ago this moment was.
    pub(crate) fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }

    /// Whether the moment has come.
    pub(crate) fn has_come(self) -> bool {
        self <= Self::now()
    }
}

/// The longest that a timer is trusted: timers may stand still while the machine sleeps, so
/// whoever waits looks at the clock this often.
const GLANCE: Duration = Duration::from_millis(500);

/// Waits until `moment` has come.
pub(crate) async fn until(moment: Moment) {
    loop {
        let left = moment.left();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(GLANCE)).await;
    }
}

/// Waits for `span`.
pub(crate) async fn pause(span: Duration) {
    until(Moment::now().after(span)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_comes_when_its_time_has_passed_and_stays_come() {
        let now = Moment::now();
        assert!(now.has_come());
        let later = now.after(Duration::from_secs(3600));
        assert!(!later.has_come());
        assert!(later.left() > Duration::from_secs(3590));
        assert_eq!(now.left(), Duration::ZERO);
        assert!(now.after(Duration::MAX) >= later);
    }
}
