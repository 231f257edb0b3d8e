//! The signals that `run` gets, and passes on.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// What ends a process that does not mind it.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// What is for the command, when there is one.
const OTHERS: [Signal; 5] =
    [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH, Signal::SIGTSTP, Signal::SIGCONT];

/// Signals, from now on.
pub(super) struct Signals {
    streams: Vec<(Signal, unix::Signal)>,
}

impl Signals {
    /// Those that end a process.
    pub(super) fn ending() -> io::Result<Self> {
        let mut signals = Self { streams: Vec::new() };
        signals.add(&ENDING)?;
        Ok(signals)
    }

    /// And all others that a command may want.
    pub(super) fn take_others(&mut self) -> io::Result<()> {
        self.add(&OTHERS)
    }

    fn add(&mut self, signals: &[Signal]) -> io::Result<()> {
        let ignored = ignored();
        for one in signals {
            // What was ignored before (`nohup`) stays so, for the command as well: a handler
            // would be undone in what is run, and the signal would end it.
            if ignored & (1 << (*one as u32 - 1)) == 0 {
                self.streams.push((*one, signal(SignalKind::from_raw(*one as i32))?));
            }
        }
        Ok(())
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (one, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*one);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The signals that this process was started to ignore, as a mask.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
