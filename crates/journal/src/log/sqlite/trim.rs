//! Retention: the oldest events become the base.

use std::path::Path;

use leasehold_core::event::Event;
use leasehold_core::ids::Seq;
use leasehold_core::rows;
use leasehold_core::time::WallTime;
use rusqlite::{Connection, params};

use super::SqliteLog;
use super::read::{read, used_bytes};
use crate::connect::{failed, int};
use crate::index::RowTable;
use crate::log::{LogError, Retention, TRIM_CHUNK, TrimStep, Trimmed, hash};

impl SqliteLog {
    /// Removes the oldest events that retention does not keep, at most [`TRIM_CHUNK`], and folds
    /// them into the base, in one transaction.
    pub(super) fn trim_a_chunk(
        &mut self,
        retention: &Retention,
        now: WallTime,
    ) -> Result<TrimStep, LogError> {
        let connection = self.connection()?;
        let due = due(connection, retention, now, self.head.seq, &self.path)?;
        let Some(trimmed) = due.cut else { return Ok(TrimStep::default()) };
        let removed = due.events.len();
        self.transact("trim", |log, connection| {
            let mut base = RowTable::new(connection);
            let mut meta = rows::get_meta(&mut base).map_err(LogError::Fold)?;
            for event in &due.events {
                rows::fold(event, &mut meta, &mut base).map_err(LogError::Fold)?;
            }
            rows::put_meta(&meta, &mut base).map_err(LogError::Fold)?;
            let path = &log.path;
            base.flush().map_err(LogError::Fold)?;
            connection
                .prepare_cached("DELETE FROM event WHERE seq <= ?1")
                .and_then(|mut delete| delete.execute([int(trimmed.through.0)]))
                .map_err(failed("trim", path))?;
            connection
                .prepare_cached(
                    "UPDATE state SET trimmed_through = ?1, trimmed_hash = ?2, trim_owed = 1",
                )
                .and_then(|mut update| {
                    update.execute(params![int(trimmed.through.0), trimmed.hash])
                })
                .map_err(failed("trim", path))?;
            Ok(())
        })?;
        self.trimmed = Some(trimmed);
        self.marks.trim_owed = true;
        Ok(TrimStep { removed, more: removed == TRIM_CHUNK })
    }
}

/// What one trim is to remove.
struct Due {
    events: Vec<Event>,
    cut: Option<Trimmed>,
}

fn due(
    connection: &Connection,
    retention: &Retention,
    now: WallTime,
    head: Seq,
    path: &Path,
) -> Result<Due, LogError> {
    let too_large = match retention.max_bytes {
        Some(max) => used_bytes(connection).map_err(failed("measure", path))? > max,
        None => false,
    };
    let mut due = Due { events: Vec::new(), cut: None };
    if !too_large && retention.max_age_ms.is_none() {
        return Ok(due);
    }
    let too_old = |at| retention.max_age_ms.is_some_and(|age| at < now - age);
    let oldest = read(connection, Seq(0), 1).map_err(failed("read", path))?;
    let Some(oldest) = oldest.first() else { return Ok(due) };
    // Most often nothing is due, and the one event says so.
    if !too_large && !too_old(oldest.event()?.at) {
        return Ok(due);
    }
    for stored in read(connection, oldest.seq, TRIM_CHUNK).map_err(failed("read", path))? {
        let event = stored.event()?;
        if stored.seq == head || !(too_large || too_old(event.at)) {
            break;
        }
        due.cut = Some(Trimmed { through: stored.seq, hash: hash(&stored.bytes) });
        due.events.push(event);
    }
    Ok(due)
}
