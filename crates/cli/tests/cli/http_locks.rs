//! Section 2 of the wire contract: acquire, inspect, renew, release, transfer, request, break.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use serde_json::Value;

use crate::common::{Held, Reply, Server, Setup, json, until};

/// Bodies of an acquire and what refuses them: status, name, and the field that is named.
fn refused(server: &Server, target: &str, body: &str, status: u16, name: &str, field: &str) {
    let reply = server.ask("POST", target).body(body).send();
    let problem = reply.problem(status, name);
    let named = match status {
        400 => problem["field"].as_str().unwrap().to_owned(),
        422 if name == "validation-failed" => {
            let pointer = problem["errors"][0]["pointer"].as_str().unwrap();
            assert!(problem["errors"][0]["reason"].is_string(), "{problem}");
            pointer.trim_start_matches('/').to_owned()
        }
        _ => field.to_owned(),
    };
    assert_eq!(named, field, "{body}: {problem}");
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_grant_has_exactly_the_members_and_fields_that_are_promised() {
    let server = Server::start();
    let reply = server.post("/v1/flags/feature-x/lock", json!({"ttl_seconds": 60})).ok(201);
    let body = reply.json();
    let mut members = keys(&body);
    members.sort_unstable();
    let mut promised = [
        "lock_id",
        "lock_token",
        "resource",
        "resources",
        "kind",
        "dialect",
        "mode",
        "depth",
        "holder",
        "reason",
        "metadata",
        "fence",
        "ttl_seconds",
        "acquired_at",
        "expires_at",
        "expires_in_ms",
        "waited_ms",
    ];
    promised.sort_unstable();
    assert_eq!(members, promised);
    let (id, token) = (body["lock_id"].as_str().unwrap(), body["lock_token"].as_str().unwrap());
    assert_eq!(id.len(), 36);
    let rest = token.strip_prefix("lock_").unwrap();
    assert!(rest.len() <= 120, "{token}");
    assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{token}");
    assert_eq!(body["resource"], "/v1/flags/feature-x");
    assert_eq!(body["resources"], json!(["/v1/flags/feature-x"]));
    for (member, value) in [
        ("kind", json!("lock")),
        ("dialect", json!("http")),
        ("mode", json!("exclusive")),
        ("depth", json!("infinity")),
        ("holder", json!("anonymous")),
        ("reason", json!(null)),
        ("metadata", json!({})),
        ("ttl_seconds", json!(60)),
        ("waited_ms", json!(0)),
    ] {
        assert_eq!(body[member], value, "{member}");
    }
    let left = body["expires_in_ms"].as_u64().unwrap();
    assert!((59_000..=60_000).contains(&left), "{left}");
    for time in ["acquired_at", "expires_at"] {
        let time = body[time].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    }
    assert_eq!(reply.field("location"), Some("/v1/flags/feature-x/lock"));
    assert_eq!(reply.field("lock-token").unwrap(), format!("<opaquelocktoken:{id}/{token}>"));
    assert_eq!(reply.field("cache-control"), Some("no-store"));
    assert_eq!(reply.field("content-type"), Some("application/json"));
    let next = server.lock("/other", json!({}));
    assert!(next.fence > body["fence"].as_u64().unwrap());
    assert!(next.fence < 1 << 53);
}

#[test]
fn every_field_of_an_acquire_is_taken_as_it_is_asked() {
    let server = Server::start();
    let held = server.lock(
        "/a",
        json!({"ttl_seconds": 1.5, "mode": "shared", "depth": "0", "reason": "why \u{e9}",
               "metadata": {"b": [1, {"c": null}], "a": "x"}}),
    );
    assert_eq!(held.body["ttl_seconds"], 1.5);
    assert_eq!(held.body["mode"], "shared");
    assert_eq!(held.body["depth"], "0");
    assert_eq!(held.body["reason"], "why \u{e9}");
    assert_eq!(held.body["metadata"], json!({"b": [1, {"c": null}], "a": "x"}));
    // Null means absent.
    let held =
        server.lock("/b", json!({"mode": null, "depth": null, "reason": null, "metadata": null}));
    assert_eq!(held.body["ttl_seconds"], 300);
    assert_eq!(held.body["mode"], "exclusive");
    // Absent, empty and blank bodies are one; the media type is not looked at.
    server.ask("POST", "/c/lock").send().ok(201);
    server.ask("POST", "/d/lock").body("").send().ok(201);
    server.ask("POST", "/e/lock").body(" \r\n\t").send().ok(201);
    for (at, media) in
        ["application/x-www-form-urlencoded", "text/plain", "nonsense"].iter().enumerate()
    {
        let target = format!("/f{at}/lock");
        let reply =
            server.ask("POST", &target).field("Content-Type", media).body("{\"ttl_seconds\":60}");
        assert_eq!(reply.send().ok(201).json()["ttl_seconds"], 60);
    }
}

#[test]
fn each_bound_of_an_acquire_is_kept_on_both_sides() {
    let server = Server::start();
    let ok = |at: &str, body: Value| server.post(&format!("{at}/lock"), body).ok(201);
    ok("/t1", json!({"ttl_seconds": 1}));
    ok("/t2", json!({"ttl_seconds": 1800}));
    ok("/t3", json!({"ttl_seconds": 1800.0}));
    ok("/r1", json!({"reason": "a".repeat(1024)}));
    let metadata = json!({"a": "b".repeat(4096 - "{\"a\":\"\"}".len())});
    ok("/m1", json!({"metadata": metadata}));
    for ttl in ["0", "0.999", "0.9999", "-5", "1800.001", "1801", "1e300", "9007199254740993"] {
        let body = format!("{{\"ttl_seconds\":{ttl}}}");
        let reply = server.ask("POST", "/x/lock").body(body).send();
        let problem = reply.problem(422, "ttl-out-of-range");
        assert_eq!(problem["max_ttl_seconds"], 1800, "{ttl}");
    }
    let target = "/x/lock";
    for (body, field) in [
        (r#"{"ttl_seconds":null}"#, "ttl_seconds"),
        (r#"{"ttl_seconds":"60"}"#, "ttl_seconds"),
        (r#"{"ttl_seconds":true}"#, "ttl_seconds"),
        (r#"{"ttl_seconds":[1]}"#, "ttl_seconds"),
        (r#"{"mode":"Shared"}"#, "mode"),
        (r#"{"mode":1}"#, "mode"),
        (r#"{"depth":0}"#, "depth"),
        (r#"{"depth":"1"}"#, "depth"),
        (r#"{"reason":1}"#, "reason"),
        (r#"{"metadata":[]}"#, "metadata"),
        (r#"{"metadata":"x"}"#, "metadata"),
        (r#"{"ttl":60}"#, "ttl"),
        (r#"{"resources":["/a"]}"#, "resources"),
        (r#"{"claim_within_seconds_":1}"#, "claim_within_seconds_"),
        (r#"{"ttl_seconds":1e400}"#, "body"),
        ("[]", "body"),
        ("60", "body"),
        ("null", "body"),
        ("\"x\"", "body"),
        ("{", "body"),
        ("{} {}", "body"),
        ("{\"reason\":\"\u{1}\"}", "body"),
        ("ttl_seconds=60", "body"),
    ] {
        refused(&server, target, body, 400, "malformed-request", field);
    }
    let long = format!("{{\"reason\":\"{}\"}}", "a".repeat(1025));
    refused(&server, target, &long, 422, "validation-failed", "reason");
    let long = format!("{{\"metadata\":{{\"a\":\"{}\"}}}}", "b".repeat(4096));
    refused(&server, target, &long, 422, "validation-failed", "metadata");
    let invalid = server.ask("POST", target).body(b"{\"reason\":\"\xff\"}".as_slice()).send();
    invalid.problem(400, "malformed-request");
    let large = format!("{{\"reason\":\"{}\"}}", "a".repeat(64 << 10));
    server.ask("POST", target).body(large).send().problem(413, "payload-too-large");
    let blank = format!("{{}}{}", " ".repeat((64 << 10) - 2));
    server.ask("POST", "/blank/lock").body(blank.clone()).send().ok(201);
    let one_more = server.ask("POST", target).body(format!("{blank} ")).send();
    one_more.problem(413, "payload-too-large");
    // Nothing was changed by a refused request.
    let shown = server.get(target).json();
    assert_eq!(shown["locked"], false, "{shown}");
    // Twice the same field, or nesting without end, is no trick either.
    let deep = format!("{{\"metadata\":{{\"a\":{}1{}}}}}", "[".repeat(500), "]".repeat(500));
    server.ask("POST", target).body(deep).send().problem(400, "malformed-request");
}

#[test]
fn a_refusal_by_a_lock_has_exactly_the_members_and_fields_that_are_promised() {
    let server = Server::start();
    let held = server.lock("/v1/flags/x", json!({"ttl_seconds": 37, "reason": "Rolling out"}));
    for (method, target) in
        [("PUT", "/v1/flags/x"), ("POST", "/v1/flags/x/lock"), ("PUT", "/v1/flags/x/below")]
    {
        let reply = server.ask(method, target).json(json!({})).send();
        let problem = reply.problem(423, "locked");
        let resource = target.strip_suffix("/lock").unwrap_or(target);
        assert_eq!(reply.field("link").unwrap(), format!("<{resource}/lock>; rel=\"lock\""));
        let retry: u64 = reply.field("retry-after").unwrap().parse().unwrap();
        assert!((36..=37).contains(&retry), "{retry}");
        assert_eq!(problem["title"], "Locked");
        assert_eq!(problem["retryable"], "same");
        assert_eq!(problem["instance"], target);
        assert_eq!(problem["locks_in_the_way"], 1);
        assert_eq!(problem["held_by_you"], false);
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.starts_with(&format!("{resource} is locked by anonymous for another 3")),
            "{detail}"
        );
        let lock = &problem["lock"];
        let mut members = keys(lock);
        members.sort_unstable();
        assert_eq!(
            members,
            [
                "acquired_at",
                "dialect",
                "expires_at",
                "expires_in_ms",
                "holder",
                "kind",
                "lock_id",
                "mode",
                "reason",
                "resource",
            ]
        );
        assert_eq!(lock["lock_id"], held.id);
        assert_eq!(lock["resource"], "/v1/flags/x");
        assert_eq!(lock["reason"], "Rolling out");
        let how = &problem["how_to_unlock"];
        assert_eq!(how["inspect"], format!("GET {resource}/lock"));
        assert_eq!(how["request"], format!("POST {resource}/lock/request"));
        assert_eq!(how["break"], format!("POST {resource}/lock/break"));
        assert!(how["wait"].is_string());
        assert!(!reply.text().contains("lock_token") && !reply.text().contains(&held.token));
    }
}

#[test]
fn retry_after_is_rounded_up_and_never_over_a_minute() {
    let server = Server::start();
    server.lock("/long", json!({"ttl_seconds": 1800}));
    assert_eq!(server.put("/long", json!(1)).field("retry-after"), Some("60"));
    server.lock("/short", json!({"ttl_seconds": 1}));
    assert_eq!(server.put("/short", json!(1)).field("retry-after"), Some("1"));
    server.lock("/mid", json!({"ttl_seconds": 30.5}));
    let refused = server.put("/mid", json!(1));
    let left = refused.json()["lock"]["expires_in_ms"].as_u64().unwrap();
    let retry: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert_eq!(retry, left.div_ceil(1000));
}

#[test]
fn locks_conflict_where_one_covers_the_other_and_not_both_are_shared() {
    let server = Server::start();
    let conflict = |one: (&str, Value), other: (&str, Value), conflicts: bool| {
        let first = server.lock(one.0, one.1.clone());
        let second = server.post(&format!("{}/lock", other.0), other.1.clone());
        if conflicts {
            second.problem(423, "locked");
        } else {
            let second = Held::of(second.ok(201));
            server.ask("DELETE", &format!("{}/lock", other.0)).token(&second).send().ok(204);
        }
        server.ask("DELETE", &format!("{}/lock", one.0)).token(&first).send().ok(204);
    };
    let (deep, flat) = (json!({}), json!({"depth": "0"}));
    let (shared, shared_flat) =
        (json!({"mode": "shared"}), json!({"mode": "shared", "depth": "0"}));
    conflict(("/a", deep.clone()), ("/a", deep.clone()), true);
    conflict(("/a", flat.clone()), ("/a", flat.clone()), true);
    conflict(("/a", deep.clone()), ("/a/b/c", flat.clone()), true);
    conflict(("/a", flat.clone()), ("/a/b", deep.clone()), false);
    conflict(("/a/b/c", flat.clone()), ("/a", deep.clone()), true);
    conflict(("/a/b/c", flat.clone()), ("/a", flat.clone()), false);
    conflict(("/a", deep.clone()), ("/ab", deep.clone()), false);
    conflict(("/a/b", deep.clone()), ("/a/c", deep.clone()), false);
    conflict(("/a", shared.clone()), ("/a", shared.clone()), false);
    conflict(("/a", shared.clone()), ("/a/b", shared_flat.clone()), false);
    conflict(("/a", shared.clone()), ("/a", deep.clone()), true);
    conflict(("/a", deep), ("/a", shared.clone()), true);
    conflict(("/a/b", flat), ("/a", shared), true);
}

#[test]
fn a_second_acquire_by_the_holder_is_refused_and_told_so() {
    let server = Server::start();
    let held = server.lock("/a", json!({}));
    assert_eq!(server.post("/a/lock", json!({})).problem(423, "locked")["held_by_you"], false);
    let mine = server.ask("POST", "/a/lock").token(&held).send();
    assert_eq!(mine.problem(423, "locked")["held_by_you"], true);
    let server = Server::with_keys(&[("alice", "writer"), ("bob", "writer")]);
    server.lock_by("alice", "/a", json!({}));
    let again = |name| server.by(name, "POST", "/a/lock").send().problem(423, "locked");
    assert_eq!(again("alice")["held_by_you"], true);
    let others = again("bob");
    assert_eq!(others["held_by_you"], false);
    assert_eq!(others["lock"]["holder"], "alice");
}

#[test]
fn inspection_shows_locks_waiters_and_freeze_and_never_a_token() {
    let server = Server::start();
    let free = server.get("/a/b/lock").ok(200);
    assert_eq!(
        free.json(),
        json!({"resource": "/a/b", "locked": false, "locks": [], "queue": [], "freeze": null})
    );
    assert_eq!(free.field("cache-control"), Some("no-store"));
    let held = server.lock("/a", json!({"reason": "r", "metadata": {"k": 1}}));
    let waiter = server.ask("POST", "/a/b/lock").field("Prefer", "wait=20").start();
    server.queued("/a/b", 1);
    server
        .put("/a/lock/freeze", json!({"reason": "f", "until": "2099-01-01T00:00:00Z"}))
        .problem(422, "ttl-out-of-range");
    let until = in_an_hour();
    server.put("/a/lock/freeze", json!({"reason": "f", "until": until})).ok(200);
    let reply = server.get("/a/b/lock").ok(200);
    let shown = reply.json();
    assert_eq!((&shown["locked"], &shown["resource"]), (&json!(true), &json!("/a/b")));
    let lock = &shown["locks"][0];
    let mut expected = held.body.as_object().unwrap().clone();
    expected.remove("lock_token");
    for volatile in ["expires_at", "expires_in_ms"] {
        expected.remove(volatile);
    }
    for (name, value) in expected {
        assert_eq!(lock[&name], value, "{name}");
    }
    assert_eq!((&lock["renewals"], &lock["breaking"]), (&json!(0), &json!(null)));
    let mut members = keys(&shown["queue"][0]);
    members.sort_unstable();
    assert_eq!(members, ["deadline", "granted", "holder", "waiting_since"]);
    assert_eq!(shown["queue"][0]["granted"], false);
    let mut members = keys(&shown["freeze"]);
    members.sort_unstable();
    assert_eq!(members, ["by", "reason", "resource", "since", "until"]);
    assert!(!reply.text().contains(&held.token));
    // A lock below does not cover; a waiter above is not met by a resource beside.
    assert_eq!(server.get("/c/lock").json()["locks"], json!([]));
    assert_eq!(server.get("/a/c/lock").json()["queue"], json!([]));
    let head = server.ask("HEAD", "/a/b/lock").send().ok(200);
    assert!(head.body.is_empty());
    drop(waiter);
}

fn in_an_hour() -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string()
}

#[test]
fn renewing_counts_from_now_and_without_a_ttl_never_brings_the_deadline_forward() {
    let server = Server::start();
    let held = server.lock("/a", json!({"ttl_seconds": 100}));
    let renew = |body: Value| server.ask("PATCH", "/a/lock").token(&held).json(body).send();
    let left = |reply: &Reply| reply.json()["expires_in_ms"].as_u64().unwrap();
    let reply = renew(json!({"ttl_seconds": 500})).ok(200);
    assert!((499_000..=500_000).contains(&left(&reply)));
    let body = reply.json();
    assert!(body.get("lock_token").is_none());
    assert_eq!(body["ttl_seconds"], 500);
    for same in ["lock_id", "fence", "acquired_at", "resource", "holder"] {
        assert_eq!(body[same], held.body[same], "{same}");
    }
    assert_eq!(reply.field("cache-control"), Some("no-store"));
    assert!(reply.field("lock-token").is_none());
    // A shorter one that is asked for is taken.
    assert!(left(&renew(json!({"ttl_seconds": 50})).ok(200)) <= 50_000);
    // PUT is the same, without a body, with the TTL last asked for.
    let put = server.ask("PUT", "/a/lock").token(&held).send().ok(200);
    assert!((49_000..=50_000).contains(&left(&put)));
    assert_eq!(server.get("/a/lock").json()["locks"][0]["renewals"], 3);
    for (body, status, name) in [
        (json!({"ttl_seconds": 0.5}), 422, "ttl-out-of-range"),
        (json!({"ttl_seconds": 1801}), 422, "ttl-out-of-range"),
        (json!({"ttl_seconds": null}), 400, "malformed-request"),
        (json!({"ttl": 1}), 400, "malformed-request"),
        (json!([]), 400, "malformed-request"),
    ] {
        renew(body).problem(status, name);
    }
}

#[test]
fn a_lock_is_not_renewed_past_its_longest_life() {
    let server = Server::with("[[rule]]\nmatch = [\"/a\"]\nmax_hold = \"2s\"\nmax_ttl = \"2s\"\n");
    let held = server.lock("/a", json!({"ttl_seconds": 1.5}));
    let first = server.ask("PATCH", "/a/lock").token(&held).json(json!({"ttl_seconds": 2})).send();
    let left = first.ok(200).json()["expires_in_ms"].as_u64().unwrap();
    assert!(left < 2000, "cut to what is left of 2 s: {left}");
    // At it: nothing is left to add.
    let at = server.ask("PATCH", "/a/lock").token(&held).json(json!({"ttl_seconds": 2})).send();
    let problem = at.problem(422, "ttl-out-of-range");
    assert_eq!(problem["max_hold_seconds"], 2);
}

#[test]
fn releasing_twice_is_released_once_and_what_else_ended_is_gone() {
    let server = Server::start();
    let held = server.lock("/a", json!({}));
    for _ in 0..3 {
        let reply = server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
        assert!(reply.body.is_empty());
        assert_eq!(reply.field("cache-control"), Some("no-store"));
    }
    let released = server.audit("type=released");
    assert_eq!(released.len(), 1);
    let renew = server.ask("PATCH", "/a/lock").token(&held).send().problem(410, "lock-gone");
    assert_eq!(renew["ended"], "released");
    assert!(renew["ended_at"].is_string());
    // Also when somebody else has it now.
    let next = server.lock("/a", json!({}));
    server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
    server.ask("PATCH", "/a/lock").token(&next).send().ok(200);

    server.post("/a/lock/break", json!({"reason": "gone"})).ok(200);
    for method in ["PATCH", "DELETE"] {
        let gone = server.ask(method, "/a/lock").token(&next).send().problem(410, "lock-gone");
        assert_eq!(gone["ended"], "broken");
        assert_eq!((&gone["by"], &gone["reason"]), (&json!("anonymous"), &json!("gone")));
    }
    let held = server.lock("/a", json!({"ttl_seconds": 1}));
    until("the end of the lock", || {
        (server.get("/a/lock").json()["locked"] == false).then_some(())
    });
    for method in ["PATCH", "DELETE"] {
        let gone = server.ask(method, "/a/lock").token(&held).send().problem(410, "lock-gone");
        assert_eq!(gone["ended"], "expired");
    }
}

#[test]
fn a_token_at_a_lock_endpoint_is_judged_in_the_order_that_is_promised() {
    let server = Server::with_keys(&[("alice", "writer"), ("bob", "writer")]);
    let held = server.lock_by("alice", "/a", json!({}));
    let other = server.lock_by("alice", "/b", json!({}));
    for (method, target) in
        [("PATCH", "/a/lock"), ("DELETE", "/a/lock"), ("POST", "/a/lock/transfer")]
    {
        let ask = |name: &str| {
            server.by(name, method, target).json(match target {
                "/a/lock/transfer" => json!({"to": "bob"}),
                _ => json!({}),
            })
        };
        ask("alice").send().problem(400, "lock-token-required");
        ask("alice").field("X-Lock-Token", " , ,").send().problem(400, "lock-token-required");
        ask("alice")
            .field("X-Lock-Token", "lock_nonsense")
            .send()
            .problem(403, "invalid-lock-token");
        ask("alice")
            .field("X-Lock-Token", &held.token.to_uppercase())
            .send()
            .problem(403, "invalid-lock-token");
        ask("alice").token(&other).send().problem(403, "invalid-lock-token");
        ask("bob").token(&held).send().problem(403, "not-the-holder");
    }
    server.by("alice", "DELETE", "/a/lock").token(&held).send().ok(204);
    // Before it is said whether it lives.
    server.by("bob", "DELETE", "/a/lock").token(&held).send().problem(403, "not-the-holder");
    server.by("bob", "PATCH", "/a/lock").token(&held).send().problem(403, "not-the-holder");
    server.by("alice", "PATCH", "/a/lock").token(&held).send().problem(410, "lock-gone");
}

#[test]
fn a_token_is_understood_in_each_of_its_forms() {
    let server = Server::start();
    let held = server.lock("/a", json!({}));
    let put = |name: &str, content: &str| {
        server.ask("PUT", "/a").field(name, content).json(json!(1)).send().status
    };
    assert_eq!(put("X-Lock-Token", &held.token), 201);
    assert_eq!(put("x-LOCK-token", &format!(" , {} ,, {}", held.token, held.token)), 204);
    assert_eq!(put("X-Lock-Token", &held.uri()), 204);
    assert_eq!(put("Lock-Token", &format!("<{}>", held.uri())), 204);
    assert_eq!(put("If", &format!("(<{}>)", held.uri())), 204);
    assert_eq!(put("If", &format!("</a> (<{}>)", held.uri())), 204);
    let repeated = server.ask("PUT", "/a").field("X-Lock-Token", "").token(&held).token(&held);
    repeated.json(json!(1)).send().ok(204);
    // Of another lock's id, it is none.
    let wrong = format!("opaquelocktoken:00000000-0000-0000-0000-000000000000/{}", held.token);
    assert_eq!(put("X-Lock-Token", &wrong), 423);
    for (name, content) in [
        ("Lock-Token", held.token.clone()),
        ("Lock-Token", format!("<{}", held.uri())),
        ("If", held.uri()),
        ("If", "()".to_owned()),
        ("If", String::new()),
        ("If", "(<a>) trailing".to_owned()),
        ("If", "(Not)".to_owned()),
        ("If", "([unquoted])".to_owned()),
    ] {
        let reply = server.ask("PUT", "/a").field(name, &content).json(json!(1)).send();
        assert_eq!(reply.problem(400, "malformed-request")["field"], name, "{content}");
    }
    for method in ["PATCH", "DELETE"] {
        server
            .ask(method, "/a/lock")
            .field("Lock-Token", "x")
            .send()
            .problem(400, "malformed-request");
    }
    server.ask("PATCH", "/a/lock").field("If", &format!("(<{}>)", held.uri())).send().ok(200);
    server.ask("PATCH", "/a/lock").field("Lock-Token", &format!("<{}>", held.uri())).send().ok(200);
}

#[test]
fn no_more_than_256_tokens_are_taken() {
    let server = Server::start();
    let held = server.lock("/a", json!({}));
    let many = |count: usize| {
        let tokens: Vec<String> = (1..count).map(|at| format!("lock_{at}")).collect();
        let all = format!("{},{}", held.token, tokens.join(","));
        server.ask("PUT", "/b").field("X-Lock-Token", &all).json(json!(1)).send()
    };
    many(256).problem(412, "lock-mismatch");
    assert_eq!(many(257).problem(400, "malformed-request")["field"], "X-Lock-Token");
    // Twice is once.
    let twice = vec![held.token.clone(); 400].join(",");
    server.ask("PUT", "/a").field("X-Lock-Token", &twice).json(json!(1)).send().ok(201);
}

#[test]
fn a_transfer_gives_a_new_token_and_fence_and_ends_the_old_ones() {
    let server = Server::with_keys(&[("alice", "writer"), ("bob", "writer"), ("carol", "writer")]);
    let held = server.lock_by("alice", "/a", json!({"ttl_seconds": 600}));
    let transfer = |to: &str| {
        server.by("alice", "POST", "/a/lock/transfer").token(&held).json(json!({"to": to})).send()
    };
    for (body, status, name) in [
        (json!({}), 400, "malformed-request"),
        (json!({"to": 1}), 400, "malformed-request"),
        (json!({"to": "bob", "x": 1}), 400, "malformed-request"),
        (json!({"to": ""}), 422, "validation-failed"),
        (json!({"to": "b".repeat(256)}), 422, "validation-failed"),
    ] {
        let ask = server.by("alice", "POST", "/a/lock/transfer").token(&held).json(body);
        ask.send().problem(status, name);
    }
    let passed = Held::of(transfer("bob").ok(200));
    assert!(passed.fence > held.fence);
    assert_ne!(passed.token, held.token);
    assert_eq!(passed.body["holder"], "bob");
    assert!(passed.body["expires_in_ms"].as_u64().unwrap() > 590_000);
    // Repeated it gives the same; to somebody else it is gone.
    assert_eq!(Held::of(transfer("bob").ok(200)).token, passed.token);
    assert_eq!(transfer("carol").problem(410, "lock-gone")["ended"], "transferred");
    let old = server.by("alice", "PATCH", "/a/lock").token(&held).send();
    assert_eq!(old.problem(410, "lock-gone")["ended"], "transferred");
    let old = server.by("alice", "DELETE", "/a/lock").token(&held).send();
    old.problem(410, "lock-gone");
    let old = server.by("alice", "PUT", "/a").token(&held).json(json!(1)).send();
    let problem = old.problem(423, "locked");
    assert_eq!(problem["presented"][0]["state"], "ended");
    assert_eq!(problem["presented"][0]["ended"], "transferred");
    // The new token is bob's, not alice's.
    server.by("alice", "PUT", "/a").token(&passed).json(json!(1)).send().problem(423, "locked");
    server.by("bob", "PUT", "/a").token(&passed).json(json!(1)).send().ok(201);
    // First used: the answer is not given again.
    transfer("bob").problem(410, "lock-gone");
    let events = server.by("alice", "GET", "/-/audit").send();
    events.problem(403, "forbidden");
}

#[test]
fn a_request_to_let_go_is_told_at_the_next_write_and_the_next_renewal() {
    let server = Server::with_keys(&[("alice", "writer"), ("bob", "writer"), ("audra", "auditor")]);
    let ask = |body: Value| server.by("bob", "POST", "/a/lock/request").json(body).send();
    ask(json!({})).problem(409, "lock-changed");
    let held = server.lock_by("alice", "/a", json!({}));
    ask(json!({"message": "m".repeat(1025)})).problem(422, "validation-failed");
    ask(json!({"msg": "x"})).problem(400, "malformed-request");
    let write = || server.by("alice", "PUT", "/a").token(&held).json(json!(1)).send();
    assert!(write().ok(201).field("x-lock-requested-by").is_none());
    let asked = ask(json!({"message": "soon?"})).ok(202);
    assert_eq!(asked.json(), json!({"asked": [held.id]}));
    assert_eq!(write().ok(204).field("x-lock-requested-by"), Some("bob"));
    let renewed = server.by("alice", "PATCH", "/a/lock").token(&held).send().ok(200).json();
    assert_eq!(renewed["requested_by"]["by"], "bob");
    assert_eq!(renewed["requested_by"]["message"], "soon?");
    let trail = server.by("audra", "GET", "/-/audit?type=requested").send().ok(200).json();
    assert_eq!(trail["items"][0]["message"], "soon?");
    assert_eq!(trail["items"][0]["by"], "bob");
    // Below the lock it is asked as well; beside it there is nobody to ask.
    server.by("bob", "POST", "/a/b/lock/request").send().ok(202);
    server.by("bob", "POST", "/b/lock/request").send().problem(409, "lock-changed");
}

#[test]
fn a_break_ends_what_covers_the_resource_and_nothing_below() {
    let server = Server::start();
    let break_at = |at: &str, body: Value| server.post(&format!("{at}/lock/break"), body);
    break_at("/a", json!({"reason": "x"})).problem(409, "lock-changed");
    let held = server.lock("/a/b", json!({}));
    for (body, field) in [
        (json!({}), "reason"),
        (json!({"reason": ""}), "reason"),
        (json!({"reason": "  "}), "reason"),
        (json!({"reason": 1}), "reason"),
        (json!({"reason": "x", "grace_seconds": "1"}), "grace_seconds"),
        (json!({"reason": "x", "lock_id": "no"}), "lock_id"),
        (json!({"reason": "x", "force": true}), "force"),
    ] {
        assert_eq!(break_at("/a/b", body).problem(400, "malformed-request")["field"], field);
    }
    for grace in [json!(-1), json!(1e9)] {
        let reply = break_at("/a/b", json!({"reason": "x", "grace_seconds": grace}));
        reply.problem(422, "validation-failed");
    }
    break_at("/a/b", json!({"reason": "r".repeat(1025)})).problem(422, "validation-failed");
    // Never one below.
    break_at("/a", json!({"reason": "x"})).problem(409, "lock-changed");
    let other = "00000000-0000-4000-8000-000000000000";
    break_at("/a/b", json!({"reason": "x", "lock_id": other})).problem(409, "lock-changed");
    server.ask("PATCH", "/a/b/lock").token(&held).send().ok(200);
    // Also one taken above.
    let reply = break_at("/a/b/c", json!({"reason": "stuck", "lock_id": held.id})).ok(200);
    let body = reply.json();
    assert_eq!((&body["lock_id"], &body["resource"]), (&json!(held.id), &json!("/a/b")));
    assert_eq!(body["ends_in_ms"], 0);
    server.put("/a/b", json!(1)).ok(201);
    let lost =
        server.ask("PUT", "/a/b").token(&held).json(json!(1)).send().problem(412, "lock-lost");
    assert_eq!((&lost["ended"], &lost["by"]), (&json!("broken"), &json!("anonymous")));
    assert_eq!(lost["reason"], "stuck");
    assert!(lost["ended_at"].is_string());
}

#[test]
fn several_locks_are_broken_one_by_one() {
    let server = Server::start();
    let one = server.lock("/a", json!({"mode": "shared"}));
    let two = server.lock("/a/b", json!({"mode": "shared"}));
    let both = server.post("/a/b/lock/break", json!({"reason": "x"}));
    let problem = both.problem(400, "malformed-request");
    let mut listed: Vec<&str> = problem["locks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["lock_id"].as_str().unwrap())
        .collect();
    listed.sort_unstable();
    let mut ids = [one.id.as_str(), two.id.as_str()];
    ids.sort_unstable();
    assert_eq!(listed, ids);
    server.post("/a/b/lock/break", json!({"reason": "x", "lock_id": two.id})).ok(200);
    server.ask("PATCH", "/a/b/lock").token(&two).send().problem(410, "lock-gone");
    server.ask("PATCH", "/a/lock").token(&one).send().ok(200);
    server.post("/a/b/lock/break", json!({"reason": "x"})).ok(200);
}

#[test]
fn while_the_grace_of_a_break_runs_its_holder_can_write_but_not_renew() {
    let server = Server::start();
    let held = server.lock("/a", json!({"ttl_seconds": 600}));
    let reply =
        server.post("/a/lock/break", json!({"reason": "soon", "grace_seconds": 1.5})).ok(200);
    let left = reply.json()["ends_in_ms"].as_u64().unwrap();
    assert!((1000..=1500).contains(&left), "{left}");
    let changed = server.ask("PATCH", "/a/lock").token(&held).send().problem(409, "lock-changed");
    assert_eq!((&changed["by"], &changed["reason"]), (&json!("anonymous"), &json!("soon")));
    assert!(changed["ends_at"].is_string());
    let transfer = server.ask("POST", "/a/lock/transfer").token(&held).json(json!({"to": "bob"}));
    transfer.send().problem(409, "lock-changed");
    server.ask("PUT", "/a").token(&held).json(json!(1)).send().ok(201);
    let shown = server.get("/a/lock").json();
    assert_eq!(shown["locks"][0]["breaking"]["by"], "anonymous");
    assert_eq!(shown["locks"][0]["breaking"]["reason"], "soon");
    server.put("/a", json!(1)).problem(423, "locked");
    let gone = until("the end of the grace", || {
        let reply = server.ask("PATCH", "/a/lock").token(&held).send();
        (reply.status == 410).then_some(reply)
    });
    assert_eq!(gone.json()["ended"], "broken");
    // The deadline comes first where it is earlier.
    let held = server.lock("/b", json!({"ttl_seconds": 5}));
    let reply = server.post("/b/lock/break", json!({"reason": "x", "grace_seconds": 100})).ok(200);
    assert!(reply.json()["ends_in_ms"].as_u64().unwrap() <= 5000);
    // A holder may still let go.
    server.ask("DELETE", "/b/lock").token(&held).send().ok(204);
}

#[test]
fn a_dry_run_tells_what_a_break_would_end_and_changes_nothing() {
    let server = Server::start();
    let held = server.lock("/a", json!({"reason": "mine"}));
    let waiter = server.ask("POST", "/a/lock").field("Prefer", "wait=20").start();
    server.queued("/a", 1);
    let reply =
        server.ask("POST", "/a/lock/break?dry_run=true").json(json!({"reason": "x"})).send();
    let told = reply.ok(200).json();
    assert_eq!(told["dry_run"], true);
    assert_eq!(
        (&told["lock"]["lock_id"], &told["lock"]["holder"]),
        (&json!(held.id), &json!("anonymous"))
    );
    assert!(told["age_ms"].is_u64());
    assert_eq!(told["writes_in_flight"], 0);
    assert_eq!(told["queue"].as_array().unwrap().len(), 1);
    assert!(!told.to_string().contains(&held.token));
    server.ask("PATCH", "/a/lock").token(&held).send().ok(200);
    // No reason is needed to look.
    server.ask("POST", "/a/lock/break?dry_run=true").send().ok(200);
    let bad =
        server.ask("POST", "/a/lock/break?dry_run=perhaps").json(json!({"reason": "x"})).send();
    assert_eq!(bad.problem(400, "malformed-request")["field"], "dry_run");
    assert!(server.audit("type=broken").is_empty());
    drop(waiter);
    server.post("/b/lock/break?dry_run=true", json!({})).problem(409, "lock-changed");
}

#[test]
fn a_frozen_resource_refuses_acquires_and_writes_before_it_says_locked() {
    let server = Server::start();
    let held = server.lock("/a/b", json!({}));
    let until = in_an_hour();
    for (body, status, name, field) in [
        (json!({"until": until}), 422, "validation-failed", "/reason"),
        (json!({"reason": "", "until": until}), 422, "validation-failed", "/reason"),
        (json!({"reason": "x"}), 422, "validation-failed", "/until"),
        (json!({}), 422, "validation-failed", "/reason"),
        (json!({"reason": "x", "until": "2020-01-01T00:00:00Z"}), 422, "ttl-out-of-range", ""),
        (json!({"reason": "x", "until": "2999-01-01T00:00:00Z"}), 422, "ttl-out-of-range", ""),
        (json!({"reason": "x", "until": "tomorrow"}), 400, "malformed-request", "until"),
        (json!({"reason": "x", "until": 5}), 400, "malformed-request", "until"),
        (json!({"reason": "x", "until": until, "y": 1}), 400, "malformed-request", "y"),
    ] {
        let problem = server.put("/a/lock/freeze", body).problem(status, name);
        match name {
            "validation-failed" => assert_eq!(problem["errors"][0]["pointer"], field),
            "malformed-request" => assert_eq!(problem["field"], field),
            _ => {}
        }
    }
    server.put("/a/b", json!(1)).problem(423, "locked");
    let frozen = server.put("/a/lock/freeze", json!({"reason": "release", "until": until})).ok(200);
    assert_eq!(frozen.field("cache-control"), Some("no-store"));
    let freeze = frozen.json();
    assert_eq!((&freeze["resource"], &freeze["by"]), (&json!("/a"), &json!("anonymous")));
    // Whatever token they hold, and for acquires at once, waiting or not.
    let with_token = server.ask("PUT", "/a/b").token(&held).json(json!(1)).send();
    let problem = with_token.problem(423, "frozen");
    assert_eq!(problem["freeze"], freeze);
    assert_eq!(problem["how_to_unlock"]["unfreeze"], "DELETE /a/lock/freeze");
    assert_eq!(with_token.field("retry-after"), Some("60"));
    server.put("/a/b", json!(1)).problem(423, "frozen");
    server.post("/a/c/lock", json!({})).problem(423, "frozen");
    server.ask("POST", "/a/c/lock").field("Prefer", "wait=10").send().problem(423, "frozen");
    // What goes away takes the frozen along; what is above and stays does not.
    server.put("/up", json!(1)).ok(201);
    server.put("/up/down/lock/freeze", json!({"reason": "x", "until": until})).ok(200);
    server.ask("DELETE", "/up?recursive=true").send().problem(423, "frozen");
    server.put("/up", json!(2)).ok(204);
    // Holders go on.
    server.ask("PATCH", "/a/b/lock").token(&held).send().ok(200);
    server.get("/a/b/lock").ok(200);
    // A second PUT replaces it; lifting is done once, and again.
    let replaced = server.put("/a/lock/freeze", json!({"reason": "other", "until": until})).ok(200);
    assert_eq!(replaced.json()["reason"], "other");
    server.delete("/a/lock/freeze").ok(204);
    server.delete("/a/lock/freeze").ok(204);
    server.ask("PUT", "/a/b").token(&held).json(json!(1)).send().ok(201);
    let kinds: Vec<Value> = server.audit("resource=/a").iter().map(|e| e["type"].clone()).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "frozen").count(), 2, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| *kind == "unfrozen").count(), 1, "{kinds:?}");
}

#[test]
fn a_freeze_ends_by_itself_when_its_time_has_passed() {
    let server = Server::start();
    let until_when = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2)).to_string();
    server.put("/a/lock/freeze", json!({"reason": "x", "until": until_when})).ok(200);
    server.put("/a", json!(1)).problem(423, "frozen");
    until("the end of the freeze", || (server.put("/a", json!(1)).status == 201).then_some(()));
    assert_eq!(server.get("/a/lock").json()["freeze"], json!(null));
    let passed = until("its event", || server.audit("type=unfrozen").pop());
    assert_eq!(passed["how"], "passed");
}

#[test]
fn an_expired_lock_is_lost_to_its_holder_and_free_for_others() {
    let server = Server::start();
    let held = server.lock("/a", json!({"ttl_seconds": 1}));
    server.ask("PUT", "/a").token(&held).json(json!(1)).send().ok(201);
    let lost = until("the end of the lock", || {
        let reply = server.ask("PUT", "/a").token(&held).json(json!(2)).send();
        (reply.status != 204).then_some(reply)
    });
    let problem = lost.problem(412, "lock-lost");
    assert_eq!((&problem["ended"], &problem["lock_id"]), (&json!("expired"), &json!(held.id)));
    assert!(problem["ended_at"].is_string());
    let next = server.lock("/a", json!({}));
    assert!(next.fence > held.fence);
    let problem = server.ask("PUT", "/a").token(&held).json(json!(2)).send().problem(423, "locked");
    let presented = &problem["presented"][0];
    assert_eq!((&presented["state"], &presented["ended"]), (&json!("ended"), &json!("expired")));
    assert_eq!(presented["lock_id"], held.id);
    assert!(presented["ended_at"].is_string());
}

#[test]
fn a_rule_bounds_what_is_locked_below_it() {
    let server = Server::with(
        "[[rule]]\nmatch = [\"/short/{id}/**\"]\ndefault_ttl = \"10s\"\nmax_ttl = \"20s\"\n\
         max_locks_per_holder = 2\nlocked_status = 409\n\
         [[rule]]\nmatch = [\"/need/**\"]\nrequire_precondition = true\n",
    );
    let held = server.lock("/short/a", json!({}));
    assert_eq!(held.body["ttl_seconds"], 10);
    let over = server.post("/short/b/lock", json!({"ttl_seconds": 21}));
    assert_eq!(over.problem(422, "ttl-out-of-range")["max_ttl_seconds"], 20);
    let renew =
        server.ask("PATCH", "/short/a/lock").token(&held).json(json!({"ttl_seconds": 21})).send();
    assert_eq!(renew.problem(422, "ttl-out-of-range")["max_ttl_seconds"], 20);
    // Acquires are 409 here, and writes stay 423; the name is the same.
    server.post("/short/a/lock", json!({})).problem(409, "locked");
    server.put("/short/a", json!(1)).problem(423, "locked");
    server.lock("/short/b", json!({}));
    let full = server.post("/short/c/lock", json!({}));
    full.problem(429, "too-many-locks");
    assert!(full.field("retry-after").is_some());
    // 428 without token or precondition.
    server.put("/need/x", json!(1)).problem(428, "precondition-required");
    server.ask("PUT", "/need/x").field("If-None-Match", "*").json(json!(1)).send().ok(201);
    let held = server.lock("/need/x", json!({}));
    server.ask("PUT", "/need/x").token(&held).json(json!(1)).send().ok(204);
    server.put("/other", json!(1)).ok(201);
}

#[test]
fn a_rule_hides_the_holder_from_others_and_not_from_itself() {
    let server = Setup::default()
        .config("[[rule]]\nmatch = [\"/s/**\"]\ndisclose_holder = false\n")
        .key("alice", "writer", None)
        .key("bob", "writer", None)
        .key("audra", "auditor", None)
        .key("mia", "manager", None)
        .key("root", "admin", None)
        .start();
    let passed = server.lock_by("bob", "/s/a", json!({}));
    let passed = server.by("bob", "POST", "/s/a/lock/transfer").token(&passed);
    Held::of(passed.json(json!({"to": "alice"})).send().ok(200));
    server.by("root", "POST", "/s/a/lock/break").json(json!({"reason": "x"})).send().ok(200);
    let held = server.lock_by("alice", "/s/a", json!({}));
    assert_eq!(held.body["holder"], "alice");
    let holder_for = |name: &str| {
        let inspected = server.by(name, "GET", "/s/a/lock").send().ok(200).json();
        let listed = server.by(name, "GET", "/-/locks").send().ok(200).json();
        assert_eq!(inspected["locks"][0]["holder"], listed["items"][0]["holder"]);
        inspected["locks"][0]["holder"].clone()
    };
    assert_eq!(holder_for("alice"), "alice");
    assert_eq!(holder_for("root"), "alice");
    assert_eq!(holder_for("bob"), json!(null));
    let refused = server.by("bob", "PUT", "/s/a").json(json!(1)).send();
    let problem = refused.problem(423, "locked");
    assert_eq!(problem["lock"]["holder"], json!(null));
    assert!(!refused.text().contains("alice"), "{refused:?}");
    // Nor who waits, in the preview of a break.
    let waiter = server.by("alice", "POST", "/s/a/lock?wait=20").start();
    let preview = until("alice in the queue", || {
        let preview = server.by("mia", "POST", "/s/a/lock/break?dry_run=true").send();
        (preview.json()["queue"].as_array().unwrap().len() == 1).then_some(preview)
    });
    assert_eq!(preview.json()["queue"][0]["holder"], json!(null));
    assert!(!preview.text().contains("alice"), "{preview:?}");
    drop(waiter);
    let listed = server.by("bob", "GET", "/-/locks?holder=alice").send().ok(200).json();
    assert_eq!(listed["items"], json!([]));
    let trail = server.by("audra", "GET", "/-/audit?resource=/s").send().ok(200);
    assert!(!trail.text().contains("alice") && !trail.text().contains("bob"), "{trail:?}");
    let events = trail.json()["items"].as_array().unwrap().clone();
    let handed = events.iter().find(|event| event["type"] == "transferred").unwrap();
    assert!(handed["transferred_to"].get("holder").is_none(), "{handed}");
    let filtered = server.by("audra", "GET", "/-/audit?holder=alice").send().ok(200).json();
    assert_eq!(filtered["items"], json!([]), "a filter is an oracle");
    let filtered = server.by("audra", "GET", "/-/audit?actor=alice").send().ok(200).json();
    assert_eq!(filtered["items"], json!([]), "a filter is an oracle");
}
