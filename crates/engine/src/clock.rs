//! The clocks, and the lease clock that is made of them.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use leasehold_core::time::{LeaseTime, WallTime, millis};

/// Where readings come from.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// The wall clock.
    fn wall(&self) -> WallTime;
    /// Waits until this much of the monotonic time has passed.
    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(span))
    }
}

/// The clocks of the operating system.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that counts from now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> WallTime {
        let now = SystemTime::now();
        let ms = match now.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        WallTime(ms)
    }
}

/// The lease clock: monotonic time, from the last durable reading on, while the journal works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseClock {
    base: Duration,
    /// The monotonic reading at which it began to run from `base`; none while it stands still.
    since: Option<Duration>,
}

impl LeaseClock {
    /// A clock that stands at a durable reading.
    pub(crate) fn standing_at(reading: LeaseTime) -> Self {
        Self { base: Duration::from_millis(reading.0), since: None }
    }

    fn exact(&self, monotonic: Duration) -> Duration {
        match self.since {
            Some(since) => self.base + monotonic.saturating_sub(since),
            None => self.base,
        }
    }

    /// The reading, rounded down: what decisions are made by.
    pub(crate) fn read(&self, monotonic: Duration) -> LeaseTime {
        LeaseTime(millis(self.exact(monotonic)))
    }

    /// The reading, rounded up: what promises are counted from.
    pub(crate) fn read_up(&self, monotonic: Duration) -> LeaseTime {
        let exact = self.exact(monotonic);
        let whole = millis(exact);
        let part = !exact.subsec_nanos().is_multiple_of(1_000_000);
        LeaseTime(whole + u64::from(part))
    }

    /// Lets it stand still.
    pub(crate) fn stop(&mut self, monotonic: Duration) {
        self.base = self.exact(monotonic);
        self.since = None;
    }

    /// Lets it run.
    pub(crate) fn run(&mut self, monotonic: Duration) {
        if self.since.is_none() {
            self.since = Some(monotonic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_clock_stands_still_while_it_is_stopped() {
        let ms = Duration::from_millis;
        let mut clock = LeaseClock::standing_at(LeaseTime(1000));
        assert_eq!(clock.read(ms(500)), LeaseTime(1000));
        clock.run(ms(500));
        assert_eq!(clock.read(ms(700)), LeaseTime(1200));
        clock.stop(ms(800));
        assert_eq!(clock.read(ms(9000)), LeaseTime(1300));
        clock.run(ms(9000));
        assert_eq!(clock.read(ms(9001)), LeaseTime(1301));
        assert_eq!(clock.read_up(ms(9001)), LeaseTime(1301));
        assert_eq!(clock.read_up(ms(9001) + Duration::from_nanos(1)), LeaseTime(1302));
    }
}
