//! The watchdog: a process of its own that ends the command's group when the lease does, whatever
//! has become of `leasehold run`.
//!
//! `run` writes lines to its standard input, and it ends the group:
//! - when its time comes, also while `run` stands still;
//! - when the pipe is closed without a word, because `run` was killed: SIGTERM, and SIGKILL after
//!   the grace, or earlier where the lease ends earlier.
//!
//! It has a session of its own and takes no signal that can be blocked: what stops or ends a whole
//! terminal or service does not end the protection first. It knows no key and no token.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::setsid;

use super::clock::Moment;
use super::group::Group;
use super::terms::Terms;
use crate::outcome::Failure;
use crate::output::say;

/// What its process is started as.
pub(super) const NAME: &str = "run-watchdog";

/// The program's own file, also after it was replaced on disk.
pub(super) const SELF: &str = "/proc/self/exe";

/// How long a watchdog may take to answer. It has next to nothing to do.
const ANSWER: Duration = Duration::from_secs(10);

/// How much later than `run` the watchdog sends SIGTERM: two of them look like impatience to some
/// programs.
const AFTER_RUN: Duration = Duration::from_millis(200);

/// How often it looks whether a group that was asked to end has gone.
const GLANCE: Duration = Duration::from_millis(20);

/// The watchdog as `run` sees it.
pub(super) struct Watchdog {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Watchdog {
    /// Starts one, and waits until it is ready.
    pub(super) fn start(grace: Duration) -> io::Result<Self> {
        let mut child = Command::new(SELF)
            .arg0("leasehold")
            .args([NAME, &grace.as_millis().min(u32::MAX.into()).to_string()])
            // It outlives `run`, and must not keep a folder or a secret.
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let gone = || io::Error::other("the watchdog has no pipes");
        let orders = child.stdin.take().ok_or_else(gone)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(gone)?);
        // A watchdog that somebody has stopped must not stop `run`.
        fcntl(&orders, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut watchdog = Self { child, orders, answers };
        watchdog.answer("ready")?;
        Ok(watchdog)
    }

    /// Whether it is gone, which nothing but a signal from outside explains.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// What it is to watch, and until when. It has taken that in when this returns.
    pub(super) fn watch(&mut self, group: Group, terms: &Terms) -> io::Result<()> {
        self.extend(terms)?;
        writeln!(self.orders, "group {}", group.id())?;
        self.answer("watching")
    }

    /// The lease was renewed.
    pub(super) fn extend(&mut self, terms: &Terms) -> io::Result<()> {
        let (stop_at, kill_at) = (terms.stop_at.after(AFTER_RUN), terms.kill_at);
        let stop_at = stop_at.min(kill_at);
        writeln!(self.orders, "lease {} {}", stop_at.as_nanos(), kill_at.as_nanos())
    }

    /// The group has been asked to end, and is to be killed then.
    pub(super) fn stopping(&mut self, kill_at: Moment) -> io::Result<()> {
        writeln!(self.orders, "stopping {}", kill_at.as_nanos())
    }

    /// The group has gone: so may the watchdog.
    pub(super) fn dismiss(mut self) {
        let told = writeln!(self.orders, "done");
        drop(self.orders);
        if told.is_err() {
            // It does not listen; it has nobody to watch over either.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }

    fn answer(&mut self, expected: &str) -> io::Result<()> {
        let mut ready = [PollFd::new(self.answers.get_ref().as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(ANSWER).unwrap_or(PollTimeout::MAX);
        loop {
            match poll(&mut ready, timeout) {
                Ok(0) => return Err(io::Error::other("it does not answer")),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.trim_end() == expected {
            return Ok(());
        }
        Err(io::Error::other("it ended at once"))
    }
}

/// Is the watchdog, until it is dismissed or its group has gone.
pub(super) fn run(grace: Duration) -> Result<(), Failure> {
    let because = |errno: Errno| Failure::because(&io::Error::from(errno), "");
    let mut blocked = SigSet::all();
    // What tells of a bug of our own is not held back.
    for fault in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT]
    {
        blocked.remove(fault);
    }
    blocked.thread_block().map_err(because)?;
    setsid().map_err(because)?;
    let timer =
        TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK);
    let timer = timer.map_err(because)?;
    answer("ready")?;
    let mut watch = Watch { grace, ..Watch::default() };
    let mut orders = io::stdin().lock();
    let mut pending = Vec::new();
    while let Some(wake_at) = watch.look(Moment::now()) {
        match wake_at {
            Some(moment) => timer
                .set(
                    Expiration::OneShot(moment.as_timespec()),
                    TimerSetTimeFlags::TFD_TIMER_ABSTIME,
                )
                .map_err(because)?,
            None => timer.unset().map_err(because)?,
        }
        let mut ready = [
            PollFd::new(timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(orders.as_fd(), PollFlags::POLLIN),
        ];
        // A pipe whose other end has gone is ready for ever.
        let watched = if watch.alone { &mut ready[..1] } else { &mut ready[..] };
        match poll(watched, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(because(error)),
        }
        // What is due goes before anything that is told.
        if watch.alone || watch.is_due(Moment::now()) || !has_come(&ready[1]) {
            continue;
        }
        let mut bytes = [0; 4096];
        match orders.read(&mut bytes) {
            Ok(0) => watch.left_alone(Moment::now()),
            Ok(read) => pending.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => watch.left_alone(Moment::now()),
        }
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            watch.told(String::from_utf8_lossy(&line).trim_end());
            if line.starts_with(b"group ") {
                answer("watching")?;
            }
        }
    }
    Ok(())
}

fn has_come(fd: &PollFd<'_>) -> bool {
    fd.any().unwrap_or(true)
}

fn answer(word: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}

/// What a watchdog knows, and what follows from it.
#[derive(Debug, Default)]
struct Watch {
    grace: Duration,
    group: Option<Group>,
    stop_at: Option<Moment>,
    kill_at: Option<Moment>,
    /// It is to end: there is nothing to watch any more.
    dismissed: bool,
    /// `run` has gone.
    alone: bool,
}

impl Watch {
    fn told(&mut self, order: &str) {
        let mut words = order.split(' ');
        let verb = words.next();
        let mut number = || words.next()?.parse::<u64>().ok();
        match verb {
            Some("group") => {
                self.group = number().and_then(|id| i32::try_from(id).ok()).map(Group::led_by);
            }
            Some("lease") => {
                self.stop_at = number().map(Moment::from_nanos);
                self.kill_at = number().map(Moment::from_nanos);
            }
            Some("stopping") => {
                self.stop_at = None;
                self.kill_at = number().map(Moment::from_nanos);
            }
            Some("done") => self.dismissed = true,
            // Both sides are the same file: there is no other word.
            _ => {}
        }
    }

    /// `run` has gone without a word.
    fn left_alone(&mut self, now: Moment) {
        self.alone = true;
        if self.group.is_some() && !self.dismissed {
            say("leasehold: `run` was killed: stopping its command");
        }
        let kill_at = now.after(self.grace);
        self.stop_at = Some(now);
        self.kill_at = Some(self.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
    }

    fn is_due(&self, now: Moment) -> bool {
        [self.stop_at, self.kill_at].into_iter().flatten().any(|moment| moment <= now)
    }

    /// Does what is due. Answers with when to look again, or with nothing when all is done.
    fn look(&mut self, now: Moment) -> Option<Option<Moment>> {
        let Some(group) = self.group.filter(|_| !self.dismissed) else {
            return (!self.dismissed && !self.alone).then_some(None);
        };
        if self.kill_at.is_some_and(|moment| moment <= now) {
            group.kill();
            (self.stop_at, self.kill_at) = (None, None);
            if self.alone {
                return None;
            }
        }
        if self.stop_at.is_some_and(|moment| moment <= now) {
            group.stop();
            self.stop_at = None;
        }
        if self.alone {
            if group.has_gone() {
                return None;
            }
            return Some(Some(self.kill_at.map_or(now, |at| at.min(now.after(GLANCE)))));
        }
        Some([self.stop_at, self.kill_at].into_iter().flatten().min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(nanos)
    }

    /// Watches over a group that there is not.
    fn watching() -> Watch {
        let mut watch = Watch { grace: Duration::from_nanos(50), ..Watch::default() };
        assert_eq!(watch.look(at(0)), Some(None));
        watch.told("lease 100 200");
        watch.told("group 2147483600");
        watch
    }

    #[test]
    fn it_stops_and_then_kills_when_the_lease_is_not_renewed() {
        let mut watch = watching();
        assert_eq!(watch.look(at(99)), Some(Some(at(100))));
        watch.told("lease 150 250");
        assert_eq!(watch.look(at(100)), Some(Some(at(150))));
        assert_eq!(watch.look(at(150)), Some(Some(at(250))));
        assert_eq!(watch.look(at(250)), Some(None));
        watch.told("done");
        assert_eq!(watch.look(at(300)), None);
    }

    #[test]
    fn it_does_not_stop_again_what_run_has_stopped() {
        let mut watch = watching();
        watch.told("stopping 180");
        assert_eq!(watch.look(at(120)), Some(Some(at(180))));
    }

    #[test]
    fn alone_it_stops_at_once_and_goes_when_the_group_has_gone() {
        let mut watch = watching();
        watch.left_alone(at(10));
        assert_eq!(watch.kill_at, Some(at(60)));
        assert!(watch.is_due(at(10)));
        assert_eq!(watch.look(at(10)), None);
        let mut watch = Watch::default();
        watch.left_alone(at(10));
        assert_eq!(watch.look(at(10)), None);
        let mut watch = watching();
        watch.left_alone(at(190));
        assert_eq!(watch.kill_at, Some(at(200)));
    }
}
