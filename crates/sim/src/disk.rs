//! A disk in memory that forgets, tears, refuses and fills up, as real ones do.
//!
//! A file has what is on the platter (`durable`), what a reader sees (`current`), and the changes
//! between the two, in order. What always holds:
//! - a sync that succeeds makes every change before it durable, but for changes that an earlier
//!   sync has failed on: those are seen by readers until the power goes, and never become durable
//!   (as with a kernel that marks pages clean after it could not write them);
//! - when the power goes, each sector of each change is there or not, as the seed says: writes are
//!   lost, reordered and torn. Bytes that no change touched stay as they are;
//! - when the process is killed, everything that was written stays.
//!
//! Deliberately absent: SQLite (see [`crate::vfs`]), and names: they are those of a real folder, so
//! that the product looks for its files as it does elsewhere.

mod file;
mod locks;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use sha2::{Digest as _, Sha256};

use file::{Change, File};
pub use locks::LockLevel;

/// Which file.
pub type FileId = u64;

/// One open file of one process.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct HandleId(u64);

/// A part of the memory that the connections to one file share.
pub type Region = Arc<[AtomicU64]>;

/// Why an operation on the disk failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DiskError {
    /// The device says so, or the process is dead.
    Failed,
    /// There is no room.
    Full,
    /// Somebody else has the lock.
    Busy,
}

/// What goes wrong next. Operations are writes, truncations and syncs.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// So many operations succeed, and the one after them fails.
    pub fail_after: Option<u64>,
    /// So many operations succeed; then the process is dead in the middle of the next.
    pub die_after: Option<u64>,
    /// Every operation fails.
    pub broken: bool,
    /// So many reads succeed, and the one after them fails.
    pub fail_read_after: Option<u64>,
    /// The most bytes of all files together.
    pub capacity: Option<u64>,
}

/// How a process ends without being asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Crash {
    /// The process is killed: what it has written is in the system's hands.
    Kill,
    /// The power goes: of what was not synced, some is there.
    PowerLoss,
}

/// The disk. Shared by the files that are open on it and the simulation.
#[derive(Debug)]
pub struct Disk {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    files: BTreeMap<FileId, File>,
    handles: BTreeMap<HandleId, Handle>,
    next: u64,
    /// Grows with each crash: whatever was open before is of a dead process.
    process: u64,
    is_dead: bool,
    faults: Faults,
    /// Writes, truncations and syncs that were tried.
    operations: u64,
    /// How many of them failed.
    failures: u64,
    sector: usize,
    /// Whether no fault comes at the moment.
    is_spared: bool,
}

#[derive(Debug)]
struct Handle {
    file: FileId,
    process: u64,
    lock: LockLevel,
}

impl Disk {
    /// An empty disk whose faults come out of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let sector = if rng.bool() { 512 } else { 4096 };
        let state = State {
            rng,
            files: BTreeMap::new(),
            handles: BTreeMap::new(),
            next: 1,
            process: 0,
            is_dead: false,
            faults: Faults::default(),
            operations: 0,
            failures: 0,
            sector,
            is_spared: false,
        };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- what the simulation does to it --------------------------------------------------------

    /// Says what goes wrong next.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Holds the faults back for a while, or no longer: for a reader that is not part of the world.
    pub fn spare(&self, is_spared: bool) {
        self.state().is_spared = is_spared;
    }

    /// Whether the process died in the middle of an operation: nothing that it does has an effect.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    /// How many writes, truncations and syncs were tried.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// How many writes, truncations and syncs have failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.state().failures
    }

    /// How many bytes all files have.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Ends the process: whatever is open has no effect any more, and what a start then finds is
    /// as the crash left it. Answers with the files whose names are lost.
    pub fn crash(&self, crash: Crash) -> Vec<FileId> {
        let mut state = self.state();
        let State { rng, files, sector, .. } = &mut *state;
        let mut nameless = Vec::new();
        for (&id, file) in files.iter_mut() {
            if crash == Crash::PowerLoss {
                file.lose_power(*sector, rng);
                if !file.has_name && rng.bool() {
                    nameless.push(id);
                }
            }
            file.regions.clear();
            file.region_locks.clear();
        }
        state.process += 1;
        state.is_dead = false;
        state.faults = Faults::default();
        nameless
    }

    /// The bytes of a file as a reader sees them.
    #[must_use]
    pub fn bytes(&self, file: FileId) -> Vec<u8> {
        self.state().files.get(&file).map(|file| file.current.clone()).unwrap_or_default()
    }

    /// Puts these bytes there, durably, as if the disk had always had them.
    pub fn put(&self, file: FileId, bytes: Vec<u8>) {
        let mut state = self.state();
        let file = state.files.entry(file).or_default();
        file.durable.clone_from(&bytes);
        file.current = bytes;
        file.changes.clear();
    }

    /// A digest of every file: the same for the same history.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for (id, file) in &self.state().files {
            hasher.update(id.to_be_bytes());
            hasher.update((file.current.len() as u64).to_be_bytes());
            hasher.update(&file.current);
            hasher.update(&file.durable);
        }
        hasher.finalize().into()
    }

    // ---- files ---------------------------------------------------------------------------------

    /// Makes an empty file. `is_new` says whether its name has to be synced with it.
    pub fn create(&self, is_new: bool) -> FileId {
        let mut state = self.state();
        let id = state.fresh();
        state.files.insert(id, File { has_name: !is_new, ..File::default() });
        id
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn has(&self, file: FileId) -> bool {
        self.state().files.contains_key(&file)
    }

    /// A file whose name has gone. Whoever has it open goes on with it.
    pub fn unlink(&self, file: FileId) {
        let mut state = self.state();
        if !state.handles.values().any(|handle| handle.file == file) {
            state.files.remove(&file);
        }
    }

    /// Whether the process may still make and remove names.
    #[must_use]
    pub fn works(&self) -> bool {
        let state = self.state();
        !state.is_dead && !state.faults.broken
    }

    /// Opens a file.
    pub fn open(&self, file: FileId) -> HandleId {
        let mut state = self.state();
        let id = HandleId(state.fresh());
        let process = state.process;
        state.handles.insert(id, Handle { file, process, lock: LockLevel::None });
        id
    }

    /// Closes it: its locks go.
    pub fn close(&self, handle: HandleId) {
        let mut state = self.state();
        let Some(closed) = state.handles.remove(&handle) else { return };
        if let Some(file) = state.files.get_mut(&closed.file) {
            file.region_locks.retain(|(holder, ..)| *holder != handle);
        }
    }

    /// How many bytes a file has.
    ///
    /// # Errors
    /// When the process is dead.
    pub fn size(&self, handle: HandleId) -> Result<u64, DiskError> {
        let mut state = self.state();
        Ok(state.file(handle)?.current.len() as u64)
    }

    /// Fills `into` from a position on; how much of it was there.
    ///
    /// # Errors
    /// As the faults say.
    pub fn read(&self, handle: HandleId, at: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        let mut state = self.state();
        if !state.is_spared && countdown(&mut state.faults.fail_read_after) {
            return Err(DiskError::Failed);
        }
        let file = state.file(handle)?;
        let at = index(at).min(file.current.len());
        let count = into.len().min(file.current.len() - at);
        into[..count].copy_from_slice(&file.current[at..at + count]);
        into[count..].fill(0);
        Ok(count)
    }

    /// Writes. What fails may have been written in part.
    ///
    /// # Errors
    /// As the faults say.
    pub fn write(&self, handle: HandleId, at: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.state();
        let grows = {
            let file = state.file(handle)?;
            (at + bytes.len() as u64).saturating_sub(file.current.len() as u64)
        };
        let full = grows > 0
            && state.faults.capacity.is_some_and(|capacity| capacity < state.used() + grows);
        let outcome = if full { state.refuse() } else { state.operate() };
        let written = match outcome {
            Ok(()) => bytes.len(),
            Err(_) => state.rng.usize(0..=bytes.len()),
        };
        // A full disk takes nothing at all, so that it does not grow by its refusals.
        if !full && written > 0 {
            let file = state.file_of(handle)?;
            file.change(Change::Write { at: index(at), bytes: bytes[..written].to_vec() });
        }
        outcome
    }

    /// Cuts a file off, or makes it longer with zeros.
    ///
    /// # Errors
    /// As the faults say.
    pub fn truncate(&self, handle: HandleId, size: u64) -> Result<(), DiskError> {
        let mut state = self.state();
        state.file(handle)?;
        state.operate()?;
        state.file(handle)?.change(Change::Truncate { size: index(size) });
        Ok(())
    }

    /// Makes everything that was written durable. Where it fails, some of it is, and the rest will
    /// never be.
    ///
    /// # Errors
    /// As the faults say.
    pub fn sync(&self, handle: HandleId) -> Result<(), DiskError> {
        let mut state = self.state();
        state.file(handle)?;
        let outcome = state.operate();
        let died = state.is_dead;
        let State { rng, files, handles, sector, .. } = &mut *state;
        let file = handles.get(&handle).and_then(|handle| files.get_mut(&handle.file));
        let file = file.ok_or(DiskError::Failed)?;
        match outcome {
            Ok(()) => file.settle(),
            // Who dies in a sync has asked for it; how far it came, the power decides.
            Err(_) if died => {}
            Err(_) => file.settle_in_part(*sector, rng),
        }
        outcome
    }

    /// Somebody writes everything that is in a file again where it is, and syncs it.
    ///
    /// # Errors
    /// As the faults say.
    pub fn write_again(&self, file: FileId) -> Result<(), DiskError> {
        let bytes = self.bytes(file);
        if bytes.is_empty() {
            return Ok(());
        }
        let handle = self.open(file);
        let result = self.write(handle, 0, &bytes).and_then(|()| self.sync(handle));
        self.close(handle);
        result
    }
}

impl State {
    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn used(&self) -> u64 {
        self.files.values().map(|file| file.current.len() as u64).sum()
    }

    /// The file of a handle, if its process lives.
    fn file(&mut self, handle: HandleId) -> Result<&mut File, DiskError> {
        if self.is_dead {
            return Err(DiskError::Failed);
        }
        self.file_of(handle)
    }

    /// The same, also in the operation that the process dies in.
    fn file_of(&mut self, handle: HandleId) -> Result<&mut File, DiskError> {
        let own = self.handles.get(&handle).filter(|own| own.process == self.process);
        let own = own.ok_or(DiskError::Failed)?;
        self.files.get_mut(&own.file).ok_or(DiskError::Failed)
    }

    fn refuse(&mut self) -> Result<(), DiskError> {
        self.failures += 1;
        Err(DiskError::Full)
    }

    /// Counts one operation, and says whether it succeeds.
    fn operate(&mut self) -> Result<(), DiskError> {
        if self.is_spared {
            return Ok(());
        }
        self.operations += 1;
        if countdown(&mut self.faults.die_after) {
            self.is_dead = true;
        }
        let fails = countdown(&mut self.faults.fail_after);
        if fails || self.is_dead || self.faults.broken {
            self.failures += 1;
            return Err(DiskError::Failed);
        }
        Ok(())
    }
}

/// Whether what was to come after so many more has come.
fn countdown(left: &mut Option<u64>) -> bool {
    match left {
        Some(0) => {
            *left = None;
            true
        }
        Some(more) => {
            *more -= 1;
            false
        }
        None => false,
    }
}

/// A position as an index. The simulated files are far smaller than any memory.
fn index(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
