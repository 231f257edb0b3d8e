//! `leasehold explain`: what a status or a problem name means, for a terminal.

use std::fmt::Write as _;

use crate::catalogue::{Entry, Name};
use crate::page;
use crate::status::Status;
use crate::wrap::wrap;

const WIDTH: usize = 80;

/// Explains a query: a status that the server answers with (`423`), a problem name (`locked`),
/// both (`423 locked`), or the `type` of a problem document (`/-/problems/locked`).
///
/// # Errors
/// When the query is none of these: a sentence that lists names near to it.
pub fn explain(query: &str) -> Result<String, String> {
    let words: Vec<String> = query.split_whitespace().map(plain).collect();
    let (status, words) = match words.split_first() {
        Some((first, rest)) if first.bytes().all(|byte| byte.is_ascii_digit()) => {
            (Some(known_status(first)?), rest)
        }
        Some(_) => (None, &words[..]),
        None => return Err(format!("Say what to explain. {}", usage())),
    };
    match (status, words) {
        (Some(status), []) => Ok(explain_status(status)),
        (status, words) => explain_name(status, &words.join("-")),
    }
}

/// A word of the query as names are written: `Lock_Lost` and `/-/problems/lock-lost` are
/// `lock-lost`.
fn plain(word: &str) -> String {
    let word = word.trim_end_matches('/');
    let last = word.rsplit('/').next().unwrap_or(word);
    last.trim_matches(|c: char| !c.is_alphanumeric()).replace('_', "-").to_lowercase()
}

fn known_status(word: &str) -> Result<&'static Status, String> {
    word.parse().ok().and_then(Status::find).ok_or_else(|| {
        let codes: Vec<_> = Status::ALL.iter().map(|status| status.code.to_string()).collect();
        format!("{word} is not a status that Leasehold answers with. It uses {}.", codes.join(", "))
    })
}

fn explain_name(status: Option<&'static Status>, word: &str) -> Result<String, String> {
    let Some(name) = Name::parse(word) else {
        // `409 conflict` and `404 not found` are the status with its own title.
        return match status {
            Some(status) if title(status) == word => Ok(explain_status(status)),
            Some(_) => Err(unknown(word)),
            None => match Status::ALL.iter().find(|status| title(status) == word) {
                Some(status) => Ok(explain_status(status)),
                None => Err(unknown(word)),
            },
        };
    };
    let entry = name.entry();
    match status {
        Some(status) if !answers(entry, status.code) => Err(format!(
            "{name} is answered with {}, not with {}. Names of {}: {}.",
            entry.status.as_u16(),
            status.code,
            status.code,
            list(Name::by_status(status.code)),
        )),
        _ => Ok(page::text(entry)),
    }
}

/// Whether answers of this name can have this status.
fn answers(entry: &Entry, code: u16) -> bool {
    // A rule with `locked_status = 409` gives refused acquires another status.
    entry.status.as_u16() == code || (entry.name == Name::Locked.as_str() && code == 409)
}

fn title(status: &Status) -> String {
    status.title.to_lowercase().replace(' ', "-")
}

fn explain_status(status: &Status) -> String {
    let mut page = format!("{} {}\n\n", status.code, status.title);
    page.push_str(&wrap(status.meaning, WIDTH, "", ""));
    let names: Vec<_> = Name::by_status(status.code).collect();
    if !names.is_empty() {
        page.push_str("\nProblems with this status\n");
        for name in &names {
            let line = format!("{name}: {}", first_sentence(name.entry().meaning));
            page.push_str(&wrap(&line, WIDTH, "  - ", "    "));
        }
    }
    page.push_str("\nDefined in\n");
    let section = &status.defined_in;
    let _ = write!(page, "  - {section}\n    {}\n", section.url());
    if let Some(name) = names.first() {
        let _ = write!(page, "\nMore: leasehold explain {name}\n");
    }
    page
}

fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..=end])
}

fn unknown(word: &str) -> String {
    let near = near(word);
    if near.is_empty() {
        let all = list(Name::ALL.iter().copied());
        return format!("There is no problem `{word}`. {} The names: {all}.", usage());
    }
    format!("There is no problem `{word}`. Near to it: {}.", list(near.into_iter()))
}

fn usage() -> &'static str {
    "A status such as 423, a name such as `locked`, or both."
}

fn list(names: impl Iterator<Item = Name>) -> String {
    let names: Vec<_> = names.map(Name::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The names near to `word`, nearest first, at most five.
fn near(word: &str) -> Vec<Name> {
    let mut near: Vec<(usize, Name)> = Name::ALL
        .iter()
        .filter_map(|name| {
            let text = name.as_str();
            let distance = distance(word, text);
            // A part of a name that is a word of its own is as good as a slip of the pen.
            let shares = word.len() >= 3
                && (text.contains(word)
                    || word
                        .split('-')
                        .any(|part| part.len() >= 3 && text.split('-').any(|other| other == part)));
            (distance * 3 <= text.len() || shares).then_some((distance, *name))
        })
        .collect();
    near.sort_by_key(|(distance, name)| (*distance, name.as_str()));
    near.into_iter().take(5).map(|(_, name)| name).collect()
}

/// How many characters have to be inserted, removed or replaced to make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_explained_with_its_names() {
        for status in Status::ALL {
            let page = explain(&status.code.to_string()).expect("is known");
            assert!(page.starts_with(&format!("{} {}\n", status.code, status.title)));
            for name in Name::by_status(status.code) {
                assert!(page.contains(name.as_str()), "{}: {name}", status.code);
            }
            for line in page.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }

    #[test]
    fn a_name_is_explained_however_it_is_written() {
        let page = page::text(Name::LockLost.entry());
        for query in [
            "lock-lost",
            " lock-lost ",
            "Lock-Lost",
            "lock_lost",
            "lock lost",
            "412 lock-lost",
            "412 Lock lost",
            "/-/problems/lock-lost",
            "https://locks.example/-/problems/lock-lost/",
            "`lock-lost`",
        ] {
            assert_eq!(explain(query).as_ref(), Ok(&page), "{query}");
        }
        assert_eq!(explain("409 locked"), explain("locked"));
    }

    #[test]
    fn the_title_of_a_status_is_the_status() {
        assert_eq!(explain("409 Conflict"), explain("409"));
        assert_eq!(explain("conflict"), explain("409"));
        assert_eq!(explain("No Content"), explain("204"));
        // Where both are called the same, the problem is meant.
        assert!(explain("not-found").is_ok_and(|page| page.contains("(not-found)")));
    }

    #[test]
    fn an_unknown_name_lists_names_near_to_it() {
        for (query, near) in [
            ("loked", "locked"),
            ("lock-losst", "lock-lost"),
            ("mismatch", "lock-mismatch"),
            ("token", "invalid-lock-token"),
            ("precondition", "precondition-failed"),
            ("412 lock", "lock-lost"),
            ("ttl", "ttl-out-of-range"),
        ] {
            let error = explain(query).expect_err(query);
            assert!(error.contains(near), "{query}: {error}");
        }
        let error = explain("zzz").expect_err("is unknown");
        assert!(error.contains("malformed-request") && error.contains("storage-failure"));
    }

    #[test]
    fn a_status_that_is_unknown_or_not_that_of_the_name_is_said_so() {
        assert!(explain("418").is_err_and(|error| error.starts_with("418 is not a status")));
        assert!(explain("99999999999").is_err());
        assert!(explain("").is_err() && explain("  ").is_err());
        let error = explain("412 frozen").expect_err("is 423");
        assert!(error.contains("423") && error.contains("lock-lost"), "{error}");
    }

    #[test]
    fn distance_counts_edits() {
        for (a, b, edits) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("é", "e", 1)] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
