//! The terminal: whose turn it is to read from it.
//!
//! The command has a process group of its own. On a terminal, that would stop it at the first
//! read, and Ctrl-C would go to `run` alone. So the terminal is given to it, as a shell does.

use std::fs::File;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpgrp, getpid, getppid, getsid, tcgetpgrp, tcsetpgrp};

use super::group::Group;

/// The terminal that controls this process.
pub(super) struct Terminal {
    file: File,
    own: Pid,
}

impl Terminal {
    /// None without one: under cron, in CI, in a service.
    pub(super) fn open() -> Option<Self> {
        let file = File::options().read(true).write(true).open("/dev/tty").ok()?;
        tcgetpgrp(&file).ok()?;
        Some(Self { file, own: getpgrp() })
    }

    /// Gives it to the group, if it is ours: a job in the background has none to give.
    pub(super) fn give(&self, group: Group) {
        if tcgetpgrp(&self.file) == Ok(self.own) {
            let _ = tcsetpgrp(&self.file, group.id());
        }
    }

    /// Takes it back from the group, if it still has it.
    pub(super) fn take_back(&self, group: Group) {
        if tcgetpgrp(&self.file) == Ok(group.id()) {
            let _ = tcsetpgrp(&self.file, self.own);
        }
    }

    /// Whether there is a shell that would resume us. Without one (the first process of a
    /// container) the kernel lets nobody be suspended from the terminal, and neither must we.
    pub(super) fn has_shell(&self) -> bool {
        let session = getsid(None);
        session != Ok(getpid()) && session == getsid(Some(getppid()))
    }

    /// The process group that was started with us: what the shell has as one job.
    pub(super) fn job(&self) -> Pid {
        self.own
    }
}

/// Lets this process take the terminal back, and say something, while another has it. Has to come
/// before the first thread is started; what is run has it the usual way again.
pub(super) fn mind_no_background() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTTOU);
    // Without it, `run` is stopped at its end if the terminal asks for that.
    let _ = signals.thread_block();
}
