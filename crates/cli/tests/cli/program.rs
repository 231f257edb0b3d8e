//! The program as its users run it.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;

use leasehold_core::event::{Event, EventBody, Origin, RecoveryCause};
use leasehold_core::ids::{Fence, Principal, Seq};
use leasehold_core::lock::Freeze;
use leasehold_core::resource::Resource;
use leasehold_core::time::{LeaseTime, WallTime};
use leasehold_journal::folder::DataFolder;
use leasehold_journal::log::sqlite::{LogOptions, SqliteLog};
use leasehold_journal::log::{Group, Log as _};

use crate::common::leasehold;

/// Runs it; answers with its code, standard output and standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = leasehold(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A data folder whose trail says that somebody froze `/a` and then `/b/c`.
fn trail(folder: &Path) -> SqliteLog {
    let (mut log, _) =
        SqliteLog::open(&DataFolder::open(folder).unwrap(), LogOptions::default()).unwrap();
    let recovered = EventBody::Recovered {
        cause: RecoveryCause::Created,
        incarnation: Arc::from("00"),
        fence_floor: Fence(0),
    };
    let bodies = [recovered, frozen("/a"), frozen("/b/c")];
    let events: Vec<Event> = (1..).zip(bodies).map(|(seq, body)| event(seq, body)).collect();
    log.append(&Group { events: &events, lease: LeaseTime(3) }).unwrap();
    log
}

fn event(seq: u64, body: EventBody) -> Event {
    let actor = Some(Principal::new("carol"));
    Event {
        seq: Seq(seq),
        at: WallTime(1_795_176_000_000),
        lease: LeaseTime(seq),
        origin: Origin { actor, ..Origin::default() },
        body,
    }
}

fn frozen(resource: &str) -> EventBody {
    EventBody::Frozen(Freeze {
        resource: Resource::parse(resource).unwrap(),
        by: Principal::new("carol"),
        reason: Arc::from("audit\u{1b}[2J"),
        since: WallTime(1_795_176_000_000),
        until: WallTime(1_795_176_060_000),
    })
}

#[test]
fn a_key_is_alone_on_the_last_line_and_can_be_listed_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let data = data.to_str().unwrap();
    let add = ["key", "add", "ci", "--role", "writer", "--path", "/a/**", "--data", data];
    let (code, out, err) = run(&add);
    assert_eq!(code, 0, "{err}");
    let key = out.strip_suffix('\n').unwrap();
    assert!(key.starts_with("lhk_") && !key.contains(['\n', ' ']), "{out}");
    assert!(err.contains("Made a key for ci (writer on /a/**)"), "{err}");
    let secret = key.rsplit('_').next().unwrap();
    assert!(!err.contains(secret));

    let (code, _, err) = run(&add);
    assert_eq!(code, 1);
    assert!(err.starts_with("leasehold: there is a key named `ci`; "), "{err}");

    let (code, out, _) = run(&["key", "ls", "--data", data]);
    assert_eq!(code, 0);
    assert!(out.starts_with("NAME") && out.contains("writer on /a/**"), "{out}");
    let (_, out, _) = run(&["key", "ls", "--json", "--data", data]);
    let keys: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(keys[0]["name"], "ci");
    assert_eq!(keys[0]["roles"][0]["paths"][0], "/a/**");
    assert!(keys[0].get("sha256").is_none() && !out.contains(secret));

    assert_eq!(run(&["key", "rm", "ci", "--data", data]).0, 0);
    let (code, _, err) = run(&["key", "rm", "ci", "--data", data]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no key named `ci`; `leasehold key ls` lists them"), "{err}");
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().to_str().unwrap();
    let file = root.path().join("leasehold.toml");
    std::fs::write(&file, "listn = 1\nlog = \"loud\"\n").unwrap();
    let file = file.to_str().unwrap();
    for (args, expected) in [
        (
            &["key", "add", "a", "--role", "boss", "--data", data][..],
            "`boss` is not a role: reader",
        ),
        (&["key", "add", "a", "--data", data], "--role <ROLE>"),
        (
            &["key", "add", "anonymous", "--role", "admin", "--data", data],
            "leasehold: a key cannot",
        ),
        (&["serve", "--log", "loud"], "leasehold: --log (or LEASEHOLD_LOG): `log`: `loud` is not"),
        (&["serve", "--config", file], ":1:1: unknown key `listn`; did you mean `listen`?\n"),
        (&["serve", "--config", file], ":2:7: `log`: `loud` is not \"off\", "),
        (&["serve", "--listen", "0.0.0.0:0", "--data", data], "--identity keys"),
        (&["audit", "query", "--resource", "a", "--data", data], "begin with a slash"),
        (&["audit", "query", "--since", "soon", "--data", data], "expected RFC 3339"),
        (&["audit", "verify", "--head", "1", "--data", data], "SEQ:HASH"),
        (&["explain", "lokced"], "leasehold: "),
    ] {
        let (code, out, err) = run(args);
        assert_eq!((code, &*out), (2, ""), "{args:?}: {err}");
        assert!(err.contains(expected), "{args:?}: {err}");
    }
}

#[test]
fn what_it_is_and_what_answers_mean_is_told() {
    let (code, out, _) = run(&["--version"]);
    assert_eq!((code, out.trim()), (0, concat!("leasehold ", env!("CARGO_PKG_VERSION"))));
    let (code, out, err) = run(&["explain", "423", "locked"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("423") && out.ends_with('\n'), "{out}");
    let (code, out, _) = run(&["serve", "--help"]);
    assert_eq!(code, 0);
    for setting in ["--lock-suffix", "LEASEHOLD_DRAIN_WAIT", "--allow-remote-anonymous"] {
        assert!(out.contains(setting), "{setting}");
    }
}

#[test]
fn the_trail_is_read_beside_the_server_that_has_the_folder() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let _serving = trail(&data);
    let data = data.to_str().unwrap();

    let (code, out, err) = run(&["audit", "query", "--data", data]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().count(), 3);
    let line = "2  2026-11-20T12:00:00.000Z  frozen  /a  by carol  \"audit\\u{1b}[2J\"";
    assert_eq!(out.lines().nth(1), Some(line));

    let below = ["audit", "query", "--resource", "/b", "--json", "--data", data];
    let (_, out, _) = run(&below);
    let event: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&event["seq"], &event["resource"]), (&3.into(), &"/b/c".into()));
    let newest = ["audit", "query", "--desc", "--limit", "1", "--data", data];
    assert!(run(&newest).1.starts_with("3  "));
    let early = ["audit", "query", "--until", "2020-01-01T00:00:00Z", "--data", data];
    assert_eq!(run(&early), (0, String::new(), String::new()));

    let nowhere = root.path().join("nowhere");
    let (code, _, err) = run(&["audit", "head", "--data", nowhere.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(err.starts_with("leasehold: ") && err.contains("--data names it"), "{err}");
    assert!(!nowhere.exists());
}

#[test]
fn follow_prints_what_happens_and_only_once() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let mut log = trail(&data);
    let mut follow = leasehold(&["audit", "follow", "--from", "2", "--type", "frozen", "--data"]);
    let mut follow = follow.arg(&data).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().starts_with("2  "));
    assert!(next().starts_with("3  "));
    for seq in 4..7 {
        let event = event(seq, frozen("/d"));
        log.append(&Group { events: &[event], lease: LeaseTime(seq) }).unwrap();
        assert!(next().starts_with(&format!("{seq}  ")));
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn a_trail_is_verified_against_the_head_that_was_kept() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    drop(trail(&data));
    let data = data.to_str().unwrap();
    let (code, head, _) = run(&["audit", "head", "--data", data]);
    assert_eq!(code, 0);
    let (code, out, err) = run(&["audit", "verify", "--head", head.trim(), "--data", data]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("3 events, 1 to 3; 0 live locks\n"), "{out}");
    assert!(out.ends_with(&format!("head {head}")), "{out}");

    let other = format!("3:{}", "00".repeat(32));
    let (code, out, err) = run(&["audit", "verify", "--head", &other, "--data", data]);
    assert_eq!(code, 3, "{out}{err}");
    assert!(out.contains("event 3: its hash is not that of the head"), "{out}");
    assert!(err.contains("the trail did not pass: 1 fault found"), "{err}");
}

#[test]
fn a_backup_is_restored_into_a_new_folder_only() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let (data, file, copy) = (path("data"), path("backup.tar"), path("copy"));
    let _serving = trail(root.path().join("data").as_path());
    run(&["key", "add", "ci", "--role", "admin", "--data", &data]);
    let head = run(&["audit", "head", "--data", &data]).1;

    let (code, out, err) = run(&["backup", &file, "--data", &data]);
    assert_eq!((code, &out), (0, &head), "{err}");
    assert!(err.contains("log.db, keys.json"), "{err}");
    let (code, out, err) = run(&["restore", &file, "--data", &copy]);
    assert_eq!((code, &out), (0, &head), "{err}");
    assert!(run(&["key", "ls", "--data", &copy]).1.contains("ci"));

    let (code, _, err) = run(&["restore", &file, "--data", &copy]);
    assert_eq!(code, 1);
    assert!(err.contains("is not empty") && err.contains("name a new folder"), "{err}");
    let (code, _, err) = run(&["restore", &path("data/keys.json"), "--data", &path("other")]);
    assert_eq!(code, 1, "{err}");
    let (code, _, _) = run(&["backup", &file, "--data", &path("nothing")]);
    assert_eq!(code, 1);
    assert!(Path::new(&file).exists(), "a failed backup leaves the last one alone");
}

#[test]
fn rules_are_checked_without_a_server() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("leasehold.toml");
    let rules = "[[rule]]\nmatch = [\"/v1/flags/{id}/**\"]\nresource = \"/flags/{id}\"\n\
                 reads = [\"POST:search\"]\nrequire_precondition = true\n\
                 [[rule]]\nmatch = [\"/logs/**\"]\nlockable = false\n";
    std::fs::write(&file, rules).unwrap();
    let config = file.to_str().unwrap();
    let check = |args: &[&str]| run(&[&["rules", "check", "--config", config], args].concat());

    assert_eq!(check(&["--human"]), (0, "2 rules, no mistake\n".to_owned(), String::new()));
    let (code, out, _) = check(&[
        "--human",
        "PATCH",
        "/v1/flags/7/on",
        "DELETE",
        "https://api.example.com/v1/flags?x=1",
        "POST",
        "/v1/flags/7:search",
        "POST",
        "/v1/flags/7/lock",
        "PUT",
        "/a//b",
        "GET",
        "/logs/1",
        "GET",
        "/-/locks",
    ]);
    let lines: Vec<String> =
        out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(code, 0);
    assert_eq!(
        lines,
        [
            "METHOD URL RULE DECISION RESOURCE NOTES",
            "PATCH /v1/flags/7/on 1 write /flags/7 needs a token or a precondition; needs the \
             tokens of locks on /flags/7",
            "DELETE https://api.example.com/v1/flags?x=1 defaults write /v1/flags not lockable; \
             needs the tokens of locks on /flags and all below, /v1/flags and all below, the \
             list of children of /v1",
            "POST /v1/flags/7:search 1 read /flags/7:search",
            "POST /v1/flags/7/lock 1 lock endpoint /flags/7",
            "PUT /a//b defaults 400 malformed-request - The path is no resource: the path has an \
             empty segment (`//`).",
            "GET /logs/1 2 read /logs/1 not lockable",
            "GET /-/locks defaults the server's own -",
        ]
    );
    let (code, out, _) = check(&["PUT", "/v1/flags/7"]);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["rules"]), (0, &serde_json::json!(2)));
    let request = &told["requests"][0];
    assert_eq!((&request["decision"], &request["rule"]), (&"write".into(), &1.into()));
    assert_eq!(request["precondition_required"], true);
    assert_eq!(request["tokens_of"][0]["resource"], "/flags/7");

    for (args, expected) in [
        (&["PUT"][..], "`PUT` is no request: give a method and a URL each"),
        (&["P T", "/a"], "`P T` is no method"),
        (&["PUT", "a b"], "`a b` is no URL"),
        (&["PUT", "example.com:80"], "`example.com:80` has no path"),
    ] {
        let (code, out, err) = check(args);
        assert_eq!((code, &*out), (2, ""), "{args:?}");
        assert!(err.contains(expected), "{err}");
    }
    std::fs::write(&file, format!("{rules}[[rule]]\nmatch = [\"/logs/x\"]\n")).unwrap();
    let (code, _, err) = check(&[]);
    assert_eq!(code, 2);
    assert!(
        err.contains(":10:10: `rule.match`: `/logs/x` can never match: the rule at line 6"),
        "{err}"
    );
}
