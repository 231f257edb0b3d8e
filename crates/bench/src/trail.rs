//! A long trail, made up: what a server would have written over some weeks, in a minute.
//!
//! It goes through the journal, so its chain of hashes is whole, and it keeps the promises that a
//! verifier looks for. Each lock is acquired, renewed once, and released.

use std::path::Path;
use std::sync::Arc;

use leasehold_core::event::{Event, EventBody, Origin, RecoveryCause, Subject};
use leasehold_core::ids::{Fence, LockId, Principal, Seq};
use leasehold_core::lock::{Depth, Dialect, Grant, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::time::{LeaseTime, WallTime};
use leasehold_journal::folder::DataFolder;
use leasehold_journal::log::sqlite::{LogOptions, SqliteLog};
use leasehold_journal::log::{Group, Log};
use uuid::Uuid;

/// Events of one lock.
const LIFE: u64 = 3;
/// Milliseconds from one event to the next.
const STEP_MS: u64 = 100;
/// How many events are committed at once.
const GROUP: u64 = 4096;
const TTL_MS: u64 = 60_000;

/// A trail of so many events, the newest of which is a moment old.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trail {
    pub(crate) events: u64,
    /// When the first event was, by the wall clock.
    begin: WallTime,
    pub(crate) resources: u64,
    pub(crate) holders: u64,
}

impl Trail {
    pub(crate) fn new(events: u64, now: WallTime) -> Self {
        let (resources, holders) = ((events / 30).max(1), (events / 300).max(1));
        Self { events, begin: now - events * STEP_MS, resources, holders }
    }

    /// When an event was.
    pub(crate) fn at(&self, seq: u64) -> WallTime {
        self.begin + seq * STEP_MS
    }

    /// How many locks there were; the last may not have ended.
    pub(crate) fn locks(&self) -> u64 {
        self.events.saturating_sub(1).div_ceil(LIFE)
    }

    pub(crate) fn lock_id(&self, lock: u64) -> LockId {
        LockId(Uuid::from_u64_pair(scatter(2 * lock), scatter(2 * lock + 1)))
    }

    pub(crate) fn path(&self, lock: u64) -> String {
        let item = scatter(lock) % self.resources;
        format!("/v1/orders/{:03}/item-{item}", item % 1000)
    }

    pub(crate) fn holder(&self, lock: u64) -> String {
        format!("worker-{}", scatter(lock + (1 << 40)) % self.holders)
    }

    fn event(&self, seq: u64) -> anyhow::Result<Event> {
        let (at, lease) = (self.at(seq), LeaseTime(seq * STEP_MS));
        let Some(life) = seq.checked_sub(2) else {
            let body = EventBody::Recovered {
                cause: RecoveryCause::Created,
                incarnation: Arc::from("00000000000000b5"),
                fence_floor: Fence(0),
            };
            return Ok(Event { seq: Seq(seq), at, lease, origin: Origin::default(), body });
        };
        let (lock, step) = (life / LIFE, life % LIFE);
        let holder = Principal::new(&self.holder(lock));
        let subject = Subject {
            lock_id: self.lock_id(lock),
            fence: Fence(lock + 1),
            resources: Arc::from([Resource::parse(&self.path(lock))?]),
            holder: holder.clone(),
            dialect: Dialect::Http,
        };
        let deadline = lease + TTL_MS;
        let body = match step {
            0 => EventBody::Acquired(Box::new(grant(subject, lease, at))),
            1 => EventBody::Renewed { lock: subject, ttl_ms: TTL_MS, deadline },
            _ => EventBody::Released { lock: subject, undelivered: false },
        };
        let origin = Origin {
            actor: Some(holder),
            dialect: Dialect::Http,
            request_id: Some(Arc::from(format!("{:016x}", scatter(seq)))),
            remote_addr: Some(Arc::from("192.0.2.7")),
        };
        Ok(Event { seq: Seq(seq), at, lease, origin, body })
    }

    /// Writes the trail into a data folder that has none.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let folder = DataFolder::open(folder)?;
        let (mut log, _) = SqliteLog::open(&folder, LogOptions::default())?;
        let mut written = 0;
        while written < self.events {
            let end = self.events.min(written + GROUP);
            let events: Vec<Event> =
                (written + 1..=end).map(|seq| self.event(seq)).collect::<Result<_, _>>()?;
            log.append(&Group { events: &events, lease: LeaseTime(end * STEP_MS) })?;
            log.checkpoint()?;
            written = end;
        }
        log.close_cleanly(LeaseTime(self.events * STEP_MS))?;
        Ok(())
    }
}

fn grant(lock: Subject, lease: LeaseTime, at: WallTime) -> Grant {
    Grant {
        lock_id: lock.lock_id,
        fence: lock.fence,
        resources: lock.resources,
        dialect: lock.dialect,
        mode: Mode::Exclusive,
        depth: Depth::Infinity,
        holder: lock.holder,
        reason: None,
        metadata: None,
        handle: None,
        ttl_ms: TTL_MS,
        deadline: lease + TTL_MS,
        granted: lease,
        acquired_at: at,
        max_deadline: Some(lease + 24 * 60 * 60 * 1000),
        max_ttl_ms: 30 * 60 * 1000,
        waited_ms: 0,
        idempotency: None,
        predecessor_unknown: false,
    }
}

/// A number that looks like any other, the same each time: the end of SplitMix64.
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use leasehold_journal::query::AuditReader;
    use leasehold_journal::verify::verify;

    use super::*;

    #[test]
    fn a_trail_that_was_made_up_is_one_that_a_server_could_have_written() {
        let root = tempfile::tempdir().unwrap();
        let trail = Trail::new(5000, WallTime(1_795_176_000_000));
        trail.write(root.path()).unwrap();
        let report = verify(&AuditReader::open(root.path()).unwrap(), None).unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.events, trail.locks()), (5000, 1667));
    }
}
