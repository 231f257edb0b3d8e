//! The command under its lock: keeps the lease, passes signals on, and stops the command in time.
//!
//! What always holds:
//! - the command runs only while the watchdog knows its group and the end of its lease;
//! - each time this process wakes, what the clock demands comes before anything else;
//! - the leader of the group is waited for last, so that the group's number stays its own;
//! - the lock is released only when nothing of the group runs any more.

use std::ffi::OsString;
use std::io;
use std::process::Child;
use std::time::Duration;

use leasehold_client::{Error, Lease, Name};
use nix::sys::signal::{Signal, killpg, raise};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::clock::Moment;
use super::gate::Gate;
use super::group::Group;
use super::signals::Signals;
use super::terminal::Terminal;
use super::terms::Terms;
use super::watchdog::Watchdog;
use crate::output::say;

/// Timers may stand still while the machine sleeps: the clock is looked at this often.
const GLANCE: Duration = Duration::from_millis(500);

/// How often it is looked whether the rest of a group has gone.
const REST: Duration = Duration::from_millis(20);

/// The longest that one attempt to renew may take, and the shortest that it is given.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
const ATTEMPT_MIN: Duration = Duration::from_millis(200);

/// How long the release may take when all is over.
const RELEASE: Duration = Duration::from_secs(5);

/// How it went.
#[derive(Debug)]
pub(super) enum Done {
    /// The command ended by itself, with this code.
    Exited(u8),
    /// The lock was not there to the end. The command was stopped, where it still ran.
    LockLost,
}

/// Why the command was asked to end, or killed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The lock is or may soon be another's.
    Lock,
    /// It has ended by itself, and left others of its group behind.
    Rest,
}

/// A renewal under way: with the lease as it is afterwards.
type Renewal = JoinHandle<(Lease, Result<(), Error>)>;

pub(super) struct Supervisor {
    grace: Duration,
    lease: Lease,
    terms: Terms,
    group: Group,
    leader: Child,
    watchdog: Watchdog,
    terminal: Option<Terminal>,
    signals: Signals,
    children: unix::Signal,
    renewal: Option<(Moment, Renewal)>,
    renew_at: Moment,
    /// The last attempt failed, and that has been told.
    in_trouble: bool,
    /// Why and until when it may still run after it was asked to end.
    ending: Option<(End, Moment)>,
    killed: bool,
    exited: Option<u8>,
    /// A SIGTSTP that this process sent to its own job, itself included, is not for the command.
    stopped_job: bool,
}

/// The terms of a lease, by the client's own count.
pub(super) fn terms(lease: &Lease, grace: Duration) -> Terms {
    // Read before what is left: then the end is rather too early than too late.
    let now = Moment::now();
    let info = lease.info();
    let ttl = Duration::try_from_secs_f64(info.ttl_seconds).unwrap_or_default();
    let lasts = Duration::from_millis(info.expires_in_ms).min(ttl);
    Terms::new(now.after(lease.remaining()), lasts, grace)
}

impl Supervisor {
    /// Starts the command. After a failure nothing runs.
    pub(super) fn start(
        lease: &Lease,
        grace: Duration,
        command: &[OsString],
        environment: &[(&str, String)],
        mut signals: Signals,
    ) -> io::Result<Self> {
        let terms = terms(lease, grace);
        signals.take_others()?;
        let children = signal(SignalKind::child())?;
        let mut watchdog = Watchdog::start(grace)?;
        let terminal = Terminal::open();
        match begin(&mut watchdog, &terms, terminal.as_ref(), command, environment) {
            Ok((leader, group)) => Ok(Self {
                grace,
                lease: lease.clone(),
                terms,
                group,
                leader,
                watchdog,
                terminal,
                signals,
                children,
                renewal: None,
                renew_at: terms.renew_at,
                in_trouble: false,
                ending: None,
                killed: false,
                exited: None,
                stopped_job: false,
            }),
            Err(error) => {
                watchdog.dismiss();
                Err(error)
            }
        }
    }

    /// Stays until the command has ended, and its lock is released.
    pub(super) async fn stay(mut self) -> Done {
        loop {
            self.keep_time();
            self.look_after_children();
            if self.exited.is_some() && !self.group.runs() {
                break;
            }
            self.begin_renewal();
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                _ = self.children.recv() => {}
                one = self.signals.next() => {
                    self.keep_time();
                    self.pass_on(one);
                }
                renewed = renewed(&mut self.renewal) => {
                    self.keep_time();
                    self.take_in(renewed);
                }
                () = sleep(wake_at.left().min(GLANCE)) => {}
            }
        }
        self.finish().await
    }

    fn wake_at(&self) -> Moment {
        let mut wake_at = self.terms.kill_at;
        match self.ending {
            Some((_, kill_at)) => wake_at = wake_at.min(kill_at),
            None => wake_at = wake_at.min(self.terms.stop_at),
        }
        if self.may_renew() && self.renewal.is_none() {
            wake_at = wake_at.min(self.renew_at);
        }
        if self.exited.is_some() || self.killed {
            wake_at = Moment::now().after(REST);
        }
        wake_at
    }

    /// What is due by the clock.
    fn keep_time(&mut self) {
        let now = Moment::now();
        let kill_at = match self.ending {
            Some((_, kill_at)) => kill_at.min(self.terms.kill_at),
            None => self.terms.kill_at,
        };
        if self.killed {
            return;
        }
        if kill_at <= now {
            self.group.kill();
            self.killed = true;
            if self.terms.kill_at <= now {
                if self.ending.is_none_or(|(end, _)| end != End::Lock) {
                    say("leasehold: the lock could not be renewed in time: killed the command");
                }
                self.ending = Some((End::Lock, kill_at));
            }
        } else if self.terms.stop_at <= now && self.ending.is_none_or(|(end, _)| end == End::Rest) {
            self.stop(End::Lock, self.terms.kill_at);
            say("leasehold: the lock could not be renewed in time: stopping the command");
        }
    }

    /// Asks the group to end.
    fn stop(&mut self, end: End, kill_at: Moment) {
        self.group.stop();
        let kill_at = kill_at.min(self.terms.kill_at);
        self.ending = Some((end, kill_at));
        // If it is not there any more, that is found elsewhere.
        let _ = self.watchdog.stopping(kill_at);
    }

    /// Ends the group now: the lock is or may be another's.
    fn kill(&mut self) {
        self.group.kill();
        self.killed = true;
        self.ending = Some((End::Lock, Moment::now()));
    }

    fn look_after_children(&mut self) {
        let leader = self.group.id();
        let stopped = waitid(Id::Pid(leader), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG);
        if let Ok(WaitStatus::Stopped(_, by)) = stopped {
            self.be_suspended(by);
        }
        if self.exited.is_none() {
            // It stays to be waited for: its number is the group's.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            self.exited = match waitid(Id::Pid(leader), flags) {
                Ok(WaitStatus::Exited(_, code)) => Some(u8::try_from(code & 0xff).unwrap_or(1)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(code_of(signal)),
                _ => None,
            };
            if self.exited.is_some() && self.ending.is_none() && self.group.runs() {
                say("leasehold: the command has ended; stopping what it left behind");
                self.stop(End::Rest, Moment::now().after(self.grace));
            }
        }
        if self.ending.is_none() && self.watchdog.has_ended() {
            say("leasehold: the watchdog is gone: stopping the command");
            self.stop(End::Lock, Moment::now().after(self.grace));
        }
    }

    /// The command was suspended. On a terminal the whole job is, as the shell expects. Nothing
    /// renews the lock then; if it is not resumed in time, the watchdog ends the command.
    fn be_suspended(&mut self, by: Signal) {
        let Some(terminal) = &self.terminal else { return };
        if self.ending.is_some() {
            return;
        }
        if !terminal.has_shell() {
            if by == Signal::SIGTSTP {
                self.group.signal(Signal::SIGCONT);
            }
            return;
        }
        terminal.take_back(self.group);
        self.stopped_job = killpg(terminal.job(), Signal::SIGTSTP).is_ok();
        let _ = raise(Signal::SIGSTOP);
        // Resumed.
        self.keep_time();
        if self.ending.is_some() {
            return;
        }
        if let Some(terminal) = &self.terminal {
            terminal.give(self.group);
        }
        self.group.signal(Signal::SIGCONT);
        self.renew_at = Moment::now();
    }

    fn pass_on(&mut self, one: Signal) {
        if one == Signal::SIGTSTP && std::mem::take(&mut self.stopped_job) {
            return;
        }
        self.group.signal(one);
    }

    fn may_renew(&self) -> bool {
        !self.killed && self.ending.is_none_or(|(end, _)| end == End::Rest)
    }

    fn begin_renewal(&mut self) {
        if !self.may_renew() || self.renewal.is_some() || !self.renew_at.has_come() {
            return;
        }
        let mut lease = self.lease.clone();
        let longest = (self.terms.stop_at.left() / 2).clamp(ATTEMPT_MIN, ATTEMPT_MAX);
        let renewal = tokio::spawn(async move {
            let renewed = match timeout(longest, lease.renew(None)).await {
                Ok(renewed) => renewed,
                Err(_) => Err(Error::Timeout { after: longest, sent: true }),
            };
            (lease, renewed)
        });
        self.renewal = Some((Moment::now(), renewal));
    }

    fn take_in(&mut self, (began_at, lease, renewed): Renewed) {
        if !self.may_renew() {
            // Too late: it has been asked to end.
            return;
        }
        let error = match renewed {
            Ok(()) => {
                self.lease = lease;
                self.terms = terms(&self.lease, self.grace);
                self.renew_at = self.terms.renew_at;
                if self.watchdog.extend(&self.terms).is_err() {
                    say("leasehold: the watchdog does not listen: stopping the command");
                    self.stop(End::Lock, Moment::now().after(self.grace));
                } else if std::mem::take(&mut self.in_trouble) {
                    say("leasehold: the lock was renewed");
                }
                return;
            }
            Err(error) => error,
        };
        let ends =
            error.is_lost() || error.is(Name::InvalidLockToken) || error.is(Name::NotTheHolder);
        if ends {
            say(&format!("leasehold: the lock was lost, killing the command: {}", told(&error)));
            self.kill();
        } else if error.is(Name::LockChanged) {
            say(&format!(
                "leasehold: the lock is being broken, stopping the command: {}",
                told(&error)
            ));
            let lives = error.problem().and_then(leasehold_client::Problem::ends_in);
            // Where it is not said for how long it lives, it may be over any moment.
            let lives = lives.unwrap_or_default();
            let ends_at = began_at.after(lives);
            self.terms = Terms::new(ends_at.min(self.terms.ends_at), lives, self.grace);
            self.stop(End::Lock, self.terms.kill_at);
            self.keep_time();
        } else {
            let left = self.terms.stop_at.left();
            if !self.in_trouble {
                say(&format!(
                    "leasehold: cannot renew the lock, trying again for {:.1} s: {}",
                    left.as_secs_f64(),
                    told(&error)
                ));
                self.in_trouble = true;
            }
            let pause = (left / 8).clamp(Duration::from_millis(50), Duration::from_secs(2));
            self.renew_at = Moment::now().after(pause);
        }
    }

    /// Nothing of the command runs any more.
    async fn finish(mut self) -> Done {
        if let Some((_, renewal)) = self.renewal.take() {
            renewal.abort();
        }
        if let Some(terminal) = &self.terminal {
            terminal.take_back(self.group);
        }
        self.watchdog.dismiss();
        let _ = self.leader.wait();
        let held = self.ending.is_none_or(|(end, _)| end == End::Rest);
        let left = self.terms.ends_at.left();
        let released = timeout(RELEASE.min(left), self.lease.release()).await;
        let Some(code) = self.exited.filter(|_| held) else { return Done::LockLost };
        match released {
            Ok(Ok(())) => Done::Exited(code),
            Ok(Err(error)) if error.is_lost() => {
                say(&format!(
                    "leasehold: the lock was lost before the command ended: {}",
                    told(&error)
                ));
                Done::LockLost
            }
            // Nobody could have it before the command ended.
            Ok(Err(_)) | Err(_) => {
                say(&format!(
                    "leasehold: cannot reach the server to release the lock; it ends by itself \
                     within {} s",
                    left.as_secs() + 1
                ));
                Done::Exited(code)
            }
        }
    }
}

/// Starts the command, watched over.
fn begin(
    watchdog: &mut Watchdog,
    terms: &Terms,
    terminal: Option<&Terminal>,
    command: &[OsString],
    environment: &[(&str, String)],
) -> io::Result<(Child, Group)> {
    let (gate, mut leader) = Gate::start(command, environment)?;
    let group = Group::led_by(i32::try_from(leader.id()).map_err(io::Error::other)?);
    let mut begun = watchdog.watch(group, terms);
    if begun.is_ok() {
        if let Some(terminal) = terminal {
            terminal.give(group);
        }
        // This process may have stood still meanwhile.
        begun = if terms.stop_at.has_come() {
            Err(io::Error::other("the lock is about to end already"))
        } else {
            gate.open()
        };
    } else {
        drop(gate);
    }
    match begun {
        Ok(()) => Ok((leader, group)),
        Err(error) => {
            // The gate is closed for good: its process ends by itself.
            let _ = leader.wait();
            if let Some(terminal) = terminal {
                terminal.take_back(group);
            }
            Err(error)
        }
    }
}

type Renewed = (Moment, Lease, Result<(), Error>);

/// The end of the renewal that is under way, if one is.
async fn renewed(renewal: &mut Option<(Moment, Renewal)>) -> Renewed {
    let Some((began_at, task)) = renewal else { return std::future::pending().await };
    let began_at = *began_at;
    let joined = task.await;
    *renewal = None;
    match joined {
        Ok((lease, renewed)) => (began_at, lease, renewed),
        // It panicked: `keep_time` ends what is not renewed.
        Err(_) => std::future::pending().await,
    }
}

/// What an error says, with its causes.
fn told(error: &Error) -> String {
    crate::outcome::with_causes(error)
}

/// As the shell has it: 128 and the number of the signal.
pub(super) fn code_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(1)
}
