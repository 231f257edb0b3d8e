//! Locks of the files, and the memory that the connections to one file share.

use std::sync::atomic::AtomicU64;

use super::{Disk, DiskError, HandleId, Region, State};

/// How much of a file a connection has to itself; SQLite's five levels.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum LockLevel {
    /// Nothing.
    #[default]
    None,
    /// It reads.
    Shared,
    /// It is about to write.
    Reserved,
    /// It waits for readers to leave.
    Pending,
    /// It writes.
    Exclusive,
}

impl Disk {
    /// Takes a lock of a file.
    ///
    /// # Errors
    /// [`DiskError::Busy`] when another connection is in the way.
    pub fn lock(&self, handle: HandleId, level: LockLevel) -> Result<(), DiskError> {
        let mut state = self.state();
        state.file(handle)?;
        let State { handles, process, .. } = &mut *state;
        let Some(own) = handles.get(&handle) else { return Err(DiskError::Failed) };
        let (id, held) = (own.file, own.lock);
        if level <= held {
            return Ok(());
        }
        let others = handles
            .iter()
            .filter(|(other, each)| {
                **other != handle && each.file == id && each.process == *process
            })
            .map(|(_, each)| each.lock)
            .max()
            .unwrap_or_default();
        let (gets, result) = match level {
            LockLevel::Shared if others >= LockLevel::Pending => (held, Err(DiskError::Busy)),
            LockLevel::Reserved if others >= LockLevel::Reserved => (held, Err(DiskError::Busy)),
            LockLevel::Exclusive | LockLevel::Pending if others >= LockLevel::Reserved => {
                (held, Err(DiskError::Busy))
            }
            LockLevel::Exclusive if others >= LockLevel::Shared => {
                (LockLevel::Pending, Err(DiskError::Busy))
            }
            level => (level, Ok(())),
        };
        if let Some(own) = handles.get_mut(&handle) {
            own.lock = gets;
        }
        result
    }

    /// Gives a lock back, down to `level`.
    pub fn unlock(&self, handle: HandleId, level: LockLevel) {
        if let Some(own) = self.state().handles.get_mut(&handle) {
            own.lock = own.lock.min(level);
        }
    }

    /// Whether any connection is about to write.
    #[must_use]
    pub fn is_reserved(&self, handle: HandleId) -> bool {
        let state = self.state();
        let Some(own) = state.handles.get(&handle) else { return false };
        state.handles.values().any(|each| {
            each.file == own.file && each.process == own.process && each.lock >= LockLevel::Reserved
        })
    }

    /// A region of shared memory; none if it is not there and not to be made.
    ///
    /// # Errors
    /// When the process is dead.
    pub fn region(
        &self,
        handle: HandleId,
        number: usize,
        bytes: usize,
        make: bool,
    ) -> Result<Option<Region>, DiskError> {
        let mut state = self.state();
        let file = state.file(handle)?;
        while make && file.regions.len() <= number {
            let words = bytes.div_ceil(8);
            file.regions.push((0..words).map(|_| AtomicU64::new(0)).collect());
        }
        Ok(file.regions.get(number).cloned())
    }

    /// Takes or gives back locks of the shared memory.
    ///
    /// # Errors
    /// [`DiskError::Busy`] when another connection is in the way.
    pub fn lock_regions(
        &self,
        handle: HandleId,
        slots: std::ops::Range<usize>,
        take: bool,
        exclusive: bool,
    ) -> Result<(), DiskError> {
        let mut state = self.state();
        let Ok(file) = state.file(handle) else {
            return if take { Err(DiskError::Failed) } else { Ok(()) };
        };
        if !take {
            file.region_locks
                .retain(|(holder, slot, _)| *holder != handle || !slots.contains(slot));
            return Ok(());
        }
        let in_the_way = file.region_locks.iter().any(|(holder, slot, held_exclusively)| {
            *holder != handle && slots.contains(slot) && (exclusive || *held_exclusively)
        });
        if in_the_way {
            return Err(DiskError::Busy);
        }
        for slot in slots {
            let own = (handle, slot, exclusive);
            if !file.region_locks.contains(&own) {
                file.region_locks.push(own);
            }
        }
        Ok(())
    }

    /// A connection does not use the shared memory any more; the last one may remove it.
    pub fn leave_regions(&self, handle: HandleId, remove: bool) {
        let mut state = self.state();
        let Ok(file) = state.file(handle) else { return };
        file.region_locks.retain(|(holder, ..)| *holder != handle);
        if remove {
            file.regions.clear();
        }
    }
}
