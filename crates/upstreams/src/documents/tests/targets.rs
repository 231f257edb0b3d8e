use super::*;

/// The targets, one word each: `content /a`.
fn words(targets: &[Target]) -> Vec<String> {
    let mut words: Vec<_> = targets
        .iter()
        .map(|target| match target {
            Target::Content(resource) => format!("content {resource}"),
            Target::Members(resource) => format!("members {resource}"),
            Target::Subtree(resource) => format!("subtree {resource}"),
        })
        .collect();
    words.sort();
    words
}

async fn plan(bench: &Bench, method: &str, uri: &str, body: &str) -> Plan {
    let json = [("content-type", "application/json")];
    let head = head(method, uri, &json);
    let resource = resource(head.uri.path());
    bench.documents.plan(head, resource, full(body.to_owned())).await.unwrap()
}

#[tokio::test]
async fn a_write_names_all_that_it_changes() {
    let bench = Bench::new();
    for path in ["/c", "/c/x", "/i/only/x", "/i/other"] {
        bench.put(path, "{}").await;
    }
    for (method, uri, body, early, late) in [
        ("PUT", "/c/x", "1", &["content /c/x"][..], &["content /c/x"][..]),
        ("PUT", "/c/y", "1", &["content /c/y"], &["content /c/y", "members /c"]),
        // The collection is there because of its children; its document is new all the same.
        ("PUT", "/i", "1", &["content /i"], &["content /i", "members /"]),
        // The parents appear as well.
        (
            "PUT",
            "/n/e/w",
            "1",
            &["content /n/e/w"],
            &["content /n/e/w", "members /", "members /n", "members /n/e"],
        ),
        ("PATCH", "/c/x", "{}", &["content /c/x"], &["content /c/x"]),
        (
            "POST",
            "/c",
            r#"{"id":"z"}"#,
            &["content /c", "members /c"],
            &["content /c", "content /c/z", "members /c"],
        ),
        (
            "POST",
            "/new",
            r#"{"id":"z"}"#,
            &["content /new", "members /new"],
            &["content /new", "content /new/z", "members /", "members /new"],
        ),
        ("DELETE", "/c/x", "", &["members /c", "subtree /c/x"], &["members /c", "subtree /c/x"]),
        // The parent goes as well, but not the one above, which has another child.
        (
            "DELETE",
            "/i/only/x",
            "",
            &["members /i/only", "subtree /i/only/x"],
            &["members /i", "members /i/only", "subtree /i/only/x"],
        ),
        ("DELETE", "/", "", &["subtree /"], &["subtree /"]),
        ("DELETE", "/none", "", &["members /", "subtree /none"], &["members /", "subtree /none"]),
    ] {
        let parts = head(method, uri, &[]);
        let named = bench.documents.early_targets(&parts, &resource(uri));
        assert_eq!(words(&named), early, "{method} {uri}");
        let plan = plan(&bench, method, uri, body).await;
        let named = bench.documents.targets(&plan).await;
        assert_eq!(words(&named), late, "{method} {uri}");
        for target in &named {
            assert!(plan.possible().contains(target), "{method} {uri} {target:?}");
        }
    }
}

#[tokio::test]
async fn a_write_that_changes_more_than_it_was_let_through_for_is_not_applied() {
    let bench = Bench::new();
    bench.put("/c/x", "1").await;
    bench.put("/c/y", "1").await;
    for (method, uri, meanwhile, needs) in [
        ("PUT", "/c/x", ("DELETE", "/c/x"), "members /c"),
        ("POST", "/c", ("DELETE", "/c?recursive=true"), "members /"),
        ("DELETE", "/p/q/x", ("DELETE", "/p/q/y"), "members /p"),
    ] {
        bench.put("/p/z", "1").await;
        bench.put("/p/q/x", "1").await;
        bench.put("/p/q/y", "1").await;
        let planned = plan(&bench, method, uri, r#"{"id":"z"}"#).await;
        let before = bench.documents.targets(&planned).await;
        assert_eq!(bench.send(meanwhile.0, meanwhile.1, &[], "").await.status, 204);
        let etag_before = bench.get(uri).await.header("etag").map(ToOwned::to_owned);
        let covers = |target: &Target| before.contains(target);
        let Execution::Retarget(planned) =
            bench.documents.apply(planned, &covers, Some(Seq(7))).await
        else {
            panic!("{method} {uri} was applied")
        };
        assert!(!bench.documents.was_applied(Seq(7)).unwrap());
        assert_eq!(bench.get(uri).await.header("etag").map(ToOwned::to_owned), etag_before);
        let after = bench.documents.targets(&planned).await;
        assert!(words(&after).contains(&needs.to_owned()), "{method} {uri} {after:?}");
        let covers = |target: &Target| after.contains(target);
        let ended = bench.documents.apply(planned, &covers, None).await;
        assert!(matches!(ended, Execution::Ended(Ok(_))), "{method} {uri}");
        bench.put("/c/x", "1").await;
    }
}

#[tokio::test]
async fn a_write_that_turns_out_to_need_less_is_applied() {
    let bench = Bench::new();
    let planned = plan(&bench, "PUT", "/c/x", "1").await;
    let targets = bench.documents.targets(&planned).await;
    bench.put("/c/x", "2").await;
    let covers = |target: &Target| targets.contains(target);
    let Execution::Ended(Ok(answer)) = bench.documents.apply(planned, &covers, None).await else {
        panic!("it was not applied")
    };
    assert_eq!(answer.status(), 204);
}
