//! What every [`Log`] has to do. A store's tests call [`conformance!`] with its [`Harness`].

use leasehold_core::event::{Event, RecoveryCause};
use leasehold_core::ids::Seq;
use leasehold_core::time::{LeaseTime, WallTime};

use super::{
    Group, Head, Log, LogError, NO_HASH, Retention, Stored, TRIM_CHUNK, Trimmed, from_hex, hash,
};
use crate::testing::{EPOCH, MapRows, Story, append, script, traffic};

/// One store under test.
pub(crate) trait Harness {
    type Store: Log;
    fn new() -> Self;
    /// Opens the store; called again after the log before it was dropped.
    fn open(&mut self) -> Self::Store;
    /// Makes the next append of a large group fail, until the log is opened again.
    fn sabotage(log: &mut Self::Store);
}

/// Makes one test for each property.
macro_rules! conformance {
    ($harness:ty) => {
        conformance!($harness:
            an_empty_log_stands_before_the_first_event,
            groups_come_back_as_one_chain,
            a_group_that_does_not_follow_changes_nothing,
            the_lease_clock_never_goes_back,
            a_reading_alone_is_durable,
            reads_are_bounded_and_start_where_asked,
            a_failed_append_has_to_be_opened_again_and_loses_nothing,
            trimming_by_age_keeps_what_is_younger_and_folds_what_is_older,
            trimming_by_size_ends_and_never_takes_the_newest_event,
            a_trimmed_log_goes_on_as_one_chain,
        );
    };
    ($harness:ty: $($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                $crate::log::conformance::$name::<$harness>();
            }
        )*
    };
}
pub(crate) use conformance;

fn all(log: &mut dyn Log) -> Vec<Stored> {
    let mut events = Vec::new();
    let mut from = Seq(0);
    loop {
        let chunk = log.read(from, 100).unwrap();
        let Some(last) = chunk.last() else { return events };
        from = last.seq.next();
        events.extend(chunk);
    }
}

fn events(log: &mut dyn Log) -> Vec<Event> {
    all(log).iter().map(|stored| stored.event().unwrap()).collect()
}

/// The chain from where the trail begins to the head.
fn assert_chain(log: &mut dyn Log) {
    let begin = log.trimmed().unwrap_or(Trimmed { through: Seq(0), hash: NO_HASH });
    let mut before = (begin.through, begin.hash);
    for stored in all(log) {
        assert_eq!(stored.seq, before.0.next());
        let prev = stored.record().unwrap().prev.unwrap();
        assert_eq!(from_hex(&prev), Some(before.1));
        before = (stored.seq, hash(&stored.bytes));
    }
    let head = log.head();
    assert_eq!((head.seq, head.hash), before);
}

pub(crate) fn an_empty_log_stands_before_the_first_event<H: Harness>() {
    let mut harness = H::new();
    let mut log = harness.open();
    assert_eq!(log.head(), Head { seq: Seq(0), hash: NO_HASH, lease: LeaseTime(0) });
    assert_eq!(log.trimmed(), None);
    assert!(all(&mut log).is_empty());
    assert!(log.base("", 10).unwrap().is_empty());
}

pub(crate) fn groups_come_back_as_one_chain<H: Harness>() {
    let mut harness = H::new();
    let mut story = Story::default();
    let mut written = script(&mut story);
    written.extend(traffic(&mut story, 60));
    for size in [1, 7, 1000] {
        let mut harness_now = H::new();
        let mut log = harness_now.open();
        append(&mut log, &written, size);
        assert_eq!(events(&mut log), written);
        assert_chain(&mut log);
    }
    let mut log = harness.open();
    append(&mut log, &written, 5);
    let head = log.head();
    drop(log);
    let mut log = harness.open();
    assert_eq!(log.head(), head);
    assert_eq!(events(&mut log), written);
}

pub(crate) fn a_group_that_does_not_follow_changes_nothing<H: Harness>() {
    let mut harness = H::new();
    let mut log = harness.open();
    let mut story = Story::default();
    let written = script(&mut story);
    append(&mut log, &written[..3], 3);
    let head = log.head();
    for wrong in [&written[4..6], &written[2..5], &[written[3].clone(), written[5].clone()]] {
        let lease = LeaseTime(1_000_000);
        let error = log.append(&Group { events: wrong, lease }).unwrap_err();
        assert!(matches!(error, LogError::NotContiguous { .. }), "{error}");
        assert_eq!(log.head(), head);
    }
    append(&mut log, &written[3..], 2);
    assert_chain(&mut log);
}

pub(crate) fn the_lease_clock_never_goes_back<H: Harness>() {
    let mut harness = H::new();
    let mut log = harness.open();
    log.append(&Group { events: &[], lease: LeaseTime(500) }).unwrap();
    let error = log.append(&Group { events: &[], lease: LeaseTime(499) }).unwrap_err();
    assert!(matches!(error, LogError::LeaseGoesBack { .. }), "{error}");
    let mut story = Story { lease: 700, ..Story::default() };
    let event = story.recovered(RecoveryCause::Created);
    let error = log.append(&Group { events: &[event], lease: LeaseTime(600) }).unwrap_err();
    assert!(matches!(error, LogError::LeaseGoesBack { .. }), "{error}");
    log.append(&Group { events: &[], lease: LeaseTime(500) }).unwrap();
    assert_eq!(log.head().lease, LeaseTime(500));
}

pub(crate) fn a_reading_alone_is_durable<H: Harness>() {
    let mut harness = H::new();
    let mut log = harness.open();
    let mut story = Story::default();
    append(&mut log, &script(&mut story), 4);
    let told = log.head().lease;
    drop(log);
    let mut log = harness.open();
    assert_eq!(log.head().lease, told);
    log.append(&Group { events: &[], lease: told + 1000 }).unwrap();
    drop(log);
    let mut log = harness.open();
    assert_eq!(log.head().lease, told + 1000);
    log.close_cleanly(told + 2000).unwrap();
    drop(log);
    assert_eq!(harness.open().head().lease, told + 2000);
}

pub(crate) fn reads_are_bounded_and_start_where_asked<H: Harness>() {
    let mut harness = H::new();
    let mut log = harness.open();
    let mut story = Story::default();
    append(&mut log, &traffic(&mut story, 20), 10);
    let seqs = |events: Vec<Stored>| events.iter().map(|one| one.seq.0).collect::<Vec<_>>();
    assert_eq!(seqs(log.read(Seq(0), 2).unwrap()), [1, 2]);
    assert_eq!(seqs(log.read(Seq(5), 3).unwrap()), [5, 6, 7]);
    assert_eq!(seqs(log.read(Seq(5), 0).unwrap()), [0; 0]);
    let head = log.head().seq;
    assert_eq!(seqs(log.read(head, 10).unwrap()), [head.0]);
    assert_eq!(seqs(log.read(head.next(), 10).unwrap()), [0; 0]);
}

pub(crate) fn a_failed_append_has_to_be_opened_again_and_loses_nothing<H: Harness>() {
    let mut harness = H::new();
    let mut log = harness.open();
    let mut story = Story::default();
    let first = traffic(&mut story, 20);
    append(&mut log, &first, 10);
    let before = log.head();
    H::sabotage(&mut log);
    let fork = story.clone();
    let large = traffic(&mut story, 2000);
    let lease = large.last().unwrap().lease;
    let error = log.append(&Group { events: &large, lease }).unwrap_err();
    assert!(matches!(error, LogError::Store(_)), "{error}");
    for _ in 0..2 {
        let error = log.append(&Group { events: &[], lease }).unwrap_err();
        assert!(matches!(error, LogError::NeedsReopen), "{error}");
        assert!(matches!(log.read(Seq(0), 1), Err(LogError::NeedsReopen)));
    }
    let head = log.reopen().unwrap();
    assert_eq!(head, log.head());
    // All of the group or nothing of it.
    let mut told = first;
    if head == before {
        story = fork;
    } else {
        assert_eq!(head.seq.0, story.seq);
        told.extend(large);
    }
    let recovered = story.recovered(RecoveryCause::FailedCommit);
    let lease = recovered.lease.max(head.lease);
    log.append(&Group { events: std::slice::from_ref(&recovered), lease }).unwrap();
    told.push(recovered);
    assert_eq!(events(&mut log), told);
    assert_chain(&mut log);
    drop(log);
    let mut log = harness.open();
    assert_eq!(events(&mut log), told);
}

fn base(log: &mut dyn Log) -> MapRows {
    let mut rows = MapRows::default();
    let mut after = String::new();
    loop {
        let chunk = log.base(&after, 7).unwrap();
        let Some(last) = chunk.last() else { return rows };
        after.clone_from(&last.key);
        for row in chunk {
            rows.0.insert(row.key, String::from_utf8(row.value).unwrap());
        }
    }
}

fn trim(log: &mut dyn Log, retention: Retention, now: WallTime) -> usize {
    let mut removed = 0;
    loop {
        let step = log.trim(&retention, now).unwrap();
        assert!(step.removed <= TRIM_CHUNK);
        assert!(!step.more || step.removed > 0);
        removed += step.removed;
        if !step.more {
            return removed;
        }
    }
}

pub(crate) fn trimming_by_age_keeps_what_is_younger_and_folds_what_is_older<H: Harness>() {
    let mut harness = H::new();
    let mut log = harness.open();
    let mut story = Story::default();
    let mut written = script(&mut story);
    written.extend(traffic(&mut story, 400));
    append(&mut log, &written, 50);
    let head = log.head();
    let now = WallTime(EPOCH + i64::try_from(story.lease).unwrap());
    let keep = Retention { max_age_ms: Some(500), max_bytes: None };
    let old = written.iter().filter(|event| event.at < now - 500).count();
    assert!(old > 2 * TRIM_CHUNK && old < written.len());
    assert_eq!(trim(&mut log, keep, now), old);
    assert_eq!(trim(&mut log, keep, now), 0);
    assert_eq!(log.head(), head);
    assert_eq!(log.trimmed().unwrap().through, Seq(old as u64));
    assert_eq!(events(&mut log), written[old..]);
    assert_eq!(base(&mut log), MapRows::of(&written[..old]));
    assert_chain(&mut log);
    drop(log);
    let mut log = harness.open();
    assert_eq!(log.head(), head);
    assert_eq!(log.trimmed().unwrap().through, Seq(old as u64));
    assert_eq!(base(&mut log), MapRows::of(&written[..old]));
}

pub(crate) fn trimming_by_size_ends_and_never_takes_the_newest_event<H: Harness>() {
    let mut harness = H::new();
    let mut log = harness.open();
    let mut story = Story::default();
    let written = traffic(&mut story, 300);
    append(&mut log, &written, 50);
    let now = WallTime(EPOCH);
    let large = Retention { max_age_ms: None, max_bytes: Some(1 << 30) };
    assert_eq!(trim(&mut log, large, now), 0);
    let half = Retention { max_age_ms: None, max_bytes: Some(200_000) };
    let removed = trim(&mut log, half, now);
    assert!(removed > 0 && removed < written.len() - 1, "{removed} of {}", written.len());
    let nothing = Retention { max_age_ms: None, max_bytes: Some(0) };
    trim(&mut log, nothing, now);
    assert_eq!(events(&mut log), written[written.len() - 1..]);
    assert_eq!(base(&mut log), MapRows::of(&written[..written.len() - 1]));
}

pub(crate) fn a_trimmed_log_goes_on_as_one_chain<H: Harness>() {
    let mut harness = H::new();
    let mut log = harness.open();
    let mut story = Story::default();
    append(&mut log, &traffic(&mut story, 200), 50);
    let everything = Retention { max_age_ms: Some(0), max_bytes: None };
    trim(&mut log, everything, WallTime(i64::MAX));
    // The record is owed until it is there, also over a restart.
    assert_eq!(log.owed_trim_record(), log.trimmed());
    drop(log);
    let mut log = harness.open();
    assert_eq!(log.owed_trim_record(), log.trimmed());
    let trimmed = story.trimmed(&log);
    append(&mut log, &[trimmed], 1);
    assert_eq!(log.owed_trim_record(), None);
    append(&mut log, &traffic(&mut story, 20), 50);
    assert_chain(&mut log);
    assert_eq!(log.read(Seq(1), 1).unwrap()[0].seq, log.trimmed().unwrap().through.next());
    drop(log);
    let mut log = harness.open();
    assert_eq!(log.owed_trim_record(), None);
    assert_chain(&mut log);
}
