//! A service with `leasehold-tower` before it, which asks the program about each write.

#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

use axum::Extension;
use axum::extract::Request;
use leasehold_client::{Client, RetryPolicy};
use leasehold_tower::{MatchedLock, Remote};

use crate::common::{Ask, Server, Setup, json};

/// The service: it says under which lock a request has come, and what it was told of tokens.
struct Service {
    port: u16,
    _runtime: tokio::runtime::Runtime,
}

async fn says(lock: Option<Extension<MatchedLock>>, request: Request) -> String {
    let fields = request.headers().keys().filter(|name| name.as_str().starts_with("x-lock"));
    assert_eq!(fields.count(), 0);
    match lock {
        Some(Extension(lock)) => format!("{} {} {}", lock.fence, lock.lock_id, lock.holder),
        None => "no lock".to_owned(),
    }
}

impl Service {
    fn before(server: &Server) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let url = format!("http://{}", server.address());
        let client = Client::builder(&url).retry(RetryPolicy::none()).build().unwrap();
        let app = axum::Router::new().fallback(says).layer(Remote::new(client).layer());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { port, _runtime: runtime }
    }

    /// A request that is for the service, and not for the server.
    fn ask(&self, ask: Ask) -> Ask {
        ask.on_port(self.port)
    }
}

#[test]
fn a_write_passes_by_the_word_of_the_server_and_a_refusal_is_the_servers_own() {
    let server = Server::start();
    let service = Service::before(&server);
    let put = || service.ask(server.ask("PUT", "/flags/x").body("1"));
    assert_eq!(put().send().ok(200).text(), "no lock");
    let held = server.lock("/flags", json!({}));
    let problem = put().send().problem(423, "locked");
    assert_eq!(problem["lock"]["lock_id"].as_str(), Some(held.id.as_str()));
    let read = service.ask(server.ask("GET", "/flags/x").field("X-Lock-Fence", "9"));
    assert_eq!(read.send().ok(200).text(), "no lock");
    let told = put().token(&held).send().ok(200);
    assert_eq!(told.text(), format!("{} {} anonymous", held.fence, held.id));
    server.ask("DELETE", "/flags/lock").token(&held).send().ok(204);
    put().token(&held).send().problem(412, "lock-lost");
    service.ask(server.ask("PUT", "/flags//x").body("1")).send().problem(400, "malformed-request");
    assert_eq!(server.audit("type=write_checked").len(), 4);
}

#[test]
fn the_credentials_of_a_request_are_those_of_its_check() {
    let server =
        Setup::default().key("alice a.", "writer", None).key("bob", "writer", None).start();
    let service = Service::before(&server);
    let held = server.lock_by("alice a.", "/x", json!({}));
    let put = |name| service.ask(server.by(name, "PUT", "/x").body("1")).token(&held);
    put("bob").send().problem(423, "locked");
    let told = put("alice a.").send().ok(200);
    assert!(told.text().ends_with(" alice a."), "{told:?}");
    let nobody = service.ask(server.ask("PUT", "/x").body("1")).send();
    nobody.problem(401, "unauthenticated");
    assert_eq!(nobody.all("www-authenticate").len(), 2, "each challenge is passed on");
}

#[test]
fn without_the_server_no_write_passes_and_every_read_does() {
    let server = Server::start();
    let service = Service::before(&server);
    let put = service.ask(server.ask("PUT", "/x").body("1"));
    let read = service.ask(server.ask("GET", "/x"));
    drop(server);
    let refused = put.send();
    refused.problem(503, "unavailable");
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(read.send().ok(200).text(), "no lock");
}
