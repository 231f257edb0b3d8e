//! Cursors of lists.

use leasehold_core::resource::Resource;
use leasehold_faces::json_api::asking::form_pairs;
use leasehold_faces::json_api::cursor as of_number;
use leasehold_upstreams::documents::cursor as of_name;

/// A cursor is what a list gave, or is refused. A line break separates a cursor, or a name that one is
/// made of, from the path of its list.
pub fn cursors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (cursor, path) = text.split_once('\n').unwrap_or((text, "/"));
    if let Some((list, position)) = of_number::decode(cursor) {
        assert_eq!(of_number::encode(list, position), cursor);
    }
    if let Ok(list) = Resource::parse(path) {
        if let Some(name) = of_name::decode(&list, cursor) {
            assert_eq!(of_name::encode(&list, &name), cursor.to_ascii_lowercase());
        }
        let made = of_name::encode(&list, cursor);
        assert_eq!(of_name::decode(&list, &made).as_deref(), Some(cursor));
        if let Ok(below) = list.child("other") {
            assert_eq!(of_name::decode(&below, &made), None);
        }
    }
    for (name, value) in form_pairs(text) {
        // A byte that is no text becomes three.
        assert!(name.len() + value.len() <= 3 * text.len());
    }
}
