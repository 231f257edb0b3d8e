//! Section 1 of the wire contract: which path is which resource, and which is none.

use crate::common::{Server, Setup, json};

#[test]
fn a_resource_is_its_path_decoded_once_and_nothing_else() {
    let server = Server::start();
    server.put("/v1/flags/x%41", json!({"n": 1})).ok(201);
    for same in ["/v1/flags/xA", "/v1/flags/xA/", "/v1/flags/%78A", "/v1/flags/xA?a=b"] {
        assert_eq!(server.get(same).ok(200).json(), json!({"n": 1}), "{same}");
    }
    for other in ["/v1/flags/Xa", "/v1/flags/xa", "/v1/flags", "/V1/flags/xA", "/v1/flags/xA%20"] {
        let reply = server.get(other);
        assert!(reply.status == 404 || reply.json()["items"].is_array(), "{other}: {reply:?}");
    }
    // Decoded once: %2541 is the three bytes `%41`, and no `A`.
    server.get("/v1/flags/x%2541").problem(404, "not-found");
    server.put("/v1/flags/x%2541", json!(2)).ok(201);
    assert_eq!(server.get("/v1/flags/xA").json(), json!({"n": 1}));
    // Two spellings of é are two resources.
    server.put("/u/%C3%A9", json!(1)).ok(201);
    server.get("/u/e%CC%81").problem(404, "not-found");
}

#[test]
fn a_resource_is_shown_encoded_in_one_way() {
    let server = Server::start();
    for (sent, shown) in [
        ("/a%20b", "/a%20b"),
        ("/%61-._~!$&'()*+,;=:@", "/a-._~!$&'()*+,;=:@"),
        ("/%2d%2e_%7E%21", "/-._~!"),
        ("/%c3%a9%25", "/%C3%A9%25"),
        ("/a%3fb%23c%5bd", "/a%3Fb%23c%5Bd"),
        ("/\u{e9}", "/%C3%A9"),
        ("/a\"b", "/a%22b"),
        ("/a/", "/a"),
    ] {
        let target = format!("{}/lock", sent.trim_end_matches('/'));
        let reply = server.ask("POST", &target).send();
        if reply.status == 400 {
            // Bytes that no target may have raw: hyper refuses the line.
            assert!(!sent.is_ascii() || sent.contains('"'), "{sent}: {reply:?}");
            continue;
        }
        assert_eq!(reply.json()["resource"], shown, "{sent}: {reply:?}");
        assert_eq!(reply.field("location").unwrap(), format!("{shown}/lock"));
    }
}

#[test]
fn a_path_that_two_servers_could_read_differently_is_400_for_every_method() {
    let server = Server::start();
    let long_segment = format!("/{}", "a".repeat(2048));
    let many_segments = "/a".repeat(65);
    // Encoded, this is longer than the limit.
    let grows = format!("/{}", "|".repeat(700));
    for path in [
        "//",
        "//a",
        "/a//b",
        "/a//",
        "/.",
        "/..",
        "/a/./b",
        "/a/../b",
        "/a/%2e/b",
        "/a/%2E%2e/b",
        "/a/.%2e",
        "/a%2Fb",
        "/a%2fb",
        "/a\\b",
        "/a%5Cb",
        "/a%5cb",
        "/a%",
        "/a%4",
        "/a%zz",
        "/a%+1",
        "/a%00",
        "/a%0A",
        "/a%1f",
        "/a%7F",
        "/a%ff",
        "/a%C3",
        "/a%C0%80",
        "/a%ED%A0%80",
        &many_segments,
    ] {
        let suffix = if path.ends_with('/') { "lock" } else { "/lock" };
        for target in [path.to_owned(), format!("{path}{suffix}")] {
            for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
                let reply = server.ask(method, &target).json(json!({})).send();
                if reply.body.is_empty() && target.contains('\\') {
                    assert_eq!(reply.status, 400, "{method} {target}");
                    continue;
                }
                let problem = reply.problem(400, "malformed-request");
                assert_eq!(problem["field"], "path", "{method} {target}");
            }
        }
    }
    for path in [&long_segment, &grows] {
        let reply = server.ask("PUT", path).json(json!({})).send();
        reply.problem(400, "malformed-request");
    }
    let trail = server.audit("");
    assert!(trail.iter().all(|event| event["type"] == "recovered"), "{trail:?}");
}

#[test]
fn both_sides_of_the_limits_of_a_path_are_where_they_should_be() {
    let server = Server::start();
    let longest = format!("/{}", "a".repeat(2047));
    server.put(&longest, json!(1)).ok(201);
    server.get(&longest).ok(200);
    let deepest = "/a".repeat(64);
    server.put(&deepest, json!(1)).ok(201);
    server.get(&"/a".repeat(65)).problem(400, "malformed-request");
    server.get(&format!("{longest}a")).problem(400, "malformed-request");
    let query = "q".repeat(8192 - "/a?".len());
    assert_eq!(server.get(&format!("/a?{query}")).status, 200);
    server.get(&format!("/a?{query}q")).problem(414, "uri-too-long");
    // Over 64 KiB nobody knows any more whether the target or the fields are to blame.
    let reply = server.raw(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000)));
    assert_eq!(reply.status, 431);
    let reply =
        server.raw(format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "a".repeat(70_000)));
    assert_eq!(reply.status, 431);
}

#[test]
fn a_raw_control_character_or_a_torn_request_is_400() {
    let server = Server::start();
    for line in [
        &b"GET /a\x00b HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nHost: a\r\nX-Lock-Token : z\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
    ] {
        let reply = server.raw(line);
        assert_eq!(reply.status, 400, "{}", String::from_utf8_lossy(line));
    }
}

#[test]
fn a_request_has_one_host_and_may_name_it_in_its_target() {
    let server = Server::start();
    for hosts in ["", "Host: a\r\nHost: a\r\n", "Host: a\r\nHost: b\r\n"] {
        let reply = server.raw(format!("PUT /a HTTP/1.1\r\n{hosts}Content-Length: 1\r\n\r\n1"));
        assert_eq!(reply.problem(400, "malformed-request")["field"], "Host");
    }
    server.raw("GET /a HTTP/1.0\r\n\r\n").problem(404, "not-found");
    server.ask("PUT", "http://any.example/a").json(json!(1)).send().ok(201);
    assert_eq!(server.get("/a").json(), json!(1));
    server.ask("GET", "http://any.example/a//b").send().problem(400, "malformed-request");
    let all = server.ask("OPTIONS", "*").send().ok(204);
    assert!(all.field("allow").unwrap().contains("PATCH"));
    server.ask("GET", "*").send().problem(400, "malformed-request");
}

#[test]
fn a_body_is_framed_in_one_way_only() {
    let server = Server::start();
    let mut wire = server.connect();
    // Two lengths: whoever believes the wrong one takes the rest for a request.
    wire.send(
        "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n\
         1\r\n5\r\n0\r\n\r\n",
    );
    let reply = wire.reply(false);
    assert!(matches!(reply.status, 201 | 400), "{reply:?}");
    if reply.status == 201 {
        assert_eq!(server.get("/a").text(), "5");
        // And nobody goes on from there (RFC 9112, section 6.1).
        assert!(wire.is_closed());
    }
}

#[test]
fn a_chunk_that_is_no_chunk_changes_nothing() {
    let server = Server::start();
    for chunks in ["zz\r\n", "5\r\nabc\r\n0\r\n\r\n", "-1\r\n", "1\r\n1x"] {
        let head = "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        let mut wire = server.connect();
        wire.send(head);
        wire.send(chunks);
        wire.half_close();
        // Either told, or the connection is closed; never done.
        let line = wire.line();
        assert!(line.is_empty() || line.contains(" 400 "), "{line}");
    }
    server.get("/a").problem(404, "not-found");
}

#[test]
fn a_path_is_about_a_lock_by_its_end_and_no_document_can_be_named_so() {
    let server = Server::start();
    for path in ["/x/lock", "/x/%6cock", "/x/lock/"] {
        server.ask("GET", path).send().ok(200);
        let allow = server.ask("OPTIONS", path).send().ok(204);
        assert_eq!(allow.field("allow"), Some("GET, HEAD, POST, PATCH, PUT, DELETE, OPTIONS"));
        assert_eq!(allow.field("cache-control"), Some("no-store"));
    }
    for (action, allowed) in [
        ("break", "POST, OPTIONS"),
        ("transfer", "POST, OPTIONS"),
        ("request", "POST, OPTIONS"),
        ("freeze", "PUT, DELETE, OPTIONS"),
    ] {
        let path = format!("/x/lock/{action}");
        let allow = server.ask("OPTIONS", &path).send().ok(204);
        assert_eq!(allow.field("allow"), Some(allowed));
        let refused = server.get(&path);
        refused.problem(405, "method-not-allowed");
        assert_eq!(refused.field("allow"), Some(allowed));
    }
    // An ordinary path, and so is what only looks alike.
    for path in ["/x/lock/anything-else", "/x/unlock", "/x/break", "/x/Lock", "/x/lock/break/y"] {
        server.put(path, json!(1)).ok(201);
        server.get(path).ok(200);
    }
    for path in ["/x/lock/lock", "/x/lock/break/lock", "/x/lock/lock/break", "/x/lock/freeze/lock"]
    {
        for method in ["GET", "POST", "PUT"] {
            server.ask(method, path).send().problem(400, "malformed-request");
        }
    }
    // A child cannot take a reserved name either.
    let named = server.post("/x", json!({"id": "lock"}));
    assert!(matches!(named.status, 400 | 422), "{named:?}");
    server.post("/x/lock/anything", json!({"id": "y"})).ok(201);
    let batch = json!({"operations": [{"method": "PUT", "resource": "/x/lock", "body": 1}]});
    server.post("/-/batch", batch).problem(400, "malformed-request");
}

#[test]
fn the_root_can_be_locked_only_where_a_rule_says_so() {
    let server = Server::start();
    for method in ["POST", "GET", "DELETE"] {
        server.ask(method, "/lock").send().problem(404, "not-lockable");
    }
    server.ask("POST", "/lock/break").send().problem(404, "not-lockable");
    server.post("/-/locks", json!({"resources": ["/"]})).problem(404, "not-lockable");
    let server = Server::with("[[rule]]\nmatch = [\"/\"]\nlockable = true\n");
    let held = server.lock("", json!({}));
    assert_eq!(held.body["resource"], "/");
    server.put("/anything", json!(1)).problem(423, "locked");
    server.ask("PUT", "/anything").token(&held).json(json!(1)).send().ok(201);
}

#[test]
fn a_name_that_does_not_exist_can_be_reserved() {
    let server = Server::start();
    let held = server.lock("/new/name", json!({}));
    server.put("/new/name", json!(1)).problem(423, "locked");
    server.get("/new/name").problem(404, "not-found");
    server.ask("PUT", "/new/name").token(&held).json(json!(1)).send().ok(201);
}

#[test]
fn the_servers_own_space_and_the_suffix_can_be_named_otherwise() {
    let server = Setup::default().config("prefix = \"/_lh/\"\nlock_suffix = \"/;lock\"\n").start();
    server.get("/_lh/health/live").ok(200);
    server.put("/-/health/live", json!(1)).ok(201);
    server.put("/x/lock", json!(1)).ok(201);
    let held = server.ask("POST", "/x/;lock").send().ok(201);
    assert_eq!(held.field("location"), Some("/x/;lock"));
    let refused = server.put("/x", json!(1));
    assert_eq!(refused.status, 423);
    assert_eq!(refused.json()["type"], "/_lh/problems/locked");
    assert_eq!(refused.field("link"), Some("</x/;lock>; rel=\"lock\""));
    let page = server.get("/_lh/problems/locked").ok(200);
    assert!(page.text().contains("423"), "{page:?}");
    let set = server.post("/_lh/locks", json!({"resources": ["/y"]})).ok(201);
    assert!(set.field("location").unwrap().starts_with("/_lh/locks/"));
    server.post("/_lh/locks", json!({"resources": ["/_lh/x"]})).ok(400);
}

#[test]
fn under_a_rule_that_is_not_lockable_such_a_path_is_ordinary() {
    let server = Server::with("[[rule]]\nmatch = [\"/free/**\"]\nlockable = false\n");
    server.put("/free/x/lock", json!(1)).ok(201);
    assert_eq!(server.get("/free/x/lock").json(), json!(1));
    server.put("/free/x/lock/break", json!(2)).ok(201);
    server.post("/-/locks", json!({"resources": ["/free/x"]})).problem(404, "not-lockable");
    server.post("/other/lock", json!({})).ok(201);
}
