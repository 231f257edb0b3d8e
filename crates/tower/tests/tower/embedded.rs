//! What passes, what does not, and what the service is told.

use http::request::Parts;
use leasehold_tower::{
    Caller, Leasehold, Name, OpenError, Pattern, Permission, Permissions, Problem, Rule,
};
use serde_json::json;
use tracing::Instrument as _;

use super::double::*;

#[tokio::test]
async fn without_the_token_a_write_does_not_reach_the_service_and_a_read_does() {
    let world = World::new().await;
    let app = &world.app;
    let held = app.lock("/flags/x").await;
    for method in ["PUT", "POST", "PATCH", "DELETE", "BREW"] {
        let reply = app.send(method, "/flags/x", &[]).await;
        let problem = reply.problem(423, "locked");
        assert_eq!(problem["lock"]["lock_id"], held["lock_id"]);
        assert_eq!(problem["instance"], "/flags/x");
        assert_eq!(reply.headers["link"], "</flags/x/lock>; rel=\"lock\"");
        assert!(reply.headers.contains_key("x-request-id"));
    }
    // What takes everything below along.
    app.send("DELETE", "/flags", &[]).await.problem(423, "locked");
    assert!(app.is_quiet().await);
    for method in ["GET", "HEAD", "OPTIONS"] {
        let read = app.spawn(request(method, "/flags/x", &[], text("")));
        let reached = app.reached().await;
        assert_eq!(reached.request.method(), method);
        reached.answer(200);
        assert_eq!(read.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn the_service_is_told_of_the_lock_and_the_caller_and_of_nothing_that_is_forged() {
    let world = World::new().await;
    let app = &world.app;
    let held = app.lock("/flags").await;
    let claims = [
        ("X-Lock-Fence", "9999"),
        ("x_lock_id", "forged"),
        ("X-Lock_Holder", "mallory"),
        ("X-Original-URL", "/other"),
        ("X-Request-Id", "mine"),
    ];
    let fields = [&claims[..], &[("X-Lock-Token", token(&held))]].concat();
    let write = app.spawn(request("PUT", "/flags/x?y=%2f", &fields, text("1")));
    let reached = app.reached().await;
    let lock = reached.lock().unwrap();
    assert_eq!(lock.fence, held["fence"].as_u64().unwrap());
    assert_eq!(lock.lock_id.to_string(), held["lock_id"]);
    assert_eq!(lock.holder.as_str(), "anonymous");
    assert_eq!(reached.caller(), Some("anonymous"));
    let names: Vec<&str> = reached.request.headers().keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["x-request-id"]);
    assert_eq!(reached.request.uri(), "/flags/x?y=%2f");
    reached.answer(201);
    let answer = write.await.unwrap().unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-request-id"]),
        (201, &"mine".parse().unwrap())
    );

    // Nor is a read told of a lock, or an unlocked write.
    for (method, path) in [("GET", "/flags/x"), ("PUT", "/free")] {
        let sent = app.spawn(request(method, path, &claims, text("")));
        let reached = app.reached().await;
        assert_eq!((reached.lock(), reached.caller()), (None, Some("anonymous")));
        assert_eq!(reached.request.headers().len(), 1);
        reached.answer(200);
        sent.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_token_of_another_lock_and_one_that_has_ended_refuse_a_write() {
    let world = World::new().await;
    let app = &world.app;
    let (one, other) = (app.lock("/one").await, app.lock("/other").await);
    let put = |path: &'static str, token: String| async move {
        app.send("PUT", path, &[("X-Lock-Token", &token)]).await
    };
    put("/one", token(&other).to_owned()).await.problem(423, "locked");
    put("/free", token(&other).to_owned()).await.problem(412, "lock-mismatch");
    put("/free", "lock_forged".to_owned()).await.problem(403, "invalid-lock-token");
    let released = app.send("DELETE", "/one/lock", &[("X-Lock-Token", token(&one))]).await;
    assert_eq!(released.status, 204);
    put("/one", token(&one).to_owned()).await.problem(412, "lock-lost");
    let etag = [("If", "([\"1\"])")];
    assert_eq!(
        app.send("PUT", "/free", &etag).await.problem(400, "malformed-request")["field"],
        "If"
    );
    assert!(app.is_quiet().await);
}

#[tokio::test]
async fn a_refused_body_is_not_asked_for_where_the_client_waits_and_else_thrown_away() {
    let world = World::new().await;
    let app = &world.app;
    app.lock("/x").await;
    let (sender, waits) = body();
    let refused = app.call(request("PUT", "/x", &[("Expect", "100-continue")], waits)).await;
    whole(refused.unwrap()).await.problem(423, "locked");
    sender.dropped().await;
    assert!(!sender.is_asked_for());

    let (sender, comes) = body();
    sender.send("half");
    whole(app.call(request("PUT", "/x", &[], comes)).await.unwrap()).await.problem(423, "locked");
    until(|| sender.is_asked_for()).await;
    drop(sender);

    // Nor is that of a write asked for before it is let through, or by the layer at all.
    let (sender, comes) = body();
    let write = app.spawn(request("PUT", "/free", &[], comes));
    let reached = app.reached().await;
    assert!(!sender.is_asked_for());
    reached.answer(200);
    write.await.unwrap().unwrap();
}

#[tokio::test]
async fn whoever_is_not_known_reads_and_does_nothing_else() {
    let by_field = |head: &Parts| {
        let Some(name) = head.headers.get("x-user") else {
            return Err(Box::new(Problem::new(Name::Unauthenticated, "Sign in first.")));
        };
        let may = [Permission::Read, Permission::Write, Permission::Lock];
        Ok(Caller::named(name.to_str().unwrap(), Permissions::of(&may)))
    };
    let world = World::with(|builder| builder.identity(by_field)).await;
    let app = &world.app;
    for (method, path) in
        [("PUT", "/x"), ("POST", "/x/lock"), ("GET", "/x/lock"), ("GET", "/-/locks")]
    {
        app.send(method, path, &[]).await.problem(401, "unauthenticated");
    }
    // What cannot be read is told before anybody is asked who he is.
    let problem =
        app.send("PUT", "/x", &[("Lock-Token", "a")]).await.problem(400, "malformed-request");
    assert_eq!(problem["field"], "Lock-Token");
    let read = app.spawn(request("GET", "/x", &[], text("")));
    let reached = app.reached().await;
    assert_eq!(reached.caller(), None);
    reached.answer(200);
    read.await.unwrap().unwrap();

    let (alice, bob) = (("x-user", "alice"), ("x-user", "bob"));
    let held = app.send("POST", "/x/lock", &[alice]).await;
    assert_eq!(held.json()["holder"], "alice");
    let held = held.json();
    // A token is its holder's.
    app.send("PUT", "/x", &[bob, ("x-lock-token", token(&held))]).await.problem(423, "locked");
    // Nobody may break locks here.
    app.send("POST", "/x/lock/break", &[bob]).await.problem(403, "forbidden");
    let write = app.spawn(request("PUT", "/x", &[alice, ("x-lock-token", token(&held))], text("")));
    let reached = app.reached().await;
    assert_eq!(reached.caller(), Some("alice"));
    assert_eq!(reached.lock().unwrap().holder.as_str(), "alice");
    reached.answer(200);
    write.await.unwrap().unwrap();
    for name in ["", &"a".repeat(256)] {
        app.send("PUT", "/x", &[("x-user", name)]).await.problem(403, "forbidden");
    }
    assert!(app.is_quiet().await);
}

#[tokio::test]
async fn no_spelling_of_a_request_leads_around_a_lock() {
    let world = World::with(|builder| builder.accept_odd_paths("/odd")).await;
    let app = &world.app;
    app.lock("/flags/x").await;
    app.send("GET", "/flags/x", &[("X-HTTP-Method-Override", "DELETE")])
        .await
        .problem(423, "locked");
    app.send("POST", "/flags/x:archive", &[]).await.problem(423, "locked");
    app.send("PUT", "/flags/%78/", &[]).await.problem(423, "locked");
    app.send("COPY", "/free", &[("Destination", "/flags/x")]).await.problem(423, "locked");
    for path in ["/flags//x", "/flags/%2e%2e/x", "/flags%2Fx"] {
        let problem = app.send("PUT", path, &[]).await.problem(400, "malformed-request");
        assert_eq!(problem["field"], "path");
        let read = app.spawn(request("GET", path, &[], text("")));
        app.reached().await.answer(200);
        read.await.unwrap().unwrap();
    }
    app.lock("/odd/deep/down").await;
    app.send("PUT", "/odd//x", &[]).await.problem(423, "locked");
    assert!(app.is_quiet().await);
}

#[tokio::test]
async fn rules_give_urls_one_lock_and_ask_for_preconditions() {
    let pattern = |text| Pattern::parse(text).unwrap();
    let flags = Rule {
        patterns: vec![pattern("/v1/flags/{id}/**"), pattern("/v2/flags/{id}/**")],
        resource: Some(pattern("/flags/{id}")),
        require_precondition: true,
        ..Rule::default()
    };
    let world = World::with(|builder| builder.rule(flags.clone())).await;
    let app = &world.app;
    app.send("PUT", "/v1/flags/7", &[]).await.problem(428, "precondition-required");
    let held = app.lock("/v1/flags/7").await;
    assert_eq!(held["resource"], "/flags/7");
    let conditional = [("If-Match", "\"1\"")];
    let reply = app.send("PATCH", "/v2/flags/7/rollout", &conditional).await;
    reply.problem(423, "locked");
    assert_eq!(reply.headers["link"], "</v2/flags/7/rollout/lock>; rel=\"lock\"");
    let write = app.spawn(request("PUT", "/v1/flags/8", &conditional, text("")));
    app.reached().await.answer(412);
    assert_eq!(write.await.unwrap().unwrap().status(), 412);

    let twice = world.locks.set_rules(vec![flags.clone(), flags]).unwrap_err();
    assert_eq!(twice.rule, 2);
    world.locks.set_rules(Vec::new()).unwrap();
    let write = app.spawn(request("PUT", "/v1/flags/7", &[], text("")));
    app.reached().await.answer(200);
    write.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_own_space_has_locks_and_problem_pages_and_nothing_else() {
    let world = World::new().await;
    let app = &world.app;
    let set = app.post("/-/locks", json!({"resources": ["/a", "/b"]})).await;
    assert_eq!(set.status, 201);
    let set = set.json();
    let listed = app.send("GET", "/-/locks", &[]).await.json();
    assert_eq!(listed["items"][0]["lock_id"], set["lock_id"]);
    app.send("PUT", "/b", &[]).await.problem(423, "locked");
    let by_id = format!("/-/locks/{}", set["lock_id"].as_str().unwrap());
    assert_eq!(app.send("GET", &by_id, &[]).await.status, 200);
    let head = app.send("HEAD", &by_id, &[]).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    let freed = app.send("DELETE", &by_id, &[("X-Lock-Token", token(&set))]).await;
    assert_eq!(freed.status, 204);
    assert_eq!(app.send("GET", "/-/problems/locked", &[]).await.json()["name"], "locked");
    app.send("GET", "/-/audit", &[]).await.problem(404, "not-found");
    let head = app.send("HEAD", "/-/audit", &[]).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (404, 0));
    let reply = app.send("PUT", "/-/locks", &[]).await;
    reply.problem(405, "method-not-allowed");
    assert_eq!(reply.headers["allow"], "GET, HEAD, POST, OPTIONS");
    assert_eq!(app.send("OPTIONS", "/-/locks", &[]).await.status, 204);
    assert!(app.is_quiet().await);
}

#[tokio::test]
async fn suffix_and_prefix_are_what_they_were_set_to() {
    let world = World::with(|builder| builder.lock_suffix("/_lock").prefix("/_locks/")).await;
    let app = &world.app;
    app.post("/x/_lock", json!({})).await;
    assert_eq!(app.send("GET", "/_locks/locks", &[]).await.json()["items"][0]["resource"], "/x");
    let problem = app.send("PUT", "/x", &[]).await.problem(423, "locked");
    assert_eq!(problem["type"], "/_locks/problems/locked");
    // What is only so by default is the service's.
    let other = app.spawn(request("PUT", "/y/lock", &[], text("")));
    app.reached().await.answer(200);
    other.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_service_is_called_within_the_span_of_its_request() {
    let _default = tracing::subscriber::set_default(tracing_subscriber::registry());
    let world = World::new().await;
    for method in ["GET", "PUT"] {
        let span = tracing::info_span!("request");
        let call = world.app.call(request(method, "/x", &[], text("")));
        let sent = tokio::spawn(call.instrument(span.clone()));
        let reached = world.app.reached().await;
        assert!(span.id().is_some());
        assert_eq!(reached.span.id(), span.id());
        reached.answer(200);
        sent.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn all_layers_of_a_lock_table_are_about_the_same_locks() {
    let world = World::new().await;
    let other = Guarded::by(&world.locks.layer());
    world.app.lock("/x").await;
    other.send("PUT", "/x", &[]).await.problem(423, "locked");
    assert!(other.is_quiet().await);
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let root = tempfile::tempdir().unwrap();
    let builder = || Leasehold::builder(root.path().join("data")).anonymous();
    let refused = Leasehold::builder(root.path()).open().await.unwrap_err();
    assert!(matches!(refused, OpenError::NoIdentity));
    for (builder, says) in [
        (builder().prefix("-"), "the prefix `-` is not one path segment"),
        (builder().lock_suffix("/a/b"), "the lock suffix `/a/b`"),
        (builder().lock_suffix("/break"), "the lock suffix `/break`"),
        (builder().lock_suffix("/-"), "the lock suffix `/-`"),
        (builder().accept_odd_paths("odd"), "`odd`, below which odd paths are accepted"),
        (builder().rule(Rule::default()), "rule 1: it has no pattern"),
    ] {
        let told = builder.open().await.unwrap_err().to_string();
        assert!(told.starts_with(says), "{told}");
    }
    assert!(!root.path().join("data").exists(), "nothing was opened");
    let first = builder().open().await.unwrap();
    let told = builder().open().await.unwrap_err().to_string();
    assert!(told.contains("is in use by another server"), "{told}");
    drop(first);
}
