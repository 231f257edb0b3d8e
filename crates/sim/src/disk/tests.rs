use super::*;

/// A disk with one file that is open, and what is in it.
fn disk(seed: u64) -> (Disk, HandleId, FileId) {
    let disk = Disk::new(seed);
    let file = disk.create(false);
    let handle = disk.open(file);
    (disk, handle, file)
}

const OLD: [u8; 9000] = [1; 9000];
const NEW: [u8; 9000] = [2; 9000];

#[test]
fn what_was_synced_survives_the_power_and_the_rest_does_not_always() {
    let mut left = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let (disk, handle, file) = disk(seed);
        disk.write(handle, 0, &OLD).unwrap();
        disk.sync(handle).unwrap();
        disk.write(handle, 0, &NEW).unwrap();
        disk.crash(Crash::PowerLoss);
        let bytes = disk.bytes(file);
        assert!(bytes.iter().all(|byte| *byte == 1 || *byte == 2) && bytes.len() == OLD.len());
        left.insert(bytes.iter().filter(|byte| **byte == 2).count());
    }
    // All, nothing, and something in between.
    assert!(left.contains(&0) && left.contains(&NEW.len()) && left.len() > 5, "{left:?}");
}

#[test]
fn what_was_written_survives_a_kill() {
    let (disk, handle, file) = disk(1);
    disk.write(handle, 0, &OLD).unwrap();
    disk.crash(Crash::Kill);
    assert_eq!(disk.bytes(file), OLD);
    assert_eq!(disk.write(handle, 0, &NEW), Err(DiskError::Failed), "its process is dead");
}

#[test]
fn what_a_failed_sync_has_not_written_is_seen_and_never_becomes_durable() {
    let mut lost = 0;
    for seed in 0..50 {
        let (disk, handle, file) = disk(seed);
        disk.write(handle, 0, &OLD).unwrap();
        disk.set_faults(Faults { fail_after: Some(0), ..Faults::default() });
        assert_eq!(disk.sync(handle), Err(DiskError::Failed));
        assert_eq!(disk.bytes(file), OLD);
        disk.sync(handle).unwrap();
        disk.crash(Crash::PowerLoss);
        lost += usize::from(disk.bytes(file) != OLD);
    }
    assert!(lost > 0);
}

#[test]
fn a_process_that_dies_in_an_operation_does_nothing_more() {
    let (disk, handle, file) = disk(1);
    disk.set_faults(Faults { die_after: Some(1), ..Faults::default() });
    disk.write(handle, 0, &OLD).unwrap();
    assert_eq!(disk.sync(handle), Err(DiskError::Failed));
    assert!(disk.is_dead());
    assert_eq!(disk.write(handle, 0, &NEW), Err(DiskError::Failed));
    disk.crash(Crash::Kill);
    assert_eq!(disk.bytes(file), OLD);
}

#[test]
fn a_full_disk_takes_nothing_new_but_lets_what_is_there_be_changed() {
    let (disk, handle, _) = disk(1);
    disk.write(handle, 0, &OLD).unwrap();
    disk.set_faults(Faults { capacity: Some(disk.used()), ..Faults::default() });
    assert_eq!(disk.write(handle, 9000, &[1]), Err(DiskError::Full));
    disk.write(handle, 0, &NEW).unwrap();
}

#[test]
fn one_connection_writes_at_a_time() {
    let (disk, one, file) = disk(1);
    let other = disk.open(file);
    for handle in [one, other] {
        disk.lock(handle, LockLevel::Shared).unwrap();
    }
    disk.lock(one, LockLevel::Reserved).unwrap();
    assert_eq!(disk.lock(other, LockLevel::Reserved), Err(DiskError::Busy));
    assert_eq!(disk.lock(one, LockLevel::Exclusive), Err(DiskError::Busy), "there is a reader");
    disk.unlock(other, LockLevel::None);
    disk.lock(one, LockLevel::Exclusive).unwrap();
    assert_eq!(disk.lock(other, LockLevel::Shared), Err(DiskError::Busy));
    disk.close(one);
    disk.lock(other, LockLevel::Shared).unwrap();
}
