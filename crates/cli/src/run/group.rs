//! The process group of the command.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A process group, known by the process that leads it.
///
/// A number can belong to another group later. As long as the leader has not been waited for, or
/// one of the group lives, it cannot; beyond that, `born` tells two leaders apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Group {
    id: Pid,
    born: Option<u64>,
}

impl Group {
    /// The group that this process leads.
    pub(super) fn led_by(id: i32) -> Self {
        Self { id: Pid::from_raw(id), born: stat(id).map(|stat| stat.born) }
    }

    pub(super) fn id(self) -> Pid {
        self.id
    }

    /// Sends a signal to all of it. One that has gone has nobody left to get it.
    pub(super) fn signal(self, signal: Signal) {
        if self.is_it() {
            let _ = killpg(self.id, signal);
        }
    }

    /// Asks all of it to end, also what is stopped.
    pub(super) fn stop(self) {
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT);
    }

    /// Ends all of it, stopped or not.
    pub(super) fn kill(self) {
        self.signal(Signal::SIGKILL);
    }

    /// Whether none of it is left, not even a leader that was not waited for.
    pub(super) fn has_gone(self) -> bool {
        !self.is_it() || killpg(self.id, None) == Err(Errno::ESRCH)
    }

    /// Whether anything of it still runs. A process that ended and was not waited for does not.
    pub(super) fn runs(self) -> bool {
        let Ok(processes) = fs::read_dir("/proc") else {
            // Without knowledge of its members: whether there is anyone at all.
            return !self.has_gone();
        };
        let mut ids =
            processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        ids.any(|id| stat(id).is_some_and(|stat| stat.group == self.id.as_raw() && !stat.has_ended))
    }

    /// Whether the number is still that of this group. Where the leader has gone, the number is
    /// kept for the members that are left.
    fn is_it(self) -> bool {
        match (self.born, stat(self.id.as_raw())) {
            (Some(born), Some(stat)) => stat.born == born,
            _ => true,
        }
    }
}

/// What `/proc/PID/stat` says of a process.
struct Stat {
    has_ended: bool,
    group: i32,
    /// In ticks since the machine was started.
    born: u64,
}

fn stat(id: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

/// `PID (NAME) STATE PPID PGRP … STARTTIME …`: proc_pid_stat(5). The name may have spaces and
/// parentheses of its own.
fn parse(line: &str) -> Option<Stat> {
    let mut fields = line.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let threads: u32 = fields.nth(14)?.parse().ok()?;
    let born = fields.nth(1)?.parse().ok()?;
    // One whose first thread has ended looks like one that has ended, but for the others.
    Some(Stat { has_ended: matches!(state, "Z" | "X") && threads <= 1, group, born })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let line = "42 (a) Z (b) S 1 40 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1000 0";
        let stat = parse(line).unwrap();
        assert_eq!((stat.has_ended, stat.group, stat.born), (false, 40, 12345));
        let zombie = "42 (a) Z 1 40 41 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 5 1";
        assert!(parse(zombie).unwrap().has_ended);
        assert!(!parse(&zombie.replace("20 0 1", "20 0 2")).unwrap().has_ended);
        assert!(parse("nonsense").is_none());
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(super::stat(own).is_some());
    }

    #[test]
    fn a_number_that_another_has_now_is_not_signalled() {
        let own = i32::try_from(std::process::id()).unwrap();
        let other = Group { id: Pid::from_raw(own), born: Some(1) };
        assert!(other.has_gone());
        // Would end the tests.
        other.kill();
    }
}
