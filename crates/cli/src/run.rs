//! `leasehold run`: a command under a lock, that is stopped before the lock could be another's.
//!
//! Three processes: this one keeps the lease; the [`gate`] becomes the command, in a process group
//! of its own; and the [`watchdog`] ends that group when the lease ends or this process does.
//!
//! Modules in reading order: the clock ([`clock`]), when what is due ([`terms`](mod@terms)), the command's
//! group ([`group`]), the other two processes ([`watchdog`], [`gate`]), signals and the terminal
//! ([`signals`], [`terminal`]), and what holds them together ([`supervisor`]).

mod clock;
mod gate;
mod group;
mod signals;
mod supervisor;
mod terminal;
mod terms;
mod watchdog;

use std::ffi::OsString;
use std::fs;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Duration;

use leasehold_client::{Error, Lease, LockRequest, Token};

use crate::args::remote::{OnBusy, Output, RunArgs};
use crate::outcome::{Failure, with_causes};
use crate::output::{plain, say};
use crate::remote::certificates::absolute;
use crate::remote::locks::acquire;
use crate::remote::settings::Target;
use crate::remote::{NOT_NOW, Session, failure, is_busy, progress, wait_for};
use clock::Moment;
use signals::Signals;
use supervisor::{Done, Supervisor, code_of, terms};

/// How long a lock is waited for, unless said otherwise.
const WAIT: Duration = Duration::from_secs(30);

/// The lock was lost while the command ran: EX_UNAVAILABLE of sysexits.h.
const LOST: u8 = 69;

/// What `run` starts of itself, beside its command. No commands for people: they are in no help and
/// no completion.
pub(crate) enum Helper {
    Watchdog { grace: Duration },
    Gate { waits_on: RawFd, command: Vec<OsString> },
}

impl Helper {
    /// The helper that this process was started to be, if it was.
    pub(crate) fn named_by(args: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut args = args.into_iter().skip(1);
        let name = args.next()?;
        let mut number = || args.next()?.to_str()?.parse::<u32>().ok();
        if name == watchdog::NAME {
            return Some(Self::Watchdog { grace: Duration::from_millis(number()?.into()) });
        }
        if name == gate::NAME {
            let waits_on = RawFd::try_from(number()?).ok()?;
            return Some(Self::Gate { waits_on, command: args.collect() });
        }
        None
    }

    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Watchdog { grace } => watchdog::run(grace),
            Self::Gate { waits_on, command } => Err(gate::run(waits_on, &command)),
        }
    }
}

pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    // Before there is a second thread.
    terminal::mind_no_background();
    let session = Session::open(&args.remote, Output { json: false, human: false })?;
    wait_for(guard(args, &session))
}

async fn guard(args: &RunArgs, session: &Session) -> Result<(), Failure> {
    let mut signals = Signals::ending().map_err(|error| Failure::because(&error, ""))?;
    let wait =
        args.wait.unwrap_or(if args.on_busy == OnBusy::Wait { WAIT } else { Duration::ZERO });
    let mut wanted = args.wanted.clone();
    wanted.reason = Some(wanted.reason.unwrap_or_else(|| reason(args)));
    let first = args.resources.first().map_or("", String::as_str);
    let until = Moment::now().after(wait);
    let lease = loop {
        let request = acquire(&session.client, &args.resources, &wanted)?;
        let left = until.left();
        let lock = fresh(request.ttl(args.ttl).wait(left), args.grace);
        let acquired = tokio::select! {
            biased;
            // Dropping the request closes its connection: who has gone does not wait any more.
            one = signals.next() => return Err(Failure::silent(code_of(one))),
            acquired = progress::told(&session.client, first, left, lock) => acquired,
        };
        match acquired {
            Ok(lease) => break lease,
            // It came so late that it had ended, or nearly.
            Err(error) if error.is_lost() && !until.has_come() => {}
            Err(error) if is_busy(&error) || error.is_lost() => {
                let line = format!("did not get the lock: {}", plain(&with_causes(&error)));
                if args.on_busy == OnBusy::Skip {
                    say(&format!("leasehold: {line}; skipped the command"));
                    return Ok(());
                }
                return Err(Failure::with_code(NOT_NOW, line));
            }
            Err(error) => return Err(failure(&error, &session.target)),
        }
    };
    let environment = environment(&lease, &session.target);
    let started = Supervisor::start(&lease, args.grace, &args.command, &environment, signals);
    let supervisor = match started {
        Ok(supervisor) => supervisor,
        Err(error) => {
            let _ = lease.release().await;
            return Err(Failure::failed(format!("cannot run the command under the lock: {error}")));
        }
    };
    match supervisor.stay().await {
        Done::Exited(0) => Ok(()),
        Done::Exited(code) => Err(Failure::silent(code)),
        Done::LockLost => Err(Failure::silent(LOST)),
    }
}

/// A lock with most of its time before it: waiting may have used up much of what it came with.
async fn fresh(request: LockRequest, grace: Duration) -> Result<Lease, Error> {
    let mut lease = request.acquire().await?;
    if terms(&lease, grace).renew_at.has_come()
        && let Err(error) = lease.renew(None).await
    {
        let _ = lease.release().await;
        return Err(error);
    }
    Ok(lease)
}

/// What the command is told.
fn environment(lease: &Lease, target: &Target) -> Vec<(&'static str, String)> {
    let token: &Token = lease.token();
    let mut environment = vec![
        ("LEASEHOLD_SERVER", target.url.clone()),
        ("LEASEHOLD_RESOURCE", lease.resource().to_owned()),
        ("LEASEHOLD_TOKEN", token.reveal().to_owned()),
        ("LEASEHOLD_FENCE", lease.fence().to_string()),
        ("LEASEHOLD_LOCK_ID", lease.lock_id().to_string()),
    ];
    // A key that was named by its file serves the command's own calls as well.
    if let Some(file) = &target.key_file {
        environment.push(("LEASEHOLD_KEY_FILE", absolute(file).display().to_string()));
    }
    environment.extend(target.certificates.environment());
    environment
}

/// What others are told who meet the lock: the program, and where it runs. Its arguments may be
/// secrets.
fn reason(args: &RunArgs) -> String {
    let program = args.command.first().map(Path::new).and_then(Path::file_name);
    let program = program.unwrap_or_default().to_string_lossy();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut reason = format!("leasehold run {program}, process {}", std::process::id());
    if !host.trim().is_empty() {
        reason.push_str(&format!(" on {}", host.trim()));
    }
    let mut end = reason.len().min(500);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}
