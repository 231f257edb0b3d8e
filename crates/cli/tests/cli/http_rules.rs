//! Section 8 of the wire contract: rules that name resources, as a client meets them; and the ways
//! around a lock of section 9, as `/-/check` answers a proxy.

use crate::common::{Reply, Server, json, until};

const RULES: &str = r#"
    accept_odd_paths = ["/files"]
    [[rule]]
    match = ["/v1/flags/{id}/**", "/v2/flags/{id}"]
    resource = "/flags/{id}"
    reads = ["POST:search"]
    method_parameter = "_method"
    max_ttl = "20s"
    [[rule]]
    match = ["/item"]
    query = ["id"]
    [[rule]]
    match = ["/Legacy/**"]
    fold = ["case", "params"]
"#;

fn check(server: &Server, method: &str, target: &str, fields: &[(&str, &str)]) -> Reply {
    let mut ask = server.ask("POST", "/-/check");
    ask = ask.field("X-Forwarded-Method", method).field("X-Forwarded-Uri", target);
    for (name, content) in fields {
        ask = ask.field(name, content);
    }
    ask.send()
}

#[test]
fn one_lock_holds_for_every_url_of_a_resource() {
    let server = Server::with(RULES);
    let held = server.lock("/v1/flags/7", json!({}));
    assert_eq!(held.body["resource"], "/flags/7");
    assert_eq!(held.body["ttl_seconds"], 20);
    for url in ["/v1/flags/7", "/v2/flags/7", "/v1/flags/7/targeting", "/flags/7", "/v2/flags/%37"]
    {
        let reply = server.post(&format!("{url}/lock"), json!({}));
        let problem = reply.problem(423, "locked");
        let shown = url.replace("%37", "7");
        assert_eq!(problem["lock"]["resource"], "/flags/7", "{url}");
        assert_eq!(problem["how_to_unlock"]["inspect"], format!("GET {shown}/lock"), "{url}");
        assert_eq!(reply.field("link"), Some(&*format!("<{shown}/lock>; rel=\"lock\"")), "{url}");
        let seen = server.get(&format!("{url}/lock")).ok(200).json();
        assert_eq!((&seen["resource"], &seen["locked"]), (&json!("/flags/7"), &json!(true)));

        server.put(url, json!({})).problem(423, "locked");
        check(&server, "PUT", url, &[]).problem(423, "locked");
        server.ask("PUT", url).json(json!({"by": url})).token(&held).send();
        // Documents are kept under the name: every URL shows the same one.
        assert_eq!(server.get("/v2/flags/7").ok(200).json()["by"], url);
    }
    let batch = json!({"operations": [{"method": "PUT", "resource": "/v2/flags/7", "body": 1}]});
    server.post("/-/batch", batch).problem(423, "locked");
    let set = json!({"resources": ["/x", "/v2/flags/7"]});
    server.post("/-/locks", set).problem(423, "locked");
    for filter in ["/v2/flags/7", "/flags/7", "/flags"] {
        let found = server.get(&format!("/-/locks?resource={filter}")).json();
        assert_eq!(found["items"][0]["lock_id"], held.body["lock_id"], "{filter}");
        assert!(!server.audit(&format!("type=acquired&resource={filter}")).is_empty(), "{filter}");
    }
    server.ask("DELETE", "/v2/flags/7/lock").token(&held).send().ok(204);
    server.put("/v1/flags/7/x", json!({})).ok(204);
}

#[test]
fn the_location_of_a_lock_keeps_to_the_url_that_was_asked() {
    let server = Server::with(RULES);
    let reply = server.post("/v2/flags/7/lock", json!({})).ok(201);
    assert_eq!(reply.field("location"), Some("/v2/flags/7/lock"));
    let reply = server.post("/item/lock?x=1&id=%37", json!({})).ok(201);
    assert_eq!(reply.field("location"), Some("/item/lock?id=7"));
    assert_eq!(reply.json()["resource"], "/item/?id=7");
    let problem = server.put("/item?id=7", json!({})).problem(423, "locked");
    assert_eq!(problem["how_to_unlock"]["break"], "POST /item/lock/break?id=7");
    server.put("/item?id=8", json!({})).ok(201);
    assert_eq!(server.get("/item?id=8").ok(200).json(), json!({}));
    // A lock on the path covers what its parameters name.
    server.post("/item/lock", json!({})).problem(423, "locked");
}

#[test]
fn a_lock_that_would_not_cover_what_is_below_it_is_not_given() {
    let server = Server::with(RULES);
    let problem = server.post("/v1/flags/lock", json!({})).problem(404, "not-lockable");
    assert!(problem["detail"].as_str().unwrap().contains("known as /flags"), "{problem}");
    server.post("/-/locks", json!({"resources": ["/v1"]})).problem(404, "not-lockable");
    let held = server.lock("/flags", json!({}));
    server.put("/v1/flags/7", json!({})).problem(423, "locked");
    check(&server, "DELETE", "/v1/flags", &[]).problem(423, "locked");
    check(&server, "DELETE", "/v2", &[("X-Lock-Token", &held.token)]).ok(200);
    // What is created below such a URL would be reached by none.
    server.post("/v1/flags", json!({"id": "9"})).problem(400, "malformed-request");
    server.get("/flags/9").problem(404, "not-found");
}

#[test]
fn a_url_that_can_be_read_in_two_ways_names_nothing() {
    let server = Server::with(RULES);
    for (method, target, field) in [
        ("PUT", "/item?id=7&id=8", "query"),
        ("PUT", "/item?id=%zz", "query"),
        ("POST", "/item/lock?id=7;id=8", "query"),
        ("PUT", "/Legacy/;x/a", "path"),
    ] {
        let problem = server.ask(method, target).json(json!({})).send();
        assert_eq!(problem.problem(400, "malformed-request")["field"], field, "{target}");
    }
    check(&server, "PUT", "/item?id=7&id=8", &[]).problem(400, "malformed-request");
    check(&server, "GET", "/item?id=7&id=8", &[]).ok(200);
    let set = json!({"resources": ["/item?id=7&id=8"]});
    assert_eq!(
        server.post("/-/locks", set).problem(400, "malformed-request")["field"],
        "resources/0"
    );
}

#[test]
fn an_upstream_that_does_not_tell_spellings_apart_has_one_lock() {
    let server = Server::with(RULES);
    server.lock("/Legacy/Doc", json!({}));
    for url in ["/legacy/doc", "/LEGACY/DOC/", "/legacy;v=1/doc;a;b", "/l%65gacy/d%4Fc%3Bx"] {
        check(&server, "PUT", url, &[]).problem(423, "locked");
        server
            .post(&format!("{}/lock", url.trim_end_matches('/')), json!({}))
            .problem(423, "locked");
    }
    check(&server, "PUT", "/legacy/other", &[]).ok(200);
}

#[test]
fn a_request_is_judged_as_every_method_that_it_could_be_taken_for() {
    let server = Server::with(RULES);
    server.lock("/v1/flags/7", json!({}));
    let url = "/v1/flags/7";
    check(&server, "GET", url, &[]).ok(200);
    for field in ["X-HTTP-Method-Override", "X-HTTP-Method", "x-method-override"] {
        check(&server, "GET", url, &[(field, "delete")]).problem(423, "locked");
        check(&server, "GET", url, &[(field, "HEAD")]).ok(200);
        check(&server, "GET", url, &[(field, "D E")]).problem(400, "malformed-request");
    }
    check(&server, "GET", "/v1/flags/7?_method=PUT", &[]).problem(423, "locked");
    // An action that reads, unless another method comes with it.
    let search = "/v1/flags/7/targets:search";
    check(&server, "POST", search, &[]).ok(200);
    check(&server, "POST", search, &[("X-HTTP-Method", "DELETE")]).problem(423, "locked");
    check(&server, "POST", "/v1/flags/7/targets%3Asearch", &[]).problem(423, "locked");
    // One that writes is about what it acts on.
    check(&server, "POST", "/v2/flags/7:archive", &[]).problem(423, "locked");
    check(&server, "POST", "/v2/flags/8:archive", &[]).ok(200);
    check(&server, "MOVE", "/x", &[("Destination", "http://h/v2/flags/7")]).problem(423, "locked");
    check(&server, "COPY", "/x", &[("Destination", "/y")]).ok(200);
    // Here nothing takes a method from a field.
    server
        .ask("GET", url)
        .field("X-HTTP-Method-Override", "DELETE")
        .send()
        .problem(404, "not-found");
}

#[test]
fn a_write_with_an_odd_path_passes_only_below_a_prefix_and_past_no_lock_there() {
    let server = Server::with(RULES);
    for path in ["/a//b", "/a%2Fb", "/files/../a", "/files/%2e%2e/a", "/filesystem//a"] {
        check(&server, "PUT", path, &[]).problem(400, "malformed-request");
        check(&server, "GET", path, &[]).ok(200);
        check(&server, "GET", path, &[("X-HTTP-Method", "PUT")]).problem(400, "malformed-request");
        server.put(path, json!({})).problem(400, "malformed-request");
    }
    check(&server, "PUT", "/files//a", &[]).ok(200);
    let held = server.lock("/files/x", json!({}));
    check(&server, "PUT", "/files//a", &[]).problem(423, "locked");
    check(&server, "PUT", "/files//a", &[("X-Lock-Token", &held.token)]).ok(200);
}

#[test]
fn a_reload_keeps_the_old_rules_where_the_new_ones_contradict_each_other() {
    let server = Server::with(RULES);
    server.write_config("[[rule]]\nmatch = [\"/**\"]\n[[rule]]\nmatch = [\"/a\"]");
    server.signal("HUP");
    until("the log names the mistake", || {
        server
            .log()
            .contains("`/a` can never match: the rule at line 1 takes all of it")
            .then_some(())
    });
    assert_eq!(server.post("/v1/flags/7/lock", json!({})).ok(201).json()["resource"], "/flags/7");
}
