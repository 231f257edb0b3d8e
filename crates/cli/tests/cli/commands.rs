//! The commands that talk to a server, as their users type them.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::{Server, Setup, json, leasehold};

/// How a command ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

fn end(command: &mut Command) -> Ended {
    let out = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: out.status.code().unwrap(), out: text(out.stdout), err: text(out.stderr) }
}

/// The program, with nothing of what the user of this machine has set up.
fn program(args: &[&str]) -> Command {
    let mut command = leasehold(args);
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

fn at(server: &Server, args: &[&str]) -> Ended {
    end(program(args).env("LEASEHOLD_SERVER", server.address().to_string()))
}

/// A server whose locks may be long: what is shown of their time does not change within a test.
fn server() -> Server {
    Server::with("[[rule]]\nmatch = [\"/**\"]\nmax_ttl = \"24h\"\n")
}

/// Five and a half hours, and some more for a busy machine.
const TTL: &str = "19830";

/// Without what differs from run to run, at its length.
fn redacted(text: &str) -> String {
    let mut shown = String::new();
    let word = |c: char| c.is_ascii_alphanumeric() || "-_:.".contains(c);
    for part in text.split_inclusive(|c| !word(c)) {
        let (name, rest) =
            part.split_at(part.trim_end_matches(|c| !word(c) || ":.".contains(c)).len());
        let digits = name.chars().filter(char::is_ascii_digit).count();
        let is_hex = |part: &str| part.len() == 8 && part.chars().all(|c| c.is_ascii_hexdigit());
        let redacted = if name.starts_with("lock_") && 40 < name.len() {
            "lock_TOKEN".to_owned()
        } else if name.len() == 36 && name.matches('-').count() == 4 {
            "LOCK-ID".to_owned() + &"-".repeat(29)
        } else if name.len() == 24 && name.ends_with('Z') && digits == 17 {
            "2026-11-20T12:00:00.000Z".to_owned()
        } else if let Some((_, number)) = name.split_once('-').filter(|(first, _)| is_hex(first)) {
            format!("incarnat-{number}")
        } else {
            name.to_owned()
        };
        shown.push_str(&redacted);
        shown.push_str(rest);
    }
    // On a busy machine.
    shown.replace("Would end, 2 s old", "Would end, 1 s old")
}

/// What each of these prints for people, one after the other.
fn session(server: &Server, commands: &[&[&str]]) -> String {
    let mut shown = String::new();
    for args in commands {
        let ended = at(server, &[*args, &["--human"]].concat());
        shown.push_str(&format!("$ leasehold {}\n", args.join(" ")));
        shown.push_str(&redacted(&ended.out));
        shown.push_str(&redacted(&ended.err));
        if ended.code != 0 {
            shown.push_str(&format!("(exit code {})\n", ended.code));
        }
        shown.push('\n');
    }
    shown
}

/// Every command that `--help` names, here or in the tests of what works on a data folder.
#[test]
fn every_command_of_the_help_is_known_to_the_tests() {
    let help = end(&mut program(&["--help"])).ok().out;
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    let names = commands.lines().filter(|line| line.starts_with("  ") && &line[2..3] != " ");
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    let tried = [
        "serve",
        "key",
        "token-key",
        "audit",
        "rules",
        "backup",
        "restore",
        "explain",
        "lock",
        "renew",
        "unlock",
        "run",
        "show",
        "ls",
        "break",
        "transfer",
        "request",
        "freeze",
        "unfreeze",
        "get",
        "put",
        "patch",
        "delete",
        "completions",
        "man",
        "help",
    ];
    assert_eq!(names, tried);
    for name in tried {
        let help = end(&mut program(&["help", name])).ok().out;
        assert!(help.contains("Usage: leasehold"), "{name}: {help}");
    }
}

#[test]
fn people_are_shown_tables_of_locks() {
    let server = server();
    let held = at(&server, &["lock", "/flags/a", "--ttl", TTL, "--quiet"]).ok().out;
    let token = held.trim();
    assert!(token.starts_with("lock_") && !token.contains('\n'));
    let metadata = r#"{"build":7}"#;
    let set: &[&str] = &["lock", "/x", "/y", "--ttl", TTL, "--metadata", metadata];
    insta::assert_snapshot!(session(
        &server,
        &[
            set,
            &["lock", "/docs", "--shared", "--depth", "0", "--ttl", TTL, "--reason", "Reading"],
            &["ls"],
            &["ls", "--resource", "/flags", "--holder", "anonymous"],
            &["ls", "--holder", "nobody"],
            &["ls", "--limit", "1"],
            &["show", "/flags/a/b"],
            &["show", "/nothing"],
            &["request", "/flags/a", "--message", "Two minutes?"],
            &["freeze", "/flags/a", "--reason", "Release", "--until", "2h"],
            &["show", "/flags/a"],
            &["unfreeze", "/flags/a"],
            &["break", "/flags/a", "--dry-run"],
            &["lock", "/any", "/flags/a", "--any-of", "--ttl", TTL],
        ]
    ));
    let end = |args: &[&str]| at(&server, &[args, &["--human", "--token", token]].concat());
    let renewed = end(&["renew", "/flags/a", "--ttl", TTL]).ok().out;
    insta::assert_snapshot!(redacted(&renewed));
    let moved = end(&["transfer", "/flags/a", "--to", "bob"]).ok().out;
    insta::assert_snapshot!(redacted(&moved));
    let gone = end(&["unlock", "/flags/a"]);
    assert_eq!(gone.code, 1);
    assert!(gone.err.contains("410 lock-gone"), "{}", gone.err);
    insta::assert_snapshot!(session(
        &server,
        &[
            &["break", "/flags/a", "--reason", "Gone home", "--grace", "2h"],
            &["show", "/flags/a"],
            &["break", "/x", "--reason", "Gone home"],
        ]
    ));
}

#[test]
fn people_are_shown_documents() {
    let server = server();
    insta::assert_snapshot!(session(
        &server,
        &[
            &["put", "/flags/a", "--data", r#"{"on": false}"#],
            &["put", "/flags/a", "--data", r#"{"on": true}"#, "--create"],
            &["get", "/flags/a"],
            &["patch", "/flags/a", "--data", r#"{"on": true}"#],
            &["patch", "/flags/a", "--data", r#"[{"op": "test", "path": "/on", "value": false}]"#],
            &["put", "/flags/a/below", "--data", "no JSON", "--content-type", "text/plain"],
            &["get", "/flags/a/below"],
            &["get", "/flags"],
            &["get", "/flags/a", "--list"],
            &["delete", "/flags/a"],
            &["delete", "/flags/a", "--recursive"],
            &["get", "/flags/a"],
        ]
    ));
}

#[test]
fn programs_are_given_what_the_server_says() {
    let server = server();
    let granted = at(&server, &["lock", "/a", "--ttl", "60", "--reason", "Why"]).ok().json();
    let seen = server.get("/a/lock").json()["locks"][0].clone();
    for member in ["lock_id", "resources", "fence", "ttl_seconds", "acquired_at", "reason", "depth"]
    {
        assert_eq!(granted[member], seen[member], "{member}");
    }
    assert!(granted["expires_in_ms"].is_u64());
    let id = granted["lock_id"].as_str().unwrap();
    let token = granted["lock_token"].as_str().unwrap();

    let shown = at(&server, &["show", id]).ok();
    assert_eq!(shown.json()["lock_id"], id);
    assert!(!shown.out.contains("lock_token") && !shown.out.contains(token));
    assert_eq!(at(&server, &["show", "/a"]).ok().json()["locked"], true);
    assert_eq!(at(&server, &["ls"]).ok().json()["items"][0]["lock_id"], id);
    let renewed = at(&server, &["renew", id, "--token", token, "--ttl", "90"]).ok().json();
    assert_eq!(renewed["ttl_seconds"], 90);

    // A refusal is JSON where JSON was asked for, and a sentence elsewhere.
    let refused = at(&server, &["lock", "/a", "--json"]);
    assert_eq!((refused.code, &*refused.out), (75, ""));
    let problem: Value = serde_json::from_str(&refused.err).unwrap();
    assert_eq!((&problem["status"], &problem["type"]), (&json!(423), &json!("/-/problems/locked")));
    let refused = at(&server, &["lock", "/a", "--wait", "100ms"]);
    assert_eq!(refused.code, 75);
    assert!(refused.err.starts_with("leasehold: /a is locked by anonymous"), "{}", refused.err);
    assert!(refused.err.contains("(423 locked); ask the holder with"), "{}", refused.err);

    assert_eq!(at(&server, &["unlock", id, "--token", token]).ok().out, "");
    assert_eq!(server.get("/a/lock").json()["locked"], false);

    let key = ["lock", "/a", "--idempotency-key", "once", "--quiet"];
    let first = at(&server, &key).ok().out;
    assert_eq!(at(&server, &key).ok().out, first, "the same lock for the same key");
    let broken = at(&server, &["break", "/a", "--reason", "x"]).ok().json();
    assert_eq!(broken["ends_in_ms"], 0);
    let frozen = at(&server, &["freeze", "/a", "--reason", "x", "--until", "1h"]).ok().json();
    assert_eq!(frozen["resource"], "/a");
    assert_eq!(at(&server, &["lock", "/a"]).code, 75);
    assert_eq!(at(&server, &["unfreeze", "/a"]).ok().out, "");
}

#[test]
fn documents_are_written_under_tokens_and_conditions_and_read_to_the_byte() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.bin");
    fs::write(&file, b"\x00\xffbytes").unwrap();
    let made = at(&server, &["put", "/bin", file.to_str().unwrap()]).ok().json();
    assert_eq!(made["created"], true);
    let mut get = program(&["get", "/bin"]);
    let out = get.env("LEASEHOLD_SERVER", server.address().to_string()).output().unwrap();
    assert_eq!(out.stdout, b"\x00\xffbytes");
    assert_eq!(server.get("/bin").field("content-type"), Some("application/octet-stream"));

    // Standard input.
    let mut put = program(&["put", "/doc", "-"]);
    put.env("LEASEHOLD_SERVER", server.address().to_string());
    let mut put = put.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(b"{\"n\": 1}").unwrap();
    assert!(put.wait().unwrap().success());
    assert_eq!(server.get("/doc").field("content-type"), Some("application/json"));

    let etag = at(&server, &["get", "/doc", "--etag"]).ok().out;
    let etag = etag.trim();
    let bare = etag.trim_matches('"');
    at(&server, &["put", "/doc", "--data", "{\"n\": 2}", "--if-match", bare]).ok();
    let stale = at(&server, &["patch", "/doc", "--data", "{\"n\": 3}", "--if-match", etag]);
    assert_eq!(stale.code, 1);
    assert!(stale.err.contains("412 precondition-failed"), "{}", stale.err);

    let token = at(&server, &["lock", "/doc", "--quiet"]).ok().out;
    let refused = at(&server, &["put", "/doc", "--data", "{\"n\": 4}"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("423 locked"), "{}", refused.err);
    let mut put = program(&["put", "/doc", "--data", "{\"n\": 4}"]);
    put.env("LEASEHOLD_SERVER", server.address().to_string()).env("LEASEHOLD_TOKEN", token.trim());
    end(&mut put).ok();
    assert_eq!(server.get("/doc").json()["n"], 4);
}

#[test]
fn wrong_arguments_end_with_2_and_say_what_is_right() {
    let server = server();
    for (args, expected) in [
        (&["lock"][..], "<RESOURCE>"),
        (&["lock", "a"], "a resource begins with a slash"),
        (&["lock", "/a", "--ttl", "soon"], "`soon` is not a duration such as"),
        (&["lock", "/a", "--ttl", "0"], "longer than nothing"),
        (&["lock", "/a", "--depth", "1"], "[possible values: infinity, 0]"),
        (&["lock", "/a", "--metadata", "[]"], "--metadata is not a JSON object"),
        (&["lock", "/a", "--json", "--human"], "cannot be used with"),
        (&["unlock", "/a", "--token", "hunter2"], "--token (or LEASEHOLD_TOKEN): "),
        (&["show", "x"], "expected a resource, which begins with a slash, or the id of a lock"),
        (&["break", "/a"], "--reason <TEXT>"),
        (&["freeze", "/a", "--reason", "x"], "--until <WHEN>"),
        (&["freeze", "/a", "--reason", "x", "--until", "dusk"], "RFC 3339"),
        (&["transfer", "/a"], "--to <NAME>"),
        (&["put", "/a"], "<FILE|->"),
        (&["put", "/a", "x", "--data", "y"], "cannot be used with"),
        (&["put", "/a", "-d", "1", "--create", "--if-match", "*"], "cannot be used with"),
        (&["patch", "/a", "--data", "{"], "the patch is not JSON"),
        (&["ls", "--server", "prod"], "there is no server named `prod`"),
        (&["ls", "--server", "ftp://a"], "--server: "),
        (&["ls", "--key-file", "/nonexistent/key"], "cannot read the key file /nonexistent/key"),
        (&["ls", "--config", "/nonexistent/c"], "cannot read the configuration file"),
        (&["run", "/a"], "<COMMAND>"),
        (&["run", "--", "true"], "<RESOURCE>"),
        (&["run", "/a", "--on-busy", "shrug", "--", "true"], "[possible values: wait, skip, fail]"),
        (&["completions", "csh"], "[possible values: bash, "),
    ] {
        let ended = at(&server, args);
        assert_eq!((ended.code, &*ended.out), (2, ""), "{args:?}: {}", ended.err);
        assert!(ended.err.contains(expected), "{args:?}: {}", ended.err);
        assert!(!ended.err.contains("hunter2"), "{}", ended.err);
    }
    let none = at(&server, &["renew", "/a"]);
    assert_eq!(none.code, 1);
    assert!(
        none.err.contains("give the lock's token: --token, or LEASEHOLD_TOKEN"),
        "{}",
        none.err
    );
    let missing = at(&server, &["put", "/a", "/nonexistent/file"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("cannot read /nonexistent/file"), "{}", missing.err);
}

#[test]
fn a_server_that_cannot_be_reached_is_4_for_every_command() {
    let commands = [
        "lock /a",
        "renew /a --token lock_x",
        "unlock /a --token lock_x",
        "show /a",
        "ls",
        "break /a --reason x",
        "transfer /a --to b --token lock_x",
        "request /a",
        "freeze /a --reason x --until 1h",
        "unfreeze /a",
        "get /a",
        "get /a --list",
        "put /a -d 1",
        "patch /a -d {}",
        "delete /a",
        "run /a --wait 0 -- false",
    ];
    let runs: Vec<_> = commands
        .into_iter()
        .map(|line| {
            let mut args: Vec<&str> = line.split(' ').collect();
            let server = ["--server", "127.0.0.1:1"];
            args.splice(1..1, server);
            let (out, err) = (Stdio::piped(), Stdio::piped());
            (line, program(&args).stdout(out).stderr(err).spawn().unwrap())
        })
        .collect();
    for (line, run) in runs {
        let out = run.wait_with_output().unwrap();
        let err = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(4), "{line}: {err}");
        assert!(err.contains("cannot connect to 127.0.0.1:1: "), "{line}: {err}");
        assert!(err.contains("is the server running at http://127.0.0.1:1?"), "{line}: {err}");
    }
}

/// A configuration file of this text and mode.
fn config(folder: &Path, text: &str, mode: u32) -> String {
    let file = folder.join("config.toml");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn servers_and_keys_have_names_in_a_file() {
    let server = Setup::default().key("alice", "writer", None).key("bob", "writer", None).start();
    let (url, key) = (format!("http://{}", server.address()), server.key("alice").to_owned());
    let folder = tempfile::tempdir().unwrap();
    let run = |file: &str, args: &[&str]| end(program(args).env("LEASEHOLD_CLIENT_CONFIG", file));
    let holder = |ended: Ended| ended.ok().json()["holder"].as_str().unwrap().to_owned();

    let text = format!("default = \"here\"\n[server.here]\nurl = \"{url}\"\nkey = \"{key}\"\n");
    let file = config(folder.path(), &text, 0o600);
    assert_eq!(holder(run(&file, &["lock", "/1"])), "alice");
    assert_eq!(holder(run(&file, &["lock", "/2", "--server", "here"])), "alice");
    // The URL of a server that has a name: commands that `run` starts know it so.
    assert_eq!(holder(run(&file, &["lock", "/3", "--server", &url])), "alice");
    // A flag goes before the environment, and that before the file.
    let bob = server.key("bob");
    assert_eq!(holder(run(&file, &["lock", "/4", "--key", bob])), "bob");
    let mut command = program(&["lock", "/5"]);
    command.env("LEASEHOLD_CLIENT_CONFIG", &file).env("LEASEHOLD_KEY", bob);
    assert_eq!(holder(end(&mut command)), "bob");
    let unknown = run(&file, &["ls", "--server", "there"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("there is no server named `there`; there is: here"));
    let wrong = run(&file, &["ls", "--key", "lhk_no"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("the key from --key is not one of its keys"), "{}", wrong.err);
    let none = end(&mut program(&["ls", "--server", &url]));
    assert!(none.err.contains("give --key-file, or LEASEHOLD_KEY"), "{}", none.err);

    let open = config(folder.path(), &text, 0o640);
    let refused = run(&open, &["ls"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("chmod 600") && !refused.err.contains(&key), "{}", refused.err);

    // A key in a file of its own, beside the configuration.
    fs::write(folder.path().join("alice.key"), format!("{key}\n")).unwrap();
    let text = format!("[server.here]\nurl = \"{url}\"\nkey_file = \"alice.key\"\n");
    let file = config(folder.path(), &text, 0o644);
    assert_eq!(holder(run(&file, &["lock", "/6", "--server", "here"])), "alice");
    let guarded = [
        "run",
        "/7",
        "--server",
        "here",
        "--",
        env!("CARGO_BIN_EXE_leasehold"),
        "put",
        "/7",
        "-d",
        "1",
    ];
    run(&file, &guarded).ok();

    let broken = format!("[server.here]\nurl = \"{url}\"\nkey = \"{key}\nkex = 1\n");
    let file = config(folder.path(), &broken, 0o600);
    let refused = run(&file, &["ls"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("config.toml:3: "), "{}", refused.err);
    assert!(!refused.err.contains(&key), "{}", refused.err);
    let file = config(folder.path(), "[server.a]\nurl = \"x\"\ntoken = 1\n", 0o600);
    let refused = run(&file, &["ls"]);
    assert!(refused.err.contains("config.toml:3: unknown field `token`"), "{}", refused.err);
}

#[test]
fn no_help_shows_a_secret_of_the_environment() {
    for name in ["lock", "unlock", "put", "run"] {
        let mut help = program(&[name, "--help"]);
        help.env("LEASEHOLD_TOKEN", "lock_hunter2").env("LEASEHOLD_KEY", "hunter2");
        let help = end(&mut help).ok();
        assert!(!help.out.contains("hunter2"), "{name}");
    }
}

#[test]
fn completions_and_manual_pages_are_of_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = end(&mut program(&["completions", shell])).ok().out;
        assert!(text.contains("unfreeze") && text.contains("any-of"), "{shell}");
        assert!(!text.contains("run-gate"), "{shell}");
    }
    assert!(end(&mut program(&["man"])).ok().out.contains(".TH leasehold 1"));
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    end(&mut program(&["man", pages.to_str().unwrap()])).ok();
    let mut names: Vec<_> = fs::read_dir(&pages)
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in ["leasehold.1", "leasehold-run.1", "leasehold-audit-verify.1"] {
        assert!(names.iter().any(|each| each == name), "{names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("run-") || name.contains("gate")), "{names:?}");
    let page = fs::read_to_string(pages.join("leasehold-run.1")).unwrap();
    assert!(page.contains("SIGKILL"), "{page}");
}
