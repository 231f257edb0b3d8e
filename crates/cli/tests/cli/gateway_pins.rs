//! Section 9 of the wire contract: what an upstream does to a write, and to the locks around it.

use std::time::{Duration, Instant};

use crate::common::upstream::{Peer, Upstream, answer};
use crate::common::{Held, Server, Setup, Wire, json, until};

/// How `write_completed` tells that a write of `server` under a lock has ended.
fn completed(server: &Server) -> serde_json::Value {
    until("the end of the write", || server.audit("type=write_completed").into_iter().next())
}

#[test]
fn a_write_under_a_lock_tells_the_upstream_of_it_and_keeps_the_token() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let held = server.lock("/flags", json!({}));
    let mut client = server
        .ask("PUT", "/flags/x")
        .token(&held)
        .field("X-Lock-Fence", "9999")
        .field("x_lock_id", "forged")
        .field("X-Lock_Holder", "mallory")
        .field("X-Original-URL", "/other")
        .body("1")
        .start();
    let mut peer = upstream.accept();
    let got = peer.request();
    assert_eq!(got.field("x-lock-fence"), Some(held.fence.to_string().as_str()));
    assert_eq!(got.field("x-lock-id"), Some(held.id.as_str()));
    assert_eq!(got.field("x-lock-holder"), Some("anonymous"));
    for dropped in ["x_lock_id", "x-lock_holder", "x-original-url", "x-lock-token"] {
        assert_eq!(got.field(dropped), None);
    }
    peer.send(answer("200 OK", ""));
    assert_eq!(client.reply(false).status, 200);
    assert_eq!(completed(&server)["status"], 200);

    // Nor does a write without a lock bring any of it.
    let mut client = server.ask("PUT", "/free").field("X-Lock-Fence", "9999").body("1").start();
    assert_eq!(peer.request().field("x-lock-fence"), None);
    peer.send(answer("200 OK", ""));
    assert_eq!(client.reply(false).status, 200);
}

#[test]
fn without_the_token_nothing_reaches_the_upstream() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    server.lock("/flags/x", json!({}));
    for method in ["PUT", "POST", "PATCH", "DELETE", "BREW"] {
        server.ask(method, "/flags/x").body("1").send().problem(423, "locked");
    }
    // What takes everything below along, and what may create a child.
    server.ask("DELETE", "/flags").send().problem(423, "locked");
    assert!(upstream.is_quiet());
    let mut reader = server.ask("GET", "/flags/x").start();
    let mut peer = upstream.accept();
    peer.request();
    peer.send(answer("200 OK", "read"));
    assert_eq!(reader.reply(false).text(), "read");
}

#[test]
fn a_lock_is_granted_when_the_answers_of_the_writes_before_it_have_ended() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let mut writer = server.ask("PUT", "/x").body("1").start();
    let mut peer = upstream.accept();
    peer.request();
    let acquire = server.ask("POST", "/x/lock?wait=10").json(json!({})).spawn();
    server.queued("/x", 1);
    // From then on it is refused to others.
    server.ask("PUT", "/x").body("2").send().problem(423, "locked");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha");
    assert_eq!(writer.reply_head().status, 200);
    assert_eq!(writer.bytes(2), b"ha");
    // The head, and half of the body, are not the end.
    assert!(!acquire.is_finished());
    peer.send("lf");
    Held::of(acquire.join().unwrap());
    assert_eq!(writer.bytes(2), b"lf");
}

/// How the lock of a write that is on its way ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Expired,
    Released,
    Broken,
}

const ENDS: [End; 3] = [End::Expired, End::Released, End::Broken];

/// A write to `/x` under a lock that has ended since, and the upstream's end of it.
fn outlived(server: &Server, upstream: &Upstream, end: End) -> (Wire, Peer, Held) {
    let ttl = if end == End::Expired { 1 } else { 60 };
    let held = server.lock("/x", json!({"ttl_seconds": ttl}));
    let writer = server.ask("PUT", "/x").token(&held).body("1").start();
    let mut peer = upstream.accept();
    assert_eq!(peer.request().field("x-lock-fence"), Some(held.fence.to_string().as_str()));
    let told = match end {
        End::Expired => "expired",
        End::Released => {
            server.ask("DELETE", "/x/lock").token(&held).send().ok(204);
            "released"
        }
        End::Broken => {
            server.post("/x/lock/break", json!({"reason": "urgent"})).ok(200);
            "broken"
        }
    };
    until("the end of the lock", || server.audit(&format!("type={told}")).into_iter().next());
    (writer, peer, held)
}

#[test]
fn a_write_that_outlives_its_lock_lands_before_the_next_grant() {
    for end in ENDS {
        let upstream = Upstream::start();
        let server = upstream.gateway(&[]);
        let (mut writer, mut peer, held) = outlived(&server, &upstream, end);
        let acquire = server.ask("POST", "/x/lock?wait=15").json(json!({})).spawn();
        server.queued("/x", 1);
        // It has its place: neither the one before nor anybody else writes any more.
        let refused = server.ask("PUT", "/x").token(&held).body("2").send();
        assert!(matches!(refused.status, 412 | 423), "{end:?}: {refused:?}");
        server.ask("PUT", "/x").body("3").send().problem(423, "locked");
        assert!(upstream.is_quiet() && !acquire.is_finished(), "{end:?}");
        peer.send(answer("200 OK", "landed"));
        assert_eq!(writer.reply(false).text(), "landed", "{end:?}");
        let next = Held::of(acquire.join().unwrap());
        assert!(held.fence < next.fence, "{end:?}");
        assert!(next.body["predecessor_writes"].is_null(), "{end:?}: {next:?}");
        // The trail has it in this order.
        let completed = completed(&server);
        let acquired = server.audit("type=acquired&order=desc").remove(0);
        assert!(completed["seq"].as_u64() < acquired["seq"].as_u64(), "{end:?}");
    }
}

#[test]
fn a_write_that_outlives_its_lock_and_is_never_answered_is_told_as_unknown() {
    for end in ENDS {
        let upstream = Upstream::start();
        let server = upstream.gateway(&["--drain-time", "400ms"]);
        let (mut writer, peer, held) = outlived(&server, &upstream, end);
        let acquire = server.ask("POST", "/x/lock?wait=15").json(json!({})).spawn();
        server.queued("/x", 1);
        let began = Instant::now();
        peer.close();
        writer.reply(false).problem(502, "upstream-unreachable");
        let next = Held::of(acquire.join().unwrap());
        assert!(began.elapsed().as_millis() >= 400, "{end:?}: {:?}", began.elapsed());
        assert_eq!(next.body["predecessor_writes"], "unknown", "{end:?}");
        assert!(held.fence < next.fence, "{end:?}");
        assert_eq!(completed(&server)["result"], "unknown", "{end:?}");
    }
}

#[test]
fn who_does_not_wait_is_told_of_the_write_that_outlives_its_lock() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&["--drain-wait", "300ms"]);
    let (mut writer, mut peer, _) = outlived(&server, &upstream, End::Released);
    let problem = server.post("/x/lock", json!({})).problem(423, "locked");
    assert_eq!(problem["writes_in_flight"], 1, "{problem}");
    peer.send(answer("200 OK", ""));
    assert_eq!(writer.reply(false).status, 200);
    server.lock("/x", json!({}));
}

#[test]
fn a_lock_is_handed_over_when_the_writes_under_it_have_ended() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&["--drain-wait", "300ms"]);
    let held = server.lock("/x", json!({}));
    let mut writer = server.ask("PUT", "/x").token(&held).body("1").start();
    let mut peer = upstream.accept();
    peer.request();
    let transfer = || {
        let ask = server.ask("POST", "/x/lock/transfer").token(&held);
        ask.json(json!({"to": "bob"})).send()
    };
    let problem = transfer().problem(423, "locked");
    assert_eq!(problem["writes_in_flight"], 1, "{problem}");
    peer.send(answer("200 OK", ""));
    assert_eq!(writer.reply(false).status, 200);
    completed(&server);
    assert!(held.fence < Held::of(transfer()).fence);
}

#[test]
fn an_upstream_that_is_not_there_is_told_at_once_and_holds_nothing_up() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{gone}");
    let server = Setup::default().arg("--upstream").arg(&url).arg("--drain-time").arg("1h").start();
    let refused = server.ask("PUT", "/x").body("1").send();
    let problem = refused.problem(502, "upstream-unreachable");
    assert_eq!((&problem["outcome"], &problem["retryable"]), (&json!("not_sent"), &json!("same")));
    let held = server.lock("/x", json!({}));
    server.ask("PUT", "/x").token(&held).body("1").send().problem(502, "upstream-unreachable");
    assert_eq!(completed(&server)["result"], "not_sent");
    server.get("/x").problem(502, "upstream-unreachable");
    let metrics = server.get("/-/metrics");
    assert!(metrics.text().contains("leasehold_upstream_faults_total{fault=\"connect\"} 3\n"));
    assert!(!metrics.text().contains("name=\"upstream-unreachable\""));
}

#[test]
fn after_a_silence_a_write_stays_pinned_for_the_drain_time() {
    let upstream = Upstream::start();
    let server =
        upstream.gateway(&["--upstream-timeout", "300ms", "--drain-time", "1s", "--log", "debug"]);
    let held = server.lock("/x", json!({"ttl_seconds": 60}));
    let began = Instant::now();
    let mut writer = server.ask("PUT", "/x").token(&held).body("1").start();
    let mut peer = upstream.accept();
    peer.request();
    let problem = writer.reply(false).problem(504, "upstream-timeout");
    assert_eq!(problem["outcome"], "unknown");
    assert!(peer.is_closed(), "the gateway closes the connection");
    // The holder is gone, and still nobody gets the lock while the write may land.
    server.ask("DELETE", "/x/lock").token(&held).send().ok(204);
    let next = Held::of(server.post("/x/lock?wait=20", json!({})));
    assert!(began.elapsed().as_millis() >= 1300, "{:?}", began.elapsed());
    assert_eq!(next.body["predecessor_writes"], "unknown");
    // Whoever comes after that one has a predecessor whose writes are known.
    server.ask("DELETE", "/x/lock").token(&next).send().ok(204);
    assert!(server.lock("/x", json!({})).body["predecessor_writes"].is_null());
    assert_eq!(completed(&server)["result"], "unknown");
}

#[test]
fn a_write_that_goes_on_moving_may_take_any_time() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&["--upstream-timeout", "1s"]);
    let mut writer = server.connect();
    writer.send("PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut peer = upstream.accept();
    peer.head();
    let began = Instant::now();
    // The client's own pace is not the upstream's silence.
    while began.elapsed().as_millis() < 2500 {
        writer.send("1\r\na\r\n");
        assert_eq!(peer.chunk(), b"a");
        std::thread::sleep(Duration::from_millis(600));
    }
    writer.send("0\r\n\r\n");
    assert_eq!(peer.chunk(), b"");
    peer.send(answer("200 OK", ""));
    assert_eq!(writer.reply(false).status, 200);
}

#[test]
fn a_write_goes_on_to_its_end_without_its_client() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let held = server.lock("/x", json!({}));
    let writer = server.ask("PUT", "/x").token(&held).body("1").start();
    let mut peer = upstream.accept();
    peer.request();
    drop(writer);
    // The gateway notices, and goes on.
    peer.send("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nh");
    assert!(server.audit("type=write_completed").is_empty());
    peer.send("i");
    assert_eq!(completed(&server)["status"], 201);
}

#[test]
fn a_client_that_goes_within_its_body_ends_the_write_and_the_drain_time_runs() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&["--drain-time", "700ms"]);
    let held = server.lock("/x", json!({}));
    let mut writer = server.connect();
    writer.send(format!(
        "PUT /x HTTP/1.1\r\nHost: a\r\nX-Lock-Token: {}\r\nContent-Length: 10\r\n\r\nhalf",
        held.token
    ));
    let mut peer = upstream.accept();
    peer.head();
    assert_eq!(peer.bytes(4), b"half");
    let began = Instant::now();
    drop(writer);
    assert!(peer.is_closed());
    assert_eq!(completed(&server)["result"], "unknown");
    assert!(began.elapsed().as_millis() >= 700, "{:?}", began.elapsed());
}

#[test]
fn an_answer_that_breaks_off_leaves_the_outcome_unknown() {
    for half in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"] {
        let upstream = Upstream::start();
        let server = upstream.gateway(&["--drain-time", "100ms"]);
        let held = server.lock("/x", json!({}));
        let mut writer = server.ask("PUT", "/x").token(&held).body("1").start();
        let mut peer = upstream.accept();
        peer.request();
        peer.send(half);
        peer.close();
        let reply = writer.reply_head();
        if half.ends_with("half") {
            assert_eq!(reply.status, 200);
            assert_eq!(writer.bytes(4), b"half");
            assert!(writer.is_closed(), "the client sees that there is more");
        } else {
            assert_eq!(reply.status, 502, "{half:?}");
        }
        assert_eq!(completed(&server)["result"], "unknown", "{half:?}");
        assert!(upstream.is_quiet(), "a write is not sent twice");
    }
}

#[test]
fn a_read_is_sent_again_where_an_idle_connection_was_closed_and_a_write_is_not() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&["--drain-time", "0s"]);
    let warm = || {
        let mut reader = server.ask("GET", "/x").start();
        let mut peer = upstream.accept();
        peer.request();
        peer.send(answer("200 OK", ""));
        assert_eq!(reader.reply(false).status, 200);
        peer
    };
    let mut peer = warm();
    // So long a connection has to be idle before it may be closed for that.
    std::thread::sleep(Duration::from_millis(100));
    let mut reader = server.ask("GET", "/x").start();
    peer.request();
    peer.close();
    let mut peer = upstream.accept();
    peer.request();
    peer.send(answer("200 OK", "again"));
    assert_eq!(reader.reply(false).text(), "again");

    let mut writer = server.ask("PUT", "/x").body("1").start();
    peer.request();
    peer.close();
    let problem = writer.reply(false).problem(502, "upstream-unreachable");
    assert_eq!(
        (&problem["outcome"], &problem["retryable"]),
        (&json!("unknown"), &json!("after-change"))
    );
    assert!(upstream.is_quiet());
}

#[test]
fn a_rule_asks_for_preconditions_and_the_upstream_judges_them() {
    let upstream = Upstream::start();
    let setup = Setup::default()
        .config("[[rule]]\nmatch = [\"/strict/**\"]\nrequire_precondition = true\n");
    let server = setup.arg("--upstream").arg(&upstream.url()).start();
    server.put("/strict/x", json!(1)).problem(428, "precondition-required");
    assert!(upstream.is_quiet());
    let mut writer = server.ask("PUT", "/strict/x").field("If-Match", "\"1\"").body("1").start();
    let mut peer = upstream.accept();
    assert_eq!(peer.request().field("if-match"), Some("\"1\""));
    peer.send("HTTP/1.1 412 Precondition Failed\r\nContent-Length: 3\r\n\r\nold");
    let reply = writer.reply_head();
    assert_eq!((reply.status, writer.bytes(3)), (412, b"old".to_vec()));
    let batch = server.post("/-/batch", json!({"operations": []}));
    batch.problem(404, "not-found");
}

#[test]
fn after_a_kill_a_grant_waits_for_what_may_land_or_says_that_it_does_not_know() {
    let upstream = Upstream::start();
    let mut server = upstream.gateway(&["--upstream-timeout", "3500ms", "--drain-time", "500ms"]);
    let held = server.lock("/locked", json!({"ttl_seconds": 300}));
    // One of which there is a record, and one of which there is none.
    let recorded = server.ask("PUT", "/locked").token(&held).body("1").start();
    let mut peer = upstream.accept();
    peer.request();
    let unlocked = server.ask("PUT", "/x").body("1").start();
    let mut other = upstream.accept();
    other.request();
    let killed = Instant::now();
    server.restart();
    let began = Instant::now();
    drop((recorded, unlocked));
    let unknown = server.lock("/x", json!({}));
    assert_eq!(unknown.body["predecessor_writes"], "unknown");
    let acquired = server.audit("type=acquired&resource=/x").remove(0);
    assert_eq!(acquired["predecessor_writes"], "unknown");
    assert_eq!(completed(&server)["result"], "unknown");
    // One that gives up first goes ahead as well.
    let patient = server.ask("POST", "/y/lock?wait=0.2").json(json!({})).send();
    assert_eq!(Held::of(patient).body["predecessor_writes"], "unknown");
    assert!(began.elapsed().as_millis() < 4000, "{:?}", began.elapsed());
    let known = Held::of(server.post("/z/lock?wait=20", json!({})));
    assert!(known.body["predecessor_writes"].is_null(), "{known:?}");
    assert!(killed.elapsed().as_millis() >= 3999, "{:?}", killed.elapsed());
    assert!(server.lock("/later", json!({})).body["predecessor_writes"].is_null());
}

#[test]
fn a_stop_that_no_write_outlives_leaves_nothing_unknown() {
    let upstream = Upstream::start();
    let mut server = upstream.gateway(&["--drain-time", "1h"]);
    let mut writer = server.ask("PUT", "/x").body("1").start();
    let mut peer = upstream.accept();
    peer.request();
    peer.send(answer("200 OK", ""));
    assert_eq!(writer.reply(false).status, 200);
    server.signal("TERM");
    assert!(server.ended().success());
    server.start_again();
    assert!(server.lock("/x", json!({})).body["predecessor_writes"].is_null());
}

#[test]
fn a_stop_that_a_write_outlives_is_no_clean_one() {
    let upstream = Upstream::start();
    let setup = Setup::default().config("[limits]\nshutdown_timeout = \"300ms\"\n");
    let mut server = setup.arg("--upstream").arg(&upstream.url()).start();
    let _writer = server.ask("PUT", "/x").body("1").start();
    let mut peer = upstream.accept();
    peer.request();
    server.signal("TERM");
    assert!(server.ended().success());
    server.start_again();
    assert_eq!(server.lock("/x", json!({})).body["predecessor_writes"], "unknown");
}

#[test]
fn a_stop_that_an_answer_outlives_ends_as_it_should() {
    let upstream = Upstream::start();
    let setup = Setup::default().config("[limits]\nshutdown_timeout = \"300ms\"\n");
    let mut server = setup.arg("--upstream").arg(&upstream.url()).start();
    let mut writer = server.ask("PUT", "/x").body("1").start();
    let mut peer = upstream.accept();
    peer.request();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha");
    assert_eq!(writer.reply_head().status, 200);
    // The rest is read for its end alone.
    drop(writer);
    server.signal("TERM");
    assert!(server.ended().success());
    server.start_again();
    assert_eq!(server.lock("/x", json!({})).body["predecessor_writes"], "unknown");
}
