//! How much has gathered in a write-ahead file, for a writer that does its checkpoints itself: SQLite
//! would make one a part of the commit that fills the file, and its answers wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;
use rusqlite::hooks::Wal;

/// How many pages are in the write-ahead file of one writer.
#[derive(Debug, Default)]
pub struct Gathered {
    /// After the newest commit.
    now: AtomicU32,
    /// How many of them there were at the last checkpoint.
    at_checkpoint: AtomicU32,
}

impl Gathered {
    /// Is told of each commit of `connection` from now on, which does no checkpoint by itself any
    /// more.
    ///
    /// # Errors
    /// When the connection cannot be told to.
    pub fn count(self: &Arc<Self>, connection: &mut Connection) -> rusqlite::Result<()> {
        let gathered = Arc::clone(self);
        connection.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            gathered.committed(u32::try_from(pages).unwrap_or(0));
            Ok(())
        }))
    }

    fn committed(&self, pages: u32) {
        self.now.store(pages, Ordering::Relaxed);
        // Begun anew, for nobody needed what was there.
        if pages < self.at_checkpoint.load(Ordering::Relaxed) {
            self.at_checkpoint.store(0, Ordering::Relaxed);
        }
    }

    /// A checkpoint has moved what it could.
    pub fn moved(&self) {
        self.at_checkpoint.store(self.now.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The write-ahead file is empty.
    pub fn restarted(&self) {
        self.now.store(0, Ordering::Relaxed);
        self.at_checkpoint.store(0, Ordering::Relaxed);
    }

    /// How many pages there are after the newest commit: those that were moved count until a commit
    /// finds that nobody needs them there, and begins anew.
    #[must_use]
    pub fn pages(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// How many pages have come since the last checkpoint.
    #[must_use]
    pub fn since_moved(&self) -> u32 {
        let at_checkpoint = self.at_checkpoint.load(Ordering::Relaxed);
        self.now.load(Ordering::Relaxed).saturating_sub(at_checkpoint)
    }
}
