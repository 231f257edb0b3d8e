//! Named rows in a SQLite table `row (key, value)`, gathered in memory until they are flushed.
//!
//! Most locks live for less than a batch; their rows never reach the table. What does reach it
//! goes there in the order of its keys.
//!
//! The sum over a table is the wrapping sum, over its rows, of the first eight bytes of a
//! SHA-256 of key and value: it can be kept up to date row by row, and a table that lost, gained
//! or changed a row has another one.

use std::collections::BTreeMap;

use leasehold_core::rows::Rows;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

/// The rows of one table, in one transaction of its owner's.
pub(crate) struct RowTable<'a> {
    connection: &'a Connection,
    /// What has been set, or removed, since the last flush.
    changed: BTreeMap<String, Option<Vec<u8>>>,
    sum: i64,
}

impl<'a> RowTable<'a> {
    /// The table of a connection. The sum starts at 0.
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self { connection, changed: BTreeMap::new(), sum: 0 }
    }

    /// What the sum over the table has changed by, as of the last flush.
    pub(crate) fn sum(&self) -> i64 {
        self.sum
    }

    /// Writes what has changed.
    pub(crate) fn flush(&mut self) -> rusqlite::Result<()> {
        let mut select = self.select()?;
        let mut put =
            self.connection.prepare_cached("INSERT OR REPLACE INTO row VALUES (?1, ?2)")?;
        let mut delete = self.connection.prepare_cached("DELETE FROM row WHERE key = ?1")?;
        for (key, value) in std::mem::take(&mut self.changed) {
            let old = lookup(&mut select, &key)?;
            if let Some(old) = &old {
                self.sum = self.sum.wrapping_sub(row_sum(&key, old));
            }
            match value {
                Some(value) => {
                    self.sum = self.sum.wrapping_add(row_sum(&key, &value));
                    put.execute(params![key, value])?;
                }
                None if old.is_some() => {
                    delete.execute([&key])?;
                }
                None => {}
            }
        }
        Ok(())
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

    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, Self::Error> {
        match self.changed.get(key) {
            Some(value) => Ok(value.clone()),
            None => lookup(&mut self.select()?, key),
        }
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), Self::Error> {
        self.changed.insert(key.to_owned(), Some(value.to_owned()));
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), Self::Error> {
        self.changed.insert(key.to_owned(), None);
        Ok(())
    }

    fn delete_range(&mut self, from: &str, to: &str) -> Result<(), Self::Error> {
        self.flush()?;
        let mut select = self
            .connection
            .prepare_cached("SELECT key, value FROM row WHERE key >= ?1 AND key < ?2")?;
        let mut found = select.query([from, to])?;
        while let Some(row) = found.next()? {
            let (key, value) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_blob()?);
            self.sum = self.sum.wrapping_sub(row_sum(key, value));
        }
        self.connection
            .prepare_cached("DELETE FROM row WHERE key >= ?1 AND key < ?2")?
            .execute([from, to])?;
        Ok(())
    }
}
