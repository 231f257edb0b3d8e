//! Writers that die or run out of disk. Each is this test program, started again as a child: it
//! appends, says on standard output what was acknowledged, and the parent judges what is left.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::query::AuditReader;
use crate::testing::{self, Story, append, traffic};
use crate::verify::verify;

const FOLDER: &str = "LEASEHOLD_TEST_FOLDER";
const CHILD: &str = "log::sqlite::faults::the_child_appends_until_it_cannot";

#[test]
#[ignore = "the child of the tests below; does nothing by itself"]
fn the_child_appends_until_it_cannot() {
    let Some(path) = std::env::var_os(FOLDER) else { return };
    let (_folder, mut log, opened) = testing::open(Path::new(&path));
    let mut story =
        Story { seq: opened.head.seq.0, lease: opened.head.lease.0, fence: opened.head.seq.0 };
    let mut out = std::io::stdout();
    for round in 0_usize..5000 {
        let events = traffic(&mut story, 1 + round % 40);
        let lease = LeaseTime(story.lease);
        match log.append(&Group { events: &events, lease }) {
            Ok(()) => writeln!(out, "acknowledged {}", story.seq).unwrap(),
            Err(error) => {
                assert!(error.needs_reopen(), "{error}");
                // It may work now or not; what it says must be true either way.
                if let Ok(head) = log.reopen() {
                    writeln!(out, "acknowledged {}", head.seq).unwrap();
                }
                return;
            }
        }
    }
}

/// Runs a child below `limit` blocks of 512 bytes a file; kills it after `span`.
fn child(path: &Path, limit: &str, span: Option<Duration>) -> u64 {
    let program = std::env::current_exe().unwrap();
    // An ignored signal stays ignored over `exec`: writes then fail with EFBIG.
    let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .arg(program)
        .args(["--ignored", "--exact", CHILD, "--nocapture", "--test-threads=1"])
        .env(FOLDER, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .filter_map(|line| line.split("acknowledged ").nth(1)?.trim().parse().ok())
            .fold(0_u64, u64::max)
    });
    if let Some(span) = span {
        std::thread::sleep(span);
        child.kill().unwrap();
    }
    child.wait().unwrap();
    reader.join().unwrap()
}

/// Opens what was left, judges it, and goes on with it.
fn judge(path: &Path, acknowledged: u64) {
    let (folder, mut log, opened) = testing::open(path);
    assert!(opened.head.seq.0 >= acknowledged, "{opened:?} after {acknowledged}");
    assert!(!opened.clean || opened.head.seq == Seq(0), "{opened:?}");
    let report = verify(&AuditReader::open(path).unwrap(), None).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.events, opened.head.seq.0);
    let Head { seq, lease, .. } = opened.head;
    let mut story = Story { seq: seq.0, lease: lease.0, fence: seq.0 };
    append(&mut log, &traffic(&mut story, 3), 2);
    drop((folder, log));
}

#[test]
fn nothing_acknowledged_is_lost_wherever_a_write_fails() {
    let root = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for limit in [60, 97, 130, 201, 333, 500, 1001] {
        let path = root.path().join(limit.to_string());
        drop(testing::open(&path));
        let told = child(&path, &limit.to_string(), None);
        judge(&path, told);
        acknowledged.push(told);
    }
    assert!(acknowledged.iter().any(|told| *told > 0), "{acknowledged:?}");
    assert!(acknowledged.is_sorted(), "{acknowledged:?}");
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_process_is_killed() {
    let root = tempfile::tempdir().unwrap();
    drop(testing::open(root.path()));
    let mut told = 0;
    for span in [60, 110, 170] {
        told = child(root.path(), "unlimited", Some(Duration::from_millis(span))).max(told);
        judge(root.path(), told);
    }
    assert!(told > 0);
}
