//! Section 5 of the wire contract: the documents in the box.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::common::{Held, Server, json};

const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

#[test]
fn a_document_is_made_read_replaced_and_deleted() {
    let server = Server::start();
    let made = server.put("/d/x", json!({"a": 1})).ok(201);
    assert_eq!(made.field("location"), Some("/d/x"));
    let got = server.get("/d/x").ok(200);
    assert_eq!(got.json(), json!({"a": 1}));
    assert_eq!(got.etag(), made.etag());
    assert!(got.etag().starts_with('"') && !got.etag().starts_with("W/"));
    assert!(got.field("last-modified").unwrap().ends_with("GMT"));
    assert_eq!(got.field("cache-control"), Some("no-cache"));
    assert_eq!(got.field("content-type"), Some("application/json"));
    let head = server.ask("HEAD", "/d/x").send().ok(200);
    assert_eq!(head.field("content-length"), got.field("content-length"));
    assert_eq!(head.etag(), got.etag());
    let replaced = server.put("/d/x", json!({"a": 2})).ok(204);
    assert_ne!(replaced.etag(), made.etag());
    // The same content is another version.
    let again = server.put("/d/x", json!({"a": 2})).ok(204);
    assert_ne!(again.etag(), replaced.etag());
    server.delete("/d/x").ok(204);
    server.get("/d/x").problem(404, "not-found");
    server.ask("HEAD", "/d/x").send().ok(404);
    server.delete("/d/x").problem(404, "not-found");
    let anew = server.put("/d/x", json!({"a": 1})).ok(201);
    assert!(![made.etag(), replaced.etag(), again.etag()].contains(&anew.etag()));
}

#[test]
fn bytes_of_any_other_kind_are_kept_as_they_are() {
    let server = Server::start();
    let bytes: Vec<u8> = (0..=255).collect();
    let put = |at: &str, media: &str, body: &[u8]| {
        server.ask("PUT", at).field("Content-Type", media).body(body).send()
    };
    put("/b", "application/octet-stream", &bytes).ok(201);
    let got = server.get("/b").ok(200);
    assert_eq!(
        (got.body.clone(), got.field("content-type")),
        (bytes, Some("application/octet-stream"))
    );
    put("/t", "text/plain; charset=latin1", b"caf\xe9").ok(201);
    assert_eq!(server.get("/t").field("content-type"), Some("text/plain; charset=latin1"));
    put("/h", "text/html", b"<script>alert(1)</script>").ok(201);
    put("/j", "application/json", b"{ broken").problem(400, "malformed-request");
    put("/j", "application/vnd.x+json", b"[1,").problem(400, "malformed-request");
    put("/j", "nonsense", b"1").problem(400, "malformed-request");
    put("/j", "application/json", b"").problem(400, "malformed-request");
    server.ask("PUT", "/j").body("{\"a\":1}").send().ok(201);
    assert_eq!(server.get("/j").field("content-type"), Some("application/json"));
    let gzip = server.ask("PUT", "/j").field("Content-Encoding", "gzip").body("x").send();
    gzip.problem(415, "unsupported-media-type");
    let part = server.ask("PUT", "/j").field("Content-Range", "bytes 0-1/2").json(json!(1)).send();
    part.problem(400, "malformed-request");
    server.get("/b?list=true").ok(200);
}

#[test]
fn a_document_may_have_its_greatest_size_and_not_a_byte_more() {
    let server = Server::with("[limits]\nmax_document = \"1KiB\"\n");
    let of = |length: usize| format!("\"{}\"", "a".repeat(length - 2));
    server.ask("PUT", "/a").body(of(1024)).send().ok(201);
    let over = server.ask("PUT", "/a").body(of(1025)).send();
    over.problem(413, "payload-too-large");
    // Told by the head, and by the bytes where no length is announced.
    let mut wire = server.connect();
    wire.send("PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n");
    wire.send(of(0x401));
    wire.send("\r\n0\r\n\r\n");
    wire.reply(false).problem(413, "payload-too-large");
    let grows = server.ask("PATCH", "/a").field("Content-Type", MERGE).body(of(1025)).send();
    grows.problem(413, "payload-too-large");
    assert_eq!(server.get("/a").body.len(), 1024);
}

#[test]
fn conditions_are_judged_as_the_rfc_says() {
    let server = Server::start();
    let first = server.put("/a", json!(1)).ok(201).etag();
    let when = server.get("/a").field("last-modified").unwrap().to_owned();
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    let read =
        |name: &str, content: &str| server.ask("GET", "/a").field(name, content).send().status;
    for (name, content, status) in [
        ("If-None-Match", first.as_str(), 304),
        ("If-None-Match", &format!("W/{first}"), 304),
        ("If-None-Match", &format!("\"x\", {first}"), 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"x\"", 200),
        ("If-Match", &first, 200),
        ("If-Match", "\"x\"", 412),
        ("If-Match", &format!("W/{first}"), 412),
        ("If-Modified-Since", &when, 304),
        ("If-Modified-Since", past, 200),
        ("If-Unmodified-Since", &when, 200),
        ("If-Unmodified-Since", past, 412),
    ] {
        assert_eq!(read(name, content), status, "{name}: {content}");
    }
    let not_modified = server.ask("GET", "/a").field("If-None-Match", &first).send();
    assert_eq!(not_modified.etag(), first);
    assert!(not_modified.body.is_empty());
    let write = |method: &str, at: &str, name: &str, content: &str| {
        server.ask(method, at).field(name, content).json(json!(2)).send()
    };
    // It creates only, it replaces only.
    let exists = write("PUT", "/a", "If-None-Match", "*");
    assert_eq!(exists.problem(412, "precondition-failed")["etag"], first);
    assert_eq!(exists.etag(), first);
    let none = write("PUT", "/none", "If-Match", "*").problem(412, "precondition-failed");
    assert!(none.get("etag").is_none_or(Value::is_null), "{none}");
    write("PUT", "/new", "If-None-Match", "*").ok(201);
    write("PUT", "/a", "If-Match", "\"old\"").problem(412, "precondition-failed");
    write("PUT", "/a", "If-Match", &format!("\"old\", {first}")).ok(204);
    write("PUT", "/a", "If-Unmodified-Since", past).problem(412, "precondition-failed");
    write("DELETE", "/a", "If-Match", &first).problem(412, "precondition-failed");
    // Ignored where the request would fail anyway.
    write("DELETE", "/nothing", "If-Match", &first).problem(404, "not-found");
    for bad in ["x", "\"x", "*, \"a\""] {
        let reply = write("PUT", "/a", "If-Match", bad);
        assert_eq!(reply.problem(400, "malformed-request")["field"], "If-Match", "{bad}");
    }
}

#[test]
fn both_kinds_of_patches_change_a_document_whole_or_not_at_all() {
    let server = Server::start();
    let made = server.put("/a", json!({"a": {"b": 1, "c": 2}, "l": [1, 2]})).ok(201);
    let patch = |media: &str, body: &str| {
        server.ask("PATCH", "/a").field("Content-Type", media).body(body).send()
    };
    let merged = patch(MERGE, r#"{"a": {"b": null, "d": 3}}"#).ok(200);
    assert_eq!(merged.json(), json!({"a": {"c": 2, "d": 3}, "l": [1, 2]}));
    assert_ne!(merged.etag(), made.etag());
    assert_eq!(server.get("/a").etag(), merged.etag());
    assert_eq!(patch("application/json", r#"{"l": 1}"#).ok(200).json()["l"], 1);
    let stepped = patch(
        JSON_PATCH,
        r#"[{"op":"test","path":"/l","value":1},{"op":"add","path":"/n","value":[]},
            {"op":"add","path":"/n/-","value":7},{"op":"copy","from":"/a","path":"/e~1f"},
            {"op":"move","from":"/l","path":"/m"},{"op":"replace","path":"/a/c","value":9},
            {"op":"remove","path":"/a/d"}]"#,
    );
    assert_eq!(
        stepped.ok(200).json(),
        json!({"a": {"c": 9}, "e/f": {"c": 2, "d": 3}, "m": 1, "n": [7]})
    );
    let before = server.get("/a");
    for (body, operation, pointer) in [
        (
            r#"[{"op":"replace","path":"/m","value":5},{"op":"test","path":"/m","value":6}]"#,
            1,
            "/m",
        ),
        (r#"[{"op":"remove","path":"/none"}]"#, 0, "/none"),
        (r#"[{"op":"add","path":"/n/5","value":1}]"#, 0, "/n/5"),
        (r#"[{"op":"move","from":"/a","path":"/a/c"}]"#, 0, "/a/c"),
    ] {
        let problem = patch(JSON_PATCH, body).problem(409, "patch-conflict");
        assert_eq!(
            (&problem["operation"], &problem["pointer"]),
            (&json!(operation), &json!(pointer)),
            "{body}"
        );
    }
    for body in [
        "{}",
        "[1]",
        r#"[{"op":"paint","path":"/a"}]"#,
        r#"[{"op":"add","path":"a","value":1}]"#,
        "[",
    ] {
        patch(JSON_PATCH, body).problem(400, "malformed-request");
    }
    let media = patch("text/plain", "x");
    media.problem(415, "unsupported-media-type");
    let accepted = media.field("accept-patch").unwrap().to_owned();
    assert!(accepted.contains(MERGE) && accepted.contains(JSON_PATCH), "{accepted}");
    server.ask("PATCH", "/a").body("{}").send().problem(415, "unsupported-media-type");
    server.ask("PUT", "/text").field("Content-Type", "text/plain").body("x").send().ok(201);
    server
        .ask("PATCH", "/text")
        .field("Content-Type", MERGE)
        .body("{}")
        .send()
        .problem(415, "unsupported-media-type");
    server
        .ask("PATCH", "/none")
        .field("Content-Type", MERGE)
        .body("{}")
        .send()
        .problem(404, "not-found");
    let after = server.get("/a");
    assert_eq!((after.etag(), after.body), (before.etag(), before.body.clone()));
}

#[test]
fn a_post_names_its_child_or_is_given_a_name() {
    let server = Server::start();
    let named = server.post("/c", json!({"id": "x y", "v": 1})).ok(201);
    assert_eq!(named.field("location"), Some("/c/x%20y"));
    assert_eq!(server.get("/c/x%20y").json(), json!({"id": "x y", "v": 1}));
    let problem = server.post("/c", json!({"id": "x y"})).problem(409, "already-exists");
    assert_eq!(problem["resource"], "/c/x%20y");
    let mut names = BTreeSet::new();
    for _ in 0..5 {
        let made = server.post("/c", json!({"v": 2})).ok(201);
        assert!(names.insert(made.field("location").unwrap().to_owned()));
        assert_eq!(server.get(made.field("location").unwrap()).etag(), made.etag());
    }
    for id in [
        json!(1),
        json!(null),
        json!(["a"]),
        json!(""),
        json!("."),
        json!(".."),
        json!("a/b"),
        json!("a\\b"),
        json!("a\u{0}"),
        json!("a".repeat(3000)),
    ] {
        let problem = server.post("/c", json!({"id": id})).problem(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], "/id", "{problem}");
    }
    server.post("/", json!({"id": "top"})).ok(201);
    server.get("/top").ok(200);
    server.post("/", json!({"id": "-"})).problem(422, "validation-failed");
    let bytes =
        server.ask("POST", "/c").field("Content-Type", "image/png").body("png").send().ok(201);
    assert_eq!(
        server.get(bytes.field("location").unwrap()).field("content-type"),
        Some("image/png")
    );
}

#[test]
fn what_has_children_goes_only_when_all_of_it_is_meant() {
    let server = Server::start();
    for at in ["/a", "/a/b", "/a/b/c", "/a/d", "/ab"] {
        server.put(at, json!(1)).ok(201);
    }
    let problem = server.delete("/a").problem(409, "has-children");
    assert_eq!((&problem["count"], &problem["first"]), (&json!(2), &json!("/a/b")));
    server.delete("/a?recursive=false").problem(409, "has-children");
    server.delete("/a?recursive=perhaps").problem(400, "malformed-request");
    server.delete("/a?recursive=true").ok(204);
    for gone in ["/a", "/a/b", "/a/b/c", "/a/d"] {
        server.get(gone).problem(404, "not-found");
    }
    server.get("/ab").ok(200);
}

#[test]
fn children_are_listed_page_by_page_and_the_pages_are_stable() {
    let server = Server::start();
    for at in 0..7 {
        server.put(&format!("/c/{at}"), json!(at)).ok(201);
    }
    server.put("/c/deep/er", json!(1)).ok(201);
    let all = server.get("/c").ok(200).json();
    assert_eq!(all["next"], json!(null));
    let items = all["items"].as_array().unwrap();
    assert_eq!(items.len(), 8);
    let mut members: Vec<&str> = items[0].as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["etag", "has_children", "id", "last_modified", "media_type", "resource"]);
    assert_eq!(items[0]["etag"], server.get("/c/0").etag());
    assert_eq!((&items[0]["id"], &items[0]["resource"]), (&json!("0"), &json!("/c/0")));
    assert_eq!((&items[7]["id"], &items[7]["has_children"]), (&json!("deep"), &json!(true)));
    assert_eq!(items[7]["etag"], json!(null));
    // Pages; in between the first goes and a new one comes.
    let page = server.get("/c?limit=3").json();
    assert_eq!(page["items"].as_array().unwrap().len(), 3);
    server.delete("/c/0").ok(204);
    server.put("/c/00", json!(1)).ok(201);
    let mut seen: Vec<String> = Vec::new();
    let mut cursor = page["next"].as_str().unwrap().to_owned();
    loop {
        let page = server.get(&format!("/c?limit=3&cursor={cursor}")).ok(200).json();
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen, ["3", "4", "5", "6", "deep"]);
    for bad in ["limit=0", "limit=1001", "limit=x", "cursor=x", "cursor=%00", "list=perhaps"] {
        server.get(&format!("/c?{bad}")).problem(400, "malformed-request");
    }
    server.get("/c?limit=1000").ok(200);
    // A document that has children shows itself, and its children where they are asked for.
    server.put("/c", json!("me")).ok(201);
    assert_eq!(server.get("/c").json(), json!("me"));
    assert_eq!(server.get("/c?list=true").json()["items"].as_array().unwrap().len(), 8);
    server.get("/nothing").problem(404, "not-found");
    server.get("/nothing?list=true").problem(404, "not-found");
    server.put("/leaf", json!(1)).ok(201);
    assert_eq!(server.get("/leaf?list=true").ok(200).json()["items"], json!([]));
}

#[test]
fn options_say_what_a_document_takes() {
    let server = Server::start();
    for at in ["/a", "/a/b/c"] {
        let options = server.ask("OPTIONS", at).send().ok(204);
        let allow = options.field("allow").unwrap();
        for method in ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"] {
            assert!(allow.contains(method), "{allow}");
        }
        assert!(options.field("accept-patch").unwrap().contains(JSON_PATCH));
    }
}

#[test]
fn documents_outlive_a_kill_and_their_etags_are_never_used_again() {
    let mut server = Server::start();
    let mut etags = BTreeSet::new();
    for at in 0..10 {
        etags.insert(server.put("/a", json!(at)).etag());
    }
    server.restart();
    assert_eq!(server.get("/a").json(), json!(9));
    assert!(etags.contains(&server.get("/a").etag()));
    for at in 0..10 {
        assert!(etags.insert(server.put("/a", json!(at)).ok(204).etag()));
    }
}

#[test]
fn read_modify_write_under_locks_loses_nothing() {
    let server = Server::start();
    server.put("/n", json!({"n": 0})).ok(201);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let held = Held::of(server.ask("POST", "/n/lock?wait=25").send());
                    let n = server.get("/n").json()["n"].as_u64().unwrap();
                    server.ask("PUT", "/n").token(&held).json(json!({"n": n + 1})).send().ok(204);
                    server.ask("DELETE", "/n/lock").token(&held).send().ok(204);
                }
            });
        }
    });
    assert_eq!(server.get("/n").json(), json!({"n": 40}));
}
