//! How many requests each principal may send: a token bucket for each.
//!
//! What always holds:
//! - A principal that has been quiet may send `burst` requests at once, and `per_second` from
//!   then on; what it does not use is not kept beyond `burst`.
//! - Memory is bounded, whatever principals come: at most [`MAX_TRACKED`] have a bucket of their
//!   own at a time, and those who come then share one. A bucket that has filled up again is the
//!   same as none, so it is forgotten.
//!
//! Deliberately absent: a clock. Readings are arguments.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use leasehold_core::ids::Principal;
use leasehold_problems::{Name, Problem};

/// The field that tells what may be sent (draft-ietf-httpapi-ratelimit-headers-10).
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The field that tells how much of it is left.
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The most principals that have a bucket of their own.
const MAX_TRACKED: usize = 65_536;

/// What one principal may send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// In each second, in the long run; at most [`Rate::MAX_PER_SECOND`].
    pub per_second: NonZeroU32,
    /// At once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// The most requests in a second that can be told apart from no limit.
    pub const MAX_PER_SECOND: u32 = 1_000_000;

    /// How long one request takes to be given back, in nanoseconds.
    fn each(self) -> u64 {
        1_000_000_000 / u64::from(self.per_second.get())
    }

    /// How long an empty bucket takes to fill, in nanoseconds.
    fn whole(self) -> u64 {
        self.each() * u64::from(self.burst.get())
    }
}

/// What a request has left of its principal's bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    rate: Rate,
    /// How many more may come at once.
    pub remaining: u64,
    /// How long until one more may come than now.
    pub next_in: Duration,
    /// How long until the request may come; none: it may come now, and has been counted.
    pub refused_for: Option<Duration>,
}

impl Standing {
    /// Tells it to the client, beside what a service behind may have told of limits of its own.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let Rate { burst, .. } = self.rate;
        let window = seconds(Duration::from_nanos(self.rate.whole()));
        let (remaining, next_in) = (self.remaining, seconds(self.next_in));
        for (name, value) in [
            (RATELIMIT_POLICY, format!("\"requests\";q={burst};w={window}")),
            // The same moment as `Retry-After`, where there is one.
            (RATELIMIT, format!("\"requests\";r={remaining};t={next_in}")),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.append(name, value);
            }
        }
    }

    /// The refusal, where there was nothing left.
    ///
    /// # Errors
    /// `429 rate-limited`.
    pub fn check(&self) -> Result<(), Box<Problem>> {
        let Some(wait) = self.refused_for else { return Ok(()) };
        let per_second = self.rate.per_second;
        let detail = format!(
            "You send more requests than you may: {per_second} a second, and {} at once.",
            self.rate.burst
        );
        let problem = Problem::new(Name::RateLimited, detail).with("limit", per_second.get());
        Err(Box::new(problem.retry_after(seconds(wait).max(1))))
    }
}

/// Whole seconds, rounded up: who waits so long does not come too early.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// The buckets of every principal.
#[derive(Debug)]
pub struct RateLimiter {
    rate: Rate,
    max_tracked: usize,
    buckets: Mutex<Buckets>,
}

/// When each bucket is full again, in nanoseconds of the readings passed in.
#[derive(Debug, Default)]
struct Buckets {
    /// Those that were taken from in this turn. A turn lasts as long as a bucket takes to fill.
    current: HashMap<Principal, u64>,
    /// Those that were last taken from in the turn before: at its end they are full.
    before: HashMap<Principal, u64>,
    /// When the turn ends.
    turn_ends: u64,
    /// The bucket of those who found no place.
    shared: u64,
}

impl RateLimiter {
    /// With this rate for each principal.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, max_tracked: MAX_TRACKED, buckets: Mutex::default() }
    }

    /// Takes one request from the bucket of `principal`, if there is one left. `now` is a monotonic
    /// reading.
    pub fn take(&self, principal: &Principal, now: Duration) -> Standing {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let (each, whole) = (self.rate.each(), self.rate.whole());
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.turn(now, whole);
        let full_at = buckets.of(principal, self.max_tracked);
        let begin = (*full_at).max(now);
        let refused_for = (begin + each).checked_sub(now + whole).filter(|wait| *wait > 0);
        if refused_for.is_none() {
            *full_at = begin + each;
        }
        let given_back = whole.saturating_sub(full_at.saturating_sub(now));
        Standing {
            rate: self.rate,
            remaining: given_back / each,
            next_in: Duration::from_nanos(each - given_back % each),
            refused_for: refused_for.map(Duration::from_nanos),
        }
    }
}

impl Buckets {
    /// Begins a new turn where the last one has ended.
    fn turn(&mut self, now: u64, whole: u64) {
        if now < self.turn_ends {
            return;
        }
        let before = std::mem::take(&mut self.current);
        // After two turns without a request even the newest bucket is full.
        self.before = if now < self.turn_ends + whole { before } else { HashMap::new() };
        self.turn_ends = now + whole;
    }

    fn of(&mut self, principal: &Principal, max_tracked: usize) -> &mut u64 {
        if !self.current.contains_key(principal) {
            let tracked = self.current.len() + self.before.len();
            match self.before.remove(principal) {
                Some(full_at) => {
                    self.current.insert(principal.clone(), full_at);
                }
                None if tracked < max_tracked => {
                    self.current.insert(principal.clone(), 0);
                }
                None => return &mut self.shared,
            }
        }
        self.current.entry(principal.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate {
            per_second: NonZeroU32::new(per_second).unwrap(),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// How many of `tries` requests pass at that moment.
    fn passing(limiter: &RateLimiter, who: &str, ms: u64, tries: usize) -> usize {
        let who = Principal::new(who);
        (0..tries).filter(|_| limiter.take(&who, at(ms)).refused_for.is_none()).count()
    }

    #[test]
    fn a_burst_passes_and_then_one_for_each_that_is_given_back() {
        let limiter = RateLimiter::new(rate(10, 3));
        assert_eq!(passing(&limiter, "alice", 0, 5), 3);
        assert_eq!(passing(&limiter, "alice", 99, 5), 0);
        assert_eq!(passing(&limiter, "alice", 100, 5), 1);
        assert_eq!(passing(&limiter, "alice", 299, 5), 1);
        assert_eq!(passing(&limiter, "bob", 299, 5), 3, "each has a bucket of its own");
        assert_eq!(passing(&limiter, "alice", 100_000, 5), 3, "never more than the burst");
    }

    #[test]
    fn what_is_told_is_what_happens() {
        let limiter = RateLimiter::new(rate(2, 3));
        let alice = Principal::new("alice");
        for (now, remaining, next_in) in [(0, 2, 500), (0, 1, 500), (100, 0, 400)] {
            let standing = limiter.take(&alice, at(now));
            assert_eq!((standing.remaining, standing.next_in), (remaining, at(next_in)));
            standing.check().unwrap();
        }
        let standing = limiter.take(&alice, at(100));
        assert_eq!((standing.refused_for, standing.next_in), (Some(at(400)), at(400)));
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit", HeaderValue::from_static("\"upstream\";r=9"));
        standing.tell(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"requests\";q=3;w=2");
        let both: Vec<_> = headers.get_all("ratelimit").iter().collect();
        assert_eq!(both, ["\"upstream\";r=9", "\"requests\";r=0;t=1"]);
        let problem = standing.check().unwrap_err();
        assert_eq!(problem.name, Name::RateLimited);
        assert_eq!(problem.headers, [(http::header::RETRY_AFTER, HeaderValue::from(1))]);
        assert_eq!(limiter.take(&alice, at(499)).refused_for, Some(at(1)));
        assert_eq!(limiter.take(&alice, at(500)).refused_for, None);
    }

    #[test]
    fn a_bucket_is_not_forgotten_before_it_is_full() {
        let limiter = RateLimiter::new(rate(1, 10));
        assert_eq!(passing(&limiter, "alice", 9_999, 20), 10);
        // A turn ends at 19,999 ms, and one at 30,999 ms.
        assert_eq!(passing(&limiter, "alice", 19_998, 20), 9);
        assert_eq!(passing(&limiter, "alice", 20_999, 20), 2);
        assert_eq!(passing(&limiter, "bob", 30_998, 1), 1);
        assert_eq!(passing(&limiter, "alice", 30_998, 20), 9);
        let buckets = limiter.buckets.lock().unwrap();
        assert_eq!(buckets.current.len() + buckets.before.len(), 2);
    }

    #[test]
    fn so_many_are_told_apart_and_the_rest_share_a_bucket() {
        let limiter = RateLimiter { max_tracked: 2, ..RateLimiter::new(rate(1, 2)) };
        assert_eq!(passing(&limiter, "a", 0, 3), 2);
        assert_eq!(passing(&limiter, "b", 0, 1), 1);
        assert_eq!(passing(&limiter, "c", 0, 1), 1);
        assert_eq!(passing(&limiter, "d", 0, 3), 1, "c has taken the other");
        assert_eq!(passing(&limiter, "b", 0, 3), 1, "who has a bucket keeps it");
        for made_up in 0..1000 {
            passing(&limiter, &made_up.to_string(), 1, 1);
        }
        {
            let buckets = limiter.buckets.lock().unwrap();
            assert_eq!(buckets.current.len() + buckets.before.len(), 2);
        }
        // Once the buckets are full, there is room for others.
        assert_eq!(passing(&limiter, "e", 10_000, 3), 2);
        assert_eq!(passing(&limiter, "f", 10_000, 3), 2);
    }
}
