//! When a request is sent again, and after how long.

use std::time::Duration;

use crate::clock::Moment;
use crate::error::Error;

/// How often and for how long a request is repeated that failed in passing.
///
/// Only what is safe is repeated: requests that read, requests that the server recognises
/// (acquires, by their idempotency key; renewals, releases, conditional writes), and others only
/// if it is certain that the failed attempt changed nothing.
///
/// The pause before each repetition is random, from zero to a bound that doubles from
/// [`base`](Self::base) to [`cap`](Self::cap) ("full jitter"): many clients that failed together
/// do not come back together. A `Retry-After` is waited out first.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    total: Duration,
    base: Duration,
    cap: Duration,
    attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(30),
            base: Duration::from_millis(100),
            cap: Duration::from_secs(5),
            attempts: u32::MAX,
        }
    }
}

impl RetryPolicy {
    /// Never repeats.
    #[must_use]
    pub fn none() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// No repetition is begun later than this after the first attempt. 30 s unless set.
    #[must_use]
    pub fn total(mut self, total: Duration) -> Self {
        self.total = total;
        self
    }

    /// The bound of the first pause. 100 ms unless set.
    #[must_use]
    pub fn base(mut self, base: Duration) -> Self {
        self.base = base;
        self
    }

    /// The greatest bound of a pause. 5 s unless set.
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// At most so many attempts, the first included. No bound unless set.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    pub(crate) fn span(self) -> Duration {
        self.total
    }

    /// The same, but going on for at least `span`, with pauses of at most `cap`.
    pub(crate) fn for_at_least(mut self, span: Duration, cap: Duration) -> Self {
        if !span.is_zero() {
            self.total = self.total.max(span);
            self.cap = self.cap.min(cap);
            if self.attempts > 1 {
                self.attempts = u32::MAX;
            }
        }
        self
    }

    pub(crate) fn begin(self) -> Backoff {
        Backoff { policy: self, made: 1, until: Moment::now().after(self.total) }
    }
}

/// Where one call is in its repetitions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    made: u32,
    until: Moment,
}

impl Backoff {
    /// Never later than `moment`.
    pub(crate) fn not_after(mut self, moment: Moment) -> Self {
        self.until = self.until.min(moment);
        self
    }

    /// When the last repetition may begin.
    pub(crate) fn until(&self) -> Moment {
        self.until
    }

    /// How long to pause before the next attempt, at least `floor`; none if there is to be none.
    pub(crate) fn next(&mut self, floor: Option<Duration>) -> Option<Duration> {
        if self.policy.attempts <= self.made {
            return None;
        }
        let doubled = 1_u32.checked_shl(self.made - 1).unwrap_or(u32::MAX);
        let bound = self.policy.base.saturating_mul(doubled).min(self.policy.cap);
        let pause = bound.mul_f64(fastrand::f64()).saturating_add(floor.unwrap_or_default());
        if self.until.left() <= pause {
            return None;
        }
        self.made = self.made.saturating_add(1);
        Some(pause)
    }
}

/// What a repetition of a request would do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Repeat {
    /// The same as once.
    Safe,
    /// It might do it twice.
    OnlyIfNothingWasDone,
}

/// Whether this failure passes, so that a request like this can be repeated.
pub(crate) fn passes(error: &Error, repeat: Repeat) -> bool {
    let passing = match error {
        Error::Refused(problem) => {
            // A lock in the way does not pass in the seconds that repetitions take, and a wait
            // says how long it is worth.
            problem.is_retryable()
                && matches!(problem.status().as_u16(), 408 | 409 | 425 | 429 | 500..=599)
                && problem.name() != Some(leasehold_problems::Name::Locked)
        }
        // Half an answer or garbage, where a proxy or a dying server cut in.
        Error::Protocol(_) => true,
        other => other.is_retryable(),
    };
    passing && (repeat == Repeat::Safe || error.has_no_side_effects())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_bounded_by_what_doubles_and_never_shorter_than_asked() {
        let policy = RetryPolicy::default().base(Duration::from_millis(10));
        let policy = policy.cap(Duration::from_millis(40)).total(Duration::from_secs(3600));
        let mut backoff = policy.begin();
        for bound in [10, 20, 40, 40, 40] {
            assert!(backoff.next(None).unwrap() <= Duration::from_millis(bound));
        }
        for _ in 0..100 {
            assert!(backoff.next(None).unwrap() <= Duration::from_millis(40));
        }
        let floor = Duration::from_secs(2);
        assert!(backoff.next(Some(floor)).unwrap() >= floor);
    }

    #[test]
    fn no_repetition_begins_after_the_total_or_beyond_the_count() {
        let mut backoff = RetryPolicy::default().total(Duration::from_secs(1)).begin();
        assert_eq!(backoff.next(Some(Duration::from_secs(1))), None);
        assert!(backoff.next(None).is_some());
        let mut backoff = RetryPolicy::default().attempts(2).begin();
        assert!(backoff.next(None).is_some());
        assert_eq!(backoff.next(None), None);
        assert_eq!(RetryPolicy::none().begin().next(None), None);
        let soon = Moment::now().after(Duration::from_millis(10));
        let mut backoff = RetryPolicy::default().begin().not_after(soon);
        assert_eq!(backoff.next(Some(Duration::from_millis(10))), None);
    }
}
