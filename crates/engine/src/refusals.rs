//! Refusals, counted for the trail: per resource, holder, name and minute.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_core::event::EventBody;
use leasehold_core::ids::Principal;
use leasehold_core::resource::Resource;
use leasehold_core::time::WallTime;

/// The most pairs counted one by one in a minute; the rest are counted together.
pub const MAX_PAIRS: usize = 10_000;

type Pair = (Option<Resource>, Option<Principal>, &'static str);

/// The counts of one minute.
#[derive(Debug, Default)]
pub struct Refusals {
    minute: i64,
    counts: BTreeMap<Pair, u64>,
    other: u64,
}

const MINUTE_MS: i64 = 60_000;

impl Refusals {
    /// Counts one refusal. What was counted in another minute should have been flushed before; if
    /// it could not be, this one is counted with it.
    pub fn count(
        &mut self,
        resource: Option<Resource>,
        holder: Option<Principal>,
        name: &'static str,
        now: WallTime,
    ) {
        if self.is_empty() {
            self.minute = now.0.div_euclid(MINUTE_MS);
        }
        let full = MAX_PAIRS <= self.counts.len();
        let pair = (resource, holder, name);
        match self.counts.get_mut(&pair) {
            Some(count) => *count += 1,
            None if full => self.other += 1,
            None => {
                self.counts.insert(pair, 1);
            }
        }
    }

    /// The events of a minute that is over.
    pub fn flush_before(&mut self, now: WallTime) -> Vec<EventBody> {
        if self.is_empty() || now.0.div_euclid(MINUTE_MS) == self.minute {
            return Vec::new();
        }
        self.flush()
    }

    /// Everything counted so far, as events.
    pub fn flush(&mut self) -> Vec<EventBody> {
        let minute = WallTime(self.minute.saturating_mul(MINUTE_MS));
        let mut events: Vec<EventBody> = std::mem::take(&mut self.counts)
            .into_iter()
            .map(|((resource, holder, name), count)| EventBody::Refused {
                resource,
                holder,
                problem: Arc::from(name),
                count,
                minute,
            })
            .collect();
        let other = std::mem::take(&mut self.other);
        if other > 0 {
            events.push(EventBody::Refused {
                resource: None,
                holder: None,
                problem: Arc::from("other"),
                count: other,
                minute,
            });
        }
        events
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.other == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_the_minute_and_bounded() {
        let mut refusals = Refusals::default();
        let resource = |at: usize| Some(Resource::parse(&format!("/r/{at}")).unwrap());
        refusals.count(resource(1), None, "locked", WallTime(0));
        refusals.count(resource(1), None, "locked", WallTime(59_999));
        assert!(refusals.flush_before(WallTime(59_999)).is_empty());
        let finished = refusals.flush_before(WallTime(60_000));
        assert!(matches!(finished.as_slice(), [EventBody::Refused { count: 2, .. }]));
        for at in 0..MAX_PAIRS + 5 {
            refusals.count(resource(at), None, "locked", WallTime(60_001));
        }
        let events = refusals.flush();
        assert_eq!(events.len(), MAX_PAIRS + 1);
        assert!(matches!(
            events.last(),
            Some(EventBody::Refused { count: 5, resource: None, minute: WallTime(60_000), .. })
        ));
        assert!(refusals.is_empty());
    }
}
