//! How locks ended, as many in a row of the table as one batch brought.
//!
//! Nobody looks one of them up here: a start reads them all, and what is old goes, oldest first. A
//! row for each would cost the follower more than everything else that it does.
//!
//! What always holds: whatever the lock table remembers of endings is there. What it has long
//! forgotten is not, so that a start does not grow with the number of locks of a whole day.

use leasehold_core::json::{self, Members};
use leasehold_core::lock::{Ended, Ending};
use leasehold_core::rows::FoldError;
use leasehold_core::state::{KEY_KEPT_MS, MAX_ENDED, MAX_KEYED};
use leasehold_core::time::LeaseTime;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use super::table::row_sum;
use crate::connect::{int, uint};

/// The endings that are in the table, and those on their way into it.
#[derive(Debug)]
pub(crate) struct Endings {
    /// How many are in the table.
    kept: u64,
    new: Vec<Ended>,
    /// The newest of all that came.
    newest: LeaseTime,
    /// What ended before is forgotten.
    forget: LeaseTime,
}

/// The oldest row, but for the endings themselves.
struct Oldest {
    id: i64,
    newest: LeaseTime,
    locks: u64,
    keyed: u64,
    sum: i64,
}

/// About how many bytes one takes.
const ABOUT: usize = 256;

type Fallible<T> = Result<T, FoldError<rusqlite::Error>>;

impl Endings {
    /// Those of a table.
    pub(crate) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let kept: i64 =
            connection
                .query_row("SELECT ifnull(sum(locks), 0) FROM ended", [], |row| row.get(0))?;
        Ok(Self {
            kept: uint(kept),
            new: Vec::new(),
            newest: LeaseTime::default(),
            forget: LeaseTime::default(),
        })
    }

    pub(super) fn add(&mut self, ended: Ended) {
        self.newest = self.newest.max(ended.lease);
        self.new.push(ended);
    }

    /// Forgets what ended before.
    pub(super) fn forget(&mut self, before: LeaseTime) {
        self.forget = before;
    }

    /// Writes what came, removes what is forgotten, and answers with what the sum over the table
    /// changes by.
    pub(super) fn flush(&mut self, connection: &Connection) -> Fallible<i64> {
        let mut sum = 0_i64;
        let forget = self.forget;
        self.new.retain(|ended| forget <= ended.lease);
        if let Some(newest) = self.new.iter().map(|ended| ended.lease).max() {
            let keyed = self.new.iter().filter(|ended| ended.idempotency.is_some()).count();
            let mut value = Vec::with_capacity(self.new.len() * ABOUT);
            json::list(&mut value, &self.new, write);
            let row = row_sum("ended", &value);
            connection
                .prepare_cached(
                    "INSERT INTO ended (newest_ms, locks, keyed, sum, endings)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    int(newest.0),
                    int(self.new.len() as u64),
                    int(keyed as u64),
                    row,
                    value
                ])?;
            self.kept += self.new.len() as u64;
            self.new.clear();
            sum = row;
        }
        while let Some(oldest) = oldest(connection)?.filter(|oldest| self.is_forgotten(oldest)) {
            connection.prepare_cached("DELETE FROM ended WHERE id = ?1")?.execute([oldest.id])?;
            self.kept = self.kept.saturating_sub(oldest.locks);
            sum = sum.wrapping_sub(oldest.sum);
        }
        Ok(sum)
    }

    fn is_forgotten(&self, oldest: &Oldest) -> bool {
        if oldest.newest < self.forget {
            return true;
        }
        // Twice as many as are remembered: they are not quite in the order of their ends.
        let left = self.kept.saturating_sub(oldest.locks);
        let is_keyed = oldest.keyed > 0 && self.newest.since(oldest.newest) <= KEY_KEPT_MS;
        left >= 2 * (if is_keyed { MAX_KEYED } else { MAX_ENDED }) as u64
    }
}

/// Appends one as its JSON.
fn write(out: &mut Vec<u8>, ended: &Ended) {
    out.push(b'{');
    let mut members = Members::of(out);
    json::id(members.member("lock_id"), ended.lock_id.0);
    json::number(members.member("fence"), ended.fence.0);
    json::list(members.member("resources"), &ended.resources, |out, resource| {
        json::text(out, resource.as_str());
    });
    json::text(members.member("holder"), ended.holder.as_str());
    let ending = members.member("ending");
    match &ended.ending {
        Ending::Released => ending.extend_from_slice(b"{\"how\":\"released\"}"),
        other => plain(ending, other),
    }
    json::number(members.member("lease"), ended.lease.0);
    json::time(members.member("at"), ended.at);
    plain(members.member("idempotency"), &ended.idempotency);
    out.push(b'}');
}

fn plain(out: &mut Vec<u8>, value: &impl Serialize) {
    // Its keys are strings, and writing to memory does not fail.
    let _ = serde_json::to_writer(out, value);
}

fn oldest(connection: &Connection) -> rusqlite::Result<Option<Oldest>> {
    connection
        .prepare_cached("SELECT id, newest_ms, locks, keyed, sum FROM ended ORDER BY id LIMIT 1")?
        .query_row([], |row| {
            Ok(Oldest {
                id: row.get(0)?,
                newest: LeaseTime(uint(row.get(1)?)),
                locks: uint(row.get(2)?),
                keyed: uint(row.get(3)?),
                sum: row.get(4)?,
            })
        })
        .optional()
}

/// Goes over all rows, the oldest first, and answers with the sum over them.
pub(super) fn for_each(
    connection: &Connection,
    mut visit: impl FnMut(Vec<u8>),
) -> rusqlite::Result<i64> {
    let mut select = connection.prepare_cached("SELECT endings FROM ended ORDER BY id")?;
    let mut found = select.query([])?;
    let mut sum = 0_i64;
    while let Some(row) = found.next()? {
        let value: Vec<u8> = row.get(0)?;
        sum = sum.wrapping_add(row_sum("ended", &value));
        visit(value);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use leasehold_core::ids::{Fence, LockId, Principal};
    use leasehold_core::lock::{Break, Idempotency};
    use leasehold_core::resource::Resource;
    use leasehold_core::time::WallTime;

    use super::*;

    fn table() -> (Connection, Endings) {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(super::super::SCHEMA).unwrap();
        let endings = Endings::of(&connection).unwrap();
        (connection, endings)
    }

    fn ended(lease: u64, is_keyed: bool) -> Ended {
        let text: Arc<str> = Arc::from("k");
        Ended {
            lock_id: LockId(uuid::Uuid::from_u128(lease.into())),
            fence: Fence(lease),
            resources: Arc::from([]),
            holder: Principal::new("alice"),
            ending: Ending::Released,
            lease: LeaseTime(lease),
            at: WallTime(0),
            idempotency: is_keyed
                .then(|| Box::new(Idempotency { key: text.clone(), digest: text.clone() })),
        }
    }

    /// The endings of the table, by their times, once it was seen that their sum is `sum`.
    fn all(connection: &Connection, sum: i64) -> Vec<u64> {
        let mut found = Vec::new();
        let real = for_each(connection, |value| {
            let endings: Vec<Ended> = serde_json::from_slice(&value).unwrap();
            found.extend(endings.iter().map(|ended| ended.lease.0));
        });
        assert_eq!(real.unwrap(), sum);
        found
    }

    #[test]
    fn each_is_written_as_serde_json_writes_it() {
        let paths = ["/a b", "/c"].map(|path| Resource::parse(path).unwrap());
        let by = Principal::new("al \"ice\"");
        let reason: Arc<str> = Arc::from("line\nbreak");
        let endings = [
            Ending::Released,
            Ending::Expired,
            Ending::Broken(Break { by: by.clone(), reason }),
            Ending::Transferred { successor: LockId(uuid::Uuid::from_u128(9)), to: by.clone() },
        ];
        for (at, ending) in endings.into_iter().enumerate() {
            let ended = Ended {
                ending,
                holder: by.clone(),
                resources: Arc::from(paths.clone()),
                ..ended(at as u64, at % 2 == 0)
            };
            let mut written = Vec::new();
            write(&mut written, &ended);
            let written = String::from_utf8(written).unwrap();
            assert_eq!(written, serde_json::to_string(&ended).unwrap());
        }
    }

    #[test]
    fn what_is_old_goes_and_the_sum_with_it() {
        let (connection, mut endings) = table();
        let mut sum = 0_i64;
        for lease in [1, 3, 5] {
            endings.add(ended(lease, false));
            endings.add(ended(lease + 1, false));
            sum = endings.flush(&connection).unwrap().wrapping_add(sum);
        }
        assert_eq!(all(&connection, sum), [1, 2, 3, 4, 5, 6]);
        endings.forget(LeaseTime(3));
        sum = endings.flush(&connection).unwrap().wrapping_add(sum);
        assert_eq!(all(&connection, sum), [3, 4, 5, 6]);
        // A row goes when all of it is old; what is old already does not come.
        endings.forget(LeaseTime(6));
        endings.add(ended(5, false));
        sum = endings.flush(&connection).unwrap().wrapping_add(sum);
        assert_eq!(all(&connection, sum), [5, 6]);
        assert_eq!(Endings::of(&connection).unwrap().kept, 2);
    }

    #[test]
    fn no_more_is_kept_than_is_remembered_but_for_keys() {
        let (connection, mut endings) = table();
        let batch = MAX_ENDED as u64 / 4;
        let mut sum = 0_i64;
        let mut put = |endings: &mut Endings, from: u64, is_keyed: bool| {
            (from..from + batch).for_each(|lease| endings.add(ended(lease, is_keyed)));
            sum = endings.flush(&connection).unwrap().wrapping_add(sum);
        };
        put(&mut endings, 0, true);
        for at in 1..9 {
            put(&mut endings, at * batch, false);
        }
        assert_eq!(endings.kept, 9 * batch, "a key is remembered for a while");
        put(&mut endings, KEY_KEPT_MS + batch, false);
        assert_eq!(endings.kept, 8 * batch);
        let kept = all(&connection, sum);
        assert_eq!((kept.len() as u64, kept[0]), (8 * batch, 2 * batch));
    }
}
