//! The gate: the process that becomes the command, once the watchdog knows of it.
//!
//! It has the command's process group, its environment and its standard streams, and waits for one
//! byte on a pipe. When the pipe ends without one, because `run` was killed or has thought better
//! of it, nothing is run. So there is no moment at which the command runs and nothing watches it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::unistd::{close, pipe2};

use super::watchdog::SELF;
use crate::outcome::Failure;

/// What its process is started as.
pub(super) const NAME: &str = "run-gate";

/// The gate as `run` sees it: closed.
pub(super) struct Gate {
    opener: File,
}

impl Gate {
    /// Starts the process that will be `command`.
    pub(super) fn start(
        command: &[OsString],
        environment: &[(&str, String)],
    ) -> io::Result<(Self, Child)> {
        let (waits_on, opener) = pipe2(OFlag::O_CLOEXEC)?;
        // The one thing that is handed down beside the standard streams. Nothing else is started
        // before it is closed again.
        fcntl(&waits_on, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let child = Command::new(SELF)
            .arg0("leasehold")
            .args([NAME, &waits_on.as_raw_fd().to_string()])
            .args(command)
            .envs(environment.iter().map(|(name, content)| (name, content)))
            .process_group(0)
            .spawn()?;
        Ok((Self { opener: File::from(opener) }, child))
    }

    /// Lets the command run.
    pub(super) fn open(mut self) -> io::Result<()> {
        self.opener.write_all(b"!")
    }
}

/// Is the gate: becomes the command when it is opened. Comes back only with a failure.
pub(super) fn run(waits_on: RawFd, command: &[OsString]) -> Failure {
    match wait(waits_on) {
        Ok(true) => {}
        Ok(false) => return Failure::silent(1),
        Err(error) => return Failure::failed(format!("cannot wait for the lock: {error}")),
    }
    let Some((program, args)) = command.split_first() else {
        return Failure::usage(vec!["there is no command to run".to_owned()]);
    };
    let error = Command::new(program).args(args).exec();
    // As the shell has it.
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    Failure::with_code(code, format!("cannot run {}: {error}", program.display()))
}

fn wait(waits_on: RawFd) -> io::Result<bool> {
    // The same pipe, opened anew: the command inherits neither this nor what came in.
    let mut pipe = File::open(format!("/proc/self/fd/{waits_on}"))?;
    close(waits_on)?;
    Ok(pipe.read(&mut [0])? == 1)
}
