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
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Leasehold => "leasehold",
            Self::Redis => "redis",
        }
    }
}

/// A running server. Killed when dropped.
pub(crate) struct Target {
    child: Child,
    pub(crate) kind: Kind,
    pub(crate) address: String,
    /// Kept open: what is printed after the address has somewhere to go.
    _stdout: BufReader<ChildStdout>,
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

    /// Redis on an empty folder: each change is on the disk before its answer.
    pub(crate) fn redis(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        // Redis does not tell the port it was given for port 0: a port that is free now.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
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
        Ok(Self { child, kind, address, _stdout: stdout })
    }

    /// CPU seconds that the process has used so far, all its threads.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
        let (user, system) = (ticks(11).context("no utime")?, ticks(12).context("no stime")?);
        // Linux counts in hundredths of a second towards programs, whatever its own tick is.
        Ok((user + system) / 100.0)
    }

    /// Bytes of memory that are resident.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 =
            line.and_then(|rest| rest.split_whitespace().next()).context("no VmRSS")?.parse()?;
        Ok(kib * 1024.0)
    }

    /// Ends it as a service manager does, and waits.
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
