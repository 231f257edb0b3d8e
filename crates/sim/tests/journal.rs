//! The journal alone on the simulated disk: every write and every sync fails once, and the power
//! goes at every byte of the newest frame. What is found then is compared with a plain list of
//! groups: each one that was acknowledged is there, and of the others each wholly or not at all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

use std::sync::Arc;

use leasehold_core::event::{Event, EventBody, Origin, Subject};
use leasehold_core::ids::{Fence, LockId, Principal, Seq};
use leasehold_core::lock::{Depth, Dialect, Grant, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::time::{LeaseTime, WallTime};
use leasehold_journal::folder::DataFolder;
use leasehold_journal::log::sqlite::{LogOptions, SqliteLog};
use leasehold_journal::log::{Group, Log, LogError, Retention};
use leasehold_journal::query::AuditReader;
use leasehold_journal::verify::verify;
use leasehold_sim::disk::{Crash, Disk, Faults};
use leasehold_sim::vfs::Mount;

const WALL: i64 = 1_795_176_000_000;

fn event(seq: u64, body: EventBody) -> Event {
    let at = WallTime(WALL + i64::try_from(seq).unwrap());
    Event { seq: Seq(seq), at, lease: LeaseTime(seq), origin: Origin::default(), body }
}

/// The events at odd positions are grants, each with its end after it.
fn story(seq: u64) -> Event {
    let fence = Fence(seq.div_ceil(2));
    let lock_id = LockId(uuid::Uuid::from_u128(u128::from(fence.0)));
    let resources: Arc<[Resource]> = Arc::from([Resource::parse("/flags/x").unwrap()]);
    let holder = Principal::new("alice");
    if seq.is_multiple_of(2) {
        let lock = Subject { lock_id, fence, resources, holder, dialect: Dialect::Http };
        return event(seq, EventBody::Released { lock, undelivered: false });
    }
    let grant = Grant {
        lock_id,
        fence,
        resources,
        dialect: Dialect::Http,
        mode: Mode::Exclusive,
        depth: Depth::Infinity,
        holder,
        reason: Some("x".repeat(usize::try_from(seq % 7).unwrap() * 40).into()),
        metadata: None,
        handle: None,
        ttl_ms: 60_000,
        deadline: LeaseTime(seq + 60_000),
        granted: LeaseTime(seq),
        acquired_at: WallTime(WALL),
        max_deadline: None,
        max_ttl_ms: 60_000,
        waited_ms: 0,
        idempotency: None,
        predecessor_unknown: false,
    };
    event(seq, EventBody::Acquired(Box::new(grant)))
}

/// A folder on a simulated disk, and the log in it while it is open.
struct Bench {
    mount: Mount,
    folder: tempfile::TempDir,
    log: Option<SqliteLog>,
    /// The last event of each group that was appended, whatever came of it.
    groups: Vec<u64>,
    /// The newest event that was acknowledged.
    acknowledged: u64,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mount = Mount::new(folder.path(), Arc::new(Disk::new(seed))).unwrap();
        Self { mount, folder, log: None, groups: vec![0], acknowledged: 0 }
    }

    /// Small, so that the scenario meets checkpoints.
    const OPTIONS: LogOptions = LogOptions { checkpoint_pages: 5 };

    fn open(&mut self) -> Result<(), String> {
        let data = DataFolder::open(self.folder.path()).unwrap();
        let (log, _) = SqliteLog::open(&data, Self::OPTIONS).map_err(|error| {
            format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string))
        })?;
        self.log = Some(log);
        Ok(())
    }

    /// As a process does whose log has failed; or as the next one does.
    fn open_again(&mut self) -> Result<(), String> {
        match &mut self.log {
            Some(log) => log.reopen().map(|_| ()).map_err(|error| error.to_string()),
            None => self.open(),
        }
    }

    fn log(&mut self) -> &mut SqliteLog {
        self.log.as_mut().unwrap()
    }

    fn append(&mut self, count: u64) -> Result<(), LogError> {
        let from = self.log().head().seq.0;
        let last = from + count;
        let events: Vec<Event> = (from + 1..=last).map(story).collect();
        if self.groups.last() < Some(&last) {
            self.groups.push(last);
        }
        let lease = self.log().head().lease.max(LeaseTime(last));
        self.log().append(&Group { events: &events, lease })?;
        self.acknowledged = last;
        self.log().checkpoint()?;
        Ok(())
    }

    /// Everything the log does.
    fn scenario(&mut self) -> Result<(), String> {
        self.open()?;
        let tell = |error: LogError| error.to_string();
        for count in [1, 9, 2, 15, 11, 1, 14, 12] {
            self.append(count).map_err(tell)?;
        }
        let lease = LeaseTime(500);
        self.log().append(&Group { events: &[], lease }).map_err(tell)?;
        let retention = Retention { max_age_ms: Some(10), max_bytes: None };
        self.log().trim(&retention, WallTime(WALL + 20)).map_err(tell)?;
        for count in [2, 6] {
            self.append(count).map_err(tell)?;
        }
        self.log().close_cleanly(lease).map_err(tell)?;
        self.log = None;
        Ok(())
    }

    /// Once the log has opened, everything in it may be told to anybody.
    fn tells_what_it_found(&mut self, is_open: bool) {
        if is_open {
            self.acknowledged = self.log().head().seq.0;
        }
    }

    /// Ends the process before what it has open is closed.
    fn crash(&mut self, crash: Crash) {
        self.mount.crash(crash).unwrap();
        self.log = None;
    }

    /// Compares the log with the list of groups.
    fn compare(&mut self, what: &str) {
        let head = self.log().head().seq.0;
        assert!(
            self.acknowledged <= head,
            "{what}: {} was acknowledged, {head} is there",
            self.acknowledged
        );
        assert!(
            self.groups.contains(&head),
            "{what}: a group ends at none of {:?}: {head}",
            self.groups
        );
        let first = self.log().trimmed().map_or(1, |trimmed| trimmed.through.0 + 1);
        let stored = self.log().read(Seq(0), 1000).unwrap();
        let events: Vec<Event> = stored.iter().map(|stored| stored.event().unwrap()).collect();
        let expected: Vec<Event> = (first..=head).map(story).collect();
        assert_eq!(events, expected, "{what}");
        let report = verify(&AuditReader::open(self.folder.path()).unwrap(), None).unwrap();
        assert_eq!(report.findings, [], "{what}");
    }

    /// What was found is what goes on.
    fn goes_on(&mut self, what: &str) {
        let head = self.log().head().seq.0;
        self.groups.retain(|group| *group <= head);
        self.append(3).unwrap_or_else(|error| panic!("{what}: {error}"));
        self.compare(what);
    }
}

/// Runs the scenario with fault number 0, 1, 2 … until none is met, and judges each by `after`.
fn each_fault(fault: impl Fn(u64) -> Faults, after: impl Fn(&mut Bench, &str)) -> u64 {
    for number in 0.. {
        let mut bench = Bench::new(number);
        bench.mount.disk().set_faults(fault(number));
        let outcome = bench.scenario();
        let met = bench.mount.disk().failures() > 0;
        bench.mount.disk().set_faults(Faults::default());
        let what = format!("operation {number}: {outcome:?}");
        after(&mut bench, &what);
        if !met {
            assert!(outcome.is_ok(), "{what}");
            return number;
        }
    }
    unreachable!("the scenario ends")
}

fn fails_once(number: u64) -> Faults {
    Faults { fail_after: Some(number), ..Faults::default() }
}

fn dies(number: u64) -> Faults {
    Faults { die_after: Some(number), ..Faults::default() }
}

fn started_again(bench: &mut Bench, crash: Crash, what: &str) {
    bench.crash(crash);
    bench.open().unwrap_or_else(|error| panic!("{what}: {error}"));
    bench.compare(what);
    bench.goes_on(what);
}

#[test]
fn whatever_write_or_sync_fails_the_log_opens_again_with_what_it_acknowledged() {
    let operations = each_fault(fails_once, |bench, what| {
        bench.open_again().unwrap_or_else(|error| panic!("{what}: {error}"));
        bench.compare(what);
        bench.goes_on(what);
    });
    assert!(operations > 50, "only {operations} operations");
}

#[test]
fn a_write_or_sync_that_failed_and_then_a_kill_lose_nothing_acknowledged() {
    each_fault(fails_once, |bench, what| started_again(bench, Crash::Kill, what));
}

#[test]
fn a_write_or_sync_that_failed_and_then_a_loss_of_power_lose_nothing_acknowledged() {
    each_fault(fails_once, |bench, what| started_again(bench, Crash::PowerLoss, what));
}

#[test]
fn after_a_failed_sync_what_is_told_by_the_log_that_opened_again_survives_the_power() {
    each_fault(fails_once, |bench, what| {
        if let Some(log) = &mut bench.log {
            log.reopen().unwrap_or_else(|error| panic!("{what}: {error}"));
            bench.tells_what_it_found(true);
        }
        started_again(bench, Crash::PowerLoss, what);
    });
}

/// Fails each operation once, and has the power go at each operation of what opens the log after
/// it: of the same process, or of the next one, where a crash comes in between.
fn each_fault_and_then_each_loss_of_power(crash: Option<Crash>) {
    for number in 0.. {
        for second in 0.. {
            let mut bench = Bench::new(number * 1000 + second);
            bench.mount.disk().set_faults(fails_once(number));
            let outcome = bench.scenario();
            if bench.mount.disk().failures() == 0 {
                assert!(outcome.is_ok(), "operation {number}: {outcome:?}");
                return;
            }
            if let Some(crash) = crash {
                bench.crash(crash);
            }
            bench.mount.disk().set_faults(dies(second));
            let opened = bench.open_again();
            bench.tells_what_it_found(opened.is_ok());
            let died = bench.mount.disk().is_dead();
            let what = format!("operations {number} and {second}: {outcome:?}, then {opened:?}");
            started_again(&mut bench, Crash::PowerLoss, &what);
            if !died {
                break;
            }
        }
    }
}

#[test]
fn a_log_that_is_being_brought_back_survives_the_power_at_every_operation() {
    each_fault_and_then_each_loss_of_power(None);
}

#[test]
fn a_start_after_a_failed_sync_and_a_kill_survives_the_power_at_every_operation() {
    each_fault_and_then_each_loss_of_power(Some(Crash::Kill));
}

#[test]
fn whichever_operation_the_process_is_killed_in_nothing_acknowledged_is_lost() {
    each_fault(dies, |bench, what| started_again(bench, Crash::Kill, what));
}

#[test]
fn whichever_operation_the_power_goes_in_nothing_acknowledged_is_lost() {
    each_fault(dies, |bench, what| started_again(bench, Crash::PowerLoss, what));
}

#[test]
fn wherever_the_newest_frame_is_cut_off_the_groups_before_it_are_there() {
    let mut bench = Bench::new(1);
    bench.open().unwrap();
    for count in [1, 3, 2] {
        bench.append(count).unwrap();
    }
    let name = "log.db-wal";
    let before = bench.mount.disk().bytes(bench.mount.file(name).unwrap());
    bench.append(1).unwrap();
    let after = bench.mount.disk().bytes(bench.mount.file(name).unwrap());
    let main = bench.mount.disk().bytes(bench.mount.file("log.db").unwrap());
    assert!(before.len() < after.len() && after.starts_with(&before), "no new frame");
    let groups = bench.groups.clone();
    for cut in before.len()..=after.len() {
        let whole = cut == after.len();
        let mut torn = after[..cut].to_vec();
        if cut % 2 == 0 {
            // The file may have its new length already, and nothing in it.
            torn.resize(after.len(), 0);
        }
        let whole = whole || torn == after;
        bench.mount.crash(Crash::Kill).unwrap();
        bench.log = None;
        bench.mount.disk().put(bench.mount.file("log.db").unwrap(), main.clone());
        let wal = bench.mount.file(name).unwrap();
        bench.mount.disk().put(wal, torn);
        bench.groups.clone_from(&groups);
        bench.acknowledged =
            if whole { groups[groups.len() - 1] } else { groups[groups.len() - 2] };
        bench.open().unwrap();
        let what = format!("cut at {cut} of {}", after.len());
        bench.compare(&what);
        assert_eq!(bench.log().head().seq.0, bench.acknowledged, "{what}");
    }
}
