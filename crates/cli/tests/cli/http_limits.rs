//! Limits of the whole server, rules in their order, and what happens by itself.

use crate::common::{Held, Server, Setup, json, until};

#[test]
fn the_server_keeps_no_more_locks_and_waiters_than_it_may() {
    let server = Server::with("[limits]\nmax_locks = 2\n");
    server.lock("/a", json!({}));
    server.lock("/b", json!({}));
    let full = server.post("/c/lock", json!({}));
    assert_eq!(full.problem(429, "too-many-locks")["limit"], 2);
    assert!(full.field("retry-after").is_some());
    let server = Server::with("[limits]\nmax_waiters = 1\n");
    let first = server.lock("/a", json!({}));
    server.lock("/b", json!({}));
    let waiter = server.ask("POST", "/a/lock?wait=20").spawn();
    server.queued("/a", 1);
    let full = server.post("/b/lock?wait=20", json!({}));
    full.problem(429, "queue-full");
    assert!(full.field("retry-after").is_some());
    server.ask("DELETE", "/a/lock").token(&first).send().ok(204);
    waiter.join().unwrap().ok(201);
}

#[test]
fn the_first_rule_that_matches_is_the_one() {
    let rule = |pattern: &str, ttl: u32| {
        format!("[[rule]]\nmatch = [{pattern}]\nmax_ttl = \"{ttl}s\"\ndefault_ttl = \"1s\"\n")
    };
    let server = Server::with(&format!(
        "{}{}{}",
        rule("\"/v1/flags/{id}\", \"/v2/{x}/{y}\"", 11),
        rule("\"/v1/**\"", 12),
        rule("\"/%61%20b/**\"", 13),
    ));
    let max = |at: &str| {
        server.post(&format!("{at}/lock"), json!({"ttl_seconds": 1e6})).json()["max_ttl_seconds"]
            .clone()
    };
    for (at, expected) in [
        ("/v1/flags/x", 11),
        ("/v1/flags/x/y", 12),
        ("/v1/flags", 12),
        ("/v2/a/b", 11),
        ("/v2/a", 1800),
        ("/v1x", 1800),
        ("/a%20b/c", 13),
        ("/other", 1800),
    ] {
        assert_eq!(max(at), expected, "{at}");
    }
    // Of several resources the strictest counts.
    let set = json!({"resources": ["/other", "/v1/flags/x"], "ttl_seconds": 12});
    assert_eq!(
        server.post("/-/locks", set).problem(422, "ttl-out-of-range")["max_ttl_seconds"],
        11
    );
}

#[test]
fn a_lock_that_ends_by_itself_goes_to_who_waits() {
    let server = Server::start();
    let held = server.lock("/a", json!({"ttl_seconds": 1}));
    let next = Held::of(server.post("/a/lock?wait=20", json!({})).ok(201));
    assert!(next.fence > held.fence);
    let waited = next.body["waited_ms"].as_u64().unwrap();
    assert!((500..3000).contains(&waited), "{waited}");
    let expired = until("its event", || server.audit("type=expired").pop());
    assert_eq!(expired["lock_id"], held.id);
    server.ask("PUT", "/a").token(&held).json(json!(1)).send().problem(423, "locked");
}

#[test]
fn what_belongs_to_later_is_absent_and_not_half_there() {
    let server = Server::start();
    for (at, body, field) in [
        ("/a/lock", json!({"claim_within_seconds": 5}), "claim_within_seconds"),
        ("/a/lock", json!({"handle": "x"}), "handle"),
    ] {
        assert_eq!(server.post(at, body).problem(400, "malformed-request")["field"], field);
    }
    let until = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    let retention = json!({"reason": "x", "until": until, "retention": true});
    let refused = server.put("/a/lock/freeze", retention).problem(400, "malformed-request");
    assert_eq!(refused["field"], "retention");
    server.get("/-/insights").problem(404, "not-found");
}

#[test]
fn a_set_is_retried_safely_too() {
    let server = Server::start();
    let ask = |body: serde_json::Value| {
        server.ask("POST", "/-/locks").field("Idempotency-Key", "set-1").json(body).send()
    };
    let body = json!({"resources": ["/a", "/b"]});
    let first = ask(body.clone()).ok(201);
    let location = first.field("location").unwrap().to_owned();
    let first = Held::of(first);
    let again = ask(body).ok(201);
    assert_eq!(again.field("idempotency-replayed"), Some("true"));
    assert_eq!(again.field("location").unwrap(), location);
    assert_eq!(Held::of(again).token, first.token);
    ask(json!({"any_of": ["/a", "/b"]})).problem(422, "idempotency-key-reused");
    // The order of members is a part of what is asked.
    ask(json!({"resources": ["/b", "/a"]})).problem(422, "idempotency-key-reused");
}

#[test]
fn an_acquire_that_is_refused_by_who_asks_is_told_before_its_body_is_sent() {
    let server = Setup::default().key("rita", "reader", None).start();
    let key = server.key("rita");
    for (authorization, status) in
        [(String::new(), 401), (format!("Authorization: Bearer {key}\r\n"), 403)]
    {
        for (method, at) in [
            ("POST", "/a/lock"),
            ("PUT", "/a"),
            ("POST", "/a"),
            ("PATCH", "/a/lock"),
            ("PUT", "/a/lock/freeze"),
        ] {
            let mut wire = server.connect();
            wire.send(format!(
                "{method} {at} HTTP/1.1\r\nHost: a\r\n{authorization}Content-Length: 20\r\n\
                 Expect: 100-continue\r\n\r\n"
            ));
            assert_eq!(wire.reply(false).status, status, "{method} {at}");
        }
    }
}

#[test]
fn a_break_may_go_on_while_others_wait_and_serves_them() {
    let server = Server::start();
    server.lock("/a", json!({}));
    let waiter = server.ask("POST", "/a/lock?wait=20").spawn();
    server.queued("/a", 1);
    server.post("/a/lock/break", json!({"reason": "x"})).ok(200);
    waiter.join().unwrap().ok(201);
}

#[test]
fn a_freeze_that_ends_by_itself_serves_who_waits() {
    let server = Server::start();
    let held = server.lock("/a", json!({}));
    let waiter = server.ask("POST", "/a/lock?wait=20").spawn();
    server.queued("/a", 1);
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2)).to_string();
    server.put("/a/lock/freeze", json!({"reason": "x", "until": soon})).ok(200);
    server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
    waiter.join().unwrap().ok(201);
}

#[test]
fn a_waiter_whose_wait_ends_while_frozen_is_told_so() {
    let server = Server::start();
    let held = server.lock("/a", json!({}));
    let waiter = server.ask("POST", "/a/lock?wait=1").spawn();
    server.queued("/a", 1);
    let hour = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    server.put("/a/lock/freeze", json!({"reason": "x", "until": hour})).ok(200);
    server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
    // `frozen` is told before `locked`, to who has waited as well.
    waiter.join().unwrap().problem(423, "frozen");
}

#[test]
fn a_transfer_of_a_set_and_to_oneself_keeps_what_it_covers() {
    let server = Server::start();
    let set = Held::of(server.post("/-/locks", json!({"resources": ["/a", "/b"]})).ok(201));
    let ask = server.ask("POST", "/b/lock/transfer").token(&set).json(json!({"to": "anonymous"}));
    let passed = Held::of(ask.send().ok(200));
    assert_eq!(passed.body["resources"], json!(["/a", "/b"]));
    assert!(passed.fence > set.fence);
    server.ask("PUT", "/a").token(&set).json(json!(1)).send().problem(423, "locked");
    server.ask("PUT", "/a").token(&passed).json(json!(1)).send().ok(201);
    // A chain: each hand-over ends the token before it.
    let next = server.ask("POST", "/a/lock/transfer").token(&passed).json(json!({"to": "carol"}));
    let next = Held::of(next.send().ok(200));
    let old = server.ask("POST", "/a/lock/transfer").token(&set).json(json!({"to": "anonymous"}));
    assert_eq!(old.send().problem(410, "lock-gone")["ended"], "transferred");
    server.ask("DELETE", "/b/lock").token(&next).send().ok(204);
    assert_eq!(server.get("/a/lock").json()["locked"], false);
}

#[test]
fn a_deadlock_through_an_earlier_waiter_is_found_too() {
    let server = Server::with_keys(&[("alice", "writer"), ("bob", "writer"), ("carol", "writer")]);
    let a = server.lock_by("alice", "/a", json!({}));
    let b = server.lock_by("bob", "/b", json!({}));
    // Carol waits for both in one step; alice wants /b, which carol is before her for.
    let carol = server
        .by("carol", "POST", "/-/locks?wait=9")
        .json(json!({"resources": ["/a", "/b"]}))
        .spawn();
    let queued = |at: &str, count: usize| {
        until("the queue", || {
            let queue =
                server.by("alice", "GET", &format!("{at}/lock")).send().json()["queue"].clone();
            (queue.as_array().unwrap().len() == count).then_some(())
        });
    };
    queued("/b", 1);
    let alice = server.by("alice", "POST", "/b/lock?wait=9").token(&a).spawn();
    queued("/b", 2);
    let bob = server.by("bob", "POST", "/a/lock?wait=9").token(&b).send();
    let circle = bob.problem(409, "deadlock")["circle"].clone();
    assert!(circle.as_array().unwrap().len() >= 2, "{circle}");
    server.by("bob", "DELETE", "/b/lock").token(&b).send().ok(204);
    // Alice, whom carol needs, goes before carol.
    let alices = Held::of(alice.join().unwrap().ok(201));
    server.by("alice", "DELETE", "/b/lock").token(&alices).send().ok(204);
    server.by("alice", "DELETE", "/a/lock").token(&a).send().ok(204);
    carol.join().unwrap().ok(201);
}

#[test]
fn a_cursor_beyond_everything_is_none_and_breaks_nothing() {
    let server = Server::start();
    server.lock("/a", json!({}));
    // `l`, `a` and `d` with the greatest number that there is.
    for (list, cursor) in [
        ("/-/locks?", "bDE4NDQ2NzQ0MDczNzA5NTUxNjE1"),
        ("/-/audit?", "YTE4NDQ2NzQ0MDczNzA5NTUxNjE1"),
        ("/-/audit?order=desc&", "ZDE4NDQ2NzQ0MDczNzA5NTUxNjE1"),
    ] {
        let reply = server.get(&format!("{list}cursor={cursor}"));
        assert_eq!(reply.problem(400, "malformed-request")["field"], "cursor");
    }
    for query in ["since=18446744073709551615", "until=18446744073709551615"] {
        server.get(&format!("/-/audit?{query}")).ok(200);
    }
    server.post("/a/lock", json!({})).problem(423, "locked");
}

#[test]
fn a_follower_of_another_history_is_told_to_begin_anew() {
    let server = Server::start();
    server.lock("/a", json!({}));
    for id in ["1000", "18446744073709551615"] {
        let mut stream = server.ask("GET", "/-/events").field("Last-Event-ID", id).start();
        assert_eq!(stream.reply_head().status, 200);
        let mut told = String::new();
        while !told.contains("acquired") {
            told.push_str(&String::from_utf8_lossy(&stream.chunk().unwrap()));
        }
        assert!(told.contains("event: reset\ndata: {\"oldest\":1}\n"), "{told}");
    }
}

#[test]
fn what_large_answers_take_of_memory_is_bounded_and_a_write_is_told_all_the_same() {
    let config = "[limits]\nmax_document = \"16MiB\"\nmax_buffered = \"64MiB\"\n";
    let server = Server::with(&format!("{config}answer_timeout = \"5s\"\n"));
    let large = format!("{{\"text\": \"{}\"}}", "x".repeat(15 << 20));
    let put = server.ask("PUT", "/large").field("Content-Type", "application/json");
    put.body(large).send().ok(201);
    server.put("/small", json!({"n": 1})).ok(201);
    // The last quarter is for what is small, so there is room for three of them.
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = server.ask("GET", "/large").start();
        assert_eq!(reader.reply_head().status, 200);
        readers.push(reader);
    }
    let refused = server.get("/large");
    refused.problem(503, "unavailable");
    assert_eq!(refused.field("retry-after"), Some("1"));
    server.get("/small").ok(200);
    server.lock("/small", json!({}));
    // What has been carried out is not refused, but told without the document.
    let patch = json!({"n": 2});
    let merge = "application/merge-patch+json";
    let patched = server.ask("PATCH", "/large").field("Content-Type", merge);
    let patched = patched.body(patch.to_string()).send().ok(204);
    let etag = patched.field("etag").unwrap().to_owned();
    assert_eq!(patched.field("content-location"), None);
    let operation = json!({"method": "PATCH", "resource": "/large", "body": patch,
        "headers": {"Content-Type": merge, "If-Match": etag}});
    let batch = server.post("/-/batch", json!({"operations": [operation]})).ok(200).json();
    assert_eq!(batch["results"][0]["status"], 200);
    assert!(batch["results"][0]["body"].is_null());
    assert_ne!(batch["results"][0]["headers"]["etag"], etag);
    // They read nothing for `answer_timeout`, so the room is free again.
    until("room for a reader", || (server.get("/large").status == 200).then_some(()));
    drop(readers);
}

#[test]
fn one_principal_has_no_more_locks_and_waiters_than_the_server_allows() {
    let limits = "[limits]\nmax_locks_per_holder = 2\nmax_waiters_per_principal = 1\n";
    let server =
        Setup::default().config(limits).key("alice", "writer", None).key("bob", "writer", None);
    let server = server.start();
    let first = server.lock_by("alice", "/a", json!({}));
    server.lock_by("alice", "/b", json!({}));
    let full = server.by("alice", "POST", "/c/lock").json(json!({})).send();
    assert_eq!(full.problem(429, "too-many-locks")["limit"], 2);
    server.lock_by("bob", "/c", json!({}));
    let waiter = server.by("bob", "POST", "/a/lock?wait=20").spawn();
    until("the queue", || {
        let seen = server.by("bob", "GET", "/a/lock").send().json();
        (seen["queue"].as_array()?.len() == 1).then_some(())
    });
    let full = server.by("bob", "POST", "/b/lock?wait=20").send();
    let problem = full.problem(429, "queue-full");
    assert_eq!(problem["limit"], 1);
    assert!(problem["detail"].as_str().unwrap().contains("of yours"), "{problem}");
    assert!(full.field("retry-after").is_some());
    // Who does not wait is not a waiter.
    server.by("bob", "POST", "/b/lock").send().problem(423, "locked");
    server.by("alice", "DELETE", "/a/lock").token(&first).send().ok(204);
    waiter.join().unwrap().ok(201);
}

#[test]
fn who_sends_too_many_requests_is_told_how_many_are_left_and_when() {
    let limits = "[limits]\nrequests_per_second = 1\nrequest_burst = 3\n";
    let server =
        Setup::default().config(limits).key("alice", "writer", None).key("bob", "writer", None);
    let server = server.start();
    let mut left = Vec::new();
    let refused = until("a refusal", || {
        let reply = server.by("alice", "GET", "/a").send();
        assert_eq!(reply.field("ratelimit-policy"), Some("\"requests\";q=3;w=3"), "{reply:?}");
        left.push(reply.field("ratelimit").unwrap().to_owned());
        (reply.status == 429).then_some(reply)
    });
    assert_eq!(left[0], "\"requests\";r=2;t=1");
    // The next is there when the refused one may come again.
    assert_eq!(left.last().unwrap(), "\"requests\";r=0;t=1");
    assert_eq!(refused.problem(429, "rate-limited")["limit"], 1);
    assert_eq!(refused.field("retry-after"), Some("1"));
    // A write is refused before anything of it is carried out.
    until("another refusal", || {
        let reply = server.by("alice", "PUT", "/w").json(json!(1)).send();
        (reply.status == 429).then_some(())
    });
    // Others, and what needs no identity, are not concerned.
    server.by("bob", "GET", "/a").send().problem(404, "not-found");
    let health = server.get("/-/health/live").ok(200);
    assert_eq!(health.field("ratelimit"), None);
    // It passes.
    until("the bucket", || (server.by("alice", "GET", "/a").send().status == 404).then_some(()));
}
