//! The service as a process, and clients that change its flags over several requests.

#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use leasehold_client::{Client, Error, Name, RetryPolicy};
use serde_json::{Value, json};
use tokio::sync::Barrier;

/// The longest that anything here is waited for.
const BOUND: Duration = Duration::from_secs(20);
const FLAG: &str = "/flags/checkout";
/// How often each of two clients changes the flag.
const ROUNDS: usize = 8;

struct Flags {
    child: Child,
    address: SocketAddr,
}

impl Flags {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_flags"))
            .env("FLAGS_LISTEN", "127.0.0.1:0")
            .env("FLAGS_DATA", data)
            .env_remove("FLAGS_LOCK_SERVER")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_once("http://").unwrap().1.split('/').next().unwrap();
        Self { child, address: address.parse().unwrap() }
    }

    /// A client of this name, which sends each request once.
    fn client(&self, name: &str) -> Client {
        let builder = Client::builder(&format!("http://{}", self.address)).key(name);
        builder.retry(RetryPolicy::none()).build().unwrap()
    }

    /// A connection on which exactly what is sent is sent.
    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        BufReader::new(stream)
    }
}

impl Drop for Flags {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn create(client: &Client) {
    let flag = json!({"enabled": true, "rollout_percentage": 0, "rules": []});
    assert!(client.create(FLAG, &flag).await.unwrap().is_created());
}

async fn flag(client: &Client) -> Value {
    client.get(FLAG).await.unwrap().value
}

/// Reads the flag, asks what it does for somebody, decides, and writes it: under its lock, or having
/// `met` the other client in between.
async fn change(client: &Client, user: &str, met: Option<&Barrier>) -> Result<(), Error> {
    let held = match met {
        Some(_) => None,
        None => Some(client.lock(FLAG).wait(BOUND).hold().await?),
    };
    let mut flag = flag(client).await;
    if let Some(met) = met {
        met.wait().await;
    }
    let evaluation = format!("{FLAG}/evaluation?user={user}");
    let on = client.request(Method::GET, evaluation).send().await?.json()?["on"].clone();
    flag["rollout_percentage"] = json!(flag["rollout_percentage"].as_u64().unwrap() + 1);
    let rule = json!({"attribute": "user", "values": [user], "on": !on.as_bool().unwrap()});
    flag["rules"].as_array_mut().unwrap().push(rule);
    match held {
        Some(held) => {
            client.put(FLAG, &flag).under(&held).await?;
            held.release().await
        }
        // A client that does not care what is there.
        None => client.put(FLAG, &flag).if_match("*").await.map(drop),
    }
}

/// What is left of what two clients have changed at the same time.
async fn after_two_clients(locked: bool) -> Value {
    let root = tempfile::tempdir().unwrap();
    let flags = Flags::start(root.path());
    create(&flags.client("alice")).await;
    let barrier = Arc::new(Barrier::new(2));
    let clients = ["alice", "bob"].map(|name| {
        let (client, barrier) = (flags.client(name), barrier.clone());
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let met = (!locked).then_some(&*barrier);
                change(&client, &format!("{name}-{round}"), met).await.unwrap();
                // The next round begins from what this one has left.
                if !locked {
                    barrier.wait().await;
                }
            }
        })
    });
    for client in clients {
        tokio::time::timeout(BOUND, client).await.unwrap().unwrap();
    }
    flag(&flags.client("alice")).await
}

#[tokio::test]
async fn two_clients_that_change_a_flag_lose_nothing_under_its_lock() {
    let flag = after_two_clients(true).await;
    assert_eq!(flag["rollout_percentage"], 2 * ROUNDS);
    assert_eq!(flag["rules"].as_array().unwrap().len(), 2 * ROUNDS);
}

#[tokio::test]
async fn the_same_two_clients_lose_changes_without_it() {
    let flag = after_two_clients(false).await;
    assert_eq!(flag["rollout_percentage"], ROUNDS, "else the test above shows nothing");
    assert_eq!(flag["rules"].as_array().unwrap().len(), ROUNDS);
}

#[tokio::test]
async fn a_write_is_refused_while_another_holds_the_lock_and_when_it_is_out_of_date() {
    let root = tempfile::tempdir().unwrap();
    let flags = Flags::start(root.path());
    let (alice, bob) = (flags.client("alice"), flags.client("bob"));
    create(&alice).await;
    let flag = json!({"enabled": false});

    // Blindly: 428.
    let refused = alice.put(FLAG, &flag).await.unwrap_err();
    assert_eq!(
        (refused.status().unwrap().as_u16(), refused.is(Name::PreconditionRequired)),
        (428, true)
    );

    // Locked, also by what is below: 423, and who holds it.
    let held = alice.lock(FLAG).reason("Rolling out").hold().await.unwrap();
    for path in [FLAG, "/flags/checkout/notes"] {
        let refused = bob.put(path, &flag).if_match("*").await.unwrap_err();
        let problem = refused.problem().unwrap();
        assert_eq!((problem.status().as_u16(), problem.holder()), (423, Some("alice")));
    }
    // Reads pass, and so does the holder, with a fence that the service is told.
    bob.get::<Value>(FLAG).await.unwrap();
    alice.put(FLAG, &flag).under(&held).await.unwrap();
    let token = held.token().clone();
    held.release().await.unwrap();

    // With a token that has ended: 412 of the guard.
    let refused = alice.put(FLAG, &flag).token(token).await.unwrap_err();
    assert_eq!((refused.status().unwrap().as_u16(), refused.is(Name::LockLost)), (412, true));
    // With a version that has gone: 412 of the service itself, which passes untouched.
    let refused = bob.put(FLAG, &flag).if_match("\"1\"").await.unwrap_err();
    assert_eq!(
        (refused.status().unwrap().as_u16(), refused.problem().unwrap().name()),
        (412, None)
    );
    // Nobody but an admin breaks locks here.
    let _held = alice.lock(FLAG).hold().await.unwrap();
    let refused = bob.break_lock(FLAG).reason("I want it").send().await.unwrap_err();
    assert!(refused.is(Name::Forbidden));
    flags.client("admin").break_lock(FLAG).reason("She has left").send().await.unwrap();
}

/// Begins a `PUT` that waits to be asked for its body, and waits until it was.
fn begin(flags: &Flags, length: usize) -> BufReader<TcpStream> {
    let mut writer = flags.connect();
    let head = format!(
        "PUT {FLAG} HTTP/1.1\r\nHost: flags\r\nAuthorization: Bearer alice\r\nIf-Match: *\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    );
    writer.get_mut().write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    writer.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    writer
}

#[tokio::test]
async fn a_write_on_its_way_holds_back_the_next_grant() {
    let root = tempfile::tempdir().unwrap();
    let flags = Flags::start(root.path());
    let (alice, bob) = (flags.client("alice"), flags.client("bob"));
    create(&alice).await;
    let body = r#"{"enabled": true, "rollout_percentage": 50}"#;
    let mut writer = begin(&flags, body.len());
    let acquiring = tokio::spawn({
        let bob = bob.clone();
        async move {
            let held = bob.lock(FLAG).wait(BOUND).hold().await.unwrap();
            (held, flag(&bob).await)
        }
    });
    let queued = async {
        while bob.inspect(FLAG).await.unwrap().queue.is_empty() {
            assert!(!acquiring.is_finished(), "the lock was granted while a write was on its way");
        }
    };
    tokio::time::timeout(BOUND, queued).await.unwrap();
    // From then on the place is taken: who comes now is refused, and not asked for a body.
    let mut refused = flags.connect();
    let head = format!(
        "PUT {FLAG} HTTP/1.1\r\nHost: flags\r\nAuthorization: Bearer alice\r\nIf-Match: *\r\n\
         Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    );
    refused.get_mut().write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    refused.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 423 Locked\r\n");

    writer.get_mut().write_all(body.as_bytes()).unwrap();
    let (held, read) = tokio::time::timeout(BOUND, acquiring).await.unwrap().unwrap();
    assert_eq!(read["rollout_percentage"], 50, "what was on its way is there");
    held.release().await.unwrap();
}

#[tokio::test]
async fn a_stop_lets_writes_end_and_after_a_kill_a_grant_says_what_it_cannot_know() {
    let root = tempfile::tempdir().unwrap();
    let mut flags = Flags::start(root.path());
    create(&flags.client("alice")).await;
    let body = r#"{"enabled": true}"#;
    let mut writer = begin(&flags, body.len());
    terminate(&flags.child);
    writer.get_mut().write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    writer.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("HTTP/1.1 204 No Content\r\n"), "{answer}");
    assert!(flags.child.wait().unwrap().success());

    let flags = Flags::start(root.path());
    create(&flags.client("alice")).await;
    let lease = flags.client("bob").lock(FLAG).acquire().await.unwrap();
    lease.release().await.unwrap();
    let writer = begin(&flags, body.len());
    drop(flags);
    drop(writer);
    let flags = Flags::start(root.path());
    let granted = flags.client("bob").request(Method::POST, format!("{FLAG}/lock"));
    let granted = granted.json(&json!({})).send().await.unwrap().json().unwrap();
    assert_eq!(granted["predecessor_writes"], "unknown");
}

fn terminate(child: &Child) {
    let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
}
