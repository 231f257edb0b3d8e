//! The pin of a write: kept until nothing of it can land any more.

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::Value;

use super::double::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A table whose writes of unknown outcome stay pinned for as long as any test takes.
async fn patient() -> World {
    World::with(|builder| builder.drain_time(HOUR)).await
}

/// A table whose writes of unknown outcome are given up at once.
async fn impatient() -> World {
    World::with(|builder| builder.drain_time(Duration::ZERO)).await
}

#[tokio::test]
async fn a_lock_is_granted_when_the_answer_of_the_write_before_it_has_ended() {
    let world = patient().await;
    let app = &world.app;
    let write = app.spawn(request("PUT", "/x", &[], text("1")));
    let reached = app.reached().await;
    assert_eq!(app.writes_in_flight("/x").await, 1);
    let (sender, answer) = body();
    reached.act(Act::Answer(response(200, answer)));
    let mut answer = write.await.unwrap().unwrap().into_body();
    sender.send("half");
    soon(answer.frame()).await.unwrap().unwrap();
    // The head, and half of the body, are not the end.
    assert_eq!(app.writes_in_flight("/x").await, 1);
    drop(sender);
    assert!(soon(answer.frame()).await.is_none());
    assert_eq!(app.lock_in_time("/x").await["predecessor_writes"], Value::Null);
}

#[tokio::test]
async fn an_answer_without_a_body_has_ended_with_its_head() {
    let world = patient().await;
    let write = world.app.spawn(request("DELETE", "/x", &[], text("")));
    let empty = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
    world.app.reached().await.act(Act::Answer(response(204, empty)));
    let answer = write.await.unwrap().unwrap();
    world.app.lock("/x").await;
    drop(answer);
}

#[tokio::test]
async fn a_write_goes_on_without_its_client() {
    let world = patient().await;
    let app = &world.app;
    let held = app.lock("/x").await;
    let fields = [("X-Lock-Token", token(&held))];
    let write = app.spawn(request("PUT", "/x", &fields, text("1")));
    let mut reached = app.reached().await;
    write.abort();
    write.await.unwrap_err();
    let is_dropped = tokio::time::timeout(Duration::from_millis(50), reached.is_dropped());
    assert!(is_dropped.await.is_err(), "nothing is cancelled");
    let released = app.send("DELETE", "/x/lock", &fields).await;
    assert_eq!(released.status, 204);
    assert_eq!(app.writes_in_flight("/x").await, 1);
    // Nor is its answer: what it does while it is made is done.
    let (sender, answer) = body();
    reached.act(Act::Answer(response(200, answer)));
    sender.send("half");
    assert_eq!(app.writes_in_flight("/x").await, 1);
    drop(sender);
    assert_eq!(app.lock_in_time("/x").await["predecessor_writes"], Value::Null);
}

#[tokio::test]
async fn the_answer_of_a_client_that_goes_within_it_is_taken_to_its_end() {
    let world = patient().await;
    let app = &world.app;
    let write = app.spawn(request("PUT", "/x", &[], text("1")));
    let (sender, answer) = body();
    app.reached().await.act(Act::Answer(response(200, answer)));
    drop(write.await.unwrap().unwrap());
    assert_eq!(app.writes_in_flight("/x").await, 1);
    sender.send("more");
    drop(sender);
    assert_eq!(app.lock_in_time("/x").await["predecessor_writes"], Value::Null);
}

#[tokio::test]
async fn an_answer_that_goes_on_without_its_client_is_given_up() {
    let world = World::with(|builder| {
        builder.answer_timeout(Duration::from_millis(20)).drain_time(Duration::ZERO)
    })
    .await;
    let app = &world.app;
    let write = app.spawn(request("PUT", "/x", &[], text("1")));
    let (sender, answer) = body();
    app.reached().await.act(Act::Answer(response(200, answer)));
    drop(write.await.unwrap().unwrap());
    sender.dropped().await;
    assert_eq!(app.lock_in_time("/x").await["predecessor_writes"], "unknown");
}

#[tokio::test]
async fn after_a_panic_a_write_stays_pinned_for_the_drain_time() {
    for is_patient in [true, false] {
        let world = if is_patient { patient().await } else { impatient().await };
        let app = &world.app;
        let held = app.lock("/x").await;
        let fields = [("X-Lock-Token", token(&held))];
        let write = app.spawn(request("PUT", "/x", &fields, text("1")));
        app.reached().await.act(Act::Panic);
        whole(write.await.unwrap().unwrap()).await.problem(503, "storage-failure");
        assert_eq!(app.send("DELETE", "/x/lock", &fields).await.status, 204);
        if is_patient {
            assert_eq!(app.writes_in_flight("/x").await, 1);
        } else {
            assert_eq!(app.lock_in_time("/x").await["predecessor_writes"], "unknown");
        }
    }
}

#[tokio::test]
async fn the_services_own_error_is_handed_on_and_its_write_stays_pinned() {
    for is_patient in [true, false] {
        let world = if is_patient { patient().await } else { impatient().await };
        let app = &world.app;
        let write = app.spawn(request("PUT", "/x", &[], text("1")));
        app.reached().await.act(Act::Fail);
        assert!(write.await.unwrap().is_err());
        if is_patient {
            assert_eq!(app.writes_in_flight("/x").await, 1);
        } else {
            assert_eq!(app.lock_in_time("/x").await["predecessor_writes"], "unknown");
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_leaves_the_outcome_unknown() {
    let world = impatient().await;
    let app = &world.app;
    let write = app.spawn(request("PUT", "/x", &[], text("1")));
    let (sender, answer) = body();
    app.reached().await.act(Act::Answer(response(200, answer)));
    sender.send("half");
    sender.fail();
    let answer = write.await.unwrap().unwrap().into_body();
    soon(answer.collect()).await.unwrap_err();
    assert_eq!(app.lock_in_time("/x").await["predecessor_writes"], "unknown");
}

#[tokio::test]
async fn who_waits_for_a_lock_takes_no_place_that_its_holder_needs() {
    let world = patient().await;
    let app = Guarded::by_one_at_a_time(&world.locks.layer());
    let held = app.lock("/x").await;
    let waiting = app.spawn(request("POST", "/x/lock?wait=30", &[], text("")));
    until(|| world.locks.stats().waiters == 1).await;
    let fields = [("X-Lock-Token", token(&held))];
    let write = app.spawn(request("PUT", "/x", &fields, text("1")));
    app.reached().await.answer(200);
    whole(write.await.unwrap().unwrap()).await;
    assert_eq!(app.send("DELETE", "/x/lock", &fields).await.status, 204);
    assert_eq!(whole(waiting.await.unwrap().unwrap()).await.status, 201);
}

#[tokio::test]
async fn writes_to_what_is_beside_a_lock_keep_it_from_nobody() {
    let world = patient().await;
    let app = &world.app;
    let write = app.spawn(request("PATCH", "/x/one", &[], text("1")));
    let reached = app.reached().await;
    app.lock("/x/other").await;
    reached.answer(200);
    write.await.unwrap().unwrap();
}
