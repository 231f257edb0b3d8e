//! A lock that is held, against a server that does not keep its side.

mod common;

use std::time::{Duration, Instant};

use common::{Scripted, Step, granted, no_content, ok, problem, problem_with, renewed, until};
use leasehold_client::{Error, How, Name};
use serde_json::json;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_held_lock_is_renewed_at_a_third_of_its_ttl_and_released_when_dropped() {
    let server = Scripted::then([Step::Answer(granted(1200))], Step::Answer(renewed(1200)));
    let held = server.client().lock("/a").hold().await.unwrap();
    let began = Instant::now();
    server.until_asked(4).await;
    let took = began.elapsed();
    // Three renewals, each after 0.8 to 1 of a third of 1.2 s.
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&took), "{took:?}");
    held.check().unwrap();
    assert!(held.trouble().is_none());
    let asked = server.asked();
    assert_eq!(asked[1].line, "PATCH /a/lock");
    assert_eq!(asked[1].field("x-lock-token"), Some("lock_s3cret"));
    server.also([Step::Answer(no_content())]);
    let lost = held.lost();
    drop(held);
    assert!(lost.await.is_released());
    until("the release", || server.lines().contains(&"DELETE /a/lock".to_owned())).await;
}

#[tokio::test]
async fn the_deadline_counts_from_the_moment_of_sending() {
    let server = Scripted::then([Step::Late(300, granted(1000))], Step::Hang);
    let sent = Instant::now();
    let held = server.client().lock("/a").hold().await.unwrap();
    assert!(held.remaining() <= Duration::from_millis(700), "{:?}", held.remaining());
    let lost = timeout(SOON, held.lost()).await.unwrap();
    let lasted = sent.elapsed();
    assert!(matches!(lost.how(), How::Expired));
    assert!((Duration::from_millis(990)..Duration::from_secs(2)).contains(&lasted));
    assert!(held.check().is_err());
    assert_eq!(held.remaining(), Duration::ZERO);
}

#[tokio::test]
async fn a_grant_that_took_longer_than_it_lives_is_no_grant() {
    let client =
        |server: &Scripted| server.builder().timeout(Duration::from_secs(3)).build().unwrap();
    let gone = problem(410, "lock-gone", json!({ "ended": "expired" }));
    let late = Step::Late(1100, granted(1000));
    let server = Scripted::new([late.clone(), Step::Answer(gone), Step::Answer(no_content())]);
    let error = client(&server).lock("/a").hold().await.unwrap_err();
    assert!(matches!(&error, Error::Lost(lost) if matches!(lost.how(), How::Expired)), "{error}");
    assert_eq!(server.lines(), ["POST /a/lock", "PATCH /a/lock", "DELETE /a/lock"]);
    // Unless the server says that it lives, as after a wait.
    let server = Scripted::then([late], Step::Answer(renewed(1000)));
    let held = client(&server).lock("/a").hold().await.unwrap();
    assert!(held.remaining() > Duration::from_millis(500));
}

#[tokio::test]
async fn a_server_that_says_that_the_lock_has_ended_is_believed_at_once() {
    for (status, name, more) in [
        (410, "lock-gone", json!({ "ended": "broken", "by": "carol", "reason": "Rollback" })),
        (403, "invalid-lock-token", json!({})),
        (403, "not-the-holder", json!({})),
    ] {
        let steps = [Step::Answer(granted(3000)), Step::Answer(problem(status, name, more))];
        let server = Scripted::new(steps);
        let held = server.client().lock("/a").hold().await.unwrap();
        let began = Instant::now();
        let lost = timeout(SOON, held.lost()).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(2500), "{name}");
        match (name, lost.how()) {
            ("lock-gone", How::Ended(ended)) => {
                assert_eq!((ended.how.as_str(), ended.by.as_deref()), ("broken", Some("carol")));
                assert!(lost.to_string().contains("broken by carol: Rollback"), "{lost}");
            }
            ("lock-gone", how) => panic!("{how:?}"),
            (_, How::Refused(problem)) => assert_eq!(problem.name_text(), name),
            (_, how) => panic!("{how:?}"),
        }
        assert!(held.check().is_err());
        // Nothing is written under it any more, and there is nothing to release.
        let error = server.client().put("/a", &1).under(&held).await.unwrap_err();
        assert!(matches!(error, Error::Lost(_)) && error.has_no_side_effects());
        assert!(matches!(held.release().await.unwrap_err(), Error::Lost(_)));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.lines(), ["POST /a/lock", "PATCH /a/lock"]);
    }
}

#[tokio::test]
async fn renewals_that_fail_are_tried_again_and_the_lock_is_kept() {
    let refused = |status, name| Step::Answer(problem(status, name, json!({})));
    let mut other = common::lock(1500, 1500);
    other["lock_id"] = "00000000-0000-4000-8000-000000000000".into();
    let server = Scripted::then(
        [
            Step::Answer(granted(1500)),
            Step::Close,
            Step::Half(renewed(1500)),
            Step::Garbage(b"hello".to_vec()),
            refused(503, "storage-failure"),
            refused(401, "unauthenticated"),
            refused(418, "from-the-future"),
            Step::Answer(ok(200, &other)),
            Step::Answer(ok(200, &json!({ "expires_in_ms": 1e300 }))),
        ],
        Step::Answer(renewed(1500)),
    );
    let held = server.client().lock("/a").hold().await.unwrap();
    until("trouble", || held.trouble().is_some()).await;
    server.until_asked(12).await;
    held.check().unwrap();
    until("no trouble", || held.trouble().is_none()).await;
    assert!(held.remaining() > Duration::from_millis(500));
}

#[tokio::test]
async fn without_answers_the_lock_is_lost_at_its_deadline_and_stays_lost() {
    // The answer to the renewal comes when it is too late.
    for bad in [Step::Hang, Step::Close, Step::Late(2500, renewed(60_000))] {
        let steps = [Step::Answer(granted(2000))];
        let server = Scripted::then(steps, bad.clone());
        let client = server.builder().timeout(Duration::from_secs(10)).build().unwrap();
        let held = client.lock("/a").hold().await.unwrap();
        let warned = held.lives_no_longer_than(Duration::from_secs(1));
        let began = Instant::now();
        timeout(SOON, warned).await.unwrap();
        assert!(held.check().is_ok() && held.remaining() <= Duration::from_secs(1), "{bad:?}");
        assert!(began.elapsed() >= Duration::from_millis(900), "{bad:?}");
        let lost = timeout(SOON, held.lost()).await.unwrap();
        assert!(matches!(lost.how(), How::Expired), "{bad:?}: {lost:?}");
        assert!(began.elapsed() < Duration::from_secs(4), "{bad:?}: {:?}", began.elapsed());
        // The server may still think that it lives: it is told.
        until("the release", || server.lines().last().unwrap() == "DELETE /a/lock").await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(held.check().is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn no_answer_makes_a_lock_live_longer_than_its_ttl() {
    let mut boast = common::lock(1000, u64::MAX);
    boast["lock_token"] = "lock_s3cret".into();
    let server = Scripted::then([Step::Answer(ok(201, &boast))], Step::Hang);
    let held = server.client().lock("/a").hold().await.unwrap();
    assert!(held.remaining() <= Duration::from_secs(1));
}

#[tokio::test]
async fn a_lock_that_is_being_broken_is_held_to_its_end_and_no_longer() {
    let closing = problem(
        409,
        "lock-changed",
        json!({ "ends_in_ms": 1000, "by": "carol", "reason": "Rollback" }),
    );
    let server = Scripted::new([Step::Answer(granted(1500)), Step::Answer(closing)]);
    let held = server.client().lock("/a").hold().await.unwrap();
    until("the news", || held.last_term().is_some()).await;
    let began = Instant::now();
    assert!(held.last_term().unwrap().is(Name::LockChanged));
    held.check().unwrap();
    timeout(SOON, held.lost()).await.unwrap();
    assert!(began.elapsed() <= Duration::from_millis(1300));
    assert_eq!(server.lines()[..2], ["POST /a/lock", "PATCH /a/lock"]);
}

#[tokio::test]
async fn a_lock_that_was_held_as_long_as_may_be_is_not_renewed_any_more() {
    let most = problem(422, "ttl-out-of-range", json!({ "max_hold_seconds": 1 }));
    let server = Scripted::new([Step::Answer(granted(1000)), Step::Answer(most)]);
    let held = server.client().lock("/a").hold().await.unwrap();
    timeout(SOON, held.lost()).await.unwrap();
    let renewals = server.lines().iter().filter(|line| line.starts_with("PATCH")).count();
    assert_eq!(renewals, 1);
}

#[tokio::test]
async fn a_write_learns_that_its_lock_is_lost_and_that_somebody_asks_for_it() {
    let steps = [Step::Answer(granted(60_000))];
    let server = Scripted::new(steps);
    let client = server.client();
    let held = client.lock("/a").hold().await.unwrap();
    assert!(held.requested_by().is_none());
    let asked = held.requested();
    let answer = common::answer(201, &[("ETag", "\"1\""), ("X-Lock-Requested-By", "bob")], "");
    server.also([Step::Answer(answer)]);
    let written = client.put("/a", &1).under(&held).await.unwrap();
    assert_eq!(written.requested_by.as_deref(), Some("bob"));
    assert_eq!(timeout(SOON, asked).await.unwrap().by, "bob");

    // A refusal about another lock says nothing of this one.
    let other = json!({ "lock_id": "00000000-0000-4000-8000-000000000000", "ended": "expired" });
    server.also([Step::Answer(problem(412, "lock-lost", other))]);
    client.put("/a", &1).under(&held).await.unwrap_err();
    held.check().unwrap();
    let this = json!({ "lock_id": common::LOCK_ID, "ended": "broken", "by": "carol" });
    server.also([Step::Answer(problem(412, "lock-lost", this))]);
    let error = client.put("/a", &1).under(&held).await.unwrap_err();
    assert!(error.is_lost());
    let lost = timeout(SOON, held.lost()).await.unwrap();
    assert!(matches!(lost.how(), How::Ended(ended) if ended.how == "broken"));
}

#[tokio::test]
async fn a_release_is_repeated_and_one_that_was_given_up_is_still_made() {
    let steps = [Step::Answer(granted(60_000)), Step::Close, Step::Answer(no_content())];
    let server = Scripted::new(steps);
    server.client().lock("/a").hold().await.unwrap().release().await.unwrap();
    assert_eq!(server.lines(), ["POST /a/lock", "DELETE /a/lock", "DELETE /a/lock"]);

    let steps = [Step::Answer(granted(60_000)), Step::Hang, Step::Answer(no_content())];
    let server = Scripted::new(steps);
    let held = server.client().lock("/a").hold().await.unwrap();
    assert!(timeout(Duration::from_millis(100), held.release()).await.is_err());
    server.until_asked(3).await;
    assert_eq!(server.lines()[2], "DELETE /a/lock");
}

#[tokio::test]
async fn a_release_of_what_was_lost_says_so() {
    let gone = problem(410, "lock-gone", json!({ "ended": "expired" }));
    let server = Scripted::new([Step::Answer(granted(60_000)), Step::Answer(gone)]);
    let held = server.client().lock("/a").hold().await.unwrap();
    assert!(matches!(held.release().await.unwrap_err(), Error::Lost(_)));
}

#[tokio::test]
async fn retry_after_does_not_cost_the_lock() {
    let busy = problem_with(503, "unavailable", json!({}), &[("Retry-After", "60")]);
    let steps = [Step::Answer(granted(1200)), Step::Answer(busy.clone()), Step::Answer(busy)];
    let server = Scripted::then(steps, Step::Answer(renewed(1200)));
    let held = server.client().lock("/a").hold().await.unwrap();
    server.until_asked(5).await;
    held.check().unwrap();
}
