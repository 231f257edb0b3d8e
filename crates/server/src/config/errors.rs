//! Mistakes in the configuration: each with the place it was made at, all reported together.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where a setting was made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// In the file; line and column count from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// The file as a whole: it could not be read.
    WholeFile(PathBuf),
    /// By a flag, or by the environment variable that stands for it.
    Flag {
        /// The flag, with both dashes.
        flag: &'static str,
        /// The variable.
        variable: &'static str,
    },
    /// Nowhere: what is wrong follows from several settings or from defaults.
    Settings,
}

/// One mistake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// Where it was made.
    pub place: Place,
    /// What is wrong, and which values are accepted.
    pub message: String,
}

/// Every mistake that was found, in the order of the file. Never empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::WholeFile(path) => write!(f, "{}", path.display()),
            Self::Flag { flag, variable } => write!(f, "{flag} (or {variable})"),
            Self::Settings => f.write_str("configuration"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl fmt::Display for ConfigErrors {
    /// One line for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<ConfigError>);

impl Mistakes {
    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.0.push(ConfigError { place: place.clone(), message: message.into() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of the file, then the flags, then what follows from several settings.
    pub(super) fn into_errors(mut self) -> ConfigErrors {
        self.0.sort_by_key(|error| match &error.place {
            Place::WholeFile(_) => (0, 0, 0),
            Place::File { line, column, .. } => (1, *line, *column),
            Place::Flag { .. } => (2, 0, 0),
            Place::Settings => (3, 0, 0),
        });
        ConfigErrors(self.0)
    }
}

/// A file's text, to find lines in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// The place where `span` begins.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place::File {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}
