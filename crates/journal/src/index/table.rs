//! Named rows in a SQLite table `row (key, value)`, gathered in memory until they are flushed.
//!
//! Most locks live for less than a batch; their rows never reach the table. What does reach it
//! goes there in the order of its keys.
//!
//! The sum over a table is the wrapping sum, over its rows, of the first eight bytes of a
//! SHA-256 of key and value: it can be kept up to date row by row, and a table that lost, gained
//! or changed a row has another one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use leasehold_core::rows::{FoldError, Key, Row, Rows};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::endings::Endings;

/// The rows of one table, in one transaction of its owner's.
pub(crate) struct RowTable<'a> {
    connection: &'a Connection,
    /// What has changed since the last flush.
    changed: BTreeMap<Key, Change>,
    /// What takes the rows of locks that have ended, where they are not in the table.
    endings: Option<&'a mut Endings>,
    sum: i64,
}

/// What is to become of a row.
enum Change {
    /// The table has none of its name.
    Added(Row),
    Set(Row),
    Gone,
}

impl Change {
    fn row(&self) -> Option<&Row> {
        match self {
            Self::Added(row) | Self::Set(row) => Some(row),
            Self::Gone => None,
        }
    }

    fn into_row(self) -> Option<Row> {
        match self {
            Self::Added(row) | Self::Set(row) => Some(row),
            Self::Gone => None,
        }
    }
}

type Fallible<T> = Result<T, FoldError<rusqlite::Error>>;

impl<'a> RowTable<'a> {
    /// The table of a connection. The sum starts at 0.
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self { connection, changed: BTreeMap::new(), endings: None, sum: 0 }
    }

    /// The same, of an index: the rows of locks that have ended go to `endings`.
    pub(crate) fn of_index(connection: &'a Connection, endings: &'a mut Endings) -> Self {
        Self { endings: Some(endings), ..Self::new(connection) }
    }

    /// The connection that the table is reached through.
    pub(crate) fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// What the sum over the table has changed by, as of the last flush.
    pub(crate) fn sum(&self) -> i64 {
        self.sum
    }

    /// Writes what has changed.
    pub(crate) fn flush(&mut self) -> Fallible<()> {
        let mut select = self.select()?;
        let mut put =
            self.connection.prepare_cached("INSERT OR REPLACE INTO row VALUES (?1, ?2)")?;
        let mut delete = self.connection.prepare_cached("DELETE FROM row WHERE key = ?1")?;
        for (key, change) in std::mem::take(&mut self.changed) {
            let key = key.to_string();
            let old = match &change {
                Change::Added(_) => None,
                Change::Set(_) | Change::Gone => lookup(&mut select, &key)?,
            };
            if let Some(old) = &old {
                self.sum = self.sum.wrapping_sub(row_sum(&key, old));
            }
            if let Some(row) = change.row() {
                let value =
                    row.to_json().map_err(|source| FoldError::Row { key: key.clone(), source })?;
                self.sum = self.sum.wrapping_add(row_sum(&key, &value));
                put.execute(params![key, value])?;
            } else if old.is_some() {
                delete.execute([&key])?;
            }
        }
        if let Some(endings) = &mut self.endings {
            self.sum = self.sum.wrapping_add(endings.flush(self.connection)?);
        }
        Ok(())
    }

    /// A row as the table has it.
    fn stored(&self, key: &Key) -> Fallible<Option<Row>> {
        let key = key.to_string();
        let Some(value) = lookup(&mut self.select()?, &key)? else { return Ok(None) };
        Row::parse(&key, &value).map_err(|source| FoldError::Row { key, source })
    }

    fn select(&self) -> rusqlite::Result<CachedStatement<'a>> {
        self.connection.prepare_cached("SELECT value FROM row WHERE key = ?1")
    }
}

fn lookup(select: &mut CachedStatement<'_>, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    select.query_row([key], |row| row.get(0)).optional()
}

/// What one row adds to the sum over its table.
pub(crate) fn row_sum(key: &str, value: &[u8]) -> i64 {
    let mut digest = Sha256::new();
    digest.update((key.len() as u64).to_le_bytes());
    digest.update(key);
    digest.update(value);
    let digest: [u8; 32] = digest.finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_le_bytes(first)
}

/// Goes over all rows in the order of their keys, and answers with the sum over them.
pub(crate) fn for_each(
    connection: &Connection,
    mut visit: impl FnMut(&str, &[u8]),
) -> rusqlite::Result<i64> {
    let mut select = connection.prepare_cached("SELECT key, value FROM row ORDER BY key")?;
    let mut found = select.query([])?;
    let mut sum = 0_i64;
    while let Some(row) = found.next()? {
        let key = row.get_ref(0)?.as_str()?;
        let value = row.get_ref(1)?.as_blob()?;
        sum = sum.wrapping_add(row_sum(key, value));
        visit(key, value);
    }
    Ok(sum)
}

impl Rows for RowTable<'_> {
    type Error = rusqlite::Error;

    fn get(&mut self, key: &Key) -> Fallible<Option<Row>> {
        match self.changed.get(key) {
            Some(change) => Ok(change.row().cloned()),
            None => self.stored(key),
        }
    }

    fn put(&mut self, row: Row) -> Fallible<()> {
        match self.changed.entry(row.key()) {
            Entry::Vacant(place) => {
                place.insert(Change::Set(row));
            }
            Entry::Occupied(mut place) => {
                let is_added = matches!(place.get(), Change::Added(_));
                place.insert(if is_added { Change::Added(row) } else { Change::Set(row) });
            }
        }
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Fallible<()> {
        if let Some(Change::Added(_)) = self.changed.get(key) {
            self.changed.remove(key);
        } else {
            self.changed.insert(key.clone(), Change::Gone);
        }
        Ok(())
    }

    fn delete_range(&mut self, from: &Key, to: &Key) -> Fallible<()> {
        if let (Some(endings), Key::Ended(..), Key::Ended(before, _)) =
            (&mut self.endings, from, to)
        {
            endings.forget(*before);
        }
        // What is in the table goes from there, whatever it was to become.
        let mut rest = self.changed.split_off(from);
        let mut kept = rest.split_off(to);
        self.changed.append(&mut kept);
        let (from, to) = (from.to_string(), to.to_string());
        let mut select = self
            .connection
            .prepare_cached("SELECT key, value FROM row WHERE key >= ?1 AND key < ?2")?;
        let mut found = select.query([&from, &to])?;
        while let Some(row) = found.next()? {
            let key = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            let value = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            self.sum = self.sum.wrapping_sub(row_sum(key, value));
        }
        self.connection
            .prepare_cached("DELETE FROM row WHERE key >= ?1 AND key < ?2")?
            .execute([from, to])?;
        Ok(())
    }

    fn add(&mut self, row: Row) -> Fallible<()> {
        match (&mut self.endings, row) {
            (Some(endings), Row::Ended(ended)) => endings.add(*ended),
            (_, row) => {
                self.changed.insert(row.key(), Change::Added(row));
            }
        }
        Ok(())
    }

    fn take(&mut self, key: &Key) -> Fallible<Option<Row>> {
        match self.changed.get_mut(key) {
            Some(Change::Added(_)) => {
                Ok(self.changed.remove(key).and_then(|change| change.into_row()))
            }
            Some(change) => Ok(std::mem::replace(change, Change::Gone).into_row()),
            None => {
                let row = self.stored(key)?;
                if row.is_some() {
                    self.changed.insert(key.clone(), Change::Gone);
                }
                Ok(row)
            }
        }
    }

    fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Row)) -> Fallible<()> {
        match self.changed.get_mut(key) {
            Some(Change::Added(row) | Change::Set(row)) => change(row),
            Some(Change::Gone) => {}
            None => {
                if let Some(mut row) = self.stored(key)? {
                    change(&mut row);
                    self.changed.insert(key.clone(), Change::Set(row));
                }
            }
        }
        Ok(())
    }
}
