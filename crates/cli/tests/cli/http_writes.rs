//! Section 3 of the wire contract: which writes are let through, and which refusal comes first.

use crate::common::{Ask, Held, Reply, Server, Setup, json};

fn in_an_hour() -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string()
}

const RULES: &str = "
[[rule]]
match = [\"/strict/**\"]
require_precondition = true
[[rule]]
match = [\"/wide/**\"]
covers_below = true
";

/// One server with everything that can be wrong with a write, for two principals.
fn stage() -> Server {
    Setup::default()
        .config(&format!("[limits]\nmax_document = \"1KiB\"\n{RULES}"))
        .key("alice", "manager", None)
        .key("bob", "manager", None)
        .key("rita", "reader", None)
        .start()
}

/// What can be wrong with a `PATCH`, in the order of precedence. Each is put on a request that has
/// everything after it as well, so each pair is judged.
#[test]
fn of_everything_wrong_with_a_write_the_first_in_order_is_told() {
    let server = stage();
    let put = |at: &str, value| {
        server.by("alice", "PUT", at).field("If-None-Match", "*").json(value).send().ok(201)
    };
    for at in ["/strict/doc", "/strict/locked", "/strict/frozen"] {
        put(at, json!({"a": 1}));
    }
    let freeze = json!({"reason": "x", "until": in_an_hour()});
    server.by("alice", "PUT", "/strict/frozen/lock/freeze").json(freeze).send().ok(200);
    let holds = server.lock_by("bob", "/strict/locked", json!({}));
    let ended = server.lock_by("alice", "/elsewhere", json!({}));
    server.by("alice", "DELETE", "/elsewhere/lock").token(&ended).send().ok(204);
    let mismatch = server.lock_by("alice", "/beside", json!({}));

    // Everything from some step on is wrong with this one.
    let wrong = |method: &str, at: &str, from: u32| -> Ask {
        let target = if from == 0 { format!("{at}%zz") } else { at.to_owned() };
        let mut ask = match from {
            0 | 1 => server.ask(method, &target),
            2 => server.by("rita", method, &target),
            _ => server.by("alice", method, &target),
        };
        if from <= 5 {
            ask = ask.token(&ended);
        }
        if from <= 6 {
            ask = ask.token(&mismatch);
        }
        if from <= 7 {
            // 428: neither token nor precondition; with a token it cannot be.
        }
        if from <= 9 {
            ask = ask.field("Content-Type", "text/plain");
        } else {
            ask = ask.field("Content-Type", "application/json-patch+json");
        }
        if (8..=11).contains(&from) {
            ask = ask.field("If-Match", "\"nothing\"");
        } else if from > 11 {
            ask = ask.field("If-Match", "*");
        }
        ask.body(match from {
            0..=8 => "x".repeat(2000).into_bytes(),
            9 | 10 => b"{ broken".to_vec(),
            _ => br#"[{"op": "remove", "path": "/none"}]"#.to_vec(),
        })
    };
    let patch = |at: &str, from: u32| wrong("PATCH", at, from).send();
    patch("/strict/frozen", 0).problem(400, "malformed-request");
    patch("/strict/frozen", 1).problem(401, "unauthenticated");
    patch("/strict/frozen", 2).problem(403, "forbidden");
    // 405 is step 1 as well, behind 401 and 403.
    wrong("BREW", "/strict/frozen", 1).send().problem(401, "unauthenticated");
    wrong("BREW", "/strict/frozen", 2).send().problem(403, "forbidden");
    wrong("BREW", "/strict/frozen", 3).send().problem(405, "method-not-allowed");
    patch("/strict/frozen", 3).problem(423, "frozen");
    let locked = patch("/strict/locked", 4).problem(423, "locked");
    let states: Vec<_> =
        locked["presented"].as_array().unwrap().iter().map(|each| each["state"].clone()).collect();
    assert_eq!(states, ["ended", "live-elsewhere"]);
    patch("/strict/doc", 5).problem(412, "lock-lost");
    patch("/strict/doc", 6).problem(412, "lock-mismatch");
    patch("/strict/doc", 7).problem(428, "precondition-required");
    patch("/strict/doc", 8).problem(413, "payload-too-large");
    patch("/strict/doc", 9).problem(415, "unsupported-media-type");
    patch("/strict/doc", 10).problem(400, "malformed-request");
    patch("/strict/doc", 11).problem(412, "precondition-failed");
    patch("/strict/doc", 12).problem(409, "patch-conflict");
    // 404 comes before 409: a patch of nothing.
    let nothing =
        server.by("alice", "PATCH", "/none").field("Content-Type", "application/json-patch+json");
    nothing
        .body(br#"[{"op": "remove", "path": "/none"}]"#.as_slice())
        .send()
        .problem(404, "not-found");
    // Nothing of all that has changed anything.
    assert_eq!(server.by("rita", "GET", "/strict/doc").send().json(), json!({"a": 1}));
    drop(holds);
}

#[test]
fn broken_syntax_is_told_before_who_asks_is_looked_at() {
    let server = stage();
    for (name, content) in [
        ("If", "(("),
        ("Lock-Token", "nothing"),
        ("If-Match", "unquoted"),
        ("X-Lock-Token", "caf\u{e9}"),
    ] {
        let reply = server.ask("PUT", "/a").field(name, content).json(json!(1)).send();
        assert_eq!(reply.problem(400, "malformed-request")["field"], name);
        let reply = server.by("rita", "PUT", "/a").field(name, content).json(json!(1)).send();
        assert_eq!(reply.problem(400, "malformed-request")["field"], name);
    }
}

#[test]
fn a_token_that_does_not_fit_refuses_a_write_that_nothing_is_in_the_way_of() {
    let server = stage();
    let here = server.lock_by("alice", "/here", json!({}));
    let there = server.lock_by("alice", "/there", json!({}));
    let others = server.lock_by("bob", "/others", json!({}));
    let write = |at: &str, tokens: &[&str]| -> Reply {
        let mut ask = server.by("alice", "PUT", at);
        for token in tokens {
            ask = ask.field("X-Lock-Token", token);
        }
        ask.json(json!(1)).send()
    };
    write("/free", &[&there.token]).problem(412, "lock-mismatch");
    write("/free", &[&others.token]).problem(403, "not-the-holder");
    write("/free", &["lock_never"]).problem(403, "invalid-lock-token");
    write("/here", &[&here.token, &there.token]).problem(412, "lock-mismatch");
    write("/here", &[&here.token, "lock_never"]).problem(403, "invalid-lock-token");
    write("/here", &[&here.token]).ok(201);
    // Where a lock is in the way, `presented` says of each what it is.
    let problem =
        write("/others", &[&here.token, &others.token, "lock_never"]).problem(423, "locked");
    assert_eq!(
        problem["presented"],
        json!([{"lock_id": here.id, "state": "live-elsewhere"}, {"state": "not-yours"}, {"state": "unknown"}])
    );
    server.by("alice", "DELETE", "/there/lock").token(&there).send().ok(204);
    let lost = write("/free", &[&there.token]).problem(412, "lock-lost");
    assert_eq!(lost["ended"], "released");
    assert_eq!(lost["retryable"], "after-change");
    // Of those that do not fit, the ended is told first.
    write("/free", &["lock_never", &others.token, &here.token, &there.token])
        .problem(412, "lock-lost");
    write("/free", &["lock_never", &others.token, &here.token]).problem(412, "lock-mismatch");
    write("/free", &["lock_never", &others.token]).problem(403, "not-the-holder");
}

#[test]
fn reads_always_pass() {
    let server = Server::start();
    server.put("/a/b", json!(1)).ok(201);
    server.lock("/a", json!({}));
    server.put("/a/lock/freeze", json!({"reason": "x", "until": in_an_hour()})).ok(200);
    for token in ["", "lock_nonsense", "lock_a,lock_b"] {
        for method in ["GET", "HEAD"] {
            server.ask(method, "/a/b").field("X-Lock-Token", token).send().ok(200);
        }
        server.ask("OPTIONS", "/a/b").field("X-Lock-Token", token).send().ok(204);
    }
}

#[test]
fn connect_and_trace_are_not_taken() {
    let server = Server::start();
    let trace = server.ask("TRACE", "/a").send();
    trace.problem(405, "method-not-allowed");
    assert!(trace.field("allow").is_some());
    let connect = server.raw("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n");
    assert_eq!(connect.status, 405);
    for method in ["LOCK", "PROPFIND", "MOVE", "put"] {
        let reply = server.ask(method, "/a").send();
        reply.problem(405, "method-not-allowed");
        assert!(reply.field("allow").unwrap().contains("PUT"), "{reply:?}");
    }
}

#[test]
fn a_write_counts_for_everything_that_it_names() {
    let server = Server::start();
    server.put("/c/old", json!(1)).ok(201);
    // Depth 0 holds the resource and its list of children.
    let held = server.lock("/c", json!({"depth": "0"}));
    server.put("/c", json!(1)).problem(423, "locked");
    server.put("/c/new", json!(1)).problem(423, "locked");
    server.delete("/c/old").problem(423, "locked");
    server.post("/c", json!({})).problem(423, "locked");
    server.put("/c/old", json!(2)).ok(204);
    server.ask("PUT", "/c/new").token(&held).json(json!(1)).send().ok(201);
    server.ask("DELETE", "/c/old").token(&held).send().ok(204);
    server.ask("POST", "/c").token(&held).json(json!({"id": "p"})).send().ok(201);
    // Only changing a child is not for the list.
    server.ask("PUT", "/c/new").token(&held).json(json!(2)).send().problem(412, "lock-mismatch");
    server.ask("DELETE", "/c/lock").token(&held).send().ok(204);
    // The child that a POST names.
    let child = server.lock("/c/named", json!({}));
    server.post("/c", json!({"id": "named"})).problem(423, "locked");
    server.ask("POST", "/c").token(&child).json(json!({"id": "named"})).send().ok(201);
    server.post("/c", json!({"id": "other"})).ok(201);
    // DELETE takes everything below along.
    server.put("/d/e/f", json!(1)).ok(201);
    let deep = server.lock("/d/e/f", json!({}));
    server.ask("DELETE", "/d?recursive=true").send().problem(423, "locked");
    server.ask("DELETE", "/d/e?recursive=true").token(&deep).send().ok(204);
    server.get("/d/e/f").problem(404, "not-found");
    // DELETE keeps the lock.
    server.put("/d/e/f", json!(1)).problem(423, "locked");
    server.ask("PATCH", "/d/e/f/lock").token(&deep).send().ok(200);
}

#[test]
fn every_exclusive_lock_that_covers_is_matched_by_its_own_token() {
    let server = Server::start();
    let list = server.lock("/c", json!({"depth": "0"}));
    let child = server.lock("/c/x", json!({}));
    let create = |tokens: &[&Held]| {
        let ask = tokens.iter().fold(server.ask("PUT", "/c/x"), |ask, held| ask.token(held));
        ask.json(json!(1)).send()
    };
    let both = create(&[]).problem(423, "locked");
    assert_eq!(both["locks_in_the_way"], 2);
    let one = create(&[&child]).problem(423, "locked");
    assert_eq!(one["lock"]["lock_id"], list.id);
    assert_eq!(one["held_by_you"], false);
    assert_eq!(one["presented"], json!([{"lock_id": child.id, "state": "fits"}]));
    create(&[&list]).problem(423, "locked");
    create(&[&child, &list]).ok(201);
    create(&[&child]).ok(204);
}

#[test]
fn where_a_rule_says_so_a_write_asks_for_the_locks_below_too() {
    let server = Server::with(RULES);
    server.lock("/wide/a/b", json!({}));
    server.put("/wide/a", json!(1)).problem(423, "locked");
    server.lock("/narrow/a/b", json!({}));
    server.put("/narrow/a", json!(1)).ok(201);
}

#[test]
fn a_precondition_is_demanded_where_the_rule_says_so() {
    let server = Server::with(RULES);
    server.put("/strict/a", json!(1)).problem(428, "precondition-required");
    let made =
        server.ask("PUT", "/strict/a").field("If-None-Match", "*").json(json!(1)).send().ok(201);
    server.delete("/strict/a").problem(428, "precondition-required");
    let when = server.get("/strict/a").field("last-modified").unwrap().to_owned();
    let changed =
        server.ask("PUT", "/strict/a").field("If-Match", &made.etag()).json(json!(2)).send();
    changed.ok(204);
    let unmodified = server.ask("PUT", "/strict/a").field("If-Unmodified-Since", &when);
    assert!(matches!(unmodified.json(json!(3)).send().status, 204 | 412));
    let held = server.lock("/strict/a", json!({}));
    server.ask("PUT", "/strict/a").token(&held).json(json!(2)).send().ok(204);
    server
        .ask("PUT", "/strict/a")
        .field("If", &format!("(<{}>)", held.uri()))
        .json(json!(2))
        .send()
        .ok(204);
    let post = server.post("/strict", json!({"id": "b"}));
    post.problem(428, "precondition-required");
}

#[test]
fn an_if_header_is_judged_by_its_own_rules() {
    let server = Server::start();
    let made = server.put("/a", json!(1)).ok(201);
    let etag = made.etag();
    let held = server.lock("/a", json!({}));
    let dead = server.lock("/dead", json!({}));
    server.ask("DELETE", "/dead/lock").token(&dead).send().ok(204);
    let other = server.lock("/other", json!({}));
    let (uri, gone, live) = (held.uri(), dead.uri(), other.uri());
    let nobody = "opaquelocktoken:00000000-0000-4000-8000-000000000000/lock_x";
    let put = |at: &str, content: String| {
        server.ask("PUT", at).field("If", &content).json(json!(1)).send()
    };
    // True, and its token counts as presented. A dead one beside a true alternative is no matter.
    put("/a", format!("(<{uri}>)")).ok(204);
    put("/a", format!("(<{gone}>) (<{uri}>)")).ok(204);
    put("/a", format!("(<{uri}>) (Not <DAV:no-lock>)")).ok(204);
    put("/a", format!("(<{uri}> Not <{gone}>)")).ok(204);
    let now = server.get("/a").etag();
    put("/a", format!("(<{uri}> [{now}])")).ok(204);
    put("/a", format!("(<{uri}> [{etag}])")).problem(412, "precondition-failed");
    put("/a", format!("(<{uri}> Not [{etag}])")).ok(204);
    put("/a", format!("<http://any.example/a> (<{uri}>)")).ok(204);
    // False.
    put("/a", "(<DAV:no-lock>)".to_owned()).problem(412, "precondition-failed");
    put("/free", format!("(<{gone}>)")).problem(412, "precondition-failed");
    put("/free", format!("(<{nobody}>)")).problem(412, "precondition-failed");
    put("/free", "([\"x\"])".to_owned()).problem(412, "precondition-failed");
    // True without a token: then the lock is in the way.
    put("/a", "(Not <DAV:no-lock>)".to_owned()).problem(423, "locked");
    // A condition about another resource.
    put("/free", format!("</other> (<{live}>)")).ok(201);
    put("/free", format!("</a> (<{live}>)")).problem(412, "precondition-failed");
    for broken in [
        "",
        "x",
        "(",
        "()",
        "(<>)",
        "<a> (<b>) x",
        "(<a>) </b> (<c>)",
        "([x])",
        "(Not Not <a>)",
        "(<a b>)",
    ] {
        let reply = put("/a", broken.to_owned());
        assert_eq!(reply.problem(400, "malformed-request")["field"], "If", "{broken}");
    }
}

#[test]
fn a_write_that_set_off_before_a_lock_does_not_land_after_its_grant() {
    let server = Server::start();
    server.put("/a", json!("before")).ok(201);
    let mut early = server.connect();
    early.send("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n\"ear");
    let held = server.lock("/a", json!({}));
    assert_eq!(server.get("/a").json(), json!("before"));
    early.send("ly\"");
    early.reply(false).problem(423, "locked");
    assert_eq!(server.get("/a").json(), json!("before"));
    server.ask("PUT", "/a").token(&held).json(json!("mine")).send().ok(204);
    // The other way round: a token that dies while the body is on its way.
    let mut late = server.connect();
    late.send(format!(
        "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-Lock-Token: {}\r\n\
         Content-Length: 6\r\n\r\n\"la",
        held.token
    ));
    server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
    late.send("te\"");
    late.reply(false).problem(412, "lock-lost");
    assert_eq!(server.get("/a").json(), json!("mine"));
}

#[test]
fn a_refusal_asks_for_no_body() {
    let server = Server::start();
    server.lock("/locked", json!({}));
    let head = |at: &str, length: usize| {
        format!(
            "PUT {at} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut wire = server.connect();
    wire.send(head("/locked", 10));
    // The first thing that comes is the refusal.
    wire.reply(false).problem(423, "locked");
    let mut wire = server.connect();
    wire.send(head("/big", 17 << 20));
    wire.reply(false).problem(413, "payload-too-large");
    let mut wire = server.connect();
    wire.send(head("/free", 3));
    assert_eq!(wire.reply(false).status, 100);
    wire.send("123");
    wire.reply(false).ok(201);
    let mut wire = server.connect();
    wire.send(
        "POST /x/lock HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(wire.reply(false).status, 100);
    wire.send("{}");
    wire.reply(false).ok(201);
}

#[test]
fn a_refusal_comes_before_the_whole_of_a_large_body() {
    let server = Server::start();
    server.lock("/locked", json!({}));
    // A body that nobody sends to its end.
    for length in ["Content-Length: 8000000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut wire = server.connect();
        wire.send(format!(
            "PUT /locked HTTP/1.1\r\nHost: a\r\n{length}Content-Type: application/json\r\n\r\n"
        ));
        wire.reply(false).problem(423, "locked");
    }
    // One that is sent without looking: the answer is seen all the same.
    let mut wire = server.connect();
    wire.send(format!("PUT /locked HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 512 << 10));
    wire.send(vec![b'x'; 512 << 10]);
    wire.reply(false).problem(423, "locked");
    // Of one without end at most a mebibyte is taken.
    let mut wire = server.connect();
    wire.send("PUT /locked HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000000\r\n\r\n");
    let mut sent = 0;
    while wire.try_send(vec![b'x'; 64 << 10]).is_ok() {
        sent += 64 << 10;
        assert!(sent < 64 << 20, "the server goes on reading");
    }
    server.get("/-/health/ready").ok(200);
}

#[test]
fn a_body_that_falls_silent_is_given_up() {
    let server = Server::with("[limits]\nbody_timeout = \"300ms\"\n");
    for at in ["/a", "/a/lock", "/-/batch"] {
        let method = if at == "/a" { "PUT" } else { "POST" };
        let mut wire = server.connect();
        wire.send(format!("{method} {at} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"));
        let reply = wire.reply(false);
        let problem = reply.problem(400, "malformed-request");
        assert_eq!(problem["field"], "body");
        assert!(wire.is_closed(), "the rest of the body must not be taken for a request");
    }
    server.get("/a").problem(404, "not-found");
}

#[test]
fn a_batch_is_one_write_of_all_its_operations() {
    let server = Server::start();
    server.put("/b/1", json!({"n": 1})).ok(201);
    let batch = |operations| server.post("/-/batch", json!({"operations": operations}));
    let done = batch(json!([
        {"method": "PATCH", "resource": "/b/1", "headers": {"Content-Type": "application/merge-patch+json"}, "body": {"n": 2}},
        {"method": "PUT", "resource": "/b/2", "body": {"n": 3}},
        {"method": "POST", "resource": "/b", "body": {"id": "3"}},
        {"method": "DELETE", "resource": "/b/2"},
    ]))
    .ok(200);
    assert_eq!(done.field("cache-control"), Some("no-store"));
    let results = done.json()["results"].clone();
    let statuses: Vec<_> =
        results.as_array().unwrap().iter().map(|each| each["status"].clone()).collect();
    assert_eq!(statuses, [200, 201, 201, 204]);
    assert_eq!(results[0]["body"], json!({"n": 2}));
    assert_eq!(results[1]["body"], json!(null));
    assert!(results[1]["headers"]["etag"].is_string());
    assert_eq!(results[2]["headers"]["location"], "/b/3");
    server.get("/b/2").problem(404, "not-found");
    // All or none: the last is refused by its state.
    let refused = batch(json!([
        {"method": "PUT", "resource": "/b/4", "body": 1},
        {"method": "POST", "resource": "/b", "body": {"id": "1"}},
    ]));
    assert_eq!(refused.problem(409, "already-exists")["index"], 1);
    server.get("/b/4").problem(404, "not-found");
    // Tokens of the batch and of the operations serve all.
    let one = server.lock("/b/1", json!({}));
    let three = server.lock("/b/3", json!({}));
    let both = json!({"operations": [
        {"method": "PUT", "resource": "/b/1", "body": 1},
        {"method": "PUT", "resource": "/b/3", "body": 1, "headers": {"X-Lock-Token": one.token}},
    ]});
    let refused = server.post("/-/batch", both.clone()).problem(423, "locked");
    assert_eq!(refused["index"], 1);
    assert_eq!(refused["lock"]["lock_id"], three.id);
    server.ask("POST", "/-/batch").token(&three).json(both.clone()).send().ok(200);
    let extra = server.lock("/elsewhere", json!({}));
    let mismatch = server.ask("POST", "/-/batch").token(&three).token(&extra).json(both).send();
    mismatch.problem(412, "lock-mismatch");
    // Each step is judged for all before the next: the second's lock before the first's body.
    let order = batch(json!([
        {"method": "PATCH", "resource": "/b/9", "headers": {"Content-Type": "text/plain"}, "body": 1},
        {"method": "PUT", "resource": "/b/1", "body": 1},
    ]));
    assert_eq!(order.problem(423, "locked")["index"], 1);
    let order = batch(json!([
        {"method": "PUT", "resource": "/b/1", "body": 1},
        {"method": "BREW", "resource": "/b/9"},
    ]));
    assert_eq!(order.problem(405, "method-not-allowed")["index"], 1);
    // A child that the body names.
    let child = server.lock("/n/child", json!({}));
    let named = json!([{"method": "PUT", "resource": "/z", "body": 1}, {"method": "POST", "resource": "/n", "body": {"id": "child"}}]);
    assert_eq!(batch(named.clone()).problem(423, "locked")["index"], 1);
    server.ask("POST", "/-/batch").token(&child).json(json!({"operations": named})).send().ok(200);
    // A precondition of one operation.
    let failed = batch(json!([
        {"method": "PUT", "resource": "/z", "body": 2},
        {"method": "PUT", "resource": "/y", "headers": {"If-Match": "*"}, "body": 2},
    ]));
    assert_eq!(failed.problem(412, "precondition-failed")["index"], 1);
    assert_eq!(server.get("/z").json(), json!(1));
}

#[test]
fn a_batch_that_is_none_names_what_is_wrong() {
    let server = Server::start();
    let put = json!({"method": "PUT", "resource": "/a", "body": 1});
    for (body, field, index) in [
        (json!({}), "operations", None),
        (json!({"operations": {}}), "operations", None),
        (json!({"operations": []}), "operations", None),
        (json!({"operations": vec![put.clone(); 257]}), "operations", None),
        (json!({"operations": [put], "x": 1}), "x", None),
        (json!({"operations": [put, 1]}), "operations", Some(1)),
        (json!({"operations": [put, {"resource": "/b"}]}), "method", Some(1)),
        (json!({"operations": [put, {"method": "PUT"}]}), "resource", Some(1)),
        (json!({"operations": [put, {"method": "PUT", "resource": "b"}]}), "resource", Some(1)),
        (json!({"operations": [put, {"method": "PUT", "resource": "/b//c"}]}), "resource", Some(1)),
        (json!({"operations": [put, {"method": "PUT", "resource": "/-/c"}]}), "resource", Some(1)),
        (json!({"operations": [put, {"method": "PUT", "resource": "/b", "y": 1}]}), "y", Some(1)),
        (
            json!({"operations": [put, {"method": "PUT", "resource": "/b", "headers": {"a b": "c"}}]}),
            "headers/a b",
            Some(1),
        ),
        (
            json!({"operations": [put, {"method": "PUT", "resource": "/b", "headers": {"If": "()"}}]}),
            "headers/If",
            Some(1),
        ),
    ] {
        let problem = server.post("/-/batch", body.clone()).problem(400, "malformed-request");
        assert_eq!(problem["field"], field, "{body}");
        assert_eq!(problem.get("index"), index.map(|at: i32| json!(at)).as_ref(), "{problem}");
    }
    let many: Vec<_> = (0..256)
        .map(|at| json!({"method": "PUT", "resource": format!("/m/{at}"), "body": at}))
        .collect();
    server.post("/-/batch", json!({"operations": many})).ok(200);
    server.get("/a").problem(404, "not-found");
}

#[test]
fn a_check_answers_as_the_write_would_be() {
    let server = Server::start();
    server.put("/a", json!(1)).ok(201);
    let held = server.lock("/a", json!({"reason": "r"}));
    let check = |method: &str, target: &str| {
        server
            .ask("GET", "/-/check")
            .field("X-Forwarded-Method", method)
            .field("X-Forwarded-Uri", target)
    };
    let refused = check("PUT", "/a?x=y").send();
    let problem = refused.problem(423, "locked");
    assert_eq!(problem["lock"]["lock_id"], held.id);
    assert_eq!(refused.field("link"), Some("</a/lock>; rel=\"lock\""));
    let passed = check("PUT", "/a").token(&held).send().ok(200);
    assert_eq!(passed.field("x-lock-id"), Some(held.id.as_str()));
    assert_eq!(passed.field("x-lock-fence").unwrap(), held.fence.to_string());
    assert_eq!(passed.field("x-lock-holder"), Some("anonymous"));
    check("GET", "/a").send().ok(200);
    check("PROPFIND", "/a").send().ok(200);
    check("PUT", "/free").send().ok(200);
    check("PUT", "/free").token(&held).send().problem(412, "lock-mismatch");
    let original = server
        .ask("POST", "/-/check")
        .field("X-Original-Method", "DELETE")
        .field("X-Original-URI", "/a");
    original.send().problem(423, "locked");
    // What is about a lock, or the server's own, is no write.
    check("POST", "/a/lock").send().ok(200);
    check("DELETE", "/a/lock/freeze").send().ok(200);
    check("POST", "/-/locks").send().ok(200);
    // Which is not X-Original-URL.
    let url = server
        .ask("GET", "/-/check")
        .field("X-Original-Method", "PUT")
        .field("X-Original-URL", "/a");
    url.send().problem(400, "malformed-request");
    server.get("/-/check").problem(400, "malformed-request");
    server
        .ask("GET", "/-/check")
        .field("X-Forwarded-Method", "PUT")
        .send()
        .problem(400, "malformed-request");
    check("PUT", "/a//b").send().problem(400, "malformed-request");
    check("P T", "/a").send().problem(400, "malformed-request");
    // One status for proxies that know no other.
    let denied = server
        .ask("GET", "/-/check?deny=403")
        .field("X-Forwarded-Method", "PUT")
        .field("X-Forwarded-Uri", "/a")
        .send();
    assert_eq!(denied.status, 403);
    assert_eq!(denied.field("x-leasehold-status"), Some("423"));
    assert_eq!(denied.field("x-leasehold-problem"), Some("locked"));
    assert_eq!(denied.field("x-leasehold-holder"), Some("anonymous"));
    let malformed = server.get("/-/check?deny=403");
    assert_eq!((malformed.status, malformed.field("x-leasehold-status")), (403, Some("400")));
    server.get("/-/check?deny=200").problem(400, "malformed-request");
    let trail = server.audit("type=write_checked");
    let told: Vec<_> = trail.iter().map(|event| event["problem"].clone()).collect();
    assert!(told.contains(&json!("locked")) && told.contains(&json!(null)), "{trail:?}");
    // It cannot pin, and changes nothing.
    assert_eq!(server.get("/a").json(), json!(1));
}
