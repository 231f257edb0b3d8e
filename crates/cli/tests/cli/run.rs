//! `leasehold run`, as scripts use it. That commands never overlap is tested from outside, by
//! `tests/black-box/run-overlap`.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Server, json, leasehold, until};

/// `leasehold run` with these arguments.
fn run(server: &Server, args: &[&str]) -> Command {
    let mut command = leasehold(&["run"]);
    command.args(args).env("LEASEHOLD_SERVER", server.address().to_string());
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

/// Its code, standard output and standard error.
fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn end(server: &Server, args: &[&str]) -> (i32, String, String) {
    ended(run(server, args).output().unwrap())
}

fn is_locked(server: &Server, resource: &str) -> bool {
    server.get(&format!("{resource}/lock")).json()["locked"].as_bool().unwrap()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Starts it, and waits until its command has made this file.
fn begun(server: &Server, args: &[&str], file: &Path) -> Child {
    let mut command = run(server, args);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the command", || file.exists().then_some(()));
    child
}

/// Whether a process with this word among its arguments is alive.
fn lives(word: &str) -> bool {
    let running = |folder: &Path| {
        let line = fs::read(folder.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|part| part == word.as_bytes())
    };
    fs::read_dir("/proc").unwrap().flatten().any(|entry| running(&entry.path()))
}

#[test]
fn the_command_has_its_lock_and_its_code_is_passed_on() {
    let server = Server::start();
    let script = "echo $LEASEHOLD_TOKEN; echo $LEASEHOLD_FENCE $LEASEHOLD_RESOURCE \
                  $LEASEHOLD_SERVER; cat; exit 7";
    let (code, out, err) = end(&server, &["/jobs/a", "--", "sh", "-c", script]);
    assert_eq!((code, &*err), (7, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("lock_"), "{out}");
    assert_eq!(lines[1], format!("1 /jobs/a http://{}", server.address()));
    assert!(!is_locked(&server, "/jobs/a"), "it is released");

    // Its writes are let through, for the token is where the program looks for it.
    let put = [env!("CARGO_BIN_EXE_leasehold"), "put", "/jobs/a", "-d", "1"];
    let (code, _, err) = end(&server, &[&["/jobs/a", "--"], &put[..]].concat());
    assert_eq!(code, 0, "{err}");

    assert_eq!(end(&server, &["/jobs/a", "--", "sh", "-c", "kill -KILL $$"]).0, 137);
    let (code, _, err) = end(&server, &["/jobs/a", "--", "/nonexistent/program"]);
    assert_eq!(code, 127);
    assert!(err.contains("cannot run /nonexistent/program: "), "{err}");
    assert_eq!(end(&server, &["/jobs/a", "--", "/"]).0, 126);
    assert!(!is_locked(&server, "/jobs/a"));
}

#[test]
fn standard_input_and_arguments_reach_the_command_as_they_are() {
    let server = Server::start();
    let mut child =
        run(&server, &["/a", "--", "sh", "-c", "cat; printf '[%s]' \"$@\"", "-", "", "--", "a b"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"in\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "in\n[][--][a b]");
    // No file of ours is open in it.
    let (_, out, _) = end(&server, &["/a", "--", "sh", "-c", "ls /proc/self/fd | wc -l"]);
    let without = Command::new("sh").args(["-c", "ls /proc/self/fd | wc -l"]).output().unwrap();
    assert_eq!(out.as_bytes(), without.stdout);
}

#[test]
fn what_is_busy_is_waited_for_skipped_or_a_failure() {
    let server = Server::start();
    let held = server.lock("/a", json!({ "ttl_seconds": 60 }));
    for (args, code) in [
        (&["/a", "--wait", "200ms", "--", "echo", "ran"][..], 75),
        (&["/a", "--on-busy", "fail", "--", "echo", "ran"], 75),
        (&["/a", "--on-busy", "skip", "--", "echo", "ran"], 0),
        (&["/a", "/b", "--on-busy", "fail", "--", "echo", "ran"], 75),
    ] {
        let (ended, out, err) = end(&server, args);
        assert_eq!((ended, &*out), (code, ""), "{args:?}: {err}");
        assert!(err.contains("did not get the lock: /a is locked by anonymous"), "{err}");
        assert_eq!(err.contains("skipped the command"), code == 0, "{err}");
    }
    let any = ["/a", "/b", "--any-of", "--", "sh", "-c", "echo $LEASEHOLD_RESOURCE"];
    assert_eq!(end(&server, &any), (0, "/b\n".to_owned(), String::new()));

    let waiting =
        run(&server, &["/a", "--", "echo", "ran"]).stdout(Stdio::piped()).spawn().unwrap();
    server.queued("/a", 1);
    server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
    let (code, out, _) = ended(waiting.wait_with_output().unwrap());
    assert_eq!((code, &*out), (0, "ran\n"));
}

#[test]
fn who_is_ended_while_it_waits_leaves_the_queue_and_runs_nothing() {
    let server = Server::start();
    server.lock("/a", json!({ "ttl_seconds": 60 }));
    let mut waiting =
        run(&server, &["/a", "--", "echo", "ran"]).stdout(Stdio::piped()).spawn().unwrap();
    server.queued("/a", 1);
    signal(&waiting, "TERM");
    let status = until("its end", || waiting.try_wait().unwrap());
    assert_eq!(status.code(), Some(143));
    server.queued("/a", 0);
}

#[test]
fn signals_are_passed_on_to_the_whole_group() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    for name in ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH"] {
        let file = folder.path().join(name);
        // A shell has what it starts with `&` ignore the first two.
        let is_for_all = name != "INT" && name != "QUIT";
        let child = format!(
            "(trap 'echo child got; exit' {name}; echo > \"$1\"; while :; do sleep 0.05; done) &"
        );
        let script = format!(
            "trap '{} echo got; exit 9' {name}; {} while :; do sleep 0.05; done",
            if is_for_all { "wait;" } else { "" },
            if is_for_all { &child } else { "echo > \"$1\";" },
        );
        let args = ["/a", "--", "sh", "-c", &script, "-", file.to_str().unwrap()];
        let child = begun(&server, &args, &file);
        signal(&child, name);
        let (code, out, err) = ended(child.wait_with_output().unwrap());
        assert_eq!(code, 9, "{name}: {err}");
        let expected = if is_for_all { "child got\ngot\n" } else { "got\n" };
        assert_eq!(out, expected, "{name}");
    }
    let file = folder.path().join("default");
    let args =
        ["/a", "--", "sh", "-c", "echo > \"$1\"; exec sleep 60", "-", file.to_str().unwrap()];
    let child = begun(&server, &args, &file);
    signal(&child, "TERM");
    assert_eq!(ended(child.wait_with_output().unwrap()).0, 143);
    assert!(!is_locked(&server, "/a"));
}

#[test]
fn what_was_ignored_stays_ignored_for_the_command() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("begun");
    let program = env!("CARGO_BIN_EXE_leasehold");
    let script =
        "trap '' HUP; exec \"$0\" run /a -- sh -c 'echo > \"$1\"; sleep 0.5; echo done' - \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, program]).arg(&file);
    command.env("LEASEHOLD_SERVER", server.address().to_string()).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    until("the command", || file.exists().then_some(()));
    signal(&child, "HUP");
    let (code, out, _) = ended(child.wait_with_output().unwrap());
    assert_eq!((code, &*out), (0, "done\n"));
}

#[test]
fn what_the_command_leaves_behind_is_ended_before_the_lock_is_let_go() {
    let server = Server::start();
    let word = format!("left-behind-{}", std::process::id());
    let script = format!("sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' {word} & exit 3");
    let began = Instant::now();
    let (code, _, err) = end(&server, &["/a", "--grace", "300ms", "--", "sh", "-c", &script]);
    assert_eq!(code, 3);
    assert!(err.contains("stopping what it left behind"), "{err}");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(!lives(&word) && !is_locked(&server, "/a"));
}

#[test]
fn a_lock_that_is_lost_ends_the_command_with_69() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let script = "echo > \"$1\"; exec sleep 60";
    let begin = |name: &str| {
        let file = file(name);
        let resource = format!("/{name}");
        let args =
            [&resource, "--ttl", "2s", "--", "sh", "-c", script, "-", file.to_str().unwrap()];
        begun(&server, &args, &file)
    };
    let broken = begin("broken");
    server.post("/broken/lock/break", json!({ "reason": "Enough" })).ok(200);
    let (code, _, err) = ended(broken.wait_with_output().unwrap());
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("the lock was lost, killing the command"), "{err}");

    // With a grace: it is told to end while it still may write.
    let breaking = begin("breaking");
    let body = json!({ "reason": "Enough", "grace_seconds": 1 });
    server.post("/breaking/lock/break", body).ok(200);
    let (code, _, err) = ended(breaking.wait_with_output().unwrap());
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("is being broken, stopping the command"), "{err}");

    let paused = begin("paused");
    server.signal("STOP");
    let (code, _, err) = ended(paused.wait_with_output().unwrap());
    server.signal("CONT");
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("cannot renew the lock"), "{err}");
    assert!(err.contains("could not be renewed in time: stopping the command"), "{err}");
}

#[test]
fn no_secret_is_among_the_arguments_of_any_process_or_in_what_is_said() {
    let server = Server::start();
    let script = "lines=$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '); \
                  case $lines in *\"$LEASEHOLD_TOKEN\"*) echo found;; esac; \
                  tr '\\0' '\\n' </proc/$PPID/environ | grep -c TOKEN";
    let (_, out, err) = end(&server, &["/a", "--", "sh", "-c", script]);
    assert_eq!((&*out, &*err), ("0\n", ""));
    let reason = [
        "/a",
        "--",
        "sh",
        "-c",
        "curl --version >/dev/null; \"$0\" show /a",
        env!("CARGO_BIN_EXE_leasehold"),
        "hunter2",
    ];
    let (_, out, _) = end(&server, &reason);
    assert!(out.contains("leasehold run sh, process ") && !out.contains("hunter2"), "{out}");
}

#[test]
fn killing_the_watchdog_stops_the_command() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("begun");
    let args =
        ["/a", "--", "sh", "-c", "echo > \"$1\"; exec sleep 60", "-", file.to_str().unwrap()];
    let child = begun(&server, &args, &file);
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let watchdog = fs::read_to_string(children).unwrap();
    let watchdog = watchdog.split_whitespace().find(|id| {
        fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap().contains("run-watchdog")
    });
    let killed = Command::new("kill").args(["-s", "KILL", watchdog.unwrap()]).status().unwrap();
    assert!(killed.success());
    let (code, _, err) = ended(child.wait_with_output().unwrap());
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("the watchdog is gone: stopping the command"), "{err}");
}
