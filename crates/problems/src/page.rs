//! The page of one name, for each kind of reader.
//!
//! Every function here only arranges what the catalogue says. `prefix` is the prefix of the
//! server's own space with both slashes, as `/-/`; links between pages begin with it.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::catalogue::{Confusion, Entry, Field, Member, Name, Section};
use crate::wrap::wrap;

/// The widest line of a page for a terminal.
const WIDTH: usize = 80;

/// The page as JSON, every part on its own.
#[must_use]
pub fn json(entry: &Entry, prefix: &str) -> Value {
    json!({
        "type": type_of(entry, prefix),
        "name": entry.name,
        "title": entry.title,
        "status": entry.status.as_u16(),
        "retryable": entry.retryable.as_str(),
        "retryable_means": entry.retryable.meaning(),
        "meaning": entry.meaning,
        "sent_when": entry.sent_when,
        "caller": entry.caller,
        "operator": entry.operator,
        "confused_with": entry.confused_with.iter().map(|confusion| {
            let other = confusion.name.entry();
            json!({
                "type": type_of(other, prefix),
                "name": other.name,
                "status": other.status.as_u16(),
                "difference": confusion.difference,
            })
        }).collect::<Vec<_>>(),
        "members": entry.members.iter().map(|member| json!({
            "name": member.name,
            "type": member.kind.as_str(),
            "always": member.always,
            "meaning": member.meaning,
            "example": parse(member.example),
        })).collect::<Vec<_>>(),
        "headers": entry.headers.iter().map(|field| json!({
            "name": field.name,
            "meaning": field.meaning,
            "example": field.example,
        })).collect::<Vec<_>>(),
        "follows": entry.follows.iter().map(|section| json!({
            "rfc": section.rfc,
            "section": section.section,
            "title": section.title,
            "url": section.url(),
        })).collect::<Vec<_>>(),
        "example": example(entry, prefix),
    })
}

/// A problem document of this name, as an answer could have it.
#[must_use]
pub fn example(entry: &Entry, prefix: &str) -> Value {
    let mut document = Map::new();
    document.insert("type".into(), type_of(entry, prefix).into());
    document.insert("title".into(), entry.title.into());
    document.insert("status".into(), entry.status.as_u16().into());
    document.insert("detail".into(), entry.detail.into());
    document.insert("instance".into(), "/v1/flags/feature-x".into());
    document.insert("request_id".into(), "0193b0a5-3b1d-7f52-8c0e-2a9d4e6f1b37".into());
    document.insert("retryable".into(), entry.retryable.as_str().into());
    for member in entry.members {
        document.insert(member.name.to_owned(), parse(member.example));
    }
    Value::Object(document)
}

/// The page as HTML: one self-contained document without scripts.
#[must_use]
pub fn html(entry: &Entry, prefix: &str) -> String {
    let mut page = String::new();
    let heading = format!("{} {}", entry.status.as_u16(), escape(entry.title));
    push(
        &mut page,
        &format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{heading} ({name}) – Leasehold</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<h1>{heading}</h1>\n<p><code>{type_of}</code></p>\n<p>{meaning}</p>\n",
            name = escape(entry.name),
            type_of = escape(&type_of(entry, prefix)),
            meaning = prose(entry.meaning),
        ),
    );
    html_section(&mut page, "When it is sent", &html_list(entry.sent_when));
    html_section(&mut page, "What the caller can do", &html_paragraph(entry.caller));
    html_section(
        &mut page,
        "Whether to try again",
        &format!(
            "<p><code>retryable</code> is <code>{}</code>. {}</p>\n",
            entry.retryable.as_str(),
            prose(entry.retryable.meaning())
        ),
    );
    html_section(&mut page, "What the operator can do", &html_paragraph(entry.operator));
    let confusions = html_terms(entry.confused_with.iter().map(|confusion: &Confusion| {
        let other = confusion.name.entry();
        let link = escape(&type_of(other, prefix));
        (
            format!("<a href=\"{link}\">{} {}</a>", other.status.as_u16(), escape(other.name)),
            prose(confusion.difference),
        )
    }));
    html_section(&mut page, "What it is taken for", &confusions);
    if !entry.members.is_empty() {
        let members = html_terms(entry.members.iter().map(|member: &Member| {
            let term = format!("<code>{}</code>, {}", escape(member.name), kind(member));
            (term, prose(member.meaning))
        }));
        html_section(&mut page, "Members of its own", &members);
    }
    if !entry.headers.is_empty() {
        let fields = html_terms(entry.headers.iter().map(|field: &Field| {
            (format!("<code>{}</code>", escape(field.name)), prose(field.meaning))
        }));
        html_section(&mut page, "Header fields", &fields);
    }
    let body = format!("{:#}", example(entry, prefix));
    let shown = format!("<pre tabindex=\"0\"><code>{}</code></pre>\n", escape(&body));
    html_section(&mut page, "Example", &shown);
    let sections: String = entry
        .follows
        .iter()
        .map(|section| {
            let text = escape(&section.to_string());
            format!("<li><a href=\"{}\">{text}</a></li>\n", escape(&section.url()))
        })
        .collect();
    html_section(&mut page, "What it follows", &format!("<ul>\n{sections}</ul>\n"));
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0; padding: 1.5rem; }
main { max-width: 44rem; margin: 0 auto; }
h1 { line-height: 1.2; }
h2 { font-size: 1.15rem; margin: 1.75rem 0 0.5rem; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.92em; }
pre { overflow-x: auto; padding: 0.75rem; border: 1px solid; border-radius: 0.25rem; }
dt { font-weight: 600; }
dd { margin: 0 0 0.6rem 1.5rem; }
";

/// The page as a section of a Markdown document: a heading of the second level and what follows.
#[must_use]
pub fn markdown(entry: &Entry) -> String {
    let mut page = String::new();
    let retryable = entry.retryable;
    push(&mut page, &format!("## {}\n\n", entry.name));
    push(
        &mut page,
        &format!(
            "**{} {}** · `retryable: {}` · {}\n\n",
            entry.status.as_u16(),
            entry.title,
            retryable.as_str(),
            entry.follows.iter().map(markdown_link).collect::<Vec<_>>().join(", "),
        ),
    );
    push(&mut page, &format!("{}\n\n", entry.meaning));
    page.push_str("**When it is sent**\n\n");
    for case in entry.sent_when {
        push(&mut page, &format!("- {case}\n"));
    }
    push(&mut page, &format!("\n**What the caller can do.** {}\n\n", entry.caller));
    push(&mut page, &format!("**What the operator can do.** {}\n\n", entry.operator));
    page.push_str("**What it is taken for**\n\n");
    for confusion in entry.confused_with {
        let other = confusion.name.entry();
        let difference = markdown_difference(other, confusion.difference);
        push(&mut page, &format!("- {difference}\n"));
    }
    if !entry.members.is_empty() {
        page.push_str("\n**Members of its own**\n\n| member | type | meaning |\n|---|---|---|\n");
        for member in entry.members {
            let meaning = cell(member.meaning);
            push(&mut page, &format!("| `{}` | {} | {meaning} |\n", member.name, kind(member)));
        }
    }
    if !entry.headers.is_empty() {
        page.push_str("\n**Header fields**\n\n| field | meaning |\n|---|---|\n");
        for field in entry.headers {
            push(&mut page, &format!("| `{}` | {} |\n", field.name, cell(field.meaning)));
        }
    }
    page
}

/// The page for a terminal: no line is wider than 80 characters unless it is one word.
#[must_use]
pub fn text(entry: &Entry) -> String {
    let mut page = String::new();
    push(&mut page, &format!("{} {} ({})\n\n", entry.status.as_u16(), entry.title, entry.name));
    page.push_str(&wrap(entry.meaning, WIDTH, "", ""));
    page.push_str("\nWhen it is sent\n");
    for case in entry.sent_when {
        page.push_str(&wrap(case, WIDTH, "  - ", "    "));
    }
    for (heading, paragraph) in
        [("What the caller can do", entry.caller), ("What the operator can do", entry.operator)]
    {
        push(&mut page, &format!("\n{heading}\n"));
        page.push_str(&wrap(paragraph, WIDTH, "  ", "  "));
    }
    page.push_str("\nWhether to try again\n");
    let word = entry.retryable.as_str();
    let retry = format!("`retryable` is `{word}`. {}", entry.retryable.meaning());
    page.push_str(&wrap(&retry, WIDTH, "  ", "  "));
    page.push_str("\nWhat it is taken for\n");
    for confusion in entry.confused_with {
        page.push_str(&wrap(confusion.difference, WIDTH, "  - ", "    "));
    }
    if !entry.members.is_empty() {
        page.push_str("\nMembers of its own\n");
        for member in entry.members {
            let line = format!("{} ({}): {}", member.name, kind(member), member.meaning);
            page.push_str(&wrap(&line, WIDTH, "  - ", "    "));
        }
    }
    if !entry.headers.is_empty() {
        page.push_str("\nHeader fields\n");
        for field in entry.headers {
            let line = format!("{}: {}", field.name, field.meaning);
            page.push_str(&wrap(&line, WIDTH, "  - ", "    "));
        }
    }
    page.push_str("\nWhat it follows\n");
    for section in entry.follows {
        push(&mut page, &format!("  - {section}\n    {}\n", section.url()));
    }
    page
}

/// The whole of `docs/problems.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(REFERENCE_HEAD);
    let mut status = None;
    for name in Name::ALL {
        let entry = name.entry();
        if status != Some(entry.status) {
            status = Some(entry.status);
            let names: Vec<_> = Name::by_status(entry.status.as_u16())
                .map(|name| {
                    let link = name.as_str();
                    format!("[{link}](#{link})")
                })
                .collect();
            push(&mut page, &format!("| {} | {} |\n", entry.status.as_u16(), names.join(", ")));
        }
    }
    for name in Name::ALL {
        page.push('\n');
        page.push_str(&markdown(name.entry()));
    }
    page
}

const REFERENCE_HEAD: &str = "\
# Problems

<!-- Written by a test from the catalogue in crates/problems; change the catalogue, then run
     UPDATE_DOCS=1 cargo test -p leasehold-problems --test docs -->

Every refusal is a problem document (RFC 9457) of the type `application/problem+json`:

| member | meaning |
|---|---|
| `type` | `/-/problems/NAME`: which of the problems below it is, and where its page is served |
| `title` | a short title that is the same every time |
| `status` | the HTTP status of the answer |
| `detail` | a sentence about this very refusal |
| `instance` | the path that was asked for |
| `request_id` | the id of the request, which is also in the trail and the server's log |
| `retryable` | `no`: the same request will be refused again; `same`: the same request, unchanged, \
may work later; `after-change`: read again, then send a changed request |
| `index` | in the answer to a batch: which operation was refused, counted from 0 |

Refusals carry `Cache-Control: no-store`. Decide by `type`, not by `detail` or `title`, and not by
the status alone: several problems share one.

Four statuses are taken for one another:

- **409**: the request does not fit the *state* of what it is about, and it set no condition.
- **412**: the request *set a condition* (`If-Match`, `If`, a lock token), and it does not hold.
- **423**: somebody *reserved* the resource; the same request may work when they have let go.
- **428**: the request *should have set a condition* and did not.

`leasehold explain 423` and `leasehold explain locked` say the same in a terminal.

| status | problems |
|---|---|
";

fn type_of(entry: &Entry, prefix: &str) -> String {
    format!("{prefix}problems/{}", entry.name)
}

fn parse(example: &str) -> Value {
    // A test holds that every example is JSON.
    serde_json::from_str(example).unwrap_or_else(|_| Value::String(example.to_owned()))
}

fn kind(member: &Member) -> String {
    let kind = member.kind.as_str();
    if member.always { kind.to_owned() } else { format!("{kind}, optional") }
}

/// Appends. Writing to a string cannot fail.
fn push(page: &mut String, text: &str) {
    let _ = page.write_str(text);
}

fn html_section(page: &mut String, heading: &str, content: &str) {
    push(page, &format!("<section>\n<h2>{heading}</h2>\n{content}</section>\n"));
}

fn html_paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", prose(text))
}

fn html_list(items: &[&str]) -> String {
    let items: String = items.iter().map(|item| format!("<li>{}</li>\n", prose(item))).collect();
    format!("<ul>\n{items}</ul>\n")
}

fn html_terms(terms: impl Iterator<Item = (String, String)>) -> String {
    let terms: String =
        terms.map(|(term, text)| format!("<dt>{term}</dt>\n<dd>{text}</dd>\n")).collect();
    format!("<dl>\n{terms}</dl>\n")
}

/// Prose as HTML: escaped, and what is between backticks as code.
fn prose(text: &str) -> String {
    text.split('`')
        .enumerate()
        .map(|(at, part)| {
            let part = escape(part);
            if at % 2 == 1 { format!("<code>{part}</code>") } else { part }
        })
        .collect()
}

/// Text that is safe in HTML content and in quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn markdown_link(section: &Section) -> String {
    format!("[RFC {}, section {}]({})", section.rfc, section.section, section.url())
}

/// A difference begins with the other name in backticks: make that the link.
fn markdown_difference(other: &Entry, difference: &str) -> String {
    let name = other.name;
    let code = format!("`{name}`");
    difference.replacen(&code, &format!("[`{name}`](#{name})"), 1)
}

/// Text that is safe in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::catalogue::{Retryable, Type};

    #[test]
    fn every_page_has_every_part() {
        for name in Name::ALL {
            let entry = name.entry();
            for page in [html(entry, "/-/"), markdown(entry), text(entry)] {
                assert!(page.contains(entry.name), "{name}");
                assert!(page.contains(entry.title), "{name}");
                for member in entry.members {
                    assert!(page.contains(member.name), "{name}: {}", member.name);
                }
                for field in entry.headers {
                    assert!(page.contains(field.name), "{name}: {}", field.name);
                }
                for section in entry.follows {
                    assert!(page.contains(&section.url()), "{name}: {section}");
                }
                assert!(page.ends_with('\n') && !page.contains("  \n"), "{name}");
            }
        }
    }

    #[test]
    fn each_difference_begins_with_the_other_name() {
        // The Markdown page makes that a link, and a terminal has nothing else to go by.
        for name in Name::ALL {
            for confusion in name.entry().confused_with {
                let start = format!("`{}` (", confusion.name);
                assert!(confusion.difference.starts_with(&start), "{name}: {start}");
            }
        }
    }

    #[test]
    fn differences_give_the_right_status() {
        for name in Name::ALL {
            for Confusion { name: other, difference } in name.entry().confused_with {
                let start = format!("`{other}` ({})", other.entry().status.as_u16());
                assert!(difference.starts_with(&start), "{name}: {difference}");
            }
        }
    }

    #[test]
    fn html_escapes_whatever_the_catalogue_says() {
        static HOSTILE: Entry = Entry {
            name: "a<b",
            status: StatusCode::CONFLICT,
            title: "<script>\"x\" & 'y'</script>",
            retryable: Retryable::No,
            meaning: "Use `<b>` & \"quotes\".",
            sent_when: &["<i>."],
            caller: "<i>.",
            operator: "<i>.",
            confused_with: &[Confusion { name: Name::Locked, difference: "<i>." }],
            detail: "<i>.",
            members: &[Member {
                name: "<i>",
                kind: Type::Text,
                always: true,
                meaning: "<i>.",
                example: "\"<i>\"",
            }],
            headers: &[Field { name: "<i>", meaning: "<i>.", example: "<i>" }],
            follows: &[Section { rfc: 9110, section: "\"><i>", title: "<i>" }],
        };
        let page = html(&HOSTILE, "/\"><i>/");
        for raw in ["<i>", "<b>", "<script", "\"x\"", "'y'", "\"><i"] {
            assert!(!page.contains(raw), "{raw}");
        }
        assert!(page.contains("<code>&lt;b&gt;</code> &amp; &quot;quotes&quot;"));
    }

    #[test]
    fn html_is_self_contained_and_balanced() {
        for name in Name::ALL {
            let page = html(name.entry(), "/-/");
            for tag in ["main", "section", "ul", "li", "dl", "dt", "dd", "p", "code", "pre", "a"] {
                let opened = page.matches(&format!("<{tag}>")).count()
                    + page.matches(&format!("<{tag} ")).count();
                assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{name}: {tag}");
            }
            for foreign in ["<script", "<link", "<img", " src=", " onclick", "url("] {
                assert!(!page.contains(foreign), "{name}: {foreign}");
            }
        }
    }

    #[test]
    fn links_begin_with_the_prefix() {
        let page = html(Name::Locked.entry(), "/own/");
        assert!(page.contains("href=\"/own/problems/frozen\""));
        assert!(!page.contains("/-/problems"));
        let page = json(Name::Locked.entry(), "/own/");
        assert_eq!(page["type"], "/own/problems/locked");
        assert_eq!(page["confused_with"][0]["type"], "/own/problems/frozen");
        assert_eq!(page["example"]["type"], "/own/problems/locked");
    }

    #[test]
    fn a_terminal_of_80_columns_shows_whole_lines() {
        for name in Name::ALL {
            for line in text(name.entry()).lines() {
                assert!(line.chars().count() <= WIDTH || !line.trim().contains(' '), "{line}");
            }
        }
    }

    #[test]
    fn the_pages_of_precondition_required_look_like_this() {
        let entry = Name::PreconditionRequired.entry();
        insta::assert_snapshot!("html", html(entry, "/-/"));
        insta::assert_snapshot!("text", text(entry));
        insta::assert_json_snapshot!("json", json(entry, "/-/"));
    }
}
