use std::path::Path;

use leasehold_core::event::RecoveryCause;
use leasehold_core::time::WallTime;

use super::*;
use crate::log::{Group, Log, Retention};
use crate::testing::{self, Story, append, principal, script, traffic};

fn judge(path: &Path, head: Option<(Seq, Hash)>) -> Report {
    verify(&AuditReader::open(path).unwrap(), head).unwrap()
}

/// Verifies a trail of these events.
fn judged(events: &[Event]) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let (_folder, mut log, _) = testing::open(root.path());
    for event in events {
        let lease = event.lease.max(log.head().lease);
        log.append(&Group { events: std::slice::from_ref(event), lease }).unwrap();
    }
    judge(root.path(), None).findings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_trail_that_kept_its_promises_is_clean() {
    let root = tempfile::tempdir().unwrap();
    let (_folder, mut log, _) = testing::open(root.path());
    let empty = judge(root.path(), None);
    assert!(empty.is_clean() && empty.last.is_none() && empty.events == 0);
    let mut story = Story::default();
    let mut events = script(&mut story);
    events.extend(traffic(&mut story, 100));
    append(&mut log, &events, 20);
    let head = log.head();
    let report = judge(root.path(), Some((head.seq, head.hash)));
    assert_eq!(report.findings, []);
    assert_eq!(report.events, events.len() as u64);
    assert_eq!(report.last, Some((head.seq, head.hash)));
    assert_eq!(report.live_locks, 11);
}

/// Changes the stored trail behind the log's back, and says what is found then.
fn tampered(sql: &str) -> (Vec<String>, bool) {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, _) = testing::open(root.path());
    let mut story = Story::default();
    append(&mut log, &script(&mut story), 20);
    append(&mut log, &traffic(&mut story, 40), 20);
    let head = log.head();
    drop((folder, log));
    rusqlite::Connection::open(root.path().join("log.db")).unwrap().execute_batch(sql).unwrap();
    let without = judge(root.path(), None).findings.iter().map(ToString::to_string).collect();
    (without, judge(root.path(), Some((head.seq, head.hash))).is_clean())
}

#[test]
fn every_kind_of_tampering_is_found_and_named() {
    let cases = [
        (
            "UPDATE event SET body = replace(body, 'gone home', 'gone hope') WHERE seq = 10",
            "event 11: its `prev` is not the hash",
        ),
        ("DELETE FROM event WHERE seq = 15", "event 16: it follows event 14"),
        ("DELETE FROM event WHERE seq < 4", "event 4: it follows event 0"),
        (
            "UPDATE event SET seq = 1000000 WHERE seq = 15; UPDATE event SET seq = 15 WHERE seq = 16;
             UPDATE event SET seq = 16 WHERE seq = 1000000",
            "event 15: it cannot be read: the event stored at 15 says that it is event 16",
        ),
        (
            "UPDATE event SET body = (SELECT body FROM event WHERE seq = 12) WHERE seq = 13",
            "event 13: it cannot be read",
        ),
        ("UPDATE event SET body = x'00' WHERE seq = 13", "event 13: it cannot be read"),
        (
            "UPDATE state SET trimmed_through = 3, trimmed_hash = zeroblob(32);
             DELETE FROM event WHERE seq <= 3",
            "event 4: its `prev` is not the hash",
        ),
    ];
    for (sql, expected) in cases {
        let (findings, with_head) = tampered(sql);
        assert!(findings.iter().any(|found| found.starts_with(expected)), "{sql}: {findings:#?}");
        assert!(!with_head);
    }
}

#[test]
fn a_cut_or_rewritten_end_is_found_by_whoever_kept_the_head() {
    let cut = "DELETE FROM event WHERE seq = (SELECT max(seq) FROM event)";
    assert_eq!(tampered(cut), (vec![], false));
    let last = "UPDATE event SET body = replace(body, '\"user-', '\"robo-')
                WHERE seq = (SELECT max(seq) FROM event)";
    assert!(!tampered(last).1);
    let root = tempfile::tempdir().unwrap();
    let (_folder, mut log, _) = testing::open(root.path());
    append(&mut log, &script(&mut Story::default()), 20);
    let report = judge(root.path(), Some((Seq(99), [1; 32])));
    assert_eq!(report.findings[0].seq, Seq(99));
    assert!(matches!(report.findings[0].fault, Fault::HeadMissing { .. }));
    let report = judge(root.path(), Some((Seq(5), [1; 32])));
    assert_eq!(report.findings, [Finding { seq: Seq(5), fault: Fault::HeadDiffers }]);
}

#[test]
fn a_trimmed_trail_is_clean_once_its_record_is_there() {
    let root = tempfile::tempdir().unwrap();
    let (_folder, mut log, _) = testing::open(root.path());
    let mut story = Story::default();
    append(&mut log, &script(&mut story), 20);
    append(&mut log, &traffic(&mut story, 300), 20);
    let kept = log.read(Seq(256), 1).unwrap().remove(0);
    let kept = (kept.seq, hash(&kept.bytes));
    let retention = Retention { max_age_ms: None, max_bytes: Some(0) };
    log.trim(&retention, WallTime(0)).unwrap();
    let report = judge(root.path(), None);
    assert!(report.is_clean() && report.trim_record_owed, "{report:#?}");
    let trimmed = story.trimmed(&log);
    append(&mut log, &[trimmed], 1);
    append(&mut log, &traffic(&mut story, 50), 20);
    let report = judge(root.path(), Some(kept));
    assert!(report.is_clean() && !report.trim_record_owed, "{report:#?}");
    assert_eq!(report.first, Some(Seq(257)));
    let report = judge(root.path(), Some((Seq(3), [0; 32])));
    assert!(matches!(report.findings[0].fault, Fault::HeadTrimmed { .. }));
}

#[test]
fn two_live_locks_that_conflict_are_found() {
    // Holder and path of two grants, whether they conflict; `0` is a depth, `s` a shared lock.
    let cases = [
        ("/a", "", "/a", "", true),
        ("/a", "", "/a/b/c", "", true),
        ("/a/b/c", "", "/a", "", true),
        ("/a", "", "/ab", "", false),
        ("/a/b", "", "/a/c", "", false),
        ("/a", "0", "/a/b", "", false),
        ("/a/b", "", "/a", "0", false),
        ("/a", "0", "/a", "0", true),
        ("/a", "s", "/a/b", "s", false),
        ("/a", "s", "/a/b", "", true),
        ("/a", "", "/a/b", "s", true),
        ("/", "", "/a", "", true),
        ("/a", "", "/", "", true),
        ("/", "0", "/a", "", false),
    ];
    for (first, of_first, second, of_second, conflict) in cases {
        let mut story = Story::default();
        let mut acquired = |path, flags: &str| {
            let mut grant = story.grant("alice", path, 10_000);
            grant.depth = if flags == "0" { Depth::Zero } else { Depth::Infinity };
            grant.mode = if flags == "s" { Mode::Shared } else { Mode::Exclusive };
            story.event(None, EventBody::Acquired(Box::new(grant)))
        };
        let events = [acquired(first, of_first), acquired(second, of_second)];
        let findings = judged(&events);
        assert_eq!(findings.len(), usize::from(conflict), "{first} {second}: {findings:?}");
        assert!(findings.iter().all(|found| found.contains("of alice lived")));
    }
}

#[test]
fn a_lock_conflicts_until_its_deadline_and_not_after_it() {
    for (later, conflicts) in [(9_999, 1), (10_000, 0)] {
        let mut story = Story::default();
        let (first, lock) = story.acquired("alice", "/x", 10_000);
        story.lease = later;
        let (second, _) = story.acquired("bob", "/x", 10_000);
        let mut events = vec![first, second];
        if conflicts == 0 {
            // The event of the end may follow the grant that it made room for.
            let deadline = LeaseTime(10_000);
            events.push(story.event(None, EventBody::Expired { lock, deadline }));
        }
        assert_eq!(judged(&events).len(), conflicts);
    }
}

fn announced(lock: &Subject, deadline: u64) -> EventBody {
    let (lock, by, deadline) = (lock.clone(), principal("admin"), LeaseTime(deadline));
    EventBody::BreakAnnounced { lock, by, reason: "gone home".into(), deadline }
}

fn broken(lock: &Subject) -> EventBody {
    let (lock, by) = (lock.clone(), principal("admin"));
    EventBody::Broken { lock, by, reason: "gone home".into() }
}

#[test]
fn a_break_that_was_announced_ends_its_lock_at_the_deadline_or_before() {
    // Announced when, if it was; broken when; what is found.
    let cases = [
        (Some(1000), 3000, 0),
        (Some(1000), 3001, 0),
        (Some(1000), 2000, 0),
        (None, 2000, 0),
        (None, 9_999, 0),
        (None, 10_000, 1),
    ];
    for (told, at, found) in cases {
        let mut story = Story::default();
        let (first, lock) = story.acquired("alice", "/x", 10_000);
        let mut events = vec![first];
        if let Some(told) = told {
            story.lease = told;
            events.push(story.event(Some("admin"), announced(&lock, told + 2000)));
        }
        story.lease = at;
        events.push(story.event(None, broken(&lock)));
        let (next, _) = story.acquired("bob", "/x", 1000);
        events.push(next);
        let findings = judged(&events);
        assert_eq!(findings.len(), found, "{told:?} {at}: {findings:?}");
    }
    // What ended so once has ended.
    let mut story = Story::default();
    let (first, lock) = story.acquired("alice", "/x", 10_000);
    let events = [first, story.event(None, broken(&lock)), story.event(None, broken(&lock))];
    assert_eq!(judged(&events).len(), 1);
}

#[test]
fn a_break_that_was_announced_before_the_trail_begins_may_end_its_lock_too() {
    let root = tempfile::tempdir().unwrap();
    let (_folder, mut log, _) = testing::open(root.path());
    let mut story = Story::default();
    let (first, lock) = story.acquired("alice", "/x", 10_000);
    append(&mut log, &[first, story.event(None, announced(&lock, 2000))], 1);
    story.lease = 2000;
    append(&mut log, &[story.event(None, broken(&lock))], 1);
    let retention = Retention { max_age_ms: None, max_bytes: Some(0) };
    log.trim(&retention, WallTime(0)).unwrap();
    let trimmed = story.trimmed(&log);
    append(&mut log, &[trimmed], 1);
    let report = judge(root.path(), None);
    assert!(report.first == Some(Seq(3)) && report.is_clean(), "{report:#?}");
}

#[test]
fn a_trail_that_broke_a_promise_is_told_where() {
    let mut story = Story::default();
    let (first, lock) = story.acquired("alice", "/x", 10_000);
    let base = (story, first, lock);
    let check = |expected: &str, more: &dyn Fn(&mut Story, &Subject) -> Vec<Event>| {
        let (mut story, first, lock) = base.clone();
        let mut events = vec![first];
        events.extend(more(&mut story, &lock));
        let findings = judged(&events);
        assert!(findings.iter().any(|found| found.contains(expected)), "{expected}: {findings:?}");
    };
    check("fence 1 is not greater than fence 1", &|story, _| {
        story.fence = 0;
        vec![story.acquired("bob", "/y", 1000).0]
    });
    check("fence 2 is not greater than fence 4294967297", &|story, _| {
        story.fence += 1 << 32;
        let restored = story.recovered(RecoveryCause::Restored);
        story.fence = 1;
        vec![restored, story.acquired("bob", "/y", 1000).0]
    });
    check("event 2: lock", &|story, lock| {
        story.lease = 10_000;
        vec![story.admitted(lock)]
    });
    check("event 3: lock", &|story, lock| vec![story.released(lock), story.admitted(lock)]);
    check("another fence or holder", &|story, lock| {
        vec![story.admitted(&Subject { holder: principal("mallory"), ..lock.clone() })]
    });
    check("before its deadline", &|story, lock| {
        story.lease = 9_999;
        let body = EventBody::Expired { lock: lock.clone(), deadline: LeaseTime(9_999) };
        vec![story.event(None, body)]
    });
    check("went back", &|story, lock| {
        story.lease = 500;
        let admitted = story.admitted(lock);
        story.lease = 400;
        vec![admitted, story.released(lock)]
    });
    check("event 5, which is not open", &|story, lock| vec![story.completed(lock, Seq(5))]);
    check("did not live", &|story, lock| vec![story.released(lock), story.released(lock)]);
}
