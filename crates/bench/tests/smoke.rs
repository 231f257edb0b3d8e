//! Every scenario runs, at sizes that say nothing about speed, and reports what it promises to.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// The server program of the same build.
fn server() -> PathBuf {
    let server = PathBuf::from(env!("CARGO_BIN_EXE_leasehold-bench")).with_file_name("leasehold");
    assert!(
        server.exists(),
        "{} is not there: build it first, with `cargo build -p leasehold-cli`",
        server.display()
    );
    server
}

/// Runs a scenario once, shortly, and gives its report.
fn run(scenario: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let out = Command::new(env!("CARGO_BIN_EXE_leasehold-bench"))
        .args(scenario)
        .args(["--runs", "1", "--seconds", "0.2", "--server"])
        .arg(server())
        .arg("--data")
        .arg(folder.path().join("data"))
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let left = folder.path().join("data").read_dir().unwrap().count();
    assert_eq!(left, 0, "a scenario cleans up");
    for extra in [&[][..], &["--readme"]] {
        let shown = Command::new(env!("CARGO_BIN_EXE_leasehold-bench"))
            .arg("show")
            .arg(&json)
            .args(extra)
            .output()
            .unwrap();
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        assert!(shown.stdout.starts_with(if extra.is_empty() { b"### " } else { b"| |" }));
    }
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}

/// The median of a figure.
fn figure(report: &Value, scenario: &str, server: &str, case: &str, name: &str) -> f64 {
    let list = |value: &Value, member: &str| value[member].as_array().unwrap().clone();
    let find = |list: Vec<Value>, is: &dyn Fn(&Value) -> bool| list.into_iter().find(is);
    let section = find(list(report, "sections"), &|section| section["scenario"] == scenario);
    let row = find(list(&section.unwrap(), "rows"), &|row| {
        row["server"] == server && row["case"] == case
    });
    let Some(row) = row else { panic!("no row {server}, {case} in {report:#}") };
    let figure = find(list(&row, "figures"), &|figure| figure["name"] == name);
    let Some(figure) = figure else { panic!("no figure {name} in {row:#}") };
    figure["value"]["median"].as_f64().unwrap()
}

#[test]
fn cycles_are_measured_beside_the_floor_and_the_disk() {
    let report = run(&["cycles", "--clients", "1,3"]);
    for case in ["1 client", "3 clients"] {
        for server in ["floor", "leasehold"] {
            assert!(0.0 < figure(&report, "cycles", server, case, "cycles/s"));
            assert!(0.0 < figure(&report, "cycles", server, case, "RSS MiB"));
            let acquire = figure(&report, "cycles", server, case, "acquire p50 µs");
            assert!(acquire <= figure(&report, "cycles", server, case, "cycle p50 µs"));
        }
        assert!(0.0 < figure(&report, "cycles", "leasehold", case, "of floor %"));
    }
    assert!(0.0 < figure(&report, "disk", "disk", "4 KiB", "append + fdatasync p50 µs"));
}

#[test]
fn renewals_are_measured() {
    let report = run(&["mix", "--mix-clients", "2"]);
    assert!(0.0 < figure(&report, "mix", "leasehold", "2 clients", "renew p50 µs"));
}

#[test]
fn attempts_are_granted_or_refused() {
    let report = run(&["contended", "--contending-clients", "4", "--hot-keys", "1"]);
    let rate = |name| figure(&report, "contended", "leasehold", "4 clients, 1 keys", name);
    let (attempts, grants, refusals) = (rate("attempts/s"), rate("grants/s"), rate("refusals/s"));
    assert!(0.0 < grants);
    assert!((grants + refusals - attempts).abs() < 1e-6 * attempts);
}

#[test]
fn whoever_waits_for_one_key_is_served_in_turn() {
    let report = run(&["handover", "--waiting-clients", "3"]);
    let find = |name| figure(&report, "handover", "leasehold", "3 clients, 1 key", name);
    assert!(0.0 < find("hand-overs/s"));
    assert!(find("shares apart") <= 1.0, "a queue is first come, first served");
}

#[test]
fn documents_are_read_and_written() {
    let report = run(&["documents", "--document-clients", "2"]);
    for case in ["GET", "PUT with If-Match", "PUT under a lock"] {
        assert!(0.0 < figure(&report, "documents", "leasehold", case, "requests/s"));
    }
}

#[test]
fn many_locks_outlive_a_kill_and_a_stop() {
    let report = run(&["many", "--live-locks", "500"]);
    let find = |name| figure(&report, "many", "leasehold", "500 live locks", name);
    assert!(0.0 < find("ready after kill s"));
    assert!(0.0 < find("ready after stop s"));
    assert!(0.0 < find("of an empty table %"));
}

#[test]
fn locks_that_end_at_once_are_free_after_their_deadlines() {
    let report = run(&["expiry", "--expiring-locks", "200", "--expiring-lead", "3"]);
    let find = |name| figure(&report, "expiry", "leasehold", "200 locks", name);
    assert!(find("end written after deadline p50 ms") <= find("end written after deadline max ms"));
    assert!(0.0 < find("free after deadline p50 ms"));
    assert!(0.0 < find("cycles/s meanwhile"));
}

#[test]
fn a_long_trail_is_asked() {
    let report = run(&["audit", "--events", "4000"]);
    let find = |case, name| figure(&report, "audit", "leasehold", case, name);
    assert!(0.0 < find("4,000 events", "ready with index s"));
    assert!(3.0 <= find("by lock_id", "events found"));
    assert_eq!(find("by a holder who never was", "events found"), 0.0);
    assert!(0.0 < find("by time: a minute of it", "p50 ms"));
}

#[test]
fn all_scenarios_are_one_report() {
    let report = run(&[
        "all",
        "--clients=1",
        "--mix-clients=1",
        "--contending-clients=2",
        "--hot-keys=1",
        "--waiting-clients=2",
        "--document-clients=1",
        "--live-locks=200",
        "--expiring-locks=200",
        "--expiring-lead=3",
        "--gateway-connections=2",
        "--events=3000",
    ]);
    let sections = report["sections"].as_array().unwrap();
    let names: Vec<&str> =
        sections.iter().map(|section| section["scenario"].as_str().unwrap()).collect();
    let expected = [
        "disk",
        "cycles",
        "mix",
        "contended",
        "handover",
        "documents",
        "many",
        "expiry",
        "gateway",
        "audit",
    ];
    assert_eq!(names, expected);
}
