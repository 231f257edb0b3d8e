//! `leasehold audit query`, `follow`, `head`, `verify`: on the data folder, beside the server or
//! without one.

use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use leasehold_core::event::Record;
use leasehold_core::ids::Seq;
use leasehold_journal::log::{Hash, Stored, hex};
use leasehold_journal::query::{AuditQuery, AuditReader, QueryError};
use leasehold_journal::verify::verify;

use crate::args::{AuditCommand, Filter};
use crate::outcome::Failure;
use crate::output::{plain, say, stdout};

/// How many events are asked for at once.
const PAGE: usize = 1000;

/// How often `follow` looks for new events.
const EVERY: Duration = Duration::from_millis(250);

pub(crate) fn run(command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::Query { filter, since, until, desc, limit } => {
            let query = AuditQuery { since, until, descending: desc, ..asked(&filter) };
            let limit = if limit == 0 { usize::MAX } else { limit };
            let mut out = stdout();
            print_pages(&open(&filter.data.folder)?, query, limit, filter.json, &mut out)?;
            Ok(out.flush()?)
        }
        AuditCommand::Follow { filter, from } => follow(&filter, from),
        AuditCommand::Head { data } => {
            let head = open(&data.folder)?.head().map_err(unreadable)?;
            let mut out = stdout();
            writeln!(out, "{}:{}", head.seq, hex(&head.hash))?;
            Ok(out.flush()?)
        }
        AuditCommand::Verify { head, data } => judge(&open(&data.folder)?, head),
    }
}

fn open(folder: &Path) -> Result<AuditReader, Failure> {
    AuditReader::open(folder).map_err(|error| {
        let hint = format!("is there a server's data in {}? --data names it", folder.display());
        Failure::because(&error, &hint)
    })
}

fn unreadable(error: QueryError) -> Failure {
    Failure::because(&error, "`leasehold audit verify` tells what else is wrong")
}

fn asked(filter: &Filter) -> AuditQuery {
    AuditQuery {
        resource: filter.resource.clone(),
        holder: filter.holder.clone(),
        actor: filter.actor.clone(),
        kind: filter.kind.clone(),
        lock_id: filter.lock_id,
        ..AuditQuery::default()
    }
}

/// Prints what `query` asks for, at most `limit` events of it.
fn print_pages(
    reader: &AuditReader,
    mut query: AuditQuery,
    mut limit: usize,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    while limit > 0 {
        query.limit = limit.min(PAGE);
        let page = reader.query(&query).map_err(unreadable)?;
        for stored in &page.items {
            print(stored, json, out)?;
        }
        limit = limit.saturating_sub(page.items.len());
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    Ok(())
}

fn follow(filter: &Filter, from: Option<u64>) -> Result<(), Failure> {
    let reader = open(&filter.data.folder)?;
    let mut out = stdout();
    let mut after = match from {
        Some(from) => Seq(from.saturating_sub(1)),
        None => reader.head().map_err(unreadable)?.seq,
    };
    let oldest = reader.oldest().map_err(unreadable)?;
    if after.next() < oldest {
        say(&format!("The trail begins with event {oldest}; what was before it is not kept."));
    }
    loop {
        // Read first: what comes meanwhile belongs to the next round.
        let head = reader.head().map_err(unreadable)?;
        if after < head.seq {
            let query = AuditQuery { after: Some(after), ..asked(filter) };
            let shown = Shown { out: &mut out, newest: after };
            after = shown.pages(&reader, query, filter.json)?.max(head.seq);
            out.flush()?;
        }
        sleep(EVERY);
    }
}

/// What `follow` has printed so far.
struct Shown<'a, W> {
    out: &'a mut W,
    newest: Seq,
}

impl<W: Write> Shown<'_, W> {
    /// Prints everything that `query` finds now. Answers with the newest event printed: the
    /// trail grows meanwhile, and what was seen of that is not to be printed again.
    fn pages(
        mut self,
        reader: &AuditReader,
        mut query: AuditQuery,
        json: bool,
    ) -> Result<Seq, Failure> {
        query.limit = PAGE;
        loop {
            let page = reader.query(&query).map_err(unreadable)?;
            for stored in &page.items {
                print(stored, json, self.out)?;
                self.newest = self.newest.max(stored.seq);
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(self.newest),
            }
        }
    }
}

fn judge(reader: &AuditReader, head: Option<(Seq, Hash)>) -> Result<(), Failure> {
    let report = verify(reader, head).map_err(|error| Failure::because(&error, ""))?;
    let mut out = stdout();
    for finding in &report.findings {
        writeln!(out, "{}", plain(&finding.to_string()))?;
    }
    if report.findings_left_out > 0 {
        writeln!(out, "and {} more", report.findings_left_out)?;
    }
    let span = match (report.first, report.last) {
        (Some(first), Some((last, _))) => format!(", {first} to {last}"),
        _ => String::new(),
    };
    writeln!(out, "{} events{span}; {} live locks", report.events, report.live_locks)?;
    if let Some(trimmed) = report.trimmed {
        writeln!(out, "events up to {} have been removed by retention", trimmed.through)?;
    }
    if report.trim_record_owed {
        writeln!(out, "the record of that is not written yet; the next start writes it")?;
    }
    if let Some((seq, hash)) = report.last {
        writeln!(out, "head {seq}:{}", hex(&hash))?;
    }
    out.flush()?;
    if !report.is_clean() {
        let count = report.findings.len() as u64 + report.findings_left_out;
        return Err(Failure::unverified(format!(
            "the trail did not pass: {count} {} found; keep a copy of the data folder as it is",
            if count == 1 { "fault" } else { "faults" }
        )));
    }
    if head.is_none() {
        say("Without --head, a trail that was written anew from some event on would pass, too.");
    }
    Ok(())
}

/// One event on one line.
fn print(stored: &Stored, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        out.write_all(&stored.bytes)?;
        return Ok(out.write_all(b"\n")?);
    }
    let line = match stored.record() {
        Ok(record) => line(&record),
        Err(error) => format!("{}  unreadable: {error}", stored.seq),
    };
    Ok(writeln!(out, "{line}")?)
}

/// `42  2026-11-20T12:00:00.000Z  acquired  /flags/x  alice  fence=7`
fn line(record: &Record) -> String {
    let mut line = format!("{}  {}  {}", record.seq, record.at, plain(&record.kind));
    let locked = record.resources.iter().flat_map(|resources| resources.iter());
    for resource in locked.chain(&record.resource) {
        line.push_str(&format!("  {resource}"));
    }
    if let Some(holder) = &record.holder {
        line.push_str(&format!("  {}", plain(holder.as_str())));
    }
    if let Some(actor) =
        record.actor.as_ref().filter(|actor| Some(*actor) != record.holder.as_ref())
    {
        line.push_str(&format!("  by {}", plain(actor.as_str())));
    }
    if let Some(fence) = record.fence {
        line.push_str(&format!("  fence={fence}"));
    }
    if let Some(reason) = &record.reason {
        line.push_str(&format!("  \"{}\"", plain(reason)));
    }
    line
}
