//! A server that does what a script says, however bad that is, and remembers what it was asked.
#![allow(dead_code, unreachable_pub, reason = "each file of tests uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of a test panics like the test")]

#[cfg(feature = "tls")]
pub mod tls;

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use leasehold_client::{Client, ClientBuilder, RetryPolicy};
use serde_json::{Value, json};

/// What the server does with one request.
#[derive(Clone, Debug)]
pub enum Step {
    /// Answers, and keeps the connection.
    Answer(String),
    /// Answers after a while.
    Late(u64, String),
    /// Sends all but the last bytes of the answer, and closes.
    Half(String),
    /// Sends the answer two times.
    Twice(String),
    /// Sends these bytes, whatever they are, and closes.
    Garbage(Vec<u8>),
    /// Closes without a word.
    Close,
    /// Says nothing, and keeps the connection.
    Hang,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub line: String,
    pub head: String,
    pub body: String,
    pub at: Instant,
    pub connection: usize,
}

impl Asked {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (each, value) = line.split_once(':')?;
            each.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Clone)]
pub struct Scripted {
    address: String,
    steps: Arc<Mutex<VecDeque<Step>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    last: Step,
}

impl Scripted {
    /// One step a request, in order; `Close` for those that come after.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::then(steps, Step::Close)
    }

    /// One step a request, in order, and `last` for those that come after.
    pub fn then(steps: impl IntoIterator<Item = Step>, last: Step) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            steps: Arc::new(Mutex::new(steps.into_iter().collect())),
            asked: Arc::default(),
            last,
        };
        let serving = server.clone();
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(&stream.unwrap(), connection));
            }
        });
        server
    }

    fn serve(&self, stream: &TcpStream, connection: usize) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).ok()? == 0 {
                    return None;
                }
            }
            let (line, head) = head.split_once("\r\n")?;
            let mut asked = Asked {
                line: line.strip_suffix(" HTTP/1.1")?.to_owned(),
                head: head.to_owned(),
                body: String::new(),
                at: Instant::now(),
                connection,
            };
            let length = asked.field("content-length").map_or(0, |text| text.parse().unwrap());
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            asked.body = String::from_utf8(body).ok()?;
            self.asked.lock().unwrap().push(asked);
            let step = self.steps.lock().unwrap().pop_front();
            match step.unwrap_or_else(|| self.last.clone()) {
                Step::Answer(answer) => writer.write_all(answer.as_bytes()).ok()?,
                Step::Late(ms, answer) => {
                    std::thread::sleep(Duration::from_millis(ms));
                    writer.write_all(answer.as_bytes()).ok()?;
                }
                Step::Half(answer) => {
                    writer.write_all(&answer.as_bytes()[..answer.len() - 5]).ok()?;
                    return None;
                }
                Step::Twice(answer) => {
                    writer.write_all(format!("{answer}{answer}").as_bytes()).ok()?;
                }
                Step::Garbage(bytes) => {
                    writer.write_all(&bytes).ok()?;
                    return None;
                }
                Step::Close => return None,
                Step::Hang => {
                    // Until the client goes.
                    let _ = reader.read(&mut [0; 1]);
                    return None;
                }
            }
        }
    }

    /// What to do with the requests that come from now on.
    pub fn also(&self, steps: impl IntoIterator<Item = Step>) {
        self.steps.lock().unwrap().extend(steps);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The lines of all requests: `PUT /a`.
    pub fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    pub fn url(&self) -> &str {
        &self.address
    }

    /// A client that retries fast and gives up soon.
    pub fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    pub fn builder(&self) -> ClientBuilder {
        Client::builder(&self.address)
            .key("hunter2")
            .timeout(Duration::from_millis(400))
            .retry(quick())
    }

    /// Waits until so many requests have come.
    pub async fn until_asked(&self, count: usize) {
        until("requests", || self.asked().len() >= count).await;
    }
}

pub fn quick() -> RetryPolicy {
    RetryPolicy::default()
        .base(Duration::from_millis(5))
        .cap(Duration::from_millis(20))
        .total(Duration::from_secs(3))
        .attempts(5)
}

/// Waits until it is so, within a bound.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(10), "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn answer(status: u16, fields: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n" + body
}

pub fn ok(status: u16, body: &Value) -> String {
    answer(status, &[("Content-Type", "application/json")], &body.to_string())
}

pub fn document(etag: &str, body: &Value) -> String {
    let fields = [("Content-Type", "application/json"), ("ETag", etag)];
    answer(200, &fields, &body.to_string())
}

pub fn written(etag: &str) -> String {
    answer(204, &[("ETag", etag)], "").replace("Content-Length: 0\r\n", "")
}

pub fn no_content() -> String {
    "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
}

pub fn problem(status: u16, name: &str, more: Value) -> String {
    problem_with(status, name, more, &[])
}

pub fn problem_with(status: u16, name: &str, more: Value, fields: &[(&str, &str)]) -> String {
    let retryable = leasehold_client::Name::parse(name).map(|name| name.entry().retryable.as_str());
    let mut body = json!({
        "type": format!("/-/problems/{name}"), "title": "T", "status": status, "detail": "D.",
        "instance": "/a", "request_id": "r", "retryable": retryable.unwrap_or("no"),
    });
    for (member, value) in more.as_object().unwrap() {
        body[member] = value.clone();
    }
    let mut all = vec![("Content-Type", "application/problem+json")];
    all.extend(fields);
    answer(status, &all, &body.to_string())
}

pub const LOCK_ID: &str = "0193b0a5-2f6e-7c3a-9d41-5b8f3c2e7a10";

/// A lock as answers tell it.
pub fn lock(ttl_ms: u64, expires_in_ms: u64) -> Value {
    json!({
        "lock_id": LOCK_ID, "resource": "/a", "resources": ["/a"], "kind": "lock",
        "dialect": "http", "mode": "exclusive", "depth": "infinity", "holder": "alice",
        "reason": null, "metadata": {}, "fence": 42, "ttl_seconds": ttl_ms as f64 / 1000.0,
        "acquired_at": "2026-11-20T12:00:00.000Z", "expires_at": "2026-11-20T12:01:00.000Z",
        "expires_in_ms": expires_in_ms, "waited_ms": 0,
    })
}

/// The answer to an acquire.
pub fn granted(ttl_ms: u64) -> String {
    let mut body = lock(ttl_ms, ttl_ms);
    body["lock_token"] = "lock_s3cret".into();
    ok(201, &body)
}

/// The answer to a renewal.
pub fn renewed(ttl_ms: u64) -> String {
    ok(200, &lock(ttl_ms, ttl_ms))
}

/// `423 locked`.
pub fn locked() -> String {
    let lock = json!({ "holder": "bob", "lock_id": LOCK_ID, "resource": "/a", "kind": "lock" });
    problem_with(423, "locked", json!({ "lock": lock }), &[("Retry-After", "37")])
}
