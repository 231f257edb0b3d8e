use super::*;

fn operation(method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> BatchOperation {
    let mut headers = headers.to_vec();
    if method == "PATCH" {
        headers.push(("content-type", "application/json"));
    }
    let head = head(method, uri, &headers);
    let resource = resource(head.uri.path());
    BatchOperation { head, resource, body: Bytes::from(body.to_owned()) }
}

/// A batch as the guard carries it: the statuses, or the index and the name of the refusal.
async fn run(
    bench: &Bench,
    operations: Vec<BatchOperation>,
) -> Result<Vec<u16>, (usize, &'static str)> {
    let name = |(index, problem): (usize, Box<Problem>)| (index, problem.name.entry().name);
    let mut plan = bench.documents.plan_batch(operations).map_err(name)?;
    for _ in 0..5 {
        let targets = bench.documents.batch_targets(&plan).await;
        let covers = |target: &Target| targets.contains(target);
        match bench.documents.carry_out(plan, &covers, Some(Seq(1))).await {
            Ok(answers) => return Ok(answers.iter().map(|a| a.status().as_u16()).collect()),
            Err(BatchEnd::Refused(index, problem)) => return Err(name((index, problem))),
            Err(BatchEnd::Failed(problem)) => panic!("{problem:?}"),
            Err(BatchEnd::Retarget(again)) => plan = again,
        }
    }
    panic!("the batch does not come to an end")
}

#[tokio::test]
async fn later_operations_see_what_earlier_ones_did() {
    let bench = Bench::new();
    let done = run(
        &bench,
        vec![
            operation("PUT", "/a/x", &[("if-none-match", "*")], r#"{"n":1}"#),
            operation("PATCH", "/a/x", &[("if-match", "*")], r#"{"m":2}"#),
            operation("POST", "/a", &[], r#"{"id":"y"}"#),
            operation("DELETE", "/a/y", &[], ""),
            operation("PUT", "/a/x", &[], r#"{"n":3}"#),
            operation("PUT", "/b/c/d", &[], "1"),
            operation("DELETE", "/b?recursive=true", &[], ""),
        ],
    )
    .await;
    assert_eq!(done, Ok(vec![201, 200, 201, 204, 204, 201, 204]));
    assert_eq!(&bench.get("/a/x").await.body[..], br#"{"n":3}"#);
    assert_eq!(bench.get("/b").await.status, 404);
    assert!(bench.documents.was_applied(Seq(1)).unwrap());
}

#[tokio::test]
async fn a_batch_comes_to_an_end_also_where_its_own_operations_change_what_it_needs() {
    let bench = Bench::new();
    bench.put("/p/q/x", "1").await;
    bench.put("/p/q/y", "1").await;
    bench.put("/p/z", "1").await;
    let operations =
        vec![operation("DELETE", "/p/q/x", &[], ""), operation("DELETE", "/p/q/y", &[], "")];
    // Neither alone takes /p/q away; both together do.
    let plan = bench.documents.plan_batch(operations).unwrap();
    let targets = bench.documents.batch_targets(&plan).await;
    assert!(!targets.contains(&Target::Members(resource("/p"))));
    let covers = |target: &Target| targets.contains(target);
    let Err(BatchEnd::Retarget(plan)) =
        bench.documents.carry_out(plan, &covers, Some(Seq(1))).await
    else {
        panic!("it was applied")
    };
    assert_eq!(bench.get("/p/q/x").await.status, 200);
    assert!(!bench.documents.was_applied(Seq(1)).unwrap());
    let targets = bench.documents.batch_targets(&plan).await;
    assert!(targets.contains(&Target::Members(resource("/p"))));
    let covers = |target: &Target| targets.contains(target);
    assert!(bench.documents.carry_out(plan, &covers, Some(Seq(1))).await.is_ok());
    assert_eq!(bench.get("/p/q").await.status, 404);
}

#[tokio::test]
async fn of_all_refusals_the_earliest_step_answers_and_nothing_is_applied() {
    let bench = Bench::new();
    bench.put("/x", r#"{"n":1}"#).await;
    bench.put("/c/y", "1").await;
    let before = bench.get("/x").await.etag();
    let write = || operation("PUT", "/x", &[], "2");
    for (operations, index, problem) in [
        (vec![write(), operation("DELETE", "/none", &[], "")], 1, "not-found"),
        (
            vec![
                operation("DELETE", "/none", &[], ""),
                write(),
                operation("PUT", "/z", &[("if-match", "*")], "1"),
            ],
            2,
            "precondition-failed",
        ),
        (
            vec![
                operation("PUT", "/z", &[("if-match", "*")], "1"),
                operation("PUT", "/w", &[], "{"),
            ],
            1,
            "malformed-request",
        ),
        (
            vec![operation("PUT", "/w", &[], "{"), operation("GET", "/w", &[], "")],
            1,
            "method-not-allowed",
        ),
        // The second is refused only because the first was: it is not to blame.
        (
            vec![
                operation("DELETE", "/c", &[], ""),
                operation("PUT", "/c/y", &[("if-none-match", "*")], "1"),
            ],
            0,
            "has-children",
        ),
        (
            vec![
                operation("POST", "/c", &[], r#"{"id":"n"}"#),
                operation("POST", "/c", &[], r#"{"id":"n"}"#),
            ],
            1,
            "already-exists",
        ),
        (vec![operation("PUT", "/x/lock", &[], "1")], 0, "malformed-request"),
    ] {
        assert_eq!(run(&bench, operations).await, Err((index, problem)));
        assert_eq!(bench.get("/x").await.etag(), before);
        assert_eq!(bench.get("/c/n").await.status, 404);
        assert!(!bench.documents.was_applied(Seq(1)).unwrap());
    }
    assert_eq!(run(&bench, Vec::new()).await, Ok(Vec::new()));
}
