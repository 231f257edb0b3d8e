//! Sections 8 and 9 of the wire contract: what the rules make of requests to an existing API, and
//! that no spelling of one is a way around a lock.

use crate::common::upstream::{Upstream, answer};
use crate::common::{Server, Setup, json};

/// A gateway before an upstream that answers with the request line it was sent.
fn gateway(config: &str) -> Server {
    let upstream = Upstream::start();
    let url = upstream.url();
    upstream.answering(|got| answer("200 OK", &got.line));
    Setup::default().config(config).arg("--upstream").arg(&url).start()
}

/// Whether the upstream has seen a request as it was sent.
fn passes(server: &Server, method: &str, target: &str) {
    let reply = server.ask(method, target).body("").send();
    assert_eq!((reply.status, reply.text()), (200, &*format!("{method} {target} HTTP/1.1")));
}

#[test]
fn urls_of_one_resource_share_one_lock() {
    let server = gateway(
        "[[rule]]\nmatch = [\"/v1/flags/{id}/**\", \"/v2/flags/{id}\"]\nresource = \"/flags/{id}\"\n\
         [[rule]]\nmatch = [\"/item\"]\nquery = [\"id\"]\n\
         [[rule]]\nmatch = [\"/Docs/**\"]\nfold = [\"case\"]\n",
    );
    let held = server.lock("/v1/flags/7", json!({}));
    for (method, target) in [
        ("PUT", "/v1/flags/7"),
        ("PATCH", "/v1/flags/7/on"),
        ("PUT", "/v2/flags/7?x=1"),
        ("PUT", "/v2/flags/%37"),
        ("DELETE", "/v1/flags"),
        ("DELETE", "/v2"),
        ("POST", "/v2/flags/7:archive"),
    ] {
        server.ask(method, target).body("").send().problem(423, "locked");
    }
    passes(&server, "PUT", "/v2/flags/8");
    passes(&server, "GET", "/v2/flags/7?x=1");
    let written = server.ask("PUT", "/v2/flags/7").token(&held).body("").send();
    assert_eq!(written.text(), "PUT /v2/flags/7 HTTP/1.1");

    assert_eq!(server.post("/item/lock?id=7", json!({})).status, 201);
    server.ask("PUT", "/item?x=1&id=%37").body("").send().problem(423, "locked");
    // Which one it is about cannot be told.
    server.ask("PUT", "/item?id=7&id=8").body("").send().problem(400, "malformed-request");
    passes(&server, "GET", "/item?id=7&id=8");
    passes(&server, "PUT", "/item?id=8");

    server.lock("/docs/plan", json!({}));
    server.ask("PUT", "/DOCS/Plan").body("").send().problem(423, "locked");
}

#[test]
fn an_odd_path_of_a_write_is_refused_and_of_a_read_goes_on() {
    let server = gateway("accept_odd_paths = [\"/files\"]\n");
    let held = server.lock("/a", json!({}));
    for target in ["/x/../a", "//a", "/a/%2e%2e/a", "/x%2Fa", "/a%5C", "/%61/%", "/a/%00"] {
        let refused = server.ask("PUT", target).token(&held).body("").send();
        refused.problem(400, "malformed-request");
        // A read that it may also be taken for changes nothing of that.
        let refused = server.ask("GET", target).field("X-HTTP-Method-Override", "PUT").send();
        refused.problem(400, "malformed-request");
        passes(&server, "GET", target);
    }
    // Below what is named they pass, and count as writes to all of that.
    passes(&server, "PUT", "/files//x");
    let held = server.lock("/files/deep/down", json!({}));
    server.ask("PUT", "/files/a%2Fb").body("").send().problem(423, "locked");
    let written = server.ask("PUT", "/files/a%2Fb").token(&held).body("").send();
    assert_eq!(written.text(), "PUT /files/a%2Fb HTTP/1.1");
}

#[test]
fn a_request_counts_as_every_method_that_it_names() {
    let server = gateway(
        "[[rule]]\nmatch = [\"/flags/**\"]\nreads = [\"POST:search\"]\nmethod_parameter = \"_m\"\n",
    );
    server.lock("/flags/7", json!({}));
    for (method, target, field) in [
        ("GET", "/flags/7", ("X-HTTP-Method-Override", "put")),
        ("GET", "/flags/7", ("x_http_method", "PATCH")),
        ("POST", "/flags", ("X-Method-Override", "DELETE")),
        ("GET", "/flags/7?_m=delete", ("Accept", "*/*")),
        ("POST", "/flags/7/x:search", ("X-HTTP-Method", "DELETE")),
    ] {
        let refused = server.ask(method, target).field(field.0, field.1).send();
        refused.problem(423, "locked");
    }
    server
        .ask("GET", "/flags/7")
        .field("X-HTTP-Method", "P T")
        .send()
        .problem(400, "malformed-request");
    passes(&server, "POST", "/flags/7:search");
    passes(&server, "POST", "/flags:search");
    server.ask("POST", "/flags/7:archive").body("").send().problem(423, "locked");
    // Not the upstream's: the rest of the request names another target.
    let read = server.ask("GET", "/flags/8").field("X-Original-URL", "/flags/7").send();
    assert_eq!(read.text(), "GET /flags/8 HTTP/1.1");
}

#[test]
fn a_move_counts_for_where_it_goes() {
    let server = gateway("");
    let held = server.lock("/b/inside", json!({}));
    let go = |method: &str, to: &str| {
        server.ask(method, "/a").field("Destination", to).field("X-Lock-Token", "").send()
    };
    go("MOVE", "http://elsewhere.example/b").problem(423, "locked");
    go("COPY", "/b/inside").problem(423, "locked");
    go("MOVE", "/b//inside").problem(400, "malformed-request");
    assert_eq!(go("MOVE", "/c").text(), "MOVE /a HTTP/1.1");
    let moved = server.ask("MOVE", "/a").field("Destination", "/b").token(&held).send();
    assert_eq!(moved.status, 200);
}

#[test]
fn what_goes_below_takes_a_role_that_covers_all_of_it() {
    let upstream = Upstream::start();
    let url = upstream.url();
    upstream.answering(|got| answer("200 OK", &got.line));
    let server = Setup::default()
        .key("narrow", "writer", Some("/flags/{id}"))
        .key("wide", "writer", Some("/flags/**"))
        .arg("--upstream")
        .arg(&url)
        .start();
    let ask = |name: &str, method: &str| server.by(name, method, "/flags/7").body("").send();
    assert_eq!(ask("narrow", "PATCH").status, 200);
    ask("narrow", "DELETE").problem(403, "forbidden");
    assert_eq!(ask("wide", "DELETE").status, 200);
    // What has no name here is read by who may read everything.
    server.by("wide", "GET", "/flags//7").send().problem(403, "forbidden");
}
