//! Section 2 of the wire contract: waiting, retrying safely, deadlocks, sets and sharing.

use std::time::Instant;

use crate::common::{Held, Server, json, until};

#[test]
fn a_wait_that_is_preferred_is_cut_and_one_that_is_demanded_is_refused() {
    let server = Server::start();
    let applied = |prefer: &str, at: &str| {
        let reply = server.ask("POST", &format!("{at}/lock")).field("Prefer", prefer).send();
        reply.ok(201).field("preference-applied").map(str::to_owned)
    };
    assert_eq!(applied("wait=100", "/a").as_deref(), Some("wait=30"));
    assert_eq!(applied("wait=5", "/b").as_deref(), Some("wait=5"));
    assert_eq!(applied("respond-async, Wait=\"7\"; foo=bar", "/c").as_deref(), Some("wait=7"));
    assert_eq!(applied("wait=0", "/d").as_deref(), Some("wait=0"));
    assert_eq!(applied("wait=99999999999999999999999", "/h").as_deref(), Some("wait=30"));
    for no_number in ["handling=lenient", "wait", "wait=", "wait=x", "wait=-1", "wait=1.5"] {
        let at = format!("/e/{}", no_number.replace('=', "_"));
        assert_eq!(applied(no_number, &at), None, "{no_number}");
    }
    let set = server.ask("POST", "/-/locks").field("Prefer", "wait=25");
    let set = set.json(json!({"resources": ["/s"]})).send().ok(201);
    assert_eq!(set.field("preference-applied"), Some("wait=10"));
    server.ask("POST", "/f/lock?wait=30").send().ok(201);
    let over = server.ask("POST", "/g/lock?wait=30.001").send().problem(422, "wait-out-of-range");
    assert_eq!(over["max_wait_seconds"], 30);
    for bad in ["-1", "x", "", "inf", "NaN"] {
        let reply = server.ask("POST", &format!("/g/lock?wait={bad}")).send();
        assert_eq!(reply.problem(400, "malformed-request")["field"], "wait", "{bad}");
    }
    // `wait=0` fails fast.
    server.post("/a/lock?wait=0", json!({})).problem(423, "locked");
}

#[test]
fn a_waiter_whose_time_is_up_is_told_how_long_it_has_waited() {
    let server = Server::start();
    server.lock("/a", json!({}));
    let began = Instant::now();
    let reply = server.ask("POST", "/a/lock?wait=0.3").send();
    let waited = reply.problem(423, "locked")["waited_ms"].as_u64().unwrap();
    // The lease clock counts whole milliseconds: the wait began at the last whole one.
    assert!(began.elapsed().as_millis() >= 299);
    assert!((300..5000).contains(&waited), "{waited}");
    assert_eq!(server.get("/a/lock").json()["queue"], json!([]));
}

#[test]
fn waiters_are_served_first_come_first_served_and_nobody_overtakes() {
    let server = Server::start();
    let mut held = server.lock("/a", json!({}));
    let mut waiters = Vec::new();
    for at in 0..4 {
        let body = json!({"reason": at.to_string()});
        waiters.push(server.ask("POST", "/a/lock?wait=20").json(body).spawn());
        server.queued("/a", at + 1);
    }
    for (at, waiter) in waiters.into_iter().enumerate() {
        let refused = server.post("/a/lock", json!({})).problem(423, "locked");
        assert_eq!(refused["locks_in_the_way"], 1);
        server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
        let next = Held::of(waiter.join().unwrap().ok(201));
        assert_eq!(next.body["reason"], at.to_string());
        assert!(next.fence > held.fence);
        assert!(next.body["waited_ms"].as_u64().unwrap() > 0);
        held = next;
    }
}

#[test]
fn a_fail_fast_acquire_does_not_overtake_a_waiter_either() {
    let server = Server::start();
    // /a/b is held; a waiter wants all of /a; somebody wants /a/c, which is free.
    server.lock("/a/b", json!({}));
    let waiter = server.ask("POST", "/a/lock?wait=20").start();
    server.queued("/a", 1);
    let refused = server.post("/a/c/lock", json!({})).problem(423, "locked");
    assert_eq!((&refused["lock"], &refused["queue_ahead"]), (&json!(null), &json!(1)));
    drop(waiter);
    until("the waiter's leaving", || {
        (server.post("/a/c/lock", json!({})).status == 201).then_some(())
    });
}

#[test]
fn a_waiter_whose_client_has_gone_leaves_at_once_and_half_closed_is_gone() {
    let server = Server::start();
    let held = server.lock("/a", json!({}));
    let gone = server.ask("POST", "/a/lock?wait=25").start();
    let half = server.ask("POST", "/a/lock?wait=25").start();
    server.queued("/a", 2);
    drop(gone);
    server.queued("/a", 1);
    half.half_close();
    server.queued("/a", 0);
    server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
    assert_eq!(server.get("/a/lock").json()["locked"], false);
    assert_eq!(server.audit("type=acquired").len(), 1);
    drop(half);
}

#[test]
fn one_more_waiter_than_a_queue_takes_is_told_so() {
    let server = Server::with("[[rule]]\nmatch = [\"/a\"]\nmax_queue = 2\n");
    server.lock("/a", json!({}));
    let _first = server.ask("POST", "/a/lock?wait=25").start();
    let _second = server.ask("POST", "/a/lock?wait=25").start();
    server.queued("/a", 2);
    let full = server.post("/a/lock?wait=5", json!({}));
    full.problem(429, "queue-full");
    assert!(full.field("retry-after").is_some());
    // Fail fast is not about the queue.
    server.post("/a/lock", json!({})).problem(423, "locked");
}

#[test]
fn a_wait_that_would_close_a_circle_is_refused_and_the_circle_named() {
    let server = Server::with_keys(&[("alice", "writer"), ("bob", "writer")]);
    let a = server.lock_by("alice", "/a", json!({}));
    let b = server.lock_by("bob", "/b", json!({}));
    let waits = server.by("alice", "POST", "/b/lock?wait=25").token(&a).spawn();
    until("alice in the queue", || {
        let queue = server.by("bob", "GET", "/b/lock").send().json()["queue"].clone();
        (queue.as_array().unwrap().len() == 1).then_some(())
    });
    let closes = server.by("bob", "POST", "/a/lock?wait=25").token(&b).send();
    let problem = closes.problem(409, "deadlock");
    let circle = problem["circle"].as_array().unwrap();
    assert_eq!(circle.len(), 2, "{problem}");
    let step = |at: usize| {
        let step = &circle[at];
        (
            step["waiter"].clone(),
            step["resource"].clone(),
            step["behind"].clone(),
            step["lock_id"].clone(),
        )
    };
    assert_eq!(step(0), (json!("bob"), json!("/a"), json!("alice"), json!(a.id)));
    assert_eq!(step(1), (json!("alice"), json!("/b"), json!("bob"), json!(b.id)));
    // Without naming what it holds, nobody can know.
    server.by("bob", "POST", "/a/lock?wait=0.1").send().problem(423, "locked");
    server.by("bob", "DELETE", "/b/lock").token(&b).send().ok(204);
    waits.join().unwrap().ok(201);
}

#[test]
fn what_a_waiter_says_it_holds_has_to_be_live_and_its_own() {
    let server = Server::with_keys(&[("alice", "writer"), ("bob", "writer")]);
    let a = server.lock_by("alice", "/a", json!({}));
    let gone = server.lock_by("alice", "/gone", json!({}));
    server.by("alice", "DELETE", "/gone/lock").token(&gone).send().ok(204);
    let acquire = |name: &str| server.by(name, "POST", "/c/lock?wait=5");
    acquire("bob").token(&a).send().problem(403, "not-the-holder");
    acquire("alice").token(&gone).send().problem(410, "lock-gone");
    acquire("alice").field("X-Lock-Token", "lock_x").send().problem(403, "invalid-lock-token");
    // They need not cover what it asks for.
    acquire("alice").token(&a).send().ok(201);
}

#[test]
fn who_holds_what_an_earlier_waiter_needs_goes_before_it() {
    let server = Server::start();
    let below = server.lock("/a/b", json!({}));
    let waiter = server.ask("POST", "/a/lock?wait=25").spawn();
    server.queued("/a", 1);
    // It would wait behind a waiter that waits for it.
    let other = server.ask("POST", "/a/c/lock").token(&below).send();
    let other = Held::of(other.ok(201));
    server.ask("DELETE", "/a/c/lock").token(&other).send().ok(204);
    server.ask("DELETE", "/a/b/lock").token(&below).send().ok(204);
    waiter.join().unwrap().ok(201);
}

#[test]
fn a_retry_with_the_same_key_gets_the_same_lock() {
    let server = Server::start();
    let ask = |key: &str, body: &str| {
        server.ask("POST", "/a/lock").field("Idempotency-Key", key).body(body).send()
    };
    let first = ask("k-1", r#"{"ttl_seconds":60,"reason":"r"}"#);
    assert!(first.field("idempotency-replayed").is_none());
    let first = Held::of(first.ok(201));
    for (key, body) in [
        ("k-1", r#"{"ttl_seconds":60,"reason":"r"}"#),
        ("\"k-1\"", r#"{ "reason": "r", "ttl_seconds": 60.0 }"#),
    ] {
        let again = ask(key, body).ok(201);
        assert_eq!(again.field("idempotency-replayed"), Some("true"));
        assert_eq!(again.field("location"), Some("/a/lock"));
        assert!(again.field("lock-token").unwrap().contains(&first.token));
        let again = Held::of(again);
        assert_eq!((again.token, again.fence), (first.token.clone(), first.fence));
    }
    // Shown as it is now.
    server.ask("PATCH", "/a/lock").token(&first).json(json!({"ttl_seconds": 1000})).send().ok(200);
    let now = ask("k-1", r#"{"ttl_seconds":60,"reason":"r"}"#).json();
    assert!(now["expires_in_ms"].as_u64().unwrap() > 900_000, "{now}");
    ask("k-1", r#"{"ttl_seconds":61}"#).problem(422, "idempotency-key-reused");
    let elsewhere = server.ask("POST", "/b/lock").field("Idempotency-Key", "k-1").send();
    elsewhere.problem(422, "idempotency-key-reused");
    server.ask("DELETE", "/a/lock").token(&first).send().ok(204);
    let gone = ask("k-1", r#"{"ttl_seconds":60,"reason":"r"}"#).problem(410, "lock-gone");
    assert_eq!(gone["ended"], "released");
    assert_eq!(server.get("/a/lock").json()["locked"], false);
    for bad in ["", "\"\"", "a b", "\"open", &"k".repeat(256), "caf\u{e9}"] {
        let reply = ask(bad, "{}");
        assert_eq!(reply.problem(400, "malformed-request")["field"], "Idempotency-Key", "{bad}");
    }
    let twice =
        server.ask("POST", "/c/lock").field("Idempotency-Key", "a").field("Idempotency-Key", "b");
    twice.send().problem(400, "malformed-request");
    let longest = server.ask("POST", "/c/lock").field("Idempotency-Key", &"k".repeat(255));
    longest.send().ok(201);
}

#[test]
fn a_key_is_its_principals_own_and_survives_a_restart() {
    let mut server = Server::with_keys(&[("alice", "writer"), ("bob", "writer")]);
    let ask = |server: &Server, name: &str, at: &str| {
        server.by(name, "POST", &format!("{at}/lock")).field("Idempotency-Key", "k").send()
    };
    let alice = Held::of(ask(&server, "alice", "/a").ok(201));
    Held::of(ask(&server, "bob", "/b").ok(201));
    server.restart();
    let again = Held::of(ask(&server, "alice", "/a").ok(201));
    assert_eq!((&again.token, again.fence), (&alice.token, alice.fence));
    server.by("alice", "PATCH", "/a/lock").token(&alice).send().ok(200);
    let next = server.lock_by("alice", "/c", json!({}));
    assert!(next.fence > alice.fence + 1, "fences grow over a restart");
}

#[test]
fn a_refusal_is_not_remembered_and_an_undecided_request_is_told() {
    let server = Server::start();
    let held = server.lock("/a", json!({}));
    let ask = |target: &str| server.ask("POST", target).field("Idempotency-Key", "k");
    ask("/a/lock").send().problem(423, "locked");
    let waiter = ask("/a/lock?wait=25").spawn();
    server.queued("/a", 1);
    let undecided = ask("/a/lock?wait=25").send();
    undecided.problem(409, "idempotency-in-progress");
    assert_eq!(undecided.field("retry-after"), Some("1"));
    server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
    let granted = Held::of(waiter.join().unwrap().ok(201));
    assert_eq!(Held::of(ask("/a/lock").send()).token, granted.token);
}

#[test]
fn a_waiter_that_comes_back_with_its_key_keeps_its_place() {
    let server = Server::start();
    let held = server.lock("/a", json!({}));
    let ask = |wait: &str| {
        let target = format!("/a/lock?wait={wait}");
        server.ask("POST", &target).field("Idempotency-Key", "k").json(json!({"reason": "first"}))
    };
    ask("0.1").send().problem(423, "locked");
    let second = server.ask("POST", "/a/lock?wait=25").json(json!({"reason": "second"})).spawn();
    server.queued("/a", 1);
    let first = ask("25").spawn();
    // Who is away is not in the queue, and now both are.
    server.queued("/a", 2);
    server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
    let first = Held::of(first.join().unwrap().ok(201));
    assert_eq!(first.body["reason"], "first");
    server.ask("DELETE", "/a/lock").token(&first).send().ok(204);
    assert_eq!(second.join().unwrap().ok(201).json()["reason"], "second");
}

#[test]
fn a_waiter_that_is_away_is_passed_over() {
    let server = Server::start();
    let held = server.lock("/a", json!({}));
    let away = server.ask("POST", "/a/lock?wait=0.1").field("Idempotency-Key", "k");
    away.send().problem(423, "locked");
    let present = server.ask("POST", "/a/lock?wait=25").spawn();
    server.queued("/a", 1);
    server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
    present.join().unwrap().ok(201);
}

#[test]
fn a_grant_that_nobody_took_is_released_or_kept_for_its_key() {
    let server = Server::start();
    for at in 0..20 {
        let held = server.lock("/a", json!({}));
        let waiter = server.ask("POST", "/a/lock?wait=25").start();
        server.queued("/a", 1);
        // The release and the leaving race: whoever wins, the lock must not stay.
        let release = server.ask("DELETE", "/a/lock").token(&held).spawn();
        drop(waiter);
        release.join().unwrap().ok(204);
        until("nobody to hold it", || {
            (server.get("/a/lock").json()["locked"] == false).then_some(())
        });
        let _ = at;
    }
}

#[test]
fn sharers_coexist_and_one_of_their_tokens_is_enough_to_write() {
    let server = Server::start();
    let one = server.lock("/a", json!({"mode": "shared"}));
    let two = server.lock("/a", json!({"mode": "shared"}));
    server.put("/a", json!(1)).problem(423, "locked");
    server.ask("PUT", "/a").token(&one).json(json!(1)).send().ok(201);
    server.ask("PUT", "/a").token(&two).json(json!(2)).send().ok(204);
    server.ask("PUT", "/a").token(&one).token(&two).json(json!(2)).send().ok(204);
    let refused = server.post("/a/lock", json!({})).problem(423, "locked");
    assert_eq!(refused["locks_in_the_way"], 2);
    server.ask("DELETE", "/a/lock").token(&one).send().ok(204);
    // The ended one is told, though the other still covers.
    let dead = server.ask("PUT", "/a").token(&one).token(&two).json(json!(3)).send();
    dead.problem(412, "lock-lost");
    server.ask("PUT", "/a").token(&two).json(json!(3)).send().ok(204);
}

#[test]
fn the_lock_that_ends_last_is_the_one_that_is_shown() {
    let server = Server::start();
    server.lock("/a", json!({"mode": "shared", "ttl_seconds": 10}));
    let last = server.lock("/a", json!({"mode": "shared", "ttl_seconds": 50}));
    server.lock("/a", json!({"mode": "shared", "ttl_seconds": 30}));
    let refused = server.put("/a", json!(1));
    let problem = refused.problem(423, "locked");
    assert_eq!(problem["lock"]["lock_id"], last.id);
    assert_eq!(problem["locks_in_the_way"], 3);
    let retry: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((49..=50).contains(&retry));
}

#[test]
fn a_set_is_acquired_whole_or_not_at_all_and_has_one_token() {
    let server = Server::start();
    let set = server.post(
        "/-/locks",
        json!({"resources": ["/a", "/b/c", "/a", "/b/c/d", "/b/"], "ttl_seconds": 60}),
    );
    assert!(set.field("location").is_some());
    let location = set.field("location").unwrap().to_owned();
    let held = Held::of(set.ok(201));
    assert_eq!(location, format!("/-/locks/{}", held.id));
    // Duplicates, and members below another, are folded.
    assert_eq!(
        (&held.body["resource"], &held.body["resources"]),
        (&json!("/a"), &json!(["/a", "/b"]))
    );
    for at in ["/a", "/b/x"] {
        server.put(at, json!(1)).problem(423, "locked");
        server.ask("PUT", at).token(&held).json(json!(1)).send().ok(201);
    }
    // All or none.
    server.post("/-/locks", json!({"resources": ["/free", "/a"]})).problem(423, "locked");
    assert_eq!(server.get("/free/lock").json()["locked"], false);
    // Addressed by any of them, for the whole lock.
    server.ask("PATCH", "/b/lock").token(&held).send().ok(200);
    server.ask("PATCH", "/b/x/lock").token(&held).send().problem(403, "invalid-lock-token");
    server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
    server.put("/b/x", json!(2)).ok(204);
    for (body, field) in [
        (json!({}), "resources"),
        (json!({"resources": ["/a"], "any_of": ["/b"]}), "any_of"),
        (json!({"resources": []}), "resources"),
        (json!({"resources": "/a"}), "resources"),
        (json!({"resources": [1]}), "resources/0"),
        (json!({"resources": ["/a", "/b//c"]}), "resources/1"),
        (json!({"resources": ["a"]}), "resources/0"),
        (json!({"resources": ["/a/lock"]}), "resources"),
        (json!({"resources": ["/-/x"]}), "resources"),
        (json!({"resources": vec!["/a"; 257]}), "resources"),
        (json!({"resources": ["/a"], "ttl": 1}), "ttl"),
    ] {
        let problem = server.post("/-/locks", body.clone()).problem(400, "malformed-request");
        assert_eq!(problem["field"], field, "{body}");
    }
    let many: Vec<String> = (0..256).map(|at| format!("/m/{at}")).collect();
    server.post("/-/locks", json!({"resources": many})).ok(201);
}

#[test]
fn any_of_gets_the_first_that_is_free_and_waits_for_whichever_comes_first() {
    let server = Server::start();
    let any = json!({"any_of": ["/p/1", "/p/2", "/p/3"]});
    let first = Held::of(server.post("/-/locks", any.clone()).ok(201));
    assert_eq!(first.body["resources"], json!(["/p/1"]));
    let second = Held::of(server.post("/-/locks", any.clone()).ok(201));
    assert_eq!(second.body["resource"], "/p/2");
    server.post("/-/locks", any.clone()).ok(201);
    server.post("/-/locks", any.clone()).problem(423, "locked");
    let waiter = server.ask("POST", "/-/locks?wait=9").json(any).spawn();
    server.queued("/p/2", 1);
    server.ask("DELETE", "/p/2/lock").token(&second).send().ok(204);
    let got = Held::of(waiter.join().unwrap().ok(201));
    assert_eq!(got.body["resources"], json!(["/p/2"]));
    server
        .post("/-/locks?wait=10.5", json!({"resources": ["/a"]}))
        .problem(422, "wait-out-of-range");
}

#[test]
fn a_lock_is_also_kept_by_its_id() {
    let server = Server::start();
    let held = server.lock("/a", json!({}));
    let at = format!("/-/locks/{}", held.id);
    let shown = server.get(&at).ok(200);
    assert_eq!(shown.json()["lock_id"], held.id);
    assert_eq!(shown.json()["renewals"], 0);
    assert!(!shown.text().contains(&held.token));
    assert_eq!(shown.field("cache-control"), Some("no-store"));
    server.ask("HEAD", &at).send().ok(200);
    server.ask("PATCH", &at).send().problem(400, "lock-token-required");
    server.ask("PATCH", &at).token(&held).json(json!({"ttl_seconds": 10})).send().ok(200);
    server.ask("PUT", &at).token(&held).send().ok(200);
    let passed =
        server.ask("POST", &format!("{at}/transfer")).token(&held).json(json!({"to": "b"})).send();
    let passed = Held::of(passed.ok(200));
    let next = format!("/-/locks/{}", passed.id);
    server
        .ask("DELETE", &next)
        .field("X-Lock-Token", "lock_x")
        .send()
        .problem(403, "invalid-lock-token");
    let other = server.lock("/b", json!({}));
    server.ask("DELETE", &next).token(&other).send().problem(403, "invalid-lock-token");
    server.post(&format!("{next}/break"), json!({})).problem(400, "malformed-request");
    server.post(&format!("{next}/break"), json!({"reason": "x"})).ok(200);
    server.ask("DELETE", &next).token(&passed).send().problem(410, "lock-gone");
    server.get(&next).problem(404, "not-found");
    server.post(&format!("{next}/break"), json!({"reason": "x"})).problem(409, "lock-changed");
    server.get("/-/locks/nonsense").problem(400, "malformed-request");
    server.ask("DELETE", &format!("/-/locks/{}", other.id)).token(&other).send().ok(204);
    let trailing = format!("/-/locks/{}/nothing", other.id);
    server.get(&trailing).problem(404, "not-found");
}

#[test]
fn waiters_keep_their_place_while_frozen_and_are_served_after() {
    let server = Server::start();
    let held = server.lock("/a", json!({}));
    let waiter = server.ask("POST", "/a/lock?wait=25").spawn();
    server.queued("/a", 1);
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    server.put("/a/lock/freeze", json!({"reason": "x", "until": now.to_string()})).ok(200);
    server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
    assert_eq!(server.get("/a/lock").json()["queue"].as_array().unwrap().len(), 1);
    server.delete("/a/lock/freeze").ok(204);
    waiter.join().unwrap().ok(201);
}
