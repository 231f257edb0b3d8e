//! The program, started for one test, and a client that sends exactly the bytes it is told to.
//!
//! Every answer passes [`Reply::parse`]: a refusal that is no problem document, or that leaves
//! out what every problem has, fails whichever test has caused it.
#![allow(unreachable_pub, reason = "nobody but the tests beside it uses it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a helper of a test panics like the test"
)]

pub mod http2;
pub mod recorder;
pub mod upstream;

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
pub use serde_json::json;

/// The longest that anything here is waited for.
pub const BOUND: Duration = Duration::from_secs(20);

/// The program with these arguments, without what the tests' own environment says.
pub fn leasehold(args: &[&str]) -> Command {
    let mut command = Command::new(cargo_bin("leasehold"));
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEASEHOLD_") {
            command.env_remove(name);
        }
    }
    command
}

/// Waits until `condition` gives something; fails after [`BOUND`].
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(began.elapsed() < BOUND, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a server is started.
#[derive(Default)]
pub struct Setup {
    config: Option<String>,
    args: Vec<String>,
    keys: Vec<(String, String, Option<String>)>,
}

impl Setup {
    /// A configuration file of this text.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// `--identity keys`, with a key of this name and role, narrowed to `path` where given.
    #[must_use]
    pub fn key(mut self, name: &str, role: &str, path: Option<&str>) -> Self {
        self.keys.push((name.to_owned(), role.to_owned(), path.map(str::to_owned)));
        self
    }

    /// Starts it, and waits until it listens.
    pub fn start(self) -> Server {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        let keys: Vec<(String, String)> = self
            .keys
            .iter()
            .map(|(name, role, path)| (name.clone(), add_key(&data, name, role, path.as_deref())))
            .collect();
        let mut args = self.args.clone();
        if !keys.is_empty() {
            args.extend(["--identity".to_owned(), "keys".to_owned()]);
        }
        let config = root.path().join("leasehold.toml");
        if let Some(text) = &self.config {
            std::fs::write(&config, text).unwrap();
            args.extend(["--config".to_owned(), config.to_str().unwrap().to_owned()]);
        }
        let mut server = Server {
            root,
            data,
            config,
            args,
            keys,
            child: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        server.run();
        server
    }
}

/// Makes a key with `leasehold key add`.
pub fn add_key(data: &Path, name: &str, role: &str, path: Option<&str>) -> String {
    let data = data.to_str().unwrap();
    let mut args = vec!["key", "add", name, "--role", role, "--data", data];
    if let Some(path) = path {
        args.extend(["--path", path]);
    }
    let out = leasehold(&args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().last().unwrap().to_owned()
}

/// A running server. When it is dropped it is killed, and its trail is verified.
pub struct Server {
    root: tempfile::TempDir,
    data: PathBuf,
    config: PathBuf,
    args: Vec<String>,
    keys: Vec<(String, String)>,
    child: Option<Child>,
    address: SocketAddr,
}

impl Server {
    /// In anonymous mode, with every default.
    pub fn start() -> Self {
        Setup::default().start()
    }

    /// In anonymous mode, with this configuration.
    pub fn with(config: &str) -> Self {
        Setup::default().config(config).start()
    }

    /// With a key for each of these names and roles.
    pub fn with_keys(keys: &[(&str, &str)]) -> Self {
        let setup = Setup::default();
        keys.iter().fold(setup, |setup, (name, role)| setup.key(name, role, None)).start()
    }

    fn run(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut child = leasehold(&["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&self.data)
            .args(&self.args)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        // Nobody reads the rest: a server does not mind.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.child = Some(child);
        let address =
            line.split_once("://").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        self.address = address.unwrap_or_else(|| panic!("{line:?}\n{}", self.log()));
    }

    /// Kills it and starts it again in the same folder.
    pub fn restart(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        self.run();
    }

    /// Starts it again in the same folder, once it has ended.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        self.run();
    }

    fn log_path(&self) -> PathBuf {
        self.root.path().join("log")
    }

    /// What it has written on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap()
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Writes its configuration anew; it reads it at SIGHUP.
    pub fn write_config(&self, text: &str) {
        std::fs::write(&self.config, text).unwrap();
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key of this name.
    pub fn key(&self, name: &str) -> &str {
        let found = self.keys.iter().find(|(each, _)| each == name);
        &found.unwrap_or_else(|| panic!("no key {name}")).1
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        until("the end of the server", || child.try_wait().unwrap())
    }

    /// A request that has not been sent.
    pub fn ask(&self, method: &str, target: &str) -> Ask {
        let host = format!("Host: {}", self.address);
        Ask {
            address: self.address,
            line: format!("{method} {target} HTTP/1.1"),
            head: method == "HEAD",
            fields: vec![host],
            body: None,
        }
    }

    pub fn get(&self, target: &str) -> Reply {
        self.ask("GET", target).send()
    }

    pub fn post(&self, target: &str, body: Value) -> Reply {
        self.ask("POST", target).json(body).send()
    }

    pub fn put(&self, target: &str, body: Value) -> Reply {
        self.ask("PUT", target).json(body).send()
    }

    pub fn delete(&self, target: &str) -> Reply {
        self.ask("DELETE", target).send()
    }

    /// A request as the principal of this key.
    pub fn by(&self, name: &str, method: &str, target: &str) -> Ask {
        let key = self.key(name).to_owned();
        self.ask(method, target).field("Authorization", &format!("Bearer {key}"))
    }

    /// Acquires with this body, and has to get it.
    pub fn lock(&self, resource: &str, body: Value) -> Held {
        Held::of(self.post(&format!("{resource}/lock"), body))
    }

    /// The same as the principal of this key.
    pub fn lock_by(&self, name: &str, resource: &str, body: Value) -> Held {
        Held::of(self.by(name, "POST", &format!("{resource}/lock")).json(body).send())
    }

    /// Waits until so many wait for `resource`.
    pub fn queued(&self, resource: &str, count: usize) {
        until("the queue", || {
            let queue = self.get(&format!("{resource}/lock")).json()["queue"].clone();
            (queue.as_array().unwrap().len() == count).then_some(())
        });
    }

    /// The trail, with this query.
    pub fn audit(&self, query: &str) -> Vec<Value> {
        let page = self.get(&format!("/-/audit?limit=1000&{query}"));
        assert_eq!(page.status, 200, "{page:?}");
        page.json()["items"].as_array().unwrap().clone()
    }

    /// Opens a connection on which nothing has been sent.
    pub fn connect(&self) -> Wire {
        Wire::open(self.address)
    }

    /// Sends these bytes alone on a connection, and reads one answer.
    pub fn raw(&self, bytes: impl AsRef<[u8]>) -> Reply {
        let mut wire = self.connect();
        wire.send(bytes);
        wire.reply(false)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}", self.log());
            return;
        }
        // Whatever a test is about, what it leaves has to be a trail that kept every promise.
        let verified = leasehold(&["audit", "verify", "--data"]).arg(&self.data).output().unwrap();
        assert!(verified.status.success(), "{verified:?}");
    }
}

/// A lock that was granted.
#[derive(Debug)]
pub struct Held {
    pub token: String,
    pub id: String,
    pub fence: u64,
    pub body: Value,
}

impl Held {
    pub fn of(reply: Reply) -> Self {
        assert!(matches!(reply.status, 200 | 201), "{reply:?}");
        let body = reply.json();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Self {
            token: text("lock_token"),
            id: text("lock_id"),
            fence: body["fence"].as_u64().unwrap(),
            body: body.clone(),
        }
    }

    /// The token in its URI form.
    pub fn uri(&self) -> String {
        format!("opaquelocktoken:{}/{}", self.id, self.token)
    }
}

/// A request that is being made.
#[must_use]
pub struct Ask {
    address: SocketAddr,
    line: String,
    head: bool,
    fields: Vec<String>,
    body: Option<Vec<u8>>,
}

impl Ask {
    pub fn field(mut self, name: &str, content: &str) -> Self {
        self.fields.push(format!("{name}: {content}"));
        self
    }

    /// With `X-Lock-Token`.
    pub fn token(self, held: &Held) -> Self {
        self.field("X-Lock-Token", &held.token)
    }

    /// To another port of the same server.
    pub fn on_port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub fn json(self, body: Value) -> Self {
        self.field("Content-Type", "application/json").body(body.to_string())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut fields = self.fields.clone();
        if let Some(body) = &self.body {
            fields.push(format!("Content-Length: {}", body.len()));
        }
        let mut bytes = format!("{}\r\n{}\r\n\r\n", self.line, fields.join("\r\n")).into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }

    /// Sends it on a connection of its own.
    pub fn send(self) -> Reply {
        self.start().reply(self.head)
    }

    /// Sends it, and leaves the answer to be read.
    pub fn start(&self) -> Wire {
        let mut wire = Wire::open(self.address);
        wire.send(self.bytes());
        wire
    }

    /// Sends it from another thread.
    pub fn spawn(self) -> JoinHandle<Reply> {
        spawn(move || self.send())
    }
}

/// A connection.
pub struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(BOUND * 2)).unwrap();
        stream.set_write_timeout(Some(BOUND)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// The same where the server may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Ends our half of the connection.
    pub fn half_close(&self) {
        self.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Whether the server closes the connection, without another byte.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("still open after {:?}", String::from_utf8_lossy(&rest))
            }
            // Reset, it has ended as well.
            Ok(_) | Err(_) => String::from_utf8_lossy(&rest).into_owned(),
        }
    }

    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        let line = String::from_utf8(line).unwrap();
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// Reads the head of an answer.
    pub fn reply_head(&mut self) -> Reply {
        let first = self.line();
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer: {first:?}"));
        let mut fields = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let (name, content) = line.split_once(':').unwrap();
            fields.push((name.to_ascii_lowercase(), content.trim().to_owned()));
        }
        Reply { status, fields, body: Vec::new() }
    }

    /// Reads one answer.
    pub fn reply(&mut self, head: bool) -> Reply {
        let mut reply = self.reply_head();
        if head || matches!(reply.status, 100..200 | 204 | 304) {
            return reply.checked(head);
        }
        if reply.field("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                reply.body.extend(chunk);
            }
        } else if let Some(length) = reply.field("content-length") {
            reply.body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut reply.body).unwrap();
        } else {
            self.stream.read_to_end(&mut reply.body).unwrap();
        }
        reply.checked(head)
    }

    /// The next chunk of a chunked body; none at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line(), 16).unwrap();
        let mut chunk = vec![0; length];
        self.stream.read_exact(&mut chunk).unwrap();
        assert_eq!(self.line(), "");
        (length > 0).then_some(chunk)
    }
}

/// An answer.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.status)?;
        for (name, content) in &self.fields {
            writeln!(f, "{name}: {content}")?;
        }
        write!(f, "\n{}", String::from_utf8_lossy(&self.body))
    }
}

impl Reply {
    /// The one field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} twice: {self:?}");
        all.first().copied()
    }

    /// Every field of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |each: &&(String, String)| each.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, content)| content.as_str()).collect()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn etag(&self) -> String {
        self.field("etag").unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    /// What every answer of the server has to have. 431 has no body, nor what hyper refuses
    /// before it knows a request.
    fn checked(self, head: bool) -> Self {
        let none = self.all("x-request-id").is_empty();
        if self.status < 400 || head || (none && self.body.is_empty()) {
            return self;
        }
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.field("cache-control"), Some("no-store"), "{self:?}");
        let problem = self.json();
        for member in ["type", "title", "detail", "retryable"] {
            assert!(problem[member].is_string(), "{member}: {self:?}");
        }
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert!(problem["type"].as_str().unwrap().contains("/problems/"), "{self:?}");
        if !none {
            assert!(problem["instance"].is_string(), "{self:?}");
            assert_eq!(problem["request_id"], self.field("x-request-id").unwrap(), "{self:?}");
        }
        self
    }

    /// The problem that this is; it has to have this status and name.
    #[track_caller]
    pub fn problem(&self, status: u16, name: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        let problem = self.json();
        assert_eq!(problem["type"], format!("/-/problems/{name}"), "{self:?}");
        problem
    }

    /// A success of this status.
    #[track_caller]
    pub fn ok(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}
