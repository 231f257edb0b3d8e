//! The clocks of the simulation: they stand until the scheduler moves them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use leasehold_core::time::WallTime;
use leasehold_engine::Clock;

/// Both clocks, and who sleeps by them. All clones are one.
#[derive(Clone, Debug)]
pub struct SimClock {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    monotonic: Duration,
    wall_ms: i64,
    /// By how much the wall clock is too fast, in thousandths.
    drift: i64,
    /// Thousandths of a millisecond that the wall clock has not shown yet.
    rest: i64,
    /// Who sleeps until when; the number tells two apart.
    sleepers: BTreeMap<(Duration, u64), Option<Waker>>,
    next: u64,
}

impl SimClock {
    /// Clocks that show the beginning, and a day in 2026.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            monotonic: Duration::from_secs(1),
            wall_ms: 1_795_176_000_000,
            drift: 0,
            rest: 0,
            sleepers: BTreeMap::new(),
            next: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next sleeper wakes.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        self.state().sleepers.keys().next().map(|(until, _)| *until)
    }

    /// Both clocks go on, and who is due wakes.
    pub fn advance(&self, span: Duration) {
        let due = {
            let mut state = self.state();
            state.monotonic += span;
            let micros = i64::try_from(span.as_micros()).unwrap_or(0);
            let shown = state.rest + micros + micros * state.drift / 1000;
            state.wall_ms += shown / 1000;
            state.rest = shown % 1000;
            let now = state.monotonic;
            let later = state.sleepers.split_off(&(now, u64::MAX));
            std::mem::replace(&mut state.sleepers, later)
        };
        due.into_values().flatten().for_each(Waker::wake);
    }

    /// From now on the wall clock is too fast by so many thousandths, or too slow.
    pub fn drift(&self, by: i64) {
        self.state().drift = by;
    }

    /// Somebody sets the wall clock, forwards or back.
    pub fn jump(&self, by_ms: i64) {
        self.state().wall_ms += by_ms;
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        self.state().monotonic
    }

    fn wall(&self) -> WallTime {
        WallTime(self.state().wall_ms)
    }

    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut state = self.state();
        state.next += 1;
        let key = (state.monotonic + span, state.next);
        state.sleepers.insert(key, None);
        Box::pin(Sleep { clock: self.clone(), key })
    }
}

struct Sleep {
    clock: SimClock,
    key: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.state();
        if self.key.0 <= state.monotonic {
            return Poll::Ready(());
        }
        state.sleepers.insert(self.key, Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.state().sleepers.remove(&self.key);
    }
}
