//! The same events by every way they are folded.

use std::collections::BTreeMap;
use std::convert::Infallible;

use leasehold_core::event::{Event, EventBody, Record};
use leasehold_core::ids::LockId;
use leasehold_core::rows::{FoldError, Key, Meta, Row, Rows, fold, get_meta, put_meta};
use leasehold_core::state::{KEY_KEPT_MS, State};
use uuid::Uuid;

#[derive(Default)]
struct Store(BTreeMap<String, Vec<u8>>);

impl Rows for Store {
    type Error = Infallible;

    fn get(&mut self, key: &Key) -> Result<Option<Row>, FoldError<Infallible>> {
        let key = key.to_string();
        Ok(self.0.get(&key).map(|value| Row::parse(&key, value).unwrap().unwrap()))
    }

    fn put(&mut self, row: Row) -> Result<(), FoldError<Infallible>> {
        self.0.insert(row.key().to_string(), row.to_json().unwrap());
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<(), FoldError<Infallible>> {
        self.0.remove(&key.to_string());
        Ok(())
    }

    fn delete_range(&mut self, from: &Key, to: &Key) -> Result<(), FoldError<Infallible>> {
        let (from, to) = (from.to_string(), to.to_string());
        self.0.retain(|key, _| !(from <= *key && *key < to));
        Ok(())
    }
}

/// An event is the same after it has been stored and read again.
pub fn assert_round_trip(event: &Event) {
    let bytes = serde_json::to_vec(&Record::from(event)).unwrap();
    let mut written = Vec::new();
    event.write_json(&mut written).unwrap();
    assert!(written == bytes, "{event:?} is written as another record");
    let record: Record = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(record.event().unwrap(), *event);
    assert_eq!(serde_json::to_vec(&Record::from(&record.event().unwrap())).unwrap(), bytes);
}

/// Folding all events, and folding `cut` of them into rows and the rest on top, gives `live`.
pub fn assert_fold(trail: &[Event], live: &State, ids: u128, cut: usize) {
    let mut replayed = State::new(3);
    trail.iter().for_each(|event| replayed.apply(event));
    assert_same(&replayed, live, trail, ids);

    let mut store = Store::default();
    let mut meta = Meta::default();
    for (at, event) in trail[..cut].iter().enumerate() {
        fold(event, &mut meta, &mut store).unwrap();
        if at % 3 == 0 {
            put_meta(&meta, &mut store).unwrap();
            meta = get_meta(&mut store).unwrap();
        }
    }
    put_meta(&meta, &mut store).unwrap();
    let mut loaded = State::new(5);
    for (key, value) in &store.0 {
        loaded.load(Row::parse(key, value).unwrap().unwrap());
    }
    trail[cut..].iter().for_each(|event| loaded.apply(event));
    assert_same(&loaded, live, trail, ids);
}

fn assert_same(found: &State, live: &State, trail: &[Event], ids: u128) {
    assert_eq!(found.seq(), live.seq());
    assert_eq!(found.lease(), live.lease());
    assert_eq!(found.fence(), live.fence());
    assert_eq!(found.incarnation(), live.incarnation());
    assert!(found.live_locks().eq(live.live_locks()));
    assert!(found.freezes().eq(live.freezes()));
    assert!(found.open_admissions().eq(live.open_admissions()));
    for id in (1..=ids).map(|id| LockId(Uuid::from_u128(id))) {
        assert_eq!(found.ended(id), live.ended(id));
    }
    for event in trail {
        let EventBody::Acquired(grant) = &event.body else { continue };
        let Some(key) = &grant.idempotency else { continue };
        let (a, b) = (found.got_by(&grant.holder, &key.key), live.got_by(&grant.holder, &key.key));
        // Rows remember a key for longer than it counts; the next event forgets it.
        let counts = |id: LockId| {
            live.ended(id).is_none_or(|ended| live.lease().since(ended.lease) <= KEY_KEPT_MS)
        };
        assert_eq!(a.filter(|id| counts(*id)), b.filter(|id| counts(*id)));
    }
}
