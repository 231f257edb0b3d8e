use super::*;

#[tokio::test]
async fn a_document_is_read_as_it_was_written() {
    let bench = Bench::new();
    let written = bench.put("/flags/x", "{ \"b\": 1,\n\"a\": 2 }").await;
    assert_eq!((written.status, written.header("location")), (201, Some("/flags/x")));
    let read = bench.get("/flags/x").await;
    assert_eq!((read.status, &read.body[..]), (200, &b"{ \"b\": 1,\n\"a\": 2 }"[..]));
    assert_eq!(read.etag(), "\"0a0b0c0d-1\"");
    assert_eq!(read.etag(), written.etag());
    assert_eq!(read.header("last-modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(read.header("content-type"), Some("application/json"));
    assert_eq!(read.header("content-length"), Some("18"));
    assert_eq!(read.header("cache-control"), Some("no-cache"));

    let head = bench.send("HEAD", "/flags/x", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.headers, read.headers);

    let bytes = [("content-type", "text/plain; charset=utf-8")];
    assert_eq!(bench.send("PUT", "/note", &bytes, "{ no json").await.status, 201);
    let note = bench.get("/note").await;
    assert_eq!(note.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(&note.body[..], b"{ no json");
}

#[tokio::test]
async fn the_methods_that_read_are_get_head_and_options() {
    let bench = Bench::new();
    let options = bench.send("OPTIONS", "/x", &[], "").await;
    assert_eq!(options.status, 204);
    assert_eq!(options.header("allow"), Some("GET, HEAD, OPTIONS, PUT, POST, PATCH, DELETE"));
    let patches = "application/merge-patch+json, application/json-patch+json, application/json";
    assert_eq!(options.header("accept-patch"), Some(patches));
    for method in ["PROPFIND", "REPORT", "SEARCH"] {
        let head = head(method, "/x", &[]);
        let request = Request::from_parts(head, full(""));
        let refused =
            Seen::of_answer(collected(bench.documents.read(request, resource("/x")).await).await);
        assert_eq!((refused.status, refused.header("allow")), (405, options.header("allow")));
    }
    for method in ["MKCOL", "COPY", "MOVE", "LOCK", "PURGE"] {
        assert_eq!(bench.send(method, "/x", &[], "").await.status, 405);
    }
}

#[tokio::test]
async fn who_has_the_version_is_not_sent_it_again() {
    let bench = Bench::new();
    let etag = bench.put("/x", "1").await.etag();
    let since = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (uri, name, value, status) in [
        ("/x", "if-none-match", &*etag, 304),
        ("/x", "if-none-match", "*", 304),
        ("/x", "if-none-match", "\"other\"", 200),
        ("/x", "if-none-match", "other", 400),
        ("/x", "if-match", "\"other\"", 412),
        ("/x", "if-match", &etag, 200),
        ("/x", "if-modified-since", since, 304),
        ("/x", "if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("/x", "if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT", 412),
        ("/y", "if-none-match", "*", 404),
        ("/y", "if-match", "*", 404),
        ("/", "if-none-match", &etag, 200),
    ] {
        for method in ["GET", "HEAD"] {
            let seen = bench.send(method, uri, &[(name, value)], "").await;
            assert_eq!(seen.status, status, "{method} {uri} {name}: {value}");
            match status {
                304 => {
                    assert_eq!((seen.etag(), seen.body.len()), (etag.clone(), 0));
                    assert_eq!(seen.header("cache-control"), Some("no-cache"));
                }
                412 => assert_eq!(
                    (seen.json()["etag"].as_str(), seen.etag()),
                    (Some(&*etag), etag.clone())
                ),
                400 => assert_eq!(seen.json()["field"], "If-None-Match"),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_date_is_never_later_than_now_and_never_comes_back() {
    let bench = Bench::new();
    bench.put("/x", "1").await;
    // The clock was wrong, and is set back.
    bench.clock.store(NOW - 10_000, Ordering::SeqCst);
    let read = bench.get("/x").await;
    assert_eq!(read.header("last-modified"), Some("Sun, 06 Nov 1994 08:49:27 GMT"));
    bench.send("DELETE", "/x", &[], "").await;
    bench.put("/x", "2").await;
    bench.clock.store(NOW + 10_000, Ordering::SeqCst);
    let read = bench.get("/x").await;
    assert_eq!(read.header("last-modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    for wild in [i64::MIN, -1, i64::MAX] {
        bench.clock.store(wild, Ordering::SeqCst);
        assert_eq!(bench.put("/y", "1").await.status / 100, 2);
        assert_eq!(bench.get("/y").await.status, 200);
        assert_eq!(bench.get("/?list=true").await.status, 200);
    }
}

#[tokio::test]
async fn a_path_with_something_below_it_is_a_collection() {
    let bench = Bench::new();
    bench.put("/c/b", "1").await;
    bench.send("PUT", "/c/a%20b", &[("content-type", "text/plain")], "x").await;
    bench.put("/c/b/deep/er", "1").await;
    bench.put("/c/n/m", "1").await;
    let list = bench.get("/c").await;
    assert_eq!(list.header("content-type"), Some("application/json"));
    assert_eq!(list.header("etag"), None);
    let modified = "1994-11-06T08:49:37.250Z";
    let expected = serde_json::json!({ "items": [
        { "resource": "/c/a%20b", "id": "a b", "etag": "\"0a0b0c0d-2\"", "last_modified": modified,
          "media_type": "text/plain", "has_children": false },
        { "resource": "/c/b", "id": "b", "etag": "\"0a0b0c0d-1\"", "last_modified": modified,
          "media_type": "application/json", "has_children": true },
        { "resource": "/c/n", "id": "n", "etag": null, "last_modified": null, "media_type": null,
          "has_children": true },
    ], "next": null });
    assert_eq!(list.json(), expected);
    let head = bench.send("HEAD", "/c", &[], "").await;
    assert_eq!((head.headers, head.body.len()), (list.headers, 0));

    // A document with children is read as itself, unless the list is asked for.
    assert_eq!(bench.get("/c/b").await.json(), 1);
    assert_eq!(bench.get("/c/b?list=true").await.json()["items"][0]["id"], "deep");
    assert_eq!(bench.get("/c/b/deep/er?list=true").await.json()["items"], serde_json::json!([]));
    assert_eq!(bench.get("/c/b?list=false").await.json(), 1);
    assert_eq!(bench.get("/").await.json()["items"][0]["id"], "c");
    for gone in ["/d", "/d?list=true", "/c/b/deep/er/x"] {
        assert_eq!(bench.get(gone).await.problem(), "not-found");
    }
    bench.send("DELETE", "/c?recursive=true", &[], "").await;
    assert_eq!(bench.get("/c").await.status, 404);
    assert_eq!(bench.get("/").await.status, 404);
}

#[tokio::test]
async fn pages_are_stable_while_children_come_and_go() {
    let bench = Bench::new();
    for n in (0..20).step_by(2) {
        bench.put(&format!("/c/k{n:02}/x"), "1").await;
        bench.put(&format!("/c/k{n:02}"), "1").await;
    }
    let mut seen = Vec::new();
    let mut uri = "/c?limit=3".to_owned();
    loop {
        let page = bench.get(&uri).await.json();
        let ids = page["items"].as_array().unwrap().iter();
        seen.extend(ids.map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        uri = format!("/c?limit=3&cursor={next}");
        // Before what was shown, and the last that was shown itself: neither moves the page.
        bench.put("/c/a", "1").await;
        let last = seen.last().unwrap();
        bench.send("DELETE", &format!("/c/{last}?recursive=true"), &[], "").await;
        bench.put("/c/k09", "1").await;
    }
    let mut expected: Vec<_> = (0..20).step_by(2).map(|n| format!("k{n:02}")).collect();
    expected.insert(5, "k09".into());
    assert_eq!(seen, expected);

    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("list=maybe", "list"),
        ("cursor=abc", "cursor"),
        ("cursor=", "cursor"),
    ] {
        let refused = bench.get(&format!("/c?{query}")).await;
        assert_eq!((refused.status, &refused.json()["field"]), (400, &field.into()), "{query}");
    }
    assert_eq!(bench.get("/c?limit=1000").await.json()["next"], Value::Null);
    // A cursor of one list is none of another.
    let cursor = bench.get("/c?limit=1").await.json()["next"].as_str().unwrap().to_owned();
    assert_eq!(bench.get(&format!("/?cursor={cursor}")).await.status, 400);
}
