use std::time::{Duration, Instant};

use leasehold_core::event::{Event, Record};

use super::*;
use crate::follower::Follower;
use crate::log::{Log, Retention};
use crate::testing::{self, EPOCH, Story, append, principal, resource, script, traffic};

fn queries(events: &[Event]) -> Vec<AuditQuery> {
    let none = AuditQuery { limit: 1000, ..AuditQuery::default() };
    let at = |part: usize| Some(events[events.len() * part / 8].at);
    let mut all = vec![none.clone(), AuditQuery { limit: 0, ..none.clone() }];
    for path in ["/", "/shop", "/shop/3", "/flags/x", "/flag", "/shop/1/item-999999"] {
        all.push(AuditQuery { resource: Some(resource(path)), ..none.clone() });
    }
    for name in ["alice", "carol", "user-3", "nobody"] {
        all.push(AuditQuery { holder: Some(principal(name)), ..none.clone() });
        all.push(AuditQuery { actor: Some(principal(name)), ..none.clone() });
    }
    for kind in ["broken", "acquired", "write_admitted", "nothing"] {
        all.push(AuditQuery { kind: Some(kind.to_owned()), ..none.clone() });
    }
    all.push(AuditQuery { since: at(2), until: at(3), ..none.clone() });
    all.push(AuditQuery { since: at(7), ..none.clone() });
    all.push(AuditQuery {
        kind: Some("released".into()),
        holder: Some(principal("user-2")),
        resource: Some(resource("/shop/5")),
        until: at(6),
        ..none.clone()
    });
    let ids = events.iter().filter_map(|event| match &event.body {
        EventBody::Acquired(grant) => Some(grant.lock_id),
        EventBody::Transferred { to, .. } => Some(to.lock_id),
        _ => None,
    });
    for id in ids.step_by(331) {
        all.push(AuditQuery { lock_id: Some(id), ..none.clone() });
    }
    all
}

/// The answer of someone who looks at each event.
fn model(probes: &[(u64, Probe<'_>)], query: &AuditQuery) -> Vec<u64> {
    let mut found: Vec<u64> =
        probes.iter().filter(|(_, probe)| matches(probe, query)).map(|(seq, _)| *seq).collect();
    if query.descending {
        found.reverse();
    }
    found.truncate(query.limit);
    found
}

fn check(reader: &AuditReader, events: &[Event]) {
    let json = |event| serde_json::to_vec(&Record::from(event)).unwrap();
    let bodies: Vec<_> = events.iter().map(|event| (event.seq.0, json(event))).collect();
    let probes: Vec<_> =
        bodies.iter().map(|(seq, body)| (*seq, Probe::read(body).unwrap())).collect();
    for query in queries(events) {
        for descending in [false, true] {
            let mut query = AuditQuery { descending, ..query.clone() };
            let page = reader.query(&query).unwrap();
            let found: Vec<u64> = page.items.iter().map(|stored| stored.seq.0).collect();
            assert_eq!(found, model(&probes, &query), "{query:?}");
            if query.limit == 0 {
                continue;
            }
            // The same in pages of seven.
            let whole = AuditQuery { limit: 20, ..query.clone() };
            let expected = model(&probes, &whole);
            let mut paged = Vec::new();
            query.limit = query.limit.min(7);
            while paged.len() < expected.len() {
                let page = reader.query(&query).unwrap();
                paged.extend(page.items.iter().map(|stored| stored.seq.0));
                query.after = page.next;
                if page.next.is_none() {
                    break;
                }
            }
            paged.truncate(expected.len());
            assert_eq!(paged, expected, "{query:?}");
        }
    }
}

#[test]
fn an_answer_is_the_same_with_the_whole_index_part_of_it_and_none() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, _) = testing::open(root.path());
    let mut story = Story::default();
    let mut events = script(&mut story);
    events.extend(traffic(&mut story, 600));
    append(&mut log, &events, 200);
    let reader = AuditReader::open(folder.path()).unwrap();
    check(&reader, &events);
    Follower::spawn(&folder, log.head().seq).unwrap().stop();
    let began = Instant::now();
    while reader.index().is_none() {
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    assert!(!reader.filters(reader.index().as_ref(), 0, 9).is_empty());
    check(&reader, &events);
    let more = traffic(&mut story, 100);
    append(&mut log, &more, 200);
    events.extend(more);
    check(&reader, &events);
    // A filter that lies would hide events: a damaged one is not believed.
    let index = Connection::open(index::path(folder.path())).unwrap();
    index.execute("UPDATE block SET filter = zeroblob(length(filter)) WHERE id = 0", []).unwrap();
    drop(index);
    check(&reader, &events);
    std::fs::write(index::path(folder.path()), "rubbish").unwrap();
    check(&reader, &events);
}

#[test]
fn a_question_skips_the_blocks_that_cannot_answer_it() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, _) = testing::open(root.path());
    let mut story = Story::default();
    let mut events = script(&mut story);
    events.extend(traffic(&mut story, 1500));
    append(&mut log, &events, 500);
    Follower::spawn(&folder, log.head().seq).unwrap().stop();
    let reader = AuditReader::open(folder.path()).unwrap();
    let filters = reader.filters(reader.index().as_ref(), 0, 100);
    assert_eq!(filters.len() as u64, log.head().seq.0 / BLOCK);
    let query = AuditQuery { holder: Some(principal("carol")), ..AuditQuery::default() };
    let hits = filters.values().filter(|block| may_match(block, &query, &words(&query))).count();
    assert_eq!(hits, 1);
    let late = AuditQuery { since: Some(WallTime(EPOCH + 100_000_000)), ..AuditQuery::default() };
    assert!(!filters.values().any(|block| may_match(block, &late, &words(&late))));
}

#[test]
fn a_cursor_into_what_was_trimmed_goes_on_with_what_is_left() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, _) = testing::open(root.path());
    let events = traffic(&mut Story::default(), 600);
    append(&mut log, &events, 200);
    Follower::spawn(&folder, log.head().seq).unwrap().stop();
    let retention = Retention { max_age_ms: None, max_bytes: Some(0) };
    log.trim(&retention, WallTime(0)).unwrap();
    let reader = AuditReader::open(folder.path()).unwrap();
    let oldest = reader.oldest().unwrap();
    assert_eq!(oldest, Seq(257));
    let query = AuditQuery { after: Some(Seq(3)), limit: 2, ..AuditQuery::default() };
    let page = reader.query(&query).unwrap();
    assert_eq!(page.items[0].seq, oldest);
    assert_eq!(page.next, Some(Seq(258)));
    assert_eq!(reader.read(Seq(3), 1).unwrap()[0].seq, oldest);
    check(&reader, &events[256..]);
}

#[test]
fn how_a_lock_ended_is_in_the_trail() {
    let root = tempfile::tempdir().unwrap();
    let (folder, mut log, _) = testing::open(root.path());
    let events = script(&mut Story::default());
    append(&mut log, &events, 200);
    let reader = AuditReader::open(folder.path()).unwrap();
    let grants = events.iter().filter_map(|event| match &event.body {
        EventBody::Acquired(grant) | EventBody::Transferred { to: grant, .. } => Some(grant),
        _ => None,
    });
    let endings: Vec<_> = grants
        .map(|grant| {
            let end = reader.how_ended(grant.lock_id).unwrap();
            (grant.holder.to_string(), end.map(|end| end.ending.as_str()))
        })
        .collect();
    let expected = [
        ("alice", Some("transferred")),
        ("bob", Some("expired")),
        ("carol", Some("broken")),
        ("dave", None),
    ];
    assert_eq!(endings, expected.map(|(name, how)| (name.to_owned(), how)));
}

#[test]
fn a_reader_of_another_process_needs_no_lock_and_no_running_server() {
    let root = tempfile::tempdir().unwrap();
    assert!(AuditReader::open(root.path()).is_err());
    let (folder, mut log, _) = testing::open(root.path());
    append(&mut log, &script(&mut Story::default()), 200);
    let head = log.head();
    assert_eq!(AuditReader::open(root.path()).unwrap().head().unwrap(), head);
    drop((folder, log));
    assert_eq!(AuditReader::open(root.path()).unwrap().head().unwrap(), head);
}
