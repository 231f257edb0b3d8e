//! The server as a process: configuration, reloading, stopping, limits on connections.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use std::time::{Duration, Instant};

use crate::common::{Server, Setup, json, leasehold, until};

/// What the server says of this configuration, with its exit code.
fn refused(text: &str) -> (Option<i32>, String) {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = leasehold(&["serve", "--listen", "127.0.0.1:0", "--config"]);
    let out = command.arg(&file).arg("--data").arg(root.path().join("data")).output().unwrap();
    assert!(out.stdout.is_empty(), "it has started: {text}");
    assert!(!root.path().join("data").exists(), "nothing is made by a start that fails");
    (out.status.code(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_line_and_what_is_accepted() {
    for (text, line, says) in [
        ("listn = \"x\"\n", 1, "did you mean `listen`"),
        ("\n\nprefix = \"x\"\n", 3, "prefix"),
        ("lock_suffix = \"lock\"\n", 1, "lock_suffix"),
        ("log = \"loud\"\n", 1, "\"off\""),
        ("drain_wait = 5\n", 1, "drain_wait"),
        ("drain_wait = \"5 parsecs\"\n", 1, "drain_wait"),
        ("[identity]\nmode = \"oidc\"\n", 2, "\"keys\""),
        ("[identity]\nmode = \"jwt\"\n", 2, "`issuer`"),
        ("[identity]\nmod = \"keys\"\n", 2, "`mode`"),
        ("[limits]\nmax_document = \"lots\"\n", 2, "max_document"),
        ("[limits]\nmax_locks = -1\n", 2, "max_locks"),
        ("[[rule]]\nmatch = [\"a\"]\n", 2, "match"),
        ("[[rule]]\nlockable = true\n", 1, "match"),
        ("[[rule]]\nmatch = [\"/a\"]\nlocked_status = 418\n", 3, "409"),
        ("[[rule]]\nmatch = [\"/a\"]\ndefault_ttl = \"2h\"\n", 3, "max_ttl"),
        ("[[rule]]\nmatch = [\"/a\"]\nmax_ttl = \"0s\"\n", 3, "max_ttl"),
        ("[[rule]]\nmatch = [\"/a\"]\nlockabel = true\n", 3, "lockable"),
        ("cors_origins = [\"*\"]\n", 1, "origin"),
        ("listen = \n", 1, ""),
        ("a = 1\na = 2\n", 2, ""),
    ] {
        let (code, err) = refused(text);
        assert_eq!(code, Some(2), "{text}: {err}");
        assert!(err.contains(&format!("l.toml:{line}:")), "{text}: {err}");
        assert!(err.contains(says), "{text}: {err}");
    }
}

#[test]
fn settings_come_from_flags_and_environment_too() {
    let server = Setup::default().arg("--prefix").arg("/_x/").start();
    server.get("/_x/health/live").ok(200);
    let root = tempfile::tempdir().unwrap();
    let out = leasehold(&["serve", "--data"])
        .arg(root.path())
        .env("LEASEHOLD_LOG", "loud")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("LEASEHOLD_LOG"));
}

#[test]
fn a_configuration_is_read_again_and_a_broken_one_leaves_the_old() {
    let rule = |ttl: u32| {
        format!("[[rule]]\nmatch = [\"/a/**\"]\nmax_ttl = \"{ttl}s\"\ndefault_ttl = \"5s\"\n")
    };
    let server = Server::with(&rule(10));
    let max =
        || server.post("/a/x/lock", json!({"ttl_seconds": 1800})).json()["max_ttl_seconds"].clone();
    assert_eq!(max(), 10);
    server.write_config(&rule(20));
    server.signal("HUP");
    until("the new rules", || (max() == 20).then_some(()));
    server.write_config(&format!("{}\nnonsense = 1\n", rule(30)));
    server.signal("HUP");
    until("the mistake in the log", || {
        let log = server.log();
        (log.contains("leasehold.toml:6:") && log.contains("nonsense")).then_some(())
    });
    assert_eq!(max(), 20);
    server.write_config(&format!("prefix = \"/_y/\"\n{}", rule(40)));
    server.signal("HUP");
    until("the rest to be taken", || (max() == 40).then_some(()));
    until("what needs a restart", || server.log().contains("prefix").then_some(()));
    server.get("/-/health/live").ok(200);
}

#[test]
fn a_lock_outlives_a_kill_and_its_token_works_after() {
    let mut server = Server::start();
    let held = server.lock("/a", json!({"ttl_seconds": 600}));
    server.ask("PUT", "/a").token(&held).json(json!(1)).send().ok(201);
    let released = server.lock("/r", json!({}));
    server.ask("DELETE", "/r/lock").token(&released).send().ok(204);
    let hour = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    server.put("/f/lock/freeze", json!({"reason": "x", "until": hour})).ok(200);
    server.restart();
    server.put("/a", json!(2)).problem(423, "locked");
    server.put("/f", json!(2)).problem(423, "frozen");
    server.ask("PUT", "/a").token(&held).json(json!(2)).send().ok(204);
    server.ask("PATCH", "/a/lock").token(&held).send().ok(200);
    server.ask("DELETE", "/r/lock").token(&released).send().ok(204);
    server.ask("PUT", "/r").token(&released).json(json!(1)).send().problem(412, "lock-lost");
    let next = server.lock("/r", json!({}));
    assert!(next.fence > released.fence);
}

#[test]
fn a_stop_tells_waiters_lets_writes_end_and_exits_with_0() {
    let mut server = Server::start();
    let held = server.lock("/a", json!({"ttl_seconds": 600}));
    let waiter = server.ask("POST", "/a/lock?wait=25").spawn();
    server.queued("/a", 1);
    let mut stream = server.ask("GET", "/-/events").start();
    assert_eq!(stream.reply_head().status, 200);
    let mut idle = server.connect();
    idle.send("GET /-/health/live HTTP/1.1\r\nHost: a\r\n\r\n");
    idle.reply(false).ok(200);
    let began = Instant::now();
    server.signal("TERM");
    let told = waiter.join().unwrap();
    told.problem(503, "unavailable");
    assert!(told.field("retry-after").is_some());
    assert!(server.ended().success());
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(idle.is_closed());
    assert!(std::net::TcpStream::connect(server.address()).is_err());
    drop(held);
}

#[test]
fn a_write_that_has_begun_is_finished_by_a_stop() {
    let mut server = Server::start();
    let held = server.lock("/a", json!({"ttl_seconds": 600}));
    let mut slow = server.connect();
    slow.send(format!(
        "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-Lock-Token: {}\r\n\
         Content-Length: 6\r\n\r\n\"do",
        held.token
    ));
    // It is on its way once the server counts two connections: this one and the one that asks.
    until("the write to arrive", || {
        server.get("/-/metrics").text().contains("leasehold_connections 2").then_some(())
    });
    server.signal("TERM");
    until("the stop", || server.log().contains("stopping").then_some(()));
    slow.send("ne\"");
    let reply = slow.reply(false);
    // Either done, or told that it was not: never left open.
    assert!(matches!(reply.status, 201 | 503), "{reply:?}");
    assert!(server.ended().success());
}

#[test]
fn a_second_server_does_not_get_the_data_folder() {
    let server = Server::start();
    let out = leasehold(&["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(server.data())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(!out.stderr.is_empty());
    server.get("/-/health/ready").ok(200);
}

#[test]
fn one_connection_more_than_there_may_be_is_told_so() {
    let server = Server::with("[limits]\nmax_connections = 2\n");
    let mut first = server.connect();
    first.send("GET /-/health/live HTTP/1.1\r\nHost: a\r\n\r\n");
    first.reply(false).ok(200);
    let mut second = server.connect();
    second.send("GET /-/health/live HTTP/1.1\r\nHost: a\r\n\r\n");
    second.reply(false).ok(200);
    let mut third = server.connect();
    let turned = third.reply(false);
    turned.problem(503, "unavailable");
    assert!(turned.field("retry-after").is_some());
    drop(first);
    until("a place", || {
        let mut next = server.connect();
        next.try_send("GET /-/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .ok()?;
        (next.reply(false).status == 200).then_some(())
    });
}

#[test]
fn a_head_that_does_not_come_is_not_waited_for_without_end() {
    let server = Server::with("[limits]\nheader_timeout = \"300ms\"\n");
    let mut silent = server.connect();
    assert!(silent.is_closed());
    let mut torn = server.connect();
    torn.send("GET /a HTTP/1.1\r\nHost");
    let line = torn.line();
    assert!(line.is_empty() || line.contains(" 408 "), "{line}");
}

#[test]
fn the_second_address_serves_metrics_to_anyone_and_no_resource() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Setup::default()
        .arg("--admin-listen")
        .arg(&format!("127.0.0.1:{port}"))
        .key("alice", "reader", None)
        .start();
    server.get("/-/metrics").problem(401, "unauthenticated");
    server.by("alice", "GET", "/-/metrics").send().problem(403, "forbidden");
    let ask = |at: &str| server.ask("GET", at).on_port(port).send();
    ask("/-/metrics").ok(200);
    let resource = server.by("alice", "GET", "/a").on_port(port).send();
    resource.problem(404, "not-found");
    ask("/-/locks").problem(401, "unauthenticated");
    ask("/-/health/live").ok(200);
}

#[test]
fn one_connection_serves_many_requests() {
    let server = Server::start();
    let mut wire = server.connect();
    for at in 0..50 {
        wire.send(format!("PUT /k/{at} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1"));
        wire.reply(false).ok(201);
        wire.send(format!("PUT /k/{at}//x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1"));
        wire.reply(false).problem(400, "malformed-request");
    }
    // Pipelined.
    wire.send("GET /k/1 HTTP/1.1\r\nHost: a\r\n\r\nGET /k/2 HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.reply(false).ok(200);
    wire.reply(false).ok(200);
}

#[test]
fn a_rotated_token_secret_is_taken_on_sighup_and_old_tokens_still_work() {
    let server = Setup::default().start();
    let before = server.lock("/a", json!({}));
    let data = server.data().to_str().unwrap().to_owned();
    let rotated = leasehold(&["token-key", "rotate", "--data", &data]).output().unwrap();
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    server.signal("HUP");
    let mut number = 0;
    // The id of the secret is the first two bytes of a token: `AAI` begins those of secret 2.
    until("a token of the new secret", || {
        number += 1;
        let held = server.lock(&format!("/b/{number}"), json!({}));
        held.token.starts_with("lock_AAI").then_some(())
    });
    let renewed = server.ask("PATCH", "/a/lock").field("X-Lock-Token", &before.token).send();
    renewed.ok(200);
}
