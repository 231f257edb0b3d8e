//! Events as records: whatever is in an event, it is the same after it was stored and read.

// These are tests, but their helpers are functions of their own.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use leasehold_core::event::{
    Event, EventBody, Origin, Record, RecordError, RecoveryCause, Subject, WriteResult,
};
use leasehold_core::ids::{Fence, LockId, Principal, Seq};
use leasehold_core::lock::{Depth, Dialect, Freeze, Grant, Idempotency, Json, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::time::{LeaseTime, WallTime};
use uuid::Uuid;

fn resource(path: &str) -> Resource {
    Resource::parse(path).unwrap()
}

fn grant(fence: u64) -> Grant {
    let raw = r#"{ "build" :17,"who":"é\u0000", "n": 1.50 }"#;
    Grant {
        lock_id: LockId(Uuid::from_u128(fence.into())),
        fence: Fence(fence),
        resources: Arc::from([resource("/a b/%C3%A9"), resource("/c")]),
        dialect: Dialect::Http,
        mode: Mode::Shared,
        depth: Depth::Zero,
        holder: Principal::new("al \"ice\""),
        reason: Some(Arc::from("line\nbreak")),
        metadata: Some(Json::new(
            serde_json::value::RawValue::from_string(raw.to_owned()).unwrap(),
        )),
        handle: Some(Arc::from("h")),
        ttl_ms: 10_000,
        deadline: LeaseTime(15_000),
        granted: LeaseTime(4_000),
        acquired_at: WallTime(1_795_176_000_123),
        max_deadline: Some(LeaseTime(u64::MAX)),
        max_ttl_ms: 60_000,
        waited_ms: 3,
        idempotency: Some(Box::new(Idempotency { key: Arc::from("k"), digest: Arc::from("d") })),
        predecessor_unknown: true,
    }
}

fn plain_grant(fence: u64) -> Grant {
    Grant {
        reason: None,
        metadata: None,
        handle: None,
        max_deadline: None,
        waited_ms: 0,
        idempotency: None,
        predecessor_unknown: false,
        granted: LeaseTime(5_000),
        acquired_at: WallTime(1_795_176_000_000),
        mode: Mode::Exclusive,
        depth: Depth::Infinity,
        ..grant(fence)
    }
}

fn every_kind() -> Vec<EventBody> {
    let lock = Subject {
        lock_id: LockId(Uuid::from_u128(1)),
        fence: Fence(1),
        resources: Arc::from([resource("/a")]),
        holder: Principal::new("alice"),
        dialect: Dialect::Http,
    };
    let by = Principal::new("root");
    let text: Arc<str> = Arc::from("because");
    let method: Arc<str> = Arc::from("PUT");
    let at = resource("/a/b");
    let completed = |result| EventBody::WriteCompleted {
        lock: lock.clone(),
        method: method.clone(),
        resource: at.clone(),
        admitted: Seq(7),
        result,
    };
    vec![
        EventBody::Acquired(Box::new(grant(1))),
        EventBody::Acquired(Box::new(plain_grant(2))),
        EventBody::Renewed { lock: lock.clone(), ttl_ms: 1, deadline: LeaseTime(2) },
        EventBody::Released { lock: lock.clone(), undelivered: true },
        EventBody::Released { lock: lock.clone(), undelivered: false },
        EventBody::Expired { lock: lock.clone(), deadline: LeaseTime(2) },
        EventBody::BreakAnnounced {
            lock: lock.clone(),
            by: by.clone(),
            reason: text.clone(),
            deadline: LeaseTime(3),
        },
        EventBody::Broken { lock: lock.clone(), by: by.clone(), reason: text.clone() },
        EventBody::Transferred { lock: lock.clone(), to: Box::new(grant(3)) },
        EventBody::Transferred { lock: lock.clone(), to: Box::new(plain_grant(4)) },
        EventBody::Requested { lock: lock.clone(), by: by.clone(), message: Some(text.clone()) },
        EventBody::Requested { lock: lock.clone(), by: by.clone(), message: None },
        EventBody::Frozen(Freeze {
            resource: at.clone(),
            by: by.clone(),
            reason: text.clone(),
            since: WallTime(-1),
            until: WallTime(253_402_300_799_999),
        }),
        EventBody::Unfrozen { resource: at.clone(), passed: true },
        EventBody::Unfrozen { resource: at.clone(), passed: false },
        EventBody::WriteAdmitted {
            lock: lock.clone(),
            method: method.clone(),
            resource: at.clone(),
            admission: Seq(7),
        },
        completed(WriteResult::Answered(599)),
        completed(WriteResult::NotSent),
        completed(WriteResult::Applied),
        completed(WriteResult::NotApplied),
        completed(WriteResult::Unknown),
        EventBody::WriteChecked {
            lock: Some(lock),
            method: method.clone(),
            resource: at.clone(),
            problem: None,
        },
        EventBody::WriteChecked {
            lock: None,
            method,
            resource: at.clone(),
            problem: Some(text.clone()),
        },
        EventBody::Refused {
            resource: Some(at),
            holder: Some(by),
            problem: text.clone(),
            count: 3,
            minute: WallTime(0),
        },
        EventBody::Refused {
            resource: None,
            holder: None,
            problem: text.clone(),
            count: u64::MAX,
            minute: WallTime(60_000),
        },
        EventBody::Recovered {
            cause: RecoveryCause::FailedCommit,
            incarnation: Arc::from("00ff"),
            fence_floor: Fence(1 << 32),
        },
        EventBody::Trimmed { through: Seq(5), hash: text },
    ]
}

fn events() -> Vec<Event> {
    let events = every_kind().into_iter().enumerate().map(|(at, body)| Event {
        seq: Seq(at as u64 + 1),
        at: WallTime(1_795_176_000_000),
        lease: LeaseTime(5_000),
        origin: if at % 2 == 0 {
            Origin::default()
        } else {
            Origin {
                actor: Some(Principal::new("alice")),
                dialect: Dialect::Http,
                request_id: Some(Arc::from("r-1")),
                remote_addr: Some(Arc::from("[::1]:80")),
            }
        },
        body,
    });
    events.collect()
}

#[test]
fn every_event_is_the_same_after_it_was_stored_and_read() {
    for event in events() {
        let bytes = serde_json::to_vec(&Record::from(&event)).unwrap();
        let record: Record = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(record.event().unwrap(), event);
        // The stored bytes are what the chain is over: reading and writing changes none.
        assert_eq!(serde_json::to_vec(&record).unwrap(), bytes);
    }
}

#[test]
fn an_event_is_written_as_its_record_is() {
    for event in events() {
        for origin in [Origin::default(), events()[1].origin.clone()] {
            let event = Event { origin, ..event.clone() };
            let mut written = b"before".to_vec();
            event.write_json(&mut written).unwrap();
            let written = String::from_utf8(written).unwrap();
            let record = serde_json::to_string(&Record::from(&event)).unwrap();
            assert_eq!(written, format!("before{record}"));
        }
    }
}

#[test]
fn a_record_without_a_member_that_its_type_needs_names_it() {
    // What may be absent: it applies to some events of a type only, or has a default.
    let may_be_absent = [
        "actor",
        "request_id",
        "remote_addr",
        "reason",
        "metadata",
        "handle",
        "granted_ms",
        "acquired_at",
        "max_deadline_ms",
        "waited_ms",
        "idempotency",
        "predecessor_writes",
        "undelivered",
        "message",
        "phase",
        "how",
        "resource",
        "holder",
        "lock_id",
        "status",
        "problem",
    ];
    for event in events() {
        let full = serde_json::to_value(Record::from(&event)).unwrap();
        for member in full.as_object().unwrap().keys() {
            let mut less = full.clone();
            less.as_object_mut().unwrap().remove(member);
            match serde_json::from_value::<Record>(less).map(|record| record.event()) {
                Ok(Err(RecordError::Missing { member: named, .. })) => assert_eq!(named, member),
                Ok(Err(RecordError::UnknownType { .. })) => panic!("{member} is not the type"),
                Ok(Ok(_)) => assert!(may_be_absent.contains(&member.as_str()), "{member}"),
                Err(error) => assert!(error.to_string().contains(member.as_str()), "{error}"),
            }
        }
    }
}

#[test]
fn an_unknown_type_is_an_error_not_an_event() {
    let mut record = Record::from(&events()[0]);
    record.kind = "levitated".into();
    assert!(matches!(record.event(), Err(RecordError::UnknownType { .. })));
}
