//! The simulated disk under SQLite: the only file system that SQLite has in this process.
//!
//! SQLite calls this module where it would call the operating system. Contents are those of a
//! [`Disk`]; names are those of a real folder, in which a file holds nothing but the number of its
//! contents. So whatever the product does with names (look whether a file is there, lock the
//! folder, remove the index) works as it does elsewhere, and no line of it knows of the simulation.
//! Where it writes the bytes of a file again, past SQLite, the name is younger than the simulation
//! has made it, and the contents are written again when SQLite opens the file.
//!
//! What always holds: every call from SQLite ends in a safe function of [`Disk`]; the pointers
//! that SQLite gives are used only while the call lasts, and those that it is given (the shared
//! memory) live as long as the file is open.
//!
//! Deliberately absent: memory maps (the product turns them off), and sleeping.

#![allow(unsafe_code, reason = "SQLite's interface is one of pointers")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::SystemTime;

use rusqlite::ffi;

use crate::disk::{Crash, Disk, DiskError, FileId, HandleId, LockLevel, Region};

/// A folder whose SQLite files are on a simulated disk, as long as this lives.
#[derive(Debug)]
pub struct Mount {
    root: PathBuf,
    disk: Arc<Disk>,
}

static MOUNTS: Mutex<Vec<(PathBuf, Arc<Disk>)>> = Mutex::new(Vec::new());

fn mounts() -> MutexGuard<'static, Vec<(PathBuf, Arc<Disk>)>> {
    MOUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mount {
    /// Puts the SQLite files of the folder at `root` on `disk`.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn new(root: &Path, disk: Arc<Disk>) -> std::io::Result<Self> {
        register();
        let root = root.canonicalize()?;
        mounts().push((root.clone(), disk.clone()));
        Ok(Self { root, disk })
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// The contents of the file of this name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<FileId> {
        named(&self.root.join(name)).ok().flatten()
    }

    /// Ends the process that has the folder, so to speak.
    ///
    /// # Errors
    /// When the real folder cannot be changed.
    pub fn crash(&self, crash: Crash) -> std::io::Result<()> {
        let lost = self.disk.crash(crash);
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path.is_file()
                && let Ok(Some(id)) = named(&path)
            {
                if lost.contains(&id) {
                    fs::remove_file(&path)?;
                    self.disk.unlink(id);
                } else if self.disk.has(id) {
                    untouched(&path)?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        mounts().retain(|(root, _)| *root != self.root);
    }
}

/// Has SQLite draw the same numbers as after every other call of this (for the salts of its
/// write-ahead files).
pub fn reset_randomness() {
    register();
    // SAFETY: with no room for an answer this only forgets the state of the generator.
    unsafe { ffi::sqlite3_randomness(0, std::ptr::null_mut()) };
}

/// What a name says: the number of the contents. None for a file that is empty, as it is when the
/// product has just made it.
fn named(path: &Path) -> std::io::Result<Option<FileId>> {
    Ok(String::from_utf8(fs::read(path)?).ok().and_then(|text| text.parse().ok()))
}

fn disk_of(path: &Path) -> Option<Arc<Disk>> {
    let folder = path.parent()?;
    mounts().iter().find(|(root, _)| root == folder).map(|(_, disk)| disk.clone())
}

/// Finds the contents of a file, or makes them.
fn find(disk: &Disk, path: &Path, create: bool) -> Result<FileId, c_int> {
    let failed = |_| ffi::SQLITE_CANTOPEN;
    let is_new = match named(path) {
        Ok(Some(id)) if disk.has(id) => {
            if !is_untouched(path).map_err(failed)? {
                disk.write_again(id).map_err(|error| code(error, ffi::SQLITE_IOERR))?;
                untouched(path).map_err(failed)?;
            }
            return Ok(id);
        }
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::NotFound && create && disk.works() => true,
        Err(_) => return Err(ffi::SQLITE_CANTOPEN),
    };
    let id = disk.create(is_new);
    fs::write(path, id.to_string()).and_then(|()| untouched(path)).map_err(failed)?;
    Ok(id)
}

/// Long ago: whatever else writes to a name writes later.
const MADE: SystemTime = SystemTime::UNIX_EPOCH;

/// Whether only the simulation has written to the name.
fn is_untouched(path: &Path) -> std::io::Result<bool> {
    Ok(fs::metadata(path)?.modified()? == MADE)
}

fn untouched(path: &Path) -> std::io::Result<()> {
    fs::File::options().write(true).open(path)?.set_modified(MADE)
}

/// An open file: what SQLite has room for in its own memory.
#[repr(C)]
struct SimFile {
    base: ffi::sqlite3_file,
    open: *mut Open,
}

struct Open {
    disk: Arc<Disk>,
    handle: HandleId,
    /// The shared memory that SQLite has pointers into.
    regions: Vec<Region>,
}

fn code(error: DiskError, failed: c_int) -> c_int {
    match error {
        DiskError::Failed => failed,
        DiskError::Full => ffi::SQLITE_FULL,
        DiskError::Busy => ffi::SQLITE_BUSY,
    }
}

fn done(result: Result<(), DiskError>, failed: c_int) -> c_int {
    result.map_or_else(|error| code(error, failed), |()| ffi::SQLITE_OK)
}

/// # Safety
/// `file` is one that [`open`] has filled, and nobody else has a reference to what is in it.
unsafe fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Open {
    // SAFETY: `open` has put a box there, and `close` is the last call for a file. SQLite makes
    // one call at a time for one file.
    unsafe { &mut *(*file.cast::<SimFile>()).open }
}

/// # Safety
/// `name` is null or text that ends with a zero.
unsafe fn path_of(name: *const c_char) -> Option<PathBuf> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite's names end with a zero.
    let text = unsafe { CStr::from_ptr(name) };
    text.to_str().ok().map(PathBuf::from)
}

fn position(offset: ffi::sqlite3_int64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

fn length(count: c_int) -> usize {
    usize::try_from(count).unwrap_or(0)
}

// ---- the file system ---------------------------------------------------------------------------

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let file = file.cast::<SimFile>();
    // SAFETY: SQLite gives room for `szOsFile` bytes. Without methods it will not call `close`.
    unsafe { (*file).base.pMethods = std::ptr::null() };
    // SAFETY: a name of SQLite's.
    let Some(path) = (unsafe { path_of(name) }) else { return ffi::SQLITE_CANTOPEN };
    let Some(disk) = disk_of(&path) else { return ffi::SQLITE_CANTOPEN };
    let id = match find(&disk, &path, flags & ffi::SQLITE_OPEN_CREATE != 0) {
        Ok(id) => id,
        Err(code) => return code,
    };
    let handle = disk.open(id);
    let open = Box::into_raw(Box::new(Open { disk, handle, regions: Vec::new() }));
    // SAFETY: as above; `out_flags` may be null.
    unsafe {
        (*file).open = open;
        (*file).base.pMethods = &raw const METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, _: c_int) -> c_int {
    // SAFETY: a name of SQLite's.
    let Some(path) = (unsafe { path_of(name) }) else { return ffi::SQLITE_IOERR_DELETE };
    let Some(disk) = disk_of(&path) else { return ffi::SQLITE_IOERR_DELETE };
    if !disk.works() {
        return ffi::SQLITE_IOERR_DELETE;
    }
    let id = named(&path);
    match fs::remove_file(&path) {
        Ok(()) => {
            if let Ok(Some(id)) = id {
                disk.unlink(id);
            }
            ffi::SQLITE_OK
        }
        Err(error) if error.kind() == ErrorKind::NotFound => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(_) => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _: c_int,
    found: *mut c_int,
) -> c_int {
    // SAFETY: a name of SQLite's.
    let Some(path) = (unsafe { path_of(name) }) else { return ffi::SQLITE_IOERR_ACCESS };
    let Some(disk) = disk_of(&path) else { return ffi::SQLITE_IOERR_ACCESS };
    // As on Unix, an empty file is none.
    let is_there = matches!(named(&path), Ok(Some(id)) if !disk.bytes(id).is_empty());
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *found = c_int::from(is_there) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: a name of SQLite's.
    let text = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if length(room) < text.len() {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: there is room for that many bytes, and the two do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, count: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite gives room for that many bytes.
    unsafe { std::ptr::write_bytes(out, 0x5a, length(count)) };
    count
}

/// Nobody else runs, so waiting would change nothing.
unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    microseconds
}

/// 2026-11-20, as a Julian day in milliseconds. Nothing that is stored depends on it.
const TODAY: i64 = 212_661_936_000_000;

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *out = TODAY as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_int64(
    _: *mut ffi::sqlite3_vfs,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *out = TODAY };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}

// ---- files -------------------------------------------------------------------------------------

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let file = file.cast::<SimFile>();
    // SAFETY: `open` has put a box there, and this is the last call for the file.
    let open = unsafe { Box::from_raw((*file).open) };
    open.disk.close(open.handle);
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: an open file, and room for that many bytes.
    let (open, into) =
        unsafe { (opened(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), length(count))) };
    match open.disk.read(open.handle, position(offset), into) {
        Ok(read) if read == into.len() => ffi::SQLITE_OK,
        Ok(_) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(error) => code(error, ffi::SQLITE_IOERR_READ),
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: an open file, and that many bytes.
    let (open, from) =
        unsafe { (opened(file), std::slice::from_raw_parts(from.cast::<u8>(), length(count))) };
    done(open.disk.write(open.handle, position(offset), from), ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { opened(file) };
    done(open.disk.truncate(open.handle, position(size)), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { opened(file) };
    done(open.disk.sync(open.handle), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(
    file: *mut ffi::sqlite3_file,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { opened(file) };
    match open.disk.size(open.handle) {
        Ok(size) => {
            // SAFETY: SQLite gives a place for the answer.
            unsafe { *out = i64::try_from(size).unwrap_or(i64::MAX) };
            ffi::SQLITE_OK
        }
        Err(error) => code(error, ffi::SQLITE_IOERR_FSTAT),
    }
}

fn level(number: c_int) -> LockLevel {
    match number {
        ffi::SQLITE_LOCK_NONE => LockLevel::None,
        ffi::SQLITE_LOCK_SHARED => LockLevel::Shared,
        ffi::SQLITE_LOCK_RESERVED => LockLevel::Reserved,
        ffi::SQLITE_LOCK_PENDING => LockLevel::Pending,
        _ => LockLevel::Exclusive,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, number: c_int) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { opened(file) };
    done(open.disk.lock(open.handle, level(number)), ffi::SQLITE_IOERR_LOCK)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, number: c_int) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { opened(file) };
    open.disk.unlock(open.handle, level(number));
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: an open file, and a place for the answer.
    unsafe {
        let open = opened(file);
        *out = c_int::from(open.disk.is_reserved(open.handle));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

/// As on Unix: a write that is cut off does not harm the bytes beside it.
unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    number: c_int,
    bytes: c_int,
    make: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { opened(file) };
    let pointer = match open.disk.region(open.handle, length(number), length(bytes), make != 0) {
        Ok(Some(region)) => {
            // What is in it are atomics, so it may be written to through a shared reference.
            let pointer = region.as_ptr().cast_mut().cast::<c_void>();
            open.regions.push(region);
            pointer
        }
        Ok(None) => std::ptr::null_mut(),
        Err(error) => return code(error, ffi::SQLITE_IOERR_SHMMAP),
    };
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *out = pointer };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { opened(file) };
    let slots = length(offset)..length(offset) + length(count);
    let take = flags & ffi::SQLITE_SHM_LOCK != 0;
    let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    done(open.disk.lock_regions(open.handle, slots, take, exclusive), ffi::SQLITE_IOERR_SHMLOCK)
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, remove: c_int) -> c_int {
    // SAFETY: an open file.
    let open = unsafe { opened(file) };
    open.disk.leave_regions(open.handle, remove != 0);
    // SQLite does not use its pointers after this call.
    open.regions.clear();
    ffi::SQLITE_OK
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes this the file system of every connection that is opened from now on.
fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: c_int::try_from(size_of::<SimFile>()).unwrap_or(c_int::MAX),
            mxPathname: 1024,
            pNext: std::ptr::null_mut(),
            zName: c"leasehold-sim".as_ptr(),
            pAppData: std::ptr::null_mut(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: Some(current_time_int64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: it is complete, and lives as long as the process.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs, 1) };
        assert_eq!(code, ffi::SQLITE_OK, "SQLite does not take the simulated file system");
    });
}
