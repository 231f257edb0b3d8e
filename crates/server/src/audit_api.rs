//! The trail over HTTP: `/-/audit` in pages, `/-/events` as it grows.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LINK};
use http::request::Parts;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt as _, StreamBody};
use leasehold_core::caller::{Caller, Permission};
use leasehold_core::event::Record;
use leasehold_core::ids::{Principal, Seq};
use leasehold_core::resource::Resource;
use leasehold_core::time::WallTime;
use leasehold_faces::json_api::asking::form_pairs;
use leasehold_faces::json_api::cursor;
use leasehold_faces::json_api::fields::malformed;
use leasehold_faces::json_api::shown::{DEFAULT_LIMIT, limit};
use leasehold_guard::body::full;
use leasehold_guard::call::Call;
use leasehold_guard::rules::Rules;
use leasehold_guard::upstream::Answer;
use leasehold_journal::log::Stored;
use leasehold_journal::query::AuditQuery;
use leasehold_problems::Problem;
use tokio::sync::mpsc;

use crate::app::App;

/// How many events are read at a time for a follower.
const CHUNK: usize = 256;
/// How many answers of a follower are ready before it has to take one.
const AHEAD: usize = 4;
/// The greatest position that a cursor can name.
const MAX_SEQ: u64 = i64::MAX as u64;
/// How often a silent stream says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The form an answer is asked in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Json,
    Lines,
    Csv,
}

/// Who is shown what of the trail.
#[derive(Clone)]
struct View {
    caller: Caller,
    rules: Arc<Rules>,
    everywhere: bool,
}

impl View {
    /// The event as this caller is shown it; none where it is about what the caller may not see.
    fn show(&self, stored: &Stored) -> Option<(Record, Vec<u8>)> {
        // What cannot be read is for `audit verify` to report.
        let mut record = stored.record().ok()?;
        let about = || record.resources.iter().flat_map(|all| all.iter()).chain(&record.resource);
        let permitted = self.everywhere
            || (about().next().is_some()
                && about().all(|each| self.caller.may(Permission::Audit, each)));
        if !permitted {
            return None;
        }
        let hidden = record.holder.is_some()
            && about().any(|each| {
                !self.rules.find(each).1.disclose_holder
                    && !self.caller.may(Permission::Admin, each)
            })
            && record.holder.as_ref() != Some(&self.caller.principal);
        if !hidden {
            return Some((record, stored.bytes.clone()));
        }
        if record.actor == record.holder {
            record.actor = None;
        }
        record.holder = None;
        if let Some(to) = &mut record.transferred_to {
            to.holder = Principal::new("");
        }
        let mut shown = serde_json::to_value(&record).ok()?;
        if let Some(to) = shown.get_mut("transferred_to").and_then(|to| to.as_object_mut()) {
            to.remove("holder");
        }
        let bytes = serde_json::to_vec(&shown).ok()?;
        Some((record, bytes))
    }
}

impl App {
    fn view(&self, call: &Call, query: &AuditQuery) -> Result<View, Box<Problem>> {
        let everywhere = call.caller.may_everywhere(Permission::Audit);
        if !everywhere {
            // A narrowed role has to say what it asks about.
            let resource = query.resource.clone().unwrap_or_else(Resource::root);
            call.need(Permission::Audit, &resource)?;
        }
        Ok(View { caller: call.caller.clone(), rules: self.rules.load_full(), everywhere })
    }

    pub(crate) async fn audit(&self, head: Parts, call: &Call) -> Answer {
        let now = self.engine.clock().wall();
        let query = read(head.uri.query().unwrap_or_default(), &self.rules.load(), true, now)?;
        let view = self.view(call, &query)?;
        let form = form(&head.headers);
        let asked = query.clone();
        let page = self.trail.ask(move |reader| reader.query(&asked)).await?;
        let next = page.next.map(|seq| cursor_at(seq, query.descending));
        // Asked again of what is shown: a filter must not tell what a rule hides.
        let shown: Vec<(Record, Vec<u8>)> = page
            .items
            .iter()
            .filter_map(|stored| view.show(stored))
            .filter(|(record, _)| matches(&query, record))
            .collect();
        let (media, body) = match form {
            Form::Json => ("application/json", json_page(&shown, next.as_deref())),
            Form::Lines => ("application/x-ndjson", lines(&shown)),
            Form::Csv => ("text/csv; charset=utf-8; header=present", csv(&shown)),
        };
        let mut response = Response::new(full(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(http::header::VARY, HeaderValue::from_static("Accept"));
        if let Some(next) = next {
            // The two forms without room for it have the next page here (RFC 8288).
            let link = format!("<?{}>; rel=\"next\"", with_cursor(head.uri.query(), &next));
            if let Ok(link) = HeaderValue::from_str(&link) {
                headers.insert(LINK, link);
            }
        }
        Ok(response)
    }

    pub(crate) async fn events(&self, head: Parts, call: &Call) -> Answer {
        let now = self.engine.clock().wall();
        let query = read(head.uri.query().unwrap_or_default(), &self.rules.load(), false, now)?;
        let view = self.view(call, &query)?;
        let last = match head.headers.get("last-event-id") {
            None => None,
            Some(id) => {
                Some(id.to_str().ok().and_then(|id| id.trim().parse().ok()).map(Seq).ok_or_else(
                    || malformed("Last-Event-ID", "Last-Event-ID is no position in the trail."),
                )?)
            }
        };
        let mut durable = self.engine.durable();
        let at = last.unwrap_or(*durable.borrow_and_update());
        let (tell, told) = mpsc::channel::<Bytes>(AHEAD);
        let (trail, stop) = (self.trail.clone(), self.stop.clone());
        tokio::spawn(async move {
            let follow = follow(at, last.is_some(), query, view, trail, durable, &tell);
            tokio::select! {
                () = follow => {}
                () = tell.closed() => {}
                () = stop.cancelled() => {}
            }
        });
        let stream = futures_of(told);
        let body = StreamBody::new(stream).map_err(|never: Infallible| match never {});
        let mut response = Response::new(body.boxed_unsync());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Some proxies hold streams back until they are told not to.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }
}

fn futures_of(
    told: mpsc::Receiver<Bytes>,
) -> impl futures_core::Stream<Item = Result<http_body::Frame<Bytes>, Infallible>> {
    struct Told(mpsc::Receiver<Bytes>);
    impl futures_core::Stream for Told {
        type Item = Result<http_body::Frame<Bytes>, Infallible>;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            self.0
                .poll_recv(context)
                .map(|bytes| bytes.map(|bytes| Ok(http_body::Frame::data(bytes))))
        }
    }
    Told(told)
}

/// Sends every event after `at`, without a gap, until the follower goes.
async fn follow(
    mut at: Seq,
    resumes: bool,
    query: AuditQuery,
    view: View,
    trail: leasehold_faces::trail::Readers,
    mut durable: tokio::sync::watch::Receiver<Seq>,
    tell: &mpsc::Sender<Bytes>,
) {
    let hello = Bytes::from_static(b"retry: 1000\n\n");
    if tell.send(hello).await.is_err() {
        return;
    }
    if resumes {
        let Ok(oldest) = trail.ask(|reader| reader.oldest()).await else { return };
        // Later than anything that has happened: an id of another history, from before a restore.
        if *durable.borrow() < at || at.next() < oldest {
            let reset =
                format!("event: reset\ndata: {{\"oldest\":{oldest}}}\nid: {}\n\n", oldest.0 - 1);
            at = Seq(oldest.0.saturating_sub(1));
            if tell.send(reset.into()).await.is_err() {
                return;
            }
        }
    }
    loop {
        let newest = *durable.borrow_and_update();
        while at < newest {
            let from = at.next();
            let Ok(events) = trail.ask(move |reader| reader.read(from, CHUNK)).await else {
                return;
            };
            let Some(last) = events.last() else { break };
            at = last.seq;
            let mut text = Vec::new();
            for stored in events.iter().filter(|stored| stored.seq <= newest) {
                if let Some((record, bytes)) = view.show(stored)
                    && matches(&query, &record)
                {
                    frame(&record, &bytes, &mut text);
                }
            }
            at = at.min(newest);
            if !text.is_empty() && tell.send(text.into()).await.is_err() {
                return;
            }
        }
        let changed = tokio::time::timeout(KEEP_ALIVE, durable.changed()).await;
        match changed {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                if tell.send(Bytes::from_static(b": still here\n\n")).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn frame(record: &Record, bytes: &[u8], text: &mut Vec<u8>) {
    text.extend_from_slice(
        format!("id: {}\nevent: {}\ndata: ", record.seq, record.kind).as_bytes(),
    );
    // JSON as it is stored has no line breaks outside its strings, and escapes those inside.
    text.extend_from_slice(bytes);
    text.extend_from_slice(b"\n\n");
}

/// Whether an event is among those asked for; the same words as those of a page.
fn matches(query: &AuditQuery, record: &Record) -> bool {
    let about = || record.resources.iter().flat_map(|all| all.iter()).chain(&record.resource);
    query.resource.as_ref().is_none_or(|above| about().any(|each| above.covers(each)))
        && query.holder.as_ref().is_none_or(|holder| {
            record.holder.as_ref() == Some(holder)
                || record.transferred_to.as_ref().is_some_and(|to| to.holder == *holder)
        })
        && query.actor.as_ref().is_none_or(|actor| record.actor.as_ref() == Some(actor))
        && query.kind.as_ref().is_none_or(|kind| record.kind == kind.as_str())
        && query.lock_id.is_none_or(|id| {
            record.lock_id == Some(id)
                || record.transferred_to.as_ref().is_some_and(|to| to.lock_id == id)
        })
}

fn read(
    query: &str,
    rules: &Rules,
    pages: bool,
    now: WallTime,
) -> Result<AuditQuery, Box<Problem>> {
    let mut asked = AuditQuery { limit: DEFAULT_LIMIT, ..AuditQuery::default() };
    let mut after = None;
    for (name, text) in form_pairs(query) {
        match name.as_str() {
            "resource" => {
                let resource = rules
                    .filter(&text)
                    .map_err(|error| malformed("resource", format!("`resource`: {error}.")))?;
                asked.resource = Some(resource);
            }
            "holder" => asked.holder = Some(Principal::new(&text)),
            "actor" => asked.actor = Some(Principal::new(&text)),
            "type" => asked.kind = Some(kind(&text)?),
            "lock_id" => {
                let id = text.parse().map_err(|_| malformed("lock_id", "`lock_id` is none."))?;
                asked.lock_id = Some(id);
            }
            "since" if pages => asked.since = Some(moment("since", &text, now)?),
            "until" if pages => asked.until = Some(moment("until", &text, now)?),
            "limit" if pages => asked.limit = limit(&text)?,
            "order" if pages => {
                asked.descending = match text.as_str() {
                    "asc" => false,
                    "desc" => true,
                    _ => return Err(malformed("order", "`order` is `asc` or `desc`.")),
                };
            }
            "cursor" if pages => after = Some(read_cursor(&text)?),
            _ => return Err(malformed(&name, format!("`{name}` is no filter of the trail."))),
        }
    }
    if let Some((seq, descending)) = after {
        if descending != asked.descending {
            return Err(malformed("cursor", "`cursor` is of a list in the other order."));
        }
        asked.after = Some(seq);
    }
    Ok(asked)
}

/// The types of events, as filters name them.
const KINDS: [&str; 15] = [
    "acquired",
    "renewed",
    "released",
    "expired",
    "broken",
    "transferred",
    "requested",
    "frozen",
    "unfrozen",
    "write_admitted",
    "write_completed",
    "write_checked",
    "refused",
    "recovered",
    "trimmed",
];

fn kind(text: &str) -> Result<String, Box<Problem>> {
    if KINDS.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(malformed("type", format!("`type` is not one of {}.", KINDS.join(", "))))
}

/// A moment as RFC 3339 writes it, or so many seconds ago.
fn moment(field: &str, text: &str, now: WallTime) -> Result<WallTime, Box<Problem>> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(now - seconds.saturating_mul(1000));
    }
    // A `+` that was not encoded has become a space.
    text.replace(' ', "+").parse().map_err(|_| {
        malformed(field, format!("`{field}` is neither a time of RFC 3339 nor seconds ago."))
    })
}

fn cursor_at(seq: Seq, descending: bool) -> String {
    cursor::encode(if descending { 'd' } else { 'a' }, seq.0)
}

fn read_cursor(text: &str) -> Result<(Seq, bool), Box<Problem>> {
    cursor::decode(text)
        .filter(|(list, seq)| matches!(list, 'a' | 'd') && *seq <= MAX_SEQ)
        .map(|(list, seq)| (Seq(seq), list == 'd'))
        .ok_or_else(|| malformed("cursor", "`cursor` is none that this list gave."))
}

fn with_cursor(query: Option<&str>, cursor: &str) -> String {
    let mut pairs: Vec<&str> = query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="))
        .collect();
    let next = format!("cursor={cursor}");
    pairs.push(&next);
    pairs.join("&")
}

fn form(headers: &HeaderMap) -> Form {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut best = (0.0, Form::Json);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" => Form::Json,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Form::Lines,
            "text/csv" | "text/*" => Form::Csv,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map(str::parse::<f64>);
        let quality = quality.and_then(Result::ok).unwrap_or(1.0);
        // Of those that are as welcome, the first.
        if best.0 < quality {
            best = (quality, form);
        }
    }
    best.1
}

fn json_page(shown: &[(Record, Vec<u8>)], next: Option<&str>) -> Vec<u8> {
    let mut body = b"{\"items\":[".to_vec();
    for (at, (_, bytes)) in shown.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        // As it is stored: what is hashed is what is shown.
        body.extend_from_slice(bytes);
    }
    let next = next.map_or("null".to_owned(), |next| format!("\"{next}\""));
    body.extend_from_slice(format!("],\"next\":{next}}}").as_bytes());
    body
}

fn lines(shown: &[(Record, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (_, bytes) in shown {
        body.extend_from_slice(bytes);
        body.push(b'\n');
    }
    body
}

fn csv(shown: &[(Record, Vec<u8>)]) -> Vec<u8> {
    let mut body = String::from(
        "seq,at,lease_ms,type,lock_id,resources,holder,actor,dialect,fence,method,resource,\
         status,result,problem,count,reason,request_id,remote_addr\r\n",
    );
    for (record, _) in shown {
        let resources = record
            .resources
            .as_ref()
            .map(|all| all.iter().map(Resource::as_str).collect::<Vec<_>>().join(" "));
        let text = |value: Option<String>| value.unwrap_or_default();
        let row = [
            record.seq.to_string(),
            record.at.to_string(),
            record.lease_ms.0.to_string(),
            record.kind.to_string(),
            text(record.lock_id.map(|id| id.to_string())),
            text(resources),
            text(record.holder.as_ref().map(ToString::to_string)),
            text(record.actor.as_ref().map(ToString::to_string)),
            record.dialect.as_str().to_owned(),
            text(record.fence.map(|fence| fence.to_string())),
            text(record.method.as_ref().map(ToString::to_string)),
            text(record.resource.as_ref().map(ToString::to_string)),
            text(record.status.map(|status| status.to_string())),
            text(record.result.as_ref().map(ToString::to_string)),
            text(record.problem.as_ref().map(ToString::to_string)),
            text(record.count.map(|count| count.to_string())),
            text(record.reason.as_ref().map(ToString::to_string)),
            text(record.request_id.as_ref().map(ToString::to_string)),
            text(record.remote_addr.as_ref().map(ToString::to_string)),
        ];
        body.push_str(&row.map(|cell| csv_cell(&cell)).join(","));
        body.push_str("\r\n");
    }
    body.into_bytes()
}

/// A cell as RFC 4180 writes it. A cell that a spreadsheet would take for a formula is defused
/// with a quote.
fn csv_cell(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t']);
    let cell = if formula { format!("'{cell}") } else { cell.to_owned() };
    if cell.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_not_one_is_named() {
        let field = |query: &str| {
            read(query, &Rules::default(), true, WallTime(0))
                .map(|_| ())
                .map_err(|p| p.members["field"].clone())
        };
        assert_eq!(field("resource=/a&type=acquired&order=desc&limit=5"), Ok(()));
        for (query, name) in [
            ("resource=a", "resource"),
            ("type=x", "type"),
            ("lock_id=x", "lock_id"),
            ("since=x", "since"),
            ("until=2026-11", "until"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("order=up", "order"),
            ("cursor=x", "cursor"),
            ("colour=red", "colour"),
        ] {
            assert_eq!(field(query), Err(name.into()), "{query}");
        }
        let other_order = format!("cursor={}&order=desc", cursor_at(Seq(5), false));
        assert_eq!(field(&other_order), Err("cursor".into()));
    }

    #[test]
    fn the_form_is_the_most_welcome_one() {
        for (accept, expected) in [
            ("", Form::Json),
            ("*/*", Form::Json),
            ("text/html", Form::Json),
            ("text/csv, application/json", Form::Csv),
            ("text/csv;q=0.1, application/x-ndjson", Form::Lines),
            ("text/csv;q=0, */*;q=0.1", Form::Json),
            ("Text/CSV; header=present; q=0.5, application/json;q=0.4", Form::Csv),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(form(&headers), expected, "{accept}");
        }
    }

    #[test]
    fn a_moment_is_a_time_or_so_many_seconds_ago() {
        let now = WallTime(1_000_000);
        assert_eq!(moment("since", "60", now).unwrap(), WallTime(940_000));
        assert_eq!(moment("since", "1970-01-01T00:00:01Z", now).unwrap(), WallTime(1000));
        assert_eq!(moment("since", "1970-01-01T01:00:01 01:00", now).unwrap(), WallTime(1000));
    }

    #[test]
    fn a_csv_cell_is_neither_broken_nor_a_formula() {
        assert_eq!(csv_cell("a"), "a");
        assert_eq!(csv_cell("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(csv_cell("=1+1"), "'=1+1");
    }
}
