//! When a lease is to be renewed, and when its command has to be stopped.

use std::time::Duration;

use super::clock::Moment;

/// The moments of one lease, in this order: renew, SIGTERM, SIGKILL, and later the end of the
/// lease itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Terms {
    pub(super) renew_at: Moment,
    /// The command is asked to end: SIGTERM.
    pub(super) stop_at: Moment,
    /// What is left of it is killed: SIGKILL.
    pub(super) kill_at: Moment,
    /// No other can have the lock before this.
    pub(super) ends_at: Moment,
}

/// Between SIGKILL and the end of the lease: for the kernel to end the processes, a machine that
/// is busy, and clocks that do not run alike.
const MARGIN_MIN: Duration = Duration::from_millis(250);
const MARGIN_MAX: Duration = Duration::from_secs(5);

impl Terms {
    /// Of a lease that ends at `ends_at`, `lasts` after the request for it was sent.
    pub(super) fn new(ends_at: Moment, lasts: Duration, grace: Duration) -> Self {
        let margin = (lasts / 50).clamp(MARGIN_MIN, MARGIN_MAX).min(lasts / 4);
        let kill_at = ends_at.before(margin);
        let stop_at = kill_at.before(grace.min(lasts / 3));
        let sent_at = ends_at.before(lasts);
        let renew_at = sent_at.after((lasts / 3).min(stop_at.since(sent_at) / 2));
        Self { renew_at, stop_at, kill_at, ends_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_stopped_and_killed_before_the_lease_ends_however_short_it_is() {
        for lasts in [1, 50, 500, 1000, 2000, 5000, 60_000, 1_800_000] {
            for grace in [0, 1, 5000, 3_600_000] {
                let (lasts, grace) = (Duration::from_millis(lasts), Duration::from_millis(grace));
                let sent_at = Moment::from_nanos(1 << 40);
                let terms = Terms::new(sent_at.after(lasts), lasts, grace);
                let context = format!("{lasts:?} {grace:?} {terms:?}");
                assert!(sent_at < terms.renew_at && terms.renew_at < terms.stop_at, "{context}");
                assert!(terms.stop_at <= terms.kill_at, "{context}");
                assert!(terms.kill_at < terms.ends_at, "{context}");
                assert!(terms.kill_at.since(terms.stop_at) <= grace, "{context}");
            }
        }
    }

    #[test]
    fn a_minute_leaves_the_whole_grace_and_room_for_more_than_one_renewal() {
        let sent_at = Moment::from_nanos(0);
        let seconds = Duration::from_secs;
        let terms = Terms::new(sent_at.after(seconds(60)), seconds(60), seconds(5));
        assert_eq!(terms.renew_at, sent_at.after(seconds(20)));
        assert_eq!(terms.stop_at, sent_at.after(Duration::from_millis(53_800)));
        assert_eq!(terms.kill_at, sent_at.after(Duration::from_millis(58_800)));
    }
}
