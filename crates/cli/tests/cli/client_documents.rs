//! The client library and the program: documents, updates, batches, events.
#![allow(clippy::unwrap_used, reason = "a helper of a test panics like the test")]

use std::time::Duration;

use leasehold_client::{
    AuditQuery, Client, Error, Event, EventFilter, Kind, Name, RetryPolicy, segment,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;

use crate::common::{Server, json};

const SECOND: Duration = Duration::from_secs(1);

fn client(server: &Server) -> Client {
    Client::new(&format!("http://{}", server.address())).unwrap()
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Flag {
    enabled: bool,
}

#[tokio::test]
async fn documents_are_written_read_changed_and_deleted() {
    let server = Server::start();
    let client = client(&server);
    assert!(client.get::<Flag>("/flags/x").await.unwrap_err().is_not_found());
    assert!(client.find::<Flag>("/flags/x").await.unwrap().is_none());
    let written = client.put("/flags/x", &Flag { enabled: false }).await.unwrap();
    assert!(written.is_created() && written.location.as_deref() == Some("/flags/x"));
    let read = client.get::<Flag>("/flags/x").await.unwrap();
    assert_eq!(read.value, Flag { enabled: false });
    assert_eq!(Some(&read.etag), written.etag.as_ref());
    assert!(matches!(client.get::<u64>("/flags/x").await.unwrap_err(), Error::Protocol(_)));

    assert!(client.create("/flags/x", &1).await.unwrap_err().is(Name::PreconditionFailed));
    let again = client.put_if_match("/flags/x", &Flag { enabled: true }, &read.etag).await.unwrap();
    assert!(!again.is_created());
    let error = client.put_if_match("/flags/x", &1, &read.etag).send().await.unwrap_err();
    assert_eq!(error.problem().unwrap().etag(), again.etag.as_deref());

    let patched = client.merge_patch("/flags/x", &json!({ "by": "alice" })).await.unwrap();
    assert_eq!(patched.json::<Value>().unwrap(), json!({ "enabled": true, "by": "alice" }));
    let operations = json!([{ "op": "remove", "path": "/by" }]);
    client.json_patch("/flags/x", &operations).await.unwrap();
    let error = client.json_patch("/flags/x", &operations).await.unwrap_err();
    assert!(error.is(Name::PatchConflict), "{error}");

    let made = client.post("/flags", &json!({ "id": "y" })).await.unwrap();
    assert_eq!(made.location.as_deref(), Some("/flags/y"));
    client.put_bytes("/flags/x/logo", "image/png", &b"\x89PNG"[..]).await.unwrap();
    let raw = client.get_bytes("/flags/x/logo").await.unwrap();
    assert_eq!(
        (raw.bytes.as_ref(), raw.media_type.as_deref()),
        (&b"\x89PNG"[..], Some("image/png"))
    );
    assert!(matches!(raw.json::<Value>().unwrap_err(), Error::Protocol(_)));
    assert!(matches!(client.get::<Value>("/flags/x/logo").await.unwrap_err(), Error::Protocol(_)));

    let children = client.list("/flags").all().await.unwrap();
    let shown: Vec<_> = children.iter().map(|each| (each.id.as_str(), each.has_children)).collect();
    assert_eq!(shown, [("x", true), ("y", false)]);
    assert!(client.list("flags").next().await.is_err());
    assert!(client.delete("/flags/x").await.unwrap_err().is(Name::HasChildren));
    client.delete_all("/flags").await.unwrap();
    assert!(client.find::<Value>("/flags/x/logo").await.unwrap().is_none());
}

#[tokio::test]
async fn any_text_can_be_a_segment() {
    let server = Server::start();
    let client = client(&server);
    for text in ["a b", "50%", "ü", "a?b#c", "\"<>", "%41"] {
        let resource = format!("/notes/{}", segment(text));
        client.put(&resource, &text).await.unwrap();
        assert_eq!(client.get::<String>(&resource).await.unwrap().value, text);
    }
    let mut ids: Vec<_> =
        client.list("/notes").all().await.unwrap().into_iter().map(|child| child.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["\"<>", "%41", "50%", "a b", "a?b#c", "ü"]);
}

#[tokio::test]
async fn a_write_under_a_lock_passes_and_others_do_not() {
    let server = Server::start();
    let client = client(&server);
    let held = client.lock("/a").hold().await.unwrap();
    client.put("/a/b", &1).under(&held).await.unwrap();
    assert!(client.put("/a/b", &2).await.unwrap_err().is_locked());
    client.put("/a/b", &2).token(&held).await.unwrap();
    let error = client.put("/c", &1).under(&held).await.unwrap_err();
    assert!(error.is(Name::LockMismatch), "{error}");
    held.check().unwrap();
    held.release().await.unwrap();
    assert_eq!(client.get::<u64>("/a/b").await.unwrap().value, 2);
}

#[tokio::test]
async fn a_refusal_of_a_large_body_is_read_though_the_server_stops_reading() {
    let server = Server::with("[limits]\nmax_document = \"2MiB\"\n");
    let client = client(&server);
    let _held = client.lock("/a").hold().await.unwrap();
    for _ in 0..5 {
        let large = vec![b'x'; 12 << 20];
        let error = client.put_bytes("/a", "text/plain", large.clone()).await.unwrap_err();
        assert!(error.is_locked(), "{error:?}");
        let error = client.put_bytes("/b", "text/plain", large).await.unwrap_err();
        assert!(error.is(Name::PayloadTooLarge), "{error:?}");
        client.put_bytes("/c", "text/plain", vec![b'x'; 1 << 20]).await.unwrap();
    }
    assert_eq!(client.get_bytes("/c").await.unwrap().bytes.len(), 1 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_updates_at_once_each_is_made_once() {
    let server = Server::start();
    let client = client(&server);
    client.put("/counter", &0).await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..12 {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..5 {
                let add = |count: &mut u64| *count += 1;
                if n % 2 == 0 {
                    // One that meets a lock is refused, and is for its caller to repeat.
                    while let Err(error) = client.update("/counter", add).await {
                        assert!(error.is_locked(), "{error}");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                } else {
                    client.update_locked("/counter", add).await.unwrap();
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(client.get::<u64>("/counter").await.unwrap().value, 60);
    assert!(!client.inspect("/counter").await.unwrap().locked);
}

#[tokio::test]
async fn an_update_that_cannot_be_made_lets_the_lock_go() {
    let server = Server::start();
    let client = client(&server);
    let error = client.update_locked("/nothing", |_: &mut u64| ()).await.unwrap_err();
    assert!(error.is_not_found());
    assert!(!client.inspect("/nothing").await.unwrap().locked);
    assert!(client.update("/nothing", |_: &mut u64| ()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_batch_is_done_whole_or_not_at_all() {
    let server = Server::start();
    let client = client(&server);
    let held = client.lock("/a").hold().await.unwrap();
    let done = client
        .batch()
        .put("/a/1", &1)
        .create("/a/2", &json!({ "x": 1 }))
        .merge_patch("/a/2", &json!({ "y": 2 }))
        .post("/a", &json!({ "id": "3" }))
        .under(&held)
        .send()
        .await
        .unwrap();
    assert_eq!(done.iter().map(|each| each.status).collect::<Vec<_>>(), [201, 201, 200, 201]);
    assert_eq!(done[2].body, json!({ "x": 1, "y": 2 }));
    let etag = done[0].etag().unwrap();
    let error =
        client.batch().delete("/a/3").put_if_match("/a/1", &2, "\"old\"").under(&held).send().await;
    let error = error.unwrap_err();
    assert!(error.is(Name::PreconditionFailed) && error.problem().unwrap().index() == Some(1));
    assert!(client.find::<Value>("/a/3").await.unwrap().is_some());
    let done = client.batch().delete_if_match("/a/1", etag).delete("/a/3").token(&held).send();
    assert_eq!(done.await.unwrap().len(), 2);
    assert!(client.batch().put("/a/1", &1).send().await.unwrap_err().is_locked());
}

#[tokio::test]
async fn events_come_as_they_happen_and_the_trail_has_them() {
    let server = Server::start();
    let client = client(&server);
    client.lock("/before").acquire().await.unwrap();
    let mut events = client.events(EventFilter::new().resource("/a"));
    // Nothing yet; giving up the wait loses nothing.
    assert!(timeout(Duration::from_millis(300), events.next()).await.is_err());
    let held = client.lock("/a").hold().await.unwrap();
    client.put("/a", &1).under(&held).await.unwrap();
    held.release().await.unwrap();
    let mut kinds = Vec::new();
    while kinds.len() < 4 {
        match timeout(5 * SECOND, events.next()).await.unwrap().unwrap() {
            Event::Audit(event) => kinds.push(event.kind),
            other => panic!("{other:?}"),
        }
    }
    kinds.sort_unstable_by_key(ToString::to_string);
    let expected = [Kind::Acquired, Kind::Released, Kind::WriteAdmitted, Kind::WriteCompleted];
    assert_eq!(kinds, expected);

    let acquired = EventFilter::new().kind(&Kind::Acquired);
    let trail = client.audit(AuditQuery::from(acquired).limit(1)).all().await.unwrap();
    let resources: Vec<_> = trail.iter().map(|event| event.resources[0].as_str()).collect();
    assert_eq!(resources, ["/before", "/a"]);
    let from_there = client.events(EventFilter::new()).after(trail[0].seq).next().await.unwrap();
    assert!(matches!(from_there, Event::Audit(event) if event.seq == trail[0].seq + 1));
}

#[tokio::test]
async fn events_need_a_permission_and_say_so() {
    let server = Server::with_keys(&[("alice", "writer")]);
    let url = format!("http://{}", server.address());
    let client =
        Client::builder(&url).key(server.key("alice")).retry(RetryPolicy::none()).build().unwrap();
    for error in [
        client.events(EventFilter::new()).next().await.unwrap_err(),
        client.events(EventFilter::new()).after(0).next().await.unwrap_err(),
    ] {
        assert!(error.is(Name::Forbidden));
        assert_eq!(error.problem().unwrap().permission(), Some("audit"));
    }
}
