//! What has happened: the newest lines, and a digest of all.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

/// How many lines are kept for whoever looks for the cause of a failure.
const KEPT: usize = 120;

/// The history of a world.
#[derive(Clone, Debug, Default)]
pub struct History {
    step: u64,
    lines: VecDeque<String>,
    hasher: Sha256,
    is_printed: bool,
}

impl History {
    /// Prints each line from now on.
    pub fn print(&mut self) {
        self.is_printed = true;
    }

    /// The next step begins.
    pub fn step(&mut self) {
        self.step += 1;
    }

    /// Adds a line.
    pub fn note(&mut self, line: fmt::Arguments<'_>) {
        let mut text = format!("{:>6}  ", self.step);
        // Writing to a String cannot fail.
        let _ = text.write_fmt(line);
        self.hasher.update(&text);
        self.hasher.update(b"\n");
        if self.is_printed {
            #[allow(clippy::print_stderr, reason = "asked for on the command line")]
            {
                eprintln!("{text}");
            }
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(text);
    }

    /// The newest lines.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// A digest of all lines, and of these parts.
    #[must_use]
    pub fn digest(&self, log: &[u8], disk: &[u8]) -> String {
        let mut hasher = self.hasher.clone();
        hasher.update(log);
        hasher.update(disk);
        let digest: [u8; 32] = hasher.finalize().into();
        leasehold_journal::log::hex(&digest)
    }
}
