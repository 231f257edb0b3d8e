//! A server under measurement: a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Which server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// This program's own no-op server.
    Floor,
    /// The server program.
    Leasehold,
    /// Redis with `appendfsync always`.
    Redis,
    /// The server program before an API that does nothing.
    Gateway,
    /// A reverse proxy before the same.
    Proxy(Proxy),
}

/// A reverse proxy, as plain as it can be configured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Proxy {
    Nginx,
    Haproxy,
    Caddy,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Leasehold => "leasehold",
            Self::Redis => "redis",
            Self::Gateway => "leasehold",
            Self::Proxy(proxy) => proxy.name(),
        }
    }
}

/// A running server. Killed when dropped.
pub(crate) struct Target {
    child: Child,
    pub(crate) kind: Kind,
    pub(crate) address: String,
    /// Kept open: what is printed after the address has somewhere to go.
    _stdout: Option<BufReader<ChildStdout>>,
}

impl Proxy {
    /// Its name, and that of its program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
        }
    }

    /// How it listens at `port` and passes everything on to `upstream`, on one thread where it lets
    /// one choose, with connections that are kept, and without a log of requests.
    fn configuration(self, port: u16, upstream: &str, folder: &str) -> String {
        match self {
            Self::Nginx => format!(
                "daemon off; master_process off; pid {folder}/pid; \
                 error_log stderr crit;\n\
                 events {{ worker_connections 4096; }}\n\
                 http {{ access_log off; keepalive_requests 1000000000;\n\
                 client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; \
                 fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; \
                 scgi_temp_path {folder}/e;\n\
                 upstream u {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}\n\
                 server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; \
                 proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
            ),
            Self::Haproxy => format!(
                "global\n nbthread 1\n maxconn 4000\ndefaults\n mode http\n \
                 timeout connect 5s\n timeout client 60s\n timeout server 60s\n \
                 http-reuse always\nfrontend f\n bind 127.0.0.1:{port}\n default_backend b\n\
                 backend b\n server s {upstream}\n"
            ),
            Self::Caddy => format!(
                "{{\n admin off\n auto_https off\n log default {{\n level ERROR\n }}\n}}\n\
                 http://:{port} {{\n bind 127.0.0.1\n reverse_proxy {upstream}\n}}\n"
            ),
        }
    }

    fn command(self, file: &Path) -> Command {
        let mut command = Command::new(self.name());
        match self {
            Self::Nginx => command.arg("-c").arg(file),
            Self::Haproxy => command.args(["-db", "-f"]).arg(file),
            Self::Caddy => command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file),
        };
        command
    }
}

impl Target {
    pub(crate) fn floor() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["floor", "--listen", "127.0.0.1:0"]);
        Self::start(Kind::Floor, command, "http://")
    }

    /// The server program on a data folder, which need not exist.
    pub(crate) fn leasehold(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder);
        Self::start(Kind::Leasehold, command, "http://")
    }

    /// The server program before what listens at `upstream`.
    pub(crate) fn gateway(program: &Path, folder: &Path, upstream: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--upstream"]);
        command.arg(format!("http://{upstream}")).arg("--data").arg(folder);
        Self::start(Kind::Gateway, command, "http://")
    }

    /// A reverse proxy before what listens at `upstream`.
    pub(crate) fn proxy(proxy: Proxy, folder: &Path, upstream: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let port = free_port()?;
        let file = folder.join("configuration");
        let shown = folder.to_str().context("the folder's name is no text")?;
        std::fs::write(&file, proxy.configuration(port, upstream, shown))?;
        let mut command = proxy.command(&file);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env("HOME", &folder)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let address = format!("127.0.0.1:{port}");
        let mut target =
            Self { child, kind: Kind::Proxy(proxy), address: address.clone(), _stdout: None };
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&address).is_err() {
            if until < Instant::now() || target.child.try_wait()?.is_some() {
                bail!("{command:?} does not listen");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(target)
    }

    /// Redis on an empty folder: each change is on the disk before its answer.
    pub(crate) fn redis(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        // Redis does not tell the port it was given for port 0: a port that is free now.
        let port = free_port()?;
        let mut command = Command::new(program);
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(folder);
        let mut target = Self::start(Kind::Redis, command, "Ready to accept connections")?;
        target.address = format!("127.0.0.1:{port}");
        Ok(target)
    }

    /// Starts a process and reads what it prints until a line says that it is ready: the word
    /// after `ready` is where.
    fn start(kind: Kind, mut command: Command, ready: &str) -> anyhow::Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            if stdout.read_line(&mut line)? == 0 {
                bail!("{command:?} ended before it was ready; it said: {said}");
            }
            if let Some((_, at)) = line.split_once(ready) {
                break at.split_whitespace().next().unwrap_or_default().to_owned();
            }
            said.push_str(&line);
        };
        Ok(Self { child, kind, address, _stdout: Some(stdout) })
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU seconds that the process has used so far, all its threads and the processes that it has
    /// started.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let mut ticks = 0.0;
        for process in self.processes()? {
            ticks += cpu_ticks(process)?;
        }
        // Linux counts in hundredths of a second towards programs, whatever its own tick is.
        Ok(ticks / 100.0)
    }

    /// Bytes of memory that are resident.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        let mut kib = 0.0;
        for process in self.processes()? {
            let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            kib += line
                .and_then(|rest| rest.split_whitespace().next())
                .context("no VmRSS")?
                .parse::<f64>()?;
        }
        Ok(kib * 1024.0)
    }

    /// The process, and those that a proxy has started to do its work.
    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let mut processes = vec![self.child.id()];
        if let Kind::Proxy(_) = self.kind {
            for entry in std::fs::read_dir("/proc")? {
                let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok())
                else {
                    continue;
                };
                if parent(id) == Some(self.child.id()) {
                    processes.push(id);
                }
            }
        }
        Ok(processes)
    }

    /// Ends it as a service manager does, and waits: a server that was built to count what it runs
    /// writes that down when it stops.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let told = Command::new("kill").arg(self.child.id().to_string()).status()?;
        if !told.success() {
            bail!("cannot stop the server");
        }
        let until = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait()?.is_none() {
            if until < Instant::now() {
                bail!("the server did not stop within a minute");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens at now.
fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// What of `/proc/ID/stat` is behind the name, which may have spaces.
fn stat(process: u32) -> std::io::Result<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let behind = stat.rsplit(')').next().unwrap_or_default();
    Ok(behind.split_whitespace().map(str::to_owned).collect())
}

fn cpu_ticks(process: u32) -> anyhow::Result<f64> {
    let fields = stat(process)?;
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    Ok(ticks(11).context("no utime")? + ticks(12).context("no stime")?)
}

/// Who started a process; none where it has ended.
fn parent(process: u32) -> Option<u32> {
    stat(process).ok()?.get(1)?.parse().ok()
}

/// An empty folder for one server's data; removed when dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(parent: &Path, name: &str) -> anyhow::Result<Self> {
        let folder = parent.join(format!("bench-{}-{name}", std::process::id()));
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(parent)?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies below a folder for what may be removed.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
