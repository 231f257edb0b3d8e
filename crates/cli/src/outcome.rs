//! How a command ends: a code, and one line on standard error that says what to do.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Whether the line is JSON for a program to read.
    is_json: bool,
    /// Lines for standard error. None where everything has been said, or nobody listens.
    lines: Vec<String>,
}

impl Failure {
    /// It failed.
    pub(crate) fn failed(line: impl Into<String>) -> Self {
        Self { code: 1, is_json: false, lines: vec![line.into()] }
    }

    /// It was asked for in a way that cannot be done; a line for each mistake.
    pub(crate) fn usage(lines: Vec<String>) -> Self {
        Self { code: 2, is_json: false, lines }
    }

    /// The trail is not as it should be.
    pub(crate) fn unverified(line: impl Into<String>) -> Self {
        Self { code: 3, is_json: false, lines: vec![line.into()] }
    }

    /// The server cannot be reached, or does not answer.
    pub(crate) fn unreachable(line: impl Into<String>) -> Self {
        Self { code: 4, is_json: false, lines: vec![line.into()] }
    }

    /// Another code than these.
    pub(crate) fn with_code(code: u8, line: impl Into<String>) -> Self {
        Self { code, is_json: false, lines: vec![line.into()] }
    }

    /// For a program: a JSON document on standard error.
    pub(crate) fn as_json(code: u8, json: String) -> Self {
        Self { code, is_json: true, lines: vec![json] }
    }

    /// The same with this code.
    pub(crate) fn coded(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// It is passed on how another program ended, which has said what there is to say.
    pub(crate) fn silent(code: u8) -> Self {
        Self { code, is_json: false, lines: Vec::new() }
    }

    /// It failed with `error`; all its causes are told, and `hint` says what to do.
    pub(crate) fn because(error: &dyn Error, hint: &str) -> Self {
        let mut line = with_causes(error);
        if !hint.is_empty() {
            line.push_str("; ");
            line.push_str(hint);
        }
        Self::failed(line)
    }

    /// Tells it, and makes the code of it.
    pub(crate) fn report(&self) -> ExitCode {
        let mut stderr = io::stderr().lock();
        for line in &self.lines {
            let who = if self.is_json { "" } else { "leasehold: " };
            // Nobody is left to tell that standard error is gone.
            let _ = writeln!(stderr, "{who}{line}");
        }
        ExitCode::from(self.code)
    }
}

/// An error and all its causes, in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors repeat their cause.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

/// Standard output is gone. A reader that has enough (`| head`) is no failure to tell of.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { code: 0, is_json: false, lines: Vec::new() },
            _ => Self::failed(format!("cannot write to standard output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_causes() {
        let inner = io::Error::other("disk gone");
        let outer = leasehold_server::identity::KeyStoreError::Io {
            action: "read",
            path: "/keys.json".into(),
            source: inner,
        };
        let failure = Failure::because(&outer, "mount it");
        assert_eq!(failure.lines, ["cannot read /keys.json: disk gone; mount it"]);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).code, 0);
    }
}
