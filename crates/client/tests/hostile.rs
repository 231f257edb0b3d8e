//! Requests to a server that answers late, twice, half, with garbage, or not at all.

mod common;

use std::time::{Duration, Instant};

use common::{
    LOCK_ID, Scripted, Step, answer, document, granted, locked, no_content, ok, problem,
    problem_with, written,
};
use leasehold_client::{Client, Error, EventFilter, LockFilter, Name};
use serde_json::json;

fn keys(server: &Scripted) -> Vec<String> {
    let key = |asked: common::Asked| asked.field("idempotency-key").unwrap_or_default().to_owned();
    server.asked().into_iter().map(key).collect()
}

#[tokio::test]
async fn an_acquire_whose_answer_is_lost_is_repeated_with_the_same_key_and_body() {
    for bad in [
        Step::Close,
        Step::Half(granted(60_000)),
        Step::Garbage(b"\x16\x03\x01garbage\r\n\r\n".to_vec()),
        Step::Hang,
        Step::Late(600, granted(60_000)),
        Step::Answer(ok(201, &json!({ "lock_id": "no" }))),
        Step::Answer(answer(200, &[("Content-Type", "text/html")], "<h1>Welcome</h1>")),
        Step::Answer(answer(502, &[("Content-Type", "text/html")], "<h1>Bad gateway</h1>")),
        Step::Answer(problem(503, "storage-failure", json!({}))),
        Step::Answer(problem(409, "idempotency-in-progress", json!({}))),
    ] {
        let server = Scripted::new([bad.clone(), Step::Answer(granted(60_000))]);
        let lease = server.client().lock("/a").ttl(Duration::from_secs(60)).acquire().await;
        let lease = lease.unwrap_or_else(|error| panic!("{bad:?}: {error}"));
        assert_eq!(lease.fence(), 42);
        let asked = server.asked();
        assert_eq!(server.lines(), ["POST /a/lock"; 2], "{bad:?}");
        assert_eq!(keys(&server)[0], keys(&server)[1], "{bad:?}");
        assert_eq!(asked[0].body, asked[1].body, "{bad:?}");
        assert_eq!(asked[1].json(), json!({ "ttl_seconds": 60 }));
    }
}

#[tokio::test]
async fn two_acquires_have_two_keys_unless_one_is_given() {
    let server = Scripted::then([], Step::Answer(granted(60_000)));
    let client = server.client();
    for _ in 0..2 {
        client.lock("/a").acquire().await.unwrap();
    }
    client.lock("/a").idempotency_key("mine").acquire().await.unwrap();
    let keys = keys(&server);
    assert_ne!(keys[0], keys[1]);
    assert_eq!(keys[2], "mine");
}

#[tokio::test]
async fn an_answer_that_comes_twice_or_too_late_is_not_taken_for_that_to_the_next_request() {
    for bad in
        [Step::Twice(document("\"1\"", &json!(1))), Step::Late(500, document("\"1\"", &json!(1)))]
    {
        let server = Scripted::then([bad], Step::Answer(document("\"2\"", &json!(2))));
        let client = server.client();
        let first = client.get::<u64>("/a").await.unwrap();
        for _ in 0..20 {
            assert_eq!(client.get::<u64>("/a").await.unwrap().value, 2);
        }
        assert!([1, 2].contains(&first.value));
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_no_more_than_the_time_that_was_given() {
    let server = Scripted::then([], Step::Hang);
    let client = server.builder().retry(leasehold_client::RetryPolicy::none()).build().unwrap();
    let began = Instant::now();
    let error = client.get::<u64>("/a").await.unwrap_err();
    assert!(error.is_timeout() && error.is_retryable() && !error.has_no_side_effects());
    assert!(began.elapsed() < Duration::from_secs(2));
    // An answer that drips in is no answer in time either.
    let drip = answer(200, &[("Content-Type", "application/json")], &" ".repeat(100));
    let server = Scripted::then([], Step::Garbage(drip.as_bytes()[..80].to_vec()));
    assert!(server.client().get::<u64>("/a").await.is_err());
}

#[tokio::test]
async fn nobody_there_is_told_as_such() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::builder(&format!("http://{free}")).retry(common::quick()).build().unwrap();
    let error = client.put("/a", &1).await.unwrap_err();
    assert!(error.is_connect() && error.is_retryable() && error.has_no_side_effects());
    assert!(error.to_string().contains(&free.to_string()), "{error}");
}

#[tokio::test]
async fn redirections_are_not_followed_and_what_is_too_long_is_not_read() {
    let elsewhere = Scripted::then([], Step::Answer(document("\"1\"", &json!(1))));
    let location = format!("{}/a", elsewhere.url());
    let redirect = answer(307, &[("Location", &location)], "");
    let server = Scripted::then([], Step::Answer(redirect));
    let error = server.client().get::<u64>("/a").await.unwrap_err();
    assert!(matches!(&error, Error::Protocol(what) if what.contains("redirect")), "{error}");
    assert!(elsewhere.asked().is_empty());

    let server = Scripted::then([], Step::Answer(document("\"1\"", &json!("x".repeat(5000)))));
    let client = server.builder().max_body(4096).build().unwrap();
    let error = client.get::<String>("/a").await.unwrap_err();
    assert!(matches!(&error, Error::Protocol(what) if what.contains("4096")), "{error}");
}

#[tokio::test]
async fn retry_after_is_waited_out_and_the_whole_is_bounded() {
    let busy = problem_with(503, "unavailable", json!({}), &[("Retry-After", "1")]);
    let server = Scripted::new([Step::Answer(busy.clone()), Step::Answer(granted(60_000))]);
    let began = Instant::now();
    server.client().lock("/a").acquire().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));

    let busy = busy.replace("Retry-After: 1", "Retry-After: 3600");
    let server = Scripted::then([], Step::Answer(busy));
    let began = Instant::now();
    let error = server.client().lock("/a").acquire().await.unwrap_err();
    assert!(error.is(Name::Unavailable) && error.retry_after() == Some(Duration::from_secs(3600)));
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_refusal_that_does_not_pass_is_told_at_once() {
    for (status, name) in [
        (400, "malformed-request"),
        (401, "unauthenticated"),
        (403, "forbidden"),
        (404, "not-lockable"),
        (409, "deadlock"),
        (422, "ttl-out-of-range"),
        (423, "locked"),
        (423, "frozen"),
        (418, "from-the-future"),
    ] {
        let server = Scripted::then([], Step::Answer(problem(status, name, json!({}))));
        let error = server.client().lock("/a").acquire().await.unwrap_err();
        assert_eq!(error.problem().unwrap().name_text(), name);
        assert!(error.has_no_side_effects());
        assert_eq!(server.asked().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_long_wait_is_made_of_requests_that_keep_the_place() {
    // The server's longest wait is 100 ms here; it answers when that is over.
    let server = Scripted::then([], Step::Late(100, locked()));
    let began = Instant::now();
    let wait = Duration::from_millis(900);
    let error = server.client().lock("/a").wait(wait).acquire().await.unwrap_err();
    assert!(error.is_locked() && error.problem().unwrap().holder() == Some("bob"));
    assert!(began.elapsed() >= wait && began.elapsed() < wait * 2, "{:?}", began.elapsed());
    let asked = server.asked();
    assert!(asked.len() >= 2);
    let keys = keys(&server);
    assert!(keys.iter().all(|key| *key == keys[0]));
    // Where the server lets nobody wait, it is not asked without a pause.
    let server = Scripted::then([], Step::Answer(locked()));
    server.client().lock("/a").wait(Duration::from_millis(700)).acquire().await.unwrap_err();
    assert!(server.asked().len() < 10, "{}", server.asked().len());
}

#[tokio::test]
async fn a_wait_goes_on_over_lost_connections_and_a_server_that_starts_again() {
    let busy = Step::Answer(problem(503, "unavailable", json!({})));
    let bad = [Step::Close, Step::Half(locked()), Step::Late(50, locked()), busy];
    let bad = bad.iter().cycle().take(16).cloned();
    let server = Scripted::new(bad.chain([Step::Answer(granted(60_000))]));
    let lease = server.client().lock("/a").wait(Duration::from_secs(20)).acquire().await.unwrap();
    assert_eq!(lease.fence(), 42);
    let keys = keys(&server);
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test]
async fn a_grant_that_never_arrived_and_has_ended_is_asked_for_anew() {
    let gone = problem(410, "lock-gone", json!({ "ended": "released" }));
    let steps = [Step::Close, Step::Answer(gone.clone()), Step::Answer(granted(60_000))];
    let server = Scripted::new(steps.clone());
    server.client().lock("/a").acquire().await.unwrap();
    let keys = keys(&server);
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[1], keys[2]);
    // Whoever chose the key is told.
    let server = Scripted::new(steps);
    let lock = server.client().lock("/a").idempotency_key("mine");
    assert!(lock.acquire().await.unwrap_err().is(Name::LockGone));
    // And a first answer of this kind is what it is.
    let server = Scripted::new([Step::Answer(gone)]);
    assert!(server.client().lock("/a").acquire().await.unwrap_err().is(Name::LockGone));
}

#[tokio::test]
async fn a_write_without_a_condition_is_not_done_twice() {
    for lost in [
        Step::Close,
        Step::Half(document("\"1\"", &json!(1))),
        Step::Hang,
        Step::Answer(problem(503, "storage-failure", json!({}))),
        Step::Answer(answer(502, &[], "")),
    ] {
        let server = Scripted::then([lost.clone()], Step::Answer(written("\"2\"")));
        let client = server.client();
        let error = client.put("/a", &1).await.unwrap_err();
        assert!(!error.has_no_side_effects(), "{lost:?}: {error}");
        assert_eq!(server.lines(), ["PUT /a"], "{lost:?}");
    }
    // Certainly nothing was done.
    let busy = Step::Answer(problem(503, "unavailable", json!({})));
    let server = Scripted::new([busy, Step::Answer(written("\"2\""))]);
    let done = server.client().put("/a", &1).await.unwrap();
    assert_eq!(done.etag.as_deref(), Some("\"2\""));
}

#[tokio::test]
async fn a_large_body_waits_for_a_word_of_the_server_and_not_for_ever() {
    let server = Scripted::then([], Step::Answer(written("\"1\"")));
    let client = server.builder().timeout(Duration::from_secs(5)).build().unwrap();
    let began = Instant::now();
    client.put("/a", &"x".repeat(100_000)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(900));
    let asked = server.asked();
    assert_eq!(asked[0].field("expect"), Some("100-continue"));
    assert_eq!(asked[0].body.len(), 100_002);
    client.put("/a", &"x".repeat(1000)).await.unwrap();
    assert_eq!(server.asked()[1].field("expect"), None);
}

#[tokio::test]
async fn a_conditional_write_is_repeated_and_an_outcome_that_stays_open_is_told_as_such() {
    let server = Scripted::new([Step::Close, Step::Answer(written("\"2\""))]);
    let done = server.client().put_if_match("/a", &1, "\"1\"").await.unwrap();
    assert_eq!(done.etag.as_deref(), Some("\"2\""));
    let asked = server.asked();
    assert_eq!(asked[0].field("if-match"), Some("\"1\""));
    assert_eq!(asked[1].field("if-match"), Some("\"1\""));

    // Was it the first attempt that changed it, or somebody else?
    let changed = Step::Answer(problem(412, "precondition-failed", json!({ "etag": "\"2\"" })));
    let server = Scripted::new([Step::Close, changed.clone()]);
    let error = server.client().put_if_match("/a", &1, "\"1\"").await.unwrap_err();
    assert!(matches!(error, Error::Transport { sent: true, .. }), "{error}");
    assert!(!error.has_no_side_effects());

    let server = Scripted::new([changed]);
    let error = server.client().put_if_match("/a", &1, "\"1\"").await.unwrap_err();
    assert_eq!(error.problem().unwrap().etag(), Some("\"2\""));
    assert!(error.has_no_side_effects());
}

#[tokio::test]
async fn a_break_that_names_no_lock_never_breaks_the_next() {
    let broken = ok(
        200,
        &json!({ "lock_id": LOCK_ID, "resource": "/a", "ends_at": "2026-11-20T12:00:00Z" }),
    );
    let server = Scripted::then([Step::Close], Step::Answer(broken.clone()));
    let error = server.client().break_lock("/a").reason("Why").send().await.unwrap_err();
    assert!(!error.has_no_side_effects());
    assert_eq!(server.asked().len(), 1);
    let server = Scripted::then([Step::Close], Step::Answer(broken));
    let named = server.client().break_lock("/a").reason("Why").lock_id(LOCK_ID.parse().unwrap());
    named.send().await.unwrap();
    assert_eq!(server.asked().len(), 2);
    // The first attempt may have been the one that changed it.
    let changed = problem(409, "lock-changed", json!({}));
    let server = Scripted::then([Step::Close], Step::Answer(changed));
    let named = server.client().break_lock("/a").reason("Why").lock_id(LOCK_ID.parse().unwrap());
    assert!(!named.send().await.unwrap_err().has_no_side_effects());
}

#[tokio::test]
async fn an_update_begins_anew_when_somebody_came_between() {
    let changed = || Step::Answer(problem(412, "precondition-failed", json!({})));
    let server = Scripted::new([
        Step::Answer(document("\"1\"", &json!(1))),
        changed(),
        Step::Answer(document("\"2\"", &json!(5))),
        changed(),
        Step::Answer(document("\"3\"", &json!(7))),
        Step::Answer(written("\"4\"")),
    ]);
    let mut calls = 0;
    let document = server
        .client()
        .update("/a", |count: &mut u64| {
            calls += 1;
            *count += 1;
        })
        .await
        .unwrap();
    assert_eq!((document.value, document.etag.as_str(), calls), (8, "\"4\"", 3));
    let bodies: Vec<_> = server.asked().into_iter().map(|asked| asked.body).collect();
    assert_eq!(bodies, ["", "2", "", "6", "", "8"]);
}

#[tokio::test]
async fn an_update_is_never_made_twice_and_can_be_called_off() {
    let changed = Step::Answer(problem(412, "precondition-failed", json!({})));
    let server = Scripted::new([Step::Answer(document("\"1\"", &json!(1))), Step::Close, changed]);
    let error = server.client().update("/a", |count: &mut u64| *count += 1).await.unwrap_err();
    assert!(matches!(error, Error::Transport { sent: true, .. }), "{error}");
    assert_eq!(server.lines(), ["GET /a", "PUT /a", "PUT /a"]);

    let server = Scripted::new([Step::Answer(document("\"1\"", &json!(1)))]);
    let document = server.client().update("/a", |_: &mut u64| false).await.unwrap();
    assert_eq!((document.value, server.asked().len()), (1, 1));
}

#[tokio::test]
async fn an_update_under_a_lock_finds_out_whether_a_lost_answer_was_a_success() {
    // The write landed, its answer and those of its repetitions are lost; nobody else can have
    // written, which a renewal proves.
    let client =
        |server: &Scripted| server.builder().retry(common::quick().attempts(2)).build().unwrap();
    let begin = [Step::Answer(granted(60_000)), Step::Answer(document("\"1\"", &json!(1)))];
    let lost = [Step::Close, Step::Answer(problem(412, "precondition-failed", json!({})))];
    let steps = begin.clone().into_iter().chain(lost.clone()).chain([
        Step::Answer(document("\"2\"", &json!(2))),
        Step::Answer(common::renewed(60_000)),
        Step::Answer(no_content()),
    ]);
    let server = Scripted::new(steps);
    let document_now = client(&server).lock("/a").update(|count: &mut u64| *count += 1).await;
    assert_eq!(document_now.unwrap().etag, "\"2\"");
    // Without the proof, the outcome stays open.
    let gone = problem(410, "lock-gone", json!({ "ended": "broken", "by": "carol" }));
    let steps = begin
        .into_iter()
        .chain(lost)
        .chain([Step::Answer(document("\"2\"", &json!(2))), Step::Answer(gone)]);
    let server = Scripted::new(steps);
    let error = client(&server).lock("/a").update(|count: &mut u64| *count += 1).await;
    assert!(!error.unwrap_err().has_no_side_effects());
}

#[tokio::test]
async fn a_list_that_does_not_go_on_is_an_error_and_not_a_loop() {
    let page = json!({ "items": [], "next": "same" });
    let server = Scripted::then([], Step::Answer(ok(200, &page)));
    let error = server.client().locks(LockFilter::new()).all().await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
    assert_eq!(server.asked().len(), 2);
    assert_eq!(server.lines(), ["GET /-/locks", "GET /-/locks?cursor=same"]);
}

#[tokio::test]
async fn events_go_on_where_they_stopped_and_none_comes_twice() {
    let event = |seq: u64| {
        let data = json!({
            "seq": seq, "at": "2026-11-20T12:00:00Z", "type": "acquired", "dialect": "http"
        });
        format!("id: {seq}\nevent: acquired\ndata: {data}\n\n")
    };
    let stream = |text: &str| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        Step::Garbage(format!("{head}{text}").into_bytes())
    };
    let half = event(3);
    let server = Scripted::new([
        Step::Answer(ok(
            200,
            &json!({ "items": [{ "seq": 0, "at": "2026-11-20T12:00:00Z", "type": "recovered" }], "next": null }),
        )),
        stream(&format!("retry: 1000\n\n{}: hm\n\n{}{}", event(1), event(2), &half[..20])),
        Step::Close,
        Step::Answer(problem(503, "unavailable", json!({}))),
        stream(&format!("{}{}{}", event(2), event(2), event(3))),
        stream("event: reset\ndata: {\"oldest\":9}\nid: 8\n\n"),
        stream(&event(9)),
        Step::Answer(problem(403, "forbidden", json!({ "permission": "audit" }))),
    ]);
    let mut events = server.client().events(EventFilter::new().resource("/a"));
    let mut seen = Vec::new();
    let error = loop {
        match events.next().await {
            Ok(leasehold_client::Event::Audit(event)) => seen.push(event.seq),
            Ok(leasehold_client::Event::Reset { oldest }) => seen.push(1000 + oldest),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.is(Name::Forbidden), "{error}");
    assert_eq!(seen, [1, 2, 3, 1009, 9]);
    assert_eq!(events.position(), Some(9));
    let asked = server.asked();
    let ids: Vec<_> = asked[1..].iter().filter_map(|asked| asked.field("last-event-id")).collect();
    assert_eq!(ids, ["0", "2", "2", "2", "3", "8", "9"]);
}

#[tokio::test]
async fn no_secret_is_in_what_is_shown() {
    let mut with_token = common::lock(60_000, 60_000);
    with_token["lock_token"] = "lock_s3cret\u{7}".into();
    let server = Scripted::then([], Step::Answer(ok(201, &with_token)));
    let error = server.client().lock("/a").acquire().await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("hunter2"), "{shown}");

    let server = Scripted::then([], Step::Answer(granted(60_000)));
    let lease = server.client().lock("/a").acquire().await.unwrap();
    assert!(!format!("{lease:?}").contains("s3cret"));
    let held = lease.hold();
    assert!(!format!("{held:?} {:?}", held.info()).contains("s3cret"));
}
