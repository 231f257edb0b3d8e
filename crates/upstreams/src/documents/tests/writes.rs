use super::*;

const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");
const JSON_PATCH: (&str, &str) = ("content-type", "application/json-patch+json");

#[tokio::test]
async fn an_entity_tag_is_never_used_again() {
    let mut bench = Bench::new();
    let mut seen = std::collections::HashSet::new();
    for round in 0..3 {
        assert!(seen.insert(bench.put("/x", "{}").await.etag()));
        assert!(seen.insert(bench.put("/x", "{}").await.etag()));
        assert!(seen.insert(bench.send("PATCH", "/x", &[MERGE], "{}").await.etag()));
        assert!(seen.insert(bench.send("POST", "/", &[], "{\"id\":\"y\"}").await.etag()));
        bench.send("DELETE", "/?recursive=true", &[], "").await;
        bench = bench.reopened(["0a0b0c0d", "ffffffff", "00000000"][round]);
    }
    bench.put("/x", "{}").await;
    let before = bench.get("/x").await.etag();
    // A restore: the same versions under another incarnation.
    bench = bench.reopened("12345678");
    assert_ne!(bench.get("/x").await.etag(), before);
}

#[tokio::test]
async fn put_creates_or_replaces_as_the_preconditions_say() {
    let bench = Bench::new();
    let refused = bench.send("PUT", "/x", &[("if-match", "*")], "1").await;
    assert_eq!((refused.problem().as_str(), refused.header("etag")), ("precondition-failed", None));
    assert_eq!(refused.json()["etag"], Value::Null);
    let created = bench.send("PUT", "/x", &[("if-none-match", "*")], "1").await;
    assert_eq!(created.status, 201);
    let refused = bench.send("PUT", "/x", &[("if-none-match", "*")], "2").await;
    assert_eq!((refused.status, refused.etag()), (412, created.etag()));
    let replaced = bench.send("PUT", "/x", &[("if-match", &created.etag())], "2").await;
    assert_eq!((replaced.status, replaced.header("location")), (204, None));
    let refused = bench.send("PUT", "/x", &[("if-match", &created.etag())], "3").await;
    assert_eq!((refused.status, refused.etag()), (412, replaced.etag()));
    assert_eq!(bench.get("/x").await.json(), 2);
    // A collection without a document is no document.
    bench.put("/c/x", "1").await;
    assert_eq!(bench.send("PUT", "/c", &[("if-none-match", "*")], "1").await.status, 201);
}

#[tokio::test]
async fn a_body_is_what_it_says_and_fits() {
    let bench = Bench::with(|options| options.max_document = 10);
    let json = ("content-type", "application/vnd.x+json; a=b");
    for (headers, body, problem, member) in [
        (&[][..], "{", "malformed-request", Some(("field", "body"))),
        (&[], "", "malformed-request", Some(("field", "body"))),
        (&[json], "nope", "malformed-request", Some(("field", "body"))),
        (&[("content-type", "x")], "1", "malformed-request", Some(("field", "Content-Type"))),
        (
            &[("content-range", "bytes 0-1/9")],
            "1",
            "malformed-request",
            Some(("field", "Content-Range")),
        ),
        (&[("content-encoding", "gzip")], "1", "unsupported-media-type", None),
        (&[], "12345678901", "payload-too-large", None),
        (&[("content-length", "11")], "1", "payload-too-large", None),
        (&[("content-length", "99999999999999999999")], "1", "created", None),
        (&[("content-encoding", "identity")], "1", "created", None),
        (&[("content-type", "text/plain")], "{", "created", None),
        (&[], "1234567890", "created", None),
    ] {
        for (method, uri) in [("PUT", "/x"), ("POST", "/c")] {
            if method == "POST" && problem == "created" {
                continue;
            }
            let seen = bench.send(method, uri, headers, body).await;
            if problem == "created" {
                assert_eq!(seen.status / 100, 2, "{headers:?} {body}");
                continue;
            }
            assert_eq!(seen.problem(), problem, "{method} {headers:?} {body}");
            if let Some((name, value)) = member {
                assert_eq!(seen.json()[name], value, "{method} {headers:?} {body}");
            }
        }
    }
    // Not read on: the body never ends.
    let endless = Endless.boxed_unsync();
    let refused = bench.documents.plan(head("PUT", "/x", &[]), resource("/x"), endless).await;
    assert_eq!(refused.err().map(|problem| problem.status().as_u16()), Some(413));
}

/// A body that has always more.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = leasehold_guard::body::BoxError;
    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b"1")))))
    }
}

#[tokio::test]
async fn post_names_the_child_by_its_id_or_afresh() {
    let bench = Bench::new();
    let created = bench.send("POST", "/c", &[], r#"{"id":"a b","x":1}"#).await;
    assert_eq!((created.status, created.header("location")), (201, Some("/c/a%20b")));
    assert_eq!(bench.get("/c/a%20b").await.etag(), created.etag());
    let taken = bench.send("POST", "/c", &[], r#"{"id":"a b"}"#).await;
    assert_eq!(
        (taken.problem().as_str(), &taken.json()["resource"]),
        ("already-exists", &"/c/a%20b".into())
    );

    let fresh = bench.send("POST", "/c", &[], r#"{"x":1}"#).await;
    let location = "/c/00000000-0000-0000-0000-000000000000";
    assert_eq!(fresh.header("location"), Some(location));
    assert_eq!(&bench.get(location).await.body[..], br#"{"x":1}"#);
    // The next draw is taken.
    bench.put("/c/00000000-0000-0000-0000-000000000001", "1").await;
    let fresh = bench.send("POST", "/c", &[("content-type", "text/plain")], "any").await;
    assert_eq!(fresh.header("location"), Some("/c/00000000-0000-0000-0000-000000000002"));
    // So are all: it ends.
    for n in 3..10 {
        bench.put(&format!("/c/00000000-0000-0000-0000-00000000000{n}"), "1").await;
    }
    assert_eq!(bench.send("POST", "/c", &[], "{}").await.problem(), "already-exists");

    for (body, pointer) in [
        (r#"{"id":1}"#, "/id"),
        (r#"{"id":null}"#, "/id"),
        (r#"{"id":""}"#, "/id"),
        (r#"{"id":"a/b"}"#, "/id"),
        (r#"{"id":".."}"#, "/id"),
        (r#"{"id":"lock"}"#, "/id"),
        ("[]", ""),
        ("1", ""),
    ] {
        let refused = bench.send("POST", "/c", &[], body).await;
        assert_eq!(refused.problem(), "validation-failed", "{body}");
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{body}");
    }
    assert_eq!(bench.send("POST", "/", &[], r#"{"id":"-"}"#).await.status, 422);
    assert_eq!(bench.send("POST", "/c", &[], r#"{"id":"a","id":"b"}"#).await.status, 400);
    let long = format!("/{}", "a".repeat(2040));
    assert_eq!(bench.send("POST", &long, &[], "{}").await.status, 400);
    assert_eq!(bench.send("POST", &long, &[], r#"{"id":"too long"}"#).await.status, 422);
    // The preconditions are about the collection.
    let made = bench.send("POST", "/c", &[("if-match", "*")], r#"{"id":"m"}"#).await;
    assert_eq!(made.status, 201);
    let refused = bench.send("POST", "/c", &[("if-none-match", "*")], r#"{"id":"n"}"#).await;
    assert_eq!(refused.status, 412);
}

#[tokio::test]
async fn patch_changes_what_is_there() {
    let bench = Bench::with(|options| options.max_document = 200);
    bench.put("/x", r#"{"z":1,"a":{"b":2},"m":3}"#).await;
    let patched = bench.send("PATCH", "/x", &[MERGE], r#"{"z":null,"a":{"c":4}}"#).await;
    assert_eq!((patched.status, &patched.body[..]), (200, &br#"{"a":{"b":2,"c":4},"m":3}"#[..]));
    assert_eq!(patched.header("content-length"), Some("25"));
    assert_eq!(bench.get("/x").await.etag(), patched.etag());
    let plain = ("content-type", "application/json");
    assert_eq!(bench.send("PATCH", "/x", &[plain], r#"{"n":1}"#).await.json()["n"], 1);
    let steps = r#"[{"op":"test","path":"/m","value":3},{"op":"replace","path":"/m","value":5}]"#;
    assert_eq!(bench.send("PATCH", "/x", &[JSON_PATCH], steps).await.json()["m"], 5);

    let before = bench.get("/x").await;
    let conflict = bench.send("PATCH", "/x", &[JSON_PATCH], steps).await;
    assert_eq!(conflict.problem(), "patch-conflict");
    assert_eq!(
        (&conflict.json()["operation"], &conflict.json()["pointer"]),
        (&0.into(), &"/m".into())
    );
    bench.send("PUT", "/t", &[("content-type", "text/plain")], "{}").await;
    bench.put("/n", "1e400").await;
    let long = format!(r#"{{"x":"{}"}}"#, "y".repeat(180));
    for (uri, headers, body, problem) in [
        ("/x", &[JSON_PATCH][..], "{}", "malformed-request"),
        ("/x", &[MERGE], "{", "malformed-request"),
        ("/x", &[("content-type", "text/plain")], "{}", "unsupported-media-type"),
        ("/x", &[], "{}", "unsupported-media-type"),
        ("/t", &[MERGE], "{}", "unsupported-media-type"),
        ("/n", &[MERGE], "{}", "unsupported-media-type"),
        ("/y", &[MERGE], "{}", "not-found"),
        ("/y", &[MERGE, ("if-match", "*")], "{}", "not-found"),
        ("/x", &[MERGE], &long, "payload-too-large"),
        ("/x", &[MERGE, ("if-match", "\"other\"")], "{}", "precondition-failed"),
        ("/x", &[JSON_PATCH, ("if-match", "\"other\"")], steps, "precondition-failed"),
    ] {
        let refused = bench.send("PATCH", uri, headers, body).await;
        assert_eq!(refused.problem(), problem, "{uri} {headers:?} {body}");
        let accept = refused.header("accept-patch").is_some();
        assert_eq!(accept, problem == "unsupported-media-type");
    }
    let after = bench.get("/x").await;
    assert_eq!((after.etag(), &after.body), (before.etag(), &before.body));
}

#[tokio::test]
async fn large_patches_that_meet_are_each_applied_to_what_the_other_made() {
    let bench = Arc::new(Bench::new());
    let filler = "x".repeat(100_000);
    bench.put("/x", &format!(r#"{{"filler":"{filler}","list":[]}}"#)).await;
    let patches: Vec<_> = (0..20)
        .map(|n| {
            let bench = bench.clone();
            tokio::spawn(async move {
                let add = format!(r#"[{{"op":"add","path":"/list/-","value":{n}}}]"#);
                bench.send("PATCH", "/x", &[JSON_PATCH], &add).await.status
            })
        })
        .collect();
    for patch in patches {
        assert_eq!(patch.await.unwrap(), 200);
    }
    let list = bench.get("/x").await.json()["list"].clone();
    let mut numbers: Vec<_> =
        list.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn delete_takes_children_only_when_asked() {
    let bench = Bench::new();
    for path in ["/c", "/c/b/x", "/c/a", "/c/d", "/cc"] {
        bench.put(path, "1").await;
    }
    let refused = bench.send("DELETE", "/c", &[("if-match", "\"other\"")], "").await;
    assert_eq!(refused.problem(), "has-children");
    assert_eq!((&refused.json()["count"], &refused.json()["first"]), (&3.into(), &"/c/a".into()));
    // Also where there is no document, only what is below.
    assert_eq!(bench.send("DELETE", "/c/b", &[], "").await.problem(), "has-children");
    assert_eq!(bench.send("DELETE", "/c/b?recursive=false", &[], "").await.status, 409);
    let refused = bench.send("DELETE", "/c?recursive=yes", &[], "").await;
    assert_eq!((refused.status, &refused.json()["field"]), (400, &"recursive".into()));
    let stale = [("if-match", "\"other\"")];
    assert_eq!(bench.send("DELETE", "/c?recursive=true", &stale, "").await.status, 412);
    assert_eq!(bench.send("DELETE", "/c/a", &[], "").await.status, 204);
    assert_eq!(bench.send("DELETE", "/c?recursive=true", &[], "").await.status, 204);
    for (path, status) in [("/c", 404), ("/c/b", 404), ("/c/b/x", 404), ("/cc", 200)] {
        assert_eq!(bench.get(path).await.status, status, "{path}");
    }
    assert_eq!(bench.send("DELETE", "/c", &[("if-match", "*")], "").await.problem(), "not-found");
    assert_eq!(bench.send("DELETE", "/cc", &[], "ignored").await.status, 204);
}

#[tokio::test]
async fn what_an_admission_did_is_known_after_a_restart() {
    let bench = Bench::new();
    let (one, two, three, four) = (Seq(1), Seq(2), Seq(3), Seq(u64::MAX));
    bench.send_as(Some(one), "PUT", "/x", &[], "1").await;
    bench.send_as(Some(two), "PUT", "/x", &[("if-match", "\"no\"")], "2").await;
    bench.send_as(Some(three), "DELETE", "/x", &[], "").await;
    bench.send_as(Some(four), "POST", "/c", &[], "{}").await;
    let bench = bench.reopened(INCARNATION);
    let applied = |seq| bench.documents.was_applied(seq).unwrap();
    assert_eq!([one, two, three, four].map(applied), [true, false, true, true]);
    bench.documents.forget_admissions(three).await.unwrap();
    assert_eq!([one, two, three, four].map(applied), [false, false, true, true]);
}
