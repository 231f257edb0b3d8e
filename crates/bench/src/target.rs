//! A server under measurement: a process of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

/// A running server. Killed when dropped.
pub(crate) struct Target {
    child: Child,
    pub(crate) address: String,
    /// Kept open: what is printed after the address has somewhere to go.
    _stdout: std::io::BufReader<std::process::ChildStdout>,
    folder: Option<std::path::PathBuf>,
}

impl Target {
    /// This program's own floor.
    pub(crate) fn floor() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["floor", "--listen", "127.0.0.1:0"]);
        Self::start(command, None)
    }

    /// The server program on an empty data folder, which lies below the current directory so that
    /// it is on a real disk.
    pub(crate) fn server(program: &Path) -> anyhow::Result<Self> {
        let folder = std::env::current_dir()?
            .join("target")
            .join(format!("bench-data-{}", std::process::id()));
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&folder);
        Self::start(command, Some(folder))
    }

    fn start(mut command: Command, folder: Option<std::path::PathBuf>) -> anyhow::Result<Self> {
        use std::io::BufRead;
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(stdout);
        stdout.read_line(&mut line)?;
        let Some(at) = line.find("http://") else { bail!("the server said: {line}") };
        let address = line[at + 7..].split_whitespace().next().unwrap_or_default().to_owned();
        Ok(Self { child, address, _stdout: stdout, folder })
    }

    /// CPU seconds that the process has used so far.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
        let (user, system) = (ticks(11).context("no utime")?, ticks(12).context("no stime")?);
        // Linux counts in hundredths of a second towards programs, whatever its own tick is.
        Ok((user + system) / 100.0)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
