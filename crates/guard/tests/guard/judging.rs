//! What a write is judged by: targets, permissions, rules, and the `If` header.

use http::StatusCode;
use leasehold_core::command::Acquire;
use leasehold_core::lock::Depth;
use leasehold_core::pattern::Pattern;
use leasehold_core::target::Target;
use leasehold_guard::rules::Rule;
use leasehold_problems::Name;

use super::bench::*;
use super::common::*;

const DONE: Result<StatusCode, Name> = Ok(StatusCode::NO_CONTENT);

fn rule(pattern: &str) -> Rule {
    Rule { patterns: vec![Pattern::parse(pattern).unwrap()], ..Rule::default() }
}

#[tokio::test]
async fn a_refusal_does_not_look_at_the_body() {
    let bench = Bench::new();
    let lock = bench.world.locked("bob", "/x").await;
    let foreign = bench.token(&lock);
    let narrow = narrow_call("alice", "/elsewhere/**", "/**");
    let alice = call("alice");
    let cases = [
        ("PUT", &alice, vec![], Name::Locked),
        ("PUT", &alice, vec![("x-lock-token", foreign.as_str())], Name::Locked),
        ("PUT", &alice, vec![("if", "([\"other\"])")], Name::PreconditionFailed),
        ("PUT", &alice, vec![("if", "()")], Name::MalformedRequest),
        ("PUT", &alice, vec![("lock-token", "x")], Name::MalformedRequest),
        ("TRACE", &alice, vec![], Name::MethodNotAllowed),
        ("PUT", &narrow, vec![], Name::Forbidden),
    ];
    for (method, call, fields, expected) in cases {
        let (body, _send, touched) = slow_body();
        let request = request(method, "/x", &fields).map(|_| body);
        let answer = told(soon(bench.guard.handle(request, resource("/x"), call)).await);
        assert_eq!(answer, Err(expected), "{method} {fields:?}");
        assert!(!touched(), "{method} {fields:?}");
    }
    assert_eq!((bench.executed(), bench.pins()), (0, 0));
}

#[tokio::test]
async fn reads_pass_whatever_is_locked() {
    let bench = Bench::new();
    bench.world.locked("bob", "/").await;
    for method in ["GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT", "SEARCH"] {
        let request = request(method, "/x", &[]);
        let answer = told(soon(bench.guard.handle(request, resource("/x"), &call("alice"))).await);
        assert_eq!(answer, Ok(StatusCode::OK), "{method}");
    }
    let unread = narrow_call("alice", "/x", "/y");
    let answer = bench.guard.handle(request("GET", "/x", &[]), resource("/x"), &unread).await;
    assert_eq!(told(answer), Err(Name::Forbidden));
}

#[tokio::test]
async fn a_token_lets_its_holder_through_in_each_of_its_forms() {
    let bench = Bench::new();
    let lock = bench.world.locked("alice", "/x").await;
    let token = bench.token(&lock);
    let uri = format!("opaquelocktoken:{}/{token}", lock.grant.lock_id);
    let (coded, listed) = (format!("<{uri}>"), format!("(<{uri}>)"));
    for field in [
        ("x-lock-token", token.as_str()),
        ("x-lock-token", uri.as_str()),
        ("lock-token", coded.as_str()),
        ("if", listed.as_str()),
    ] {
        assert_eq!(bench.put("/x", &[field]).await, DONE, "{field:?}");
        let bobs = bench.put_as(&call("bob"), "/x", &[field]).await;
        assert!(bobs.is_err(), "{field:?}");
    }
    let other = format!("opaquelocktoken:{}/{token}", fresh_id());
    assert_eq!(bench.put("/y", &[("x-lock-token", &other)]).await, Err(Name::InvalidLockToken));
}

#[tokio::test]
async fn every_content_that_is_changed_needs_the_permission() {
    let bench = Bench::new();
    let narrow = narrow_call("alice", "/a/**", "/**");
    let set = |targets: Vec<Target>| {
        bench.upstream.script.lock().unwrap().targets = Some(targets);
    };
    let inside = vec![Target::Content(resource("/a/x")), Target::Members(resource("/"))];
    set(inside.clone());
    assert_eq!(bench.put_as(&narrow, "/a/x", &[]).await, DONE, "a list needs none of its own");
    for outside in [Target::Content(resource("/b")), Target::Subtree(resource("/b"))] {
        set([inside.clone(), vec![outside.clone()]].concat());
        assert_eq!(bench.put_as(&narrow, "/a/x", &[]).await, Err(Name::Forbidden), "{outside:?}");
    }
    // Also where it shows only when the write is carried out.
    set(inside);
    bench.acts([Act::Retarget(vec![Target::Content(resource("/b"))])]);
    assert_eq!(bench.put_as(&narrow, "/a/x", &[]).await, Err(Name::Forbidden));
    assert_eq!((bench.executed(), bench.pins()), (2, 0));
}

#[tokio::test]
async fn under_covers_below_a_write_asks_for_the_locks_below() {
    let bulk = Rule { covers_below: true, ..rule("/bulk") };
    let bench = Bench::with_rules(vec![bulk]);
    for path in ["/bulk/one", "/plain/one"] {
        bench.world.locked("bob", path).await;
    }
    assert_eq!(bench.put("/plain", &[]).await, DONE);
    assert_eq!(bench.put("/bulk", &[]).await, Err(Name::Locked));
    bench.upstream.script.lock().unwrap().targets = Some(vec![Target::Members(resource("/bulk"))]);
    assert_eq!(bench.put("/elsewhere", &[]).await, DONE, "its list is only its list");
    // What shows only when the body was read is asked for in the same way.
    bench.upstream.script.lock().unwrap().targets = Some(vec![Target::Content(resource("/bulk"))]);
    assert_eq!(bench.put("/elsewhere", &[]).await, Err(Name::Locked));
}

#[tokio::test]
async fn where_a_rule_asks_for_a_precondition_a_write_has_one_or_a_lock() {
    let careful = Rule { require_precondition: true, ..rule("/careful/**") };
    let bench = Bench::with_rules(vec![careful]);
    assert_eq!(bench.put("/plain", &[]).await, DONE);
    assert_eq!(bench.put("/careful/x", &[]).await, Err(Name::PreconditionRequired));
    for field in [
        ("if-match", "\"1\""),
        ("if-none-match", "*"),
        ("if-unmodified-since", "Sat, 21 Nov 2026 00:00:00 GMT"),
        ("if", "(Not <DAV:no-lock>)"),
    ] {
        assert_eq!(bench.put("/careful/x", &[field]).await, DONE, "{field:?}");
    }
    let lock = bench.world.locked("alice", "/careful/x").await;
    assert_eq!(bench.put("/careful/x", &[("x-lock-token", &bench.token(&lock))]).await, DONE);
    // A token that serves for something else is no precondition.
    let token = bench.token(&lock);
    let elsewhere = bench.put("/careful/y", &[("x-lock-token", &token)]).await;
    assert_eq!(elsewhere, Err(Name::LockMismatch));
}

/// The `If-Match` that a write went on with.
async fn goes_on_with(bench: &Bench, fields: &[(&str, &str)]) -> Option<String> {
    assert_eq!(bench.put("/x", fields).await, DONE, "{fields:?}");
    let script = bench.upstream.script.lock().unwrap();
    let head = script.heads.last().unwrap();
    let values: Vec<&str> =
        head.headers.get_all("if-match").iter().map(|value| value.to_str().unwrap()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

#[tokio::test]
async fn an_if_header_that_is_true_by_an_entity_tag_becomes_an_if_match() {
    let bench = Bench::new();
    let lock = bench.world.granted(Acquire { depth: Depth::Zero, ..acquire("alice", "/z") }).await;
    let listed = format!("</z> (<opaquelocktoken:{}/{}>)", lock.grant.lock_id, bench.token(&lock));
    bench.upstream.script.lock().unwrap().etags =
        [(resource("/x"), "\"1\"".to_owned()), (resource("/y"), "\"2\"".to_owned())].into();
    let one = Some("\"1\"".to_owned());
    assert_eq!(goes_on_with(&bench, &[("if", "([\"1\"])")]).await, one);
    assert_eq!(goes_on_with(&bench, &[("if", "([\"0\"]) ([\"1\"])")]).await, one);
    assert_eq!(goes_on_with(&bench, &[("if", "<http://any.host/x> ([\"1\"])")]).await, one);
    assert_eq!(goes_on_with(&bench, &[("if", "</y> ([\"2\"])")]).await, None);
    assert_eq!(goes_on_with(&bench, &[("if", "(Not [\"0\"])")]).await, None);
    assert_eq!(goes_on_with(&bench, &[("if", &listed)]).await, None);
    // What was sent is made no wider.
    let both = |sent| [("if", "([\"1\"])"), ("if-match", sent)];
    assert_eq!(goes_on_with(&bench, &both("*")).await, one);
    assert_eq!(goes_on_with(&bench, &both("\"0\", \"1\"")).await, one);
    assert_eq!(goes_on_with(&bench, &both("\"0\"")).await, Some("\"0\"".to_owned()));
}

#[tokio::test]
async fn an_if_header_that_is_false_refuses_and_asks_for_no_more_than_it_needs() {
    let bench = Bench::new();
    bench.upstream.script.lock().unwrap().etags = [(resource("/x"), "\"1\"".to_owned())].into();
    let failed = Err(Name::PreconditionFailed);
    for field in [
        "([\"2\"])",
        "(Not [\"1\"])",
        "(<DAV:no-lock>)",
        "([\"1\"] <DAV:no-lock>)",
        "(<opaquelocktoken:x/y>)",
        "</y> ([\"1\"])",
    ] {
        assert_eq!(bench.put("/x", &[("if", field)]).await, failed, "{field}");
    }
    let before = bench.upstream.script.lock().unwrap().etags_asked;
    let many = "([\"2\"])".repeat(256);
    assert_eq!(bench.put("/x", &[("if", &many)]).await, failed);
    assert_eq!(bench.upstream.script.lock().unwrap().etags_asked, before + 1);
    let more = "([\"2\"])".repeat(257);
    assert_eq!(bench.put("/x", &[("if", &more)]).await, Err(Name::MalformedRequest));
    // A tag is not told to who may not read what has it.
    let narrow = narrow_call("alice", "/x", "/x");
    let oracle = bench.put_as(&narrow, "/x", &[("if", "</secret> ([\"1\"])")]).await;
    assert_eq!(oracle, Err(Name::Forbidden));
}
