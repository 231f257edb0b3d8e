//! Filters: which words may occur in a block of events.
//!
//! A Bloom filter over 64-bit hashes of words: it never misses a word that is there, and about
//! one word in two thousand that is not there seems to be. A word is a name with its part in the
//! event (kind, actor, holder, lock, resource or one above it).

use std::borrow::Cow;

use leasehold_core::event::{Event, EventBody};
use leasehold_core::ids::LockId;
use leasehold_core::lock::Grant;
use leasehold_core::resource::Resource;
use leasehold_core::time::WallTime;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The bits for each word; with [`PROBES`] one false hit in about two thousand.
const BITS_A_WORD: usize = 16;
const PROBES: u64 = 8;

/// The bytes at the end of a stored filter that are a sum over the rest.
const SUM_BYTES: usize = 8;

/// What a word is the name of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Kind = 1,
    Actor = 2,
    Holder = 3,
    Lock = 4,
    Resource = 5,
}

/// The hash of a word.
pub(crate) mod term {
    use leasehold_core::resource::Resource;

    use super::{Part, add, finish, start};

    pub(crate) fn kind(name: &str) -> u64 {
        word(Part::Kind, name)
    }

    pub(crate) fn actor(name: &str) -> u64 {
        word(Part::Actor, name)
    }

    pub(crate) fn holder(name: &str) -> u64 {
        word(Part::Holder, name)
    }

    pub(crate) fn lock(id: &str) -> u64 {
        word(Part::Lock, id)
    }

    /// A resource itself; an event has this word for each of its resources and all above them.
    pub(crate) fn resource(resource: &Resource) -> u64 {
        word(Part::Resource, resource.as_str())
    }

    fn word(part: Part, name: &str) -> u64 {
        finish(add(start(part), name.as_bytes()))
    }
}

// FNV-1a, and the finisher of MurmurHash3. Stored, so it must not change without
// `INDEX_VERSION`, which rules out the standard library's hasher.
fn start(part: Part) -> u64 {
    add(0xcbf2_9ce4_8422_2325, &[part as u8])
}

fn add(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn finish(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The members of a record that can be asked for, without copying them.
#[derive(Debug, Deserialize)]
pub(crate) struct Probe<'a> {
    pub(crate) at: WallTime,
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(crate) lock_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(crate) holder: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(crate) actor: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(crate) resources: Vec<Resource>,
    #[serde(default)]
    pub(crate) resource: Option<Resource>,
    #[serde(default, borrow)]
    pub(crate) transferred_to: Option<Successor<'a>>,
}

/// The grant that a transfer made: it can be found by what it is, too.
#[derive(Debug, Deserialize)]
pub(crate) struct Successor<'a> {
    #[serde(borrow)]
    pub(crate) lock_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) holder: Cow<'a, str>,
}

impl<'a> Probe<'a> {
    /// Reads them from the stored bytes of an event.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    fn words(&self, mut word: impl FnMut(u64)) {
        word(term::kind(&self.kind));
        self.actor.iter().for_each(|name| word(term::actor(name)));
        self.holder.iter().for_each(|name| word(term::holder(name)));
        self.lock_id.iter().for_each(|id| word(term::lock(id)));
        if let Some(successor) = &self.transferred_to {
            word(term::holder(&successor.holder));
            word(term::lock(&successor.lock_id));
        }
        for resource in self.resources.iter().chain(&self.resource) {
            resource_words(resource, &mut word);
        }
    }
}

fn event_words(event: &Event, mut word: impl FnMut(u64)) {
    word(term::kind(event.body.name()));
    event.origin.actor.iter().for_each(|name| word(term::actor(name.as_str())));
    let (subject, resource) = match &event.body {
        EventBody::Acquired(grant) => {
            grant_words(grant, &mut word);
            grant.resources.iter().for_each(|resource| resource_words(resource, &mut word));
            (None, None)
        }
        EventBody::Transferred { lock, to } => {
            grant_words(to, &mut word);
            (Some(lock), None)
        }
        EventBody::Renewed { lock, .. }
        | EventBody::Released { lock, .. }
        | EventBody::Expired { lock, .. }
        | EventBody::BreakAnnounced { lock, .. }
        | EventBody::Broken { lock, .. }
        | EventBody::Requested { lock, .. } => (Some(lock), None),
        EventBody::WriteAdmitted { lock, resource, .. }
        | EventBody::WriteCompleted { lock, resource, .. } => (Some(lock), Some(resource)),
        EventBody::WriteChecked { lock, resource, .. } => (lock.as_ref(), Some(resource)),
        EventBody::Frozen(freeze) => (None, Some(&freeze.resource)),
        EventBody::Unfrozen { resource, .. } => (None, Some(resource)),
        EventBody::Refused { resource, holder, .. } => {
            holder.iter().for_each(|name| word(term::holder(name.as_str())));
            (None, resource.as_ref())
        }
        EventBody::Recovered { .. } | EventBody::Trimmed { .. } => (None, None),
    };
    if let Some(lock) = subject {
        word(term::holder(lock.holder.as_str()));
        word(lock_word(lock.lock_id));
        lock.resources.iter().for_each(|resource| resource_words(resource, &mut word));
    }
    resource.into_iter().for_each(|resource| resource_words(resource, &mut word));
}

fn grant_words(grant: &Grant, mut word: impl FnMut(u64)) {
    word(term::holder(grant.holder.as_str()));
    word(lock_word(grant.lock_id));
}

fn lock_word(id: LockId) -> u64 {
    term::lock(id.0.hyphenated().encode_lower(&mut [0; 36]))
}

fn resource_words(resource: &Resource, mut word: impl FnMut(u64)) {
    let mut hash = start(Part::Resource);
    // `/a/b`: the word of `/a`, then, going on from there, the word of `/a/b`.
    for segment in resource.segments() {
        hash = add(add(hash, b"/"), segment.as_bytes());
        word(finish(hash));
    }
}

/// The words and the span of wall time of a block that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// In no order; one may be there more than once.
    words: Vec<u64>,
    span: Option<(WallTime, WallTime)>,
}

impl Terms {
    /// Adds one event.
    pub(crate) fn add(&mut self, probe: &Probe<'_>) {
        probe.words(|word| self.words.push(word));
        self.widen(probe.at);
    }

    /// Adds one event that has been read already.
    pub(crate) fn add_event(&mut self, event: &Event) {
        event_words(event, |word| self.words.push(word));
        self.widen(event.at);
    }

    fn widen(&mut self, at: WallTime) {
        let (min, max) = self.span.unwrap_or((at, at));
        self.span = Some((min.min(at), max.max(at)));
    }

    /// The span of wall time; an empty one if there was no event.
    pub(crate) fn span(&self) -> (WallTime, WallTime) {
        self.span.unwrap_or_default()
    }

    /// The filter, and an empty set again.
    pub(crate) fn seal(&mut self) -> Filter {
        self.words.sort_unstable();
        self.words.dedup();
        let bytes = (self.words.len() * BITS_A_WORD).div_ceil(8).max(8);
        let mut filter = Filter { bits: vec![0; bytes] };
        for word in self.words.drain(..) {
            filter.insert(word);
        }
        self.span = None;
        filter
    }
}

/// A Bloom filter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Filter {
    bits: Vec<u8>,
}

impl Filter {
    /// Whether the word may be there; `false` is certain.
    pub(crate) fn may_have(&self, word: u64) -> bool {
        self.places(word).all(|(byte, bit)| self.bits[byte] & bit != 0)
    }

    fn insert(&mut self, word: u64) {
        for (byte, bit) in self.places(word) {
            self.bits[byte] |= bit;
        }
    }

    fn places(&self, word: u64) -> impl Iterator<Item = (usize, u8)> + use<> {
        let size = self.bits.len() as u64 * 8;
        // Two halves make all places (Kirsch and Mitzenmacher); the step is odd, never 0.
        let step = (word >> 32) | 1;
        (0..PROBES).map(move |probe| {
            let place = (word.wrapping_add(step.wrapping_mul(probe))) % size;
            // Below the length of a `Vec`.
            (place as usize / 8, 1 << (place % 8))
        })
    }

    /// As stored: the bits, and a sum over them.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bits.clone();
        bytes.extend_from_slice(&sum(&self.bits));
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote; none if it is damaged.
    pub(crate) fn from_bytes(mut bytes: Vec<u8>) -> Option<Self> {
        let bits = bytes.len().checked_sub(SUM_BYTES).filter(|bits| *bits > 0)?;
        let stored = bytes.split_off(bits);
        (stored == sum(&bytes)).then_some(Self { bits: bytes })
    }
}

fn sum(bits: &[u8]) -> [u8; SUM_BYTES] {
    let digest: [u8; 32] = Sha256::digest(bits).into();
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&digest[..SUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use leasehold_core::event::Record;

    use super::*;
    use crate::testing::{Story, script};

    #[test]
    fn an_event_has_the_words_of_its_stored_form() {
        for event in script(&mut Story::default()) {
            let stored = serde_json::to_vec(&Record::from(&event)).unwrap();
            let (mut by_event, mut by_stored) = (Terms::default(), Terms::default());
            by_event.add_event(&event);
            by_stored.add(&Probe::read(&stored).unwrap());
            assert_eq!(by_event.span(), by_stored.span());
            assert_eq!(by_event.seal(), by_stored.seal(), "{event:?}");
        }
    }

    #[test]
    fn a_filter_never_misses_and_seldom_finds_what_is_not_there() {
        let mut terms = Terms::default();
        for number in 0..2000 {
            terms.words.push(term::lock(&number.to_string()));
        }
        let filter = Filter::from_bytes(terms.seal().to_bytes()).unwrap();
        assert!((0..2000).all(|number| filter.may_have(term::lock(&number.to_string()))));
        let wrong = (2000..22_000)
            .filter(|number| filter.may_have(term::lock(&number.to_string())))
            .count();
        assert!(wrong < 60, "{wrong} of 20000 words seemed to be there");
    }

    #[test]
    fn a_resource_is_found_by_every_resource_above_it() {
        let text = r#"{"at":"2026-11-20T12:00:00.000Z","type":"frozen","resource":"/a/b%20c/d"}"#;
        let mut terms = Terms::default();
        terms.add(&Probe::read(text.as_bytes()).unwrap());
        let filter = terms.seal();
        for path in ["/a", "/a/b%20c", "/a/b%20c/d"] {
            assert!(filter.may_have(term::resource(&Resource::parse(path).unwrap())), "{path}");
        }
        for path in ["/b", "/a/b", "/a/b%20c/d/e"] {
            assert!(!filter.may_have(term::resource(&Resource::parse(path).unwrap())), "{path}");
        }
    }

    #[test]
    fn a_damaged_filter_is_no_filter() {
        let mut bytes = Terms::default().seal().to_bytes();
        bytes[0] ^= 1;
        assert_eq!(Filter::from_bytes(bytes), None);
    }
}
