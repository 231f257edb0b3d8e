//! What the log's writer and its readers have in common: the queries on `log.db`.

use leasehold_core::ids::Seq;
use leasehold_core::time::LeaseTime;
use rusqlite::{Connection, OptionalExtension, params};

use super::Marks;
use crate::connect::{int, seq, uint};
use crate::log::{BaseRow, Hash, Head, READ_BYTES, Stored, Trimmed, hash};

/// The one row of `state`.
pub(super) fn state(
    connection: &Connection,
) -> rusqlite::Result<(LeaseTime, Marks, Option<Trimmed>)> {
    connection.query_row(
        "SELECT lease, clean, restored, trimmed_through, trimmed_hash, trim_owed FROM state",
        [],
        |row| {
            let through: Option<i64> = row.get(3)?;
            let hash: Option<Hash> = row.get(4)?;
            Ok((
                LeaseTime(uint(row.get(0)?)),
                Marks { clean: row.get(1)?, restored: row.get(2)?, trim_owed: row.get(5)? },
                through.zip(hash).map(|(through, hash)| Trimmed { through: seq(through), hash }),
            ))
        },
    )
}

/// Where the trail begins; for readers.
pub(crate) fn trimmed(connection: &Connection) -> rusqlite::Result<Option<Trimmed>> {
    Ok(state(connection)?.2)
}

/// Where the log stands; for readers.
pub(crate) fn head(connection: &Connection) -> rusqlite::Result<Head> {
    // The event before the state: a commit in between can only make the lease reading newer.
    let last = tail(connection, 1)?.pop();
    let (lease, _, trimmed) = state(connection)?;
    Ok(match (last, trimmed) {
        (Some(last), _) => {
            let told = last.record().map_or(lease, |record| record.lease_ms);
            Head { seq: last.seq, hash: hash(&last.bytes), lease: lease.max(told) }
        }
        (None, Some(Trimmed { through, hash })) => Head { seq: through, hash, lease },
        (None, None) => Head { lease, ..Head::default() },
    })
}

/// The oldest event that is kept.
pub(super) fn oldest(connection: &Connection) -> rusqlite::Result<Option<Seq>> {
    connection
        .query_row("SELECT seq FROM event ORDER BY seq LIMIT 1", [], |row| row.get(0))
        .optional()
        .map(|found| found.map(seq))
}

/// The newest events, oldest first.
pub(super) fn tail(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Stored>> {
    let mut select =
        connection.prepare_cached("SELECT seq, body FROM event ORDER BY seq DESC LIMIT ?1")?;
    let found = select.query_map([int(limit as u64)], stored)?;
    let mut tail = found.collect::<Result<Vec<_>, _>>()?;
    tail.reverse();
    Ok(tail)
}

/// Events from `from` on, bounded as [`super::Log::read`] says.
pub(crate) fn read(
    connection: &Connection,
    from: Seq,
    limit: usize,
) -> rusqlite::Result<Vec<Stored>> {
    let mut select = connection
        .prepare_cached("SELECT seq, body FROM event WHERE seq >= ?1 ORDER BY seq LIMIT ?2")?;
    let mut found = select.query(params![int(from.0), int(limit as u64)])?;
    let mut events = Vec::new();
    let mut bytes = 0;
    while let Some(row) = found.next()? {
        let event = stored(row)?;
        bytes += event.bytes.len();
        events.push(event);
        if bytes >= READ_BYTES {
            break;
        }
    }
    Ok(events)
}

/// One event.
pub(crate) fn one(connection: &Connection, at: Seq) -> rusqlite::Result<Option<Stored>> {
    connection
        .prepare_cached("SELECT seq, body FROM event WHERE seq = ?1")?
        .query_row([int(at.0)], stored)
        .optional()
}

/// Rows of the base, as [`super::Log::base`] says.
pub(crate) fn base(
    connection: &Connection,
    after: &str,
    limit: usize,
) -> rusqlite::Result<Vec<BaseRow>> {
    let mut select = connection
        .prepare_cached("SELECT key, value FROM row WHERE key > ?1 ORDER BY key LIMIT ?2")?;
    let found = select.query_map(params![after, int(limit as u64)], |row| {
        Ok(BaseRow { key: row.get(0)?, value: row.get(1)? })
    })?;
    found.collect()
}

fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored { seq: seq(row.get(0)?), bytes: body(row)?.to_owned() })
}

/// The second column, an event's bytes. Whoever edits the file with SQL leaves text or worse
/// there; that is for the chain to find, not an error of the store.
pub(crate) fn body<'a>(row: &'a rusqlite::Row<'_>) -> rusqlite::Result<&'a [u8]> {
    Ok(row.get_ref(1)?.as_bytes().unwrap_or_default())
}

/// The bytes of the pages in use: events, base, and what SQLite adds.
pub(super) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = pragma("page_count")? - pragma("freelist_count")?;
    Ok(uint(pages) * uint(pragma("page_size")?))
}
