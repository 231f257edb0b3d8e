//! A lock server that is asked, and answers whatever the test tells it to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode, Uri};
use leasehold_client::{Client, RetryPolicy};
use leasehold_tower::Remote;

use super::double::*;

/// What the server answers, and the requests that it got.
#[derive(Clone, Default)]
struct Script {
    answer: Arc<Mutex<(u16, Vec<(&'static str, &'static str)>, &'static str)>>,
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

async fn answer(State(script): State<Script>, uri: Uri, headers: HeaderMap) -> impl IntoResponse {
    script.asked.lock().unwrap().push((uri.to_string(), headers));
    let (status, fields, body) = script.answer.lock().unwrap().clone();
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, value.parse().unwrap());
    }
    (StatusCode::from_u16(status).unwrap(), headers, body)
}

struct Server {
    script: Script,
    client: Client,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Script::default();
        let app = axum::Router::new().fallback(answer).with_state(script.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let client = Client::builder(&url)
            .timeout(Duration::from_secs(5))
            .retry(RetryPolicy::none())
            .build()
            .unwrap();
        Self { script, client, serving }
    }

    fn app(&self) -> Guarded {
        Guarded::by(&Remote::new(self.client.clone()).layer())
    }

    fn answers(&self, status: u16, fields: &[(&'static str, &'static str)], body: &'static str) {
        *self.script.answer.lock().unwrap() = (status, fields.to_vec(), body);
    }

    fn asked(&self) -> Vec<(String, HeaderMap)> {
        std::mem::take(&mut self.script.asked.lock().unwrap())
    }
}

const PROBLEM: (&str, &str) = ("content-type", "application/problem+json");
const ID: &str = "dfafb9f9-50d6-4300-ab51-a16ef461e49f";

#[tokio::test]
async fn a_write_is_asked_about_with_all_that_it_says_and_a_read_is_not() {
    let server = Server::start().await;
    let app = server.app();
    server.answers(200, &[], "");
    let read = app.spawn(request("GET", "/flags/x", &[("X-Lock-Fence", "9")], text("")));
    let reached = app.reached().await;
    assert!(reached.request.headers().is_empty());
    reached.answer(200);
    read.await.unwrap().unwrap();
    assert!(server.asked().is_empty());

    let fields = [
        ("X-Lock-Token", "lock_a"),
        ("If-Match", "\"1\""),
        ("Authorization", "Bearer alices"),
        ("Cookie", "session=1"),
        ("Content-Type", "application/json"),
        ("Connection", "X-HTTP-Method-Override"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Keep-Alive", "timeout=5"),
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Uri", "/elsewhere"),
        ("X-Original-URI", "/elsewhere"),
    ];
    let write = app.spawn(request("PATCH", "/flags/x?y=%2f", &fields, text("1")));
    let reached = app.reached().await;
    assert_eq!(reached.lock(), None);
    for dropped in ["x-lock-token", "x-lock-fence"] {
        assert!(!reached.request.headers().contains_key(dropped));
    }
    assert_eq!(reached.request.headers()["cookie"], "session=1");
    reached.answer(202);
    assert_eq!(write.await.unwrap().unwrap().status(), 202);
    let [(uri, headers)] = &server.asked()[..] else { panic!("asked once") };
    assert_eq!(uri, "/-/check");
    for (name, value) in [
        ("x-forwarded-method", "PATCH"),
        ("x-forwarded-uri", "/flags/x?y=%2f"),
        ("x-lock-token", "lock_a"),
        ("if-match", "\"1\""),
        ("authorization", "Bearer alices"),
        // The service sees it, whatever `Connection` says.
        ("x-http-method-override", "DELETE"),
    ] {
        assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
    }
    for kept in ["cookie", "content-type", "connection", "keep-alive", "x-original-uri"] {
        assert!(!headers.contains_key(kept), "{kept}");
    }
}

#[tokio::test]
async fn what_may_be_a_write_is_asked_about_and_reads_where_they_are_to_be() {
    let server = Server::start().await;
    let app = server.app();
    server.answers(423, &[PROBLEM], "{}");
    let overridden = [("X-HTTP-Method-Override", "DELETE")];
    assert_eq!(app.send("GET", "/x", &overridden).await.status, 423);
    let malformed = app.send("GET", "/x", &[("X-HTTP-Method", "D E")]).await;
    malformed.problem(400, "malformed-request");
    assert_eq!(server.asked().len(), 1);
    let careful = Remote::new(server.client.clone()).check_reads(true).layer();
    assert_eq!(Guarded::by(&careful).send("GET", "/x", &[]).await.status, 423);
    assert_eq!(server.asked().len(), 1);
    assert!(app.is_quiet().await);
}

#[tokio::test]
async fn the_service_is_told_of_the_lock_that_the_server_tells_of() {
    let server = Server::start().await;
    let app = server.app();
    let fields = [("x-lock-fence", "42"), ("x-lock-id", ID), ("x-lock-holder", "ali%20ce%C3%A9")];
    server.answers(200, &fields, "");
    let write = app.spawn(request("PUT", "/x", &[], text("")));
    let reached = app.reached().await;
    let lock = reached.lock().unwrap();
    assert_eq!((lock.fence, lock.holder.as_str()), (42, "ali ce\u{e9}"));
    assert_eq!(lock.lock_id.to_string(), ID);
    reached.answer(200);
    write.await.unwrap().unwrap();
    // Half of it is none, and then nothing passes.
    for half in 1..3 {
        server.answers(200, &fields[..half], "");
        app.send("PUT", "/x", &[]).await.problem(503, "unavailable");
    }
    assert!(app.is_quiet().await);
}

#[tokio::test]
async fn a_refusal_is_passed_on_as_it_is() {
    let server = Server::start().await;
    let app = server.app();
    let body = r#"{"type": "/-/problems/locked", "title": "Locked", "status": 423}"#;
    let fields = [PROBLEM, ("retry-after", "37"), ("link", "</x/lock>; rel=\"lock\"")];
    server.answers(423, &fields, body);
    let (sender, waits) = self::body();
    let refused = app.call(request("PUT", "/x", &[("Expect", "100-continue")], waits)).await;
    let reply = whole(refused.unwrap()).await;
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (423, body.as_bytes()));
    for (name, value) in fields {
        assert_eq!(reply.headers[name], value);
    }
    assert!(!reply.headers.contains_key("transfer-encoding"));
    assert!(!sender.is_asked_for());
    server.answers(401, &[PROBLEM, ("www-authenticate", "Bearer")], "{}");
    let reply = app.send("PUT", "/x", &[]).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["www-authenticate"]),
        (401, &"Bearer".parse().unwrap())
    );
    // What the server itself cannot answer is its own 503.
    server.answers(503, &[PROBLEM, ("retry-after", "5")], "{}");
    assert_eq!(app.send("PUT", "/x", &[]).await.headers["retry-after"], "5");
    assert!(app.is_quiet().await);
}

#[tokio::test]
async fn without_an_answer_of_a_lock_server_no_write_passes() {
    let server = Server::start().await;
    let app = server.app();
    for (status, fields, body) in [
        (204, &[][..], ""),
        (301, &[("location", "/")], ""),
        (404, &[("content-type", "text/html")], "<h1>Not found</h1>"),
        (502, &[("content-type", "application/json")], "{}"),
    ] {
        server.answers(status, fields, body);
        let reply = app.send("PUT", "/x", &[("X-Request-Id", "mine")]).await;
        let problem = reply.problem(503, "unavailable");
        assert_eq!((&problem["instance"], &problem["request_id"]), (&"/x".into(), &"mine".into()));
        assert_eq!(reply.headers["retry-after"], "1");
    }
    server.serving.abort();
    let _ = server.serving.await;
    app.send("PUT", "/x", &[]).await.problem(503, "unavailable");
    assert!(app.is_quiet().await);
    let read = app.spawn(request("GET", "/x", &[], text("")));
    app.reached().await.answer(200);
    read.await.unwrap().unwrap();
}
