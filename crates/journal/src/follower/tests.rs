use leasehold_core::event::Event;
use leasehold_core::rows;
use leasehold_core::time::WallTime;

use super::*;
use crate::log::sqlite::SqliteLog;
use crate::log::{Head, Log, Retention};
use crate::recovery::IndexState;
use crate::testing::{self, MapRows, Story, append, script, traffic};

/// Waits for the follower, at most some seconds.
fn follow(folder: &DataFolder, head: Head) {
    let follower = Follower::spawn(folder, Seq(0)).unwrap();
    follower.notify(head.seq);
    let began = Instant::now();
    while follower.folded() < head.seq {
        assert!(began.elapsed() < Duration::from_secs(15), "the follower does not catch up");
        std::thread::sleep(Duration::from_millis(2));
    }
    follower.stop();
}

/// A log with a tail that the index has, and one that it does not.
fn written(path: &Path, indexed: usize, more: usize) -> (DataFolder, SqliteLog, Vec<Event>) {
    let (folder, mut log, _) = testing::open(path);
    let mut story = Story::default();
    let mut events = script(&mut story);
    events.extend(traffic(&mut story, indexed));
    append(&mut log, &events, 64);
    follow(&folder, log.head());
    let tail = traffic(&mut story, more);
    append(&mut log, &tail, 64);
    events.extend(tail);
    (folder, log, events)
}

fn raw(folder: &DataFolder) -> Connection {
    Connection::open(index::path(folder.path())).unwrap()
}

#[test]
fn a_start_is_rows_and_tail() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, events) = written(root.path(), 900, 0);
    let model = MapRows::of(&events);
    let (rows, report) = testing::load(&folder, &mut log);
    assert_eq!((report.index, report.events), (IndexState::Current, 0));
    assert_eq!(report.rows, model.0.len() as u64);
    assert_eq!(rows, model);
    let (folder, mut log, events) = written(&root.path().join("b"), 300, 200);
    let (rows, report) = testing::load(&folder, &mut log);
    assert_eq!(report.index, IndexState::Behind);
    assert!(report.events > 0 && report.events < events.len() as u64);
    assert_eq!(rows, MapRows::of(&events));
}

#[test]
fn whatever_happens_to_the_index_the_table_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, events) = written(root.path(), 200, 50);
    let model = MapRows::of(&events);
    let sql = |sql: &str| raw(&folder).execute_batch(sql).unwrap();
    let file = index::path(folder.path());
    let cut = || {
        let file = std::fs::File::options().write(true).open(&file).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    let cases: [(IndexState, &dyn Fn()); 13] = [
        (IndexState::Missing, &|| index::remove(folder.path()).unwrap()),
        (IndexState::Damaged, &|| std::fs::write(&file, "x".repeat(10_000)).unwrap()),
        (IndexState::OtherVersion, &|| std::fs::write(&file, "").unwrap()),
        (IndexState::OtherVersion, &|| sql("PRAGMA user_version = 99")),
        (IndexState::Damaged, &|| cut()),
        (IndexState::Damaged, &|| sql("DELETE FROM row WHERE key LIKE 'lock/%'")),
        (IndexState::Damaged, &|| {
            sql("UPDATE row SET value = replace(value, '3600000', '3600001')")
        }),
        (IndexState::Damaged, &|| sql("DELETE FROM ended")),
        (IndexState::Damaged, &|| {
            sql("UPDATE ended SET endings = replace(endings, 'released', 'expired')")
        }),
        (IndexState::Damaged, &|| sql("DROP TABLE reached")),
        (IndexState::Damaged, &|| sql("INSERT INTO row VALUES ('lock/x', '{}')")),
        (IndexState::Ahead, &|| sql("UPDATE reached SET rows_seq = 1000000")),
        (IndexState::Foreign, &|| sql("UPDATE reached SET rows_seq = rows_seq - 1")),
    ];
    for (number, (expected, spoil)) in cases.into_iter().enumerate() {
        spoil();
        let (rows, report) = testing::load(&folder, &mut log);
        assert_eq!(report.index, expected, "case {number}");
        assert_eq!(report.events, events.len() as u64, "case {number}");
        assert_eq!(rows, model, "case {number}");
        assert!(!file.exists(), "case {number}");
        follow(&folder, log.head());
        let (rows, report) = testing::load(&folder, &mut log);
        assert_eq!(report.index, IndexState::Current, "case {number}, built again");
        assert_eq!(rows, model, "case {number}, built again");
    }
}

#[test]
fn a_follower_builds_a_spoilt_index_again_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, events) = written(root.path(), 100, 20);
    let sql = |sql: &str| raw(&folder).execute_batch(sql).unwrap();
    let spoils: [&dyn Fn(); 3] = [
        &|| sql("UPDATE reached SET rows_seq = 1000000"),
        &|| sql("UPDATE row SET value = '{' WHERE key = 'meta'; UPDATE reached SET rows_seq = 7"),
        &|| sql("PRAGMA user_version = 99"),
    ];
    for spoil in spoils {
        spoil();
        follow(&folder, log.head());
        let (rows, report) = testing::load(&folder, &mut log);
        assert_eq!(report.index, IndexState::Current);
        assert_eq!(rows, MapRows::of(&events));
    }
}

#[test]
fn after_a_trim_the_table_is_still_the_fold_of_everything() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, events) = written(root.path(), 700, 300);
    let model = MapRows::of(&events);
    let retention = Retention { max_age_ms: Some(0), max_bytes: None };
    let now = WallTime(i64::MAX);
    // First a trim of what the index has, then one of what it does not have yet.
    log.trim(&retention, now).unwrap();
    let (rows, report) = testing::load(&folder, &mut log);
    assert_eq!((report.index, rows), (IndexState::Behind, model.clone()));
    while log.trim(&retention, now).unwrap().more {}
    let (rows, report) = testing::load(&folder, &mut log);
    assert_eq!((report.index, report.events), (IndexState::BeforeTrim, 1));
    assert_eq!(rows, model);
    follow(&folder, log.head());
    let (rows, report) = testing::load(&folder, &mut log);
    assert_eq!((report.index, rows), (IndexState::Current, model));
}

#[test]
fn a_follower_that_is_told_of_each_commit_ends_up_current() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, _) = testing::open(root.path());
    let follower = Follower::spawn(&folder, Seq(0)).unwrap();
    let handle = follower.handle();
    let mut story = Story::default();
    let events = traffic(&mut story, 400);
    for group in events.chunks(10) {
        append(&mut log, group, 10);
        handle.notify(log.head().seq);
    }
    // Stopping catches up; no need to wait before.
    follower.stop();
    assert_eq!(handle.folded(), log.head().seq);
    let (rows, report) = testing::load(&folder, &mut log);
    assert_eq!((report.index, rows), (IndexState::Current, MapRows::of(&events)));
}

#[test]
fn what_was_committed_while_the_queue_was_taken_from_is_read_from_the_log() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, _) = testing::open(root.path());
    let mut follower = SteppedFollower::new(&folder, Seq(0));
    let handle = follower.handle();
    let events = traffic(&mut Story::default(), 60);
    for (number, group) in events.chunks(7).enumerate() {
        append(&mut log, group, 7);
        let commit = || handle.committed(group.to_vec(), &log.head());
        if number % 3 == 1 {
            handle.shared.recent.while_taken_from(commit);
        } else {
            commit();
        }
        // Behind the gap at first, then in the middle of it.
        if number % 2 == 1 {
            follower.step();
        }
    }
    while handle.folded() < log.head().seq {
        let before = handle.folded();
        follower.step();
        assert!(before < handle.folded(), "the follower stands still at {before}");
    }
    let (rows, report) = testing::load(&folder, &mut log);
    assert_eq!((report.index, rows), (IndexState::Current, MapRows::of(&events)));
}

#[test]
fn a_follower_that_lets_events_gather_goes_on_when_there_is_a_batch() {
    let shared = Arc::new(Shared::default());
    let (long, began) = (Duration::from_secs(60), Instant::now());
    let gathering = Arc::clone(&shared);
    let thread = std::thread::spawn(move || gathering.gather(long));
    let handle =
        FollowerHandle { shared: Arc::clone(&shared), thread: Some(thread.thread().clone()) };
    let events = traffic(&mut Story::default(), BATCH);
    let hash = Head::default().hash;
    while !shared.gathers.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    for group in events[..BATCH].chunks(64) {
        assert!(shared.gathers.load(Ordering::SeqCst));
        let seq = group[group.len() - 1].seq;
        handle.committed(group.to_vec(), &Head { seq, hash, ..Head::default() });
    }
    thread.join().unwrap();
    assert!(began.elapsed() < long, "it waited for time to pass");
}

#[test]
fn memory_of_how_locks_ended_is_forgotten_in_the_index_too() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, _) = testing::open(root.path());
    let mut story = Story::default();
    let mut events = traffic(&mut story, 20);
    append(&mut log, &events, 64);
    follow(&folder, log.head());
    story.lease += rows::ENDED_KEPT_MS + 1;
    let later = traffic(&mut story, 2);
    append(&mut log, &later, 64);
    follow(&folder, log.head());
    events.extend(later);
    let (loaded, report) = testing::load(&folder, &mut log);
    let model = MapRows::of(&events);
    assert_eq!((report.index, &loaded), (IndexState::Current, &model));
    assert_eq!(loaded.0.keys().filter(|key| key.starts_with("ended/")).count(), 2);
}

#[test]
fn an_index_removed_under_a_running_follower_is_built_again() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, _) = testing::open(root.path());
    let follower = Follower::spawn(&folder, Seq(0)).unwrap();
    let mut story = Story::default();
    let mut events = traffic(&mut story, 50);
    append(&mut log, &events, 10);
    follower.notify(log.head().seq);
    let began = Instant::now();
    while follower.folded() < log.head().seq {
        assert!(began.elapsed() < Duration::from_secs(15), "the follower does not catch up");
        std::thread::sleep(Duration::from_millis(2));
    }
    index::remove(folder.path()).unwrap();
    let more = traffic(&mut story, 5);
    append(&mut log, &more, 10);
    events.extend(more);
    follower.notify(log.head().seq);
    while follower.folded() < log.head().seq {
        assert!(began.elapsed() < Duration::from_secs(15), "the follower does not catch up");
        std::thread::sleep(Duration::from_millis(2));
    }
    follower.stop();
    let (rows, report) = testing::load(&folder, &mut log);
    assert_eq!((report.index, rows), (IndexState::Current, MapRows::of(&events)));
}

#[test]
fn a_table_loaded_while_a_follower_runs_is_whole() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, _) = testing::open(root.path());
    let follower = Follower::spawn(&folder, Seq(0)).unwrap();
    let mut story = Story::default();
    let mut events = Vec::new();
    let mut model = MapRows::default();
    for _ in 0..25 {
        let more = traffic(&mut story, 20);
        append(&mut log, &more, 10);
        model.fold(&more);
        events.extend(more);
        follower.notify(log.head().seq);
        let (rows, report) = testing::load(&folder, &mut log);
        assert_ne!(report.index, IndexState::Damaged);
        assert_eq!(rows, model);
    }
}
