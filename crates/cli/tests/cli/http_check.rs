//! `/-/check` as proxies ask it: by fields or by path, with one status for every refusal, and
//! whatever their clients put beside.

use crate::common::{Ask, Reply, Server, Setup, json, until};

fn by_fields(server: &Server, query: &str, method: &str, target: &str) -> Ask {
    server
        .ask("GET", &format!("/-/check{query}"))
        .field("X-Forwarded-Method", method)
        .field("X-Forwarded-Uri", target)
}

fn by_path(server: &Server, method: &str, target: &str) -> Ask {
    server.ask(method, &format!("/-/check{target}"))
}

#[test]
fn the_request_can_follow_the_path_of_the_check() {
    let server = Server::start();
    let held = server.lock("/v1/a", json!({}));
    for method in ["PUT", "POST", "PATCH", "DELETE", "LOCK", "put"] {
        let problem = by_path(&server, method, "/v1/a?x=y").send().problem(423, "locked");
        assert_eq!(problem["instance"], "/v1/a", "{method}");
    }
    for method in ["GET", "HEAD", "OPTIONS", "PROPFIND"] {
        by_path(&server, method, "/v1/a").send().ok(200);
        by_path(&server, method, "/v1//a/..%2fb").send().ok(200);
    }
    let passed = by_path(&server, "PUT", "/v1/a").token(&held).send().ok(200);
    assert_eq!(passed.field("x-lock-fence").unwrap(), held.fence.to_string());
    assert_eq!(passed.field("x-lock-id"), Some(held.id.as_str()));
    assert_eq!(passed.field("x-lock-holder"), Some("anonymous"));
    let free = by_path(&server, "PUT", "/v1/free").send().ok(200);
    assert_eq!(free.field("x-lock-fence"), None);
    // The check of nothing is no check of everything.
    server.ask("PUT", "/-/check").json(json!({})).send().problem(405, "method-not-allowed");
    by_path(&server, "TRACE", "/v1/free").send().problem(405, "method-not-allowed");
    by_path(&server, "PUT", "ed/v1/free").send().problem(404, "not-found");
}

#[test]
fn a_check_is_where_the_servers_own_space_is() {
    let config = "prefix = \"/own/\"\nlock_suffix = \"/~hold\"\n";
    let server = Server::with(config);
    server.post("/a/~hold", json!({})).ok(201);
    for (method, target, status) in [
        ("PUT", "/own/check/a", 423),
        ("PUT", "/own/check/a/b?c", 423),
        ("PUT", "/own/check/b/lock", 200),
        ("PUT", "/own/check/-/b", 200),
        ("POST", "/own/check/b/~hold", 400),
        ("POST", "/own/check/own/locks", 400),
    ] {
        assert_eq!(server.ask(method, target).send().status, status, "{method} {target}");
    }
}

#[test]
fn what_follows_the_path_of_the_check_is_the_clients_alone() {
    let server = Server::start();
    server.lock("/v1/a", json!({}));
    // The query is that of the request, and no way to choose how the check answers.
    let refused = by_path(&server, "PUT", "/v1/a?deny=404&own=allow").send();
    refused.problem(423, "locked");
    by_path(&server, "PUT", "/v1/free?deny=none").send().ok(200);
    for (name, content) in [
        ("X-Forwarded-Method", "GET"),
        ("X-Original-Method", "GET"),
        ("X-Forwarded-Uri", "/v1/free"),
        ("X-Original-URI", "/v1/free"),
    ] {
        by_path(&server, "PUT", "/v1/a").field(name, content).send().problem(423, "locked");
    }
    for target in
        ["//v1/a", "/v1/./a", "/v1/x/../a", "/v1%2Fa", "/v1/%2e%2e/v1/a", "/v1\\a", "/%zz"]
    {
        let problem = by_path(&server, "PUT", target).send().problem(400, "malformed-request");
        assert_eq!((&problem["field"], &problem["instance"]), (&json!("path"), &json!(target)));
    }
    // Only what was sent so is a check by its path: nothing of this can be read in two ways.
    for target in ["/-/%63heck/v1/free", "/-/%63heck/%41%22", "/%2D/check/v1/free"] {
        server.ask("PUT", target).send().problem(404, "not-found");
    }
    by_path(&server, "DELETE", "/v1/%61").send().problem(423, "locked");
    let over = by_path(&server, "POST", "/v1/a").field("X-HTTP-Method-Override", "GET").send();
    over.problem(423, "locked");
    let over = by_path(&server, "GET", "/v1/a").field("X-HTTP-Method-Override", "PUT").send();
    over.problem(423, "locked");
}

#[test]
fn a_client_cannot_put_another_request_in_the_proxys_place() {
    let server = Server::start();
    server.lock("/a", json!({}));
    let ask = || by_fields(&server, "", "PUT", "/a");
    for (name, content) in [
        ("X-Forwarded-Method", "GET"),
        ("X-Original-Method", "GET"),
        ("X-Forwarded-Uri", "/free"),
        ("X-Original-URI", "/free"),
    ] {
        let problem = ask().field(name, content).send().problem(400, "malformed-request");
        assert_eq!(problem["field"], name);
    }
    // Before the proxy's as well.
    let forged = server
        .ask("GET", "/-/check")
        .field("X-Forwarded-Uri", "/free")
        .field("X-Original-Method", "PUT")
        .field("X-Original-URI", "/a");
    forged.send().problem(400, "malformed-request");
    let same = ask().field("X-Original-Method", "PUT").field("X-Original-URI", "/a").send();
    same.problem(423, "locked");
    // What some take for the end of the path, others go on after.
    for method in ["PUT", "GET"] {
        let cut = by_fields(&server, "", method, "/free#/../a").send();
        assert_eq!(cut.problem(400, "malformed-request")["field"], "X-Forwarded-Uri");
    }
}

#[test]
fn the_proxy_can_say_that_locks_are_not_the_apis() {
    let server = Server::start();
    let own = ["/a/lock", "/a/%6Cock", "/a/lock/", "/a/lock/break", "/-/locks", "/-/", "/-/check"];
    for target in own {
        by_fields(&server, "", "POST", target).send().ok(200);
        let refused = by_fields(&server, "?own=deny", "POST", target).send();
        let problem = refused.problem(400, "malformed-request");
        assert_eq!((&problem["field"], &problem["instance"]), (&json!("path"), &json!(target)));
        by_path(&server, "POST", target).send().problem(400, "malformed-request");
    }
    for target in ["/a/lock/other", "/a/locks", "/a/LOCK", "/lock/a"] {
        by_fields(&server, "?own=deny", "POST", target).send().ok(200);
        by_path(&server, "POST", target).send().ok(200);
    }
    let problem = by_fields(&server, "?own=allow", "PUT", "/a").send();
    assert_eq!(problem.problem(400, "malformed-request")["field"], "own");
}

/// What an answer under `deny=403` says it would have been.
fn truly(reply: &Reply) -> (u16, Option<&str>, Option<&str>) {
    (reply.status, reply.field("x-leasehold-status"), reply.field("x-leasehold-problem"))
}

#[test]
fn every_refusal_can_have_one_status_whoever_refuses() {
    let limits = "[limits]\nrequests_per_second = 1\nrequest_burst = 2\n";
    let setup = Setup::default().config(limits).key("alice", "writer", None);
    let server = setup.key("bob", "reader", None).start();
    let ask = |name: &str, target: &str| {
        let key = format!("Bearer {}", server.key(name));
        by_fields(&server, "?deny=403&own=deny", "PUT", target).field("Authorization", &key).send()
    };
    assert_eq!(truly(&ask("bob", "/a")), (403, Some("403"), Some("forbidden")));
    assert_eq!(truly(&ask("alice", "//")), (403, Some("400"), Some("malformed-request")));
    assert_eq!(truly(&ask("alice", "/a/lock")), (403, Some("400"), Some("malformed-request")));
    let limited = until("a refusal", || {
        let reply = ask("alice", "/a");
        (reply.status != 200).then_some(reply)
    });
    assert_eq!(truly(&limited), (403, Some("429"), Some("rate-limited")));
    // Proxies know this one, and pass on what it asks for.
    let unknown = by_fields(&server, "?deny=403", "PUT", "/a").send();
    assert_eq!(unknown.problem(401, "unauthenticated")["instance"], "/a");
    assert_eq!(truly(&unknown), (401, Some("401"), Some("unauthenticated")));
    assert_eq!(unknown.all("www-authenticate").len(), 2, "{unknown:?}");
}

#[test]
fn a_proxy_that_drops_the_body_has_the_document_in_a_field() {
    let server = Server::start();
    server.lock("/a", json!({"reason": "Übergabe 🔒 \"now\""}));
    let denied = by_fields(&server, "?deny=403", "PUT", "/a").send();
    let document = denied.field("x-leasehold-document").unwrap();
    assert!(document.is_ascii(), "{document}");
    let told: serde_json::Value = serde_json::from_str(document).unwrap();
    assert_eq!((&told["status"], &denied.json()["status"]), (&json!(423), &json!(403)));
    let mut body = denied.json();
    body["status"] = json!(423);
    assert_eq!(told, body);
    // A head that its reader has no room for would be no answer at all.
    let deep = format!("/{}", "x".repeat(1200));
    server.lock(&deep, json!({}));
    let denied = by_fields(&server, "?deny=403", "PUT", &deep).send();
    assert_eq!(truly(&denied), (403, Some("423"), Some("locked")));
    assert_eq!(denied.field("x-leasehold-document"), None);
}

#[test]
fn a_refusal_is_about_the_request_and_not_about_the_check() {
    let server = Server::start();
    server.lock("/a", json!({}));
    let problem = by_fields(&server, "", "PUT", "/a/b?c=d").send().problem(423, "locked");
    assert_eq!(problem["instance"], "/a/b");
    assert_eq!(problem["how_to_unlock"]["inspect"], "GET /a/b/lock");
    // Nothing is known of what is asked for.
    assert_eq!(server.get("/-/check").problem(400, "malformed-request")["instance"], "/-/check");
}

#[test]
fn a_page_of_another_site_has_no_say_in_a_check() {
    let server = Server::start();
    let of_page = |ask: Ask| {
        ask.field("Origin", "https://app.example").field("Sec-Fetch-Site", "cross-site").send()
    };
    // Whether the API takes a request of that page is for the API to say.
    of_page(by_fields(&server, "", "PUT", "/a")).ok(200);
    // These a page can send.
    of_page(by_path(&server, "POST", "/a")).problem(403, "forbidden");
}

#[test]
fn a_target_is_read_as_it_was_sent() {
    let server = Server::start();
    let held = server.lock("/caf%C3%A9", json!({}));
    by_fields(&server, "", "PUT", "/café").send().problem(423, "locked");
    by_fields(&server, "", "PUT", "/café").token(&held).send().ok(200);
    by_fields(&server, "", "GET", "/café?q=ü").send().ok(200);
    by_fields(&server, "", "PUT", "http://other/café").send().problem(423, "locked");
    let latin = [b"GET /-/check HTTP/1.1\r\nHost: a\r\nX-Forwarded-Method: PUT\r\n".as_slice()];
    let latin = [latin[0], b"X-Forwarded-Uri: /caf\xE9\r\n\r\n"].concat();
    assert_eq!(server.raw(latin).problem(400, "malformed-request")["field"], "X-Forwarded-Uri");
}

#[test]
fn a_name_that_no_field_can_carry_is_told_encoded() {
    let server =
        Setup::default().key("Zoë 100%", "writer", None).key("bob", "writer", None).start();
    let held = server.lock_by("Zoë 100%", "/a", json!({}));
    let ask = |name: &str| {
        let key = format!("Bearer {}", server.key(name));
        by_fields(&server, "?deny=403", "PUT", "/a").field("Authorization", &key)
    };
    let passed = ask("Zoë 100%").token(&held).send().ok(200);
    assert_eq!(passed.field("x-lock-holder"), Some("Zo%C3%AB%20100%25"));
    assert_eq!(ask("bob").send().field("x-leasehold-holder"), Some("Zo%C3%AB%20100%25"));
}
