use std::path::Path;

use leasehold_core::event::RecoveryCause;

use super::open::SCHEMA;
use super::*;
use crate::connect;
use crate::log::conformance::{Harness, conformance};
use crate::testing::{self, Story, append, script, traffic};

struct Sqlite {
    root: tempfile::TempDir,
}

impl Harness for Sqlite {
    type Store = SqliteLog;

    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn open(&mut self) -> SqliteLog {
        testing::open(&self.root.path().join("data")).1
    }

    fn sabotage(log: &mut SqliteLog) {
        // The database may not grow any more: the disk is full.
        let connection = log.connection.as_ref().unwrap();
        connection.query_row("PRAGMA max_page_count = 1", [], |_| Ok(())).unwrap();
    }
}

conformance!(Sqlite);

fn raw(folder: &Path) -> Connection {
    Connection::open(folder.join("log.db")).unwrap()
}

#[test]
fn the_mark_of_a_clean_shutdown_is_gone_with_the_first_append() {
    let root = tempfile::tempdir().unwrap();
    let open = || testing::open(root.path());
    let (folder, mut log, opened) = open();
    assert!(opened.created && opened.clean && !opened.restored);
    let mut story = Story::default();
    append(&mut log, &script(&mut story), 5);
    drop((folder, log));
    let (folder, mut log, opened) = open();
    assert!(!opened.created && !opened.clean);
    log.close_cleanly(opened.head.lease + 5).unwrap();
    drop((folder, log));
    let (folder, mut log, opened) = open();
    assert!(opened.clean);
    story.lease += 5;
    append(&mut log, &[story.recovered(RecoveryCause::CleanStart)], 1);
    drop((folder, log));
    assert!(!open().2.clean);
}

#[test]
fn a_reading_alone_ends_a_clean_shutdown_but_not_a_restore() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, _) = testing::open(root.path());
    let mut story = Story::default();
    append(&mut log, &script(&mut story), 5);
    log.close_cleanly(log.head().lease).unwrap();
    drop((folder, log));
    raw(root.path()).execute("UPDATE state SET restored = 1", []).unwrap();
    let (folder, mut log, opened) = testing::open(root.path());
    assert!(opened.clean && opened.restored);
    log.append(&Group { events: &[], lease: log.head().lease + 1 }).unwrap();
    drop((folder, log));
    let (folder, mut log, opened) = testing::open(root.path());
    assert!(!opened.clean && opened.restored);
    story.lease += 1000;
    append(&mut log, &[story.recovered(RecoveryCause::Restored)], 1);
    drop((folder, log));
    assert!(!testing::open(root.path()).2.restored);
}

/// Appends what `story` goes on with, group by group, until a checkpoint is due: in how many groups.
fn append_until_due(log: &mut SqliteLog, story: &mut Story) -> usize {
    let mut groups = 0;
    while !log.is_checkpoint_due() {
        append(log, &traffic(story, 3), 3);
        groups += 1;
    }
    groups
}

#[test]
fn what_gathers_is_moved_when_it_is_due_and_its_room_is_used_again() {
    let root = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(root.path()).unwrap();
    let (mut log, _) = SqliteLog::open(&folder, LogOptions { checkpoint_pages: 40 }).unwrap();
    let size = |name: &str| root.path().join(name).metadata().unwrap().len();
    let mut story = Story::default();
    let main = size("log.db");
    let groups = append_until_due(&mut log, &mut story);
    assert_eq!(size("log.db"), main, "no append does a checkpoint");
    log.checkpoint().unwrap();
    assert!(size("log.db") > main && !log.is_checkpoint_due());
    let gathered = size("log.db-wal");
    for _ in 0..5 {
        let again = append_until_due(&mut log, &mut story);
        assert!(again.abs_diff(groups) <= 2, "{again} groups, {groups} at first");
        log.checkpoint().unwrap();
    }
    assert!(size("log.db-wal") <= gathered + 10 * 4096, "written over, not behind");
}

#[test]
fn a_reader_in_the_way_of_a_checkpoint_does_not_have_each_commit_try_it() {
    let root = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(root.path()).unwrap();
    let (mut log, _) = SqliteLog::open(&folder, LogOptions { checkpoint_pages: 40 }).unwrap();
    let mut story = Story::default();
    append(&mut log, &traffic(&mut story, 3), 3);
    let reader = connect::reader(&folder.log_path()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM event;").unwrap();
    let groups = append_until_due(&mut log, &mut story);
    for _ in 0..3 {
        log.checkpoint().unwrap();
        let again = append_until_due(&mut log, &mut story);
        assert!(again.abs_diff(groups) <= 2, "{again} groups, {groups} at first");
    }
    drop(reader);
    log.checkpoint().unwrap();
    append(&mut log, &traffic(&mut story, 3), 3);
    let pages = log.gathered.since_moved();
    assert!(pages < 20, "{pages} pages: begun anew");
    let head = log.head();
    drop((folder, log));
    assert_eq!(testing::open(root.path()).2.head, head);
}

#[test]
fn a_killed_server_s_events_are_there_without_a_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let (_folder, mut log, _) = testing::open(&root.path().join("a"));
    let mut story = Story::default();
    append(&mut log, &traffic(&mut story, 100), 3);
    // What a killed process leaves: the file and its write-ahead file, no more.
    let copy = root.path().join("b");
    std::fs::create_dir(&copy).unwrap();
    for name in ["log.db", "log.db-wal"] {
        std::fs::copy(root.path().join("a").join(name), copy.join(name)).unwrap();
    }
    let wal = copy.join("log.db-wal");
    let size = wal.metadata().unwrap().len();
    assert!(size > 0);
    let (folder, whole, opened) = testing::open(&copy);
    assert_eq!(opened.head, log.head());
    assert!(!opened.clean);
    drop((folder, whole));
    // A write-ahead file whose last frame is torn: the groups before it are there.
    for name in ["log.db", "log.db-wal"] {
        std::fs::copy(root.path().join("a").join(name), copy.join(name)).unwrap();
    }
    let _ = std::fs::remove_file(copy.join("log.db-shm"));
    std::fs::File::options().write(true).open(&wal).unwrap().set_len(size - 100).unwrap();
    let (_folder, mut torn, opened) = testing::open(&copy);
    assert!(opened.head.seq < log.head().seq && opened.head.seq > Seq(0));
    assert_eq!(torn.read(Seq(1), 1).unwrap(), log.read(Seq(1), 1).unwrap());
}

#[test]
fn each_wrong_file_is_refused_for_what_it_is() {
    let root = tempfile::tempdir().unwrap();
    let mut story = Story::default();
    let events = script(&mut story);
    let refused = |name: &str, spoil: &dyn Fn(&Path), expected: &str| {
        let path = root.path().join(name);
        let (folder, mut log, _) = testing::open(&path);
        append(&mut log, &events, 4);
        drop((folder, log));
        spoil(&path);
        let folder = DataFolder::open(&path).unwrap();
        let error = SqliteLog::open(&folder, LogOptions::default()).unwrap_err();
        let text = format!("{error}: {:?}", std::error::Error::source(&error));
        assert!(text.contains(expected), "{name}: {text}");
    };
    let sql = |path: &Path, sql: &str| raw(path).execute_batch(sql).unwrap();
    refused(
        "newer",
        &|path| sql(path, "PRAGMA user_version = 9"),
        "schema version 9, this program knows versions up to 1",
    );
    refused("foreign", &|path| sql(path, "PRAGMA application_id = 5"), "is damaged");
    let text = |path: &Path| std::fs::write(path.join("log.db"), "not a database ".repeat(99));
    refused("text", &|path| text(path).unwrap(), "is damaged");
    let lost = |path: &Path| {
        std::fs::remove_file(path.join("log.db")).unwrap();
        std::fs::write(path.join("index.db"), "anything").unwrap();
    };
    refused("lost", &lost, "is missing or empty");
    let emptied = |path: &Path| {
        std::fs::write(path.join("log.db"), "").unwrap();
        std::fs::write(path.join("index.db"), "anything").unwrap();
    };
    refused("emptied", &emptied, "is missing or empty");
    let delete = "DELETE FROM event WHERE seq = (SELECT max(seq) - 1 FROM event)";
    refused("hole", &|path| sql(path, delete), "the event is missing");
    refused("head", &|path| sql(path, "DELETE FROM event WHERE seq = 1"), "begins at event 2");
    refused(
        "all",
        &|path| {
            sql(
                path,
                "UPDATE state SET trimmed_through = 3, trimmed_hash = zeroblob(32); DELETE FROM event",
            );
        },
        "every event is missing",
    );
    let flip = "UPDATE event SET body = replace(body, 'carol', 'mallo') WHERE seq = 9";
    refused("flipped", &|path| sql(path, flip), "`prev` is not the hash");
    refused(
        "cut",
        &|path| {
            sql(
                path,
                "UPDATE event SET body = substr(body, 1, 40) WHERE seq = (SELECT max(seq) FROM event)",
            );
        },
        "EOF while parsing",
    );
    let torn = |path: &Path| {
        let file = std::fs::File::options().write(true).open(path.join("log.db")).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    refused("torn", &torn, "is damaged");
}

#[test]
fn a_folder_whose_making_was_cut_short_is_made() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("log.db"), "").unwrap();
    assert!(testing::open(root.path()).2.created);
    assert!(!testing::open(root.path()).2.created);
}

#[cfg(unix)]
#[test]
fn the_files_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let (_folder, mut log, _) = testing::open(root.path());
    append(&mut log, &script(&mut Story::default()), 4);
    for name in ["log.db", "log.db-wal", "log.db-shm"] {
        let mode = root.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

#[test]
fn the_log_keeps_the_folder_locked() {
    let root = tempfile::tempdir().unwrap();
    let (folder, log, _) = testing::open(root.path());
    drop(folder);
    assert!(DataFolder::open(root.path()).is_err());
    drop(log);
    DataFolder::open(root.path()).unwrap();
}

#[test]
fn a_log_whose_making_was_interrupted_is_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let making = root.path().join("making.db");
    let connection = Connection::open(&making).unwrap();
    // More than fits into the cache, so that pages are in the file before the commit.
    connection
        .execute_batch(&format!(
            "PRAGMA cache_size = 1; BEGIN IMMEDIATE; {SCHEMA}
             WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100)
             INSERT INTO event SELECT n, zeroblob(4000) FROM n;"
        ))
        .unwrap();
    let data = root.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for (from, to) in [("making.db", "log.db"), ("making.db-journal", "log.db-journal")] {
        std::fs::copy(root.path().join(from), data.join(to)).unwrap();
    }
    drop(connection);
    assert!(data.join("log.db").metadata().unwrap().len() > 0);
    assert!(
        connect::reader(&data.join("log.db")).and_then(|found| connect::versions(&found)).is_err()
    );
    let (_folder, _log, opened) = testing::open(&data);
    assert!(opened.created, "{opened:?}");
    assert_eq!(opened.head, Head::default());
}

#[test]
fn the_shared_memory_stays_in_place_when_a_commit_fails() {
    let root = tempfile::tempdir().unwrap();
    let (_folder, mut log, _) = testing::open(root.path());
    let mut story = Story::default();
    append(&mut log, &script(&mut story), 20);
    Sqlite::sabotage(&mut log);
    let events = traffic(&mut story, 500);
    let lease = LeaseTime(story.lease);
    assert!(log.append(&Group { events: &events, lease }).is_err());
    // Nobody writes now. Were it made anew on a full disk, touching it could end the process.
    assert!(log.connection.is_none());
    assert!(root.path().join("log.db-shm").exists());
    log.reopen().unwrap();
}
