//! The client library and the program: locks.
#![allow(clippy::unwrap_used, reason = "a helper of a test panics like the test")]

use std::time::{Duration, Instant};

use leasehold_client::{
    AuditQuery, Client, Error, Event, EventFilter, Held, How, Kind, LockFilter, Mode, Name,
    RetryPolicy,
};
use tokio::time::timeout;

use crate::common::{BOUND, Server, json};

const SECOND: Duration = Duration::from_secs(1);

fn client(server: &Server) -> Client {
    Client::new(&format!("http://{}", server.address())).unwrap()
}

fn client_of(server: &Server, name: &str) -> Client {
    let url = format!("http://{}", server.address());
    Client::builder(&url).key(server.key(name)).build().unwrap()
}

/// Waits until it is so, within a bound.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < BOUND, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_lock_is_acquired_as_it_was_asked_for_seen_by_others_and_released() {
    let server = Server::start();
    let client = client(&server);
    let mut metadata = serde_json::Map::new();
    metadata.insert("run".into(), json!(7));
    let lease = client
        .lock("/flags/x y")
        .ttl(60 * SECOND)
        .shared()
        .depth_zero()
        .reason("Rolling out")
        .metadata(metadata.clone())
        .acquire()
        .await
        .unwrap();
    let info = lease.info();
    assert_eq!(lease.resource(), "/flags/x%20y");
    assert_eq!((info.mode, info.ttl_seconds), (Mode::Shared, 60.0));
    assert_eq!((info.reason.as_deref(), &info.metadata), (Some("Rolling out"), &metadata));
    assert!(lease.remaining() <= 60 * SECOND && lease.remaining() > 50 * SECOND);
    assert!(!lease.is_replay());

    let seen = client.inspect("/flags/x y").await.unwrap();
    assert!(seen.locked && seen.queue.is_empty() && seen.freeze.is_none());
    assert_eq!(seen.locks[0].lock_id, lease.lock_id());
    assert_eq!(client.show(lease.lock_id()).await.unwrap().fence, lease.fence());

    let error = client.lock("/flags/x y").acquire().await.unwrap_err();
    assert!(error.is_locked() && error.is_retryable() && error.has_no_side_effects());
    let problem = error.problem().unwrap();
    assert_eq!(problem.holder(), Some("anonymous"));
    assert_eq!(problem.lock().unwrap().lock_id, Some(lease.lock_id()));
    assert!(problem.retry_after().unwrap() >= SECOND && !problem.held_by_you());

    let (id, token) = (lease.lock_id(), lease.token().clone());
    lease.release().await.unwrap();
    assert!(client.show(id).await.unwrap_err().is_not_found());
    // A retry of a release is safe.
    client.release("/flags/x y", &token).await.unwrap();
    let error = client.renew("/flags/x y", &token, None).await.unwrap_err();
    assert!(
        error.is(Name::LockGone) && error.problem().unwrap().ended().unwrap().how == "released"
    );
}

#[tokio::test]
async fn one_idempotency_key_is_one_lock() {
    let server = Server::start();
    let client = client(&server);
    let acquire = || client.lock("/a").ttl(30 * SECOND).idempotency_key("mine").acquire();
    let (first, second) = (acquire().await.unwrap(), acquire().await.unwrap());
    assert_eq!((first.lock_id(), first.token()), (second.lock_id(), second.token()));
    assert!(second.is_replay());
    let other = client.lock("/a").ttl(31 * SECOND).idempotency_key("mine").acquire().await;
    assert!(other.unwrap_err().is(Name::IdempotencyKeyReused));
}

#[tokio::test]
async fn a_held_lock_outlives_its_ttl_and_is_released_by_a_drop() {
    let server = Server::start();
    let client = client(&server);
    let held = client.lock("/a").ttl(SECOND).hold().await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    held.check().unwrap();
    assert!(held.remaining() > Duration::from_millis(300));
    assert!(client.inspect("/a").await.unwrap().locks[0].renewals >= Some(4));
    drop(held);
    until("the release", async || !client.inspect("/a").await.unwrap().locked).await;
    let trail = client.audit(AuditQuery::new().newest_first().limit(1)).all();
    assert_eq!(trail.await.unwrap()[0].kind, Kind::Released);
}

#[tokio::test]
async fn a_lease_is_not_renewed_and_can_be_taken_over_by_whoever_has_its_token() {
    let server = Server::start();
    let client = client(&server);
    let lease = client.lock("/a").ttl(2 * SECOND).acquire().await.unwrap();
    let token = lease.token().clone();
    drop(lease);
    let mut lease = client.adopt("/a", &token).await.unwrap();
    lease.renew(Some(3 * SECOND)).await.unwrap();
    assert!(lease.remaining() > 2 * SECOND);
    let held = lease.hold();
    held.check().unwrap();
    held.release().await.unwrap();
    assert!(client.adopt("/a", &token).await.unwrap_err().is(Name::LockGone));
}

#[tokio::test]
async fn a_wait_is_served_in_turn_and_its_end_is_told() {
    let server = Server::start();
    let client = client(&server);
    let held = client.lock("/a").hold().await.unwrap();
    let began = Instant::now();
    let wait = Duration::from_millis(1300);
    let error = client.lock("/a").wait(wait).acquire().await.unwrap_err();
    let took = began.elapsed();
    // The server counts whole milliseconds, from the last whole one.
    let least = wait.checked_sub(Duration::from_millis(1)).unwrap();
    assert!(error.is_locked() && took >= least && took < 3 * wait, "{took:?}");

    let mut waiting = Vec::new();
    for turn in 0..3 {
        let waiter = client.clone();
        waiting.push(tokio::spawn(async move {
            let lease = waiter.lock("/a").wait(20 * SECOND).acquire().await.unwrap();
            let fence = lease.fence();
            lease.release().await.unwrap();
            (fence, turn)
        }));
        let queued = turn + 1;
        until("the queue", async || client.inspect("/a").await.unwrap().queue.len() == queued)
            .await;
    }
    held.release().await.unwrap();
    let mut served = Vec::new();
    for each in waiting {
        served.push(each.await.unwrap());
    }
    served.sort_unstable();
    assert_eq!(served.iter().map(|(_, turn)| *turn).collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test]
async fn a_wait_longer_than_the_server_lets_wait_keeps_its_place() {
    // Two waits of a second, of which the first began earlier.
    let server = Server::with("[[rule]]\nmatch = [\"/**\"]\nmax_wait = \"1s\"\n");
    let client = client(&server);
    let held = client.lock("/a").ttl(60 * SECOND).hold().await.unwrap();
    let waits = |client: Client| {
        tokio::spawn(async move {
            let lease = client.lock("/a").wait(20 * SECOND).acquire().await.unwrap();
            let fence = lease.fence();
            lease.release().await.unwrap();
            fence
        })
    };
    let first = waits(client.clone());
    until("the queue", async || client.inspect("/a").await.unwrap().queue.len() == 1).await;
    let second = waits(client.clone());
    tokio::time::sleep(Duration::from_millis(3300)).await;
    held.release().await.unwrap();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert!(first < second, "{first} {second}");
}

#[tokio::test]
async fn a_wait_for_longer_than_the_lock_is_to_live_brings_one_that_lives() {
    let server = Server::with("[[rule]]\nmatch = [\"/**\"]\ndefault_ttl = \"1s\"\n");
    let client = client(&server);
    let held = client.lock("/a").ttl(60 * SECOND).hold().await.unwrap();
    let waiting = tokio::spawn(client.lock("/a").wait(20 * SECOND).hold());
    until("the queue", async || client.inspect("/a").await.unwrap().queue.len() == 1).await;
    tokio::time::sleep(2 * SECOND).await;
    held.release().await.unwrap();
    let next = waiting.await.unwrap().unwrap();
    assert!(next.remaining() > Duration::from_millis(300));
    next.release().await.unwrap();
}

#[tokio::test]
async fn several_are_locked_in_one_step_or_the_first_that_is_free() {
    let server = Server::start();
    let client = client(&server);
    let held = client.lock_all(["/a", "/b"]).ttl(SECOND).hold().await.unwrap();
    assert_eq!(held.info().resources, ["/a", "/b"]);
    assert!(client.lock_all(["/b", "/c"]).acquire().await.unwrap_err().is_locked());
    let other = client.lock_any_of(["/a", "/b", "/c"]).acquire().await.unwrap();
    assert_eq!(other.resource(), "/c");
    // A set is renewed and released as a whole.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    held.check().unwrap();
    held.release().await.unwrap();
    other.release().await.unwrap();
    assert!(client.locks(LockFilter::new()).all().await.unwrap().is_empty());
    let update = client.lock_all(["/a", "/b"]).update(|_: &mut u64| ()).await;
    assert!(matches!(update.unwrap_err(), Error::Invalid(_)));
}

#[tokio::test]
async fn a_circle_of_waiters_is_refused() {
    let server = Server::with_keys(&[("alice", "writer"), ("bob", "writer")]);
    let (alice, bob) = (client_of(&server, "alice"), client_of(&server, "bob"));
    let a = alice.lock("/a").hold().await.unwrap();
    let b = bob.lock("/b").hold().await.unwrap();
    let waits = alice.lock("/b").wait(20 * SECOND).holding(&a);
    let waits = tokio::spawn(waits.hold());
    until("the queue", async || alice.inspect("/b").await.unwrap().queue.len() == 1).await;
    let error = bob.lock("/a").wait(20 * SECOND).holding(&b).hold().await.unwrap_err();
    assert!(error.is(Name::Deadlock), "{error}");
    let circle = error.problem().unwrap().circle();
    assert!(circle.iter().any(|step| step.waiter.as_deref() == Some("alice")), "{circle:?}");
    b.release().await.unwrap();
    waits.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_break_is_told_to_the_holder_and_takes_its_writes() {
    let server = Server::with_keys(&[("alice", "writer"), ("carol", "manager")]);
    let (alice, carol) = (client_of(&server, "alice"), client_of(&server, "carol"));
    alice.put("/a", &1).await.unwrap();
    let held = alice.lock("/a").ttl(SECOND).hold().await.unwrap();
    let would = carol.break_lock("/a").dry_run().await.unwrap();
    assert_eq!((would.lock.lock_id, would.writes_in_flight), (held.lock_id(), 0));
    assert!(alice.break_lock("/a").reason("Mine").send().await.unwrap_err().is(Name::Forbidden));
    let broken = carol.break_lock("/a").reason("Rollback").lock_id(held.lock_id()).send().await;
    assert_eq!(broken.unwrap().lock_id, held.lock_id());
    let error = alice.put("/a", &2).under(&held).await.unwrap_err();
    assert!(error.is_lost(), "{error}");
    let lost = timeout(SECOND, held.lost()).await.unwrap();
    assert!(lost.to_string().contains("broken by carol: Rollback"), "{lost}");
    assert!(matches!(held.release().await.unwrap_err(), Error::Lost(_)));
    assert_eq!(alice.get::<u64>("/a").await.unwrap().value, 1);

    // With a grace the holder can finish.
    let held = alice.lock("/a").ttl(SECOND).hold().await.unwrap();
    let grace = carol.break_lock("/a").reason("Rollback").grace(20 * SECOND);
    grace.send().await.unwrap();
    until("the news", async || held.last_term().is_some()).await;
    alice.put("/a", &3).under(&held).await.unwrap();
    timeout(3 * SECOND, held.lost()).await.unwrap();
    until("the end", async || !alice.inspect("/a").await.unwrap().locked).await;
    let error = carol.break_lock("/a").reason("Rollback").send().await.unwrap_err();
    assert!(error.is(Name::LockChanged));
}

#[tokio::test]
async fn a_holder_is_asked_to_let_go_and_can_hand_over() {
    let server = Server::with_keys(&[("alice", "writer"), ("bob", "writer")]);
    let (alice, bob) = (client_of(&server, "alice"), client_of(&server, "bob"));
    let held = alice.lock("/a").ttl(SECOND).hold().await.unwrap();
    let asked = bob.request_let_go("/a", Some("Two minutes")).await.unwrap();
    assert_eq!(asked, [held.lock_id()]);
    let let_go = timeout(2 * SECOND, held.requested()).await.unwrap();
    assert_eq!((let_go.by.as_str(), let_go.message.as_deref()), ("bob", Some("Two minutes")));
    assert!(bob.request_let_go("/b", None).await.unwrap_err().is(Name::LockChanged));

    let handed = alice.transfer("/a", &held, "bob").await.unwrap();
    assert!(handed.fence() > held.fence());
    assert!(bob.lock("/a").acquire().await.unwrap_err().problem().unwrap().held_by_you());
    let lost = timeout(2 * SECOND, held.lost()).await.unwrap();
    assert!(matches!(lost.how(), How::Ended(ended) if ended.how == "transferred"), "{lost}");
    let mine: Held = bob.adopt("/a", handed.token()).await.unwrap().hold();
    bob.put("/a", &1).under(&mine).await.unwrap();
    let error = alice.put("/a", &2).token(handed.token()).await.unwrap_err();
    assert!(error.is_locked() || error.is(Name::NotTheHolder), "{error}");
}

#[tokio::test]
async fn a_freeze_stops_all_writes_until_it_is_lifted() {
    let server = Server::start();
    let client = client(&server);
    let until = client.put("/a/b", &1).await.map(|_| "2099-01-01T00:00:00Z".parse()).unwrap();
    let error = client.freeze("/a", "Release", until.clone().unwrap()).await.unwrap_err();
    assert!(error.is(Name::TtlOutOfRange), "{error}");
    let wall = std::time::SystemTime::now() + 3600 * SECOND;
    let frozen = client.freeze("/a", "Release", wall.try_into().unwrap()).await.unwrap();
    assert_eq!((frozen.resource.as_str(), frozen.reason.as_str()), ("/a", "Release"));
    let error = client.put("/a/b", &2).await.unwrap_err();
    assert!(error.is(Name::Frozen) && error.has_no_side_effects());
    assert_eq!(error.problem().unwrap().freeze().unwrap().reason, "Release");
    assert_eq!(client.inspect("/a/b").await.unwrap().freeze.unwrap().by, "anonymous");
    client.unfreeze("/a").await.unwrap();
    client.unfreeze("/a").await.unwrap();
    client.put("/a/b", &2).await.unwrap();
}

#[tokio::test]
async fn locks_are_listed_page_by_page_as_the_filter_says() {
    let server = Server::with_keys(&[("alice", "writer"), ("bob", "writer")]);
    let (alice, bob) = (client_of(&server, "alice"), client_of(&server, "bob"));
    for n in 0..7 {
        alice.lock(format!("/a/{n}")).acquire().await.unwrap();
    }
    bob.lock("/b").acquire().await.unwrap();
    let mut pages = alice.locks(LockFilter::new().limit(3));
    let mut sizes = Vec::new();
    while let Some(page) = pages.next_page().await.unwrap() {
        sizes.push(page.len());
    }
    assert_eq!(sizes, [3, 3, 2]);
    let count = async |filter: LockFilter| alice.locks(filter).all().await.unwrap().len();
    assert_eq!(count(LockFilter::new().resource("/a")).await, 7);
    assert_eq!(count(LockFilter::new().holder("bob").dialect("http").kind("lock")).await, 1);
    let past = "2020-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(count(LockFilter::new().expires_before(past)).await, 0);
}

#[tokio::test]
async fn a_key_is_shown_and_a_wrong_one_refused() {
    let server = Server::with_keys(&[("alice", "writer")]);
    let url = format!("http://{}", server.address());
    for client in [Client::new(&url), Client::builder(&url).key("hunter2").build()] {
        let error = client.unwrap().lock("/a").acquire().await.unwrap_err();
        assert!(error.is(Name::Unauthenticated) && !error.is_retryable());
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
    let lease = client_of(&server, "alice").lock("/a").acquire().await.unwrap();
    assert_eq!(lease.info().holder.as_deref(), Some("alice"));
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again_keeps_held_locks() {
    let mut server = Server::start();
    let impatient = |server: &Server| {
        let url = format!("http://{}", server.address());
        Client::builder(&url).retry(RetryPolicy::none()).build().unwrap()
    };
    let held = impatient(&server).lock("/a").ttl(10 * SECOND).hold().await.unwrap();
    let address = server.address();
    let mut events = client(&server).events(EventFilter::new()).after(0);
    while let Event::Audit(event) = events.next().await.unwrap() {
        if event.kind == Kind::Acquired {
            break;
        }
    }
    server.restart();
    // It listens elsewhere now, so the lock is taken over there.
    assert_ne!(server.address(), address);
    let client = impatient(&server);
    let lease = client.adopt("/a", &held).await.unwrap();
    assert_eq!(lease.lock_id(), held.lock_id());
    // The one that cannot get through says so, and ends by its own count.
    assert!(held.renew().await.is_err());
    held.check().unwrap();
    let mut events = client.events(EventFilter::new()).after(events.position().unwrap());
    let next = timeout(SECOND, events.next()).await.unwrap().unwrap();
    assert!(matches!(next, Event::Audit(event) if event.kind == Kind::Recovered));
}
