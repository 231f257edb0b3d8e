//! Stories for tests: trails that keep every promise, and the plain-map model of their fold.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use leasehold_core::event::{Event, EventBody, Origin, RecoveryCause, Subject, WriteResult};
use leasehold_core::ids::{Fence, LockId, Principal, Seq};
use leasehold_core::lock::{Depth, Dialect, Freeze, Grant, Idempotency, Json, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::rows::{self, FoldError, Key, Meta, Row, Rows};
use leasehold_core::time::{LeaseTime, WallTime};

use crate::folder::DataFolder;
use crate::follower::Loaded;
use crate::log::sqlite::{LogOptions, Opened, SqliteLog};
use crate::log::{Group, Log, hex};

/// The wall clock of every story at lease time 0.
pub(crate) const EPOCH: i64 = 1_795_176_000_000;

/// Writes events, one after the other, with clocks and numbers of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub(crate) seq: u64,
    pub(crate) lease: u64,
    pub(crate) fence: u64,
}

pub(crate) fn resource(path: &str) -> Resource {
    Resource::parse(path).unwrap()
}

pub(crate) fn principal(name: &str) -> Principal {
    Principal::new(name)
}

impl Story {
    pub(crate) fn event(&mut self, actor: Option<&str>, body: EventBody) -> Event {
        self.seq += 1;
        Event {
            seq: Seq(self.seq),
            at: WallTime(EPOCH + i64::try_from(self.lease).unwrap()),
            lease: LeaseTime(self.lease),
            origin: Origin { actor: actor.map(principal), ..Origin::default() },
            body,
        }
    }

    pub(crate) fn grant(&mut self, holder: &str, path: &str, ttl_ms: u64) -> Grant {
        self.fence += 1;
        Grant {
            lock_id: LockId(uuid::Uuid::from_u128(u128::from(self.fence) << 64 | 7)),
            fence: Fence(self.fence),
            resources: Arc::from([resource(path)]),
            dialect: Dialect::Http,
            mode: Mode::Exclusive,
            depth: Depth::Infinity,
            holder: principal(holder),
            reason: None,
            metadata: None,
            handle: None,
            ttl_ms,
            deadline: LeaseTime(self.lease + ttl_ms),
            granted: LeaseTime(self.lease),
            acquired_at: WallTime(EPOCH + i64::try_from(self.lease).unwrap()),
            max_deadline: None,
            max_ttl_ms: 1_800_000,
            waited_ms: 0,
            idempotency: None,
            predecessor_unknown: false,
        }
    }

    pub(crate) fn acquired(&mut self, holder: &str, path: &str, ttl_ms: u64) -> (Event, Subject) {
        let grant = self.grant(holder, path, ttl_ms);
        let lock = subject(&grant);
        (self.event(Some(holder), EventBody::Acquired(Box::new(grant))), lock)
    }

    pub(crate) fn released(&mut self, lock: &Subject) -> Event {
        let body = EventBody::Released { lock: lock.clone(), undelivered: false };
        self.event(Some(lock.holder.as_str()), body)
    }

    pub(crate) fn admitted(&mut self, lock: &Subject) -> Event {
        let body = EventBody::WriteAdmitted {
            lock: lock.clone(),
            method: "PUT".into(),
            resource: lock.resources[0].clone(),
            admission: Seq(self.seq + 1),
        };
        self.event(Some(lock.holder.as_str()), body)
    }

    pub(crate) fn completed(&mut self, lock: &Subject, admitted: Seq) -> Event {
        let body = EventBody::WriteCompleted {
            lock: lock.clone(),
            method: "PUT".into(),
            resource: lock.resources[0].clone(),
            admitted,
            result: WriteResult::Answered(204),
        };
        self.event(Some(lock.holder.as_str()), body)
    }

    pub(crate) fn recovered(&mut self, cause: RecoveryCause) -> Event {
        let fence_floor = Fence(self.fence);
        self.event(None, EventBody::Recovered { cause, incarnation: "c0ffee".into(), fence_floor })
    }

    pub(crate) fn trimmed(&mut self, log: &dyn Log) -> Event {
        let trimmed = log.trimmed().unwrap();
        let hash = hex(&trimmed.hash).into();
        self.event(None, EventBody::Trimmed { through: trimmed.through, hash })
    }
}

pub(crate) fn subject(grant: &Grant) -> Subject {
    Subject {
        lock_id: grant.lock_id,
        fence: grant.fence,
        resources: grant.resources.clone(),
        holder: grant.holder.clone(),
        dialect: grant.dialect,
    }
}

/// One of each kind of event, in an order that makes sense.
pub(crate) fn script(story: &mut Story) -> Vec<Event> {
    let mut events = vec![story.recovered(RecoveryCause::Created)];
    let mut first = story.grant("alice", "/flags/x", 60_000);
    first.reason = Some("a \"quoted\" reason".into());
    first.metadata = Some(serde_json::from_str::<Json>(r#"{"b": 1,"a":[2.50]}"#).unwrap());
    first.idempotency = Some(Box::new(Idempotency { key: "k".into(), digest: "d".into() }));
    let alice = subject(&first);
    events.push(story.event(Some("alice"), EventBody::Acquired(Box::new(first))));
    let (event, bob) = story.acquired("bob", "/flags/y", 5_000);
    events.push(event);
    story.lease += 100;
    let admitted = story.admitted(&alice);
    let at = admitted.seq;
    events.push(admitted);
    events.push(story.event(
        Some("alice"),
        EventBody::Renewed {
            lock: alice.clone(),
            ttl_ms: 30_000,
            deadline: LeaseTime(story.lease + 70_000),
        },
    ));
    let by = principal("bob");
    let message = Some("please".into());
    events.push(
        story.event(
            Some("bob"),
            EventBody::Requested { lock: alice.clone(), by: by.clone(), message },
        ),
    );
    events.push(story.completed(&alice, at));
    story.lease = 5_200;
    let deadline = LeaseTime(5_000);
    events.push(story.event(None, EventBody::Expired { lock: bob, deadline }));
    let to = Box::new(story.grant("carol", "/flags/x", 60_000));
    let carol = subject(&to);
    events.push(story.event(Some("alice"), EventBody::Transferred { lock: alice, to }));
    let reason: Arc<str> = "gone home".into();
    events.push(story.event(
        Some("bob"),
        EventBody::BreakAnnounced {
            lock: carol.clone(),
            by: by.clone(),
            reason: reason.clone(),
            deadline: LeaseTime(story.lease + 1000),
        },
    ));
    events.push(story.event(
        Some("bob"),
        EventBody::Broken { lock: carol, by: by.clone(), reason: reason.clone() },
    ));
    for path in ["/flags", "/docs"] {
        let freeze = Freeze {
            resource: resource(path),
            by: by.clone(),
            reason: reason.clone(),
            since: WallTime(EPOCH),
            until: WallTime(EPOCH + 1_000_000),
        };
        events.push(story.event(Some("bob"), EventBody::Frozen(freeze)));
    }
    events.push(
        story.event(
            Some("bob"),
            EventBody::Unfrozen { resource: resource("/flags"), passed: false },
        ),
    );
    events.push(story.event(
        None,
        EventBody::WriteChecked {
            lock: None,
            method: "PUT".into(),
            resource: resource("/docs/1"),
            problem: Some("frozen".into()),
        },
    ));
    events.push(story.event(
        None,
        EventBody::Refused {
            resource: Some(resource("/flags/x")),
            holder: Some(principal("alice")),
            problem: "locked".into(),
            count: 3,
            minute: WallTime(EPOCH),
        },
    ));
    let (event, dave) = story.acquired("dave", "/docs/open", 600_000);
    events.push(event);
    events.push(story.admitted(&dave));
    events
}

/// Cycles of acquire, write and release; every tenth lock is left alone and lives on.
pub(crate) fn traffic(story: &mut Story, cycles: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for cycle in 0..cycles {
        story.lease += 3;
        let holder = format!("user-{}", cycle % 7);
        let path = format!("/shop/{}/item-{}", cycle % 13, story.fence + 1);
        let (event, lock) = story.acquired(&holder, &path, 3_600_000);
        events.push(event);
        if cycle % 10 == 3 {
            continue;
        }
        if cycle % 3 == 0 {
            let admitted = story.admitted(&lock);
            let at = admitted.seq;
            events.push(admitted);
            events.push(story.completed(&lock, at));
        }
        events.push(story.released(&lock));
    }
    events
}

/// The rows of a fold, in a plain map.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct MapRows(pub(crate) BTreeMap<String, String>);

impl Rows for MapRows {
    type Error = Infallible;

    fn get(&mut self, key: &Key) -> Result<Option<Row>, FoldError<Infallible>> {
        let key = key.to_string();
        Ok(self.0.get(&key).map(|text| Row::parse(&key, text.as_bytes()).unwrap().unwrap()))
    }

    fn put(&mut self, row: Row) -> Result<(), FoldError<Infallible>> {
        let text = String::from_utf8(row.to_json().unwrap()).unwrap();
        self.0.insert(row.key().to_string(), text);
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<(), FoldError<Infallible>> {
        self.0.remove(&key.to_string());
        Ok(())
    }

    fn delete_range(&mut self, from: &Key, to: &Key) -> Result<(), FoldError<Infallible>> {
        let (from, to) = (from.to_string(), to.to_string());
        self.0.retain(|key, _| *key < from || *key >= to);
        Ok(())
    }
}

impl MapRows {
    /// Folds events in.
    pub(crate) fn fold<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        let mut meta = rows::get_meta(self).unwrap();
        for event in events {
            rows::fold(event, &mut meta, self).unwrap();
        }
        if meta != Meta::default() {
            rows::put_meta(&meta, self).unwrap();
        }
    }

    /// The fold of these events.
    pub(crate) fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut rows = Self::default();
        rows.fold(events);
        rows
    }

    /// Puts a row that was loaded.
    pub(crate) fn insert(&mut self, row: &Row) {
        let key = row.key().to_string();
        let value = String::from_utf8(row.to_json().unwrap()).unwrap();
        assert_eq!(self.0.insert(key.clone(), value), None, "the row {key} was loaded twice");
    }
}

/// Loads, folds the tail, and answers with the table and what was loaded.
pub(crate) fn load(
    folder: &DataFolder,
    log: &mut dyn Log,
) -> (MapRows, crate::follower::LoadReport) {
    let mut rows = MapRows::default();
    let mut tail = Vec::new();
    let report = crate::follower::load(folder, log, &mut |loaded| match loaded {
        Loaded::Row(row) => {
            assert!(tail.is_empty(), "a row came after an event");
            rows.insert(&row);
        }
        Loaded::Event(event) => tail.push(event),
        Loaded::Void => rows = MapRows::default(),
    })
    .unwrap();
    rows.fold(&tail);
    (rows, report)
}

/// A data folder and its log.
pub(crate) fn open(path: &Path) -> (DataFolder, SqliteLog, Opened) {
    let folder = DataFolder::open(path).unwrap();
    let (log, opened) = SqliteLog::open(&folder, LogOptions::default()).unwrap();
    (folder, log, opened)
}

/// Appends events in groups of `size`.
pub(crate) fn append(log: &mut dyn Log, events: &[Event], size: usize) {
    for group in events.chunks(size) {
        let lease = group.last().unwrap().lease;
        log.append(&Group { events: group, lease }).unwrap();
    }
}
