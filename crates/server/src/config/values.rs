//! One setting's value, from the file or from a flag, read into what it means.
//!
//! Each reader answers `Err` with a whole sentence that ends in the accepted values; where the
//! setting was made is added by whoever asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use leasehold_core::pattern::Pattern;
use leasehold_core::resource::Resource;
use leasehold_faces::json_api::endpoint;
use toml::de::DeValue;

use super::units;
use crate::browser::Origin;

/// A value as it was written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// In the file.
    Toml(&'a DeValue<'a>),
    /// As a flag or a variable.
    Text(&'a str),
}

impl<'a> Value<'a> {
    pub(super) fn text(self, expected: &str) -> Result<&'a str, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Toml(DeValue::String(text)) => Ok(text),
            Self::Toml(other) => Err(mismatch(expected, other)),
        }
    }

    pub(super) fn duration(self) -> Result<Duration, String> {
        units::duration(self.text(units::DURATIONS)?)
    }

    /// A size; a bare number counts bytes.
    pub(super) fn size(self) -> Result<u64, String> {
        match self {
            Self::Toml(DeValue::Integer(number)) => units::size(&number.to_string()),
            _ => units::size(self.text(units::SIZES)?),
        }
    }

    pub(super) fn whole(self, range: RangeInclusive<u64>) -> Result<u64, String> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let (text, radix) = match self {
            Self::Text(text) => (text, 10),
            Self::Toml(DeValue::Integer(number)) => (number.as_str(), number.radix()),
            Self::Toml(other) => return Err(mismatch(&expected, other)),
        };
        match u64::from_str_radix(text, radix) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("`{text}` is not {expected}")),
        }
    }

    pub(super) fn boolean(self) -> Result<bool, String> {
        match self {
            Self::Toml(DeValue::Boolean(boolean)) => Ok(*boolean),
            Self::Toml(other) => Err(mismatch("true or false", other)),
            Self::Text("true") => Ok(true),
            Self::Text("false") => Ok(false),
            Self::Text(text) => Err(format!("`{text}` is neither true nor false")),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Result<T, String> {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let words = one_of(&words);
        let text = self.text(&words)?;
        let found = choices.iter().find(|(word, _)| *word == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| format!("`{text}` is not {words}"))
    }

    /// An address to listen on.
    pub(super) fn address(self) -> Result<SocketAddr, String> {
        const EXPECTED: &str =
            "an IP address and a port such as \"127.0.0.1:7423\" or \"[::]:7423\"";
        let text = self.text(EXPECTED)?;
        let localhost = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        match localhost {
            Some(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => text.parse().map_err(|_| format!("`{text}` is not {EXPECTED}")),
        }
    }

    /// A folder's path.
    pub(super) fn folder(self) -> Result<std::path::PathBuf, String> {
        match self.text("the path of a folder")? {
            "" => Err("the path of the folder is empty".to_owned()),
            text => Ok(text.into()),
        }
    }

    /// A file's path.
    pub(super) fn file(self) -> Result<std::path::PathBuf, String> {
        match self.text("the path of a file")? {
            "" => Err("the path of the file is empty".to_owned()),
            text => Ok(text.into()),
        }
    }

    /// The prefix of the server's own space: one segment between two slashes.
    pub(super) fn prefix(self) -> Result<String, String> {
        const EXPECTED: &str = "one path segment between two slashes such as \"/-/\"";
        let text = self.text(EXPECTED)?;
        if !endpoint::is_prefix(text) {
            return Err(format!("`{text}` is not {EXPECTED}"));
        }
        Ok(text.to_owned())
    }

    /// The suffix of the lock endpoints: a slash and one segment.
    pub(super) fn suffix(self) -> Result<String, String> {
        const EXPECTED: &str = "a slash and one path segment such as \"/lock\"";
        let text = self.text(EXPECTED)?;
        if endpoint::is_action(text) {
            return Err(format!(
                "`{text}` is the name of an action on a lock; choose another, such as \"/lock\""
            ));
        }
        if !endpoint::is_suffix(text) {
            return Err(format!("`{text}` is not {EXPECTED}"));
        }
        Ok(text.to_owned())
    }

    /// A list of texts, each read by `read`; separated by commas elsewhere than in the file.
    pub(super) fn list<T>(
        self,
        expected: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        match self {
            Self::Text(text) => text.split(',').map(|text| read(text.trim())).collect(),
            Self::Toml(DeValue::Array(items)) => {
                let text = |item: &toml::Spanned<DeValue<'_>>| {
                    let text = Value::Toml(item.get_ref()).text("a list of texts")?;
                    read(text)
                };
                items.iter().map(text).collect()
            }
            Self::Toml(other) => Err(mismatch(expected, other)),
        }
    }

    /// Paths of resources.
    pub(super) fn paths(self) -> Result<Vec<Resource>, String> {
        const EXPECTED: &str = "a list of paths such as [\"/files\"]";
        self.list(EXPECTED, |text| {
            Resource::parse(text).map_err(|error| format!("`{text}`: {error}; expected {EXPECTED}"))
        })
    }

    /// Origins: a list in the file, separated by commas elsewhere.
    pub(super) fn origins(self) -> Result<Vec<Origin>, String> {
        const EXPECTED: &str = "a list of origins such as [\"https://app.example.com\"]";
        let texts: Vec<&str> = match self {
            Self::Text(text) => {
                text.split(',').map(str::trim).filter(|text| !text.is_empty()).collect()
            }
            Self::Toml(DeValue::Array(items)) => {
                let mut texts = Vec::new();
                for item in items {
                    texts.push(Value::Toml(item.get_ref()).text("an origin")?);
                }
                texts
            }
            Self::Toml(other) => return Err(mismatch(EXPECTED, other)),
        };
        texts.into_iter().map(|text| text.parse().map_err(|error| format!("{error}"))).collect()
    }

    /// Several path patterns.
    pub(super) fn patterns(self) -> Result<Vec<Pattern>, String> {
        const EXPECTED: &str = "a list of patterns such as [\"/flags/{id}/**\"]";
        match self {
            Self::Toml(DeValue::Array(items)) => {
                items.iter().map(|item| Value::Toml(item.get_ref()).pattern()).collect()
            }
            Self::Toml(other) => Err(mismatch(EXPECTED, other)),
            Self::Text(_) => Err(format!("expected {EXPECTED}")),
        }
    }

    /// A path pattern.
    pub(super) fn pattern(self) -> Result<Pattern, String> {
        const EXPECTED: &str = "a pattern such as \"/flags/{id}/**\"";
        Pattern::parse(self.text(EXPECTED)?)
            .map_err(|error| format!("{error}; expected {EXPECTED}"))
    }
}

fn mismatch(expected: &str, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("expected {expected}, found {found}")
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`.
pub(super) fn one_of(words: &[String]) -> String {
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}
