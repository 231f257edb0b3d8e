use std::sync::atomic::{AtomicBool, Ordering};

use leasehold_core::event::RecoveryCause;

use super::*;
use crate::log::Log;
use crate::query::AuditReader;
use crate::recovery::IndexState;
use crate::testing::{self, MapRows, Story, append, script, traffic};
use crate::verify::verify;

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_backup_taken_while_a_server_writes_restores_to_a_whole_trail() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let (_folder, mut log, _) = testing::open(&data);
    let documents = data.join("documents.db");
    let shop = Connection::open(&documents).unwrap();
    shop.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE version (admission INTEGER)")
        .unwrap();
    fs::write(data.join(KEYS_FILE), "{}").unwrap();
    fs::write(data.join(TOKEN_KEY_FILE), "secret").unwrap();
    let mut story = Story::default();
    append(&mut log, &script(&mut story), 20);
    let done = AtomicBool::new(false);
    let made = std::thread::scope(|scope| {
        let (log, story, done) = (&mut log, &mut story, &done);
        let writer = scope.spawn(move || {
            // A document's version is written after the admission that it names is durable.
            while !done.load(Ordering::Relaxed) {
                append(log, &traffic(story, 5), 4);
                let seq = i64::try_from(log.head().seq.0).unwrap();
                shop.execute("INSERT INTO version VALUES (?1)", [seq]).unwrap();
            }
        });
        let made: Vec<_> = (0..4)
            .map(|number| {
                let dest = root.path().join(format!("backup-{number}"));
                let report = backup(&data, Some(&documents), &dest, number == 3);
                (dest, report)
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        made
    });
    for (number, (dest, report)) in made.into_iter().enumerate() {
        let report = report.unwrap();
        assert_eq!(report.bytes, dest.metadata().unwrap().len());
        let new = root.path().join(format!("new-{number}"));
        let restored = restore(&dest, &new).unwrap();
        assert_eq!(restored, report);
        let mut expected = vec![DOCUMENTS_FILE, KEYS_FILE, LOG_FILE];
        expected.extend((number == 3).then_some(TOKEN_KEY_FILE));
        assert_eq!(names(&new), expected);
        let judged =
            verify(&AuditReader::open(&new).unwrap(), Some((report.head.seq, report.head.hash)));
        assert_eq!(judged.unwrap().findings, []);
        let newest: i64 = Connection::open(new.join(DOCUMENTS_FILE))
            .unwrap()
            .query_row("SELECT ifnull(max(admission), 0) FROM version", [], |row| row.get(0))
            .unwrap();
        assert!(newest <= i64::try_from(report.head.seq.0).unwrap());
        let (folder, mut log, opened) = testing::open(&new);
        assert!(opened.restored && !opened.clean && !opened.created);
        let (rows, loaded) = testing::load(&folder, &mut log);
        assert_eq!(loaded.index, IndexState::Missing);
        let events = log.read(Seq(0), usize::MAX >> 1).unwrap();
        let events: Vec<_> = events.iter().map(|stored| stored.event().unwrap()).collect();
        assert_eq!(rows, MapRows::of(&events));
        let mut story =
            Story { seq: opened.head.seq.0, lease: opened.head.lease.0, fence: 1 << 32 };
        append(&mut log, &[story.recovered(RecoveryCause::Restored)], 1);
        drop((folder, log));
        assert!(!testing::open(&new).2.restored);
    }
    let left = names(root.path());
    assert!(left.iter().all(|name| !name.contains("partial")), "{left:?}");
}

const FROM: &str = "LEASEHOLD_TEST_BACKUP_FROM";
const TO: &str = "LEASEHOLD_TEST_BACKUP_TO";

#[test]
#[ignore = "the child of the test below; does nothing by itself"]
fn the_child_makes_a_backup() {
    let (Some(from), Some(to)) = (std::env::var_os(FROM), std::env::var_os(TO)) else { return };
    backup(Path::new(&from), None, Path::new(&to), false).unwrap();
}

#[test]
fn another_process_makes_a_backup_and_leaves_the_write_ahead_file_to_the_server() {
    let root = tempfile::tempdir().unwrap();
    let (data, dest) = (root.path().join("data"), root.path().join("backup"));
    let (_folder, mut log, _) = testing::open(&data);
    let mut story = Story::default();
    append(&mut log, &traffic(&mut story, 50), 10);
    let wal = data.join("log.db-wal");
    let before = fs::read(&wal).unwrap();
    assert!(!before.is_empty());
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "backup::tests::the_child_makes_a_backup"])
        .env(FROM, &data)
        .env(TO, &dest)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert_eq!(fs::read(&wal).unwrap(), before);
    append(&mut log, &traffic(&mut story, 5), 10);
    let report = restore(&dest, &root.path().join("new")).unwrap();
    assert!(report.head.seq > Seq(0) && report.head.seq < log.head().seq);
}

#[test]
fn a_folder_with_anything_in_it_is_not_restored_into() {
    let root = tempfile::tempdir().unwrap();
    let (_folder, mut log, _) = testing::open(&root.path().join("data"));
    append(&mut log, &script(&mut Story::default()), 20);
    let dest = root.path().join("backup");
    backup(&root.path().join("data"), None, &dest, false).unwrap();
    let new = root.path().join("new");
    fs::create_dir(&new).unwrap();
    fs::write(new.join("a note"), "").unwrap();
    let error = restore(&dest, &new).unwrap_err();
    assert!(matches!(error, BackupError::NotEmpty { .. }), "{error}");
    fs::remove_file(new.join("a note")).unwrap();
    restore(&dest, &new).unwrap();
}

#[test]
fn what_is_no_whole_backup_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let (_folder, mut log, _) = testing::open(&data);
    append(&mut log, &traffic(&mut Story::default(), 300), 20);
    let dest = root.path().join("backup");
    let whole = backup(&data, None, &dest, false).unwrap();
    let bytes = fs::read(&dest).unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let file = root.path().join(name);
        fs::write(&file, bytes).unwrap();
        let new = root.path().join(format!("{name}-new"));
        assert!(restore(&file, &new).is_err(), "{name}");
        assert!(!new.join(LOG_FILE).exists(), "{name}");
    };
    refused("empty", b"");
    refused("text", "no archive at all".repeat(100).as_bytes());
    refused("half", &bytes[..bytes.len() / 2]);
    let mut flipped = bytes.clone();
    let tail = flipped.windows(7).rposition(|window| window == b"user-5\"").unwrap();
    flipped[tail] ^= 1;
    refused("flipped", &flipped);
    let mut sly = tar::Builder::new(Vec::new());
    sly.append_data(&mut header(1), "run.sh", b"x".as_slice()).unwrap();
    refused("foreign", &sly.into_inner().unwrap());
    assert_eq!(restore(&dest, &root.path().join("good")).unwrap(), whole);
}

#[test]
fn no_server_starts_on_half_a_restore() {
    use crate::folder::DataFolder;
    use crate::log::sqlite::{LogOptions, OpenError, SqliteLog};

    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let (_folder, mut log, _) = testing::open(&data);
    append(&mut log, &traffic(&mut Story::default(), 300), 20);
    let documents = data.join(DOCUMENTS_FILE);
    Connection::open(&documents).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
    let dest = root.path().join("backup");
    backup(&data, Some(&documents), &dest, false).unwrap();
    let bytes = fs::read(&dest).unwrap();
    // Within the log, which comes after the documents; and within these.
    for (name, cut) in [("log", bytes.len() / 2), ("documents", 3000)] {
        let half = root.path().join("half");
        fs::write(&half, &bytes[..cut]).unwrap();
        let new = root.path().join(name);
        assert!(restore(&half, &new).is_err(), "{name}");
        let found = SqliteLog::open(&DataFolder::open(&new).unwrap(), LogOptions::default());
        assert!(matches!(found, Err(OpenError::Lost { .. })), "{name}: {found:?}");
    }
}

#[test]
fn a_backup_that_fails_leaves_the_one_before_it() {
    let root = tempfile::tempdir().unwrap();
    let dest = root.path().join("backup");
    fs::write(&dest, "the one before").unwrap();
    assert!(backup(&root.path().join("nowhere"), None, &dest, false).is_err());
    assert_eq!(fs::read_to_string(&dest).unwrap(), "the one before");
    assert_eq!(names(root.path()), ["backup"]);
}
