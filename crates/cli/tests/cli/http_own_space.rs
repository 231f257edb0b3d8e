//! Sections 4 and 7 of the wire contract: problem pages, lists, the trail, events, health, metrics.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use serde_json::Value;

use crate::common::{Held, Server, Wire, json, until};

#[test]
fn every_problem_of_the_catalogue_has_its_page_in_both_forms() {
    let server = Server::start();
    let index = server.get("/-/problems").ok(200).json();
    let items = index["items"].as_array().unwrap();
    let names: Vec<String> = items
        .iter()
        .map(|item| item["type"].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
        .collect();
    for name in [
        "malformed-request",
        "lock-token-required",
        "unauthenticated",
        "forbidden",
        "invalid-lock-token",
        "not-the-holder",
        "not-found",
        "not-lockable",
        "method-not-allowed",
        "already-exists",
        "has-children",
        "patch-conflict",
        "lock-changed",
        "deadlock",
        "idempotency-in-progress",
        "lock-gone",
        "precondition-failed",
        "lock-lost",
        "lock-mismatch",
        "payload-too-large",
        "unsupported-media-type",
        "validation-failed",
        "ttl-out-of-range",
        "wait-out-of-range",
        "idempotency-key-reused",
        "locked",
        "frozen",
        "precondition-required",
        "rate-limited",
        "queue-full",
        "too-many-locks",
        "unavailable",
        "storage-failure",
    ] {
        assert!(names.iter().any(|each| each == name), "{name} is missing");
    }
    for name in &names {
        let at = format!("/-/problems/{name}");
        let page = server.get(&at).ok(200);
        assert_eq!(page.field("content-type"), Some("application/json"));
        assert_eq!(page.json()["type"], at);
        let browser = server
            .ask("GET", &at)
            .field("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");
        let html = browser.send().ok(200);
        assert_eq!(html.field("content-type"), Some("text/html; charset=utf-8"));
        assert!(html.text().contains(name.as_str()) && html.text().starts_with("<!"), "{name}");
        assert!(server.ask("HEAD", &at).send().ok(200).body.is_empty());
    }
    server.get("/-/problems/no-such").problem(404, "not-found");
    server.get("/-/problems/../locks").problem(400, "malformed-request");
}

#[test]
fn what_takes_no_such_method_says_which_it_takes() {
    let server = Server::start();
    for (at, allowed) in [
        ("/-/locks", "GET, HEAD, POST, OPTIONS"),
        ("/-/locks/00000000-0000-4000-8000-000000000000", "GET, HEAD, PATCH, PUT, DELETE, OPTIONS"),
        ("/-/locks/00000000-0000-4000-8000-000000000000/break", "POST, OPTIONS"),
        ("/-/locks/00000000-0000-4000-8000-000000000000/transfer", "POST, OPTIONS"),
        ("/-/check", "GET, HEAD, POST, OPTIONS"),
        ("/-/batch", "POST, OPTIONS"),
        ("/-/audit", "GET, HEAD, OPTIONS"),
        ("/-/events", "GET, HEAD, OPTIONS"),
        ("/-/health/live", "GET, HEAD, OPTIONS"),
        ("/-/health/ready", "GET, HEAD, OPTIONS"),
        ("/-/problems/locked", "GET, HEAD, OPTIONS"),
        ("/-/openapi.json", "GET, HEAD, OPTIONS"),
        ("/-/metrics", "GET, HEAD, OPTIONS"),
    ] {
        let options = server.ask("OPTIONS", at).send().ok(204);
        assert_eq!(options.field("allow"), Some(allowed), "{at}");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "BREW"] {
            if allowed.split(", ").any(|each| each == method) {
                continue;
            }
            let refused = server.ask(method, at).send();
            assert_eq!(refused.status, 405, "{method} {at}");
            assert_eq!(refused.field("allow"), Some(allowed), "{method} {at}");
        }
    }
    for at in ["/-", "/-/", "/-/nothing", "/-/health", "/-/insights", "/-/ui/", "/-/locks/a/b/c"] {
        server.get(at).problem(404, "not-found");
        server.put(at, json!(1)).problem(404, "not-found");
    }
    // What only begins alike is a resource.
    server.put("/-x", json!(1)).ok(201);
    server.post("/-/lock", json!({})).problem(404, "not-found");
}

#[test]
fn every_live_lock_is_listed_and_filtered() {
    let server = Server::start();
    let a = server.lock("/a", json!({"ttl_seconds": 100}));
    let ab = server.lock("/ab", json!({"ttl_seconds": 1000}));
    let below = server.lock("/b/c", json!({"ttl_seconds": 1000}));
    let list = |query: &str| -> Vec<String> {
        let page = server.get(&format!("/-/locks?{query}")).ok(200);
        for held in [&a, &ab, &below] {
            assert!(!page.text().contains(&held.token));
        }
        page.json()["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["lock_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(list(""), [a.id.clone(), ab.id.clone(), below.id.clone()]);
    assert_eq!(list("resource=/a"), std::slice::from_ref(&a.id));
    assert_eq!(list("resource=/b"), std::slice::from_ref(&below.id));
    assert_eq!(list("resource=%2Fb%2Fc"), std::slice::from_ref(&below.id));
    assert_eq!(list("resource=/"), list(""));
    assert_eq!(list("holder=anonymous").len(), 3);
    assert_eq!(list("holder=nobody").len(), 0);
    assert_eq!(list("kind=lock&dialect=http").len(), 3);
    assert_eq!(list("dialect=webdav").len(), 0);
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(500);
    assert_eq!(list(&format!("expires_before={soon}")), std::slice::from_ref(&a.id));
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=YTE", "cursor"),
        ("resource=a", "resource"),
        ("resource=/a//b", "resource"),
        ("expires_before=soon", "expires_before"),
        ("colour=red", "colour"),
    ] {
        let problem = server.get(&format!("/-/locks?{query}")).problem(400, "malformed-request");
        assert_eq!(problem["field"], field);
    }
    // Pages do not lose or repeat what stays.
    let page = server.get("/-/locks?limit=1").json();
    assert_eq!(page["items"][0]["lock_id"], a.id);
    server.ask("DELETE", "/a/lock").token(&a).send().ok(204);
    let new = server.lock("/new", json!({}));
    let mut cursor = page["next"].as_str().unwrap().to_owned();
    let mut seen = Vec::new();
    loop {
        let page = server.get(&format!("/-/locks?limit=1&cursor={cursor}")).json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|l| l["lock_id"].clone()));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen, [ab.id, below.id, new.id]);
}

#[test]
fn the_trail_has_each_step_with_what_is_promised_of_it() {
    let server = Server::start();
    let acquire =
        server.ask("POST", "/a/lock").field("X-Request-Id", "my-id-1").json(json!({"reason": "r"}));
    let acquired = acquire.send().ok(201);
    assert_eq!(acquired.field("x-request-id"), Some("my-id-1"));
    let held = Held::of(acquired);
    server.ask("PUT", "/a").token(&held).json(json!(1)).send().ok(201);
    server.ask("PATCH", "/a/lock").token(&held).send().ok(200);
    server.post("/a/lock/request", json!({"message": "m"})).ok(202);
    let passed =
        server.ask("POST", "/a/lock/transfer").token(&held).json(json!({"to": "bob"})).send();
    let passed = Held::of(passed.ok(200));
    server.post("/a/lock/break", json!({"reason": "b"})).ok(200);
    let last = server.lock("/a", json!({}));
    server.ask("DELETE", "/a/lock").token(&last).send().ok(204);
    let hour = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    server.put("/a/lock/freeze", json!({"reason": "f", "until": hour})).ok(200);
    server.delete("/a/lock/freeze").ok(204);
    let trail = until("the whole trail", || {
        let trail = server.audit("");
        trail.iter().any(|event| event["type"] == "unfrozen").then_some(trail)
    });
    let kinds: Vec<&str> = trail.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let expected = [
        "recovered",
        "acquired",
        "write_admitted",
        "write_completed",
        "renewed",
        "requested",
        "transferred",
        "broken",
        "acquired",
        "released",
        "frozen",
        "unfrozen",
    ];
    assert_eq!(kinds, expected);
    for (at, event) in trail.iter().enumerate() {
        assert_eq!(event["seq"], at + 1, "no gaps");
        for member in ["at", "lease_ms", "dialect", "prev"] {
            assert!(!event[member].is_null(), "{member}: {event}");
        }
    }
    let acquired = &trail[1];
    for (member, value) in [
        ("lock_id", json!(held.id)),
        ("resources", json!(["/a"])),
        ("holder", json!("anonymous")),
        ("actor", json!("anonymous")),
        ("dialect", json!("http")),
        ("fence", json!(held.fence)),
        ("request_id", json!("my-id-1")),
        ("remote_addr", json!("127.0.0.1")),
        ("reason", json!("r")),
    ] {
        assert_eq!(acquired[member], value, "{member}: {acquired}");
    }
    let (admitted, completed) = (&trail[2], &trail[3]);
    assert_eq!((&admitted["method"], &admitted["resource"]), (&json!("PUT"), &json!("/a")));
    assert_eq!((&completed["status"], &completed["method"]), (&json!(201), &json!("PUT")));
    assert_eq!(trail[6]["transferred_to"]["holder"], "bob");
    assert_eq!(trail[7]["lock_id"], passed.id);
    // Filters.
    let count = |query: &str| server.audit(query).len();
    assert_eq!(count("type=acquired"), 2);
    assert_eq!(count(&format!("lock_id={}", last.id)), 2);
    assert_eq!(count("resource=/"), 11);
    assert_eq!(count("resource=/b"), 0);
    assert_eq!(count("holder=bob"), 2);
    assert_eq!(count("actor=anonymous&type=released"), 1);
    assert_eq!(count("since=3600"), 12);
    assert_eq!(count("until=3600"), 0);
    assert_eq!(count("since=2020-01-01T00:00:00Z&until=2099-01-01T00:00:00Z"), 12);
    for (query, field) in [
        ("type=nonsense", "type"),
        ("since=yesterday", "since"),
        ("until=-1", "until"),
        ("lock_id=x", "lock_id"),
        ("order=up", "order"),
        ("limit=0", "limit"),
        ("cursor=zz", "cursor"),
        ("x=y", "x"),
        ("resource=a", "resource"),
    ] {
        let problem = server.get(&format!("/-/audit?{query}")).problem(400, "malformed-request");
        assert_eq!(problem["field"], field);
    }
    for token in [&held.token, &passed.token, &last.token] {
        assert!(!server.get("/-/audit?limit=1000").text().contains(token.as_str()));
    }
}

#[test]
fn the_pages_of_the_trail_are_stable_in_both_orders() {
    let server = Server::start();
    for at in 0..10 {
        server.lock(&format!("/x/{at}"), json!({}));
    }
    let collect = |order: &str| -> Vec<u64> {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page =
                server.get(&format!("/-/audit?limit=3&order={order}{cursor}")).ok(200).json();
            seen.extend(
                page["items"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()),
            );
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return seen,
            }
            // What comes meanwhile does not move what is left.
            server.lock(&format!("/{order}/{}", seen.len()), json!({}));
            if seen.len() > 60 {
                panic!("no end: {seen:?}");
            }
        }
    };
    let down = collect("desc");
    assert!(down.windows(2).all(|pair| pair[0] == pair[1] + 1), "{down:?}");
    assert_eq!(down.last(), Some(&1));
    let page = server.get("/-/audit?limit=3").json();
    let next = page["next"].as_str().unwrap();
    server
        .get(&format!("/-/audit?limit=3&order=desc&cursor={next}"))
        .problem(400, "malformed-request");
}

#[test]
fn the_trail_comes_in_the_form_that_is_asked_for() {
    let server = Server::start();
    server.lock("/a,\"b", json!({"reason": "=1+1, \"x\"\nnext"}));
    let ask = |accept: &str| {
        server.ask("GET", "/-/audit?limit=1&order=desc").field("Accept", accept).send().ok(200)
    };
    let page = ask("application/json");
    assert_eq!(page.field("content-type"), Some("application/json"));
    assert_eq!(page.field("cache-control"), Some("no-store"));
    assert!(page.json()["next"].is_string());
    let lines = ask("application/x-ndjson");
    assert_eq!(lines.field("content-type"), Some("application/x-ndjson"));
    assert_eq!(lines.text().lines().count(), 1);
    let line: Value = serde_json::from_str(lines.text()).unwrap();
    assert_eq!(line, page.json()["items"][0]);
    let link = lines.field("link").unwrap();
    assert!(link.contains("cursor=") && link.ends_with("rel=\"next\""), "{link}");
    let csv = ask("text/csv");
    assert!(csv.field("content-type").unwrap().starts_with("text/csv"));
    let text = csv.text();
    assert!(text.starts_with("seq,at,lease_ms,type,lock_id,resources,"), "{text}");
    assert!(text.contains("\"'=1+1, \"\"x\"\"\nnext\""), "{text}");
    assert_eq!(ask("text/html").field("content-type"), Some("application/json"));
}

#[test]
fn refusals_are_counted_in_the_trail_and_in_the_metrics() {
    let server = Server::start();
    server.lock("/a", json!({}));
    for _ in 0..3 {
        server.put("/a", json!(1)).problem(423, "locked");
    }
    server.get("/nothing").problem(404, "not-found");
    let metrics = server.get("/-/metrics").ok(200);
    assert!(metrics.field("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = metrics.text();
    assert!(
        text.contains("leasehold_refusals_total{status=\"423\",name=\"locked\",rule=\"0\"} 3"),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"));
    for name in ["leasehold_requests_total", "leasehold_locks 1", "leasehold_waiters 0"] {
        assert!(text.contains(name), "{name}: {text}");
    }
}

/// Reads one event of a stream: its id, type and data.
fn event(wire: &mut Wire, left: &mut String) -> (String, String, String) {
    loop {
        while let Some((frame, rest)) = left.split_once("\n\n") {
            let field = |name: &str| {
                let found = frame.lines().find_map(|line| line.strip_prefix(name));
                found.unwrap_or_default().trim().to_owned()
            };
            let event = (field("id:"), field("event:"), field("data:"));
            *left = rest.to_owned();
            if !event.2.is_empty() {
                return event;
            }
        }
        let chunk = wire.chunk().unwrap();
        left.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

#[test]
fn events_are_told_as_they_come_and_resume_without_a_gap() {
    let server = Server::start();
    server.lock("/before", json!({}));
    let mut stream = server.ask("GET", "/-/events").start();
    let head = stream.reply_head();
    assert_eq!((head.status, head.field("content-type")), (200, Some("text/event-stream")));
    assert_eq!(head.field("cache-control"), Some("no-store"));
    let mut left = String::new();
    let held = server.lock("/a", json!({}));
    let (id, kind, data) = event(&mut stream, &mut left);
    assert_eq!((kind.as_str(), id.as_str()), ("acquired", "3"), "{data}");
    let data: Value = serde_json::from_str(&data).unwrap();
    assert_eq!((&data["lock_id"], &data["seq"]), (&json!(held.id), &json!(3)));
    assert!(!data.to_string().contains(&held.token));
    drop(stream);
    for at in 0..5 {
        server.lock(&format!("/gap/{at}"), json!({}));
    }
    let mut stream = server.ask("GET", "/-/events").field("Last-Event-ID", &id).start();
    stream.reply_head();
    let mut left = String::new();
    server.lock("/gap/last", json!({}));
    for seq in 4..=9 {
        let (id, _, data) = event(&mut stream, &mut left);
        assert_eq!(id, seq.to_string());
        assert!(data.contains("/gap/"), "{data}");
    }
    // From the very first, and with a filter.
    let mut stream = server
        .ask("GET", "/-/events?type=acquired&resource=/gap")
        .field("Last-Event-ID", "0")
        .start();
    stream.reply_head();
    let mut left = String::new();
    assert_eq!(event(&mut stream, &mut left).0, "4");
    for bad in ["x", "-1", "1.5"] {
        let reply = server.ask("GET", "/-/events").field("Last-Event-ID", bad).send();
        assert_eq!(reply.problem(400, "malformed-request")["field"], "Last-Event-ID");
    }
    server.get("/-/events?since=5").problem(400, "malformed-request");
    assert!(server.ask("HEAD", "/-/events").send().ok(200).body.is_empty());
    // Longer than there is: what comes next is told, once.
    let mut stream = server.ask("GET", "/-/events").field("Last-Event-ID", "999999").start();
    assert_eq!(stream.reply_head().status, 200);
}

#[test]
fn health_is_told_to_anyone() {
    let server = Server::with_keys(&[("alice", "reader")]);
    assert_eq!(server.get("/-/health/live").ok(200).json(), json!({"status": "live"}));
    assert_eq!(server.get("/-/health/ready").ok(200).json(), json!({"status": "ready"}));
    assert!(server.ask("HEAD", "/-/health/ready").send().ok(200).body.is_empty());
}

#[test]
fn a_request_id_is_taken_over_where_it_is_sensible() {
    let server = Server::start();
    let id = |sent: &str| {
        let reply = server.ask("GET", "/nothing").field("X-Request-Id", sent).send();
        reply.field("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id("abc-123"), "abc-123");
    for odd in ["", "a b", "<script>", &"a".repeat(129), "caf\u{e9}"] {
        assert_ne!(id(odd), odd);
    }
    let own = server.get("/nothing").field("x-request-id").unwrap().to_owned();
    assert_ne!(own, server.get("/nothing").field("x-request-id").unwrap());
}
