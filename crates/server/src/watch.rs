//! What the journal tells as it works, kept for metrics and the log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_core::event::Event;
use leasehold_engine::Observer;
use leasehold_journal::log::{Head, hex};

use crate::metrics::Metrics;

/// The newest durable event, for metrics and the log.
#[derive(Debug, Default)]
pub(crate) struct LatestHead(Mutex<Option<Head>>);

impl LatestHead {
    pub(crate) fn latest(&self) -> Option<(u64, String)> {
        let head = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        head.map(|head| (head.seq.0, hex(&head.hash)))
    }
}

/// How many requests are being answered.
#[derive(Debug, Default)]
pub(crate) struct Underway(AtomicUsize);

/// One of them, until it is dropped.
pub(crate) struct OneUnderway<'a>(&'a Underway);

impl Underway {
    pub(crate) fn one(&self) -> OneUnderway<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        OneUnderway(self)
    }
}

impl Drop for OneUnderway<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts what the journal does.
pub(crate) struct Watch {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) head: Arc<LatestHead>,
    pub(crate) underway: Arc<Underway>,
}

impl Observer for Watch {
    fn committed(&self, events: &[Event], took: Duration, head: &Head) {
        *self.head.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(*head);
        self.metrics.commit(took);
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        for event in events {
            *counts.entry(event.body.name()).or_default() += 1;
        }
        for (kind, count) in counts {
            self.metrics.events(kind, count);
        }
    }

    fn is_alone(&self) -> bool {
        self.underway.0.load(Ordering::Relaxed) <= 1
    }

    fn recovering(&self, _: bool) {}
}
