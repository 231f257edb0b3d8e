//! How it ends, and begins again.

use std::time::Duration;

use serde_json::{Value, json};

use super::double::*;

#[tokio::test]
async fn a_stop_tells_waiters_refuses_writes_and_waits_for_those_on_their_way() {
    let world = World::new().await;
    let app = &world.app;
    let held = app.lock("/x").await;
    let fields = [("X-Lock-Token", token(&held))];
    let write = app.spawn(request("PUT", "/x", &fields, text("1")));
    let reached = app.reached().await;
    let waiting = app.spawn(request("POST", "/x/lock?wait=30", &[], text("")));
    until(|| world.locks.stats().waiters == 1).await;
    let stats = world.locks.stats();
    assert_eq!((stats.locks, stats.writes_in_flight, stats.serving), (1, 1, true));
    world.locks.stopping().begin();
    assert!(!world.locks.stats().serving);
    whole(waiting.await.unwrap().unwrap()).await.problem(503, "unavailable");
    app.send("PUT", "/y", &[]).await.problem(503, "unavailable");
    app.post("/y/lock", json!({})).await.problem(503, "unavailable");
    let read = app.spawn(request("GET", "/x", &[], text("")));
    app.reached().await.answer(200);
    read.await.unwrap().unwrap();

    let World { root, locks, app } = world;
    let closing = tokio::spawn(locks.close(BOUND));
    reached.answer(200);
    assert_eq!(whole(write.await.unwrap().unwrap()).await.status, 200);
    soon(closing).await.unwrap().unwrap();
    app.send("PUT", "/y", &[]).await.problem(503, "unavailable");

    // It begins where it ended: the lock lives, and nothing is unknown.
    let world = World::over(root, |builder| builder).await;
    world.app.send("PUT", "/x", &[]).await.problem(423, "locked");
    assert_eq!(world.app.send("DELETE", "/x/lock", &fields).await.status, 204);
    assert_eq!(world.app.lock("/x").await["predecessor_writes"], Value::Null);
}

#[tokio::test]
async fn a_stop_that_a_write_outlives_says_so_and_so_does_the_next_start() {
    let world = World::new().await;
    let write = world.app.spawn(request("PUT", "/x", &[], text("1")));
    let reached = world.app.reached().await;
    let World { root, locks, app: _app } = world;
    let unfinished = locks.close(Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(unfinished.to_string(), "writes were still on their way after 10ms");
    drop((write, reached));

    let world = World::over(root, |builder| builder).await;
    assert_eq!(world.app.lock("/x").await["predecessor_writes"], "unknown");
}
