//! Records of the journal.

use leasehold_core::event::Record;
use leasehold_core::rows::Row;
use leasehold_core::state::State;
use leasehold_journal::log::{from_hex, hex};

/// A record that can be read is written again as something that means the same, and an event of it
/// survives being stored. A line break separates the key of a row of the index from its value.
pub fn records(data: &[u8]) {
    if let Ok(record) = serde_json::from_slice::<Record>(data) {
        let written = serde_json::to_vec(&record).unwrap();
        let again: Record = serde_json::from_slice(&written).unwrap();
        assert_eq!(serde_json::to_vec(&again).unwrap(), written);
        if let Ok(event) = record.event() {
            let stored = serde_json::to_vec(&Record::from(&event)).unwrap();
            let read: Record = serde_json::from_slice(&stored).unwrap();
            assert_eq!(read.event().unwrap(), event);
        }
        // What it is about can be asked of any.
        let _ = record.subject();
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(hash) = from_hex(text) {
        assert_eq!(hex(&hash), text.to_lowercase());
    }
    let (key, value) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(Some(row)) = Row::parse(key, value.as_bytes()) {
        State::new(1).load(row);
    }
}
