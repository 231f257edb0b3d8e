//! What people are shown: tables and lists of what the server answered.

use std::env;
use std::io::{self, IsTerminal as _};

use serde_json::Value;

use crate::output::{plain, table};

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// On a terminal that has them, unless the user wants none (<https://no-color.org>).
    pub(crate) fn for_stdout() -> Self {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|content| !content.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { on: io::stdout().is_terminal() && !unwanted && !dumb }
    }

    fn style(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.style("1", text)
    }

    fn red(self, text: &str) -> String {
        self.style("31", text)
    }

    fn yellow(self, text: &str) -> String {
        self.style("33", text)
    }
}

/// A lock that was granted, renewed or handed over, with its token where the answer has it.
pub(crate) fn lock(lock: &Value, paint: Paint) -> String {
    let mut rows = vec![("resource", resources(lock))];
    if let Some(token) = lock.get("lock_token") {
        rows.push(("token", text(token)));
    }
    rows.push(("lock id", text(&lock["lock_id"])));
    rows.push(("holder", holder(lock)));
    rows.push(("mode", mode(lock)));
    rows.push(("fence", text(&lock["fence"])));
    rows.push(("expires", format!("in {} ({})", left(lock), text(&lock["expires_at"]))));
    if lock["reason"].is_string() {
        rows.push(("reason", text(&lock["reason"])));
    }
    if lock["metadata"].as_object().is_some_and(|metadata| !metadata.is_empty()) {
        rows.push(("metadata", text(&lock["metadata"])));
    }
    if lock["waited_ms"].as_u64().is_some_and(|waited| waited > 0) {
        rows.push(("waited", span(lock["waited_ms"].as_u64())));
    }
    if let Some(renewals) = lock["renewals"].as_u64() {
        rows.push(("renewals", renewals.to_string()));
    }
    if let Some(breaking) = lock.get("breaking").filter(|breaking| breaking.is_object()) {
        let told = format!("by {}: {}", text(&breaking["by"]), text(&breaking["reason"]));
        rows.push(("breaking", paint.red(&told)));
    }
    if let Some(asked) = lock.get("requested_by").filter(|asked| asked.is_object()) {
        let mut told = format!("by {}", text(&asked["by"]));
        if asked["message"].is_string() {
            told = format!("{told}: {}", text(&asked["message"]));
        }
        rows.push(("requested", paint.yellow(&told)));
    }
    if lock["predecessor_writes"].is_string() {
        let told = "of the holder before may still be on their way";
        rows.push(("writes", paint.yellow(told)));
    }
    list(&rows, paint)
}

/// Locks, one a line.
pub(crate) fn locks(locks: &Value, paint: Paint) -> String {
    let mut rows =
        vec![row(["RESOURCE", "HOLDER", "MODE", "EXPIRES", "FENCE", "LOCK ID", "REASON"])];
    for lock in items(locks) {
        let mut why = text_or(&lock["reason"], "");
        if lock["breaking"].is_object() {
            why = format!("{why} (breaking)").trim().to_owned();
        }
        rows.push(vec![
            resources(lock),
            holder(lock),
            mode(lock),
            left(lock),
            text(&lock["fence"]),
            text(&lock["lock_id"]),
            why,
        ]);
    }
    headed(&rows, paint)
}

/// What there is to see at the lock of a resource.
pub(crate) fn inspection(seen: &Value, paint: Paint) -> String {
    let mut shown = String::new();
    if let Some(freeze) = seen.get("freeze").filter(|freeze| freeze.is_object()) {
        shown.push_str(&freeze_line(freeze, paint));
    }
    if items(&seen["locks"]).is_empty() {
        shown.push_str(&format!("{} is not locked\n", text(&seen["resource"])));
    } else {
        shown.push_str(&locks(&seen["locks"], paint));
    }
    let waiters = items(&seen["queue"]);
    if !waiters.is_empty() {
        let mut rows = vec![row(["WAITING", "SINCE", "UNTIL", ""])];
        for waiter in waiters {
            let granted = waiter["granted"].as_bool().unwrap_or(false);
            rows.push(vec![
                text_or(&waiter["holder"], "(hidden)"),
                text(&waiter["waiting_since"]),
                text(&waiter["deadline"]),
                if granted { "next, when writes have ended".to_owned() } else { String::new() },
            ]);
        }
        shown.push('\n');
        shown.push_str(&headed(&rows, paint));
    }
    shown
}

/// A freeze that was set.
pub(crate) fn freeze(freeze: &Value, paint: Paint) -> String {
    freeze_line(freeze, paint)
}

fn freeze_line(freeze: &Value, paint: Paint) -> String {
    format!(
        "{} {} by {} until {}: {}\n",
        text(&freeze["resource"]),
        paint.yellow("is frozen"),
        text_or(&freeze["by"], "(hidden)"),
        text(&freeze["until"]),
        text(&freeze["reason"]),
    )
}

/// What a break ended, or would end.
pub(crate) fn broken(broken: &Value, paint: Paint) -> String {
    if broken["dry_run"] == true {
        let age = span(broken["age_ms"].as_u64());
        let writes = broken["writes_in_flight"].as_u64().unwrap_or(0);
        let next = items(&broken["queue"]).first().map_or_else(
            || "nobody waits".to_owned(),
            |next| format!("{} is next", text_or(&next["holder"], "(hidden)")),
        );
        return format!(
            "Would end, {age} old, with {writes} {} under way; {next}:\n{}",
            if writes == 1 { "write" } else { "writes" },
            lock(&broken["lock"], paint)
        );
    }
    let when = match broken["ends_in_ms"].as_u64() {
        None | Some(0) => "has ended".to_owned(),
        some => format!("ends in {}", span(some)),
    };
    format!("The lock of {} on {} {when}\n", holder(broken), resources(broken))
}

/// Whose holders were asked to let go.
pub(crate) fn asked(asked: &Value, _: Paint) -> String {
    let ids: Vec<String> = items(&asked["asked"]).iter().map(text).collect();
    format!("Asked the holder of {}\n", ids.join(", "))
}

/// The children of a resource, one a line.
pub(crate) fn children(page: &Value, paint: Paint) -> String {
    let mut rows = vec![row(["RESOURCE", "ETAG", "CHANGED", "TYPE"])];
    for child in items(&page["items"]) {
        let below = child["has_children"].as_bool().unwrap_or(false);
        let name = text(&child["resource"]);
        rows.push(vec![
            if below { format!("{name}/") } else { name },
            text_or(&child["etag"], "-"),
            text_or(&child["last_modified"], "-"),
            text_or(&child["media_type"], "-"),
        ]);
    }
    headed(&rows, paint)
}

/// For how long, for people: `1 h 5 min`, `37 s`.
pub(crate) fn span(ms: Option<u64>) -> String {
    let Some(ms) = ms else { return "?".to_owned() };
    let seconds = ms.div_ceil(1000);
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, min, 0) => format!("{min} min"),
        (0, 0, min, s) => format!("{min} min {s} s"),
        (0, h, 0, _) => format!("{h} h"),
        (0, h, min, _) => format!("{h} h {min} min"),
        (d, 0, ..) => format!("{d} d"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

fn list(rows: &[(&str, String)], paint: Paint) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, content): &(&str, String)| {
        format!("{}  {content}\n", paint.bold(&format!("{name:<width$}")))
    };
    rows.iter().map(line).collect()
}

fn headed(rows: &[Vec<String>], paint: Paint) -> String {
    let table = table(rows);
    match table.split_once('\n') {
        Some((head, rest)) => format!("{}\n{rest}", paint.bold(head)),
        None => table,
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn resources(lock: &Value) -> String {
    let more = items(&lock["resources"]).len().saturating_sub(1);
    let first = text(&lock["resource"]);
    if more == 0 { first } else { format!("{first} and {more} more") }
}

fn holder(lock: &Value) -> String {
    text_or(&lock["holder"], "(hidden)")
}

fn mode(lock: &Value) -> String {
    let mode = text_or(&lock["mode"], "exclusive");
    if lock["depth"] == "0" { format!("{mode}, depth 0") } else { mode }
}

fn left(lock: &Value) -> String {
    span(lock["expires_in_ms"].as_u64())
}

/// A value without quotes, and without what would command the terminal.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Null => "-".to_owned(),
        other => plain(&other.to_string()),
    }
}

fn text_or(value: &Value, other: &str) -> String {
    if value.is_null() { other.to_owned() } else { text(value) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_span_has_its_two_greatest_units() {
        for (ms, shown) in [
            (0, "0 s"),
            (1, "1 s"),
            (37_000, "37 s"),
            (60_000, "1 min"),
            (299_998, "5 min"),
            (90_000, "1 min 30 s"),
            (3_600_000, "1 h"),
            (5_400_000, "1 h 30 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(Some(ms)), shown, "{ms}");
        }
    }

    #[test]
    fn colours_are_only_there_where_they_are_wanted_and_text_does_not_command_the_terminal() {
        let seen = json!({ "resource": "/a", "by": "x\u{1b}[2J", "until": "t", "reason": "r" });
        let shown = freeze(&seen, Paint { on: false });
        assert_eq!(shown, "/a is frozen by x\\u{1b}[2J until t: r\n");
        assert!(freeze(&seen, Paint { on: true }).contains("\u{1b}[33mis frozen\u{1b}[0m"));
    }
}
